//! At steady state, a call that comes in by a Unix socket and goes to a worker by a Unix socket
//! allocates nothing on the pool's thread.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
// Counting allocations takes an allocator of one's own, and that takes unsafe code.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use remuda_engine::{Listen, Pool, PoolConfig, WorkerKind};
use remuda_net::Config;
use remuda_protocol::Address;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is passed on to the system's allocator as it came; counting touches a thread-local
// number that needs no allocation and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is the system allocator's condition.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the system allocator's condition.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is the system allocator's condition.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUNDS: usize = 200;
const IN_FLIGHT: usize = 32;

#[test]
fn a_call_between_unix_sockets_allocates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let worker = folder.path().join("worker.sock");
    let door = folder.path().join("pool.sock");
    let path = worker.clone();
    std::thread::spawn(move || {
        let echo = remuda_worker::Worker::raw(|body, out: &mut Vec<u8>| {
            out.extend_from_slice(body.as_bytes());
            Ok::<(), String>(())
        });
        echo.listen(path)
    });
    let (ready, is_ready) = mpsc::channel();
    let (go, round) = mpsc::channel::<()>();
    let (done, finished) = mpsc::channel();
    let address: Address = format!("unix:{}", door.display()).parse().unwrap();
    let attach: Address = format!("unix:{}", worker.display()).parse().unwrap();
    std::thread::spawn(move || {
        let mut config = PoolConfig::new(WorkerKind::None);
        config.dispatch.num_workers = 0;
        config.attach = vec![attach];
        let pool = async move {
            let pool = Pool::start(config).unwrap();
            pool.listen(&Listen::at(address)).unwrap();
            ready.send(()).unwrap();
            // A message on the socket is what drives the pool; this only asks for the count.
            loop {
                remuda_net::sleep(std::time::Duration::from_millis(1)).await;
                if round.try_recv().is_ok() {
                    done.send(COUNT.with(Cell::get)).unwrap();
                }
            }
        };
        remuda_net::run_local(Config::default(), pool).unwrap();
    });
    is_ready.recv().unwrap();

    let mut socket = UnixStream::connect(&door).unwrap();
    let mut answers = BufReader::new(socket.try_clone().unwrap());
    let mut line = String::new();
    socket.write_all(b"{\"op\":\"handshake\",\"version\":\"1\"}\n").unwrap();
    answers.read_line(&mut line).unwrap();
    let mut calls = String::new();
    for id in 0..IN_FLIGHT {
        calls.push_str(&format!("{{\"op\":\"call\",\"id\":{id},\"body\":\"abcdefghijklmnop\"}}\n"));
    }
    let mut run = |rounds: usize| {
        for _ in 0..rounds {
            socket.write_all(calls.as_bytes()).unwrap();
            for _ in 0..IN_FLIGHT {
                line.clear();
                answers.read_line(&mut line).unwrap();
                assert!(line.contains("\"ok\":true"), "{line}");
            }
        }
    };
    let count = || {
        go.send(()).unwrap();
        finished.recv().unwrap()
    };
    run(ROUNDS);
    let before = count();
    // The periods of a second are passed over, too: they may allocate, jobs may not.
    run(ROUNDS);
    let allocated = count() - before;
    let jobs = (ROUNDS * IN_FLIGHT) as u64;
    assert!(allocated < jobs / 100, "{allocated} allocations for {jobs} jobs");
}
