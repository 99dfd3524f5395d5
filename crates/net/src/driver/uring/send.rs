//! Sending: at once what the socket takes, and the rest by one operation in flight a connection.
//! The answers of a turn that has several go with the `enter` that waits next, as silent sends.

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{Shutdown, shutdown};

use crate::conn::{Conn, Phase};
use crate::driver::direct;
use crate::send_queue::PIECES_PER_SEND;
use crate::slots::Key;
use crate::state::State;

use super::inflight::SPARE_SENDS;
use super::name::Kind;
use super::{UringDriver, make_blocking};

/// What is sent with the `enter` at most: one piece of the pool's memory, as it is by default.
const SILENT_BYTES: usize = 16 << 10;

impl UringDriver {
    pub(crate) fn flush(&mut self, state: &mut State, key: Key) {
        let Some(conn) = state.conns.get_mut(key) else { return };
        conn.dirty = false;
        if conn.phase == Phase::Connecting || conn.driver.send_blocked {
            return;
        }
        if conn.send.has_chunks() && conn.send_error.is_none() {
            match direct::write_all(state, key) {
                Ok(_) => {}
                Err(errno) => state.send_failed(key, io::Error::from(errno).kind()),
            }
        }
        let Some(conn) = state.conns.get_mut(key) else { return };
        if conn.send.has_chunks() && conn.send_error.is_none() {
            // The socket is full: the kernel goes on with the rest as it empties.
            let mut send = self.in_flight.spare();
            send.offset = conn.send.take_front(PIECES_PER_SEND, &mut send.chunks);
            conn.driver.send_blocked = true;
            conn.driver.in_flight += 1;
            let entry = self.in_flight.start(key.index as usize, send, conn.fd.as_raw_fd());
            self.push(Kind::Send, key, entry);
        } else if conn.fin_wanted && !conn.fin_sent && conn.send.unsent() == 0 {
            conn.fin_sent = true;
            // It fails when the peer is gone, which the receiving side reports.
            let _ = shutdown(&conn.fd, Shutdown::Write);
        }
    }

    /// Leaves a short answer to the next `enter`: one system call for all that a turn sends. What
    /// somebody waits for, or what others lend, is not left: the `enter` may last.
    pub(crate) fn send_with_enter(&mut self, state: &mut State, key: Key) -> bool {
        let spare = self.can_spare_buffer(state);
        let Some(conn) = state.conns.get_mut(key) else { return false };
        let free = conn.phase == Phase::Open && !conn.driver.send_blocked && !conn.fin_wanted;
        let short = conn.send.only_own_piece().is_some_and(|len| len <= SILENT_BYTES);
        if !free
            || !short
            || conn.send_error.is_some()
            || !conn.send_waiters.is_empty()
            || self.in_flight.count >= SPARE_SENDS
            || !spare
        {
            return false;
        }
        conn.dirty = false;
        let mut send = self.in_flight.spare();
        send.offset = conn.send.take_front(1, &mut send.chunks);
        conn.driver.send_blocked = true;
        conn.driver.in_flight += 1;
        let entry = self.in_flight.start_silent(key, send, conn.fd.as_raw_fd());
        self.push(Kind::Send, key, entry);
        true
    }

    /// Ends the silent sends that went out, after an `enter`'s completions were looked at.
    /// `certain` says whether all were, right after the `enter`.
    pub(super) fn settle(&mut self, state: &mut State, certain: bool) {
        while certain && let Some((key, len)) = self.in_flight.next_settled() {
            let place = key.index as usize;
            let conn = state.conns.get_mut(key);
            // Mostly nothing else has come up meanwhile.
            let plain = |conn: &&mut Conn| {
                conn.phase == Phase::Open
                    && !(conn.driver.ending || conn.fin_wanted || conn.send.has_chunks())
                    && conn.send_waiters.is_empty()
            };
            if let Some(conn) = conn.filter(plain) {
                conn.driver.send_blocked = false;
                conn.driver.in_flight -= 1;
                conn.send.sent += len as u64;
                drop(self.in_flight.finish(place, len, &mut self.done));
                for chunk in self.done.drain(..) {
                    chunk.release(&mut state.send_pool, &mut state.recv_pool);
                }
            } else {
                self.sent(state, key, len as i32);
                self.over(state, key);
            }
        }
    }

    /// A send's completion. The caller counts the operation as over.
    pub(super) fn sent(&mut self, state: &mut State, key: Key, result: i32) {
        let sent = usize::try_from(result).unwrap_or(0);
        let rest = self.in_flight.finish(key.index as usize, sent, &mut self.done);
        for chunk in self.done.drain(..) {
            chunk.release(&mut state.send_pool, &mut state.recv_pool);
        }
        let Some(conn) = state.conns.get_mut(key) else { return };
        conn.driver.send_blocked = false;
        conn.send.sent += sent as u64;
        let failed = match -result {
            libc::EINTR => false,
            libc::EAGAIN => {
                make_blocking(conn);
                false
            }
            errno => errno > 0,
        };
        if failed || conn.driver.ending {
            if let Some(rest) = rest {
                self.in_flight.give_up(rest, &mut self.done);
                for chunk in self.done.drain(..) {
                    chunk.release(&mut state.send_pool, &mut state.recv_pool);
                }
            }
            state.send_failed(key, io::Error::from_raw_os_error(-result.min(0)).kind());
        } else if let Some(rest) = rest {
            // A short send, or a part of a long message: the rest goes before all else.
            conn.driver.send_blocked = true;
            conn.driver.in_flight += 1;
            let entry = self.in_flight.start(key.index as usize, rest, conn.fd.as_raw_fd());
            self.push(Kind::Send, key, entry);
        } else {
            self.flush(state, key);
        }
        state.sent_further(key);
        let closing = state.conns.get(key).is_some_and(|conn| conn.phase == Phase::Closing);
        if closing {
            self.close(state, key, false);
        }
    }
}
