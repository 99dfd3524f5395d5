//! Sending: at once what the socket takes, and the rest by one operation in flight a connection.
//! Where turns have several short answers, or one before the thread sleeps, these go with the
//! `enter` that waits next, as silent sends.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::cqueue;
use rustix::net::{Shutdown, shutdown};

use crate::conn::{Conn, Phase};
use crate::driver::direct;
use crate::send_queue::PIECES_PER_SEND;
use crate::slots::Key;
use crate::state::State;

use super::name::{self, Kind};
use super::silent::SilentSend;
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
        if conn.send_error.is_some() {
            return;
        }
        let written = direct::write_all(conn, &mut state.send_pool, &mut state.recv_pool);
        conn.note_sent(&mut state.wakes);
        if let Err(errno) = written {
            return state.send_failed(key, io::Error::from(errno).kind());
        }
        if conn.send.has_chunks() {
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
        if self.silent.is_full() || !self.can_spare_buffer(state) {
            return false;
        }
        let Some(conn) = state.conns.get_mut(key) else { return false };
        let free = conn.phase == Phase::Open && !conn.driver.send_blocked && !conn.fin_wanted;
        if !free || conn.send_error.is_some() || conn.has_send_waiters() {
            return false;
        }
        let Some((chunk, offset)) = conn.send.take_only(SILENT_BYTES) else { return false };
        conn.dirty = false;
        conn.driver.send_blocked = true;
        conn.driver.in_flight += 1;
        let fd = conn.fd.as_raw_fd();
        let (entry, name) = self.silent.start(SilentSend { key, chunk, offset }, fd);
        self.push(Kind::Silent, name, entry);
        true
    }

    /// Ends the silent sends: all of which `taken` doesn't tell went out whole. To be called when
    /// it holds all completions that they made.
    pub(super) fn settle(&mut self, state: &mut State, taken: &[cqueue::Entry]) {
        for completion in taken {
            self.told(state, completion);
        }
        while let Some(send) = self.silent.next_settled() {
            let len = send.rest().len();
            match state.conns.get_mut(send.key) {
                // Mostly nothing else has come up meanwhile.
                Some(conn) if is_plain(conn) => {
                    conn.driver.send_blocked = false;
                    conn.driver.in_flight -= 1;
                    conn.send.sent += len as u64;
                    send.chunk.release(&mut state.send_pool, &mut state.recv_pool);
                }
                _ => self.silent_over(state, send, len as i32),
            }
        }
    }

    /// If this is a silent send's completion: it failed, or is short.
    pub(super) fn told(&mut self, state: &mut State, completion: &cqueue::Entry) {
        if let (Kind::Silent, place, _) = name::unpack(completion.user_data())
            && let Some(send) = self.silent.told(place)
        {
            self.silent_over(state, send, completion.result());
        }
    }

    /// Ends a silent send as any other is ended.
    fn silent_over(&mut self, state: &mut State, send: SilentSend, result: i32) {
        self.in_flight.take_over(send.key.index as usize, send.chunk, send.offset);
        self.sent(state, send.key, result);
        self.over(state, send.key);
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

/// Whether the end of a send changes nothing but the account of it.
fn is_plain(conn: &Conn) -> bool {
    let stays = conn.phase == Phase::Open && !conn.driver.ending;
    stays && !conn.fin_wanted && !conn.send.has_chunks() && !conn.has_send_waiters()
}
