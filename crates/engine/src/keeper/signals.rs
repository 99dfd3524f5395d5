//! The keeper's signals: all that could end it are caught and dropped, children's ends wake it.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::signal::*;

/// Caught, not ignored: exec turns a caught signal to its default for the worker, also one that
/// the pool inherited as ignored (as under `nohup`), while an ignored one would stay so.
const DROPPED: [i32; 16] = [
    SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGTSTP,
    SIGTTIN, SIGTTOU, SIGURG, SIGXCPU, SIGXFSZ, SIGWINCH,
];

/// Installed handlers, and the stream that is readable after a child ended.
#[derive(Debug)]
pub(crate) struct Signals {
    children: UnixStream,
}

impl Signals {
    pub(crate) fn install() -> io::Result<Self> {
        let nobody_looks = Arc::new(AtomicBool::new(false));
        for signal in DROPPED {
            signal_hook::flag::register(signal, Arc::clone(&nobody_looks))?;
        }
        let (children, handler) = UnixStream::pair()?;
        children.set_nonblocking(true)?;
        handler.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(SIGCHLD, handler)?;
        Ok(Self { children })
    }

    /// Forgets the wake-ups so far. To be called before children are looked for.
    pub(crate) fn drain(&self) {
        let mut bytes = [0; 512];
        while matches!((&self.children).read(&mut bytes), Ok(count) if count == bytes.len()) {}
    }

    /// Waits until a child ended or the time is over.
    pub(crate) fn wait(&self, patience: Duration) {
        let patience = Timespec::try_from(patience).unwrap_or_default();
        // An interruption or a failure only makes the caller look early.
        let _ = poll(&mut [PollFd::new(&self.children, PollFlags::IN)], Some(&patience));
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.children.as_fd()
    }
}
