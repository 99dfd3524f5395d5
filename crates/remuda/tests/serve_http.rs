//! `serve --http` and `--http-admin`: a real pool, real sockets, curl, and Prometheus' parser.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;

use serde_json::{Value, json};
use support::{PATIENCE, Serve, remuda, skipped, text};

const HTTP: [&str; 2] = ["--http=0", "--http-admin=0"];

/// Something is not there to test with: said loudly, and an error where everything must be tested.
fn missing(what: &str) {
    assert!(std::env::var_os("REMUDA_CI").is_none_or(|ci| ci != "1"), "there is no {what}");
    skipped(&format!("there is no {what}"));
}

/// A pool with workers that do what a job says, the host of its calls, and that of its admin.
fn pool(args: &[&str]) -> (Serve, String, String) {
    let mut all = HTTP.to_vec();
    all.extend(args);
    let serve = Serve::python(&all);
    let (calls, admin) = hosts(&serve);
    (serve, calls, admin)
}

fn hosts(serve: &Serve) -> (String, String) {
    let host = |n| {
        let address = serve.address(n);
        address.trim_start_matches("http://").split(' ').next().unwrap().to_owned()
    };
    (host(1), host(2))
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A connection that is kept.
struct Http(BufReader<TcpStream>);

impl Http {
    fn open(host: &str) -> Self {
        let stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, head: &str, headers: &[&str], body: &str) {
        let mut request = format!("{head} HTTP/1.1\r\nhost: x\r\n");
        for header in headers {
            request.push_str(&format!("{header}\r\n"));
        }
        request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
    }

    fn answer(&mut self) -> Answer {
        let mut line = || {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let first = line();
        let status = first.split(' ').nth(1).unwrap_or_else(|| panic!("`{first}`"));
        let status = status.parse().unwrap();
        let mut headers = BTreeMap::new();
        loop {
            let line = line();
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_owned(), value.to_owned());
        }
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        Answer { status, headers, body: String::from_utf8(body).unwrap() }
    }
}

fn get(host: &str, path: &str) -> Answer {
    let mut http = Http::open(host);
    http.send(&format!("GET {path}"), &[], "");
    http.answer()
}

const JSON: &str = "content-type: application/json";

fn post(host: &str, body: &str) -> Answer {
    let mut http = Http::open(host);
    http.send("POST /call", &[JSON], body);
    http.answer()
}

fn post_later(host: &str, body: &str) -> JoinHandle<Answer> {
    let mut http = Http::open(host);
    http.send("POST /call", &[JSON], body);
    std::thread::spawn(move || http.answer())
}

fn code(answer: &Answer) -> String {
    let json = answer.json();
    assert_eq!(json["ok"], false, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json");
    json["code"].as_str().unwrap().to_owned()
}

#[test]
fn curl_is_a_client() {
    let (_serve, calls, admin) = pool(&["-j1"]);
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        missing("curl");
        return;
    }
    let curl = |args: &[&str]| {
        let output = Command::new("curl").args(["-sS", "--max-time", "60"]).args(args).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let url = format!("http://{calls}/call");
    assert_eq!(curl(&[&url, "-H", JSON, "-d", "\"ABC\""]), "\"ABC\"");
    let list: Value = serde_json::from_str(&curl(&[&url, "--json", "{\"back\": [1, 2]}"])).unwrap();
    assert_eq!(list, json!([1, 2]));
    // In pieces of unknown length.
    let chunked = [&url, "-H", JSON, "-H", "Transfer-Encoding: chunked", "-d", "\"ABC\""];
    assert_eq!(curl(&chunked), "\"ABC\"");
    let shown = ["-o", "/dev/null", "-w", "%{http_code}"];
    assert_eq!(curl(&[&shown[..], &[&url, "-d", "\"ABC\""]].concat()), "415");
    assert_eq!(curl(&[&format!("http://{admin}/readyz")]), "ready\n");
}

#[test]
fn what_is_no_job_is_refused() {
    let (_serve, calls, admin) = pool(&["-j1", "--max-body-bytes=1000"]);
    // One after the other over one connection: a refusal doesn't end it.
    let mut http = Http::open(&calls);
    let mut ask = |head: &str, headers: &[&str], body: &str| {
        http.send(head, headers, body);
        let answer = http.answer();
        (answer.status, if answer.status == 200 { String::new() } else { code(&answer) })
    };
    let expect = |status, code: &str| (status, code.to_owned());
    assert_eq!(ask("POST /call", &[], "1"), expect(415, "bad_request"));
    let form = "content-type: application/x-www-form-urlencoded";
    assert_eq!(ask("POST /call", &[form], "1"), expect(415, "bad_request"));
    assert_eq!(ask("POST /call", &["content-type: text/plain"], "1"), expect(415, "bad_request"));
    assert_eq!(ask("GET /call", &[JSON], ""), expect(405, "bad_request"));
    assert_eq!(ask("POST /", &[JSON], "1"), expect(404, "bad_request"));
    let page = "origin: http://example.com";
    assert_eq!(ask("POST /call", &[JSON, page], "1"), expect(403, "unauthorized"));
    assert_eq!(ask("POST /call", &[JSON], "{"), expect(400, "bad_request"));
    assert_eq!(ask("POST /call", &[JSON], ""), expect(400, "bad_request"));
    assert_eq!(ask("POST /call?timeout_ms=soon", &[JSON], "1"), expect(400, "bad_request"));
    let deep = format!("{}{}", "[".repeat(400), "]".repeat(400));
    assert_eq!(ask("POST /call", &[JSON], &deep), expect(400, "bad_request"));
    assert_eq!(ask("POST /call", &["content-type: Application/JSON; charset=utf-8"], "1").0, 200);
    // A body that is too large needn't be read, so this is the connection's last request.
    let large = format!("\"{}\"", "x".repeat(1000));
    assert_eq!(ask("POST /call", &[JSON], &large), expect(413, "body_too_large"));
    assert_eq!(get(&admin, "/call").status, 404);
    assert_eq!(get(&calls, "/metrics").status, 404);
}

#[test]
fn a_response_has_none_of_the_headers_that_were_sent() {
    let (_serve, calls, _) = pool(&["-j1"]);
    let mut http = Http::open(&calls);
    let sent = [JSON, "accept: */*", "user-agent: a", "x-own: 1", "x-own: 2"];
    for (path, status) in [("/call", 200), ("/nowhere", 404), ("/call", 200)] {
        http.send(&format!("POST {path}"), &sent, "\"ABC\"");
        let answer = http.answer();
        assert_eq!(answer.status, status, "{answer:?}");
        let names: Vec<_> = answer.headers.keys().collect();
        assert_eq!(names, ["content-length", "content-type", "date"]);
    }
}

#[test]
fn statuses_mean_what_they_say() {
    let (serve, calls, _) = pool(&["-j1", "--max-queue-size=1"]);
    assert_eq!(post(&calls, "{\"back\": 1}").status, 200);
    let failed = post(&calls, "{\"sleep\": \"x\"}");
    assert_eq!((failed.status, code(&failed).as_str()), (500, "handler_error"));
    assert!(failed.json()["traceback"].as_str().unwrap().contains("work.py"), "{failed:?}");
    let gate = serve.gate();
    for (head, headers) in [
        ("POST /call?a=b&timeout_ms=1000", vec![JSON]),
        ("POST /call?timeout_ms=600000", vec![JSON, "X-Remuda-Timeout-Ms: 1000"]),
    ] {
        let mut http = Http::open(&calls);
        http.send(head, &headers, &gate.job("1"));
        let late = http.answer();
        assert_eq!((late.status, code(&late).as_str()), (504, "timeout"));
        // The job still runs, and would have the next one wait in the queue.
        gate.open();
        serve.status_when("idle", |status| status["workers"][0]["state"] == "idle");
        gate.shut();
    }
    let killer = "{\"exit\": 3}";
    for _ in 0..3 {
        let lost = post(&calls, killer);
        assert_eq!((lost.status, code(&lost).as_str()), (502, "worker_lost"));
    }
    let poison = post(&calls, killer);
    assert_eq!((poison.status, code(&poison).as_str()), (422, "poisoned"));

    // One job runs, one waits, and one more is too many.
    let running = post_later(&calls, &gate.job("7"));
    serve.status_when("running", |status| status["in_flight"] == 1);
    let waiting = post_later(&calls, "{\"back\": 8}");
    serve.status_when("queued", |status| status["queued"] == 1);
    let full = post(&calls, "{\"back\": 9}");
    assert_eq!((full.status, code(&full).as_str()), (429, "queue_full"));
    assert_eq!(full.headers["retry-after"], "1");
    gate.open();
    assert_eq!(running.join().unwrap().body, "7");
    assert_eq!(waiting.join().unwrap().body, "8");
}

#[test]
fn health_is_not_green_while_the_workers_are_dead() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("may-start");
    let work = dir.path().join("w.py");
    let source = format!(
        "import os, sys\n\
         if not os.path.exists({flag:?}):\n    sys.exit('may not start')\n\
         def handle(body):\n    os._exit(9) if body == 'die' else None\n    return body\n",
    );
    std::fs::write(&work, source).unwrap();
    let python = format!("{}:handle", work.display());
    let serve = Serve::start(&["--http=0", "--http-admin=0", "-j1", "--python", &python]);
    let (calls, admin) = hosts(&serve);
    let ready = || get(&admin, "/readyz");
    assert_eq!(ready().status, 503);
    assert_eq!(ready().body, "not ready: no worker is ready\n");
    assert_eq!(get(&admin, "/livez").status, 200);
    assert_eq!(scrape(&admin)["remuda_ready"], 0.0);

    std::fs::write(&flag, "").unwrap();
    // This is answered when a worker is there.
    assert_eq!(post(&calls, "1").body, "1");
    assert_eq!(ready().body, "ready\n");
    assert_eq!(scrape(&admin)["remuda_ready"], 1.0);

    std::fs::remove_file(&flag).unwrap();
    assert_eq!(post(&calls, "\"die\"").status, 502);
    assert_eq!(ready().status, 503);
    let metrics = scrape(&admin);
    assert_eq!(metrics["remuda_ready"], 0.0);
    assert_eq!(metrics["remuda_worker_restarts_total{reason=lost}"], 1.0);
    assert_eq!(metrics["remuda_workers{state=idle}"], 0.0);
}

#[test]
fn the_status_is_the_pools_own() {
    let (serve, _, admin) = pool(&["-j1"]);
    serve.ready();
    let status = get(&admin, "/status").json();
    assert_eq!(status["pid"], serve.pid());
    assert_eq!(status["ready"], true);
}

#[test]
fn a_pool_that_drains_says_so_and_finishes() {
    let (mut serve, calls, admin) = pool(&["-j1"]);
    let gate = serve.gate();
    let last = post_later(&calls, &gate.job("\"last\""));
    serve.status_when("running", |status| status["in_flight"] == 1);
    serve.signal("TERM");
    serve.wait_line("stopping");
    let not_ready = get(&admin, "/readyz");
    assert_eq!(
        (not_ready.status, not_ready.body.as_str()),
        (503, "not ready: the pool is draining\n")
    );
    assert_eq!(get(&admin, "/livez").status, 200);
    let refused = post(&calls, "1");
    assert_eq!((refused.status, code(&refused).as_str()), (503, "draining"));
    gate.open();
    let last = last.join().unwrap();
    assert_eq!((last.status, last.body.as_str()), (200, "\"last\""));
    assert!(serve.wait_end().success());
}

#[test]
fn a_client_that_leaves_takes_its_job_along() {
    let (serve, calls, admin) = pool(&["-j1"]);
    let (gate, never) = (serve.gate(), serve.file("never"));
    let first = post_later(&calls, &gate.job("1"));
    serve.status_when("running", |status| status["in_flight"] == 1);
    let mut leaver = Http::open(&calls);
    leaver.send("POST /call", &[JSON], &json!({"touch": never}).to_string());
    serve.status_when("queued", |status| status["queued"] == 1);
    drop(leaver);
    serve.status_when("cancelled", |status| status["jobs"]["failed"]["cancelled"] == 1);
    gate.open();
    assert_eq!(first.join().unwrap().body, "1");
    assert_eq!(post(&calls, "{\"back\": 2}").body, "2");
    assert!(!Path::new(&never).exists());
    assert_eq!(scrape(&admin)["remuda_jobs_total{outcome=cancelled}"], 1.0);
}

#[test]
fn a_token_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "open sesame\n").unwrap();
    let token = format!("--token-file={}", token.display());
    let (_serve, calls, admin) = pool(&["-j1", &token]);
    let mut http = Http::open(&calls);
    for (header, status) in [
        ("x: y", 401),
        ("authorization: Bearer open", 401),
        ("authorization: Bearer open sesame open sesame", 401),
        ("authorization: Basic open sesame", 401),
        ("authorization: Bearer open sesame", 200),
    ] {
        http.send("POST /call", &[JSON, header], "{\"back\": 1}");
        let answer = http.answer();
        assert_eq!(answer.status, status, "{header}: {answer:?}");
        assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401);
    }
    assert_eq!(get(&admin, "/livez").status, 200);
}

#[test]
fn other_machines_are_let_in_only_if_one_says_so() {
    for (args, part) in [
        (&["--http=0.0.0.0:0"][..], "give it a token"),
        (&["--http-admin=0.0.0.0:0"], "--insecure"),
        (&["--http=nonsense"], "no HTTP address"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let output = remuda()
            .args(["serve", "--builtin=echo", "-j1", "-l"])
            .arg(format!("unix:{}/s", dir.path().display()))
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(255), "{args:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(part), "{args:?}: {}", text(&output.stderr));
    }
    let args =
        ["--builtin=echo", "-j1", "--insecure", "--http=0.0.0.0:0", "--http-admin=0.0.0.0:0"];
    let serve = Serve::start(&args);
    assert!(hosts(&serve).1.starts_with("0.0.0.0:"), "{}", serve.stderr());
}

#[test]
fn the_file_says_where_to_listen() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("remuda.toml");
    std::fs::write(&file, "http = \"127.0.0.1:0\"\nhttp_admin = 0\n").unwrap();
    let serve = Serve::start(&["--builtin=echo", "-j1", "-c", file.to_str().unwrap()]);
    let (calls, admin) = hosts(&serve);
    assert_eq!(post(&calls, "[1]").body, "[1]");
    assert_eq!(get(&admin, "/readyz").status, 200);
}

/// The metrics by name and labels, as a parser of Prometheus' text reads them.
fn scrape(admin: &str) -> BTreeMap<String, f64> {
    let text = get(admin, "/metrics").body;
    let lines = text.lines().map(|line| Ok(line.to_owned()));
    let parsed = prometheus_parse::Scrape::parse(lines).unwrap();
    let mut metrics = BTreeMap::new();
    for sample in parsed.samples {
        use prometheus_parse::Value::{Counter, Gauge, Histogram, Summary, Untyped};
        let mut labels: Vec<String> =
            sample.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        labels.sort();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let name = format!("{}{labels}", sample.metric);
        match sample.value {
            Counter(value) | Gauge(value) | Untyped(value) => {
                metrics.insert(name, value);
            }
            Histogram(buckets) => {
                let counts: Vec<f64> = buckets.iter().map(|bucket| bucket.count).collect();
                assert!(counts.is_sorted(), "{name}: {counts:?}");
                assert_eq!(buckets.last().unwrap().less_than, f64::INFINITY);
                metrics.insert(format!("{name}_inf"), *counts.last().unwrap());
            }
            Summary(_) => panic!("{name} is a summary"),
        }
    }
    metrics
}

#[test]
fn the_metrics_agree_with_what_clients_counted() {
    let (serve, calls, admin) = pool(&["-j2"]);
    let bench = serve.run("bench", &["-n", "500", "-i", "8", "--warmup=0", "--json"]);
    let bench: Value = serde_json::from_slice(&bench.stdout).unwrap();
    let mut done = bench["done"].as_u64().unwrap();
    assert_eq!(done, 500);
    let mut http = Http::open(&calls);
    for number in 0..40 {
        let body = match number % 4 {
            0 => "{\"sleep\": \"x\"}".to_owned(),
            _ => format!("{{\"back\": {number}}}"),
        };
        http.send("POST /call", &[JSON], &body);
        let answer = http.answer();
        assert_eq!(answer.status, if number % 4 == 0 { 500 } else { 200 });
        done += u64::from(answer.status == 200);
    }
    assert_eq!(serve.run("call", &["abc"]).stdout, b"abc\n");
    done += 1;

    let metrics = scrape(&admin);
    assert_eq!(metrics["remuda_jobs_total{outcome=done}"], done as f64);
    assert_eq!(metrics["remuda_jobs_total{outcome=handler_error}"], 10.0);
    let others: f64 = metrics
        .iter()
        .filter(|(name, _)| name.starts_with("remuda_jobs_total{"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(others, done as f64 + 10.0, "no other outcomes: {metrics:#?}");
    assert_eq!(metrics["remuda_jobs_accepted_total"], done as f64 + 10.0);
    for histogram in ["remuda_job_wait_seconds", "remuda_job_run_seconds"] {
        assert_eq!(metrics[&format!("{histogram}_inf")], done as f64 + 10.0);
        assert_eq!(metrics[&format!("{histogram}_count")], done as f64 + 10.0);
    }
    assert_eq!(metrics["remuda_http_responses_total{listener=call,status=200}"], 30.0);
    assert_eq!(metrics["remuda_http_responses_total{listener=call,status=500}"], 10.0);
    assert_eq!(metrics["remuda_http_connections{listener=call}"], 1.0);
    assert_eq!(metrics["remuda_workers_started_total"], 2.0);
    assert_eq!(metrics["remuda_queue_length"], 0.0);
    assert_eq!(metrics["remuda_jobs_running"], 0.0);
    let workers: f64 = metrics
        .iter()
        .filter(|(name, _)| name.starts_with("remuda_workers{"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(workers, 2.0);
}

#[test]
fn the_metrics_pass_prometheus_own_parser() {
    let (serve, calls, admin) = pool(&["-j1"]);
    assert_eq!(post(&calls, "{\"back\": 1}").status, 200);
    serve.ready();
    let mut http = Http::open(&admin);
    http.send("GET /metrics", &["accept: application/openmetrics-text;version=1.0.0"], "");
    let answer = http.answer();
    let kind = &answer.headers["content-type"];
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    assert!(answer.body.ends_with("# EOF\n"));
    let script = "import sys\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
        names = {s.name: s.value for f in parse(sys.stdin.read()) for s in f.samples}\n\
        print(int(names['remuda_jobs_accepted_total']))\n";
    let python = std::env::var("REMUDA_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", "import prometheus_client"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        skipped("there is no Python with prometheus_client: set REMUDA_TEST_PYTHON to one");
        return;
    }
    let mut child = Command::new(&python)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(answer.body.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), "1\n");
}

#[test]
fn many_connections_are_served_and_idle_ones_disturb_nobody() {
    let (serve, calls, admin) = pool(&["-j2"]);
    let idle: Vec<Http> = (0..100).map(|_| Http::open(&calls)).collect();
    let since = Instant::now();
    let busy: Vec<_> = (0..20).map(|n| post_later(&calls, &format!("{{\"back\": {n}}}"))).collect();
    for (n, answer) in busy.into_iter().enumerate() {
        assert_eq!(answer.join().unwrap().body, n.to_string());
    }
    assert!(since.elapsed() < PATIENCE);
    assert!(scrape(&admin)["remuda_http_connections{listener=call}"] >= 100.0);
    drop(idle);
    let client = serve.status();
    assert_eq!(client["jobs"]["done"], 20);
}
