//! `remuda bench` against real pools, and against pools that answer late or not at all.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/openssl.rs"]
mod openssl;
#[path = "support/serve.rs"]
mod support;

use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Serve, remuda, text};

const OFFER: &str =
    r#"{"ok":true,"data":{"kind":"handshake","version":"1","instance":"x","pid":1,"capacity":1}}"#;

fn figures(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr)))
}

fn bench(socket: &Path, args: &[&str]) -> Output {
    let mut command = remuda();
    command.arg("bench").arg(format!("--to=unix:{}", socket.display())).args(args);
    command.output().unwrap()
}

/// The next connection, when hands were shaken, and its lines.
fn greeted(listener: &UnixListener) -> (UnixStream, Lines<BufReader<UnixStream>>) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    lines.next().unwrap().unwrap();
    writeln!(stream, "{OFFER}").unwrap();
    (stream, lines)
}

/// A pool for one connection: it is shown each call's line, and says what to answer.
fn false_pool(socket: &Path, mut answer: impl FnMut(&str) -> Option<String> + Send + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, lines) = greeted(&listener);
        for line in lines.map_while(Result::ok) {
            match answer(&line) {
                Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
                None => return,
            }
        }
    });
}

fn id(line: &str) -> u64 {
    let call: Value = serde_json::from_str(line).unwrap();
    call["id"].as_u64().unwrap()
}

fn result(id: u64) -> String {
    format!("{{\"id\":{id},\"ok\":true,\"data\":{{\"kind\":\"result\",\"body\":1}}}}\n")
}

#[test]
fn the_closed_loop_counts_what_the_pool_counts() {
    let serve = Serve::start(&["--builtin", "echo", "-j2", "-l", "tcp:127.0.0.1:0"]);
    let output = serve.run("bench", &["-n", "2000", "-i", "16", "-c", "3", "--warmup=0", "--json"]);
    let measured = figures(&output);
    assert!(output.status.success(), "{measured}");
    assert_eq!(measured["done"], 2000);
    assert_eq!(measured["failed"], serde_json::json!({}));
    assert_eq!(measured["cut_short"], Value::Null);
    assert_eq!(measured["connections"], 3);
    assert!(measured["jobs_per_second"].as_f64().unwrap() > 0.0);
    let times: Vec<f64> = ["min", "p50", "p90", "p99", "p99.9", "p99.99", "max"]
        .iter()
        .map(|name| measured["latency_us"][name].as_f64().unwrap())
        .collect();
    assert!(times.is_sorted() && times[0] > 0.0, "{times:?}");
    assert_eq!(serve.status()["jobs"]["done"], 2000);

    // Over TCP too, and by time; the warm-up's calls are not among those measured.
    let output = remuda()
        .args(["bench", "--to", &serve.address(1), "-d", "2", "--warmup=1", "--json"])
        .output()
        .unwrap();
    let measured = figures(&output);
    let done = measured["done"].as_u64().unwrap();
    let all = serve.status()["jobs"]["done"].as_u64().unwrap() - 2000;
    assert!(done > 0 && done < all, "{done} of {all}");
}

#[test]
fn a_pool_behind_tls_is_loaded_by_its_ca_and_a_token() {
    if !openssl::has_openssl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    openssl::certificate(folder.path(), "cert.pem", "key.pem");
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(file("token"), "open-sesame\n").unwrap();
    let (cert, key, token) = (file("cert.pem"), file("key.pem"), file("token"));
    let listen = format!("-ltls:127.0.0.1:0,cert={cert},key={key}");
    let args = ["--builtin", "echo", "-j2", &listen, "--token-file", &token];
    let serve = Serve::start(&args);
    let port = serve.address(1).rsplit(':').next().unwrap().to_owned();
    let load = |options: &str, count: &str| {
        let to = format!("tls:localhost:{port}{options}");
        let args =
            ["bench", "--to", &to, "-n", count, "-i", "8", "-c", "2", "--warmup=0", "--json"];
        remuda().args(args).output().unwrap()
    };
    let output = load(&format!(",ca={cert},token_file={token}"), "1000");
    let measured = figures(&output);
    assert!(output.status.success(), "{measured}");
    assert_eq!((&measured["done"], &measured["connections"]), (&1000.into(), &2.into()));
    assert_eq!(serve.status()["jobs"]["done"], 1000);
    for (options, part) in
        [(format!(",token_file={token}"), "certificate"), (format!(",ca={cert}"), "token")]
    {
        let output = load(&options, "10");
        assert_eq!(output.status.code(), Some(255), "{options}");
        assert!(text(&output.stderr).contains(part), "{options}: {}", text(&output.stderr));
    }
    assert_eq!(serve.status()["jobs"]["done"], 1000);
}

#[test]
fn text_is_for_people() {
    let serve = Serve::start(&["--builtin", "echo", "-j1"]);
    let output = serve.run("bench", &["-n", "50", "--warmup=0"]);
    let words = text(&output.stdout);
    for part in
        ["closed loop, 1 in flight, 1 connection", "50 results", "jobs/s", "p99.99 ", "max "]
    {
        assert!(words.contains(part), "no `{part}` in {words}");
    }
}

#[test]
fn the_open_loop_counts_from_when_a_call_was_due() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    // Nothing is answered until all 50 calls are there: a closed loop would wait for ever, and
    // one that sends each call when the one before is answered would never see the wait.
    let mut held = Vec::new();
    false_pool(&socket, move |line| {
        held.push(id(line));
        Some(if held.len() < 50 {
            String::new()
        } else {
            held.iter().map(|id| result(*id)).collect()
        })
    });
    let output = bench(&socket, &["-n", "50", "-r", "100", "--warmup=0", "--json"]);
    let measured = figures(&output);
    assert!(output.status.success(), "{measured}");
    assert_eq!(measured["done"], 50);
    // The first was due 490 ms before the last was sent, the 25th 240 ms.
    let time = |name: &str| measured["latency_us"][name].as_f64().unwrap();
    assert!(time("max") >= 489_000.0, "{measured}");
    assert!(time("p50") >= 239_000.0, "{measured}");
}

#[test]
fn failures_are_counted_by_their_codes() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let mut count = 0;
    false_pool(&socket, move |line| {
        count += 1;
        let id = id(line);
        let code = if count % 2 == 0 { "queue_full" } else { "a_later_code" };
        Some(match count % 4 {
            0 => result(id),
            _ => format!("{{\"id\":{id},\"ok\":false,\"code\":\"{code}\",\"error\":\"no\"}}\n"),
        })
    });
    let output = bench(&socket, &["-n", "40", "-i", "4", "--warmup=0", "--json"]);
    let measured = figures(&output);
    assert_eq!(output.status.code(), Some(1), "{measured}");
    assert_eq!(measured["done"], 10);
    let failed = serde_json::json!({"queue_full": 10, "a_later_code": 20});
    assert_eq!(measured["failed"], failed);
    assert_eq!(measured["first_failure"], "no");
    assert!(measured["failed_latency_us"]["p50"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_first_failure_is_told_for_people_too() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let error = r#""ok":false,"code":"handler_error","error":"KeyError: 'x'\nand more"}"#;
    false_pool(&socket, move |line| Some(format!("{{\"id\":{},{error}\n", id(line))));
    let output = bench(&socket, &["-n", "4", "--warmup=0"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("failed   4 handler_error\n"), "{said}");
    assert!(said.ends_with("\n  first  KeyError: 'x'\n"), "{said}");
}

#[test]
fn a_pool_that_goes_away_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let mut count = 0;
    false_pool(&socket, move |line| {
        count += 1;
        (count <= 10).then(|| result(id(line)))
    });
    let output = bench(&socket, &["-d", "600", "-i", "2", "--warmup=0", "--json"]);
    let measured = figures(&output);
    assert_eq!(output.status.code(), Some(1), "{measured}");
    assert_eq!(measured["done"], 10);
    assert_eq!(measured["failed"], serde_json::json!({"connection_lost": 2}));
    assert!(text(&output.stderr).contains("closed a connection before the load was over"));
}

#[test]
fn a_pool_that_goes_away_between_two_calls_ends_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, mut lines) = greeted(&listener);
        let call = lines.next().unwrap().unwrap();
        stream.write_all(result(id(&call)).as_bytes()).unwrap();
    });
    let output = bench(&socket, &["-r", "0.01", "-d", "600", "--warmup=0", "--json"]);
    let measured = figures(&output);
    assert_eq!(output.status.code(), Some(1), "{measured}");
    assert_eq!(measured["done"], 1);
    assert!(text(&output.stderr).contains("closed a connection before the load was over"));
}

/// One that sends this without an end once it was called.
fn flood(socket: &Path, piece: Vec<u8>) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, mut lines) = greeted(&listener);
        lines.next().unwrap().unwrap();
        while stream.write_all(&piece).is_ok() {}
    });
}

#[test]
fn who_floods_is_given_up_at_once() {
    for (piece, wanted) in [
        (result(99).repeat(1000), "it answered no call by \"{\\\"id\\\":99,"),
        (result(1).repeat(1000), "it answered no call by \"{\\\"id\\\":1,"),
        ("\n".repeat(1 << 16), "it answered no call by \"\""),
        ("x".repeat(1 << 20), "it sent a line of more than 134217728 bytes"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        flood(&socket, piece.into_bytes());
        let output = bench(&socket, &["-d", "600", "-i", "4", "--warmup=0", "--json"]);
        let measured = figures(&output);
        assert_eq!(output.status.code(), Some(1), "{measured}");
        let said = text(&output.stderr);
        assert!(said.contains("what is there is no pool") && said.contains(wanted), "{said}");
    }
}

#[test]
fn who_stays_silent_is_given_up_after_a_time() {
    let begun = Instant::now();
    // Of a load for a time none is answered: by then it may be over, and no third call would be sent.
    for (plan, mut answered) in [(["-n", "10"], false), (["-d", "500ms"], true)] {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        false_pool(&socket, move |line| {
            let first = !std::mem::replace(&mut answered, true);
            Some(if first { result(id(line)) } else { String::new() })
        });
        let since = Instant::now();
        let args = [&plan[..], &["-i", "3", "--warmup=0", "--patience=1s", "--json"]].concat();
        let output = bench(&socket, &args);
        assert!(since.elapsed() >= Duration::from_secs(1), "{:?}", since.elapsed());
        let measured = figures(&output);
        assert_eq!(output.status.code(), Some(1), "{measured}");
        assert_eq!(measured["failed"], serde_json::json!({"unanswered": 3}));
        let why = measured["cut_short"].as_str().unwrap();
        assert!(why.contains("the pool answered none of 3 calls for 1s"), "{why}");
        assert!(text(&output.stderr).contains(why));
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn nor_is_one_over_rings_waited_for_for_ever() {
    let runtime = tempfile::tempdir().unwrap();
    let command = |name: &str| {
        let mut command = remuda();
        command.arg(name).env("REMUDA_RUNTIME_DIR", runtime.path().join("rings"));
        command
    };
    let mut pool = command("serve");
    pool.arg(format!("--listen=unix:{}/s,role=admin", runtime.path().display()));
    pool.args(["--listen=shm:silent", "--builtin=echo", "-j1"]);
    let mut serve = Serve::spawn(pool);
    serve.listening();
    serve.address(1);
    let load = |args: &[&str]| {
        let mut load = command("bench");
        load.args(["--to=shm:silent", "--warmup=0", "--json", "-i4"]).args(args);
        load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let silenced = load(&["-n1000000000", "--patience=1s"]);
    let status = || {
        let output = command("status").arg("--json").arg("--to").arg(&serve.addresses[0]).output();
        serde_json::from_slice::<Value>(&output.unwrap().stdout).unwrap()
    };
    while status()["jobs"]["done"].as_u64().unwrap() == 0 {}
    serve.signal("STOP");
    let output = silenced.wait_with_output().unwrap();
    serve.signal("CONT");
    let measured = figures(&output);
    assert_eq!(output.status.code(), Some(1), "{measured}");
    assert_eq!(measured["failed"], serde_json::json!({"unanswered": 4}));
}

#[test]
fn wrong_options_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none");
    for (args, part) in [
        (&[][..], "no pool answers"),
        (&["-r", "0"], "no rate"),
        (&["-d", "0"], "--duration 0 measures nothing"),
        (&["-r", "1e-300"], "no rate"),
        (&["--warmup=1e19"], "longer than a thousand years"),
        (&["-i", "2", "-c", "4"], "--in-flight 4"),
        (&["--body-json", "{"], "not a JSON value"),
        (&["-n", "1", "-d", "1"], "cannot be used with"),
        (&["--patience", "0"], "--patience 0 waits for no answer"),
    ] {
        let output = bench(&socket, args);
        assert_eq!(output.status.code(), Some(255), "{args:?}");
        assert!(text(&output.stderr).contains(part), "{args:?}: {}", text(&output.stderr));
    }
}
