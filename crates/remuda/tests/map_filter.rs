//! `--stdio`: any filter that answers each line with one line gives what it gives alone, and any
//! other is refused before it can pair a line with a wrong answer.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod map_runs;

use map_runs::{Ran, folder, has, is_soak, map, map_in, numbers, write};

/// What the filter must do, as every refusal says.
const MUST: &str = "must answer each line";

fn filter(options: &[&str], command: &[&str], input: impl Into<Vec<u8>>) -> Ran {
    let args: Vec<&str> =
        options.iter().chain(&["--stdio", "--"]).chain(command).copied().collect();
    map(&args, input)
}

/// One of two filters was found out by the first line that it got: which, is theirs.
#[track_caller]
fn refused_at_once(ran: &Ran) {
    let first = ["line 1 got 0 answers", "line 2 got 0 answers"];
    assert!(first.iter().any(|told| ran.stderr.contains(told)), "{}", ran.stderr);
}

#[test]
fn sed_gives_what_sed_alone_gives() {
    let lines = if is_soak() { 1_000_000 } else { 100_000 };
    let wanted: String = (1..=lines).map(|n| format!("x{n}\n")).collect();
    let ran = filter(&["-j", "2", "-k"], &["sed", "-u", "s/^/x/"], numbers(lines)).quiet();
    assert!(ran.stdout == wanted.as_bytes(), "the output differs from that of sed alone");
}

#[test]
fn any_bytes_pass_untouched_and_no_last_newline_is_added() {
    let mut chance = map_runs::Chance::new();
    let mut input: Vec<u8> = (0..200_000).map(|_| chance.below(256) as u8).collect();
    for end in [&b"\n"[..], b"no newline", b"\r\n\0\xff"] {
        input.extend_from_slice(end);
        let ran = filter(&["-j", "2", "-k"], &["cat"], input.clone()).quiet();
        assert!(ran.stdout == input, "the output differs from the input");
    }
}

#[test]
fn nothing_comes_of_nothing() {
    assert!(filter(&[], &["cat"], "").quiet().stdout.is_empty());
    assert_eq!(filter(&[], &["cat"], "\n").quiet().stdout, b"\n");
    assert_eq!(filter(&[], &["cat"], "a").quiet().stdout, b"a");
}

#[test]
fn a_filter_may_be_run_on_any_delimiter() {
    let ran = filter(&["-0", "-k"], &["cat"], "a\0b\0c").quiet();
    assert_eq!(ran.text(), "a\nb\nc");
    let ran = filter(&["-0", "-k"], &["cat"], "a\nb\0c\0").expect(1);
    assert_eq!(ran.text(), "c\n");
    ran.tells(&["line 1", "bad_request", "line break"]);
}

#[test]
fn grep_is_refused() {
    for command in [&["grep", "7"][..], &["grep", "--line-buffered", "7"]] {
        let ran = filter(&["-j", "2", "-k"], command, numbers(1000)).expect(255);
        assert_eq!(ran.text(), "", "no line but the first may be answered before it is refused");
        refused_at_once(&ran);
        ran.tells(&["got 0 answers", MUST, "grep --line-buffered", "stdbuf -oL"]);
    }
}

#[test]
fn a_filter_that_drops_one_line_late_is_told_which() {
    let ran = filter(&["-j", "1", "-k"], &["sed", "-u", "/^700$/d"], numbers(1000)).expect(255);
    assert!(numbers(699).starts_with(ran.text()), "what was printed is right: {}", ran.text());
    ran.tells(&["line 700 got 0 answers", MUST]);
}

#[test]
fn jq_works_line_by_line_and_is_refused_when_it_prints_more() {
    if !has("jq") {
        return;
    }
    let input: String = (1..=2000).map(|n| format!("{{\"a\":{n}}}\n")).collect();
    let compact = ["jq", "-c", "--unbuffered", ".a"];
    let ran = filter(&["-j", "2", "-k"], &compact, input.as_str()).quiet();
    assert_eq!(ran.text(), numbers(2000));
    let pretty = ["jq", "--unbuffered", "."];
    let ran = filter(&["-j", "1", "-k"], &pretty, input.as_str()).expect(255);
    assert_eq!(ran.text(), "");
    ran.tells(&["line 1 got", "answers", "jq -c"]);
    let ran = filter(&["-j", "1"], &["jq", "."], input.as_str()).expect(255);
    ran.tells(&["line 1 got 0 answers", "jq -c --unbuffered"]);
    let ran = filter(&["-j", "2"], &["jq", "foo("], input).expect(255);
    ran.tells(&["[worker ", "jq: "])
        .tells(&["the filter ended with status 3 before it read a line"]);
}

#[test]
fn a_filter_that_holds_its_output_back_gets_the_hint() {
    if !has("awk") {
        return;
    }
    let ran = filter(&["-j", "2"], &["awk", "{print}"], numbers(100)).expect(255);
    refused_at_once(&ran);
    ran.tells(&["got 0 answers", "holds its output back", "fflush()", "stdbuf -oL"]);
}

#[test]
fn lines_that_nobody_asked_for_end_the_run() {
    let early = ["sh", "-c", "echo hello; exec cat"];
    let ran = filter(&["-j", "1"], &early, numbers(3)).expect(255);
    assert_eq!(ran.text(), "", "the line is no answer");
    ran.tells(&[MUST]);
    let late = ["sh", "-c", "cat; echo total"];
    let ran = filter(&["-j", "1", "-k"], &late, numbers(1000)).expect(255);
    assert_eq!(ran.text(), numbers(1000), "each line has its answer");
    ran.tells(&["no line of input asked for", "\"total\""]);
    let double = ["sed", "-u", "500p"];
    let ran = filter(&["-j", "1", "-k"], &double, numbers(1000)).expect(255);
    assert!(numbers(499).starts_with(ran.text()), "nothing is paired wrongly: {}", ran.text());
    ran.tells(&["got", "answers", "too many", MUST]);
}

#[test]
fn a_filter_that_ends_before_its_input_is_refused() {
    let one = ["sh", "-c", "read x; echo $x"];
    filter(&["-j", "1"], &one, numbers(100)).expect(255).tells(&["ended with status 0", MUST]);
    let none = ["sh", "-c", "exit 4"];
    filter(&["-j", "2"], &none, numbers(100))
        .expect(255)
        .says("remuda: the filter ended with status 4 before it read a line: run it by itself on one line of the input to see why");
}

#[test]
fn a_line_that_kills_the_filter_costs_that_line_alone() {
    let script = "while read x; do [ $x = 5 ] && exit 3; echo $x; done";
    let ran = filter(&["-j", "2", "-k"], &["sh", "-c", script], numbers(8)).expect(1);
    assert_eq!(ran.text(), "1\n2\n3\n4\n6\n7\n8\n");
    ran.says(
        "remuda: line 5: poisoned: 3 workers died while they had this job: it is not tried again. \
         The last time, the worker exited with status 3",
    );
}

#[test]
fn a_filter_and_json_go_together() {
    let ran = filter(&["-k", "--json"], &["cat"], "{\"a\": [1,\n  2]\nnope\n3\n").expect(3);
    assert_eq!(ran.text(), "3\n");
    ran.tells(&["line 1", "not a JSON value"]);
    let ran = filter(&["-k", "--json"], &["sed", "-u", "s/2/x/"], "1\n2\n3\n").expect(1);
    assert_eq!(ran.text(), "1\n3\n");
    ran.says("remuda: line 2: handler_error: the filter's answer is not a JSON value on one line");
}

#[test]
fn stdin_is_never_read_whole_and_is_left_as_it_was() {
    // The shell that shares the file goes on where the run stopped: it read ahead a bounded window.
    let dir = folder();
    let lines = numbers(3_000_000);
    let file = write(dir.path(), "in", &lines);
    let script =
        format!("{} map -j1 --halt now,done=1 --stdio -- cat; head -c 1 | wc -c", map_runs::REMUDA);
    let out = std::process::Command::new("sh")
        .args(["-c", &script])
        .stdin(std::fs::File::open(file).unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.ends_with("\n1\n"), "something of the input is left: {text}");
}

#[test]
fn a_missing_filter_is_named() {
    let dir = folder();
    map_in(dir.path(), &["--stdio", "--", "./none"], "1\n")
        .expect(255)
        .says("remuda: no worker can be started: worker command `./none` not found: install it or give its path");
}
