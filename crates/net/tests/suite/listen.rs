//! Listening, and connections that come and go.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use remuda_net::{
    CloseReason, Config, ConnCtx, ParseResult, connect_unix, listen_tcp, listen_unix,
    spawn_blocking,
};

use crate::drivers::{run_beside, same_driver, take, take_all};

async fn echo(conn: ConnCtx) {
    let echo = |data: &[u8]| {
        let _ = conn.send_nowait(data);
        ParseResult::Consumed(data.len())
    };
    while conn.with_data(echo).await > 0 {}
}

fn bound() -> (tempfile::TempDir, std::path::PathBuf, UnixListener) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    (folder, path, listener)
}

async fn a_connection_closes_when_its_future_is_done() {
    let (_folder, path, listener) = bound();
    listen_unix(listener, |conn| async move { conn.send_nowait(&[7; 1 << 20]).unwrap() }).unwrap();
    let conn = connect_unix(&path).unwrap().await.unwrap();
    assert_eq!(take_all(conn).await.len(), 1 << 20);
}

async fn a_future_that_panics_closes_its_connection_and_no_other() {
    let (_folder, path, listener) = bound();
    listen_unix(listener, |conn| async move {
        if take(conn, 1).await == b"!" {
            panic!("as the test wants");
        }
        echo(conn).await;
    })
    .unwrap();
    let good = connect_unix(&path).unwrap().await.unwrap();
    good.send_nowait(b".").unwrap();
    let bad = connect_unix(&path).unwrap().await.unwrap();
    bad.send_nowait(b"!").unwrap();
    assert_eq!(take_all(bad).await, b"");
    good.send_nowait(b"still here").unwrap();
    assert_eq!(take(good, 10).await, b"still here");
}

async fn a_closed_listener_refuses_and_keeps_its_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let handle = listen_tcp(listener, echo).unwrap();
    let conn = remuda_net::connect(addr).unwrap().await.unwrap();
    conn.send_nowait(b"1").unwrap();
    assert_eq!(take(conn, 1).await, b"1");
    handle.close();
    // The kernel may take a moment to let go of the port, never a connection.
    loop {
        match remuda_net::connect(addr).unwrap().await {
            Ok(late) => late.close(),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => break,
            // It was in the queue that went with the socket.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        remuda_net::yield_now().await;
    }
    conn.send_nowait(b"2").unwrap();
    assert_eq!(take(conn, 1).await, b"2");
}

async fn connections_over_the_limit_are_closed() {
    let (_folder, path, listener) = bound();
    let config = Config { max_connections: 3, ..same_driver() };
    let clients = std::thread::spawn(move || {
        let open = |path: &std::path::Path| UnixStream::connect(path).unwrap();
        let mut kept: Vec<UnixStream> = (0..3).map(|_| open(&path)).collect();
        for stream in &mut kept {
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
        let mut over = open(&path);
        assert_eq!(over.read(&mut [0]).unwrap(), 0);
        // When one goes, there is room for another; its place may be free a little later.
        drop(kept.pop());
        loop {
            let mut late = open(&path);
            if late.write_all(b"y").is_ok() && late.read_exact(&mut [0]).is_ok() {
                break;
            }
        }
    });
    run_beside(config, || async move {
        listen_unix(listener, echo).unwrap();
        spawn_blocking(move || clients.join().unwrap()).await.unwrap();
    });
}

async fn a_used_slot_is_not_mistaken_for_the_one_before() {
    let (_folder, path, listener) = bound();
    let seen: Rc<RefCell<Vec<ConnCtx>>> = Rc::default();
    let served = Rc::clone(&seen);
    listen_unix(listener, move |conn| {
        served.borrow_mut().push(conn);
        echo(conn)
    })
    .unwrap();
    for _ in 0..50 {
        let conn = connect_unix(&path).unwrap().await.unwrap();
        conn.send_nowait(b"x").unwrap();
        assert_eq!(take(conn, 1).await, b"x");
        conn.close();
        assert_eq!(conn.closed_by(), Some(CloseReason::Local));
    }
    let seen = seen.borrow();
    for (at, old) in seen.iter().enumerate() {
        assert!(seen[..at].iter().all(|other| other.token() != old.token()));
        if at + 1 < seen.len() && seen[at + 1..].iter().any(|new| new.index() == old.index()) {
            assert!(old.send_nowait(b"to a stranger").is_err());
            assert_eq!(old.unsent(), 0);
            old.close();
        }
    }
    let indices: std::collections::HashSet<usize> = seen.iter().map(ConnCtx::index).collect();
    assert!(indices.len() < seen.len(), "slots are used again");
}

async fn ten_thousand_connections_come_and_go_while_others_run() {
    const TOTAL: usize = 10_000;
    const AT_ONCE: usize = 50;
    let (_folder, path, listener) = bound();
    listen_unix(listener, echo).unwrap();
    let steady = connect_unix(&path).unwrap().await.unwrap();
    let done = Rc::new(Cell::new(0));
    let mut tasks = Vec::new();
    for client in 0..AT_ONCE {
        let (path, done) = (path.clone(), Rc::clone(&done));
        tasks.push(remuda_net::spawn_with_handle(async move {
            for round in 0..TOTAL / AT_ONCE {
                let conn = connect_unix(&path).unwrap().await.unwrap();
                if (round + client) % 3 > 0 {
                    conn.send_nowait(b"ping").unwrap();
                    assert_eq!(take(conn, 4).await, b"ping");
                }
                conn.close();
                done.set(done.get() + 1);
            }
        }));
    }
    let mut exchanges = 0_u32;
    while done.get() < TOTAL {
        let message = exchanges.to_le_bytes();
        steady.send_nowait(&message).unwrap();
        assert_eq!(take(steady, 4).await, message);
        exchanges += 1;
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!(exchanges > 1);
}

async fn accepting_survives_a_lack_of_descriptors() {
    if std::env::var_os("REMUDA_NET_TEST_FEW_FDS").is_none() {
        // The limit is the process's: a process of its own lowers it.
        let backend = remuda_net::backend().unwrap();
        let module = if backend == remuda_net::Backend::Mio { "mio" } else { "io_uring" };
        let name = format!("listen::{module}::accepting_survives_a_lack_of_descriptors");
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", &name, "--nocapture"]).env("REMUDA_NET_TEST_FEW_FDS", "1");
        let output = spawn_blocking(move || child.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    tracing::subscriber::set_global_default(Warnings).unwrap();
    let (_folder, path, listener) = bound();
    listen_unix(listener, echo).unwrap();
    let limit = rustix::process::Rlimit { current: Some(64), maximum: Some(64) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    // Each connection takes two descriptors of this process; some will wait in the queue.
    let mut clients = Vec::new();
    while let Ok(stream) = UnixStream::connect(&path) {
        clients.push(stream);
    }
    let before = cpu_time();
    remuda_net::sleep(std::time::Duration::from_millis(300)).await;
    let used = cpu_time() - before;
    assert!(used < std::time::Duration::from_millis(150), "it spins: {used:?}");
    // It was tried again several times meanwhile, and told of once.
    assert_eq!(WARNINGS.load(Ordering::Relaxed), 1);
    // As some go, the others are served, in the order in which they came.
    let served = spawn_blocking(move || {
        clients.truncate(clients.len() / 2);
        for mut client in clients {
            client.write_all(b"ping").unwrap();
            let mut answer = [0; 4];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"ping");
        }
    });
    served.await.unwrap();
}

static WARNINGS: AtomicUsize = AtomicUsize::new(0);

/// Counts what is logged as a warning.
struct Warnings;

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        WARNINGS.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// The processor time that this thread has used.
fn cpu_time() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

on_both_drivers!(
    a_connection_closes_when_its_future_is_done,
    a_future_that_panics_closes_its_connection_and_no_other,
    a_closed_listener_refuses_and_keeps_its_connections,
    connections_over_the_limit_are_closed,
    a_used_slot_is_not_mistaken_for_the_one_before,
    ten_thousand_connections_come_and_go_while_others_run,
    accepting_survives_a_lack_of_descriptors,
);
