//! A connection's state, as the worker's table holds it.

use std::io;
use std::os::fd::OwnedFd;
use std::task::Waker;

use crate::recv_buf::RecvBuf;
use crate::send_queue::SendQueue;
use crate::sleeper::Sleeper;
use crate::slots::Key;
use crate::tls::Tls;
use crate::wakes::Wakes;

/// Why nothing more will be received on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer ended its sending half, or closed. Sending may still work.
    Eof,
    /// The connection broke.
    Reset(io::ErrorKind),
    /// It was closed on this side.
    Local,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Unix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The kernel has not said yet whether the peer accepts.
    Connecting,
    Open,
    /// Closed for its owner; unsent bytes may still be on their way.
    Closing,
}

/// How far a connection has been handed over to be spliced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Splicing {
    Off,
    /// Receiving ends; what is under way still arrives, and is sent on.
    Draining,
    /// No operation of the driver is on it, and nobody else may send: the socket is set
    /// non-blocking, which io_uring's operations don't stand.
    On,
}

/// Memory that a task wants received bytes to be written to.
pub(crate) struct Sink {
    pub(crate) target: *mut u8,
    pub(crate) len: usize,
    pub(crate) filled: usize,
    /// What `recv_ready` has told of.
    pub(crate) told: usize,
}

impl Sink {
    pub(crate) fn room(&self) -> usize {
        self.len - self.filled
    }

    /// Copies what there is room for; returns how much that was.
    pub(crate) fn fill(&mut self, data: &[u8]) -> usize {
        let count = data.len().min(self.room());
        // SAFETY: `set_recv_sink`'s caller promised `len` writable bytes at `target` until the
        // sink is taken; `filled + count` is at most `len`, and `data` is not that memory
        // (it is a receive buffer of ours).
        unsafe {
            std::ptr::copy_nonoverlapping(data.as_ptr(), self.target.add(self.filled), count);
        }
        self.filled += count;
        count
    }
}

/// Of many connections none is in the processor's cache when its next message comes: what a message
/// looks at lies in three lines of memory, in this order. The first two tell of receiving, the last
/// two of sending.
#[repr(C)]
pub(crate) struct Conn {
    pub(crate) recv: RecvBuf,
    /// Bytes that ever arrived; a parse that needs more is not repeated until it changes.
    pub(crate) arrived: u64,
    /// How much was buffered when a task that waited was woken, until it has looked: it is read
    /// ahead for from there, or a message longer than the limit would stop and start the receive.
    pub(crate) recv_mark: usize,

    pub(crate) recv_waker: Option<Sleeper>,
    /// What few connections have.
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) fd: OwnedFd,
    /// How often `cancel` was called.
    pub(crate) cancels: u32,
    pub(crate) phase: Phase,
    /// Why nothing more comes; what came before may still be in `recv`.
    pub(crate) recv_end: Option<CloseReason>,
    pub(crate) recv_paused: bool,
    pub(crate) splicing: Splicing,
    pub(crate) send_error: Option<io::ErrorKind>,
    /// The sending half ends when the queue is empty.
    pub(crate) fin_wanted: bool,
    pub(crate) fin_sent: bool,
    /// It is closed, and what still comes is read and dropped: TCP would reset a connection that
    /// has unread bytes, and the peer lose what was sent to it last.
    pub(crate) discards: bool,
    /// Whether the connection is in the list of those to flush at the end of the turn.
    pub(crate) dirty: bool,
    /// Both halves are over.
    pub(crate) gone: bool,
    pub(crate) kind: Kind,
    pub(crate) driver: DriverPart,

    pub(crate) send: SendQueue,
}

// With the number of its place in front of it, of which the alignment makes eight bytes.
#[cfg(target_pointer_width = "64")]
const _: () =
    assert!(size_of::<Conn>() == 3 * 64 - 8 && std::mem::offset_of!(Conn, send) == 2 * 64 - 8);

/// What few connections have; once one does, it keeps the memory.
#[derive(Default)]
pub(crate) struct Rare {
    pub(crate) outbound: bool,
    /// The task to drop when the connection is closed.
    pub(crate) task: Option<u64>,
    pub(crate) sink: Option<Sink>,
    /// Who waits for the stream to have come how far.
    pub(crate) send_waiters: Vec<(u64, Sleeper)>,
    /// Wakers of `peer_gone`, and of whoever must see a `cancel`.
    pub(crate) event_wakers: Vec<Sleeper>,
    /// The TLS session, if there is one.
    pub(crate) tls: Option<Box<Tls>>,
    pub(crate) connect_waker: Option<Sleeper>,
    pub(crate) connect_result: Option<Result<(), io::Error>>,
}

/// What the drivers note about a connection.
#[derive(Default)]
pub(crate) struct DriverPart {
    /// mio: there may be something to read.
    pub(crate) recv_ready: bool,
    /// io_uring: a receive is armed, which brings what arrives by itself.
    pub(crate) receiving: bool,
    /// mio: it is in the list of those to read. io_uring: of those that wait for a buffer.
    pub(crate) listed: bool,
    /// mio: the end of the stream was announced, so a short read is not the last one.
    pub(crate) end_announced: bool,
    /// mio: the socket's buffer is full and writability is being waited for.
    /// io_uring: a send is in flight.
    pub(crate) send_blocked: bool,
    /// mio: epoll knows the descriptor.
    pub(crate) registered: bool,
    /// io_uring: the descriptor is set non-blocking.
    pub(crate) nonblocking: bool,
    /// io_uring: operations that the kernel still has.
    pub(crate) in_flight: u8,
    /// io_uring: the receive was asked to end.
    pub(crate) recv_stopping: bool,
    /// io_uring: the outcome of a connect is being waited for.
    pub(crate) connect_armed: bool,
    /// io_uring: the peer's hang-up is being waited for.
    pub(crate) hang_up_armed: bool,
    /// io_uring: the place is free after the last completion.
    pub(crate) ending: bool,
}

impl Conn {
    pub(crate) fn new(fd: OwnedFd, kind: Kind, outbound: bool, phase: Phase) -> Self {
        Self {
            recv: RecvBuf::Empty,
            arrived: 0,
            recv_mark: 0,
            recv_waker: None,
            rare: outbound.then(|| Box::new(Rare { outbound, ..Rare::default() })),
            fd,
            cancels: 0,
            phase,
            recv_end: None,
            recv_paused: false,
            splicing: Splicing::Off,
            send_error: None,
            fin_wanted: false,
            fin_sent: false,
            discards: false,
            dirty: false,
            gone: false,
            kind,
            driver: DriverPart::default(),
            send: SendQueue::default(),
        }
    }

    /// What few connections have, to be added to.
    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.rare.as_ref()?.tls.as_deref()
    }

    pub(crate) fn sink(&mut self) -> Option<&mut Sink> {
        self.rare.as_mut()?.sink.as_mut()
    }

    /// Whether somebody waits for the stream to have come further.
    #[inline]
    pub(crate) fn has_send_waiters(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.send_waiters.is_empty())
    }

    /// Wakes all who wait for the stream to have come further, wherever that is.
    pub(crate) fn wake_send_waiters(&mut self, wakes: &mut Wakes) {
        if let Some(rare) = &mut self.rare {
            wakes.extend(rare.send_waiters.drain(..).map(|(_, waker)| waker));
        }
    }

    /// Wakes all who wait for both halves to be over.
    pub(crate) fn wake_event_waiters(&mut self, wakes: &mut Wakes) {
        if let Some(rare) = &mut self.rare {
            wakes.extend(rare.event_wakers.drain(..));
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// So many bytes arrived, which are in `recv` or the sink: wakes whoever waits for them.
    #[inline]
    pub(crate) fn note_arrived(&mut self, count: usize, wakes: &mut Wakes) {
        self.arrived += count as u64;
        if let Some(waiter) = self.recv_waker.take() {
            self.recv_mark = self.recv.len();
            wakes.push(waiter);
        }
    }

    /// The kernel took more bytes: wakes those who waited for that.
    #[inline]
    pub(crate) fn note_sent(&mut self, wakes: &mut Wakes) {
        let Some(rare) = &mut self.rare else { return };
        let (sent, waiters) = (self.send.sent, &mut rare.send_waiters);
        let mut index = 0;
        while index < waiters.len() {
            if waiters[index].0 <= sent {
                wakes.push(waiters.swap_remove(index).1);
            } else {
                index += 1;
            }
        }
    }

    /// Has what is queued be flushed when this turn's tasks have run. `key` names this.
    #[inline]
    pub(crate) fn mark_dirty(&mut self, key: Key, dirty: &mut Vec<Key>) {
        if !std::mem::replace(&mut self.dirty, true) {
            dirty.push(key);
        }
    }

    /// Has whoever waits be woken when both halves are over, or at a `cancel`.
    pub(crate) fn note_event_waiter(&mut self, waker: &Waker) {
        let sleeper = Sleeper::of(waker);
        let wakers = &mut self.rare().event_wakers;
        if !wakers.contains(&sleeper) {
            wakers.push(sleeper);
        }
    }

    /// Whether closing it now would make TCP reset it.
    pub(crate) fn has_unread(&self) -> bool {
        self.kind == Kind::Tcp
            && self.phase == Phase::Open
            && self.recv_end.is_none()
            && self.send_error.is_none()
            && (!self.recv.is_empty() || rustix::io::ioctl_fionread(&self.fd).unwrap_or(0) > 0)
    }

    /// Whether a closed connection still has something to do.
    pub(crate) fn must_stay(&self) -> bool {
        self.send_error.is_none() && (self.send.unsent() > 0 || self.discards)
    }

    /// Whether bytes that arrive just become what is buffered.
    #[inline]
    pub(crate) fn takes_in_place(&self) -> bool {
        let is_plain = |rare: &Rare| rare.tls.is_none() && rare.sink.is_none();
        let plain = self.rare.as_deref().is_none_or(is_plain);
        self.phase == Phase::Open && plain && self.recv.is_empty()
    }

    /// Whether bytes may be sent from where they lie.
    #[inline]
    pub(crate) fn sends_in_place(&self) -> bool {
        let ends = self.send_error.is_some() || self.fin_wanted;
        !ends && self.tls().is_none() && self.splicing != Splicing::On
    }

    /// Whether the driver has nothing to decide when more is wanted: it comes by itself.
    #[inline]
    pub(crate) fn receives(&self) -> bool {
        self.driver.receiving && self.recv.is_empty()
    }

    /// Whether the driver should read: somebody waits, or there is room to read ahead.
    #[inline]
    pub(crate) fn wants_recv(&self, limit: usize) -> bool {
        (self.phase == Phase::Open || self.discards)
            && self.recv_end.is_none()
            && !self.recv_paused
            && self.splicing == Splicing::Off
            && (self.recv_waker.is_some() || self.recv.len() < limit + self.recv_mark)
    }
}
