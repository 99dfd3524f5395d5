//! The commands that the first pages print run as they are written, in the repository's folder.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod map_runs;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use map_runs::{REMUDA, has};

/// The lines of a page's blocks of shell that run `remuda map`, and need no other build.
fn commands(page: &str) -> Vec<&str> {
    let mut is_shell = false;
    let lines = page.lines().filter(|line| {
        if line.starts_with("```") {
            is_shell = *line == "```sh";
        }
        is_shell && line.contains("remuda map") && !line.contains("cargo")
    });
    lines.collect()
}

#[test]
fn every_command_that_maps_succeeds_and_says_nothing_else() {
    if !["bash", "git", "jq", "node", "python3"].into_iter().all(has) {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", Path::new(REMUDA).parent().unwrap().display());
    let mut ran = BTreeSet::new();
    for (name, count) in [("README.md", 5), ("examples/README.md", 11)] {
        let page = std::fs::read_to_string(root.join(name)).unwrap();
        let commands = commands(&page);
        assert_eq!(commands.len(), count, "{name}: {commands:?}");
        for line in commands {
            if !ran.insert(line.to_owned()) {
                continue;
            }
            let mut bash = Command::new("bash");
            bash.args(["-o", "pipefail", "-c", line]).env("PATH", &path).current_dir(&root);
            let out = bash.stdin(Stdio::null()).output().unwrap();
            let stderr = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success() && stderr.is_empty(), "{name}: {line}: {stderr}");
            assert!(!out.stdout.is_empty(), "{name}: {line}");
        }
    }
}
