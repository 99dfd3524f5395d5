//! Writing to connections.

use std::io;

use mio::Interest;
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use crate::conn::Phase;
use crate::driver::direct;
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
        let written = direct::write_all(conn, &mut state.send_pool, &mut state.recv_pool);
        conn.note_sent(&mut state.wakes);
        let written = match written {
            Ok(true) => Ok(()),
            Ok(false) => self.wait_writable(state, key),
            Err(errno) => Err(errno),
        };
        if let Err(errno) = written {
            state.send_failed(key, io::Error::from(errno).kind());
        }
        let Some(conn) = state.conns.get_mut(key) else { return };
        if conn.fin_wanted && !conn.fin_sent && conn.send.unsent() == 0 {
            conn.fin_sent = true;
            // It fails when the peer is gone, which the reading side reports.
            let _ = shutdown(&conn.fd, Shutdown::Write);
        }
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
