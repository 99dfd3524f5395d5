//! What a worker holds beside its tasks: connections, listeners, watched descriptors, and the
//! lists that the driver and the tasks hand each other.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use crate::clock::Clock;
use crate::config::Config;
use crate::conn::{CloseReason, Conn, Kind, Phase, Splicing};
use crate::ctx::ConnCtx;
use crate::driver::RingSlice;
use crate::recv_buf::{RecvBuf, RecvPool};
use crate::send_queue::SendPool;
use crate::sleeper::Sleeper;
use crate::slots::{Key, Slots};
use crate::task::LocalFuture;
use crate::wakes::Wakes;

/// Makes a connection's future.
pub(crate) type OnAccept = Rc<dyn Fn(ConnCtx) -> LocalFuture>;

pub(crate) struct Listener {
    pub(crate) fd: OwnedFd,
    pub(crate) kind: Kind,
    pub(crate) on_accept: OnAccept,
    /// Whether a connection's task is dropped when the connection is closed.
    pub(crate) task_ends_with_conn: bool,
    /// Accepting rests, for want of descriptors.
    pub(crate) resting: bool,
    /// io_uring: what names the accept that is armed.
    pub(crate) armed: bool,
    pub(crate) closing: bool,
}

/// A descriptor whose readiness somebody waits for.
pub(crate) struct Watch {
    pub(crate) fd: OwnedFd,
    pub(crate) write: bool,
    pub(crate) ready: bool,
    pub(crate) waker: Option<Sleeper>,
    pub(crate) armed: bool,
    /// The source whose doorbell it is. Nobody reads from a doorbell: each write is an event.
    pub(crate) source: Option<Key>,
}

impl Watch {
    pub(crate) fn new(fd: OwnedFd, write: bool) -> Self {
        Self { fd, write, ready: false, waker: None, armed: false, source: None }
    }

    pub(crate) fn of_doorbell(fd: OwnedFd, source: Key) -> Self {
        Self { source: Some(source), ..Self::new(fd, false) }
    }
}

/// Bytes that a closure has before it, in a ring buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lent {
    pub(crate) start: *const u8,
    pub(crate) len: usize,
    pub(crate) buffer: u16,
    pub(crate) forwarded: bool,
}

pub(crate) struct State {
    pub(crate) conns: Slots<Conn>,
    pub(crate) listeners: Slots<Listener>,
    pub(crate) watches: Slots<Watch>,
    /// Sources whose doorbell was rung.
    pub(crate) rung: Vec<Key>,
    pub(crate) recv_pool: RecvPool,
    pub(crate) send_pool: SendPool,
    /// To be woken when nothing is borrowed any more: a waker may run any code.
    pub(crate) wakes: Wakes,
    pub(crate) accepted: Vec<(Key, Key)>,
    pub(crate) dirty: Vec<Key>,
    /// Closed connections whose peer has ended too.
    pub(crate) ended: Vec<Key>,
    pub(crate) lent: Vec<Lent>,
    /// Closed connections with unsent bytes, and until when they are tried, oldest first.
    lingering: VecDeque<(Instant, Key)>,
    /// When the listeners that rest are to be tried again.
    pub(crate) accept_again: Option<Instant>,
    /// When the log was told last that they rest.
    pub(crate) accept_told: Option<Instant>,
    pub(crate) limits: Limits,
    pub(crate) clock: Rc<Clock>,
}

/// The configured bounds that are looked at while running.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    pub(crate) recv: usize,
    pub(crate) send: usize,
    pub(crate) linger: std::time::Duration,
    pub(crate) accept_pause: std::time::Duration,
}

impl State {
    pub(crate) fn new(config: &Config, clock: Rc<Clock>) -> Self {
        Self {
            conns: Slots::default(),
            listeners: Slots::default(),
            watches: Slots::default(),
            rung: Vec::new(),
            recv_pool: RecvPool::new(config.recv_buffer_bytes),
            send_pool: SendPool::new(config.send_slab_bytes, config.send_pool_bytes),
            wakes: Wakes::default(),
            accepted: Vec::new(),
            dirty: Vec::new(),
            ended: Vec::new(),
            lent: Vec::new(),
            lingering: VecDeque::new(),
            accept_again: None,
            accept_told: None,
            limits: Limits {
                connections: config.max_connections,
                recv: config.recv_limit,
                send: config.send_limit,
                linger: config.close_linger,
                accept_pause: config.accept_pause,
            },
            clock,
        }
    }

    /// The connection, unless its owner closed it.
    #[inline]
    pub(crate) fn live(&mut self, key: Key) -> Option<&mut Conn> {
        self.conns.live(key)
    }

    /// A watched descriptor is ready.
    pub(crate) fn watched(&mut self, key: Key) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        match watch.source {
            Some(source) => self.rung.push(source),
            None => {
                watch.ready = true;
                self.wakes.extend(watch.waker.take());
            }
        }
    }

    /// Bytes arrived that a driver put in the connection's memory.
    pub(crate) fn arrived(&mut self, key: Key, count: usize) {
        if let Some(conn) = self.conns.get_mut(key) {
            if conn.discards {
                conn.recv.consume(conn.recv.len(), &mut self.recv_pool);
            }
            conn.note_arrived(count, &mut self.wakes);
        }
    }

    /// Bytes arrived in a ring buffer: parsed there if nothing waits before them and there are
    /// `plenty` of buffers, so that connections which nobody reads can't keep all of them.
    pub(crate) fn arrived_in_ring(&mut self, key: Key, mut slice: RingSlice, plenty: bool) {
        let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.phase == Phase::Open) else {
            self.recv_pool.returned.push(slice);
            return;
        };
        if conn.tls().is_some() {
            self.arrived_encrypted(key, slice.as_slice());
            self.recv_pool.returned.push(slice);
            return;
        }
        let count = slice.as_slice().len();
        if conn.recv.is_empty()
            && let Some(sink) = conn.sink()
        {
            let filled = sink.fill(slice.as_slice());
            slice.advance(filled);
        }
        if slice.as_slice().is_empty() {
            self.recv_pool.returned.push(slice);
        } else if conn.recv.is_empty() && plenty {
            conn.recv = RecvBuf::Ring(slice);
        } else {
            conn.recv.append(slice.as_slice(), &mut self.recv_pool);
            self.recv_pool.returned.push(slice);
        }
        conn.note_arrived(count, &mut self.wakes);
    }

    /// Nothing more will be received.
    pub(crate) fn recv_ended(&mut self, key: Key, reason: CloseReason) {
        let reason = self.end_reason(key, reason);
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.recv_end.is_none() {
            conn.recv_end = Some(reason);
        }
        if std::mem::take(&mut conn.discards) {
            self.ended.push(key);
        }
        if conn.tls().is_some_and(|tls| tls.is_handshaking()) {
            // Whoever waits for the handshake waits for nothing else.
            conn.wake_event_waiters(&mut self.wakes);
        }
        self.wakes.extend(conn.recv_waker.take());
        if matches!(reason, CloseReason::Reset(_)) {
            self.peer_gone(key);
        }
    }

    /// Both halves are over.
    pub(crate) fn peer_gone(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.gone = true;
        conn.wake_event_waiters(&mut self.wakes);
    }

    /// The kernel took more bytes: tells those who waited for that.
    pub(crate) fn sent_further(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.note_sent(&mut self.wakes);
        }
    }

    /// Sending failed: what is unsent will never be.
    pub(crate) fn send_failed(&mut self, key: Key, error: io::ErrorKind) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.send_error = Some(error);
        conn.send.clear(&mut self.send_pool, &mut self.recv_pool);
        conn.wake_send_waiters(&mut self.wakes);
        self.peer_gone(key);
    }

    /// Puts the connection in the list of those to flush when this turn's tasks have run.
    pub(crate) fn mark_dirty(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.mark_dirty(key, &mut self.dirty);
        }
    }

    /// The owner's part of closing. What was received is dropped, what waits is woken.
    pub(crate) fn begin_close(&mut self, key: Key) -> Option<Option<u64>> {
        self.live(key)?;
        self.with_tls(key, |tls, queue| tls.end(queue));
        let conn = self.conns.live(key)?;
        conn.discards = conn.has_unread();
        conn.splicing = Splicing::Off;
        conn.phase = Phase::Closing;
        if conn.discards {
            conn.fin_wanted = true;
            conn.recv_paused = false;
        }
        std::mem::take(&mut conn.recv).release(&mut self.recv_pool);
        // Those who wait for unsent bytes go on waiting: these are still tried.
        conn.wake_event_waiters(&mut self.wakes);
        self.wakes.extend(conn.recv_waker.take());
        let Some(rare) = &mut conn.rare else { return Some(None) };
        rare.sink = None;
        self.wakes.extend(rare.connect_waker.take());
        Some(rare.task.take())
    }

    pub(crate) fn linger(&mut self, key: Key) {
        self.lingering.push_back((self.clock.now() + self.limits.linger, key));
    }

    /// The first closed connection whose time is over.
    pub(crate) fn linger_over(&mut self) -> Option<Key> {
        while let Some(&(until, key)) = self.lingering.front() {
            let waits = self.conns.get(key).is_some();
            if waits && until > self.clock.now() {
                return None;
            }
            self.lingering.pop_front();
            if waits {
                return Some(key);
            }
        }
        None
    }

    /// Whether the state itself has something to do, or will have.
    #[inline]
    pub(crate) fn has_chores(&self) -> bool {
        !self.lingering.is_empty() || self.accept_again.is_some() || !self.ended.is_empty()
    }

    /// The earliest time at which the state itself needs a turn.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        while let Some(&(_, key)) = self.lingering.front() {
            if self.conns.get(key).is_some() {
                break;
            }
            self.lingering.pop_front();
        }
        let linger = self.lingering.front().map(|(until, _)| *until);
        match (linger, self.accept_again) {
            (Some(linger), Some(again)) => Some(linger.min(again)),
            (linger, again) => linger.or(again),
        }
    }

    /// The driver has nothing more to do with the connection: the place is free.
    pub(crate) fn forget(&mut self, key: Key) {
        let Some(mut conn) = self.conns.remove(key) else { return };
        conn.send.clear(&mut self.send_pool, &mut self.recv_pool);
        std::mem::take(&mut conn.recv).release(&mut self.recv_pool);
        conn.wake_send_waiters(&mut self.wakes);
        conn.wake_event_waiters(&mut self.wakes);
        // A descriptor is free again, so accepting may work.
        if self.accept_again.is_some() {
            self.accept_again = Some(self.clock.now());
        }
    }

    /// Takes a connection in, for a listener or for one that was connected or adopted.
    pub(crate) fn admit(&mut self, conn: Conn) -> Option<Key> {
        if self.conns.len() >= self.limits.connections {
            return None;
        }
        Some(self.conns.insert(conn))
    }
}

impl Slots<Conn> {
    /// The connection, unless its owner closed it.
    #[inline]
    pub(crate) fn live(&mut self, key: Key) -> Option<&mut Conn> {
        self.get_mut(key).filter(|conn| conn.phase != Phase::Closing)
    }
}
