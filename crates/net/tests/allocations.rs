//! A message costs no allocation once the connections have run for a while.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
// A global allocator that counts is unsafe to write; it only adds to the system's.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::unix::net::UnixStream;

use remuda_net::{Backend, Config, ConnCtx, ParseResult, adopt_unix, run_local, spawn};

struct Counting;

thread_local! {
    /// Of this thread alone: the one that runs the tests allocates when it likes.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is the system allocator's, with the arguments as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

async fn echo(conn: ConnCtx) {
    let echo = |data: &[u8]| {
        conn.send_nowait(data).unwrap();
        ParseResult::Consumed(data.len())
    };
    while conn.with_data(echo).await > 0 {}
}

async fn exchange(conn: ConnCtx, message: &[u8], times: usize) {
    for _ in 0..times {
        let sent = conn.send(message).unwrap();
        let received = conn.with_data(|data| {
            if data.len() < message.len() {
                return ParseResult::NeedMore;
            }
            assert!(data == message);
            ParseResult::Consumed(message.len())
        });
        assert_eq!(received.await, message.len());
        sent.await.unwrap();
    }
}

#[test]
fn an_exchange_allocates_nothing() {
    for backend in [Backend::Mio, Backend::IoUring] {
        let config = Config { backend, ..Config::default() };
        run_local(config, async {
            let (left, right) = UnixStream::pair().unwrap();
            let (left, right) = (adopt_unix(left).unwrap(), adopt_unix(right).unwrap());
            spawn(echo(right));
            for len in [64, 4_000] {
                let message = vec![7; len];
                exchange(left, &message, 100).await;
                let before = ALLOCATIONS.get();
                exchange(left, &message, 1_000).await;
                let allocations = ALLOCATIONS.get() - before;
                assert_eq!(allocations, 0, "{} at {len} bytes", backend.name());
            }
        })
        .unwrap();
    }
}
