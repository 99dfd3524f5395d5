//! The driver on io_uring: multishot accepts and receives into provided buffers, one send in
//! flight a connection, and one `enter` a turn that submits and waits.
//!
//! A connection's place in the table is kept until the last completion of its operations has
//! come, so a completion never meets another connection in the slot.

mod accept;
mod buffers;
mod enter;
mod inflight;
mod name;
mod recv;
mod ring;
mod send;
mod setup;
mod silent;
mod timer;
mod window;

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode, squeue};

use crate::config::Config;
use crate::conn::{Conn, Phase};
use crate::driver::Until;
use crate::error::Result;
use crate::slots::Key;
use crate::state::State;

use buffers::Buffers;
use enter::Wait;
use inflight::InFlight;
use name::Kind;
use ring::Ring;
use silent::Silent;
use timer::Timer;

pub(crate) struct UringDriver {
    ring: ManuallyDrop<Ring>,
    buffers: ManuallyDrop<Buffers>,
    in_flight: ManuallyDrop<InFlight>,
    silent: ManuallyDrop<Silent>,
    /// An `enter` left entries behind: it isn't known yet which silent sends have gone.
    unsettled: bool,
    /// Receives that the kernel may still write for, and that aren't over.
    receiving: usize,
    /// Accepts that aren't over: each holds its listener open.
    accepting: usize,
    /// Connections whose receive found no buffer.
    starved: VecDeque<Key>,
    /// Pieces that have gone, on their way back to the pools.
    done: Vec<crate::send_queue::Chunk>,
    /// Completions of a turn with silent sends: its memory serves again.
    taken: Vec<cqueue::Entry>,
    timer: Timer,
    wake: i32,
    wake_armed: bool,
}

impl UringDriver {
    /// Sets everything up, or says in words why that can't be done here.
    pub(crate) fn new(config: &Config, wake: BorrowedFd<'_>) -> std::result::Result<Self, String> {
        let uring = setup::try_ring(config)?;
        let (count, size) = (config.uring_buffers, config.uring_buffer_bytes);
        let buffers = Buffers::new(&uring.submitter(), count, size)
            .map_err(|error| setup::in_words("registering receive buffers", &error))?;
        Ok(Self {
            ring: ManuallyDrop::new(Ring::new(uring)),
            buffers: ManuallyDrop::new(buffers),
            in_flight: ManuallyDrop::default(),
            silent: ManuallyDrop::default(),
            unsettled: false,
            receiving: 0,
            accepting: 0,
            starved: VecDeque::new(),
            done: Vec::new(),
            taken: Vec::new(),
            timer: Timer::default(),
            wake: wake.as_raw_fd(),
            wake_armed: false,
        })
    }

    fn push(&mut self, kind: Kind, key: Key, entry: squeue::Entry) {
        self.ring.push(entry.user_data(name::pack(kind, key)));
    }

    /// Asks the kernel to end an operation. Its own completion still comes.
    fn cancel(&mut self, kind: Kind, key: Key) {
        let which = CancelBuilder::user_data(name::pack(kind, key));
        let entry = opcode::AsyncCancel2::new(which).build();
        let none = Key { index: 0, serial: 0 };
        self.push(Kind::Ignored, none, entry.flags(squeue::Flags::SKIP_SUCCESS));
    }

    fn poll(&mut self, kind: Kind, key: Key, fd: i32, events: i16) {
        let entry = opcode::PollAdd::new(Fd(fd), events as u16 as u32).build();
        self.push(kind, key, entry);
    }

    pub(crate) fn open(&mut self, state: &mut State, key: Key) -> Result<()> {
        let Some(conn) = state.conns.get_mut(key) else { return Ok(()) };
        if conn.phase == Phase::Connecting {
            conn.driver.in_flight += 1;
            conn.driver.connect_armed = true;
            let fd = conn.fd.as_raw_fd();
            self.poll(Kind::Connect, key, fd, libc::POLLOUT);
        } else {
            if conn.driver.nonblocking {
                make_blocking(conn);
            }
            self.update_recv(state, key);
        }
        Ok(())
    }

    fn connected(&mut self, state: &mut State, key: Key) {
        let Some(conn) = state.conns.get_mut(key) else { return };
        conn.driver.connect_armed = false;
        if conn.phase != Phase::Connecting {
            return;
        }
        if super::finish_connect(state, key)
            && let Some(conn) = state.conns.get_mut(key)
        {
            make_blocking(conn);
            self.update_recv(state, key);
        }
    }

    pub(crate) fn close(&mut self, state: &mut State, key: Key, abandon: bool) {
        if !abandon {
            self.flush(state, key);
            self.update_recv(state, key);
        }
        let Some(conn) = state.conns.get_mut(key) else { return };
        let (stays, reads) = (!abandon && conn.must_stay(), !abandon && conn.discards);
        let part = &mut conn.driver;
        if !reads && part.receiving && !std::mem::replace(&mut part.recv_stopping, true) {
            self.cancel(Kind::Recv, key);
        }
        if stays {
            return;
        }
        let Some(conn) = state.conns.get_mut(key) else { return };
        let part = &mut conn.driver;
        if part.in_flight == 0 {
            state.forget(key);
            return;
        }
        if std::mem::replace(&mut part.ending, true) {
            return;
        }
        let armed = [
            (Kind::Connect, part.connect_armed),
            (Kind::Send, part.send_blocked),
            (Kind::HangUp, part.hang_up_armed),
        ];
        for (kind, _) in armed.iter().filter(|(_, armed)| *armed) {
            self.cancel(*kind, key);
        }
    }

    /// An operation of the connection is over. Returns whether the connection is still there.
    fn over(&mut self, state: &mut State, key: Key) -> bool {
        let Some(conn) = state.conns.get_mut(key) else { return false };
        conn.driver.in_flight = conn.driver.in_flight.saturating_sub(1);
        if conn.driver.ending && conn.driver.in_flight == 0 {
            state.forget(key);
            return false;
        }
        true
    }

    /// Begins to watch for the peer's hang-up.
    pub(crate) fn watch_gone(&mut self, state: &mut State, key: Key) {
        let Some(conn) = state.conns.get_mut(key) else { return };
        if conn.phase == Phase::Open && !std::mem::replace(&mut conn.driver.hang_up_armed, true) {
            conn.driver.in_flight += 1;
            let fd = conn.fd.as_raw_fd();
            // Hang-ups and errors are reported without being asked for; so is, which is not
            // wanted, the end of the peer's sending half. Hence multishot: it goes on after that.
            let poll = opcode::PollAdd::new(Fd(fd), 0).multi(true);
            self.push(Kind::HangUp, key, poll.build());
        }
    }

    fn hung_up(&mut self, state: &mut State, key: Key, result: i32, more: bool) {
        let gone = result >= 0 && result & i32::from(libc::POLLHUP | libc::POLLERR) != 0;
        let Some(conn) = state.conns.get_mut(key) else { return };
        conn.driver.hang_up_armed = more;
        if gone {
            state.peer_gone(key);
        }
        if !more {
            self.over(state, key);
        }
    }

    pub(crate) fn watch(&mut self, state: &mut State, key: Key) -> Result<()> {
        let Some(watch) = state.watches.get_mut(key) else { return Ok(()) };
        if !watch.ready && !std::mem::replace(&mut watch.armed, true) {
            let events = if watch.write { libc::POLLOUT } else { libc::POLLIN };
            let poll = opcode::PollAdd::new(Fd(watch.fd.as_raw_fd()), events as u16 as u32);
            let poll = poll.multi(watch.source.is_some());
            self.push(Kind::Watch, key, poll.build());
        }
        Ok(())
    }

    pub(crate) fn unwatch(&mut self, state: &mut State, key: Key) {
        // The operation holds the file, so the descriptor may go before it.
        if state.watches.remove(key).is_some_and(|watch| watch.armed) {
            self.cancel(Kind::Watch, key);
        }
    }

    fn watched(&mut self, state: &mut State, key: Key, more: bool) {
        let Some(watch) = state.watches.get_mut(key) else { return };
        watch.armed = more;
        let doorbell = watch.source.is_some();
        state.watched(key);
        if doorbell && !more {
            // The kernel ended it for want of room for completions; it never fails to begin anew.
            let _ = self.watch(state, key);
        }
    }

    /// Whether no operation is on the connection that reads or writes.
    pub(crate) fn is_quiet(&self, state: &State, key: Key) -> bool {
        let quiet = |conn: &Conn| !conn.driver.receiving && !conn.driver.send_blocked;
        state.conns.get(key).is_none_or(quiet)
    }

    /// Another than the driver begins or ceases to read and write the socket.
    pub(crate) fn lend_socket(&mut self, state: &mut State, key: Key, lend: bool) {
        let Some(conn) = state.conns.get_mut(key) else { return };
        conn.driver.nonblocking = lend;
        // It fails on no socket.
        let _ = rustix::io::ioctl_fionbio(&conn.fd, lend);
        self.update_recv(state, key);
    }

    /// A buffer may go out again as a send while enough of them are left.
    pub(crate) fn can_spare_buffer(&self, state: &State) -> bool {
        self.buffers.are_plenty(state.recv_pool.returned.len())
    }

    /// Whether silent sends wait for an `enter` that takes the rest of the entries: until it did,
    /// what their connections have more to send stays here, so that none may sleep on it.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.unsettled
    }

    /// What a turn has to say to the kernel besides its tasks' operations.
    #[inline]
    fn prepare(&mut self, state: &mut State) {
        if !self.wake_armed {
            self.arm_wake();
        }
        self.refill(state);
    }

    #[cold]
    fn arm_wake(&mut self) {
        self.wake_armed = true;
        let none = Key { index: 0, serial: 0 };
        let poll = opcode::PollAdd::new(Fd(self.wake), libc::POLLIN as u32);
        self.push(Kind::Wake, none, poll.multi(true).build());
    }

    pub(crate) fn submit(&mut self, state: &mut State) -> Result<()> {
        self.prepare(state);
        self.ring.enter(Wait::No)
    }

    pub(crate) fn is_ready(&mut self) -> bool {
        self.feeds_more() || self.ring.is_ready()
    }

    pub(crate) fn enters(&self) -> u64 {
        self.ring.enters
    }

    pub(crate) fn wait(&mut self, state: &mut State, until: Until) -> Result<()> {
        self.prepare(state);
        let wait = match self.feeds_more() {
            true => Wait::No,
            false => self.bounded(state, until),
        };
        self.ring.enter(wait)?;
        if !self.silent.is_empty() {
            self.complete_with_silent(state);
            return Ok(());
        }
        self.complete_all(state);
        Ok(())
    }

    /// Looks at the completions that there are. Those that come meanwhile, of entering for want of
    /// room, are for the next turn.
    #[inline]
    fn complete_all(&mut self, state: &mut State) {
        let count = self.ring.completions().len();
        for _ in 0..count {
            let Some(completion) = self.ring.next_completion() else { break };
            self.complete(state, &completion);
        }
    }

    /// Looks at all completions, of which those of silent sends come first where there are several.
    fn complete_with_silent(&mut self, state: &mut State) {
        let certain = self.ring.is_settled();
        self.unsettled = !certain;
        if self.silent.is_alone() {
            // Whatever is told of it is among these.
            self.complete_all(state);
            if certain {
                self.settle(state, &[]);
            }
            return;
        }
        let mut taken = std::mem::take(&mut self.taken);
        taken.extend(self.ring.completions());
        if certain {
            // First of all, so that what was received finds buffers that these were made of.
            self.settle(state, &taken);
        }
        for completion in taken.drain(..) {
            self.complete(state, &completion);
        }
        self.taken = taken;
    }

    /// The wait that ends by then.
    fn bounded(&mut self, state: &State, until: Until) -> Wait {
        let deadline = match until {
            Until::Now => return Wait::No,
            Until::Forever => return Wait::Forever,
            Until::Deadline(deadline) => deadline,
        };
        if self.timer.ends_by(deadline) {
            return Wait::Forever;
        }
        let left = deadline.saturating_duration_since(state.clock.now());
        if left.is_zero() {
            return Wait::No;
        }
        match self.timer.start(deadline, left) {
            Some(entry) => {
                self.push(Kind::Timer, Key { index: 0, serial: 0 }, entry);
                Wait::Forever
            }
            None => Wait::For(left),
        }
    }

    #[inline]
    fn complete(&mut self, state: &mut State, completion: &cqueue::Entry) {
        let (kind, index, serial) = name::unpack(completion.user_data());
        let (result, flags) = (completion.result(), completion.flags());
        let more = cqueue::more(flags);
        match kind {
            Kind::Ignored => {}
            Kind::Wake => self.wake_armed = more,
            Kind::Timer => self.timer.over(),
            Kind::Accept => self.accepted(state, index, serial, result, more),
            Kind::Watch => {
                let key = state.watches.key_at(index);
                if let Some(key) = key.filter(|key| name::is_same(*key, serial)) {
                    self.watched(state, key, more);
                }
            }
            Kind::Recv => {
                let buffer = cqueue::buffer_select(flags);
                if let (Some(buffer), true) = (buffer, more)
                    && self.brought_more(state, index, serial, result, buffer)
                {
                    return;
                }
                match of_conn(state, index, serial) {
                    Some(key) => self.received(state, key, result, buffer, more),
                    None => self.received_late(state, buffer, more),
                }
            }
            Kind::Silent => self.told(state, completion),
            Kind::HangUp => {
                let key = of_conn(state, index, serial);
                key.into_iter().for_each(|key| self.hung_up(state, key, result, more));
            }
            Kind::Send | Kind::Connect => {
                let Some(key) = of_conn(state, index, serial) else { return };
                if kind == Kind::Send {
                    self.sent(state, key, result);
                } else {
                    self.connected(state, key);
                }
                self.over(state, key);
            }
        }
    }
}

/// The connection that a completion is for, if it is still there.
fn of_conn(state: &State, index: u32, serial: u32) -> Option<Key> {
    state.conns.key_at(index).filter(|key| name::is_same(*key, serial))
}

/// io_uring waits by itself, except on descriptors that are set non-blocking.
fn make_blocking(conn: &mut Conn) {
    conn.driver.nonblocking = false;
    // It fails on no socket.
    let _ = rustix::io::ioctl_fionbio(&conn.fd, false);
}

impl UringDriver {
    /// Whether the kernel may still have operations that hold something of ours.
    fn holds_on(&self) -> bool {
        let counted = self.in_flight.count + self.receiving + self.accepting;
        counted > 0 || !self.silent.is_empty()
    }

    /// A completion after the end: what the operation held is let go of.
    fn last_completion(&mut self, completion: &cqueue::Entry) {
        let (kind, index, _) = name::unpack(completion.user_data());
        let over = usize::from(!cqueue::more(completion.flags()));
        match kind {
            Kind::Recv => self.receiving = self.receiving.saturating_sub(over),
            Kind::Accept => {
                self.accepting = self.accepting.saturating_sub(over);
                drop(accept::descriptor(completion.result()));
            }
            Kind::Send => drop(self.in_flight.finish(index as usize, 0, &mut self.done)),
            Kind::Silent => drop(self.silent.told(index)),
            _ => {}
        }
    }
}

/// How often the end of the driver asks for completions before it gives up on the rest.
const LAST_TURNS: usize = 100;
const LAST_WAIT: Duration = Duration::from_millis(20);

impl Drop for UringDriver {
    /// Cancels everything and waits until the kernel has let go of all memory. Should it not
    /// (it always has), the memory is leaked: it must not be used for anything else.
    fn drop(&mut self) {
        let mut turns = 0;
        while self.holds_on() && turns < LAST_TURNS {
            turns += 1;
            let all = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            self.push(Kind::Ignored, Key { index: 0, serial: 0 }, all);
            if self.ring.enter(Wait::For(LAST_WAIT)).is_err() {
                break;
            }
            let taken: Vec<_> = self.ring.completions().collect();
            taken.iter().for_each(|completion| self.last_completion(completion));
            while self.ring.is_settled() && self.silent.next_settled().is_some() {}
        }
        let idle = self.in_flight.count + self.receiving == 0 && self.silent.is_empty();
        let _ = self.ring.uring.submitter().unregister_buf_ring(buffers::GROUP);
        self.ring.close();
        // SAFETY: each is dropped here once and not used afterwards; the ring goes first.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
        if idle {
            // SAFETY: as above. No operation is left that could touch the memory.
            unsafe {
                ManuallyDrop::drop(&mut self.buffers);
                ManuallyDrop::drop(&mut self.in_flight);
                ManuallyDrop::drop(&mut self.silent);
            }
        } else {
            tracing::error!("io_uring kept operations to the end; their memory is leaked");
        }
    }
}
