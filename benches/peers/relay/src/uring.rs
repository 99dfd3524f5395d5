//! A relay on io_uring as `remuda-net` uses it, and nothing more: multishot receives into provided
//! buffers, a plain send of what came, and one `enter` a turn that waits.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode};

const ENTRIES: u32 = 8;
const GROUP: u16 = 0;
/// As many as `remuda-net` has in turn, of its size.
const BUFFERS: u16 = 8;
const BUFFER_BYTES: usize = 16 << 10;

/// The provided buffers: never freed, since the program ends with the relay.
struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
}

impl Buffers {
    fn new(uring: &IoUring) -> io::Result<Self> {
        let entries = map(usize::from(BUFFERS) * size_of::<BufRingEntry>())?.cast();
        let memory = map(usize::from(BUFFERS) * BUFFER_BYTES)?;
        let (ring, submitter) = (entries as u64, uring.submitter());
        // SAFETY: page-aligned zeroed memory for so many entries, which is never unmapped.
        unsafe { submitter.register_buf_ring_with_flags(ring, BUFFERS, GROUP, 0) }?;
        let mut buffers = Self { entries, memory, tail: 0 };
        (0..BUFFERS).for_each(|buffer| buffers.give(buffer));
        Ok(buffers)
    }

    fn at(&self, buffer: u16) -> *mut u8 {
        self.memory.wrapping_add(usize::from(buffer) * BUFFER_BYTES)
    }

    fn give(&mut self, buffer: u16) {
        let address = self.at(buffer) as u64;
        // SAFETY: the place is inside of the ring, and above the tail that the kernel knows.
        let entry = unsafe { &mut *self.entries.add(usize::from(self.tail % BUFFERS)) };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the ring's first entry, whose tail is an aligned u16.
        unsafe {
            let tail = BufRingEntry::tail(self.entries);
            AtomicU16::from_ptr(tail.cast_mut()).store(self.tail, Ordering::Release);
        }
    }
}

fn map(len: usize) -> io::Result<*mut u8> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, -1, 0) };
    if memory == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(memory.cast()) }
}

/// Passes on what comes on one to the other, until one of them ends.
pub fn pass_on(client: &UnixStream, worker: &UnixStream) -> io::Result<()> {
    let mut builder = IoUring::builder();
    let mut uring: IoUring = builder.setup_single_issuer().setup_defer_taskrun().build(ENTRIES)?;
    let mut buffers = Buffers::new(&uring)?;
    let ends = [client.as_raw_fd(), worker.as_raw_fd()];
    for (from, fd) in ends.iter().enumerate() {
        let receive = opcode::RecvMulti::new(Fd(*fd), GROUP).build().user_data(from as u64);
        // SAFETY: what it points to are provided buffers, which are never freed.
        unsafe { uring.submission().push(&receive) }.map_err(io::Error::other)?;
    }
    loop {
        uring.submit_and_wait(1)?;
        while let Some(completion) = uring.completion().next() {
            let to = ends[1 - completion.user_data() as usize];
            let flags = completion.flags();
            let (Some(buffer), true) = (cqueue::buffer_select(flags), cqueue::more(flags)) else {
                return Ok(());
            };
            send(to, buffers.at(buffer), completion.result() as usize)?;
            buffers.give(buffer);
        }
    }
}

fn send(to: RawFd, start: *const u8, len: usize) -> io::Result<()> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the kernel filled so many bytes of a buffer that it doesn't have meanwhile.
    let sent = unsafe { libc::send(to, start.cast(), len, flags) };
    if sent == len as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}
