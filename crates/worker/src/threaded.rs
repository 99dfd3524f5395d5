//! One connection, served by several threads, or by one that can be told to stop.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use remuda_protocol::{Id, IdBuf, Op, Request};

use crate::connection::{Lines, Step, send};
use crate::job::Job;
use crate::results::Runner;

/// How many calls may wait for a thread before the connection is not read any more.
const WAITING_MAX: usize = 64;

/// A call on its way to a thread.
struct Task {
    /// Read again by the thread, which costs less than a copy of every part.
    line: Vec<u8>,
    job: Job,
}

/// What the threads of a connection share.
struct Shared<'w, W> {
    runner: &'w Runner,
    writer: Mutex<W>,
    running: Mutex<HashMap<IdBuf, Job>>,
    tasks: Mutex<Receiver<Task>>,
}

/// Serves a connection until it ends and all its calls are answered.
pub(crate) fn serve(
    reader: &mut impl Read,
    writer: impl Write + Send,
    lines: &mut Lines<'_>,
    runner: &Runner,
    threads: usize,
) -> io::Result<()> {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    let shared = Shared {
        runner,
        writer: Mutex::new(writer),
        running: Mutex::new(HashMap::new()),
        tasks: Mutex::new(receiver),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| shared.work());
        }
        let read = shared.read(reader, lines, &sender);
        // Without a sender, the threads end when nothing is left.
        drop(sender);
        if read.is_err() {
            shared.cancel_all();
        }
        read
    })
}

impl<W: Write> Shared<'_, W> {
    fn read(
        &self,
        reader: &mut impl Read,
        lines: &mut Lines<'_>,
        sender: &SyncSender<Task>,
    ) -> io::Result<()> {
        let mut out = Vec::new();
        loop {
            while let Some(step) = lines.next(&mut out) {
                let close = match step {
                    Step::Run { id: Some(id), line, .. } => {
                        self.hand_over(id, line, sender);
                        false
                    }
                    // Answers without an id come in the order of their requests, so these run here,
                    // one after the other.
                    Step::Run { id: None, call, .. } => {
                        let job = Job::default();
                        job.run(|| self.runner.call(None, &call, &job, &mut out));
                        false
                    }
                    Step::Cancel(id) => {
                        if let Some(job) = lock(&self.running).get(&IdBuf::from(id)) {
                            job.cancel();
                        }
                        false
                    }
                    Step::Done => false,
                    Step::Close => true,
                };
                if !out.is_empty() && !send(&mut *lock(&self.writer), &mut out)? || close {
                    return Ok(());
                }
            }
            if !lines.fill(reader)? {
                return Ok(());
            }
        }
    }

    fn hand_over(&self, id: Id<'_>, line: &[u8], sender: &SyncSender<Task>) {
        let job = Job::default();
        lock(&self.running).insert(IdBuf::from(id), job.clone());
        // The receiver lives as long as `self`, so this can't fail.
        let _ = sender.send(Task { line: line.to_vec(), job });
    }

    fn work(&self) {
        let mut out = Vec::new();
        loop {
            // The lock is held while waiting: whoever has it is next.
            let Ok(task) = lock(&self.tasks).recv() else { return };
            if let Ok(Request { id: Some(id), op: Op::Call(call) }) = Request::parse(&task.line) {
                let job = &task.job;
                job.run(|| self.runner.call(Some(id), &call, job, &mut out));
                lock(&self.running).remove(&IdBuf::from(id));
            }
            // When the peer is gone, the reader notices too, and ends the connection.
            let _ = send(&mut *lock(&self.writer), &mut out);
        }
    }

    fn cancel_all(&self) {
        lock(&self.running).values().for_each(Job::cancel);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Handlers run outside of every lock and their panics are caught: none is ever poisoned.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
