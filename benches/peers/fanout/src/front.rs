//! Connections on io_uring, as the bare echo has them: multishot receives into provided buffers, a
//! send at a time for each connection, and one `enter` a turn.

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;

use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::buffers::{Buffers, GROUP};
use crate::ring::Bell;

const ENTRIES: u32 = 512;
const COMPLETIONS: u32 = 16_384;

const ACCEPT: u64 = 1;
const RECEIVE: u64 = 2;
const SEND: u64 = 3;
const BELL: u64 = 4;

fn name(kind: u64, index: usize) -> u64 {
    kind << 32 | index as u64
}

struct Conn {
    fd: RawFd,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// What is to be sent.
    out: Vec<u8>,
    /// What the kernel sends, and how much of it was sent.
    sending: Vec<u8>,
    sent: usize,
}

pub struct Front {
    uring: IoUring,
    buffers: Buffers,
    listener: UnixListener,
    conns: Vec<Conn>,
    /// Those that something was gathered for in this turn.
    owed: Vec<usize>,
    completions: Vec<cqueue::Entry>,
    bell: Bell,
    /// What is read of the bell.
    rings: Box<u64>,
}

impl Front {
    pub fn new(listener: UnixListener, bell: Bell) -> Result<Self> {
        let uring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETIONS)
            .build(ENTRIES)?;
        let buffers = Buffers::new(&uring)?;
        let (conns, owed, completions) = (Vec::new(), Vec::new(), Vec::new());
        let rings = Box::new(0);
        let mut front = Self { uring, buffers, listener, conns, owed, completions, bell, rings };
        front.accept();
        front.listen_for_bell();
        Ok(front)
    }

    /// Hands all to the kernel that is to be done, and takes what it has; `asleep`: waits until it
    /// has something. `line` gets each line that has come whole, and the number of its connection.
    pub fn turn(&mut self, asleep: bool, mut line: impl FnMut(u32, &[u8])) -> Result<()> {
        while let Some(conn) = self.owed.pop() {
            self.send(conn);
        }
        let idle = {
            let queue = self.uring.submission();
            queue.is_empty() && !queue.taskrun()
        };
        if asleep || !idle {
            match self.uring.submit_and_wait(usize::from(asleep)) {
                Err(error) if error.raw_os_error() != Some(libc::EINTR) => return Err(error),
                _ => {}
            }
        }
        let mut completions = std::mem::take(&mut self.completions);
        completions.extend(self.uring.completion());
        for completion in completions.drain(..) {
            self.complete(&completion, &mut line)?;
        }
        self.completions = completions;
        Ok(())
    }

    /// Gathers an answer, which goes out with the next turn.
    pub fn answer(&mut self, conn: u32, answer: &[u8]) {
        let conn = conn as usize;
        let to = &mut self.conns[conn];
        if to.out.is_empty() && to.sending.is_empty() {
            self.owed.push(conn);
        }
        to.out.extend_from_slice(answer);
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: what an entry points to are provided buffers, the bell's count, which live as long
        // as the program, and what is being sent, which is left alone until the completion.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            // It makes room, or says that completions must be taken first.
            let _ = self.uring.submit();
        }
    }

    fn accept(&mut self) {
        let entry = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd())).build();
        self.push(&entry.user_data(name(ACCEPT, 0)));
    }

    fn listen_for_bell(&mut self) {
        let into = (&raw mut *self.rings).cast();
        let entry = opcode::Read::new(Fd(self.bell.fd()), into, size_of::<u64>() as u32).build();
        self.push(&entry.user_data(name(BELL, 0)));
    }

    fn receive(&mut self, conn: usize) {
        let entry = opcode::RecvMulti::new(Fd(self.conns[conn].fd), GROUP).build();
        self.push(&entry.user_data(name(RECEIVE, conn)));
    }

    fn complete(
        &mut self,
        completion: &cqueue::Entry,
        line: &mut impl FnMut(u32, &[u8]),
    ) -> Result<()> {
        let conn = completion.user_data() as u32 as usize;
        let (result, goes_on) = (completion.result(), cqueue::more(completion.flags()));
        match completion.user_data() >> 32 {
            ACCEPT if result < 0 => return Err(Error::from_raw_os_error(-result)),
            ACCEPT => {
                let (begun, out, sending) = (Vec::new(), Vec::new(), Vec::new());
                self.conns.push(Conn { fd: result, begun, out, sending, sent: 0 });
                self.receive(self.conns.len() - 1);
                if !goes_on {
                    self.accept();
                }
            }
            RECEIVE => {
                if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
                    let bytes = self.buffers.filled(buffer, result.max(0) as usize);
                    self.conns[conn].lines(bytes, |bytes| line(conn as u32, bytes));
                    self.buffers.give(buffer);
                }
                match result {
                    _ if goes_on => {}
                    1.. => self.receive(conn),
                    _ if result == -libc::ENOBUFS => self.receive(conn),
                    // SAFETY: the descriptor is the connection's own, and is closed once. Places are
                    // not used again.
                    _ => unsafe { _ = libc::close(self.conns[conn].fd) },
                }
            }
            SEND => {
                let from = &mut self.conns[conn];
                // An error means that the client is gone: the end of what it sends is seen, too.
                from.sent += usize::try_from(result).unwrap_or(from.sending.len());
                if from.sent >= from.sending.len() {
                    from.sending.clear();
                    from.sent = 0;
                }
                self.send(conn);
            }
            _ => self.listen_for_bell(),
        }
        Ok(())
    }

    fn send(&mut self, conn: usize) {
        let from = &mut self.conns[conn];
        if from.sending.is_empty() {
            std::mem::swap(&mut from.out, &mut from.sending);
        }
        let rest = &from.sending[from.sent..];
        if rest.is_empty() {
            return;
        }
        let entry = opcode::Send::new(Fd(from.fd), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        self.push(&entry.user_data(name(SEND, conn)));
    }
}

impl Conn {
    fn lines(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (first, rest) = bytes.split_at(end + 1);
            if self.begun.is_empty() {
                line(first);
            } else {
                self.begun.extend_from_slice(first);
                line(&self.begun);
                self.begun.clear();
            }
            bytes = rest;
        }
        self.begun.extend_from_slice(bytes);
    }
}
