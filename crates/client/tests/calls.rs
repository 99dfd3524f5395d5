//! Calls of a `Client` over one link that stays up.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use remuda_client::{Address, CallError, CallOptions, Client, ClientOptions, Code, Json};
use remuda_protocol::{Request, encode};
use support::{HELLO, Peer, Place, PythonWorker, echo_line, id_of};
use tokio::io::AsyncReadExt;
use tokio::sync::Barrier;

async fn pair(options: ClientOptions) -> (Client, Peer, Place) {
    let (place, listener) = Place::listen();
    let options = options.address(Address::unix(&place.path));
    let (client, peer) = tokio::join!(options.connect(), Peer::greet(&listener));
    (client.unwrap(), peer, place)
}

async fn echoing() -> (Client, Place) {
    let (client, peer, place) = pair(ClientOptions::new()).await;
    tokio::spawn(peer.echo_all());
    (client, place)
}

/// Polls a future once, which must not end it.
fn begin<F: Future>(future: Pin<&mut F>) {
    assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[tokio::test]
async fn a_call_takes_and_gives_values_of_serde() {
    let (client, _place) = echoing().await;
    let text: String = client.call("abc").await.unwrap();
    assert_eq!(text, "abc");
    let map = HashMap::from([("a".to_owned(), vec![1, 2])]);
    let same: HashMap<String, Vec<i32>> = client.call(&map).await.unwrap();
    assert_eq!(same, map);
    let () = client.call(&()).await.unwrap();
}

#[tokio::test]
async fn a_result_of_another_shape_is_an_error_of_a_job_that_ran() {
    let (client, _place) = echoing().await;
    let error = client.call::<_, u32>("abc").await.unwrap_err();
    assert!(matches!(error, CallError::Decode(_)) && error.may_have_run(), "{error}");
}

#[tokio::test]
async fn raw_calls_pass_json_text_without_reading_it() {
    let (client, _place) = echoing().await;
    let raw = async |body: &str| client.call_raw(body, CallOptions::new()).await;
    // A number that serde would round.
    let body = r#"{"n": 9007199254740993.00, "s": "\u0041"}"#;
    assert_eq!(raw(body).await.unwrap().as_str(), body);
    assert_eq!(raw("null").await.unwrap(), Json::new("null").unwrap());
    for bad in ["", "{", "1 2", "{\"a\":1}\n{\"op\":\"shutdown\"}"] {
        let error = raw(bad).await.unwrap_err();
        assert!(matches!(error, CallError::BadBody(_)) && !error.may_have_run(), "{bad}: {error}");
    }
    let too_deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    assert!(matches!(raw(&too_deep).await.unwrap_err(), CallError::BadBody(_)));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_sent() {
    let (client, mut peer, _place) = pair(ClientOptions::new().max_body_bytes(10)).await;
    let error = client.call::<_, String>("123456789").await.unwrap_err();
    assert!(matches!(error, CallError::TooLarge { bytes: 11, max: 10 }), "{error}");
    drop(client);
    assert_eq!(peer.next().await, None);
}

#[tokio::test]
async fn a_body_that_serde_can_not_write_is_an_error() {
    let (client, _place) = echoing().await;
    let body = HashMap::from([(vec![1], 1)]);
    let error = client.call::<_, ()>(&body).await.unwrap_err();
    assert!(matches!(error, CallError::Encode(_)), "{error}");
}

#[tokio::test]
async fn a_failed_job_gives_its_code_and_message() {
    let (client, mut peer, _place) = pair(ClientOptions::new()).await;
    let answer = async {
        let id = id_of(&peer.line().await);
        peer.send(&format!(r#"{{"id":{id},"ok":false,"code":"queue_full","error":"come later"}}"#))
            .await;
        let id = id_of(&peer.line().await);
        peer.send(&format!(r#"{{"id":{id},"ok":false,"code":"of_2030","error":"?"}}"#)).await;
    };
    let calls = async {
        let full = client.call::<_, ()>("a").await.unwrap_err();
        let later = client.call::<_, ()>("b").await.unwrap_err();
        (full, later)
    };
    let ((full, later), ()) = tokio::join!(calls, answer);
    assert_eq!(full.code(), Some(Code::QueueFull));
    assert_eq!(full.to_string(), "queue_full: come later");
    assert!(!full.may_have_run());
    assert!(later.may_have_run() && later.code().is_none(), "unknown codes are feared");
}

#[tokio::test]
async fn calls_are_pipelined_and_answers_may_come_in_any_order() {
    const CALLS: usize = 200;
    let (client, mut peer, _place) = pair(ClientOptions::new()).await;
    let serve = async {
        let mut lines = Vec::new();
        for _ in 0..CALLS {
            lines.push(peer.line().await);
        }
        for line in lines.iter().rev() {
            peer.echo(line).await;
        }
    };
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..CALLS {
        let client = client.clone();
        calls.spawn(async move {
            assert_eq!(client.call::<_, usize>(&number).await.unwrap(), number);
        });
    }
    tokio::join!(serve, calls.join_all());
    assert_eq!(client.links().next().unwrap().in_flight(), 0);
}

#[tokio::test]
async fn calls_that_are_there_together_travel_together() {
    const CALLS: usize = 64;
    let (place, listener) = Place::listen();
    let options = ClientOptions::new().address(Address::unix(&place.path));
    let (client, mut peer) = tokio::join!(options.connect(), Peer::greet(&listener));
    let client = client.unwrap();
    let calls: Vec<_> = (0..CALLS).map(|_| client.call::<_, usize>(&7)).collect();
    let mut calls: Vec<_> = calls.into_iter().map(Box::pin).collect();
    for call in &mut calls {
        begin(call.as_mut());
    }
    // The first went out by itself, since nothing else was there; the others wait for the task.
    let mut buffer = vec![0; 1 << 20];
    let raw: &mut tokio::net::unix::OwnedReadHalf = peer.lines.get_mut().get_mut();
    let first = raw.read(&mut buffer).await.unwrap();
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    let rest = match lines(&buffer[..first]) {
        1 => raw.read(&mut buffer).await.unwrap(),
        all => panic!("{all} lines at once: the first is to be sent without delay"),
    };
    assert_eq!(lines(&buffer[..rest]), CALLS - 1);
}

#[tokio::test]
async fn no_more_than_the_limit_are_under_way() {
    let (client, mut peer, _place) = pair(ClientOptions::new().in_flight_max(2)).await;
    let mut calls: Vec<_> = (0..3).map(|_| Box::pin(client.call::<_, u32>(&1))).collect();
    calls.iter_mut().for_each(|call| begin(call.as_mut()));
    let (first, _second) = (peer.line().await, peer.line().await);
    assert_eq!(client.links().next().unwrap().in_flight(), 2);
    let third = calls.pop().unwrap();
    let serve = async {
        tokio::select! {
            biased;
            line = peer.line() => panic!("a third before an answer: {line}"),
            () = tokio::task::yield_now() => {}
        }
        peer.echo(&first).await;
        let line = peer.line().await;
        peer.echo(&line).await;
    };
    let (third, ()) = tokio::join!(third, serve);
    assert_eq!(third.unwrap(), 1);
}

#[tokio::test]
async fn a_deadline_travels_as_what_is_left_of_it() {
    let (client, mut peer, _place) =
        pair(ClientOptions::new().deadline(Duration::from_secs(60))).await;
    let timeout_of = |line: &str| {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        json["timeout_ms"].as_u64().unwrap()
    };
    let serve = async {
        for range in [59_000..=60_000, 600_000..=700_000] {
            let line = peer.line().await;
            assert!(range.contains(&timeout_of(&line)), "{line}");
            peer.echo(&line).await;
        }
    };
    let calls = async {
        client.call::<_, u32>(&1).await.unwrap();
        let longer = CallOptions::new().deadline(Duration::from_secs(700));
        client.call_with::<_, u32>(&1, longer).await.unwrap();
    };
    tokio::join!(serve, calls);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_ends_at_its_deadline_and_is_cancelled() {
    let (client, mut peer, _place) = pair(ClientOptions::new()).await;
    let options = CallOptions::new().deadline(Duration::from_millis(50));
    let (error, line) = tokio::join!(client.call_with::<_, u32>(&1, options), peer.line());
    let error = error.unwrap_err();
    assert!(matches!(error, CallError::Timeout { limit_ms: 50, sent: true, .. }), "{error}");
    assert!(error.may_have_run());
    assert_eq!(error.code(), Some(Code::Timeout));
    let id = id_of(&line);
    assert_eq!(peer.line().await, format!(r#"{{"op":"cancel","id":{id}}}"#));
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_and_its_id_is_free_once_it_is_answered() {
    let (client, mut peer, _place) = pair(ClientOptions::new()).await;
    let link = client.links().next().unwrap();
    let mut call = Box::pin(client.call::<_, u32>(&1));
    begin(call.as_mut());
    let id = id_of(&peer.line().await);
    drop(call);
    assert_eq!(peer.line().await, format!(r#"{{"op":"cancel","id":{id}}}"#));
    assert_eq!(link.in_flight(), 1, "the answer is still to come");
    peer.send(&format!(r#"{{"id":{id},"ok":false,"code":"cancelled","error":"as asked"}}"#)).await;
    // The next call has another id, and gets its own answer.
    let serve = async {
        let line = peer.line().await;
        assert_ne!(id_of(&line), id);
        peer.echo(&line).await;
    };
    let (answer, ()) = tokio::join!(client.call::<_, u32>(&2), serve);
    assert_eq!(answer.unwrap(), 2);
    assert_eq!(link.in_flight(), 0);
}

#[tokio::test]
async fn a_call_dropped_after_its_answer_came_leaves_nothing() {
    let (client, mut peer, _place) = pair(ClientOptions::new()).await;
    let mut dropped = Box::pin(client.call::<_, u32>(&1));
    begin(dropped.as_mut());
    let line = peer.line().await;
    peer.echo(&line).await;
    let serve = async {
        let line = peer.line().await;
        peer.echo(&line).await;
    };
    // When the second answer is there, so is the first.
    tokio::join!(client.call::<_, u32>(&2), serve).0.unwrap();
    drop(dropped);
    assert_eq!(client.links().next().unwrap().in_flight(), 0);
    drop(client);
    assert_eq!(peer.next().await, None, "there was nothing to cancel");
}

#[tokio::test]
async fn a_peer_that_takes_no_cancel_gets_none() {
    let (place, listener) = Place::listen();
    let peer = async {
        let mut peer = Peer::accept(&listener).await;
        peer.line().await;
        peer.send(&HELLO.replace("cancel", "other")).await;
        peer
    };
    let (client, mut peer) = tokio::join!(Client::connect(Address::unix(&place.path)), peer);
    let client = client.unwrap();
    let mut call = Box::pin(client.call::<_, u32>(&1));
    begin(call.as_mut());
    peer.line().await;
    drop(call);
    drop(client);
    assert_eq!(peer.next().await, None);
}

#[tokio::test]
async fn a_dropped_waiter_does_not_take_the_room_of_the_next() {
    let (client, mut peer, _place) = pair(ClientOptions::new().in_flight_max(1)).await;
    let mut first = Box::pin(client.call::<_, u32>(&1));
    begin(first.as_mut());
    let mut left = Box::pin(client.call::<_, u32>(&2));
    begin(left.as_mut());
    let third = client.call::<_, u32>(&3);
    drop(left);
    let serve = async {
        for expected in ["1", "3"] {
            let line = peer.line().await;
            assert!(line.contains(&format!(r#""body":{expected}"#)), "{line}");
            peer.echo(&line).await;
        }
    };
    let (first, third, ()) = tokio::join!(first, third, serve);
    assert_eq!((first.unwrap(), third.unwrap()), (1, 3));
}

#[tokio::test]
async fn the_peer_reports_resets_and_shuts_down() {
    let (client, _place) = echoing().await;
    let status: serde_json::Value = client.status().await.unwrap().parse().unwrap();
    assert_eq!(status["pid"], 4711);
    client.reset().await.unwrap();
    client.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_answer_of_another_kind_is_an_error() {
    let (client, mut peer, _place) = pair(ClientOptions::new()).await;
    let serve = async {
        let id = id_of(&peer.line().await);
        peer.send(&format!(r#"{{"id":{id},"ok":true,"data":{{"kind":"chunk","n":1}}}}"#)).await;
    };
    let (error, ()) = tokio::join!(client.call::<_, u32>(&1), serve);
    assert!(matches!(error.unwrap_err(), CallError::WrongKind { kind } if kind == "chunk"));
}

#[tokio::test]
async fn the_last_clone_closes_the_connection() {
    let (client, mut peer, _place) = pair(ClientOptions::new()).await;
    let clone = client.clone();
    drop(client);
    let serve = async {
        let line = peer.line().await;
        peer.echo(&line).await;
    };
    tokio::join!(clone.call::<_, u32>(&1), serve).0.unwrap();
    drop(clone);
    assert_eq!(peer.next().await, None);
}

#[test]
fn clients_are_shared_and_their_futures_are_send() {
    fn is<T: Clone + Send + Sync + 'static>() {}
    fn is_send<T: Send>(_: T) {}
    fn futures(client: &Client) {
        is_send(client.call::<_, String>("a"));
        is_send(client.call_raw("1", CallOptions::new()));
        is_send(client.status());
        is_send(ClientOptions::new().connect());
    }
    let _ = futures;
    is::<Client>();
}

/// Many tasks call, and drop every third call at some point, while the peer answers in bursts and
/// out of order: whoever waits gets its own answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_with_cancellations_each_gets_its_own_answer() {
    const TASKS: u64 = 32;
    const CALLS: u64 = 200;
    let (client, peer, _place) = pair(ClientOptions::new().in_flight_max(24)).await;
    tokio::spawn(answer_in_bursts(peer));
    let barrier = Arc::new(Barrier::new(TASKS as usize));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (client, barrier) = (client.clone(), Arc::clone(&barrier));
        tasks.spawn(async move {
            barrier.wait().await;
            for call in 0..CALLS {
                let body = task << 32 | call;
                if (task + call) % 3 == 0 {
                    let mut dropped = pin!(client.call::<_, u64>(&body));
                    tokio::select! {
                        biased;
                        answer = &mut dropped => assert_eq!(answer.unwrap(), body),
                        () = tokio::task::yield_now() => {}
                    }
                } else {
                    assert_eq!(client.call::<_, u64>(&body).await.unwrap(), body);
                }
            }
        });
    }
    tasks.join_all().await;
    // All room is back: as many calls as may be under way are, at once, and are answered.
    let last: Vec<_> = (0..24)
        .map(|_| {
            tokio::spawn({
                let client = client.clone();
                async move { client.call::<_, u64>(&1).await.unwrap() }
            })
        })
        .collect();
    for call in last {
        assert_eq!(call.await.unwrap(), 1);
    }
}

/// Reads what is there, and answers it from the last to the first; what was cancelled among it is
/// answered so.
async fn answer_in_bursts(mut peer: Peer) {
    let mut framer = remuda_protocol::Framer::new(1 << 20);
    let stream: &mut tokio::net::unix::OwnedReadHalf = peer.lines.get_mut().get_mut();
    loop {
        let mut answers: Vec<(u64, Vec<u8>)> = Vec::new();
        match stream.read(framer.spare()).await {
            Ok(0) | Err(_) => return,
            Ok(n) => framer.filled(n),
        }
        while let Some(line) = framer.next_line().unwrap() {
            let request = Request::parse(line).unwrap();
            let id = request.id.unwrap();
            let mut out = Vec::new();
            if matches!(request.op, remuda_protocol::Op::Cancel) {
                if let Some((_, answer)) =
                    answers.iter_mut().find(|(known, _)| Some(*known) == id.number())
                {
                    encode::error(&mut out, Some(id), Code::Cancelled, "as asked");
                    *answer = out;
                }
                continue;
            }
            echo_line(line, &mut out);
            answers.push((id.number().unwrap(), out));
        }
        let all: Vec<u8> = answers.into_iter().rev().flat_map(|(_, answer)| answer).collect();
        if tokio::io::AsyncWriteExt::write_all(&mut peer.writer, &all).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_worker_process_is_called_like_a_pool() {
    let place = Place::new();
    let worker = PythonWorker::start(&place.path, "lambda text: text.upper()").await;
    let client = Client::connect(Address::unix(&place.path)).await.unwrap();
    assert_eq!(client.call::<_, String>("abc").await.unwrap(), "ABC");
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.call::<_, String>(&format!("x{number}")).await })
        })
        .collect();
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap(), format!("X{number}"));
    }
    let error = client.call::<_, String>(&1).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::HandlerError), "{error}");
    let offer = client.links().next().unwrap().offer().unwrap();
    assert_eq!(Some(offer.pid), worker.child.id());
}
