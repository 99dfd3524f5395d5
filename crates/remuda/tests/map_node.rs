//! `--node`: the contract of `sdk/node/README.md`, through the command line.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod map_runs;

use std::path::Path;

use map_runs::{Ran, folder, has, lines, map_in, numbers, write};

const WORK: &str = r#"
export const upper = (text) => text.toUpperCase();
export default (text) => text + "!";
export const kind = (value) => typeof value;
export const nothing = () => undefined;
export const bytes = (text) => Buffer.from(text);
export const lines = () => "a\nb";
export function fail(text) { throw new TypeError("no " + text); }
export async function slowly(text) { await new Promise((done) => setTimeout(done, 1000)); return text; }
slowly.capacity = 64;
export const sizes = (texts) => texts.map((t) => t === "13" ? new RangeError("odd") : t + "!");
sizes.batch = 8;
export const slot = () => process.env.REMUDA_WORKER_SLOT;
export const prints = (text) => { console.log("stray", text); return text; };
export const leaves = () => process.exit(3);
export const tool = { use: (text) => [...text].reverse().join("") };
export const nan = () => NaN;
"#;

fn node(dir: &Path, target: &str, options: &[&str], input: &str) -> Ran {
    let mut args = vec!["-j2", "-k", "--node", target];
    args.extend_from_slice(options);
    map_in(dir, &args, input)
}

fn work() -> Option<tempfile::TempDir> {
    if !has("node") {
        return None;
    }
    let dir = folder();
    write(dir.path(), "work.mjs", WORK);
    Some(dir)
}

#[test]
fn lines_go_through_a_function_in_order() {
    let Some(dir) = work() else { return };
    let input: String = (0..5000).map(|n| format!("line {n}\n")).collect();
    let ran = node(dir.path(), "work.mjs:upper", &[], &input).quiet();
    assert_eq!(ran.text(), input.to_uppercase());
}

#[test]
fn what_functions_take_and_return() {
    let Some(dir) = work() else { return };
    let dir = dir.path();
    assert_eq!(node(dir, "work.mjs:kind", &[], "1\n").quiet().text(), "string\n");
    let ran = node(dir, "work.mjs:kind", &["--json"], "1\n{}\ntrue\n").quiet();
    assert_eq!(ran.text(), "\"number\"\n\"object\"\n\"boolean\"\n");
    assert_eq!(node(dir, "work.mjs:nothing", &[], "1\n").quiet().text(), "null\n");
    assert_eq!(node(dir, "work.mjs:bytes", &[], "a\u{e9}\n").quiet().text(), "a\u{e9}\n");
    node(dir, "work.mjs:nan", &[], "1\n").expect(1).tells(&["handler_error"]);
    node(dir, "work.mjs:lines", &[], "1\n").expect(1).tells(&["use --json"]);
    assert_eq!(node(dir, "work.mjs:default", &[], "1\n").quiet().text(), "1!\n");
    assert_eq!(node(dir, "work.mjs:tool.use", &[], "abc\n").quiet().text(), "cba\n");
}

#[test]
fn exceptions_fail_their_job_with_a_stack_in_errors() {
    let Some(dir) = work() else { return };
    node(dir.path(), "work.mjs:fail", &["--errors", "errors"], "x\ny\n")
        .expect(2)
        .tells(&["line 1: handler_error: TypeError: no x"]);
    let error: serde_json::Value = serde_json::from_str(&lines(dir.path(), "errors")[0]).unwrap();
    let stack = error["traceback"].as_str().unwrap();
    assert!(stack.contains("work.mjs"), "{stack}");
}

#[test]
fn capacity_and_batches() {
    let Some(dir) = work() else { return };
    let began = std::time::Instant::now();
    let ran = node(dir.path(), "work.mjs:slowly", &[], &numbers(120)).quiet();
    assert_eq!(ran.text(), numbers(120));
    // One after the other they would take a minute on two workers.
    assert!(began.elapsed().as_secs() < 45, "{:?}", began.elapsed());
    let ran = node(dir.path(), "work.mjs:sizes", &["--on-error", "null"], &numbers(20)).expect(1);
    assert_eq!(ran.text().lines().nth(12), Some("null"));
    assert_eq!(ran.text().lines().nth(19), Some("20!"));
    ran.says("remuda: line 13: handler_error: RangeError: odd");
}

#[test]
fn slots_prints_and_exits() {
    let Some(dir) = work() else { return };
    let ran = node(dir.path(), "work.mjs:slot", &[], &numbers(50)).quiet();
    assert!(ran.text().lines().all(|slot| slot == "0" || slot == "1"), "{}", ran.text());
    let ran = node(dir.path(), "work.mjs:prints", &[], "a\n").expect(0);
    assert_eq!(ran.text(), "a\n");
    ran.tells(&["[worker", "stray a"]);
    node(dir.path(), "work.mjs:leaves", &["--at-most-once"], "1\n")
        .expect(1)
        .says("remuda: line 1: worker_lost: the worker exited with status 3 while it had the job");
}

#[test]
fn what_cannot_be_loaded_is_one_line() {
    let Some(dir) = work() else { return };
    write(dir.path(), "syntax.mjs", "export const f = (;\n");
    for (target, parts) in [
        ("none.mjs:f", &["there is no file /", "/none.mjs"][..]),
        ("syntax.mjs:f", &["SyntaxError"]),
        ("work.mjs:none_such", &["none_such"]),
    ] {
        let ran = node(dir.path(), target, &[], &numbers(3)).expect(255);
        let first = ran.stderr.lines().next().unwrap();
        assert!(first.starts_with("remuda: no worker can be started: cannot run"), "{first}");
        assert!(parts.iter().all(|part| first.contains(part)), "{first}");
    }
}
