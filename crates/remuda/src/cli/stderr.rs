//! Stderr, written on a thread of its own where a pool runs: a reader that doesn't read holds up
//! that thread, and not the pool. What such a reader has no room for is dropped and counted.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How many bytes may wait for stderr's reader; a line for which there is no room is dropped.
pub(crate) const BACKLOG_LIMIT: usize = 1 << 20;
/// How much is written at once, in whole lines where they are shorter: a pipe takes so much in one
/// piece.
const WRITE_SIZE: usize = 4096;
/// How long the end of the program waits for a reader that doesn't read at all.
const READER_PATIENCE: Duration = Duration::from_secs(1);
/// So many times as long it waits for its own thread, which a busy machine may not have let run yet.
const THREAD_PATIENCE: u32 = 10;

/// What waits to be written, of the whole program.
static BACKLOG: OnceLock<Arc<Backlog>> = OnceLock::new();

/// From here on stderr is written behind the program's back. `tell` says how many lines were
/// dropped, once there is room for that.
///
/// Where the system has no thread to give, stderr is written as before.
pub(crate) fn write_behind(tell: fn(u64)) {
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned().map(File::from) else { return };
    let backlog = Arc::new(Backlog::default());
    let its = backlog.clone();
    let thread = std::thread::Builder::new().name("remuda-stderr".into());
    if thread.spawn(move || its.write_all_to(stderr, tell)).is_ok() {
        // Another one was never begun: each command does this once.
        let _ = BACKLOG.set(backlog);
    }
}

/// Writes whole lines to stderr, or has them written. What can't be written is lost.
pub(crate) fn write(lines: &[u8]) {
    match BACKLOG.get() {
        Some(backlog) => backlog.push(lines),
        // There is nowhere to tell of it.
        None => drop(io::stderr().write_all(lines)),
    }
}

/// Waits until all is written, for as long as somebody reads it.
pub(crate) fn finish() {
    if let Some(backlog) = BACKLOG.get() {
        backlog.finish(READER_PATIENCE, is_unread);
    }
}

/// Whether stderr takes nothing more until somebody reads.
fn is_unread() -> bool {
    let stderr = io::stderr();
    let mut polled = [PollFd::new(&stderr, PollFlags::OUT)];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready == 0)
}

/// A log's way to stderr.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        write(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What waits to be written.
#[derive(Debug, Default)]
struct Backlog {
    waiting: Mutex<Waiting>,
    /// Something waits, or was written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: VecDeque<u8>,
    /// Bytes that are being written: they still take room.
    at_the_writer: usize,
    /// Lines that were dropped and not told of yet.
    dropped: u64,
    /// Bytes that were written so far.
    written: u64,
    /// The thread that writes. What it says itself always has room.
    writer: Option<ThreadId>,
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, lines: &[u8]) {
        let mut waiting = self.lock();
        let held = waiting.bytes.len() + waiting.at_the_writer;
        let is_full = held > 0 && held + lines.len() > BACKLOG_LIMIT;
        if is_full && waiting.writer != Some(std::thread::current().id()) {
            waiting.dropped += memchr::memchr_iter(b'\n', lines).count().max(1) as u64;
        } else {
            waiting.bytes.extend(lines);
            self.changed.notify_all();
        }
    }

    fn write_all_to(&self, mut sink: impl Write, tell: fn(u64)) {
        self.lock().writer = Some(std::thread::current().id());
        loop {
            let piece = self.next_piece();
            // A stream that can't be written ends nothing.
            let _ = sink.write_all(&piece);
            let dropped = std::mem::take(&mut self.lock().dropped);
            if dropped > 0 {
                // While the piece counts as unwritten: nobody takes this for the end.
                tell(dropped);
            }
            let mut waiting = self.lock();
            waiting.at_the_writer = 0;
            waiting.written += piece.len() as u64;
            self.changed.notify_all();
        }
    }

    /// Waits for lines, and takes as many as are written at once.
    fn next_piece(&self) -> Vec<u8> {
        let mut waiting = self.lock();
        while waiting.bytes.is_empty() {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let bytes = waiting.bytes.make_contiguous();
        let most = &bytes[..bytes.len().min(WRITE_SIZE)];
        let len = match memchr::memrchr(b'\n', most) {
            Some(end) => end + 1,
            None => memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1),
        };
        waiting.at_the_writer = len;
        waiting.bytes.drain(..len).collect()
    }

    fn finish(&self, patience: Duration, is_unread: impl Fn() -> bool) {
        let mut waiting = self.lock();
        let mut silences = 0;
        while !waiting.bytes.is_empty() || waiting.at_the_writer > 0 {
            let written = waiting.written;
            let waited = self.changed.wait_timeout(waiting, patience);
            let (again, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            waiting = again;
            if timeout.timed_out() && waiting.written == written {
                silences += 1;
                if is_unread() || silences == THREAD_PATIENCE {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A sink that takes a piece whenever it is told to.
    struct Slow(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_without_room_are_dropped_and_told_of() {
        static SHARED: OnceLock<Arc<Backlog>> = OnceLock::new();
        let backlog = SHARED.get_or_init(Arc::default).clone();
        let (take, taken) = channel();
        let (wrote, written) = channel();
        let tell = |lines| SHARED.get().unwrap().push(format!("{lines} dropped\n").as_bytes());
        let its = backlog.clone();
        std::thread::spawn(move || its.write_all_to(Slow(taken, wrote), tell));
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let fit = BACKLOG_LIMIT / line.len();
        for _ in 0..fit + 7 {
            backlog.push(&line);
        }
        backlog.finish(Duration::from_millis(10), || true);
        let mut all = Vec::new();
        let dropped = format!("\n{} dropped\n", 7);
        while !all.ends_with(dropped.as_bytes()) {
            take.send(()).unwrap();
            all.extend(written.recv().unwrap());
        }
        assert_eq!(all.len(), fit * line.len() + dropped.len() - 1);
        backlog.finish(Duration::from_secs(60), || true);
        assert!(backlog.lock().bytes.is_empty());
    }

    #[test]
    fn a_writer_that_is_late_itself_is_waited_for() {
        let backlog = Arc::new(Backlog::default());
        let ((take, taken), (wrote, written)) = (channel(), channel());
        let its = backlog.clone();
        std::thread::spawn(move || its.write_all_to(Slow(taken, wrote), |_| ()));
        backlog.push(b"why it ended\n");
        while backlog.lock().at_the_writer == 0 {
            std::thread::yield_now();
        }
        // It comes to write once it was looked whether somebody reads.
        let wrote = std::cell::OnceCell::new();
        let is_unread = || {
            wrote.get_or_init(|| {
                take.send(()).unwrap();
                written.recv().unwrap()
            });
            false
        };
        backlog.finish(Duration::from_millis(10), is_unread);
        assert_eq!(wrote.get().unwrap(), b"why it ended\n");
    }

    #[test]
    fn lines_are_written_whole_and_in_order() {
        let backlog = Backlog::default();
        let long = format!("{}\n", "y".repeat(3 * WRITE_SIZE));
        let lines: String = (0..2000).map(|n| format!("line {n}\n")).collect();
        backlog.push(lines.as_bytes());
        backlog.push(long.as_bytes());
        let mut all = Vec::new();
        while !backlog.lock().bytes.is_empty() {
            let piece = backlog.next_piece();
            assert!(piece.ends_with(b"\n"));
            assert!(piece.len() <= WRITE_SIZE || piece == long.as_bytes());
            all.extend(piece);
        }
        assert_eq!(all, [lines, long].concat().as_bytes());
    }
}
