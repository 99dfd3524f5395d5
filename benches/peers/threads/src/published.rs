//! Document 004's published crate.

use std::hint::black_box;

use worker_pool::{DownMsg, WorkerPool, recv_break};

use crate::peers::{BOUND, Peer, Task};

pub struct Published(WorkerPool<u64, Task>);

impl Peer for Published {
    fn start(workers: usize) -> Self {
        let mut pool = WorkerPool::new(BOUND);
        pool.execute_many(workers, |tx, rx| {
            loop {
                match recv_break!(rx) {
                    Task::Stream(count) => {
                        (0..count).for_each(|n| tx.send(n).ok().unwrap());
                    }
                    Task::Echo(number) => tx.send(number).ok().unwrap(),
                }
            }
        });
        Self(pool)
    }

    fn broadcast(&mut self, task: Task) {
        self.0.broadcast(DownMsg::Other(task));
    }

    fn send_next(&mut self, task: Task) {
        self.0.broadcast_one(DownMsg::Other(task)).ok().unwrap();
    }

    fn recv(&mut self) -> u64 {
        self.0.recv().ok().unwrap()
    }

    fn burst(&mut self) -> u64 {
        black_box(self.recv());
        1 + self.0.recv_burst().map(black_box).count() as u64
    }
}
