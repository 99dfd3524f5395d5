//! What a job over rings doesn't cost: no allocation, and under load no system call.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::programs;
use crate::support::{Peer, Running, config, name};

pub const TESTS: &[(&str, fn())] = &[
    ("counts::a_call_between_rings_allocates_nothing", allocations),
    ("counts::under_load_a_message_costs_no_system_call", system_calls),
];

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static COUNTS: Cell<bool> = const { Cell::new(false) };
}

/// From here on what this thread allocates is counted.
pub fn count_this_thread() {
    COUNTS.with(|counts| counts.set(true));
}

fn count() {
    if COUNTS.with(Cell::get) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: all is passed on to the system's allocator as it came; counting touches a number and a
// thread-local that needs no allocation and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is the system allocator's condition.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the system allocator's condition.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is the system allocator's condition.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const IN_FLIGHT: u64 = 32;

/// Has so many jobs done, with many in flight.
fn run(client: &mut Peer, jobs: u64) {
    for id in 0..jobs {
        client.call(id, "\"abcdefghijklmnop\"");
        if id >= IN_FLIGHT {
            assert!(client.receive().unwrap().contains("\"ok\":true"));
        }
    }
    for _ in 0..IN_FLIGHT.min(jobs) {
        assert!(client.receive().unwrap().contains("\"ok\":true"));
    }
}

fn allocations() {
    const JOBS: u64 = 5_000;
    let pool = Running::start_counted(config("worker"));
    let mut client = pool.client();
    run(&mut client, JOBS);
    let before = COUNT.load(Ordering::Relaxed);
    // What is done once a second is passed over, too: it may allocate, jobs may not.
    run(&mut client, JOBS);
    let allocated = COUNT.load(Ordering::Relaxed) - before;
    assert!(allocated < JOBS / 100, "{allocated} allocations for {JOBS} jobs");
    assert_eq!(pool.status()["workers"][0]["shm"], true);
}

fn system_calls() {
    const JOBS: u64 = 5_000;
    /// Client to pool, pool to worker, and back.
    const MESSAGES: u64 = 4 * JOBS;
    if Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|s| s.success())
    {
        let name = name("strace");
        let folder = tempfile::tempdir().unwrap();
        let report = folder.path().join("report");
        // Without `-f` it is the pool's own thread that is counted.
        let mut pool = Command::new("strace")
            .args(["-c", "-o"])
            .arg(&report)
            .arg(std::env::current_exe().unwrap())
            .args([programs::ARGUMENT, "pool", &name, "awake"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(pool.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n");
        let mut client = Peer::connect(&name);
        // Who sleeps has to be woken, which is a call; under load nobody sleeps.
        client.awake = true;
        client.shake();
        run(&mut client, JOBS);
        let shut = client.ask(r#"{"op":"shutdown","id":1}"#);
        assert!(shut.contains("\"ok\":true"), "{shut}");
        assert!(pool.wait().unwrap().success());
        let report = std::fs::read_to_string(report).unwrap();
        // A pool that the other tests leave no processor for sleeps now and then; that is no cost
        // of a message. Ringing somebody's doorbell is.
        let line = report.lines().find(|line| line.ends_with(" write")).unwrap();
        let rings: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
        assert!(rings < MESSAGES / 50, "{rings} doorbells for {MESSAGES} messages\n{report}");
    } else {
        let ci = std::env::var("REMUDA_CI").is_ok_and(|ci| ci == "1");
        assert!(!ci, "strace is missing, or may not trace");
        eprintln!("SKIPPED: strace is missing, or may not trace");
    }
}
