//! The floor: io_uring without a runtime. Multishot accepts and receives, provided buffers that
//! are sent from where they lie, one `enter` a turn. Where buffers are long there are few, so that
//! what is received stays in the processor's cache until it is sent.

use std::collections::VecDeque;
use std::error::Error;
use std::io;
use std::net::TcpStream;
use std::os::fd::{IntoRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};
use net::address::Address;

use crate::listener::{Listener, bind};
use crate::{Mode, Options};

const ENTRIES: u32 = 512;
const COMPLETIONS: u32 = 16_384;
const GROUP: u16 = 0;
/// Bytes of all buffers, where these are mostly filled; and how many there are at least.
const WARM_BYTES: usize = 256 << 10;
const LEAST: usize = 4;
/// Buffers up to this size are for short messages, which leave most of each untouched.
const SHORT: usize = 4 << 10;

const ACCEPT: u64 = 1;
const RECV: u64 = 2;
const SEND: u64 = 3;

fn name(kind: u64, conn: usize) -> u64 {
    kind << 32 | conn as u64
}

/// The provided buffers: never freed, since the program ends by being killed.
struct Buffers {
    entries: &'static mut [BufRingEntry],
    memory: *mut u8,
    size: usize,
    tail: u16,
    /// How many the kernel has.
    provided: usize,
}

impl Buffers {
    fn new(uring: &IoUring, count: u16, size: usize) -> io::Result<Self> {
        let entries = usize::from(count) * size_of::<BufRingEntry>();
        let (ring, memory) = (map(entries)?, map(usize::from(count) * size)?);
        // SAFETY: page-aligned zeroed memory for so many entries, which is never unmapped.
        unsafe { uring.submitter().register_buf_ring_with_flags(ring as u64, count, GROUP, 0) }?;
        // SAFETY: as above; the kernel writes none of it.
        let entries = unsafe { std::slice::from_raw_parts_mut(ring.cast(), usize::from(count)) };
        let mut buffers = Self { entries, memory, size, tail: 0, provided: 0 };
        (0..count).for_each(|buffer| buffers.give(buffer));
        Ok(buffers)
    }

    fn at(&self, buffer: u16, offset: usize) -> *mut u8 {
        self.memory.wrapping_add(usize::from(buffer) * self.size + offset)
    }

    fn give(&mut self, buffer: u16) {
        let place = usize::from(self.tail) & (self.entries.len() - 1);
        let addr = self.at(buffer, 0) as u64;
        let entry = &mut self.entries[place];
        entry.set_addr(addr);
        entry.set_len(self.size as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        self.provided += 1;
        // SAFETY: the first entry of the ring, whose tail is an aligned u16.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr());
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

/// A part of a buffer that is to be sent.
struct Piece {
    buffer: u16,
    offset: usize,
    len: usize,
}

struct Conn {
    fd: RawFd,
    /// Where what comes from here is sent.
    to: usize,
    sending: bool,
    queue: VecDeque<Piece>,
}

struct Loop {
    uring: IoUring,
    buffers: Buffers,
    conns: Vec<Conn>,
    starved: VecDeque<usize>,
    listener: RawFd,
    upstream: Option<Address>,
}

pub fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    if options.mode == Mode::Tls {
        return Err("the bare loop has no TLS".into());
    }
    let uring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(COMPLETIONS)
        .build(ENTRIES)?;
    let buffers = Buffers::new(&uring, count(options), options.buffer)?;
    let listener = match bind(&options.listen)? {
        Listener::Tcp(listener) => listener.into_raw_fd(),
        Listener::Unix(listener) => listener.into_raw_fd(),
    };
    let upstream = options.upstream.clone().filter(|_| options.mode == Mode::Proxy);
    let (conns, starved) = (Vec::new(), VecDeque::new());
    let mut serving = Loop { uring, buffers, conns, starved, listener, upstream };
    serving.accept();
    let mut completions = Vec::new();
    loop {
        match serving.uring.submit_and_wait(usize::from(!serving.feeds_more())) {
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => return Err(error.into()),
            _ => {}
        }
        completions.extend(serving.uring.completion());
        for completion in completions.drain(..) {
            serving.complete(&completion)?;
        }
        serving.feed();
    }
}

/// How many buffers there are: a power of two.
fn count(options: &Options) -> u16 {
    let warm = (WARM_BYTES / options.buffer).max(LEAST).next_power_of_two();
    match u16::try_from(warm) {
        Ok(warm) if options.buffer > SHORT => options.buffers.min(warm),
        _ => options.buffers,
    }
}

impl Loop {
    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: what an entry points to are provided buffers, which are never freed and are
        // given back only after the completion.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            // It makes room, or says that completions must be taken first.
            let _ = self.uring.submit();
        }
    }

    fn accept(&mut self) {
        let entry = opcode::AcceptMulti::new(Fd(self.listener)).build();
        self.push(&entry.user_data(name(ACCEPT, 0)));
    }

    fn receive(&mut self, conn: usize) {
        let entry = opcode::RecvMulti::new(Fd(self.conns[conn].fd), GROUP).build();
        self.push(&entry.user_data(name(RECV, conn)));
    }

    fn complete(&mut self, completion: &cqueue::Entry) -> Result<(), Box<dyn Error>> {
        let conn = completion.user_data() as u32 as usize;
        let (result, flags) = (completion.result(), completion.flags());
        match completion.user_data() >> 32 {
            ACCEPT => {
                if result >= 0 {
                    self.accepted(result)?;
                }
                if !cqueue::more(flags) {
                    self.accept();
                }
            }
            RECV => self.received(conn, result, flags),
            _ => self.sent(conn, result),
        }
        Ok(())
    }

    fn accepted(&mut self, fd: RawFd) -> io::Result<()> {
        let conn = self.add(fd);
        if let Some(upstream) = &self.upstream {
            let other = match upstream {
                Address::Tcp(addr) => {
                    let stream = TcpStream::connect(addr)?;
                    stream.set_nodelay(true)?;
                    stream.into_raw_fd()
                }
                Address::Unix(path) => UnixStream::connect(path)?.into_raw_fd(),
            };
            let other = self.add(other);
            self.conns[conn].to = other;
            self.conns[other].to = conn;
            self.receive(other);
        }
        self.receive(conn);
        Ok(())
    }

    fn add(&mut self, fd: RawFd) -> usize {
        let conn = self.conns.len();
        self.conns.push(Conn { fd, to: conn, sending: false, queue: VecDeque::new() });
        conn
    }

    fn received(&mut self, conn: usize, result: i32, flags: u32) {
        let to = self.conns[conn].to;
        if let Some(buffer) = cqueue::buffer_select(flags) {
            self.buffers.provided -= 1;
            if result > 0 && self.conns[to].fd >= 0 {
                let piece = Piece { buffer, offset: 0, len: result as usize };
                self.conns[to].queue.push_back(piece);
                self.send(to);
            } else {
                self.buffers.give(buffer);
            }
        }
        if cqueue::more(flags) {
            return;
        }
        match result {
            1.. => self.receive(conn),
            _ if result == -libc::ENOBUFS => self.starved.push_back(conn),
            _ => {
                self.close(conn);
                self.close(to);
            }
        }
    }

    /// Places are not used again, and what is in flight holds the file: a late completion
    /// meets nobody.
    fn close(&mut self, conn: usize) {
        let fd = std::mem::replace(&mut self.conns[conn].fd, -1);
        if fd >= 0 {
            // SAFETY: the descriptor is the connection's own, and is closed once.
            unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
            // SAFETY: as above.
            unsafe { libc::close(fd) };
        }
    }

    fn send(&mut self, conn: usize) {
        let (fd, sending) = (self.conns[conn].fd, self.conns[conn].sending);
        let Some(piece) = self.conns[conn].queue.front().filter(|_| !sending) else { return };
        let start = self.buffers.at(piece.buffer, piece.offset);
        let entry = opcode::Send::new(Fd(fd), start, piece.len as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        self.conns[conn].sending = true;
        self.push(&entry.user_data(name(SEND, conn)));
    }

    fn sent(&mut self, conn: usize, result: i32) {
        self.conns[conn].sending = false;
        let Some(piece) = self.conns[conn].queue.front_mut() else { return };
        let sent = usize::try_from(result).unwrap_or(piece.len);
        piece.offset += sent;
        piece.len -= sent;
        if piece.len == 0 {
            let buffer = piece.buffer;
            self.conns[conn].queue.pop_front();
            self.buffers.give(buffer);
        }
        if self.conns[conn].fd < 0 {
            for piece in std::mem::take(&mut self.conns[conn].queue) {
                self.buffers.give(piece.buffer);
            }
        }
        self.send(conn);
    }

    /// Receives for as many of those that found no buffer as may find one.
    fn feed(&mut self) {
        for _ in 0..self.buffers.provided {
            let Some(conn) = self.starved.pop_front() else { return };
            if self.conns[conn].fd >= 0 {
                self.receive(conn);
            }
        }
    }

    /// Whether some are left though there are buffers: those that were fed may take none.
    fn feeds_more(&self) -> bool {
        !self.starved.is_empty() && self.buffers.provided > 0
    }
}
