//! Ours beside crossbeam-channel and std's mpsc, in one interleaved run.
//!
//! `cargo bench -p remuda-threads --bench beside -- [--one-core] [--pairs N] [ROW...]`
//!
//! Each line is one row of work with `u64` messages and an upward bound of 1024: the median of our
//! rate (or, for the round trip, of its time), and how many times as fast as each peer we are, as
//! the median of the paired ratios with its 95 % interval.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench has no caller to report to")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use remuda_threads::{DownMsg, WorkerPool, recv_break};

const BOUND: usize = 1024;
const IN_FLIGHT: usize = 256;
const PAIRS_DEFAULT: usize = 21;
/// How long one measurement takes, about.
const SLICE: Duration = Duration::from_millis(20);

/// What a worker is asked to do.
#[derive(Clone, Copy)]
enum Task {
    /// Send so many messages.
    Stream(u64),
    /// Send this back.
    Echo(u64),
}

/// One system under test: workers behind a manager's end.
trait Peer {
    fn start(workers: usize) -> Self;
    fn broadcast(&mut self, task: Task);
    fn send_next(&mut self, task: Task);
    fn recv(&mut self) -> u64;
    /// Waits for one message, then reads those that are there; gives how many it read.
    fn burst(&mut self) -> u64;
}

struct Ours(WorkerPool<u64, Task>);

impl Peer for Ours {
    fn start(workers: usize) -> Self {
        let mut pool = WorkerPool::new(BOUND);
        pool.execute_many(workers, |tx, rx| {
            loop {
                match recv_break!(rx) {
                    Task::Stream(count) => (0..count).for_each(|n| tx.send(n).unwrap()),
                    Task::Echo(number) => tx.send(number).unwrap(),
                }
            }
        })
        .unwrap();
        Self(pool)
    }

    fn broadcast(&mut self, task: Task) {
        self.0.broadcast(DownMsg::Other(task));
    }

    fn send_next(&mut self, task: Task) {
        self.0.broadcast_one(DownMsg::Other(task)).ok().unwrap();
    }

    fn recv(&mut self) -> u64 {
        self.0.recv().unwrap()
    }

    fn burst(&mut self) -> u64 {
        black_box(self.0.recv().unwrap());
        1 + self.0.recv_burst().map(black_box).count() as u64
    }
}

/// The same by channels: one bounded channel up, one unbounded down for each worker.
macro_rules! channels {
    ($name:ident, $bounded:path, $unbounded:path, $sender:ty, $receiver:ty) => {
        struct $name {
            down: Vec<$sender>,
            next: usize,
            up: $receiver,
        }

        impl Peer for $name {
            fn start(workers: usize) -> Self {
                let (up_tx, up) = $bounded(BOUND);
                let down = (0..workers).map(|_| {
                    let (down_tx, rx) = $unbounded();
                    let tx = up_tx.clone();
                    std::thread::spawn(move || {
                        while let Ok(task) = rx.recv() {
                            match task {
                                Task::Stream(count) => (0..count).for_each(|n| tx.send(n).unwrap()),
                                Task::Echo(number) => tx.send(number).unwrap(),
                            }
                        }
                    });
                    down_tx
                });
                Self { down: down.collect(), next: 0, up }
            }

            fn broadcast(&mut self, task: Task) {
                self.down.iter().for_each(|tx| tx.send(task).unwrap());
            }

            fn send_next(&mut self, task: Task) {
                self.next = if self.next + 1 < self.down.len() { self.next + 1 } else { 0 };
                self.down[self.next].send(task).unwrap();
            }

            fn recv(&mut self) -> u64 {
                self.up.recv().unwrap()
            }

            fn burst(&mut self) -> u64 {
                black_box(self.up.recv().unwrap());
                1 + self.up.try_iter().map(black_box).count() as u64
            }
        }
    };
}

channels!(
    Crossbeam,
    crossbeam_channel::bounded,
    crossbeam_channel::unbounded,
    crossbeam_channel::Sender<Task>,
    crossbeam_channel::Receiver<u64>
);
channels!(
    Std,
    std::sync::mpsc::sync_channel,
    std::sync::mpsc::channel,
    std::sync::mpsc::Sender<Task>,
    std::sync::mpsc::Receiver<u64>
);

/// A row of the table: does `amount` of work per worker, and gives the messages that it moved.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    work: Work,
    is_latency: bool,
}

#[derive(Clone, Copy)]
enum Work {
    Up,
    Burst,
    DownAndUp,
    RoundTrip,
}

const ROWS: [Row; 4] = [
    Row { name: "up", work: Work::Up, is_latency: false },
    Row { name: "burst", work: Work::Burst, is_latency: false },
    Row { name: "flight", work: Work::DownAndUp, is_latency: false },
    Row { name: "round", work: Work::RoundTrip, is_latency: true },
];

fn run<P: Peer>(peer: &mut P, work: Work, workers: u64, amount: u64) -> Duration {
    let total = amount * workers;
    let start = Instant::now();
    match work {
        Work::Up => {
            peer.broadcast(Task::Stream(amount));
            for _ in 0..total {
                black_box(peer.recv());
            }
        }
        Work::Burst => {
            peer.broadcast(Task::Stream(amount));
            let mut read = 0;
            while read < total {
                read += peer.burst();
            }
        }
        Work::DownAndUp => {
            (0..IN_FLIGHT as u64).for_each(|number| peer.send_next(Task::Echo(number)));
            for number in 0..total {
                black_box(peer.recv());
                peer.send_next(Task::Echo(number));
            }
            for _ in 0..IN_FLIGHT {
                black_box(peer.recv());
            }
        }
        Work::RoundTrip => {
            for number in 0..total {
                peer.send_next(Task::Echo(number));
                black_box(peer.recv());
            }
        }
    }
    start.elapsed()
}

/// Seconds per message of one peer.
fn measure<P: Peer>(work: Work, workers: usize) -> impl FnMut() -> f64 {
    let mut peer = P::start(workers);
    let workers = workers as u64;
    let mut amount = 1000;
    // The fastest of some: one that the machine held up would make all slices too short.
    while (0..5).map(|_| run(&mut peer, work, workers, amount)).min() < Some(SLICE / 2) {
        amount *= 2;
    }
    move || run(&mut peer, work, workers, amount).as_secs_f64() / (amount * workers) as f64
}

/// Median and the order statistics that bound it with 95 % confidence.
fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let half_width = 1.96 * count.sqrt() / 2.0;
    let low = (count / 2.0 - half_width).floor().max(0.0) as usize;
    let high = ((count / 2.0 + half_width).ceil() as usize).min(values.len() - 1);
    (values[values.len() / 2], values[low], values[high])
}

fn compare(row: Row, workers: usize, pairs: usize) {
    let mut ours = measure::<Ours>(row.work, workers);
    let mut crossbeam = measure::<Crossbeam>(row.work, workers);
    let mut std = measure::<Std>(row.work, workers);
    let (mut times, mut to_crossbeam, mut to_std) = (vec![], vec![], vec![]);
    for pair in 0..pairs {
        // The first one may find a cold cache: take turns.
        let (mine, theirs) = if pair % 2 == 0 {
            let mine = ours();
            (mine, crossbeam())
        } else {
            let theirs = crossbeam();
            (ours(), theirs)
        };
        times.push(mine);
        to_crossbeam.push(theirs / mine);
        to_std.push(std() / mine);
    }
    let (time, ..) = median(times);
    let figure = if row.is_latency {
        format!("{:8.2} us ", time * 1e6)
    } else {
        format!("{:8.1} M/s", 1e-6 / time)
    };
    let ratio = |values| {
        let (middle, low, high) = median(values);
        format!("{middle:6.2} [{low:5.2}, {high:5.2}]")
    };
    let (name, crossbeam, std) = (row.name, ratio(to_crossbeam), ratio(to_std));
    println!("{name:7} {workers} worker(s) {figure}   crossbeam x {crossbeam}   std x {std}");
}

fn main() {
    let mut rows = vec![];
    let mut pairs = PAIRS_DEFAULT;
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--one-core" => pin_to_first_core(),
            "--pairs" => pairs = args.next().unwrap().parse().unwrap(),
            _ => rows.push(arg),
        }
    }
    for row in ROWS.into_iter().filter(|row| rows.is_empty() || rows.iter().any(|r| r == row.name))
    {
        for workers in [1, 2] {
            compare(row, workers, pairs);
        }
    }
}

#[cfg(target_os = "linux")]
fn pin_to_first_core() {
    let mut only = rustix::thread::CpuSet::new();
    only.set(0);
    rustix::thread::sched_setaffinity(None, &only).unwrap();
}

#[cfg(not(target_os = "linux"))]
fn pin_to_first_core() {
    eprintln!("--one-core: Linux only");
}
