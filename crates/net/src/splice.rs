//! Passing on by `splice(2)`: from a socket to a pipe to a socket, without a copy.
//!
//! `splice` takes no flag that keeps it from waiting for a socket, so the sockets are set
//! non-blocking meanwhile. io_uring's operations don't stand that: the driver gives the two
//! connections out of its hands first, and takes them back in the end.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use crate::combine::yield_now;
use crate::conn::{CloseReason, Splicing};
use crate::ctx::ConnCtx;
use crate::error::{NetError, Result};
use crate::forward::{Direction, Turn, both};
use crate::readiness::ReadyFd;
use crate::runtime;
use crate::sleeper::Sleeper;

/// Bytes asked for in one call; a pipe takes 64 KiB of separate pages, and more of long pieces.
const PIECE: usize = 256 << 10;
/// So many arrivals in a row of less than so many bytes, and copying is cheaper again.
const SMALL: (u32, usize) = (32, 8 << 10);
/// Pieces passed on before other tasks have their turn.
const PIECES_PER_TURN: u32 = 8;

/// Whether the kernel may pass on between these two.
pub(crate) fn is_possible(first: ConnCtx, second: ConnCtx) -> bool {
    let plain = |conn: ConnCtx| conn.conn(|conn| conn.tls().is_none()).unwrap_or(false);
    first != second && plain(first) && plain(second) && sigpipe_is_harmless()
}

/// `splice` to a socket whose peer is gone raises SIGPIPE, and can't be told not to.
fn sigpipe_is_harmless() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action the call writes the present one, and changes nothing.
    let asked = unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: the call wrote it, as it says.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction != libc::SIG_DFL
}

/// Passes on until both directions have ended, or their pieces have become small. Returns
/// whether this is worth trying again.
pub(crate) async fn pass_on(there: &Direction, back: &Direction) -> Result<bool> {
    let Ok(pipes) = Pipe::new().and_then(|one| Ok((one, Pipe::new()?))) else {
        // Out of descriptors: copying needs none.
        return Ok(false);
    };
    let _lent = Lent::begin(there, back).await?;
    loop {
        let one = there.splice(&pipes.0, &pipes.1);
        let turn = both(one, back.splice(&pipes.1, &pipes.0)).await?;
        match turn {
            Turn::Refused => return Ok(false),
            Turn::Ended if !(there.ended.get() && back.ended.get()) => {}
            _ => return Ok(true),
        }
    }
}

/// The two connections while the driver leaves them alone.
struct Lent(ConnCtx, ConnCtx);

impl Lent {
    /// Ends what the driver does with the two, and sends on what still arrives by that.
    async fn begin(there: &Direction, back: &Direction) -> Result<Self> {
        let lent = Self(there.from, back.from);
        lent.set(Splicing::Draining);
        loop {
            there.drain().await?;
            back.drain().await?;
            if poll_fn(|cx| lent.poll_quiet(cx)).await? {
                return Ok(lent);
            }
        }
    }

    fn each(&self) -> [ConnCtx; 2] {
        [self.0, self.1]
    }

    fn set(&self, splicing: Splicing) {
        runtime::with_io(|state, driver| {
            for conn in self.each() {
                if let Some(conn) = state.live(conn.key) {
                    conn.splicing = splicing;
                }
                driver.update_recv(state, conn.key);
            }
        });
    }

    /// Takes the sockets once nothing is under way (true); false if there is more to drain.
    fn poll_quiet(&self, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        let polled = runtime::with_io(|state, driver| {
            let mut quiet = true;
            for ConnCtx { key, .. } in self.each() {
                let still = driver.is_quiet(state, key);
                let Some(conn) = state.live(key) else {
                    return Poll::Ready(Err(NetError::Closed));
                };
                if !conn.recv.is_empty() || conn.send.unsent() > 0 {
                    return Poll::Ready(Ok(false));
                }
                if !still {
                    conn.recv_waker = Some(Sleeper::of(cx.waker()));
                }
                quiet &= still;
            }
            if !quiet {
                return Poll::Pending;
            }
            for ConnCtx { key, .. } in self.each() {
                if let Some(conn) = state.live(key) {
                    conn.splicing = Splicing::On;
                }
                driver.lend_socket(state, key, true);
            }
            Poll::Ready(Ok(true))
        });
        polled.unwrap_or(Poll::Ready(Err(NetError::NoRuntime)))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        runtime::with_io(|state, driver| {
            for ConnCtx { key, .. } in self.each() {
                let Some(conn) = state.conns.get_mut(key) else { continue };
                match std::mem::replace(&mut conn.splicing, Splicing::Off) {
                    Splicing::On => driver.lend_socket(state, key, false),
                    _ => driver.update_recv(state, key),
                }
            }
        });
    }
}

/// Where the bytes of one direction are while no socket has them.
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: Cell<usize>,
    readable: RefCell<Option<ReadyFd>>,
    writable: RefCell<Option<ReadyFd>>,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let (readable, writable) = (RefCell::default(), RefCell::default());
        Ok(Self { read, write, held: Cell::new(0), readable, writable })
    }
}

impl Direction {
    /// Passes on by way of `pipe`, until the end or until it isn't worth it any more, which it
    /// can be only while the `other` pipe is empty too.
    async fn splice(&self, pipe: &Pipe, other: &Pipe) -> Result<Turn> {
        let (mut small, mut pieces) = (0, 0);
        while !self.ended.get() {
            if pipe.held.get() > 0 {
                if !self.give(pipe)? {
                    self.ready(&pipe.writable, self.to, true).await?;
                }
                continue;
            }
            if small >= SMALL.0 && other.held.get() == 0 {
                return Ok(Turn::Small);
            }
            pieces += 1;
            if pieces % PIECES_PER_TURN == 0 {
                yield_now().await;
            }
            match self.take(pipe)? {
                Taken::Bytes(count) => small = if count < SMALL.1 { small + 1 } else { 0 },
                Taken::Nothing => self.ready(&pipe.readable, self.from, false).await?,
                Taken::End => return self.end(),
                Taken::Refused if other.held.get() == 0 => return Ok(Turn::Refused),
                Taken::Refused => return Err(NetError::sys("splicing")(Errno::INVAL)),
            }
        }
        pending().await
    }

    /// Has the kernel move what has arrived to the pipe.
    fn take(&self, pipe: &Pipe) -> Result<Taken> {
        let taken = runtime::with_io(|state, _| {
            let conn = state.live(self.from.key).ok_or(NetError::Closed)?;
            match retried(|| splice(&conn.fd, None, &pipe.write, None, PIECE, FLAGS)) {
                Ok(0) => {
                    state.recv_ended(self.from.key, CloseReason::Eof);
                    Ok(Taken::End)
                }
                Ok(count) => {
                    pipe.held.set(count);
                    conn.arrived += count as u64;
                    Ok(Taken::Bytes(count))
                }
                Err(Errno::AGAIN) => Ok(Taken::Nothing),
                Err(Errno::INVAL | Errno::NOSYS) => Ok(Taken::Refused),
                Err(errno) => {
                    let kind = io::Error::from(errno).kind();
                    state.recv_ended(self.from.key, CloseReason::Reset(kind));
                    Err(NetError::PeerGone(kind))
                }
            }
        });
        taken.unwrap_or(Err(NetError::NoRuntime))
    }

    /// Has the kernel send what is in the pipe; false if the socket is full.
    fn give(&self, pipe: &Pipe) -> Result<bool> {
        let given = runtime::with_io(|state, _| {
            let conn = state.live(self.to.key).ok_or(NetError::Closed)?;
            let held = pipe.held.get();
            match retried(|| splice(&pipe.read, None, &conn.fd, None, held, FLAGS)) {
                Ok(count) => {
                    pipe.held.set(held.saturating_sub(count));
                    conn.send.passed(count);
                    Ok(count)
                }
                Err(Errno::AGAIN) => Ok(0),
                Err(errno) => {
                    let kind = io::Error::from(errno).kind();
                    state.send_failed(self.to.key, kind);
                    Err(NetError::PeerGone(kind))
                }
            }
        });
        let count = given.unwrap_or(Err(NetError::NoRuntime))?;
        self.total.set(self.total.get() + count as u64);
        self.spliced.set(self.spliced.get() + count as u64);
        Ok(count > 0)
    }

    /// Waits for the socket, or for either connection to be closed or cancelled.
    async fn ready(
        &self,
        place: &RefCell<Option<ReadyFd>>,
        conn: ConnCtx,
        write: bool,
    ) -> Result<()> {
        if place.borrow().is_none() {
            let made = conn.conn(|conn| conn.fd.try_clone()).ok_or(NetError::Closed)?;
            let fd = made.map_err(NetError::io("duplicating a socket"))?;
            let made = if write { ReadyFd::writable(&fd) } else { ReadyFd::readable(&fd) };
            *place.borrow_mut() = Some(made?);
        }
        let mut cancels = None;
        poll_fn(|cx| {
            if let Some(fd) = &*place.borrow()
                && let Poll::Ready(ready) = fd.poll_ready(cx.waker())
            {
                return Poll::Ready(ready);
            }
            self.poll_stopped(&mut cancels, cx).map(Err)
        })
        .await
    }

    fn poll_stopped(&self, cancels: &mut Option<[u32; 2]>, cx: &Context<'_>) -> Poll<NetError> {
        let polled = runtime::with_io(|state, _| {
            let mut counts = [0; 2];
            for (count, conn) in counts.iter_mut().zip([self.from, self.to]) {
                let Some(conn) = state.live(conn.key) else {
                    return Poll::Ready(NetError::Closed);
                };
                conn.note_event_waiter(cx.waker());
                *count = conn.cancels;
            }
            match *cancels.get_or_insert(counts) == counts {
                true => Poll::Pending,
                false => Poll::Ready(NetError::Cancelled),
            }
        });
        polled.unwrap_or(Poll::Ready(NetError::NoRuntime))
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

enum Taken {
    Bytes(usize),
    Nothing,
    End,
    Refused,
}

fn retried(
    mut call: impl FnMut() -> std::result::Result<usize, Errno>,
) -> std::result::Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
