//! Bad input and bad workers: each ends with a clear line that says what to do, and the status that
//! `docs/map.md` lists.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod map_runs;

use std::path::Path;

use map_runs::{folder, map, map_in, numbers, shell_worker, write};

/// A worker whose whole life is this script.
fn worker(dir: &Path, script: &str) -> String {
    write(dir, "wrong.sh", script).to_str().unwrap().to_owned()
}

#[test]
fn commands_that_do_not_start() {
    let dir = folder();
    write(dir.path(), "plain", "no program");
    for (command, wanted) in [
        ("./none", "worker command `./none` not found: install it or give its path"),
        ("no-such-program-anywhere", "worker command `no-such-program-anywhere` not found"),
        ("./plain", "worker command `./plain` may not be executed"),
        ("/", "worker command `/` is a directory: give the program inside it"),
    ] {
        let ran = map_in(dir.path(), &["-j4", "--", command], numbers(3)).expect(255);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        ran.tells(&["remuda: no worker can be started: ", wanted]);
    }
}

#[test]
fn a_worker_that_exits_at_once_is_tried_three_times_a_slot() {
    let dir = folder();
    let script = worker(dir.path(), "echo boom >&2; echo bang >&2; exit 3");
    map(&["-j2", "--", "sh", &script], numbers(3)).expect(255).says(
        "remuda: no worker could be started in 6 tries: the worker exited with status 3 before it \
         answered the handshake; it printed:\n  boom\n  bang\n\
         remuda: a command speaks the protocol; a filter of lines needs --stdio",
    );
}

#[test]
fn a_worker_that_cannot_be_configured_is_tried_once() {
    let dir = folder();
    let script = worker(dir.path(), "echo 'no model file: give MODEL' >&2; exit 78");
    map(&["-j1", "--", "sh", &script], numbers(3)).expect(255).says(
        "remuda: no worker can be started: the worker exited with status 78 before it answered the \
         handshake; it printed:\n  no model file: give MODEL",
    );
}

#[test]
fn handshakes_that_are_none() {
    let dir = folder();
    let v2 = r#"read -r line <&3; echo '{"ok":true,"data":{"kind":"handshake","version":"2","instance":"t","pid":1,"capacity":1,"ordered":true,"batch":0}}' >&3; read -r x <&3"#;
    let refuses = r#"read -r line <&3; echo '{"ok":false,"code":"unauthorized","error":"no licence: set KEY"}' >&3; read -r x <&3"#;
    for (script, wanted) in [
        (
            "echo 'HTTP/1.1 400 Bad Request' >&3; sleep 100",
            &["did not answer the handshake", "HTTP/1.1"][..],
        ),
        (v2, &["version \"2\"", "upgrade the older"]),
        (refuses, &["no licence: set KEY"]),
        ("head -c 200000 /dev/zero | tr '\\0' x >&3; sleep 100", &["handshake is too long"]),
    ] {
        let script = worker(dir.path(), script);
        let ran = map(&["-j2", "--", "sh", &script], numbers(3)).expect(255);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        ran.tells(&["remuda: no worker can be started: "]).tells(wanted);
    }
}

#[test]
fn a_worker_that_never_answers_the_handshake() {
    let dir = folder();
    let script = worker(dir.path(), "sleep 1000");
    map(&["-j1", "--allocate-timeout", "300ms", "--", "sh", &script], numbers(3)).expect(255).says(
        "remuda: no worker could be started in 3 tries: the worker did not answer the handshake \
         within allocate_timeout: it must answer as docs/protocol.md says; if it needs longer to \
         start, raise allocate_timeout\n\
         remuda: a command speaks the protocol; a filter of lines needs --stdio",
    );
}

#[test]
fn a_slow_start_is_no_failure() {
    let dir = folder();
    let script = shell_worker(dir.path(), "w.sh", "ok $body");
    let slow = worker(dir.path(), &format!("sleep 2; . {script}"));
    assert_eq!(map(&["-j1", "--", "sh", &slow], numbers(3)).quiet().text(), numbers(3));
}

#[test]
fn answers_that_are_none_poison_their_job_alone() {
    let dir = folder();
    let unknown = r#"say '{"id":999,"ok":true,"data":{"kind":"result","body":1}}'"#;
    let garbage = "say '{nope'";
    for (wrong, wanted) in [
        (unknown, "the worker broke the protocol: it answered a call that it was not sent"),
        (garbage, "the worker sent what is no reply"),
    ] {
        let job = format!("case $body in '\"2\"') {wrong};; *) ok $body;; esac");
        let script = shell_worker(dir.path(), "w.sh", &job);
        let ran = map(&["-j1", "-k", "--", "sh", &script], numbers(4)).expect(1);
        assert_eq!(ran.text(), "1\n3\n4\n");
        ran.tells(&["remuda: line 2: poisoned: 3 workers died", wanted, "docs/protocol.md"]);
    }
}

#[test]
fn a_second_answer_replaces_the_worker_and_costs_no_result() {
    let dir = folder();
    let script = shell_worker(dir.path(), "w.sh", "ok $body; [ $body = '\"2\"' ] && ok $body");
    let ran = map(&["-j1", "-k", "--", "sh", &script], numbers(4)).expect(0);
    assert_eq!(ran.text(), numbers(4));
    ran.tells(&["the worker broke the protocol", "had answered already", "it is replaced"]);
}

#[test]
fn a_flood_of_what_is_no_answer_is_told_of_once() {
    let dir = folder();
    let without_end = "tr '\\0' x </dev/zero >&3";
    for (flood, wanted) in [
        ("yes '{}' >&3", "`ok` is missing"),
        (without_end, "it is too long or nested too deep, and begins with no id"),
        (
            "yes '{\"id\":999,\"ok\":true,\"data\":{\"kind\":\"result\",\"body\":1}}' >&3",
            "a call that it was not sent",
        ),
    ] {
        let job = format!("case $body in '\"2\"') {flood};; *) ok $body;; esac");
        let script = shell_worker(dir.path(), "w.sh", &job);
        let args = ["-j1", "-k", "--max-body-bytes", "1K", "--", "sh", &script];
        let ran = map(&args, numbers(3)).expect(1);
        assert_eq!(ran.text(), "1\n3\n");
        // When the first of them sent it, and as the reason why the job failed.
        assert_eq!(ran.stderr.lines().count(), 2, "{}", ran.stderr);
        ran.tells(&["it is replaced", wanted])
            .tells(&["remuda: line 2: poisoned: 3 workers died", wanted]);
    }
}

#[test]
fn a_worker_that_speaks_first_is_told_of_by_what_it_said_first() {
    let dir = folder();
    let script = worker(
        dir.path(),
        r#"printf 'hello\n{"ok":true,"data":{"kind":"handshake","version":"1"}}\n' >&3; read -r x <&3"#,
    );
    let ran = map(&["-j1", "--", "sh", &script], numbers(3)).expect(255);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    ran.tells(&["remuda: no worker can be started: ", "did not answer the handshake", "hello"]);
}

#[test]
fn a_worker_that_closes_its_connection_and_stays_is_told_of() {
    let dir = folder();
    let script = shell_worker(dir.path(), "w.sh", "exec 3>&-; sleep 1000");
    let filter = "exec >&-; sleep 1000";
    for (args, wanted) in [
        (
            &["--", "sh", &script][..],
            "the worker closed its connection to the pool and did not end",
        ),
        (&["--stdio", "--", "sh", "-c", filter], "the filter closed its stdout and did not end"),
    ] {
        let args = [&["-j1", "--poison-after", "1"], args].concat();
        map(&args, "1\n").expect(1).tells(&[
            "remuda: line 1: poisoned: 1 workers died",
            wanted,
            "so it was killed",
        ]);
    }
}

#[test]
fn the_words_of_a_handler_repaint_no_terminal() {
    let dir = folder();
    let job =
        r#"say '{"id":'$id',"ok":false,"code":"handler_error","error":"red \u001b[31m\u009b2J"}'"#;
    let script = shell_worker(dir.path(), "w.sh", job);
    map(&["-j1", "--", "sh", &script], "1\n")
        .expect(1)
        .says("remuda: line 1: handler_error: red \u{fffd}[31m\u{fffd}2J");
}

#[test]
fn bodies_over_the_limit() {
    let dir = folder();
    let input = format!("a\n{}\nb\n", "x".repeat(3000));
    let args = ["-j1", "-k", "--max-body-bytes", "2K", "--builtin", "echo"];
    let ran = map(&args, input).expect(1);
    assert_eq!(ran.text(), "a\nb\n");
    ran.says(
        "remuda: line 2: body_too_large: the line has 3000 bytes, and a job at most 2048: raise \
         --max-body-bytes",
    );
    let big = "head -c 3000000 /dev/zero | tr '\\0' x";
    let job = format!("case $body in '\"2\"') ok \"\\\"$({big})\\\"\";; *) ok $body;; esac");
    let script = shell_worker(dir.path(), "w.sh", &job);
    let ran = map(&["-j1", "-k", "--max-body-bytes", "1M", "--", "sh", &script], numbers(4));
    let ran = ran.expect(1);
    assert_eq!(ran.text(), "1\n3\n4\n");
    ran.says(
        "remuda: line 2: body_too_large: the result is larger than max_body_bytes (1048576): raise \
         it, or return less",
    );
    map(&["--max-body-bytes", "0", "--builtin", "echo"], "")
        .expect(255)
        .tells(&["--max-body-bytes"]);
}

#[test]
fn nesting_a_hundred_thousand_deep() {
    let dir = folder();
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let ran = map(&["-k", "--json", "--builtin", "echo"], format!("1\n{deep}\n2\n")).expect(1);
    assert_eq!(ran.text(), "1\n2\n");
    ran.tells(&["line 2", "bad_request", "nested more than 128 deep"]);
    let file = write(dir.path(), "deep", &deep);
    let job = format!("case $body in 2) ok \"$(cat {})\";; *) ok $body;; esac", file.display());
    let script = shell_worker(dir.path(), "w.sh", &job);
    let ran = map(&["-j1", "-k", "--json", "--", "sh", &script], numbers(3)).expect(1);
    assert_eq!(ran.text(), "1\n3\n");
    ran.says(
        "remuda: line 2: handler_error: the result is nested more than 128 deep: return a flatter \
         one, or JSON as a string",
    );
}

#[test]
fn a_line_that_is_not_json_fails_alone() {
    let args = ["-k", "--json", "--on-error", "null", "--builtin", "echo"];
    let ran = map(&args, "{\"a\":1}\n{a}\n\n[1,]\n2\n").expect(3);
    assert_eq!(ran.text(), "{\"a\":1}\nnull\nnull\nnull\n2\n");
    ran.tells(&["line 2: bad_request: the line is not a JSON value"]);
}

#[test]
fn options_that_do_not_exist_or_do_not_fit() {
    for (args, wanted) in [
        (&["--parallel", "--builtin", "echo"][..], "unexpected argument '--parallel'"),
        (&["--builtin", "nope"], "invalid value 'nope'"),
        (&["--resume", "--builtin", "echo"], "--joblog"),
        (&["-j", "many", "--builtin", "echo"], "give a whole number from 1 to 1024"),
        (&["-j", "1025", "--builtin", "echo"], "give a whole number from 1 to 1024"),
        (&["--threads", "--python", "a.py:f"], "--threads is for built-in workers alone"),
        (&["--retry-on", "luck", "--builtin", "echo"], "invalid value 'luck'"),
        (&["--stdio"], "--stdio needs a filter"),
        (&["--threads"], "--threads is for built-in workers alone"),
        (&["--stdio", "--attach", "unix:/none"], "--stdio needs a filter"),
    ] {
        let ran = map(args, "1\n").expect(255);
        assert_eq!(ran.text(), "");
        ran.tells(&[wanted]);
    }
}

#[test]
fn no_file_has_two_roles() {
    let dir = folder();
    write(dir.path(), "in", "a\nb\n");
    write(dir.path(), "old", "old results\n");
    std::os::unix::fs::symlink("in", dir.path().join("link")).unwrap();
    for (args, name, roles) in [
        (&["-a", "in", "-o", "in"][..], "in", "the input and the output"),
        (&["-a", "in", "-o", "link"], "link", "the input and the output"),
        (&["-a", "in", "--errors", "in"], "in", "the input and the file of --errors"),
        (&["-o", "old", "--joblog", "./old"], "./old", "the output and the job log"),
        (
            &["--joblog", "new", "--errors", "./new"],
            "./new",
            "the job log and the file of --errors",
        ),
    ] {
        let args = [&["-j1", "--builtin", "echo"], args].concat();
        let wanted = format!("remuda: {name} is {roles} at once: name another file");
        map_in(dir.path(), &args, "a\n").expect(255).says(&wanted);
    }
    // Where stdout goes is known too: what is appended would be read for ever.
    let append = std::fs::File::options().append(true).open(dir.path().join("in")).unwrap();
    let args = ["-j1", "--builtin", "echo", "-a", "in"];
    let status = map_runs::command(dir.path(), &args).stdout(append).status().unwrap();
    assert_eq!(status.code(), Some(255));
    assert_eq!(map_runs::read(dir.path(), "in"), "a\nb\n");
    assert_eq!(map_runs::read(dir.path(), "old"), "old results\n");
    // Only files of the disk hold what is written to them.
    let args = ["-j1", "--builtin", "echo", "-o", "/dev/null", "--errors", "/dev/null"];
    map(&args, "a\n").quiet();
}

#[test]
fn an_input_that_cannot_be_read_leaves_the_old_results() {
    let dir = folder();
    write(dir.path(), "old", "old results\n");
    let args = ["-j1", "--builtin", "echo", "-a", "none", "-o", "old"];
    map_in(dir.path(), &args, "").expect(255).tells(&["cannot read the jobs from none"]);
    assert_eq!(map_runs::read(dir.path(), "old"), "old results\n");
}

#[test]
fn wrong_words_are_told_from_wrong_values() {
    for (args, wanted) in [
        (&["--retries", "-1", "--builtin", "echo"][..], "invalid value '-1' for '--retries <N>'"),
        (&["--timeout", "-1", "--builtin", "echo"], "invalid value '-1' for '--timeout <TIME>'"),
        (&["cat"], "if `cat` is the worker's command, it comes after `--`"),
    ] {
        map(args, "").expect(255).tells(&[wanted]);
    }
    // Other commands have none.
    let args = ["status", "extra"];
    let out = std::process::Command::new(map_runs::REMUDA).args(args).output().unwrap();
    assert!(!String::from_utf8_lossy(&out.stderr).contains("command, it comes"));
    let dir = folder();
    let args = ["--builtin", "echo"];
    let out = map_runs::command(dir.path(), &args).env("REMUDA_JOBS", "many").output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(told.contains("remuda: the environment has REMUDA_JOBS=many"), "{told}");
}
