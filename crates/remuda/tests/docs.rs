//! The pages name every option that there is, and none that there isn't; and a package of the crate
//! holds what the binary is made of.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use remuda::dispatch::{MEMORY_HEADROOM_PERCENT, MEMORY_SAMPLES, NUM_WORKERS_MAX};
use remuda::engine::{KILL_GRACE, Overload};
use remuda::{PoolConfig, WorkerKind};

/// Words that begin with two hyphens, as options do.
fn options(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '-';
    let words = text.split(|c: char| !is_part(c)).filter_map(|word| word.strip_prefix("--"));
    let named = words.filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
    named.map(|word| format!("--{}", word.trim_end_matches('-'))).collect()
}

fn help(command: &str) -> BTreeSet<String> {
    let out = Command::new(env!("CARGO_BIN_EXE_remuda")).args([command, "--help"]).output();
    let text = String::from_utf8(out.unwrap().stdout).unwrap();
    // Each option's own line, and not what is said of others.
    let lines = text.lines().map(str::trim_start);
    lines
        .filter(|line| line.starts_with('-'))
        .flat_map(|line| options(line).into_iter().take(1))
        .collect()
}

fn pages(names: &[&str]) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = |name: &&str| options(&std::fs::read_to_string(root.join(name)).unwrap());
    names.iter().flat_map(page).collect()
}

/// Those of other programs.
const FOREIGN: [&str; 7] = [
    "--example",
    "--line-buffered",
    "--path",
    "--quick",
    "--release",
    "--unbuffered",
    "--workspace",
];

#[test]
fn every_option_has_its_words_on_a_page() {
    let told = pages(&["docs/map.md", "docs/serve.md", "docs/metrics.md", "README.md"]);
    for command in ["map", "serve"] {
        let mut untold = help(command);
        untold.retain(|option| !told.contains(option));
        let general = ["--help", "--version"];
        untold.retain(|option| !general.contains(&option.as_str()));
        assert!(untold.is_empty(), "no page tells of {untold:?} of `{command}`");
    }
}

#[test]
fn no_page_names_an_option_that_is_not_there() {
    let commands = ["map", "serve", "call", "status", "reset", "stop", "bench"];
    let mut known: BTreeSet<String> = commands.into_iter().flat_map(help).collect();
    known.extend(FOREIGN.map(str::to_owned));
    let names =
        ["docs/map.md", "docs/serve.md", "docs/metrics.md", "docs/protocol.md", "README.md"];
    let wrong: Vec<_> = pages(&names).into_iter().filter(|name| !known.contains(name)).collect();
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn every_help_has_examples_and_the_exit_statuses() {
    for command in ["map", "serve", "call", "status", "reset", "stop", "bench"] {
        let out = Command::new(env!("CARGO_BIN_EXE_remuda")).args([command, "--help"]).output();
        let help = String::from_utf8(out.unwrap().stdout).unwrap();
        for part in ["Examples:\n", &format!("  remuda {command}"), "Exit status: 0 ", "255 any"] {
            assert!(help.contains(part), "no {part:?} in {help}");
        }
    }
}

#[test]
fn the_limits_on_the_pages_are_the_defaults() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let (serve, map) = (page("docs/serve.md"), page("docs/map.md"));
    let pool = PoolConfig::new(WorkerKind::None);
    let (dispatch, overload) = (&pool.dispatch, Overload::default());
    assert_eq!((dispatch.max_queue_size, NUM_WORKERS_MAX), (4096, 4096));
    assert_eq!((dispatch.poison_after, MEMORY_SAMPLES, MEMORY_HEADROOM_PERCENT), (3, 3, 25));
    assert_eq!(KILL_GRACE, Duration::from_secs(1));
    let mib = |bytes: usize| format!("{} MiB", bytes >> 20);
    let s = |time: Duration| format!("{} s", time.as_secs());
    let ms = |time: Duration| format!("{} ms", time.as_millis());
    let restart = &dispatch.restart;
    for part in [
        "`--max-queue-size` | 4,096 |".to_owned(),
        "one a core, at most 4,096".to_owned(),
        "A job under which three workers died".to_owned(),
        "three samples in a row".to_owned(),
        "grow by a quarter of its first sample".to_owned(),
        format!("less up to {} % at random", dispatch.max_jobs_jitter),
        format!("`--max-body-bytes` | {}, at most 1 GiB |", mib(pool.max_body_bytes)),
        format!("bytes of all bodies that have not ended | {} |", mib(pool.max_bodies_bytes)),
        format!("no end yet, over all connections | {} |", mib(pool.max_unfinished_bytes)),
        format!("a line's first byte to its end | {} |", s(pool.line_timeout)),
        format!("takes no byte of its answers | {} |", s(pool.write_timeout)),
        format!("`--watch-tick TIME` | {}, ", s(pool.watch_tick)),
        format!("`--allocate-timeout TIME` | {} |", s(dispatch.allocate_timeout)),
        format!("`--destroy-timeout TIME` | {} |", s(dispatch.destroy_timeout)),
        format!("`--reset-timeout TIME` | {} |", s(dispatch.reset_timeout)),
        format!("random time of at most {}, twice as much", ms(restart.base)),
        format!("at most {} if it was ready", ms(restart.busy_cap)),
        format!("had a job, {} if not", s(restart.cap)),
        format!("the queue was not empty for {}", ms(overload.interval)),
        format!("once it waited for {}", ms(overload.wait)),
    ] {
        assert!(serve.contains(&part), "docs/serve.md has no {part:?}");
    }
    for part in [
        "SIGTERM, a second later SIGKILL".to_owned(),
        format!("`--allocate-timeout TIME` ({})", s(dispatch.allocate_timeout)),
        format!("`--destroy-timeout TIME` ({})", s(dispatch.destroy_timeout)),
        format!("`--max-body-bytes SIZE` ({}M)", pool.max_body_bytes >> 20),
        format!(
            "| `--poison-after N` | a job under which N workers died fails as `poisoned` | {} |",
            dispatch.poison_after
        ),
    ] {
        assert!(map.contains(&part), "docs/map.md has no {part:?}");
    }
}

#[test]
fn the_sdks_have_the_version_of_the_crates() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let python: toml::Table = read("sdk/python/pyproject.toml").parse().unwrap();
    assert_eq!(python["project"]["version"].as_str(), Some(env!("CARGO_PKG_VERSION")));
    let node: serde_json::Value = serde_json::from_str(&read("sdk/node/package.json")).unwrap();
    assert_eq!(node["version"].as_str(), Some(env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_package_holds_the_shims() {
    let list = Command::new(env!("CARGO"))
        .args(["package", "--list", "--allow-dirty", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let files = String::from_utf8_lossy(&list.stdout);
    for (dir, entries) in [("cli", &["interpreter.rs"][..]), ("shim", &["remuda.mjs", "remuda.py"])]
    {
        for entry in entries {
            let path = format!("src/{dir}/{entry}");
            assert!(files.lines().any(|line| line == path), "no {path} in {files}");
        }
    }
    // And nothing is taken from outside of it.
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/interpreter.rs");
    let source = std::fs::read_to_string(source).unwrap();
    assert!(source.contains("include_str!(\"../shim/remuda.py\")"), "where is the shim?");
    assert!(!source.contains("../../"), "the package lacks what is above it");
}
