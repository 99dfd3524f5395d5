//! The systems under test: workers behind a manager's end.

use std::hint::black_box;

use remuda_threads::{DownMsg, WorkerPool, recv_break};

/// The upward bound, in messages.
pub const BOUND: usize = 1024;

/// What a worker is asked to do.
#[derive(Clone, Copy)]
pub enum Task {
    /// Send so many messages.
    Stream(u64),
    /// Send this back.
    Echo(u64),
}

/// Workers that do tasks, and the manager's end.
pub trait Peer {
    fn start(workers: usize) -> Self;
    fn broadcast(&mut self, task: Task);
    fn send_next(&mut self, task: Task);
    fn recv(&mut self) -> u64;
    /// Waits for one message, then reads those that are there; gives how many it read.
    fn burst(&mut self) -> u64;
    /// Sends to one worker, and waits for the answer.
    fn round_trip(&mut self, number: u64) -> u64 {
        self.send_next(Task::Echo(number));
        self.recv()
    }
}

pub struct Ours(WorkerPool<u64, Task>);

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
        pub struct $name {
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

/// A task is a job of its own, and its result comes by a crossbeam channel, since rayon has no way
/// back; but a round trip is `install`. Streams are not what it's for.
pub struct Rayon {
    pool: rayon_core::ThreadPool,
    up_tx: crossbeam_channel::Sender<u64>,
    up: crossbeam_channel::Receiver<u64>,
}

impl Peer for Rayon {
    fn start(workers: usize) -> Self {
        let pool = rayon_core::ThreadPoolBuilder::new().num_threads(workers).build().unwrap();
        let (up_tx, up) = crossbeam_channel::bounded(BOUND);
        Self { pool, up_tx, up }
    }

    fn broadcast(&mut self, _task: Task) {
        unreachable!("no row of streams has rayon in it");
    }

    fn send_next(&mut self, task: Task) {
        let tx = self.up_tx.clone();
        self.pool.spawn_fifo(move || {
            if let Task::Echo(number) = task {
                tx.send(number).unwrap();
            }
        });
    }

    fn recv(&mut self) -> u64 {
        self.up.recv().unwrap()
    }

    fn burst(&mut self) -> u64 {
        black_box(self.recv());
        1 + self.up.try_iter().map(black_box).count() as u64
    }

    fn round_trip(&mut self, number: u64) -> u64 {
        self.pool.install(|| black_box(number))
    }
}
