//! Each sentence of the page that describes `PoolClient`, as a test.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::future::Future;
use std::io::ErrorKind;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use remuda_client::{
    HANDSHAKE_RECV_TIMEOUT, Json, PoolClient, PoolError, PoolRequest, PoolResponse,
};
use remuda_protocol::Code;
use support::{Peer, Place, PythonWorker, id_of};
use tokio::sync::Mutex;
use tokio::time::Instant;

fn text(text: &str) -> PoolRequest {
    PoolRequest::call(Json::of(text).unwrap())
}

fn result(text: &str) -> PoolResponse {
    PoolResponse::Result(Json::of(text).unwrap())
}

/// Polls a future once, and drops it.
fn begin_and_drop<F: Future>(future: F) {
    assert!(pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[tokio::test]
async fn a_connection_is_one_socket_with_json_lines() {
    let (place, listener) = Place::listen();
    let peer = async {
        let mut peer = Peer::accept(&listener).await;
        assert_eq!(peer.line().await, r#"{"op":"handshake","version":"1"}"#);
        peer.send(support::HELLO).await;
        let line = peer.line().await;
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["op"], "call");
        assert_eq!(json["body"], "abc");
        peer.echo(&line).await;
        peer
    };
    let client = async {
        let mut client = PoolClient::connect(&place.path).await.unwrap();
        assert_eq!(client.offer().capacity, 4);
        assert_eq!(client.send_request(text("abc")).await.unwrap(), result("abc"));
        client
    };
    let (mut peer, client) = tokio::join!(peer, client);
    drop(client);
    assert_eq!(peer.next().await, None, "dropping the client closes its socket");
}

#[tokio::test]
async fn a_line_break_inside_a_body_does_not_end_the_line() {
    let (place, listener) = Place::listen();
    let peer = tokio::spawn(async move { Peer::greet(&listener).await.echo_all().await });
    let mut client = PoolClient::connect(&place.path).await.unwrap();
    let body = Json::new("{\n\"a\": [1,\r\n2]\n}").unwrap();
    let answer = client.send_request(PoolRequest::call(body)).await.unwrap();
    assert_eq!(answer, PoolResponse::Result(Json::new(r#"{"a": [1,2]}"#).unwrap()));
    drop(client);
    peer.await.unwrap();
}

#[tokio::test]
async fn every_kind_of_request_gets_its_kind_of_answer() {
    let (place, listener) = Place::listen();
    let peer = tokio::spawn(async move { Peer::greet(&listener).await.echo_all().await });
    let mut client = PoolClient::connect(&place.path).await.unwrap();
    let bodies = vec![Json::new("1").unwrap(), Json::new("null").unwrap()];
    let batch = PoolRequest::Batch { bodies: bodies.clone(), timeout: None };
    let results = PoolResponse::Results(bodies.into_iter().map(Ok).collect());
    assert_eq!(client.send_request(batch).await.unwrap(), results);
    let status = client.send_request(PoolRequest::Status).await.unwrap();
    assert!(matches!(status, PoolResponse::Status(data) if data.as_str().contains("4711")));
    for (request, expected) in [(PoolRequest::Reset, "reset"), (PoolRequest::Shutdown, "shutdown")]
    {
        let answer = client.send_request(request).await.unwrap();
        assert!(matches!(answer, PoolResponse::Done { kind, .. } if kind == expected));
    }
    let again = client.send_request(PoolRequest::handshake()).await.unwrap();
    assert!(matches!(again, PoolResponse::Handshake(offer) if offer.pid == 1));
    drop(client);
    peer.await.unwrap();
}

#[tokio::test]
async fn a_failed_job_is_an_answer_and_the_connection_stays_good() {
    let (place, listener) = Place::listen();
    let peer = async {
        let mut peer = Peer::greet(&listener).await;
        let id = id_of(&peer.line().await);
        peer.send(&format!(
            r#"{{"id":{id},"ok":false,"code":"handler_error","error":"no","traceback":"tb"}}"#
        ))
        .await;
        let line = peer.line().await;
        peer.echo(&line).await;
    };
    let client = async {
        let mut client = PoolClient::connect(&place.path).await.unwrap();
        let PoolResponse::Error(error) = client.send_request(text("a")).await.unwrap() else {
            panic!("the answer is a failure")
        };
        assert_eq!((error.code, &*error.error), (Some(Code::HandlerError), "no"));
        assert_eq!(error.traceback.as_deref(), Some("tb"));
        assert_eq!(client.send_request(text("b")).await.unwrap(), result("b"));
    };
    tokio::join!(peer, client);
}

#[tokio::test]
async fn a_timeout_travels_in_milliseconds() {
    let (place, listener) = Place::listen();
    let peer = async {
        let mut peer = Peer::greet(&listener).await;
        let line = peer.line().await;
        assert!(line.contains(r#""timeout_ms":251"#), "{line}");
        peer.echo(&line).await;
    };
    let client = async {
        let mut client = PoolClient::connect(&place.path).await.unwrap();
        let timeout = Some(Duration::from_micros(250_001));
        let request = PoolRequest::Call { body: Json::new("1").unwrap(), timeout };
        client.send_request(request).await.unwrap();
    };
    tokio::join!(peer, client);
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_a_connect_error() {
    let place = Place::new();
    let error = PoolClient::connect(&place.path).await.unwrap_err();
    assert!(
        matches!(&error, PoolError::Connect(io) if io.kind() == ErrorKind::NotFound),
        "{error}"
    );
    let (place, listener) = Place::listen();
    drop(listener);
    let error = PoolClient::connect(&place.path).await.unwrap_err();
    assert!(
        matches!(&error, PoolError::Connect(io) if io.kind() == ErrorKind::ConnectionRefused),
        "{error}"
    );
}

#[tokio::test]
async fn another_version_is_a_mismatch_and_the_connection_is_closed() {
    let (place, listener) = Place::listen();
    let peer = async {
        let mut peer = Peer::accept(&listener).await;
        peer.line().await;
        peer.send(r#"{"ok":true,"data":{"kind":"handshake","version":"2"}}"#).await;
        assert_eq!(peer.next().await, None, "the client closed it");
    };
    let (error, ()) = tokio::join!(PoolClient::connect(&place.path), peer);
    match error.unwrap_err() {
        PoolError::VersionMismatch { ours, theirs } => assert_eq!((ours, &*theirs), ("1", "2")),
        other => panic!("{other}"),
    }
}

async fn handshake_error(answer: &[u8]) -> String {
    let (place, listener) = Place::listen();
    let peer = async {
        let mut peer = Peer::accept(&listener).await;
        peer.line().await;
        peer.bytes(answer).await;
    };
    let (error, ()) = tokio::join!(PoolClient::connect(&place.path), peer);
    match error.unwrap_err() {
        PoolError::Handshake(message) => message,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_answer_that_is_not_json_is_a_handshake_error() {
    let message = handshake_error(b"hello, world\n").await;
    assert!(message.contains("hello, world"), "{message}");
    handshake_error(b"{\"ok\":true\n").await;
    handshake_error(b"\xff\xfe\n").await;
    handshake_error(b"{\"ok\":true,\"data\":{\"kind\":\"result\",\"body\":1}}\n").await;
}

#[tokio::test]
async fn a_refusal_is_a_handshake_error_with_its_code() {
    let refusal = b"{\"ok\":false,\"code\":\"unauthorized\",\"error\":\"a token is needed\"}\n";
    let message = handshake_error(refusal).await;
    assert!(message.contains("unauthorized") && message.contains("a token is needed"), "{message}");
}

#[tokio::test]
async fn half_a_line_and_the_end_is_a_handshake_error() {
    let message = handshake_error(br#"{"ok":true,"da"#).await;
    assert!(message.contains("14 bytes"), "{message}");
    let message = handshake_error(b"").await;
    assert!(message.contains("closed the connection"), "{message}");
}

#[tokio::test]
async fn a_handshake_answer_without_an_end_is_cut_off() {
    let message = handshake_error(&vec![b' '; 1 << 20]).await;
    assert!(message.contains("longer than"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_never_answers_is_given_up_after_ten_seconds() {
    let (place, listener) = Place::listen();
    let peer = async {
        let mut peer = Peer::accept(&listener).await;
        peer.line().await;
        assert_eq!(peer.next().await, None, "the client closed it");
    };
    let client = async {
        let start = Instant::now();
        let error = PoolClient::connect(&place.path).await.unwrap_err();
        match error {
            PoolError::Handshake(message) => assert_eq!(message, "handshake recv timeout (10s)"),
            other => panic!("{other}"),
        }
        start.elapsed()
    };
    let ((), waited) = tokio::join!(peer, client);
    assert_eq!(HANDSHAKE_RECV_TIMEOUT, Duration::from_secs(10));
    assert!(waited >= HANDSHAKE_RECV_TIMEOUT && waited < Duration::from_secs(11), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_trickles_its_answer_is_given_up_in_the_same_time() {
    let (place, listener) = Place::listen();
    let peer = async {
        let mut peer = Peer::accept(&listener).await;
        for byte in support::HELLO.bytes() {
            peer.bytes(&[byte]).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let client = async {
        let start = Instant::now();
        let error = PoolClient::connect(&place.path).await.unwrap_err();
        assert!(matches!(error, PoolError::Handshake(_)), "{error}");
        start.elapsed()
    };
    tokio::select! {
        () = peer => panic!("the client waited for the whole answer"),
        waited = client => assert!(waited < Duration::from_secs(11), "{waited:?}"),
    }
}

#[tokio::test]
async fn a_connect_that_is_dropped_in_the_middle_closes_its_connection() {
    let (place, listener) = Place::listen();
    let mut connecting = Box::pin(PoolClient::connect(&place.path));
    let mut peer = tokio::select! {
        _ = &mut connecting => panic!("nobody answered the handshake"),
        peer = async {
            let mut peer = Peer::accept(&listener).await;
            peer.line().await;
            peer.bytes(&support::HELLO.as_bytes()[..20]).await;
            peer
        } => peer,
    };
    drop(connecting);
    assert_eq!(peer.next().await, None);
}

#[tokio::test]
async fn after_a_dropped_request_later_ones_fail_and_never_get_its_answer() {
    let (place, listener) = Place::listen();
    let (client, mut peer) = tokio::join!(PoolClient::connect(&place.path), Peer::greet(&listener));
    let mut client = client.unwrap();
    begin_and_drop(client.send_request(text("first")));
    let line = peer.line().await;
    peer.echo(&line).await;
    for _ in 0..2 {
        let error = client.send_request(text("second")).await.unwrap_err();
        assert!(matches!(error, PoolError::Unusable { .. }), "{error}");
        assert!(error.to_string().contains("was dropped before its answer came"), "{error}");
    }
    drop(client);
    assert_eq!(peer.next().await, None, "the later requests were not sent");
}

#[tokio::test]
async fn a_request_dropped_with_half_an_answer_read_spoils_the_connection_too() {
    let (place, listener) = Place::listen();
    let (client, mut peer) = tokio::join!(PoolClient::connect(&place.path), Peer::greet(&listener));
    let mut client = client.unwrap();
    let mut request = Box::pin(client.send_request(text("first")));
    tokio::select! {
        _ = &mut request => panic!("half an answer is none"),
        () = async {
            peer.line().await;
            peer.bytes(br#"{"id":1,"ok":true,"data":{"kind":"res"#).await;
            tokio::task::yield_now().await;
        } => {}
    }
    drop(request);
    peer.bytes(b"ult\",\"body\":\"first\"}}\n").await;
    let error = client.send_request(text("second")).await.unwrap_err();
    assert!(matches!(error, PoolError::Unusable { .. }), "{error}");
}

#[tokio::test]
async fn a_request_that_was_never_polled_sends_nothing_and_spoils_nothing() {
    let (place, listener) = Place::listen();
    let peer = tokio::spawn(async move { Peer::greet(&listener).await.echo_all().await });
    let mut client = PoolClient::connect(&place.path).await.unwrap();
    drop(client.send_request(text("never")));
    assert_eq!(client.send_request(text("second")).await.unwrap(), result("second"));
    drop(client);
    peer.await.unwrap();
}

#[tokio::test]
async fn an_answer_to_another_request_is_never_taken() {
    let (place, listener) = Place::listen();
    let (client, mut peer) = tokio::join!(PoolClient::connect(&place.path), Peer::greet(&listener));
    let mut client = client.unwrap();
    let answer_twice = async {
        let line = peer.line().await;
        peer.echo(&line).await;
        peer.echo(&line).await;
    };
    let (first, ()) = tokio::join!(client.send_request(text("first")), answer_twice);
    assert_eq!(first.unwrap(), result("first"));
    let error = client.send_request(text("second")).await.unwrap_err();
    assert!(matches!(error, PoolError::Protocol(_)), "{error}");
}

#[tokio::test]
async fn a_peer_that_closes_before_it_answers_is_an_error_and_stays_one() {
    let (place, listener) = Place::listen();
    let peer = async {
        let mut peer = Peer::greet(&listener).await;
        peer.line().await;
        peer.bytes(br#"{"id":1,"ok":tr"#).await;
    };
    let client = async {
        let mut client = PoolClient::connect(&place.path).await.unwrap();
        let error = client.send_request(text("a")).await.unwrap_err();
        assert!(matches!(error, PoolError::Closed), "{error}");
        let error = client.send_request(text("b")).await.unwrap_err();
        assert!(matches!(error, PoolError::Unusable { .. }), "{error}");
    };
    tokio::join!(peer, client);
}

#[tokio::test]
async fn a_line_that_is_no_answer_is_a_protocol_error() {
    for line in ["hello", r#"{"id":2,"ok":true,"data":{"kind":"result","body":1}}"#, "{}"] {
        let (place, listener) = Place::listen();
        let peer = async {
            let mut peer = Peer::greet(&listener).await;
            peer.line().await;
            peer.send(line).await;
        };
        let client = async {
            let mut client = PoolClient::connect(&place.path).await.unwrap();
            let error = client.send_request(text("a")).await.unwrap_err();
            assert!(matches!(error, PoolError::Protocol(_)), "{line}: {error}");
        };
        tokio::join!(peer, client);
    }
}

#[tokio::test]
async fn a_request_over_the_limit_is_refused_and_the_connection_stays_good() {
    let (place, listener) = Place::listen();
    let peer = tokio::spawn(async move { Peer::greet(&listener).await.echo_all().await });
    let mut client = PoolClient::connect(&place.path).await.unwrap();
    let error = client.send_request(text(&"x".repeat(17 << 20))).await.unwrap_err();
    assert!(matches!(error, PoolError::TooLarge { .. }), "{error}");
    let large = "y".repeat(8 << 20);
    assert_eq!(client.send_request(text(&large)).await.unwrap(), result(&large));
    drop(client);
    peer.await.unwrap();
}

#[test]
fn clients_and_their_futures_are_send() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    fn futures(client: &mut PoolClient) {
        drop(is_send(PoolClient::connect(Path::new("/"))));
        drop(is_send(client.send_request(PoolRequest::Status)));
    }
    let _ = futures;
    let _ = is_send::<Option<PoolClient>>(None);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_share_a_client_by_a_mutex_each_get_their_own_answer() {
    const TASKS: usize = 16;
    let (place, listener) = Place::listen();
    let peer = tokio::spawn(async move {
        let mut peer = Peer::greet(&listener).await;
        while let Some(line) = peer.next().await {
            peer.echo(&line).await;
        }
    });
    let client = Arc::new(Mutex::new(PoolClient::connect(&place.path).await.unwrap()));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                for call in 0..20 {
                    let body = format!("{task}/{call}");
                    let answer = client.lock().await.send_request(text(&body)).await.unwrap();
                    assert_eq!(answer, result(&body));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    drop(client);
    peer.await.unwrap();
}

#[tokio::test]
async fn a_task_that_stops_waiting_for_the_mutex_harms_nobody() {
    let (place, listener) = Place::listen();
    let (client, mut peer) = tokio::join!(PoolClient::connect(&place.path), Peer::greet(&listener));
    let client = Mutex::new(client.unwrap());
    let first = async { client.lock().await.send_request(text("first")).await };
    let mut first = Box::pin(first);
    begin(first.as_mut());
    begin_and_drop(async { client.lock().await.send_request(text("left")).await });
    let serve = async {
        for expected in ["first", "third"] {
            let line = peer.line().await;
            assert!(line.contains(expected), "one at a time, without the one that left: {line}");
            peer.echo(&line).await;
        }
    };
    let third = async { client.lock().await.send_request(text("third")).await };
    let (first, third, ()) = tokio::join!(first, third, serve);
    assert_eq!((first.unwrap(), third.unwrap()), (result("first"), result("third")));
}

/// Polls a future once, and keeps it.
fn begin<F: Future>(future: std::pin::Pin<&mut F>) {
    assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[tokio::test]
async fn a_worker_process_answers_and_its_death_is_an_error() {
    let place = Place::new();
    let mut worker = PythonWorker::start(&place.path, "lambda text: text.upper()").await;
    let mut client = PoolClient::connect(&place.path).await.unwrap();
    assert_eq!(Some(client.offer().pid), worker.child.id());
    assert_eq!(client.send_request(text("abc")).await.unwrap(), result("ABC"));
    let failed = client.send_request(PoolRequest::call(Json::new("1").unwrap())).await.unwrap();
    assert!(
        matches!(&failed, PoolResponse::Error(error) if error.code == Some(Code::HandlerError))
    );
    worker.child.kill().await.unwrap();
    let error = client.send_request(text("abc")).await.unwrap_err();
    assert!(matches!(error, PoolError::Closed | PoolError::Io(_)), "{error}");
}

#[tokio::test]
async fn a_worker_process_killed_in_the_middle_of_a_job_is_an_error() {
    let place = Place::new();
    let function = "lambda text: (open(text, 'w').close(), time.sleep(600))";
    let mut worker = PythonWorker::start(&place.path, function).await;
    let mut client = PoolClient::connect(&place.path).await.unwrap();
    let fifo = place.directory.path().join("started");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let request = client.send_request(text(fifo.to_str().unwrap()));
    let kill = async {
        // Opening the pipe for reading ends when the job has opened it for writing.
        tokio::task::spawn_blocking(move || std::fs::File::open(fifo)).await.unwrap().unwrap();
        worker.child.kill().await.unwrap();
    };
    let (answer, ()) = tokio::join!(request, kill);
    let error = answer.unwrap_err();
    assert!(matches!(error, PoolError::Closed | PoolError::Io(_)), "{error}");
}
