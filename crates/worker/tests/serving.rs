//! Workers on a thread, at the end of a real socket pair.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::convert::Infallible;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;

use remuda_worker::{BadJson, BadJsonKind, Job, Raw, Worker};
use support::Peer;

fn serve(worker: Worker) -> (JoinHandle<()>, Peer) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || worker.serve(&theirs).unwrap());
    (thread, Peer::new(ours))
}

fn shaken(worker: Worker) -> (JoinHandle<()>, Peer) {
    let (thread, mut peer) = serve(worker);
    peer.shake();
    (thread, peer)
}

fn end(thread: JoinHandle<()>, peer: Peer) {
    drop(peer);
    thread.join().unwrap();
}

fn touchy() -> Worker {
    Worker::new(|text: String| match &*text {
        "panic" => panic!("it was {text:?}"),
        "error" => Err("no".to_owned()),
        _ => Ok(text.to_uppercase()),
    })
}

#[test]
fn errors_panics_and_other_shapes_are_answers_and_the_worker_goes_on() {
    let (thread, mut peer) = shaken(touchy());
    for (body, words) in [
        ("\"error\"", r#""code":"handler_error","error":"no""#),
        ("\"panic\"", r#""code":"handler_error","error":"the handler panicked: it was \"panic\"""#),
        ("7", r#""code":"handler_error","error":"the body has another shape"#),
        ("null", r#""code":"handler_error","error":"the body has another shape"#),
    ] {
        let answer = peer.ask(&format!(r#"{{"op":"call","id":"x","body":{body}}}"#));
        assert!(answer.starts_with(r#"{"id":"x","ok":false,"#), "{answer}");
        assert!(answer.contains(words), "{answer}");
    }
    assert!(peer.ask(r#"{"op":"call","body":"ok"}"#).contains("\"OK\""));
    end(thread, peer);
}

#[test]
fn a_batch_is_run_one_by_one_and_failures_stand_alone() {
    let (thread, mut peer) = shaken(touchy());
    assert_eq!(
        peer.ask(r#"{"op":"call","id":8,"bodies":["a","error","panic","c"]}"#),
        concat!(
            r#"{"id":8,"ok":true,"data":{"kind":"results","bodies":["A",null,null,"C"],"failed":{"#,
            r#""1":{"code":"handler_error","error":"no"},"#,
            r#""2":{"code":"handler_error","error":"the handler panicked: it was \"panic\""}}}}"#
        )
    );
    end(thread, peer);
}

#[test]
fn a_list_is_handed_over_at_once() {
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lengths);
    let worker = Worker::list(move |numbers: Vec<i64>| {
        seen.lock().unwrap().push(numbers.len());
        if numbers.contains(&13) {
            return Err("unlucky");
        }
        let mut squares: Vec<i64> = numbers.iter().map(|number| number * number).collect();
        if numbers.contains(&0) {
            squares.pop();
        }
        Ok(squares)
    });
    let (thread, mut peer) = shaken(worker.batch(10));
    let results = r#""data":{"kind":"results","bodies":"#;
    assert!(peer.ask(r#"{"op":"call","bodies":[1,2,3]}"#).contains(&format!("{results}[1,4,9]")));
    let one_bad = peer.ask(r#"{"op":"call","bodies":[1,"x",3]}"#);
    assert!(one_bad.contains(&format!("{results}[1,null,9],\"failed\":{{\"1\":")), "{one_bad}");
    let none_left = peer.ask(r#"{"op":"call","bodies":["x","y"]}"#);
    assert!(
        none_left.contains(&format!("{results}[null,null],\"failed\":{{\"0\":")),
        "{none_left}"
    );
    let all_bad = peer.ask(r#"{"op":"call","bodies":[1,13]}"#);
    assert!(all_bad.contains(&format!("{results}[null,null]")), "{all_bad}");
    assert!(all_bad.contains("unlucky"), "{all_bad}");
    let short = peer.ask(r#"{"op":"call","bodies":[1,0]}"#);
    assert!(short.contains("gave 1 results for 2 bodies"), "{short}");
    assert!(peer.ask(r#"{"op":"call","body":5}"#).contains("\"body\":25"));
    assert_eq!(*lengths.lock().unwrap(), [3, 2, 2, 2, 1]);
    end(thread, peer);
}

/// What a handler may make of text that is no JSON.
fn refused(text: &[u8]) -> Result<(), String> {
    match Raw::new(text) {
        Ok(_) => Ok(()),
        Err(BadJson { kind: BadJsonKind::Syntax, at }) => Err(format!("at byte {at}")),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn a_raw_handler_must_write_one_json_value() {
    let worker = Worker::raw(|body: Raw<'_>, out: &mut Vec<u8>| {
        match body.as_str() {
            "1" => out.extend_from_slice(b"[1,\n 2]"),
            "2" => out.extend_from_slice(b"1 2"),
            "3" => {}
            "4" => return Err("no".to_owned()),
            "5" => return refused(b"{"),
            other => out.extend_from_slice(other.as_bytes()),
        }
        Ok(())
    });
    let (thread, mut peer) = shaken(worker);
    assert!(peer.ask(r#"{"op":"call","body":1}"#).contains("\"body\":[1, 2]"));
    for body in [2, 3] {
        let answer = peer.ask(&format!(r#"{{"op":"call","body":{body}}}"#));
        assert!(answer.contains("the handler's result is not valid JSON"), "{answer}");
    }
    assert!(peer.ask(r#"{"op":"call","body":4}"#).contains("\"error\":\"no\""));
    assert!(peer.ask(r#"{"op":"call","body":5}"#).contains("\"error\":\"at byte 1\""));
    assert!(peer.ask(r#"{"op":"call","body":{"a": null}}"#).contains(r#""body":{"a": null}"#));
    end(thread, peer);
}

#[test]
fn line_breaks_in_a_raw_value_do_not_break_the_line() {
    let worker = Worker::new(|_: ()| {
        let raw = serde_json::value::RawValue::from_string("{\r\n\"a\\n\":\n1}".to_owned());
        raw.map(|raw| vec![raw]).map_err(|error| error.to_string())
    });
    let (thread, mut peer) = shaken(worker);
    assert!(peer.ask(r#"{"op":"call","body":null}"#).contains(r#""body":[{"a\n":1}]"#));
    end(thread, peer);
}

#[test]
fn bad_lines_are_answered_and_the_worker_goes_on() {
    let (thread, mut peer) = shaken(touchy());
    for (line, words) in [
        ("nonsense", "\"bad_request\""),
        (r#"{"op":"fly","id":3}"#, r#"{"id":3,"ok":false,"code":"unknown_op""#),
        (r#"{"op":"reset"}"#, "\"unknown_op\""),
        (r#"{"op":"shutdown"}"#, "\"unknown_op\""),
        (r#"{"op":"handshake","version":"1"}"#, "\"bad_request\""),
        (r#"{"op":"status","id":4}"#, r#"{"id":4,"ok":true,"data":{"kind":"status","pid":"#),
    ] {
        let answer = peer.ask(line);
        assert!(answer.contains(words), "{line}: {answer}");
    }
    // Without a running call a cancellation has no answer: the next one is the call's.
    peer.send("{\"op\":\"cancel\",\"id\":1}\n");
    assert!(peer.ask(r#"{"op":"call","id":1,"body":"a"}"#).contains("\"A\""));
    end(thread, peer);
}

#[test]
fn a_first_line_that_is_no_handshake_ends_the_connection() {
    for line in ["{\"op\":\"call\",\"body\":\"a\"}\n", "GET / HTTP/1.1", "\n", "[]\n"] {
        let (thread, mut peer) = serve(touchy());
        peer.send(line);
        let answer = peer.receive().unwrap();
        assert!(answer.contains("\"handshake_required\""), "{line}: {answer}");
        assert_eq!(peer.receive(), None);
        end(thread, peer);
    }
}

#[test]
fn bodies_and_results_over_the_limit_are_refused() {
    let worker = Worker::new(|count: usize| Ok::<_, Infallible>("x".repeat(count)));
    let (thread, mut peer) = shaken(worker.max_body_bytes(1000));
    assert!(peer.ask(r#"{"op":"call","body":998}"#).contains("xxxx"));
    let answer = peer.ask(r#"{"op":"call","id":5,"body":999}"#);
    assert!(answer.starts_with(r#"{"id":5,"ok":false,"code":"body_too_large""#), "{answer}");
    let batch = peer.ask(r#"{"op":"call","bodies":[1,2000]}"#);
    assert!(batch.contains(r#"["x",null],"failed":{"1":{"code":"body_too_large""#), "{batch}");

    let endless = format!("{{\"op\":\"call\",\"id\":6,\"body\":\"{}", "x".repeat(100_000));
    peer.send(&endless);
    let answer = peer.receive().unwrap();
    assert!(answer.contains(r#""code":"body_too_large""#), "{answer}");
    assert_eq!(peer.receive(), None);
    end(thread, peer);
}

#[test]
fn an_ordered_worker_answers_each_call_before_it_starts_the_next() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let worker = Worker::new(move |number: u32| {
        if number == 2 {
            wait.lock().unwrap().recv().unwrap();
        }
        Ok::<_, Infallible>(number)
    });
    let (thread, mut peer) = shaken(worker);
    peer.send("{\"op\":\"call\",\"id\":1,\"body\":1}\n{\"op\":\"call\",\"id\":2,\"body\":2}\n");
    assert!(peer.receive().unwrap().starts_with(r#"{"id":1,"#));
    go.send(()).unwrap();
    assert!(peer.receive().unwrap().starts_with(r#"{"id":2,"#));
    end(thread, peer);
}

#[test]
fn coalesced_answers_come_together_and_in_order() {
    let worker = Worker::new(|number: u32| Ok::<_, Infallible>(number)).coalesce();
    let (thread, mut peer) = serve(worker);
    assert!(peer.shake().contains("\"ordered\":false"));
    let calls: String =
        (0..5000).map(|id| format!("{{\"op\":\"call\",\"id\":{id},\"body\":{id}}}\n")).collect();
    let mut sending = peer.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || sending.write_all(calls.as_bytes()).unwrap());
    for id in 0..5000 {
        assert!(peer.receive().unwrap().starts_with(&format!("{{\"id\":{id},")));
    }
    sender.join().unwrap();
    end(thread, peer);
}

#[test]
fn coalesced_answers_are_held_back_up_to_64_kib() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let worker = Worker::new(move |number: u32| {
        if number == 3 {
            wait.lock().unwrap().recv().unwrap();
        }
        Ok::<_, Infallible>("x".repeat(if number == 3 { 1 } else { 40 << 10 }))
    });
    let (thread, mut peer) = shaken(worker.coalesce());
    // In one write, which one read takes: behind each call but the last there is another.
    let calls = (1..=3).map(|id| format!("{{\"op\":\"call\",\"id\":{id},\"body\":{id}}}\n"));
    peer.send(&calls.collect::<String>());
    // One is not enough to be sent, and two are: though the third still runs.
    for id in 1..=2 {
        assert!(peer.receive().unwrap().starts_with(&format!("{{\"id\":{id},")));
    }
    go.send(()).unwrap();
    assert!(peer.receive().unwrap().starts_with(r#"{"id":3,"#));
    end(thread, peer);
}

#[test]
fn as_many_calls_as_the_capacity_run_at_once() {
    let together = Arc::new(Barrier::new(3));
    let worker = Worker::new(move |number: u32| {
        together.wait();
        Ok::<_, Infallible>(number)
    });
    let (thread, mut peer) = serve(worker.capacity(3));
    assert!(peer.shake().contains("\"capacity\":3,\"ordered\":false"));
    // None of them can end before all three run.
    for id in 0..3 {
        peer.send(&format!("{{\"op\":\"call\",\"id\":{id},\"body\":{id}}}\n"));
    }
    let mut answers: Vec<String> = (0..3).map(|_| peer.receive().unwrap()).collect();
    answers.sort();
    for (id, answer) in answers.iter().enumerate() {
        assert!(answer.starts_with(&format!("{{\"id\":{id},\"ok\":true")), "{answer}");
    }
    end(thread, peer);
}

/// A worker that says when it started, and then waits until it is told to stop.
fn patient() -> (Worker, Receiver<u32>) {
    let (started, starts): (Sender<u32>, _) = channel();
    let started = Mutex::new(started);
    let worker = Worker::new(move |number: u32| {
        started.lock().unwrap().send(number).unwrap();
        let job = Job::current();
        while number != 0 && !job.is_cancelled() {
            std::thread::yield_now();
        }
        if number == 2 { Ok(number) } else { Err("stopped") }
    });
    (worker.cancellable(), starts)
}

#[test]
fn a_cancelled_call_answers_and_one_that_still_waits_never_runs() {
    let (worker, starts) = patient();
    let (thread, mut peer) = serve(worker);
    assert!(peer.shake().contains(r#""ordered":true,"batch":256,"capabilities":["cancel","shm"]"#));
    for id in [1, 2, 3] {
        peer.send(&format!("{{\"op\":\"call\",\"id\":{id},\"body\":{id}}}\n"));
    }
    assert_eq!(starts.recv().unwrap(), 1);
    for id in [3, 1, 2] {
        peer.send(&format!("{{\"op\":\"cancel\",\"id\":{id}}}\n"));
    }
    let first = peer.receive().unwrap();
    assert!(
        first.starts_with(r#"{"id":1,"ok":false,"code":"cancelled","error":"stopped"#),
        "{first}"
    );
    // Whether the second had started when it was cancelled is up to the scheduler; then it gives a
    // result, which stays one.
    let second = peer.receive().unwrap();
    let ran = starts.try_recv() == Ok(2);
    assert_eq!(second.contains("\"ok\":true"), ran, "{second}");
    let third = peer.receive().unwrap();
    assert!(third.starts_with(r#"{"id":3,"ok":false,"code":"cancelled""#), "{third}");
    assert!(starts.try_recv().is_err(), "the third ran");
    end(thread, peer);
}

#[test]
fn threaded_calls_without_an_id_are_answered_in_order() {
    let worker = Worker::new(|number: u32| Ok::<_, Infallible>(number)).capacity(4);
    let (thread, mut peer) = shaken(worker);
    for number in 0..100 {
        peer.send(&format!("{{\"op\":\"call\",\"body\":{number}}}\n"));
    }
    for number in 0..100 {
        let answer = peer.receive().unwrap();
        assert!(answer.contains(&format!("\"body\":{number}}}")), "{answer}");
    }
    end(thread, peer);
}

#[test]
fn thousands_of_calls_through_threads_are_each_answered_once() {
    let worker = Worker::new(|text: String| Ok::<_, Infallible>(text.len())).capacity(4);
    let (thread, mut peer) = shaken(worker);
    let mut sending = peer.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for id in 0..5000 {
            let body = "x".repeat(id % 50);
            let line = format!("{{\"op\":\"call\",\"id\":{id},\"body\":\"{body}\"}}\n");
            sending.write_all(line.as_bytes()).unwrap();
        }
    });
    let mut seen = vec![false; 5000];
    for _ in 0..5000 {
        let line = peer.receive().unwrap();
        let reply = remuda_protocol::Reply::parse(line.as_bytes()).unwrap();
        let id = reply.id.unwrap().number().unwrap() as usize;
        let remuda_protocol::Answer::Result(body) = reply.answer else { panic!("{line}") };
        assert_eq!(body.as_str(), (id % 50).to_string());
        assert!(!std::mem::replace(&mut seen[id], true), "{id} was answered twice");
    }
    sender.join().unwrap();
    end(thread, peer);
}
