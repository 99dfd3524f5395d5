//! What no peer can do to a pool: each gets a clear refusal, memory stays bounded, and others are
//! not disturbed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use std::time::{Duration, Instant};

use serve::{Client, Serve};

fn pool() -> Serve {
    let serve = Serve::start(&["-j1", "--builtin=echo"]);
    serve.ready();
    serve
}

fn still_serves(serve: &Serve) {
    assert_eq!(serve.client().ask(r#"{"op":"call","id":1,"body":"ok"}"#)["data"]["body"], "ok");
}

#[test]
fn a_line_without_an_end_is_refused_and_takes_no_memory() {
    let total: usize = if serve::is_soak() { 2 << 30 } else { 64 << 20 };
    let serve = pool();
    let before = serve.resident();
    let mut client = serve.client();
    client.send_bytes(br#"{"op":"call","id":5,"body":""#);
    let piece = vec![b'x'; 1 << 20];
    let mut most = 0;
    for n in 0..total >> 20 {
        client.send_bytes(&piece);
        if n % 8 == 0 {
            most = most.max(serve.resident());
        }
    }
    client.send_bytes(b"\"}\n");
    let reply = client.reply();
    assert_eq!((&reply["id"], &reply["code"]), (&5.into(), &"body_too_large".into()));
    let grown = most.saturating_sub(before) >> 20;
    println!("a line of {} MiB: the pool grew by {grown} MiB at most", total >> 20);
    // One line of max_body_bytes may be held, and what was read of the next.
    assert!(grown < 80, "{grown} MiB");
    assert_eq!(client.ask(r#"{"op":"call","id":6,"body":6}"#)["data"]["body"], 6);
    still_serves(&serve);
}

#[test]
fn a_first_line_without_an_end_is_refused_early() {
    let serve = pool();
    let mut client = Client::unix(&serve.path());
    client.send_bytes(br#"{"op":"handshake","version":"1","x":""#);
    // The pool may close while this is being written.
    let _ = client.try_send(&vec![b'x'; 1 << 20]);
    assert_eq!(client.reply()["code"], "handshake_required");
    assert!(client.is_closed());
    still_serves(&serve);
}

#[test]
fn what_is_no_json_is_refused_line_by_line() {
    let serve = pool();
    let mut client = serve.client();
    let deep =
        format!(r#"{{"op":"call","id":1,"body":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let mut lines: Vec<Vec<u8>> = vec![
        deep.into_bytes(),
        b"{\"op\":\"call\",\"id\":1,\"body\":\"\xff\xfe\"}".to_vec(),
        b"{\"op\":\"call\",\"id\":1,\"body\":\"\0\"}".to_vec(),
        b"\0\0\0".to_vec(),
        b"[1,2,3]".to_vec(),
        b"{\"op\":\"call\",\"id\":1}".to_vec(),
        b"{\"op\":\"call\",\"id\":{},\"body\":1}".to_vec(),
        b"{\"op\":\"call\",\"id\":1,\"id\":2,\"body\":1}".to_vec(),
    ];
    lines.push([&b"{\"op\":\"call\",\"id\":\""[..], &[b'i'; 65], b"\",\"body\":1}"].concat());
    for line in lines {
        client.send_bytes(&line);
        client.send_bytes(b"\n");
        let reply = client.reply();
        let shown = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
        assert_eq!(reply["code"], "bad_request", "{shown}: {reply}");
        assert!(!reply["error"].as_str().unwrap().is_empty());
    }
    assert_eq!(client.ask(r#"{"op":"dance","id":1}"#)["code"], "unknown_op");
    assert_eq!(client.ask(r#"{"op":"call","id":6,"body":6}"#)["data"]["body"], 6);
    still_serves(&serve);
}

#[test]
fn an_http_request_is_never_read_as_lines() {
    let mut serve = pool();
    let bodies = [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 64\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "\n",
        "{\"op\":\"shutdown\"}\n",
        "\u{16}\u{3}\u{1}",
    ];
    for first in bodies {
        let mut client = Client::unix(&serve.path());
        client.send_bytes(first.as_bytes());
        // The pool may have closed already.
        let _ = client.try_send(
            b"{\"op\":\"handshake\",\"version\":\"1\"}\n{\"op\":\"shutdown\",\"id\":1}\n",
        );
        let mut all = Vec::new();
        while let Ok(Some(line)) = client.try_line() {
            all.push(line);
        }
        assert!(all[0].contains(r#""code":"handshake_required""#), "{first:?}: {all:?}");
        assert_eq!(all.len(), 1, "nothing after it is read: {all:?}");
    }
    assert!(serve.child.try_wait().unwrap().is_none());
    still_serves(&serve);
}

#[test]
fn many_slow_senders_are_bounded_in_time_and_disturb_nobody() {
    let crowd: usize = if serve::is_soak() { 2000 } else { 200 };
    let serve = pool();
    let before = serve.resident();
    let line =
        br#"{"op":"handshake","version":"1","padding":"a line that takes its time, all of it"}"#;
    let mut slow: Vec<Client> = (0..crowd).map(|_| Client::unix(&serve.path())).collect();
    let mut other = serve.client();
    let (mut most, mut times) = (0, Vec::new());
    let (seconds, pause) = if serve::is_soak() { (40, 1000) } else { (10, 100) };
    for second in 0..seconds {
        let since = Instant::now();
        for client in &mut slow {
            // In the long run, they have been cut by then.
            let _ = client.try_send(&line[second..=second]);
        }
        for id in 0..20 {
            let since = Instant::now();
            let reply = other.ask(&format!(r#"{{"op":"call","id":{id},"body":1}}"#));
            assert_eq!(reply["ok"], true, "{reply}");
            times.push(since.elapsed());
        }
        most = most.max(serve.resident());
        std::thread::sleep(Duration::from_millis(pause).saturating_sub(since.elapsed()));
    }
    times.sort();
    println!(
        "{crowd} slow senders: the pool grew by {} KiB; another's p99 {:?}",
        most.saturating_sub(before) >> 10,
        times[times.len() * 99 / 100]
    );
    assert!(most.saturating_sub(before) < (crowd as u64 * 64 + 8192) << 10);
    if serve::is_soak() {
        let reply = slow[0].reply();
        assert_eq!(reply["code"], "bad_request", "{reply}");
        for client in &mut slow {
            assert!(client.is_closed());
        }
    }
    still_serves(&serve);
}

#[test]
fn one_who_sends_half_a_line_and_stays_is_cut_after_thirty_seconds() {
    if !serve::is_soak() {
        return serve::not_now("the time limit of a line (30 s): REMUDA_SOAK=1 runs it");
    }
    let serve = pool();
    let mut client = serve.client();
    client.send_bytes(br#"{"op":"call","id":1,"#);
    let since = Instant::now();
    let reply = client.reply();
    assert_eq!(reply["code"], "bad_request", "{reply}");
    assert!(client.is_closed());
    assert!(since.elapsed() >= Duration::from_secs(29));
}

#[test]
fn replies_that_wait_for_one_without_an_id_are_bounded_and_come_in_their_order() {
    let serve = Serve::start(&["-j1", "--builtin=sleep"]);
    let worker = serve.ready()[0];
    let before = serve.resident();
    let mut client = serve.client();
    // The first reply comes once the worker goes on.
    serve::signal(worker, "STOP");
    client.send(r#"{"op":"call","body":"0"}"#);
    let lines = 200_000;
    let stream = client.stream();
    let sending = std::thread::spawn(move || {
        let mut stream = stream;
        std::io::Write::write_all(&mut stream, &b"?\n".repeat(lines)).unwrap();
    });
    let mut most = 0;
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(1) {
        most = most.max(serve.resident());
    }
    let grown = most.saturating_sub(before) >> 20;
    assert!(grown < 8, "{grown} MiB");
    serve::signal(worker, "CONT");
    assert_eq!(client.reply()["ok"], true, "the first reply is the first request's");
    for n in 0..lines {
        assert_eq!(client.reply()["code"], "bad_request", "reply {n}");
    }
    sending.join().unwrap();
}

#[test]
fn one_that_leaves_while_replies_wait_for_one_without_an_id_is_noticed() {
    let serve = Serve::start(&["-j1", "--builtin=sleep"]);
    serve.ready();
    let mut client = serve.client();
    client.send(r#"{"op":"call","body":"600"}"#);
    client.stream().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    // More than the pool takes in before it looks at it: it is not read to the end.
    assert!(client.try_send(&b"?\n".repeat(20 << 20)).is_err());
    drop(client);
    serve.status_when("its job was cancelled", |status| status["jobs"]["failed"]["cancelled"] == 1);
}
