//! A ring of slots in memory that two processes share, and a bell that wakes one of them.

use std::cell::UnsafeCell;
use std::io::{Error, Result};
use std::os::fd::RawFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// Messages that fit into a ring.
pub const SLOTS: usize = 64;
const SLOT_BYTES: usize = 248;

/// A ring each way.
#[repr(C)]
pub struct Link {
    pub down: Ring,
    pub up: Ring,
}

impl Link {
    pub fn new() -> Result<&'static Self> {
        shared()
    }
}

/// One writer and one reader, a process each.
#[repr(C)]
pub struct Ring {
    head: OwnLine,
    tail: OwnLine,
    slots: [UnsafeCell<Slot>; SLOTS],
}

#[repr(C, align(64))]
struct OwnLine(AtomicU32);

#[repr(C, align(64))]
struct Slot {
    len: u32,
    /// Where the message is kept.
    place: u32,
    bytes: [u8; SLOT_BYTES],
}

impl Ring {
    /// Puts a message into a ring that has room.
    pub fn put(&self, place: u32, message: &[u8]) {
        let tail = self.tail.0.load(Ordering::Relaxed);
        // SAFETY: what is above the tail is the writer's, and the caller knows that there is room.
        let slot = unsafe { &mut *self.slots[tail as usize % SLOTS].get() };
        slot.bytes[..message.len()].copy_from_slice(message);
        (slot.len, slot.place) = (message.len() as u32, place);
        self.tail.0.store(tail.wrapping_add(1), Ordering::Release);
    }

    /// Takes a message, if there is one.
    pub fn take(&self, read: impl FnOnce(u32, &[u8])) -> bool {
        let head = self.head.0.load(Ordering::Relaxed);
        if head == self.tail.0.load(Ordering::Acquire) {
            return false;
        }
        // SAFETY: what is between head and tail is the reader's.
        let slot = unsafe { &*self.slots[head as usize % SLOTS].get() };
        read(slot.place, &slot.bytes[..slot.len as usize]);
        self.head.0.store(head.wrapping_add(1), Ordering::Release);
        true
    }

    pub fn is_empty(&self) -> bool {
        self.head.0.load(Ordering::Relaxed) == self.tail.0.load(Ordering::Acquire)
    }
}

/// Wakes a process that said that it would sleep.
#[derive(Clone, Copy)]
pub struct Bell {
    fd: RawFd,
    asleep: &'static OwnLine,
}

impl Bell {
    pub fn new() -> Result<Self> {
        // SAFETY: no memory is involved.
        match unsafe { libc::eventfd(0, 0) } {
            -1 => Err(Error::last_os_error()),
            fd => Ok(Self { fd, asleep: shared()? }),
        }
    }

    /// To be called after a message was put.
    pub fn ring(&self) {
        // Either this sees that the other sleeps, or the other sees the message before it does.
        fence(Ordering::SeqCst);
        let asleep = &self.asleep.0;
        if asleep.load(Ordering::Relaxed) == 1 && asleep.swap(0, Ordering::Relaxed) == 1 {
            // SAFETY: eight bytes of this stack.
            unsafe { libc::write(self.fd, (&raw const ONE).cast(), 8) };
        }
    }

    /// Sleeps if there is nothing, until the bell rings.
    pub fn sleep(&self, nothing: impl Fn() -> bool) {
        if self.lie_down(nothing) {
            let mut count = 0_u64;
            // SAFETY: eight bytes of this stack.
            unsafe { libc::read(self.fd, (&raw mut count).cast(), 8) };
        }
        self.get_up();
    }

    /// Says that this process is about to sleep; false if it must not, as there is something.
    pub fn lie_down(&self, nothing: impl Fn() -> bool) -> bool {
        self.asleep.0.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        nothing()
    }

    /// Takes back what `lie_down` said.
    pub fn get_up(&self) {
        self.asleep.0.store(0, Ordering::Relaxed);
    }

    /// What is readable once it rang.
    pub fn fd(&self) -> RawFd {
        self.fd
    }
}

static ONE: u64 = 1;

/// Zeroed memory that children will share, which is never unmapped.
fn shared<T>() -> Result<&'static T> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let memory = unsafe { libc::mmap(null_mut(), size_of::<T>(), access, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    // SAFETY: page-aligned, large enough, and zeroes are what each of the types above begins with.
    Ok(unsafe { &*memory.cast() })
}
