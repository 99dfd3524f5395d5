//! Writing to connections.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use mio::Interest;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, send, sendmsg, shutdown};

use crate::conn::{Conn, Phase};
use crate::send_queue::PIECES_PER_SEND;
use crate::slots::Key;
use crate::state::State;

use super::MioDriver;

impl MioDriver {
    pub(crate) fn flush(&mut self, state: &mut State, key: Key) {
        let Some(conn) = state.conns.get_mut(key) else { return };
        conn.dirty = false;
        if conn.phase == Phase::Connecting || conn.driver.send_blocked {
            return;
        }
        if let Err(errno) = self.write_all(state, key) {
            state.send_failed(key, io::Error::from(errno).kind());
        }
        let Some(conn) = state.conns.get_mut(key) else { return };
        if conn.fin_wanted && !conn.fin_sent && conn.send.unsent() == 0 {
            conn.fin_sent = true;
            // It fails when the peer is gone, which the reading side reports.
            let _ = shutdown(&conn.fd, Shutdown::Write);
        }
    }

    /// Writes until the queue is empty or the socket full.
    fn write_all(&mut self, state: &mut State, key: Key) -> Result<(), Errno> {
        while let Some(conn) = state.conns.get_mut(key) {
            if !conn.send.has_chunks() {
                return Ok(());
            }
            let (written, wanted) = match write(conn) {
                Ok(amounts) => amounts,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return self.wait_writable(state, key),
                Err(errno) => return Err(errno),
            };
            conn.send.advance(written, &mut state.send_pool, &mut state.recv_pool);
            state.sent_further(key);
            if written < wanted {
                return self.wait_writable(state, key);
            }
        }
        Ok(())
    }

    fn wait_writable(&mut self, state: &mut State, key: Key) -> Result<(), Errno> {
        let Some(conn) = state.conns.get_mut(key) else { return Ok(()) };
        conn.driver.send_blocked = true;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.reregister(state, key, both).map_err(|_| Errno::IO)
    }

    pub(super) fn writable(&mut self, state: &mut State, key: Key) {
        let Some(conn) = state.conns.get_mut(key) else { return };
        if !std::mem::replace(&mut conn.driver.send_blocked, false) {
            return;
        }
        self.flush(state, key);
        let Some(conn) = state.conns.get(key) else { return };
        if conn.driver.send_blocked {
            return;
        }
        if conn.phase == Phase::Closing {
            self.close(state, key, false);
        } else if self.reregister(state, key, Interest::READABLE).is_err() {
            // Without the change there are needless wake-ups, and nothing worse.
            tracing::debug!("epoll refused to change a registration");
        }
    }
}

/// One call; returns how much was written and how much there was.
fn write(conn: &Conn) -> Result<(usize, usize), Errno> {
    let mut slices = [IoSlice::new(&[]); PIECES_PER_SEND];
    let (count, total) = conn.send.slices(&mut slices);
    let written = if count == 1 {
        send(&conn.fd, &slices[0], SendFlags::NOSIGNAL)?
    } else {
        write_vectored(&conn.fd, &slices[..count])?
    };
    Ok((written, total))
}

fn write_vectored(fd: &OwnedFd, slices: &[IoSlice<'_>]) -> Result<usize, Errno> {
    sendmsg(fd, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)
}
