//! Connecting, and who the peer is.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use remuda_net::{
    Config, ConnCtx, NetError, PeerAddr, connect, connect_unix, connect_with_timeout, listen_tcp,
    listen_unix, spawn_with_handle, yield_now,
};

use crate::drivers::{pair, run_beside, same_driver, take, take_all};

async fn echo_once(conn: ConnCtx) {
    let bytes = take(conn, 4).await;
    let _ = conn.send_nowait(&bytes);
}

async fn tcp_connects_and_knows_its_peer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    listen_tcp(listener, echo_once).unwrap();
    let conn = connect(addr).unwrap().await.unwrap();
    assert!(conn.is_outbound());
    assert_eq!(conn.peer_addr(), Some(PeerAddr::Tcp(addr)));
    assert_eq!(conn.peer_cred(), None);
    conn.send_nowait(b"ping").unwrap();
    assert_eq!(take_all(conn).await, b"ping");
    conn.close();
    assert_eq!(conn.peer_addr(), None);
}

async fn unix_connects_and_knows_its_peer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    listen_unix(listener, |conn| async move {
        let cred = conn.peer_cred().unwrap();
        assert_eq!(cred.pid, Some(std::process::id() as i32));
        assert_eq!(conn.peer_addr(), Some(PeerAddr::Unix(None)));
        assert!(!conn.is_outbound());
        echo_once(conn).await;
    })
    .unwrap();
    let conn = connect_unix(&path).unwrap().await.unwrap();
    assert_eq!(conn.peer_addr(), Some(PeerAddr::Unix(Some(path))));
    conn.send_nowait(b"ping").unwrap();
    assert_eq!(take_all(conn).await, b"ping");
}

async fn a_connections_own_connects_work() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    listen_tcp(listener, echo_once).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    listen_unix(UnixListener::bind(&path).unwrap(), echo_once).unwrap();
    let (parent, _other) = pair();
    let outbound = [
        parent.connect(addr).unwrap().await.unwrap(),
        parent.connect_with_timeout(addr, 60_000).unwrap().await.unwrap(),
        parent.connect_unix(&path).unwrap().await.unwrap(),
    ];
    for conn in outbound {
        conn.send_nowait(b"ping").unwrap();
        assert_eq!(take_all(conn).await, b"ping");
    }
}

/// A port that nobody listens on.
fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn a_refusal_is_the_futures_error() {
    let error = connect(closed_port()).unwrap().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
    let error = connect_unix("/nonexistent/socket").unwrap().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("/nonexistent/socket"));
    assert!(connect_unix("x".repeat(200)).is_err());
}

/// An address that never answers: a listener whose queue is full.
fn silent() -> (TcpListener, Vec<std::net::TcpStream>, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let listener: TcpListener = socket.into();
    let addr = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    let wait = Duration::from_millis(200);
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&addr, wait) {
        filling.push(stream);
    }
    (listener, filling, addr)
}

async fn a_connect_that_takes_too_long_times_out() {
    let (_listener, _filling, addr) = silent();
    let wait = Duration::from_millis(20);
    let error = connect_with_timeout(addr, wait).unwrap().await.unwrap_err();
    assert!(matches!(error, NetError::ConnectTimedOut { .. }), "{error}");
    let (parent, _other) = pair();
    let error = parent.connect_with_timeout(addr, 20).unwrap().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

async fn a_connect_can_be_cancelled() {
    let (_listener, _filling, addr) = silent();
    let (parent, _other) = pair();
    let attempt = spawn_with_handle(parent.connect(addr).unwrap());
    yield_now().await;
    yield_now().await;
    parent.cancel().unwrap();
    assert!(matches!(attempt.await.unwrap(), Err(NetError::Cancelled)));
    // Dropping the future abandons the attempt as well.
    let dropped = remuda_net::timeout(Duration::from_millis(5), connect(addr).unwrap()).await;
    assert!(dropped.is_err());
}

async fn a_full_unix_queue_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let listener: UnixListener = socket.into();
    let first = connect_unix(&path).unwrap().await.unwrap();
    let second = spawn_with_handle(connect_unix(&path).unwrap());
    for _ in 0..10 {
        remuda_net::sleep(Duration::from_millis(2)).await;
    }
    assert!(!second.is_finished());
    let accepted = listener.accept().unwrap();
    let second = second.await.unwrap().unwrap();
    drop((accepted, first, second));
}

async fn connections_have_a_limit() {
    let config = Config { max_connections: 2, ..same_driver() };
    run_beside(config, || async {
        let (left, _right) = pair();
        let (other, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let error = remuda_net::adopt_unix(other).unwrap_err();
        assert!(matches!(error, NetError::TooManyConnections { limit: 2 }));
        left.close();
        pair_after_close().await;
    });
}

async fn pair_after_close() {
    yield_now().await;
    let (other, _) = std::os::unix::net::UnixStream::pair().unwrap();
    remuda_net::sleep(Duration::from_millis(1)).await;
    remuda_net::adopt_unix(other).unwrap();
}

async fn names_are_resolved() {
    let found = remuda_net::resolve("localhost", 80).await.unwrap();
    assert!(found.iter().any(|addr| addr.ip().is_loopback() && addr.port() == 80));
    assert_eq!(remuda_net::resolve("::1", 1).await.unwrap(), ["[::1]:1".parse().unwrap()]);
    let error = remuda_net::resolve("no such host.invalid", 80).await.unwrap_err();
    assert!(matches!(error, NetError::Resolve { .. }), "{error}");
}

on_both_drivers!(
    tcp_connects_and_knows_its_peer,
    unix_connects_and_knows_its_peer,
    a_connections_own_connects_work,
    a_refusal_is_the_futures_error,
    a_connect_that_takes_too_long_times_out,
    a_connect_can_be_cancelled,
    a_full_unix_queue_is_waited_for,
    connections_have_a_limit,
    names_are_resolved,
);
