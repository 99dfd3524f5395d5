//! Accepting: one multishot operation a listener.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::opcode;
use io_uring::types::Fd;

use crate::conn::{Conn, Phase};
use crate::driver::out_of_descriptors;
use crate::error::Result;
use crate::slots::Key;
use crate::state::State;

use super::UringDriver;
use super::name::{self, Kind};

/// The connection's descriptor that an accept brought.
pub(super) fn descriptor(result: i32) -> Option<OwnedFd> {
    // SAFETY: the kernel made this descriptor for us and told nobody else of it.
    (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) })
}

impl UringDriver {
    pub(crate) fn listen(&mut self, state: &mut State, key: Key) -> Result<()> {
        if let Some(listener) = state.listeners.get(key) {
            // Multishot accepts wait by themselves only on a blocking descriptor.
            let _ = rustix::io::ioctl_fionbio(&listener.fd, false);
        }
        self.arm(state, key);
        Ok(())
    }

    fn arm(&mut self, state: &mut State, key: Key) {
        let Some(listener) = state.listeners.get_mut(key) else { return };
        if listener.resting || listener.closing || std::mem::replace(&mut listener.armed, true) {
            return;
        }
        self.accepting += 1;
        let fd = Fd(listener.fd.as_raw_fd());
        let entry = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build();
        self.push(Kind::Accept, key, entry);
    }

    pub(crate) fn accept_again(&mut self, state: &mut State, key: Key) {
        if let Some(listener) = state.listeners.get_mut(key) {
            listener.resting = false;
            self.arm(state, key);
        }
    }

    pub(crate) fn unlisten(&mut self, state: &mut State, key: Key) {
        // What the operation accepts until it is cancelled is closed as it comes: the listener
        // is no longer found. The socket itself goes with the operation.
        if state.listeners.remove(key).is_some_and(|listener| listener.armed) {
            self.cancel(Kind::Accept, key);
        }
    }

    pub(super) fn accepted(
        &mut self,
        state: &mut State,
        index: u32,
        serial: u32,
        result: i32,
        more: bool,
    ) {
        if !more {
            self.accepting = self.accepting.saturating_sub(1);
        }
        let fd = descriptor(result);
        let key = state.listeners.key_at(index).filter(|key| name::is_same(*key, serial));
        let Some(key) = key else { return };
        if let Some(fd) = fd {
            self.admit(state, key, fd);
        } else if !matches!(
            -result,
            libc::ECANCELED | libc::EINTR | libc::ECONNABORTED | libc::EPROTO | libc::EPERM
        ) {
            out_of_descriptors(state, key, std::io::Error::from_raw_os_error(-result));
        }
        if !more {
            if let Some(listener) = state.listeners.get_mut(key) {
                listener.armed = false;
            }
            self.arm(state, key);
        }
    }

    fn admit(&mut self, state: &mut State, listener: Key, fd: OwnedFd) {
        let Some(kind) = state.listeners.get(listener).map(|listener| listener.kind) else {
            return;
        };
        // Over the limit it is closed by being dropped.
        if let Some(key) = state.admit(Conn::new(fd, kind, false, Phase::Open)) {
            // Opening fails on no socket here; a receive that fails says so itself.
            let _ = self.open(state, key);
            state.accepted.push((listener, key));
        }
    }
}
