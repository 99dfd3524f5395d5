//! Receiving: one multishot operation a connection, into provided buffers.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::opcode;
use io_uring::types::Fd;

use crate::conn::{CloseReason, Splicing};
use crate::recv_buf::RecvBuf;
use crate::slots::Key;
use crate::state::State;

use super::buffers::GROUP;
use super::name::{self, Kind};
use super::{UringDriver, make_blocking};

impl UringDriver {
    /// Arms or ends the receive, as the connection wants it: mostly it is as it was.
    #[inline]
    pub(crate) fn update_recv(&mut self, state: &mut State, key: Key) {
        let limit = state.limits.recv;
        let Some(conn) = state.conns.get_mut(key) else { return };
        let wants = conn.wants_recv(limit);
        if wants != conn.driver.receiving {
            self.change_recv(state, key, wants);
        }
    }

    #[cold]
    fn change_recv(&mut self, state: &mut State, key: Key, wants: bool) {
        let Some(conn) = state.conns.get_mut(key) else { return };
        let part = &mut conn.driver;
        if wants && !part.listed {
            part.receiving = true;
            part.in_flight += 1;
            self.receiving += 1;
            let entry = opcode::RecvMulti::new(Fd(conn.fd.as_raw_fd()), GROUP).build();
            self.push(Kind::Recv, key, entry);
        } else if !wants && !part.recv_stopping {
            part.recv_stopping = true;
            self.cancel(Kind::Recv, key);
        }
    }

    /// Gives buffers back, and receives for those connections that found none.
    #[inline]
    pub(super) fn refill(&mut self, state: &mut State) {
        self.buffers.give_back(&mut state.recv_pool.returned);
        if !self.starved.is_empty() {
            self.feed(state);
        }
    }

    /// Receives for as many of the starved as may find a buffer, those first that have waited
    /// longest. The others would only be told again that there is none.
    #[cold]
    fn feed(&mut self, state: &mut State) {
        let mut room = self.buffers.provided();
        while room > 0
            && let Some(key) = self.starved.pop_front()
        {
            let Some(conn) = state.conns.get_mut(key) else { continue };
            conn.driver.listed = false;
            self.update_recv(state, key);
            room -= 1;
        }
    }

    /// Whether some are starved though there are buffers: those that were fed last may take none,
    /// so nobody may sleep on it.
    #[inline]
    pub(super) fn feeds_more(&self) -> bool {
        !self.starved.is_empty() && self.buffers.provided() > 0
    }

    /// What a receive's completion mostly is: bytes for a connection that goes on receiving and
    /// has read all before. Finds the connection once. Anything else is not done, and `false`.
    #[inline]
    pub(super) fn brought_more(
        &mut self,
        state: &mut State,
        index: u32,
        serial: u32,
        result: i32,
        buffer: u16,
    ) -> bool {
        let plenty = self.can_spare_buffer(state);
        let Some((key, conn)) = state.conns.at_mut(index) else { return false };
        let plain = plenty && result > 0 && conn.takes_in_place();
        if !plain || !name::is_same(key, serial) {
            return false;
        }
        let len = result as usize;
        conn.recv = RecvBuf::Ring(self.buffers.taken(buffer, len));
        conn.note_arrived(len, &mut state.wakes);
        if !conn.wants_recv(state.limits.recv) {
            self.update_recv(state, key);
        }
        true
    }

    pub(super) fn received(
        &mut self,
        state: &mut State,
        key: Key,
        result: i32,
        buffer: Option<u16>,
        more: bool,
    ) {
        if let Some(buffer) = buffer {
            let plenty = self.can_spare_buffer(state);
            let len = usize::try_from(result).unwrap_or(0);
            let slice = self.buffers.taken(buffer, len);
            match len {
                0 => state.recv_pool.returned.push(slice),
                _ => state.arrived_in_ring(key, slice, plenty),
            }
        }
        if !more {
            self.receiving = self.receiving.saturating_sub(1);
            self.receive_is_over(state, key, result);
            if !self.over(state, key) {
                return;
            }
        }
        // It may have to stop, or to be armed again.
        self.update_recv(state, key);
    }

    /// A receive's completion, of a connection that is gone.
    #[cold]
    pub(super) fn received_late(&mut self, state: &mut State, buffer: Option<u16>, more: bool) {
        let slice = buffer.map(|buffer| self.buffers.taken(buffer, 0));
        state.recv_pool.returned.extend(slice);
        if !more {
            self.receiving = self.receiving.saturating_sub(1);
        }
    }

    /// The multishot operation has ended; why, decides what comes next.
    #[cold]
    fn receive_is_over(&mut self, state: &mut State, key: Key, result: i32) {
        let Some(conn) = state.conns.get_mut(key) else { return };
        conn.driver.receiving = false;
        conn.driver.recv_stopping = false;
        if conn.splicing == Splicing::Draining {
            state.wakes.extend(conn.recv_waker.take());
        }
        match -result {
            0 => state.recv_ended(key, CloseReason::Eof),
            // It was stopped, or interrupted; or it ended after data, which it may at any time.
            libc::ECANCELED | libc::EINTR => {}
            _ if result > 0 => {}
            libc::ENOBUFS => {
                // No buffer was left. Arming it at once would spin: it waits for one.
                self.buffers.were_too_few();
                conn.driver.listed = true;
                self.starved.push_back(key);
            }
            libc::EAGAIN => make_blocking(conn),
            errno => {
                let kind = io::Error::from_raw_os_error(errno).kind();
                state.recv_ended(key, CloseReason::Reset(kind));
            }
        }
    }
}
