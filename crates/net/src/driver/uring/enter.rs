//! Entering the kernel by the name that the thread has for its ring, which spares looking the
//! descriptor up. The `io-uring` crate forgets that name with the `Submitter` that asked for it.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::{EnterFlags, IoUring};

/// Whether to wait for a completion.
pub(super) enum Wait {
    No,
    Forever,
    For(Duration),
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct Update {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Time {
    seconds: i64,
    nanoseconds: i64,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct Argument {
    signals: u64,
    signals_len: u32,
    min_wait_us: u32,
    time: u64,
}

const REGISTER_RING_FDS: libc::c_long = 20;
const UNREGISTER_RING_FDS: libc::c_long = 21;
/// Has the kernel choose the name.
const ANY: u32 = u32::MAX;

/// How the ring's thread enters the kernel.
pub(super) struct Entrance {
    /// The name, if the kernel gave one: a thread has sixteen.
    registered: Option<u32>,
}

impl Entrance {
    pub(super) fn of(uring: &IoUring) -> Self {
        let mut update = Update { offset: ANY, reserved: 0, data: uring.as_raw_fd() as u64 };
        let done = register(uring, REGISTER_RING_FDS, &mut update);
        Self { registered: (done == 1).then_some(update.offset) }
    }

    /// Gives the name back. As long as there is one, the ring isn't gone when it is closed.
    pub(super) fn close(&mut self, uring: &IoUring) {
        if let Some(offset) = self.registered.take() {
            register(uring, UNREGISTER_RING_FDS, &mut Update { offset, reserved: 0, data: 0 });
        }
    }

    /// Submits `count` entries and runs the kernel's part of completions. With a [`Wait`], it ends
    /// when there is one, or the time is over (`ETIME`).
    pub(super) fn enter(&self, uring: &IoUring, count: u32, wait: Wait) -> io::Result<()> {
        let (flags, none) = (EnterFlags::GETEVENTS, std::ptr::null());
        match wait {
            Wait::No => self.call(uring, count, 0, flags, none),
            Wait::Forever => self.call(uring, count, 1, flags, none),
            Wait::For(limit) => {
                let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
                let limit = Time { seconds, nanoseconds: i64::from(limit.subsec_nanos()) };
                let time = (&raw const limit).expose_provenance() as u64;
                let argument = Argument { signals: 0, signals_len: 0, min_wait_us: 0, time };
                self.call(uring, count, 1, flags | EnterFlags::EXT_ARG, &raw const argument)
            }
        }
    }

    /// The argument, if there is one, and the limit that it points to live until this is over.
    #[inline]
    fn call(
        &self,
        uring: &IoUring,
        count: u32,
        least: u32,
        mut flags: EnterFlags,
        argument: *const Argument,
    ) -> io::Result<()> {
        let size = if argument.is_null() { 0 } else { size_of::<Argument>() };
        let fd = match self.registered {
            Some(name) => {
                flags |= EnterFlags::REGISTERED_RING;
                name as i32
            }
            None => uring.as_raw_fd(),
        };
        let call = libc::SYS_io_uring_enter;
        // SAFETY: argument and limit live until the call is over. What the entries point to lives
        // until their completions came: see `Ring::try_push`.
        let entered =
            unsafe { libc::syscall(call, fd, count, least, flags.bits(), argument, size) };
        if entered < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// How many were registered; negative if it can't be done.
fn register(uring: &IoUring, what: libc::c_long, update: &mut Update) -> libc::c_long {
    let call = libc::SYS_io_uring_register;
    // SAFETY: one update, which the kernel reads, and whose offset it may write.
    unsafe { libc::syscall(call, uring.as_raw_fd(), what, &raw mut *update, 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_given_back() {
        // More rings, one after the other, than a thread has names.
        for _ in 0..20 {
            let uring = IoUring::new(8).unwrap();
            let mut entrance = Entrance::of(&uring);
            assert!(entrance.registered.is_some());
            entrance.enter(&uring, 0, Wait::No).unwrap();
            let over = entrance.enter(&uring, 0, Wait::For(Duration::from_millis(1)));
            assert_eq!(over.unwrap_err().raw_os_error(), Some(libc::ETIME));
            entrance.close(&uring);
            entrance.enter(&uring, 0, Wait::No).unwrap();
        }
    }
}
