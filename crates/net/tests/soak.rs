//! Connects, sends, closes and cancels at random from a seed, for a second on each driver, or for
//! as long as `REMUDA_NET_SOAK_SECONDS` says. `REMUDA_NET_SOAK_SEED` repeats a history's choices;
//! `REMUDA_NET_BACKEND` leaves one driver of the two.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use remuda_net::{
    Backend, Config, ConnCtx, ParseResult, connect, connect_unix, forward_both, join, listen_tcp,
    listen_unix, run_local, sleep, spawn_with_handle, timeout, yield_now,
};

/// Clients at a time.
const CLIENTS: u64 = 24;

/// SplitMix64: small, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.below(20) {
            0 => self.below(2 << 20),
            1..5 => self.below(100_000),
            _ => self.below(500),
        };
        let start = self.next();
        (0..=len).map(|at| (start.wrapping_add(at * 7) % 256) as u8).collect()
    }
}

#[derive(Default)]
struct Counts {
    exchanged: Cell<u64>,
    cancelled: Cell<u64>,
    closed: Cell<u64>,
    reset: Cell<u64>,
}

fn add(count: &Cell<u64>) {
    count.set(count.get() + 1);
}

async fn echo(conn: ConnCtx) {
    let mut turn = 0_u32;
    let echo = |data: &[u8]| {
        turn += 1;
        // All ways of sending, in turn.
        let sent = match turn % 4 {
            0 => conn.send_nowait(data),
            1 => conn.forward_recv_buf(data),
            2 => conn.send_bytes(bytes::Bytes::copy_from_slice(data)),
            _ => conn.send_parts().copy(&data[..1]).guard(data[1..].to_vec()).submit_nowait(),
        };
        if sent.is_err() {
            conn.close();
        }
        ParseResult::Consumed(data.len())
    };
    let mut echo = echo;
    while conn.with_data(&mut echo).await > 0 {
        if conn.flushed(4 << 20).await.is_err() {
            break;
        }
    }
}

/// Passes on to the server behind a path, until either side is gone.
async fn relay(conn: ConnCtx, server: PathBuf) {
    let Ok(attempt) = connect_unix(&server) else { return };
    let Ok(other) = attempt.await else { return };
    let _ = forward_both(conn, other).await;
    other.close();
}

#[derive(Clone)]
struct Servers {
    tcp: SocketAddr,
    relay: SocketAddr,
    unix: PathBuf,
}

async fn client(servers: Servers, mut chance: Chance, until: Instant, counts: Rc<Counts>) {
    while Instant::now() < until {
        let attempt = match chance.below(3) {
            0 => connect(servers.tcp),
            1 => connect(servers.relay),
            _ => connect_unix(&servers.unix),
        };
        let Ok(attempt) = attempt else { continue };
        if chance.below(20) == 0 {
            add(&counts.cancelled);
            drop(attempt);
            continue;
        }
        let conn = attempt.await.unwrap();
        for _ in 0..chance.below(12) {
            if !exchange(conn, &mut chance, &counts).await {
                break;
            }
        }
        conn.close();
    }
}

/// One exchange or one disturbance; whether the connection is still of use.
async fn exchange(conn: ConnCtx, chance: &mut Chance, counts: &Counts) -> bool {
    let message = chance.bytes();
    match chance.below(16) {
        0 => {
            // Closed while it sends.
            let _ = conn.send_nowait(&message);
            if chance.below(2) == 0 {
                yield_now().await;
            }
            add(&counts.closed);
            conn.close();
            false
        }
        1 => {
            // Half closed: all that was sent comes back, then the end.
            conn.send_nowait(&message).unwrap();
            conn.shutdown_write();
            assert!(receive(conn, message.len()).await == message, "a lost message");
            assert_eq!(conn.with_data(|data| ParseResult::Consumed(data.len())).await, 0);
            add(&counts.exchanged);
            false
        }
        2 => {
            // Cancelled while it waits: nothing is lost by that.
            conn.send_nowait(&message).unwrap();
            let waiting =
                spawn_with_handle(async move { conn.with_data(|_| ParseResult::NeedMore).await });
            yield_now().await;
            conn.cancel().unwrap();
            waiting.await.unwrap();
            assert!(receive(conn, message.len()).await == message, "a lost message");
            add(&counts.cancelled);
            true
        }
        3 => {
            // A wait that is given up, and one whose task is dropped.
            conn.send_nowait(&message).unwrap();
            let pause = Duration::from_micros(chance.below(2_000));
            let _ = timeout(pause, conn.with_data(|_| ParseResult::NeedMore)).await;
            let waiting = spawn_with_handle(receive(conn, usize::MAX));
            yield_now().await;
            waiting.abort();
            assert!(receive(conn, message.len()).await == message, "a lost message");
            add(&counts.cancelled);
            true
        }
        4 => {
            conn.pause_recv();
            conn.send_nowait(&message).unwrap();
            sleep(Duration::from_micros(chance.below(500))).await;
            conn.resume_recv();
            assert!(receive(conn, message.len()).await == message, "a lost message");
            add(&counts.reset);
            true
        }
        _ => {
            let sent = conn.send(&message).unwrap();
            let (sent, received) = join(sent, receive(conn, message.len())).await;
            assert_eq!(sent.unwrap(), message.len());
            assert!(received == message, "a lost message");
            add(&counts.exchanged);
            true
        }
    }
}

async fn receive(conn: ConnCtx, len: usize) -> Vec<u8> {
    let mut received = Vec::new();
    let parse = |data: &[u8]| {
        if data.len() < len {
            return ParseResult::NeedMore;
        }
        received.extend_from_slice(&data[..len]);
        ParseResult::Consumed(len)
    };
    conn.with_data(parse).await;
    received
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

async fn soak(path: &Path, seed: u64, seconds: u64) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let between = TcpListener::bind("127.0.0.1:0").unwrap();
    let servers = Servers {
        tcp: listener.local_addr().unwrap(),
        relay: between.local_addr().unwrap(),
        unix: path.to_path_buf(),
    };
    let open = Rc::new(RefCell::new(0_i64));
    let serve = move |open: Rc<RefCell<i64>>| {
        move |conn| {
            let open = Rc::clone(&open);
            async move {
                *open.borrow_mut() += 1;
                echo(conn).await;
                *open.borrow_mut() -= 1;
            }
        }
    };
    let tcp = listen_tcp(listener, serve(Rc::clone(&open))).unwrap();
    let unix = listen_unix(UnixListener::bind(path).unwrap(), serve(Rc::clone(&open))).unwrap();
    let behind = path.to_path_buf();
    let between = listen_tcp(between, move |conn| relay(conn, behind.clone())).unwrap();
    sleep(Duration::from_millis(1)).await;
    let before = descriptors();
    let until = Instant::now() + Duration::from_secs(seconds);
    let counts = Rc::new(Counts::default());
    let mut seeds = Chance(seed);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let chance = Chance(seeds.next());
            spawn_with_handle(client(servers.clone(), chance, until, Rc::clone(&counts)))
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    // The servers see the ends of their connections in the next turns.
    let settled = async {
        while *open.borrow() > 0 || descriptors() > before {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let settled = timeout(Duration::from_secs(60), settled).await;
    let after = descriptors();
    assert!(settled.is_ok(), "{after} descriptors, {before} before, {} open", open.borrow());
    eprintln!(
        "{} exchanged, {} cancelled, {} closed, {} paused; {after} descriptors before and after",
        counts.exchanged.get(),
        counts.cancelled.get(),
        counts.closed.get(),
        counts.reset.get(),
    );
    assert!(counts.exchanged.get() > 0);
    tcp.close();
    between.close();
    unix.close();
}

#[test]
fn soak_on_both_drivers() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seconds = number("REMUDA_NET_SOAK_SECONDS").unwrap_or(1);
    let since_epoch = std::time::UNIX_EPOCH.elapsed();
    let chosen = || since_epoch.map_or(1, |time| time.as_nanos() as u64);
    let seed = number("REMUDA_NET_SOAK_SEED").unwrap_or_else(chosen);
    let forced = Backend::from_env().unwrap().filter(|backend| *backend != Backend::Auto);
    let chosen = |backend: &Backend| forced.is_none_or(|forced| forced == *backend);
    for backend in [Backend::Mio, Backend::IoUring].into_iter().filter(chosen) {
        let before = descriptors();
        let folder = tempfile::tempdir().unwrap();
        eprintln!("{}: REMUDA_NET_SOAK_SEED={seed}", backend.name());
        // Few buffers, so that they run out.
        let config = Config { backend, uring_buffers: 16, ..Config::default() };
        run_local(config, soak(&folder.path().join("socket"), seed, seconds)).unwrap();
        drop(folder);
        assert_eq!(descriptors(), before, "after the runtime's end");
    }
}
