//! The TCP connector, against real sockets.
#![cfg(feature = "tcpconn")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use remuda_backoff::Backoff;
use remuda_reconnect::tcpconn::{TcpConnector, TcpError};
use remuda_reconnect::{Connector, LinkState, RunResult, Watch, run};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

type Handled = io::Result<RunResult<TcpError>>;

/// Delays of a few milliseconds, so that the tests are quick.
fn quick() -> Backoff {
    Backoff::new(1).base(Duration::from_millis(1)).cap(Duration::from_millis(20))
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address that is refused: bound, so that nobody else gets it, but not listened on.
fn refused() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Reads to the end, then wants the connection back.
async fn read_to_end(mut stream: TcpStream) -> Handled {
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(RunResult::Reconnect)
}

async fn never(_: TcpStream) -> Handled {
    unreachable!("there is no connection to handle")
}

async fn failed_because(watch: &mut Watch<LinkState>, part: &str) {
    let found = watch.until(|state| match state {
        LinkState::Waiting { because, .. } | LinkState::Failed { because } => {
            because.contains(part)
        }
        _ => false,
    });
    found.await.unwrap_or_else(|| panic!("no failure because of {part:?}"));
}

fn spawn<C>(connector: C) -> JoinHandle<Result<(), C::Error>>
where
    C: Connector + 'static,
{
    tokio::spawn(run(connector))
}

#[tokio::test]
async fn refused_is_tried_again_until_somebody_listens() {
    let (socket, address) = refused();
    let (greetings, mut greeted) = mpsc::channel(1);
    let connector = TcpConnector::new(address.to_string(), move |mut stream: TcpStream| {
        let greetings = greetings.clone();
        async move {
            let mut greeting = String::new();
            stream.read_to_string(&mut greeting).await?;
            greetings.send(greeting).await.unwrap();
            Ok(RunResult::Exit(Ok(())))
        }
    });
    let mut watch = connector.watch();
    let looping = spawn(connector.backoff(quick()));
    failed_because(&mut watch, "refused").await;

    let listener = socket.listen(16).unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    watch.until(LinkState::is_connected).await.expect("it connects");
    stream.write_all(b"hello").await.unwrap();
    drop(stream);
    assert_eq!(greeted.recv().await.as_deref(), Some("hello"));
    looping.await.unwrap().unwrap();
}

#[tokio::test]
async fn ended_and_aborted_connections_are_made_again() {
    let (listener, address) = listener().await;
    let connector = TcpConnector::new(address.to_string(), read_to_end).backoff(quick());
    let (mut watch, stopper) = (connector.watch(), connector.stopper());
    let looping = spawn(connector);

    // A clean end.
    drop(listener.accept().await.unwrap());
    failed_because(&mut watch, "ended").await;

    // A reset: to close with unread data aborts the connection.
    let (stream, _) = listener.accept().await.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    failed_because(&mut watch, "reset").await;

    let (stream, _) = listener.accept().await.unwrap();
    watch.until(LinkState::is_connected).await.expect("it connects once more");
    stopper.stop();
    looping.await.unwrap().unwrap();
    drop(stream);
}

/// A backlog that is full: the kernel drops what else wants to connect, and nothing answers.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_answer_times_out_and_is_tried_again() {
    let (socket, address) = refused();
    let listener = socket.listen(1).unwrap();
    let mut fillers = Vec::new();
    let limit = Duration::from_secs(1);
    while let Ok(filler) = tokio::time::timeout(limit, TcpStream::connect(address)).await {
        fillers.push(filler.unwrap());
        assert!(fillers.len() < 100, "a backlog of one is never full");
    }

    let handled = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&handled);
    let connector = TcpConnector::new(address.to_string(), move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok(RunResult::Exit(Ok(()))) }
    });
    let mut watch = connector.watch();
    let looping = spawn(connector.backoff(quick()).connect_timeout(Duration::from_millis(50)));
    failed_because(&mut watch, "no answer").await;
    assert_eq!(handled.load(Ordering::SeqCst), 0);

    let draining = tokio::spawn(async move {
        let mut accepted = Vec::new();
        while let Ok(stream) = listener.accept().await {
            accepted.push(stream);
        }
    });
    looping.await.unwrap().unwrap();
    assert_eq!(handled.load(Ordering::SeqCst), 1);
    draining.abort();
}

#[tokio::test]
async fn malformed_address_is_fatal() {
    for address in ["nowhere", "host:port", "127.0.0.1:70000", ""] {
        let connector = TcpConnector::new(address, never);
        let watch = connector.watch();
        let error = run(connector).await.unwrap_err();
        let TcpError::Fatal { address: told, source } = &error else { panic!("{error:?}") };
        assert_eq!((told.as_str(), source.kind()), (address, io::ErrorKind::InvalidInput));
        assert!(error.to_string().contains("failed for good"), "{error}");
        assert!(watch.is_over());
        assert!(matches!(watch.latest(), LinkState::Failed { .. }));
    }
}

/// A link-local address without a scope is refused by `connect` itself (and by `socket` where
/// there is no IPv6): nothing that passes.
#[tokio::test]
async fn failure_to_connect_that_never_passes_is_fatal() {
    let connector = TcpConnector::new("[fe80::1]:9", never).backoff(quick().max_attempts(2));
    let watch = connector.watch();
    let error = run(connector).await.unwrap_err();
    assert!(matches!(&error, TcpError::Fatal { .. }), "{error:?}");
    let LinkState::Failed { because } = watch.latest() else { panic!("{}", watch.latest()) };
    assert!(because.starts_with("can't connect: "), "{because}");
}

#[tokio::test]
async fn attempts_are_used_up() {
    let (_socket, address) = refused();
    let connector = TcpConnector::new(address.to_string(), never);
    let error = run(connector.backoff(quick().max_attempts(3))).await.unwrap_err();
    let TcpError::GaveUp { address: told, source } = &error else { panic!("{error:?}") };
    assert_eq!(*told, address.to_string());
    assert_eq!(source.failures, 3);
    assert!(source.because.contains("refused"), "{error}");
}

#[tokio::test]
async fn handler_ends_the_loop_with_its_own_result() {
    let (_listener, address) = listener().await;
    let connector = TcpConnector::new(address.to_string(), |_| async {
        Ok(RunResult::Exit(Err(TcpError::Handler("speaks version 2".into()))))
    });
    let error = run(connector).await.unwrap_err();
    assert!(matches!(error, TcpError::Handler(_)));
    assert_eq!(error.to_string(), "speaks version 2");
}

#[tokio::test]
async fn handler_error_that_may_pass_reconnects_and_one_that_may_not_ends() {
    let (_listener, address) = listener().await;
    let mut results = [
        Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        Err(io::Error::new(io::ErrorKind::TimedOut, "no handshake")),
        Ok(RunResult::Reconnect),
        Err(io::Error::new(io::ErrorKind::InvalidData, "not our protocol")),
    ]
    .into_iter();
    let handled = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&handled);
    let connector = TcpConnector::new(address.to_string(), move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let result = results.next().unwrap();
        async move { result }
    });
    let error = run(connector.backoff(quick())).await.unwrap_err();
    assert_eq!(handled.load(Ordering::SeqCst), 4);
    assert!(error.to_string().contains("not our protocol"), "{error}");
}

#[tokio::test]
async fn stop_ends_an_attempt() {
    let connector = TcpConnector::new("example.invalid:1", never)
        .resolve_with(|_| std::future::pending::<io::Result<Vec<SocketAddr>>>());
    let stopper = connector.stopper();
    let mut looping = std::pin::pin!(run(connector));
    tokio::select! {
        biased;
        result = &mut looping => panic!("the look-up never ends, and yet: {result:?}"),
        () = tokio::task::yield_now() => stopper.stop(),
    }
    looping.await.unwrap();
}

#[tokio::test]
async fn stop_ends_a_wait() {
    let (_socket, address) = refused();
    let hour = Duration::from_secs(3600);
    let connector =
        TcpConnector::new(address.to_string(), never).backoff(Backoff::new(1).base(hour).cap(hour));
    let (mut watch, stopper) = (connector.watch(), connector.stopper());
    let looping = spawn(connector);
    watch.until(|state| matches!(state, LinkState::Waiting { .. })).await.expect("it waits");
    stopper.stop();
    looping.await.unwrap().unwrap();
}

#[tokio::test]
async fn stop_ends_a_running_handler_and_closes_its_connection() {
    let (listener, address) = listener().await;
    let connector = TcpConnector::new(address.to_string(), read_to_end);
    let stopper = connector.stopper();
    let looping = spawn(connector);
    let (mut stream, _) = listener.accept().await.unwrap();
    stopper.stop();
    looping.await.unwrap().unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "the connection is closed");
}

#[tokio::test]
async fn stop_before_the_start_makes_no_attempt() {
    let (listener, address) = listener().await;
    let connector = TcpConnector::new(address.to_string(), never);
    connector.stopper().stop();
    run(connector).await.unwrap();
    let mut accepting = std::pin::pin!(listener.accept());
    tokio::select! {
        biased;
        _ = &mut accepting => panic!("it connected"),
        () = std::future::ready(()) => {}
    }
}

/// A name that moves, then resolves to nothing, fails to resolve, hangs, and comes back elsewhere.
#[tokio::test]
async fn name_is_looked_up_at_each_attempt() {
    let (first, first_address) = listener().await;
    let (second, second_address) = listener().await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let names = Arc::clone(&asked);
    let connector = TcpConnector::new("pool.example:7", read_to_end)
        .backoff(quick())
        .connect_timeout(Duration::from_millis(200))
        .resolve_with(move |name| {
            let mut asked = names.lock().unwrap();
            asked.push(name);
            let attempt = asked.len();
            async move {
                match attempt {
                    1 => Ok(vec![first_address]),
                    2 => Ok(vec![]),
                    3 => Err(io::Error::other("no such name")),
                    4 => std::future::pending().await,
                    _ => Ok(vec![second_address]),
                }
            }
        });
    let (mut watch, stopper) = (connector.watch(), connector.stopper());
    let reasons = tokio::spawn(async move {
        let mut reasons = Vec::new();
        while let Some(state) = watch.changed().await {
            if let LinkState::Waiting { because, .. } | LinkState::Failed { because } = state {
                reasons.push(because.to_string());
            }
        }
        reasons.dedup();
        reasons
    });
    let looping = spawn(connector);
    drop(first.accept().await.unwrap());
    let (_stream, _) = second.accept().await.unwrap();
    stopper.stop();
    looping.await.unwrap().unwrap();
    assert_eq!(*asked.lock().unwrap(), vec!["pool.example:7"; 5]);
    assert_eq!(
        reasons.await.unwrap(),
        [
            "the connection ended",
            "can't look it up: the name has no addresses",
            "can't look it up: no such name",
            "can't look it up: no answer in time",
        ]
    );
}

#[tokio::test]
async fn addresses_of_a_name_are_tried_in_turn() {
    let (_socket, dead) = refused();
    let (listener, alive) = listener().await;
    let connector = TcpConnector::new("pool.example:7", read_to_end)
        .resolve_with(move |_| std::future::ready(Ok(vec![dead, alive])));
    let stopper = connector.stopper();
    let watch = connector.watch();
    let looping = spawn(connector);
    let (_stream, _) = listener.accept().await.unwrap();
    stopper.stop();
    looping.await.unwrap().unwrap();
    assert!(!matches!(watch.latest(), LinkState::Failed { .. }), "the first attempt connected");
}

#[tokio::test]
async fn system_resolver_knows_localhost() {
    let (listener, address) = listener().await;
    let connector = TcpConnector::new(
        format!("localhost:{}", address.port()),
        |stream: TcpStream| async move {
            assert!(stream.nodelay()?);
            Ok(RunResult::Exit(Ok(())))
        },
    );
    assert_eq!(Connector::name(&connector), Some(format!("localhost:{}", address.port()).as_str()));
    let looping = spawn(connector);
    listener.accept().await.unwrap();
    looping.await.unwrap().unwrap();
}

#[tokio::test]
async fn nodelay_can_be_off() {
    let (_listener, address) = listener().await;
    let connector = TcpConnector::new(address.to_string(), |stream: TcpStream| async move {
        assert!(!stream.nodelay()?);
        Ok(RunResult::Exit(Ok(())))
    });
    run(connector.nodelay(false)).await.unwrap();
}

/// A server that accepts and closes at once is waited for as if it had refused.
#[tokio::test]
async fn server_that_closes_at_once_is_waited_for() {
    const ATTEMPTS: u32 = 8;
    let (listener, address) = listener().await;
    let accepted = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&accepted);
    let accepting = tokio::spawn(async move {
        loop {
            drop(listener.accept().await.unwrap());
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut schedule = quick().max_attempts(ATTEMPTS);
    let connector = TcpConnector::new(address.to_string(), read_to_end).backoff(schedule.clone());
    let started = tokio::time::Instant::now();
    let error = run(connector).await.unwrap_err();
    assert!(matches!(error, TcpError::GaveUp { .. }), "{error:?}");

    let delays: Duration = std::iter::from_fn(|| schedule.next_delay(Duration::ZERO)).sum();
    assert!(delays > Duration::ZERO);
    assert!(started.elapsed() >= delays, "{:?} instead of {delays:?}", started.elapsed());
    assert_eq!(accepted.load(Ordering::SeqCst), ATTEMPTS);
    accepting.abort();
}
