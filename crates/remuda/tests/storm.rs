//! Many clients of a pool that is killed and restarted under their load.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use remuda_client::{Address, Backoff, CallError, Client, ClientOptions, LinkState};
use serve::{Serve, remuda};

/// How many clients, over how many threads, see how many restarts, and how long they call between
/// two of them.
struct Size {
    clients: usize,
    threads: usize,
    restarts: u32,
    calm: Duration,
    /// The longest delay between two attempts to connect.
    cap: Duration,
}

fn pool(path: &Path) -> Serve {
    let mut command = remuda();
    command.args(["serve", "-j2", "--builtin=echo"]);
    command.arg(format!("--listen=unix:{}", path.display()));
    let mut serve = Serve::spawn(command);
    serve.listening();
    serve
}

/// What the clients of one thread saw.
#[derive(Debug, Default)]
struct Seen {
    made: u64,
    answered: u64,
    lost: u64,
    others: BTreeMap<String, u64>,
}

/// What the threads share with who kills.
struct Shared {
    address: Address,
    cap: Duration,
    stop: AtomicBool,
    answered: Vec<AtomicU64>,
}

/// Calls again and again until told to stop. Each call must end, with its own result or an error.
async fn call_on(client: &Client, number: usize, shared: &Shared, seen: &mut Seen) {
    while !shared.stop.load(Ordering::Relaxed) {
        let body = [number as u64, seen.made];
        seen.made += 1;
        match client.call::<_, [u64; 2]>(&body).await {
            Ok(result) => {
                assert_eq!(result, body, "somebody else's answer");
                seen.answered += 1;
                shared.answered[number].fetch_add(1, Ordering::Relaxed);
            }
            Err(CallError::LinkLost { .. }) => seen.lost += 1,
            Err(other) => *seen.others.entry(other.to_string()).or_default() += 1,
        }
    }
}

/// Runs some of the clients on a thread of its own.
fn clients(numbers: std::ops::Range<usize>, shared: &Arc<Shared>) -> Vec<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in numbers {
            let shared = Arc::clone(shared);
            tasks.spawn(async move {
                let cap = shared.cap;
                let options = ClientOptions::new().address(shared.address.clone());
                let options = options.backoff(move || Backoff::new(number as u64).cap(cap));
                let client = options.start().unwrap();
                let mut seen = Seen::default();
                call_on(&client, number, &shared, &mut seen).await;
                let link = client.links().next().unwrap();
                assert_eq!(link.in_flight(), 0, "all calls have ended: {link:?}");
                assert!(!matches!(link.state(), LinkState::Failed { .. }), "{link:?}");
                seen
            });
        }
        tasks.join_all().await
    })
}

/// Waits until every client got an answer since `before`; gives how long that took.
fn all_are_back(shared: &Shared) -> Duration {
    let since = Instant::now();
    let before: Vec<u64> =
        shared.answered.iter().map(|answered| answered.load(Ordering::Relaxed)).collect();
    let is_back =
        |(answered, before): (&AtomicU64, &u64)| answered.load(Ordering::Relaxed) > *before;
    while !shared.answered.iter().zip(&before).all(is_back) {
        assert!(since.elapsed() < serve::PATIENCE, "some never came back");
        std::thread::sleep(Duration::from_millis(5));
    }
    since.elapsed()
}

fn storm(size: &Size) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut serve = pool(&path);
    let shared = Arc::new(Shared {
        address: Address::unix(&path),
        cap: size.cap,
        stop: AtomicBool::new(false),
        answered: (0..size.clients).map(|_| AtomicU64::new(0)).collect(),
    });
    let each = size.clients / size.threads;
    let threads: Vec<_> = (0..size.threads)
        .map(|thread| {
            let shared = Arc::clone(&shared);
            let numbers = thread * each..(thread + 1) * each;
            std::thread::spawn(move || clients(numbers, &shared))
        })
        .collect();
    all_are_back(&shared);
    let mut slowest = Duration::ZERO;
    for _ in 0..size.restarts {
        std::thread::sleep(size.calm);
        serve.signal("KILL");
        serve.wait_end();
        serve = pool(&path);
        slowest = slowest.max(all_are_back(&shared));
    }
    shared.stop.store(true, Ordering::Relaxed);
    let seen: Vec<Seen> = threads.into_iter().flat_map(|one| one.join().unwrap()).collect();
    let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
    let (made, answered, lost) =
        (sum(|one| one.made), sum(|one| one.answered), sum(|one| one.lost));
    println!(
        "{} clients, {} restarts: {made} calls, {answered} answered, {lost} lost with their link; \
         all were back {slowest:?} after a restart at most",
        size.clients, size.restarts
    );
    let others: Vec<_> = seen.iter().flat_map(|one| &one.others).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(made, answered + lost);
    assert!(lost > 0, "the kills hit nobody");
    let each = seen.iter().map(|one| one.lost).max().unwrap();
    assert!(each <= u64::from(size.restarts), "one call at a time is lost to a kill, not {each}");
}

#[test]
fn every_call_of_many_clients_ends_once_though_the_pool_is_killed_again_and_again() {
    let size = match serve::is_soak() {
        true => Size {
            clients: 1000,
            threads: 2,
            restarts: 10,
            calm: Duration::from_secs(3),
            cap: Backoff::CAP_DEFAULT,
        },
        false => Size {
            clients: 200,
            threads: 2,
            restarts: 4,
            calm: Duration::from_millis(100),
            cap: Duration::from_millis(500),
        },
    };
    storm(&size);
}
