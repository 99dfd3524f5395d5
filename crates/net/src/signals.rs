//! Signals, as values in a task.

use std::collections::VecDeque;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::task::{Poll, Waker};

use signal_hook::SigId;
use signal_hook::low_level::{pipe, unregister};

use crate::error::{NetError, Result};
use crate::readiness::ReadyFd;

/// Receives signals. Each that arrives is given once, those of one kind as often as they were
/// delivered. Dropping it takes the handlers out.
pub struct Signals {
    sources: Vec<Source>,
    pending: VecDeque<i32>,
}

/// One signal's pipe: a byte for each delivery.
struct Source {
    signal: i32,
    reader: UnixStream,
    ready: ReadyFd,
    handler: SigId,
}

impl Drop for Source {
    fn drop(&mut self) {
        unregister(self.handler);
    }
}

/// Begins to receive signals (numbers as in `libc`: SIGINT is 2, SIGTERM 15). Their default
/// action is suspended for the rest of the process's life.
///
/// # Errors
/// If a signal can't be handled (SIGKILL, SIGSTOP, and those of faults), or as [`ReadyFd`].
pub fn signals(signals: &[i32]) -> Result<Signals> {
    let sources: Result<Vec<Source>> = signals.iter().map(|signal| Source::new(*signal)).collect();
    Ok(Signals { sources: sources?, pending: VecDeque::new() })
}

impl Source {
    fn new(signal: i32) -> Result<Self> {
        const WHAT: &str = "setting up a signal's pipe";
        if signal_hook::consts::FORBIDDEN.contains(&signal) {
            let source = std::io::Error::from(std::io::ErrorKind::InvalidInput);
            return Err(NetError::Io { what: "handling a signal that can't be handled", source });
        }
        let (reader, writer) = UnixStream::pair().map_err(NetError::io(WHAT))?;
        reader.set_nonblocking(true).map_err(NetError::io(WHAT))?;
        let ready = ReadyFd::readable(&reader)?;
        let handler = pipe::register(signal, writer).map_err(NetError::io(WHAT))?;
        Ok(Self { signal, reader, ready, handler })
    }

    /// Moves what was delivered to `pending`.
    fn drain(&mut self, pending: &mut VecDeque<i32>) {
        let mut bytes = [0; 64];
        while let Ok(count @ 1..) = self.reader.read(&mut bytes) {
            pending.extend(std::iter::repeat_n(self.signal, count));
        }
    }

    fn poll(&mut self, waker: &Waker, pending: &mut VecDeque<i32>) {
        self.drain(pending);
        while let Poll::Ready(Ok(())) = self.ready.poll_ready(waker) {
            self.drain(pending);
        }
    }
}

impl Signals {
    /// The next signal. Cancel safe.
    pub async fn recv(&mut self) -> i32 {
        std::future::poll_fn(|cx| {
            if self.pending.is_empty() {
                for source in &mut self.sources {
                    source.poll(cx.waker(), &mut self.pending);
                }
            }
            self.pending.pop_front().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
