//! `--python`: the contract of `sdk/python/README.md`, through the command line.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod map_runs;

use std::path::Path;

use map_runs::{Ran, command, folder, has, lines, map_in, numbers, read, write};

const WORK: &str = r#"
import asyncio, os, sys
def upper(text): return text.upper()
def kind(value): return type(value).__name__
def none(text): return None
def raw(text): return text.encode()
def broken_bytes(text): return b"\xff"
def lines(text): return "a\nb"
def fail(text): return {}[text]
def path(text): return sys.path[0]
def name(text): return __name__
def threads(text): return os.environ["OMP_NUM_THREADS"]
def slot(text): return os.environ["REMUDA_WORKER_SLOT"]
def prints(text):
    print("stray", text)
    return text
def leaves(text): sys.exit(3)
def executable(text): return sys.executable
async def slowly(text):
    await asyncio.sleep(1)
    return text
def nan(text): return float("nan")
class Tool:
    @staticmethod
    def use(text): return text[::-1]
"#;

const BATCH: &str = r#"
import remuda
@remuda.batch(8)
def sizes(texts):
    assert isinstance(texts, list) and len(texts) <= 8
    return [ValueError("odd") if t == "13" else t + "!" for t in texts]
"#;

fn python(dir: &Path, function: &str, options: &[&str], input: &str) -> Ran {
    let mut args = vec!["-j2", "-k", "--python", function];
    args.extend_from_slice(options);
    map_in(dir, &args, input)
}

fn work() -> Option<tempfile::TempDir> {
    if !has("python3") {
        return None;
    }
    let dir = folder();
    write(dir.path(), "work.py", WORK);
    Some(dir)
}

#[test]
fn lines_go_through_a_function_in_order() {
    let Some(dir) = work() else { return };
    let input: String = (0..5000).map(|n| format!("line {n}\n")).collect();
    let ran = python(dir.path(), "work.py:upper", &[], &input).quiet();
    assert_eq!(ran.text(), input.to_uppercase());
}

#[test]
fn a_line_is_text_and_with_json_it_is_the_value() {
    let Some(dir) = work() else { return };
    assert_eq!(python(dir.path(), "work.py:kind", &[], "1\n").quiet().text(), "str\n");
    let ran = python(dir.path(), "work.py:kind", &["--json"], "1\n[]\n{}\nnull\n\"x\"\n").quiet();
    assert_eq!(ran.text(), "\"int\"\n\"list\"\n\"dict\"\n\"NoneType\"\n\"str\"\n");
}

#[test]
fn what_functions_return() {
    let Some(dir) = work() else { return };
    assert_eq!(python(dir.path(), "work.py:none", &[], "1\n").quiet().text(), "null\n");
    assert_eq!(python(dir.path(), "work.py:raw", &[], "a\u{e9}\n").quiet().text(), "a\u{e9}\n");
    python(dir.path(), "work.py:broken_bytes", &[], "1\n")
        .expect(1)
        .tells(&["handler_error", "UTF-8"]);
    python(dir.path(), "work.py:nan", &[], "1\n").expect(1).tells(&["handler_error"]);
    python(dir.path(), "work.py:lines", &[], "1\n")
        .expect(1)
        .says("remuda: line 1: handler_error: the result holds a line break: use --json, or return one line");
    let ran = python(dir.path(), "work.py:lines", &["--json"], "1\n").quiet();
    assert_eq!(ran.text(), "\"a\\nb\"\n");
}

#[test]
fn exceptions_fail_their_job_with_a_traceback_in_errors() {
    let Some(dir) = work() else { return };
    let ran = python(dir.path(), "work.py:fail", &["--errors", "errors"], "x\nx\ny\n").expect(3);
    ran.tells(&["line 1: handler_error: KeyError: 'x'"])
        .tells(&["handler_error: KeyError: 'x', 2 times, first at line 1"]);
    let errors = lines(dir.path(), "errors");
    assert_eq!(errors.len(), 3);
    for (error, input) in errors.iter().zip(["x", "x", "y"]) {
        let error: serde_json::Value = serde_json::from_str(error).unwrap();
        assert_eq!(error["input"], input);
        let traceback = error["traceback"].as_str().unwrap();
        assert!(traceback.contains("in fail") && traceback.contains("work.py"), "{traceback}");
    }
}

#[test]
fn files_modules_and_methods_are_found() {
    let Some(dir) = work() else { return };
    std::fs::create_dir_all(dir.path().join("pkg/sub")).unwrap();
    write(&dir.path().join("pkg"), "__init__.py", "");
    write(&dir.path().join("pkg/sub"), "__init__.py", "");
    write(&dir.path().join("pkg/sub"), "mod.py", "def f(t): return t + '?'\n");
    assert_eq!(python(dir.path(), "pkg.sub.mod:f", &[], "1\n").quiet().text(), "1?\n");
    assert_eq!(python(dir.path(), "work.py:Tool.use", &[], "abc\n").quiet().text(), "cba\n");
    assert_eq!(python(dir.path(), "work.py:name", &[], "1\n").quiet().text(), "work\n");
    let real = dir.path().canonicalize().unwrap();
    let file = dir.path().join("work.py:path");
    let ran = python(Path::new("/"), file.to_str().unwrap(), &[], "1\n").quiet();
    assert_eq!(Path::new(ran.text().trim()).canonicalize().unwrap(), real);
}

#[test]
fn async_functions_run_many_jobs_at_once() {
    let Some(dir) = work() else { return };
    let began = std::time::Instant::now();
    let ran = python(dir.path(), "work.py:slowly", &[], &numbers(120)).quiet();
    assert_eq!(ran.text(), numbers(120));
    // One after the other they would take a minute on two workers.
    assert!(began.elapsed().as_secs() < 45, "{:?}", began.elapsed());
}

#[test]
fn batch_handlers_take_a_list_and_fail_one_by_one() {
    let Some(dir) = work() else { return };
    write(dir.path(), "batch.py", BATCH);
    let ran = python(dir.path(), "batch.py:sizes", &["--on-error", "null"], &numbers(20)).expect(1);
    let wanted: String =
        (1..=20).map(|n| if n == 13 { "null\n".to_owned() } else { format!("{n}!\n") }).collect();
    assert_eq!(ran.text(), wanted);
    ran.says("remuda: line 13: handler_error: ValueError: odd");
}

#[test]
fn slots_threads_and_stray_prints() {
    let Some(dir) = work() else { return };
    let ran = python(dir.path(), "work.py:slot", &[], &numbers(50)).quiet();
    assert!(ran.text().lines().all(|slot| slot == "0" || slot == "1"), "{}", ran.text());
    assert_eq!(python(dir.path(), "work.py:threads", &[], "1\n").quiet().text(), "1\n");
    let args = ["-j1", "--python", "work.py:threads"];
    let mut set = command(dir.path(), &args);
    set.env("OMP_NUM_THREADS", "3");
    let out = assert_cmd::Command::from_std(set).write_stdin("1\n").output().unwrap();
    assert_eq!(out.stdout, b"3\n");
    let ran = python(dir.path(), "work.py:prints", &[], "a\n").expect(0);
    assert_eq!(ran.text(), "a\n");
    ran.tells(&["[worker", "stray a"]);
}

#[test]
fn an_exit_loses_the_worker_and_not_the_run() {
    let Some(dir) = work() else { return };
    python(dir.path(), "work.py:leaves", &["--at-most-once"], "1\n")
        .expect(1)
        .says("remuda: line 1: worker_lost: the worker exited with status 3 while it had the job");
}

#[test]
fn the_interpreter_is_the_named_one_else_the_active_environment_s() {
    let Some(dir) = work() else { return };
    let venv = dir.path().join("venv/bin");
    std::fs::create_dir_all(&venv).unwrap();
    let which = std::process::Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .unwrap();
    let real = String::from_utf8(which.stdout).unwrap();
    let script = format!("#!/bin/sh\nFROM=venv exec {} \"$@\"\n", real.trim());
    // A process of its own writes it: nobody can run what a child of this one has open.
    let (script, python) = (write(dir.path(), "script", script), venv.join("python"));
    let copied = std::process::Command::new("cp").arg(script).arg(&python).status();
    assert!(copied.unwrap().success());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&python, mode).unwrap();
    write(dir.path(), "env.py", "import os\ndef f(t): return os.environ.get('FROM', 'path')\n");
    let run = |options: &[&str], venv: bool| {
        let mut args = vec!["-j1", "--python", "env.py:f"];
        args.extend_from_slice(options);
        let mut command = command(dir.path(), &args);
        command.env_remove("VIRTUAL_ENV");
        if venv {
            command.env("VIRTUAL_ENV", dir.path().join("venv"));
        }
        let out = assert_cmd::Command::from_std(command).write_stdin("1\n").output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    assert_eq!(run(&[], false), "path\n");
    assert_eq!(run(&[], true), "venv\n");
    assert_eq!(run(&["--python-bin", python.to_str().unwrap()], false), "venv\n");
    assert_eq!(run(&["--python-bin", real.trim()], true), "path\n");
}

#[test]
fn what_cannot_be_loaded_is_one_line() {
    let Some(dir) = work() else { return };
    write(dir.path(), "syntax.py", "def f(:\n");
    write(dir.path(), "raises.py", "raise RuntimeError('at import')\n");
    for (target, parts) in [
        ("none.py:f", &["there is no file /", "/none.py"][..]),
        ("syntax.py:f", &["syntax.py, line 1", "SyntaxError"]),
        ("work.py:absent", &["work.py has no function absent; it has Tool"]),
        ("work.py:WORK", &["work.py has no function WORK"]),
        ("raises.py:f", &["RuntimeError: at import"]),
        ("no.such.module:f", &["there is no module no"]),
        ("work.py", &["name the function too"]),
    ] {
        let ran = python(dir.path(), target, &[], &numbers(3)).expect(255);
        assert_eq!(ran.text(), "");
        let first = ran.stderr.lines().next().unwrap();
        assert!(first.starts_with("remuda: no worker can be started: cannot run"), "{first}");
        assert!(parts.iter().all(|part| first.contains(part)), "{first}");
    }
    let args = ["--python-bin", "./no-python", "--python", "work.py:upper"];
    map_in(dir.path(), &args, "1\n").expect(255).says(
        "remuda: no worker can be started: worker command `./no-python` not found: install it or \
         give its path",
    );
    assert_eq!(read(dir.path(), "syntax.py"), "def f(:\n");
}
