//! The seam between the runtime and what does its input and output. The runtime keeps the
//! state of connections; a driver moves bytes between them and the kernel.

mod direct;
mod mio;
mod ring_slice;
mod uring;

pub(crate) use direct::DIRECT_BYTES;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use ring_slice::RingSlice;

use crate::config::{Backend, Config};
use crate::conn::Phase;
use crate::error::{NetError, Result};
use crate::remote::Remote;
use crate::slots::Key;
use crate::state::State;

/// The driver that was chosen when the runtime started.
pub(crate) enum Driver {
    Mio(mio::MioDriver),
    Uring(Box<uring::UringDriver>),
}

/// How long a wait for events may last.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    Now,
    Deadline(Instant),
    Forever,
}

/// Calls the method of whichever driver it is.
macro_rules! each {
    ($self:ident, $driver:ident => $call:expr) => {
        match $self {
            Driver::Mio($driver) => $call,
            Driver::Uring($driver) => $call,
        }
    };
}

impl Driver {
    /// Takes the driver that was asked for, or io_uring if it can be had and mio if not. Returns
    /// with it, in words, why it is that one.
    pub(crate) fn choose(config: &Config, wake: &Arc<Remote>) -> Result<(Self, String)> {
        let forced = Backend::from_env()?;
        let (asked, by) = match forced {
            Some(backend) => (backend, "REMUDA_NET_BACKEND asks for it"),
            None => (config.backend, "the configuration asks for it"),
        };
        if asked == Backend::Mio {
            return Ok((Self::Mio(mio::MioDriver::new(wake.as_fd())?), by.into()));
        }
        match uring::UringDriver::new(config, wake.as_fd()) {
            Ok(driver) => {
                let why = if asked == Backend::Auto { "it works here" } else { by };
                Ok((Self::Uring(Box::new(driver)), why.into()))
            }
            Err(reason) if asked == Backend::Auto => {
                let driver = mio::MioDriver::new(wake.as_fd())?;
                Ok((Self::Mio(driver), format!("io_uring can't be had: {reason}")))
            }
            Err(reason) => Err(NetError::Backend { backend: asked.name().into(), reason }),
        }
    }

    pub(crate) fn backend(&self) -> Backend {
        match self {
            Self::Mio(_) => Backend::Mio,
            Self::Uring(_) => Backend::IoUring,
        }
    }

    /// A connection was put in the table. If it is open, receiving begins; if it is being
    /// connected, its outcome is awaited.
    pub(crate) fn open(&mut self, state: &mut State, key: Key) -> Result<()> {
        each!(self, driver => driver.open(state, key))
    }

    /// Whether the connection wants to be read may have changed.
    #[inline]
    pub(crate) fn update_recv(&mut self, state: &mut State, key: Key) {
        each!(self, driver => driver.update_recv(state, key));
    }

    /// Somebody waits for the peer to be gone.
    pub(crate) fn watch_gone(&mut self, state: &mut State, key: Key) {
        each!(self, driver => driver.watch_gone(state, key));
    }

    /// Gives the kernel what is queued, as far as it takes it.
    pub(crate) fn flush(&mut self, state: &mut State, key: Key) {
        each!(self, driver => driver.flush(state, key));
    }

    /// Leaves what is queued to the call that waits for events next, where that is possible
    /// (true): one system call for what a turn sends and for its wait.
    pub(crate) fn send_with_enter(&mut self, state: &mut State, key: Key) -> bool {
        match self {
            Self::Mio(_) => false,
            Self::Uring(driver) => driver.send_with_enter(state, key),
        }
    }

    /// Has the kernel take a `data` of at least [`DIRECT_BYTES`] at once, as far as it does;
    /// returns how far.
    pub(crate) fn send_directly(&mut self, state: &mut State, key: Key, data: &[u8]) -> usize {
        direct::send(state, key, data)
    }

    /// The owner closed it. It goes when its unsent bytes are gone, or at once if `abandon`.
    pub(crate) fn close(&mut self, state: &mut State, key: Key, abandon: bool) {
        each!(self, driver => driver.close(state, key, abandon));
    }

    pub(crate) fn listen(&mut self, state: &mut State, key: Key) -> Result<()> {
        each!(self, driver => driver.listen(state, key))
    }

    /// Accepting may be tried again.
    pub(crate) fn accept_again(&mut self, state: &mut State, key: Key) {
        each!(self, driver => driver.accept_again(state, key));
    }

    pub(crate) fn unlisten(&mut self, state: &mut State, key: Key) {
        each!(self, driver => driver.unlisten(state, key));
    }

    /// Begins to wait for a descriptor's readiness, or waits again.
    pub(crate) fn watch(&mut self, state: &mut State, key: Key) -> Result<()> {
        each!(self, driver => driver.watch(state, key))
    }

    pub(crate) fn unwatch(&mut self, state: &mut State, key: Key) {
        each!(self, driver => driver.unwatch(state, key));
    }

    /// Whether no operation is under way that reads or writes the socket.
    pub(crate) fn is_quiet(&self, state: &State, key: Key) -> bool {
        each!(self, driver => driver.is_quiet(state, key))
    }

    /// The socket of a quiet connection is read and written directly for a while (`lend`), or
    /// no more.
    pub(crate) fn lend_socket(&mut self, state: &mut State, key: Key, lend: bool) {
        each!(self, driver => driver.lend_socket(state, key, lend));
    }

    /// Whether a receive buffer may be kept until it has been sent on.
    pub(crate) fn can_spare_buffer(&self, state: &State) -> bool {
        each!(self, driver => driver.can_spare_buffer(state))
    }

    /// Whether there is work that doesn't come from the kernel.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        each!(self, driver => driver.has_work())
    }

    /// Hands the kernel what is to be handed, without waiting.
    pub(crate) fn submit(&mut self, state: &mut State) -> Result<()> {
        each!(self, driver => driver.submit(state))
    }

    /// Whether a wait would end at once. It changes nothing but what the driver keeps.
    pub(crate) fn is_ready(&mut self) -> bool {
        each!(self, driver => driver.is_ready())
    }

    /// How often the kernel was asked for events.
    pub(crate) fn enters(&self) -> u64 {
        each!(self, driver => driver.enters())
    }

    /// Waits for events, and notes them in the state.
    pub(crate) fn wait(&mut self, state: &mut State, until: Until) -> Result<()> {
        each!(self, driver => driver.wait(state, until))
    }
}

/// Accepting that goes on failing is told of again after so long.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// Accepting failed for want of descriptors or memory: the listener rests until a connection
/// is closed, or for a while. Trying again at once would spin.
fn out_of_descriptors(state: &mut State, key: Key, error: std::io::Error) {
    if let Some(listener) = state.listeners.get_mut(key) {
        listener.resting = true;
        let now = state.clock.now();
        state.accept_again = Some(now + state.limits.accept_pause);
        let told = state.accept_told.filter(|told| now - *told < TELL_AGAIN);
        if told.is_none() {
            state.accept_told = Some(now);
            tracing::warn!(%error, "accepting rests for want of descriptors or memory");
        }
    }
}

/// The kernel has decided about a connect. Returns whether the connection is open now.
fn finish_connect(state: &mut State, key: Key) -> bool {
    let Some(conn) = state.conns.get_mut(key) else { return false };
    let result = match rustix::net::sockopt::socket_error(&conn.fd) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(errno)) | Err(errno) => Err(std::io::Error::from(errno)),
    };
    let connected = result.is_ok();
    if connected {
        conn.phase = Phase::Open;
    }
    let rare = conn.rare();
    rare.connect_result = Some(result);
    state.wakes.extend(rare.connect_waker.take());
    connected
}
