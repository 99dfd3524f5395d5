//! Worker threads with handlers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use remuda_net::{AsyncEventHandler, Builder, Config, ConnCtx, ParseResult};

use crate::drivers::same_driver;

struct Echo {
    worker: usize,
}

impl AsyncEventHandler for Echo {
    fn create_for_worker(worker: usize) -> Self {
        Self { worker }
    }

    async fn on_accept(&self, conn: ConnCtx) {
        let worker = self.worker as u8;
        let echo = |data: &[u8]| {
            conn.send_nowait(data).unwrap();
            conn.send_nowait(&[worker]).unwrap();
            if data == b"quit" {
                conn.request_shutdown();
            }
            ParseResult::Consumed(data.len())
        };
        while conn.with_data(echo).await > 0 {}
    }
}

async fn workers_serve_tcp_and_unix_until_shut_down() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (shutdown, threads) = Builder::new(Config { workers: 2, ..same_driver() })
        .bind_tcp("127.0.0.1:0".parse().unwrap())
        .bind_unix(&path)
        .launch::<Echo>()
        .unwrap();
    assert_eq!(threads.len(), 2);
    let mut tcp = TcpStream::connect(shutdown.addresses()[0]).unwrap();
    let mut unix = UnixStream::connect(&path).unwrap();
    for stream in [&mut tcp as &mut dyn ReadWrite, &mut unix] {
        stream.write_all(b"hello").unwrap();
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer[..5], b"hello");
        assert!(answer[5] < 2);
    }
    shutdown.shutdown();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    assert_eq!(tcp.read(&mut [0]).unwrap(), 0);
    // The path is this test's alone, while the port may be another test's by now. A child process
    // that another test is starting may hold the socket until its exec: then a connection is made,
    // and ends with nobody having served it.
    if let Ok(mut late) = UnixStream::connect(&path) {
        assert_eq!(late.read(&mut [0]).unwrap_or(0), 0);
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

async fn a_connection_can_ask_for_shutdown_and_its_answer_goes_out() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let builder = Builder::new(Config { workers: 1, ..same_driver() }).tcp_listener(listener);
    let (_shutdown, threads) = builder.launch::<Echo>().unwrap();
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(b"quit").unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"quit\0");
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
}

static EVENTS: Mutex<Option<mpsc::Sender<&'static str>>> = Mutex::new(None);
/// The tests that use `EVENTS` run one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
static DROPPED: AtomicUsize = AtomicUsize::new(0);

fn tell(event: &'static str) {
    if let Some(events) = &*EVENTS.lock().unwrap() {
        let _ = events.send(event);
    }
}

struct Telling;

struct TellsOfItsDrop;

impl Drop for TellsOfItsDrop {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::SeqCst);
        tell("dropped");
    }
}

impl AsyncEventHandler for Telling {
    fn create_for_worker(_worker: usize) -> Self {
        tell("created");
        Self
    }

    async fn on_start(&self) {
        tell("started");
    }

    async fn on_accept(&self, conn: ConnCtx) {
        let _tells = TellsOfItsDrop;
        tell("accepted");
        remuda_net::spawn(async move {
            conn.with_data(|data| ParseResult::Consumed(data.len())).await;
            conn.close();
        });
        std::future::pending().await
    }

    fn on_tick(&self) {
        tell("tick");
    }

    fn on_notify(&self) {
        tell("notified");
    }
}

async fn a_handler_is_told_of_everything_and_a_closed_connections_task_is_dropped() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (sender, events) = mpsc::channel();
    *EVENTS.lock().unwrap() = Some(sender);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let config = Config { workers: 1, tick: Some(Duration::from_millis(5)), ..same_driver() };
    let (shutdown, threads) =
        Builder::new(config).tcp_listener(listener).launch::<Telling>().unwrap();
    let next = |wanted: &str| loop {
        let event = events.recv_timeout(crate::drivers::PATIENCE).unwrap();
        if event == wanted {
            return;
        }
        assert_eq!(event, "tick", "instead of {wanted}");
    };
    next("created");
    next("started");
    next("tick");
    next("tick");
    shutdown.notify();
    next("notified");
    let mut stream = TcpStream::connect(addr).unwrap();
    next("accepted");
    let before = DROPPED.load(Ordering::SeqCst);
    stream.write_all(b"x").unwrap();
    next("dropped");
    assert_eq!(DROPPED.load(Ordering::SeqCst), before + 1);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    shutdown.shutdown();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    *EVENTS.lock().unwrap() = None;
}

async fn an_address_in_use_is_an_error_at_once() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let builder = Builder::new(Config { workers: 1, ..same_driver() });
    let error = builder.bind_tcp(taken.local_addr().unwrap()).launch::<Echo>().err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}");
}

on_both_drivers!(
    workers_serve_tcp_and_unix_until_shut_down,
    a_connection_can_ask_for_shutdown_and_its_answer_goes_out,
    a_handler_is_told_of_everything_and_a_closed_connections_task_is_dropped,
    an_address_in_use_is_an_error_at_once,
);
