//! **Short answers that go with the `enter` that waits next, and make no completion if they go
//! out whole.** `MSG_DONTWAIT` has the kernel try such a send once, inside the `enter` that takes
//! the entry, and never keep it: a full socket is `EAGAIN` or, by `MSG_WAITALL`, a short count, and
//! both are completions, which are posted before that `enter` returns. So once the kernel has taken
//! all entries and hides no completions, and those that are there have been looked at, a silent
//! send that is still here has gone out whole, and the kernel is done with its memory. Until
//! then it is owned here.

use io_uring::{opcode, squeue, types};

use crate::send_queue::Chunk;
use crate::slots::Key;

use super::inflight::FLAGS;

/// One connection's answer: one piece of memory, which doesn't move when this is moved.
pub(super) struct SilentSend {
    pub(super) key: Key,
    pub(super) chunk: Chunk,
    /// Bytes of it that went before.
    pub(super) offset: usize,
}

impl SilentSend {
    pub(super) fn rest(&self) -> &[u8] {
        &self.chunk.as_slice()[self.offset..]
    }
}

/// Those that were given out since the last time that all were known to have gone. A completion
/// names one by its place here.
#[derive(Default)]
pub(super) struct Silent(Vec<Option<SilentSend>>);

/// How many there are at most: a turn with more answers sends the others at once.
const SENDS_MAX: usize = 1_024;

impl Silent {
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= SENDS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_alone(&self) -> bool {
        self.0.len() == 1
    }

    /// Takes the send in. Returns the entry that is to be submitted, and its name.
    pub(super) fn start(&mut self, send: SilentSend, fd: i32) -> (squeue::Entry, Key) {
        let name = Key { index: self.0.len() as u32, serial: send.key.serial };
        let bytes = send.rest();
        let entry = opcode::Send::new(types::Fd(fd), bytes.as_ptr(), bytes.len() as u32)
            .flags(FLAGS | libc::MSG_DONTWAIT)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        self.0.push(Some(send));
        (entry, name)
    }

    /// The one that a completion has come for: it failed, or is short.
    pub(super) fn told(&mut self, place: u32) -> Option<SilentSend> {
        self.0.get_mut(place as usize)?.take()
    }

    /// One that went out whole. To be called when that is certain: see the top of this file.
    pub(super) fn next_settled(&mut self) -> Option<SilentSend> {
        while let Some(send) = self.0.pop() {
            if send.is_some() {
                return send;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use io_uring::IoUring;

    use super::*;
    use crate::config::Config;
    use crate::driver::uring::setup;

    const KEY: Key = Key { index: 3, serial: 7 };

    /// Sends so many bytes silently; returns the completions' results, of which there is one or
    /// none once the call that submits is over.
    fn send(uring: &mut IoUring, silent: &mut Silent, to: &UnixStream, len: usize) -> Vec<i32> {
        let send = SilentSend { key: KEY, chunk: Chunk::Copied(vec![1; len]), offset: 0 };
        let (entry, _) = silent.start(send, to.as_raw_fd());
        // SAFETY: `silent` owns the bytes until the end of the test, or gives them out by `told`.
        unsafe { uring.submission().push(&entry) }.unwrap();
        assert_eq!(uring.submit().unwrap(), 1);
        assert!(uring.submission().is_empty() && !uring.submission().taskrun());
        uring.completion().map(|completion| completion.result()).collect()
    }

    /// Writes until nothing more goes in; returns how much that was.
    fn fill(socket: &mut UnixStream) -> usize {
        socket.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(count) = socket.write(&[0; 1 << 10]) {
            written += count;
        }
        socket.set_nonblocking(false).unwrap();
        written
    }

    #[test]
    fn a_silent_send_tells_of_all_but_its_success_before_its_enter_is_over() {
        let Ok(mut uring) = setup::try_ring(&Config::default()) else {
            assert!(std::env::var_os("REMUDA_CI").is_none(), "io_uring is missing");
            eprintln!("skipped: no io_uring here");
            return;
        };
        let mut silent = Silent::default();
        let (mut near, mut far) = UnixStream::pair().unwrap();

        assert!(send(&mut uring, &mut silent, &near, 100).is_empty());
        assert_eq!(silent.next_settled().unwrap().rest().len(), 100);
        assert!(silent.is_empty());
        far.read_exact(&mut [0; 100]).unwrap();

        // More than a socket holds: the part that went is told.
        let short = send(&mut uring, &mut silent, &near, 16 << 20);
        assert!(short.len() == 1 && short[0] > 0 && short[0] < 16 << 20, "{short:?}");
        assert_eq!(silent.told(0).unwrap().key, KEY);
        assert!(silent.next_settled().is_none());

        let full = fill(&mut near);
        assert_eq!(send(&mut uring, &mut silent, &near, 100), [-libc::EAGAIN]);
        assert!(silent.told(0).is_some());
        // Room later on makes nothing of it go out.
        far.read_exact(&mut vec![0; short[0] as usize + full]).unwrap();
        far.set_nonblocking(true).unwrap();
        assert!(far.read(&mut [0; 1]).is_err());

        drop(far);
        assert_eq!(send(&mut uring, &mut silent, &near, 100), [-libc::EPIPE]);
        // The last was not settled, and its place is still its own.
        assert!(silent.told(1).is_some());
        assert!(silent.next_settled().is_none());
    }
}
