//! Accepting connections.

use std::os::fd::AsRawFd;

use mio::Interest;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::conn::{Conn, Phase};
use crate::driver::out_of_descriptors;
use crate::error::Result;
use crate::slots::Key;
use crate::state::State;

use super::{LISTENER, MioDriver, token};

impl MioDriver {
    pub(crate) fn listen(&mut self, state: &mut State, key: Key) -> Result<()> {
        let Some(listener) = state.listeners.get(key) else { return Ok(()) };
        self.register(listener.fd.as_raw_fd(), token(LISTENER, key), Interest::READABLE)
    }

    pub(crate) fn unlisten(&mut self, state: &mut State, key: Key) {
        if let Some(listener) = state.listeners.remove(key) {
            self.deregister(listener.fd.as_raw_fd());
        }
    }

    pub(crate) fn accept_again(&mut self, state: &mut State, key: Key) {
        if let Some(listener) = state.listeners.get_mut(key) {
            listener.resting = false;
            self.accept(state, key);
        }
    }

    /// Accepts all that wait: the edge comes only once.
    pub(super) fn accept(&mut self, state: &mut State, key: Key) {
        loop {
            let Some(listener) = state.listeners.get_mut(key) else { return };
            if listener.resting {
                return;
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let fd = match accept_with(&listener.fd, flags) {
                Ok(fd) => fd,
                Err(Errno::AGAIN) => return,
                // The connection ended before it was accepted, or a signal came: the next one.
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO | Errno::PERM) => continue,
                Err(errno) => {
                    out_of_descriptors(state, key, errno.into());
                    return;
                }
            };
            let kind = listener.kind;
            let Some(conn) = state.admit(Conn::new(fd, kind, false, Phase::Open)) else {
                // Over the limit: it was accepted, and is closed by being dropped.
                continue;
            };
            if self.open(state, conn).is_err() {
                state.forget(conn);
                continue;
            }
            state.accepted.push((key, conn));
        }
    }
}
