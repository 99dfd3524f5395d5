//! The driver on mio: waits for readiness and does the reading and writing itself.
//!
//! mio registers edge-triggered. An edge is remembered in `recv_ready` until a read fell short,
//! which for a stream means that all was read; what arrives later makes an edge of its own.

mod accept;
mod recv;
mod send;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::conn::{CloseReason, Kind, Phase};
use crate::driver::Until;
use crate::error::{NetError, Result};
use crate::slots::Key;
use crate::state::State;

/// Events taken from the kernel in one turn.
const EVENTS_PER_TURN: usize = 1_024;

/// What a token names, in the two bits above the index.
const CONN: usize = 0;
const LISTENER: usize = 1;
const WATCH: usize = 2;
const WAKE: usize = 3;
const KIND_SHIFT: u32 = 30;

pub(crate) struct MioDriver {
    poll: Poll,
    events: Option<Events>,
    /// The events are there already.
    looked: bool,
    /// How often the kernel was asked for events.
    polls: u64,
    /// Connections that have, or may have, something to read.
    readable: Vec<Key>,
    scratch: Vec<Key>,
    /// Where encrypted bytes are read to.
    encrypted: Vec<u8>,
}

fn token(kind: usize, key: Key) -> Token {
    Token((key.serial as usize) << 32 | kind << KIND_SHIFT | key.index as usize)
}

fn untoken(token: Token) -> (usize, Key) {
    let low = token.0 & 0xffff_ffff;
    let index = (low & ((1 << KIND_SHIFT) - 1)) as u32;
    (low >> KIND_SHIFT, Key { index, serial: (token.0 >> 32) as u32 })
}

impl MioDriver {
    pub(crate) fn new(wake: BorrowedFd<'_>) -> Result<Self> {
        let poll = Poll::new().map_err(NetError::io("making an epoll instance"))?;
        let key = Key { index: 0, serial: 0 };
        poll.registry()
            .register(&mut SourceFd(&wake.as_raw_fd()), token(WAKE, key), Interest::READABLE)
            .map_err(NetError::io("registering the runtime's eventfd"))?;
        let events = Some(Events::with_capacity(EVENTS_PER_TURN));
        let looked = false;
        Ok(Self {
            poll,
            events,
            looked,
            polls: 0,
            readable: Vec::new(),
            scratch: Vec::new(),
            encrypted: Vec::new(),
        })
    }

    fn register(&self, fd: i32, token: Token, interest: Interest) -> Result<()> {
        let registered = self.poll.registry().register(&mut SourceFd(&fd), token, interest);
        registered.map_err(NetError::io("registering a descriptor with epoll"))
    }

    fn deregister(&self, fd: i32) {
        // It fails only if it isn't registered, which is what is wanted.
        let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
    }

    pub(crate) fn open(&mut self, state: &mut State, key: Key) -> Result<()> {
        let Some(conn) = state.conns.get_mut(key) else { return Ok(()) };
        let connecting = conn.phase == Phase::Connecting;
        let interest = if connecting { Interest::WRITABLE } else { Interest::READABLE };
        self.register(conn.fd.as_raw_fd(), token(CONN, key), interest)?;
        conn.driver.registered = true;
        Ok(())
    }

    /// The interest changes; an edge that is already there is reported again.
    fn reregister(&self, state: &State, key: Key, interest: Interest) -> io::Result<()> {
        let Some(conn) = state.conns.get(key) else { return Ok(()) };
        let fd = conn.fd.as_raw_fd();
        self.poll.registry().reregister(&mut SourceFd(&fd), token(CONN, key), interest)
    }

    /// epoll tells of it in any case.
    pub(crate) fn watch_gone(&mut self, _state: &mut State, _key: Key) {}

    pub(crate) fn close(&mut self, state: &mut State, key: Key, abandon: bool) {
        if !abandon {
            self.flush(state, key);
            self.update_recv(state, key);
        }
        let Some(conn) = state.conns.get(key) else { return };
        if !abandon && conn.must_stay() {
            return;
        }
        if conn.driver.registered {
            self.deregister(conn.fd.as_raw_fd());
        }
        state.forget(key);
    }

    pub(crate) fn watch(&mut self, state: &mut State, key: Key) -> Result<()> {
        let Some(watch) = state.watches.get_mut(key) else { return Ok(()) };
        if std::mem::replace(&mut watch.armed, true) {
            // Edges are remembered by the kernel and in `ready`.
            return Ok(());
        }
        let interest = if watch.write { Interest::WRITABLE } else { Interest::READABLE };
        self.register(watch.fd.as_raw_fd(), token(WATCH, key), interest)
    }

    pub(crate) fn unwatch(&mut self, state: &mut State, key: Key) {
        if let Some(watch) = state.watches.remove(key) {
            self.deregister(watch.fd.as_raw_fd());
        }
    }

    /// Whether nothing waits to be written.
    pub(crate) fn is_quiet(&self, state: &State, key: Key) -> bool {
        state.conns.get(key).is_none_or(|conn| !conn.driver.send_blocked)
    }

    /// Another than the driver begins or ceases to read and write the socket.
    pub(crate) fn lend_socket(&mut self, state: &mut State, key: Key, lend: bool) {
        let Some(conn) = state.conns.get_mut(key) else { return };
        // What the other left unread makes no edge any more.
        conn.driver.recv_ready |= !lend;
        self.update_recv(state, key);
    }

    /// There are none to spare: reads go to memory of the connection's own.
    pub(crate) fn can_spare_buffer(&self, _state: &State) -> bool {
        false
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.readable.is_empty()
    }

    /// Everything is with the kernel already.
    pub(crate) fn submit(&mut self, _state: &mut State) -> Result<()> {
        Ok(())
    }

    /// Whether there are events. Those that it finds are kept for the next wait.
    pub(crate) fn is_ready(&mut self) -> bool {
        let Some(events) = &mut self.events else { return true };
        self.polls += 1;
        // An error comes again in the wait.
        self.looked = self.poll.poll(events, Some(Duration::ZERO)).is_ok() && !events.is_empty();
        self.looked
    }

    pub(crate) fn enters(&self) -> u64 {
        self.polls
    }

    pub(crate) fn wait(&mut self, state: &mut State, until: Until) -> Result<()> {
        let Some(mut events) = self.events.take() else { return Ok(()) };
        let polled = if std::mem::take(&mut self.looked) {
            Ok(())
        } else {
            self.polls += 1;
            let timeout = match until {
                Until::Now => Some(Duration::ZERO),
                Until::Deadline(at) => Some(at.saturating_duration_since(state.clock.now())),
                Until::Forever => None,
            };
            self.poll.poll(&mut events, timeout)
        };
        if let Err(error) = polled
            && error.kind() != io::ErrorKind::Interrupted
        {
            self.events = Some(events);
            return Err(NetError::Io { what: "waiting for events", source: error });
        }
        for event in &events {
            self.event(state, event);
        }
        self.events = Some(events);
        self.read_listed(state);
        Ok(())
    }

    fn event(&mut self, state: &mut State, event: &Event) {
        let (kind, key) = untoken(event.token());
        match kind {
            CONN => self.conn_event(state, key, event),
            LISTENER => self.accept(state, key),
            WATCH => state.watched(key),
            // The eventfd: the runtime looks at what woke it in any case.
            _ => {}
        }
    }

    fn conn_event(&mut self, state: &mut State, key: Key, event: &Event) {
        let Some(conn) = state.conns.get_mut(key) else { return };
        if conn.phase == Phase::Connecting {
            self.connected(state, key);
            return;
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            conn.driver.recv_ready = true;
            conn.driver.end_announced |= event.is_read_closed() || event.is_error();
            // A hang-up on a Unix socket means that the peer closed wholly; on TCP it comes
            // only after both halves ended.
            let hung_up = event.is_read_closed() && event.is_write_closed();
            if hung_up && (conn.kind == Kind::Unix || event.is_error()) {
                state.peer_gone(key);
            }
            self.update_recv(state, key);
        }
        if event.is_writable() || event.is_write_closed() || event.is_error() {
            self.writable(state, key);
        }
    }

    fn connected(&mut self, state: &mut State, key: Key) {
        if super::finish_connect(state, key)
            && let Err(error) = self.reregister(state, key, Interest::READABLE)
        {
            state.recv_ended(key, CloseReason::Reset(error.kind()));
        }
    }
}
