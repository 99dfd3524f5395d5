//! Reading from connections.

use bytes::BufMut;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::conn::{CloseReason, Conn};
use crate::recv_buf::RecvPool;
use crate::slots::Key;
use crate::state::State;

use super::MioDriver;

/// Less space than this at the end of a buffer isn't worth a system call.
const LEAST_ROOM: usize = 4 << 10;

/// What a read brought.
enum Outcome {
    /// So many bytes, of as many as there was room for.
    Bytes {
        count: usize,
        room: usize,
    },
    Nothing,
    Ended(CloseReason),
}

impl MioDriver {
    pub(crate) fn update_recv(&mut self, state: &mut State, key: Key) {
        let limit = state.limits.recv;
        let Some(conn) = state.conns.get_mut(key) else { return };
        if conn.driver.recv_ready && !conn.driver.listed && conn.wants_recv(limit) {
            conn.driver.listed = true;
            self.readable.push(key);
        }
    }

    /// Reads each connection in the list once; those with more to read stay for the next turn.
    pub(super) fn read_listed(&mut self, state: &mut State) {
        std::mem::swap(&mut self.readable, &mut self.scratch);
        let mut list = std::mem::take(&mut self.scratch);
        for key in list.drain(..) {
            self.read_once(state, key);
        }
        self.scratch = list;
    }

    fn read_once(&mut self, state: &mut State, key: Key) {
        let limit = state.limits.recv;
        let Some(conn) = state.conns.get_mut(key) else { return };
        conn.driver.listed = false;
        if !conn.wants_recv(limit) {
            return;
        }
        if conn.tls().is_some() {
            return self.read_encrypted(state, key);
        }
        match read(conn, &mut state.recv_pool) {
            Outcome::Bytes { count, room } => {
                // A short read emptied the socket, unless the end comes right behind.
                conn.driver.recv_ready = count == room || conn.driver.end_announced;
                state.arrived(key, count);
                self.update_recv(state, key);
            }
            Outcome::Nothing => conn.driver.recv_ready = false,
            Outcome::Ended(reason) => {
                conn.driver.recv_ready = false;
                state.recv_ended(key, reason);
            }
        }
    }
}

impl MioDriver {
    /// Reads into memory that all connections share, and has TLS make of it what it can.
    fn read_encrypted(&mut self, state: &mut State, key: Key) {
        let mut memory = std::mem::take(&mut self.encrypted);
        memory.clear();
        memory.reserve(state.recv_pool.buffer_size());
        let Some(conn) = state.conns.get_mut(key) else { return };
        let room = memory.capacity();
        let result = into_memory(&conn.fd, memory.spare_capacity_mut());
        // SAFETY: the kernel initialized that many bytes at the beginning.
        unsafe { memory.set_len(*result.as_ref().unwrap_or(&0)) };
        match outcome(result, room) {
            Outcome::Bytes { count, .. } => {
                conn.driver.recv_ready = count == room || conn.driver.end_announced;
                state.arrived_encrypted(key, &memory);
                self.update_recv(state, key);
            }
            Outcome::Nothing => conn.driver.recv_ready = false,
            Outcome::Ended(reason) => {
                conn.driver.recv_ready = false;
                state.recv_ended(key, reason);
            }
        }
        self.encrypted = memory;
    }
}

fn read(conn: &mut Conn, pool: &mut RecvPool) -> Outcome {
    let (result, room) = match conn.rare.as_mut().and_then(|rare| rare.sink.as_mut()) {
        Some(sink) if sink.room() > 0 && conn.recv.is_empty() => {
            let room = sink.room();
            // SAFETY: `set_recv_sink`'s caller promised `len` writable bytes at `target` until
            // the sink is taken; `filled` is less than `len` here. `MaybeUninit` needs no
            // initialized bytes.
            let memory = unsafe {
                std::slice::from_raw_parts_mut(sink.target.add(sink.filled).cast(), room)
            };
            let result = into_memory(&conn.fd, memory);
            sink.filled += *result.as_ref().unwrap_or(&0);
            (result, room)
        }
        _ => {
            let least = if conn.recv.is_empty() { pool.buffer_size() } else { LEAST_ROOM };
            let buffer = conn.recv.growing(least, pool);
            let memory = buffer.spare_capacity_mut();
            let room = memory.len();
            let result = into_memory(&conn.fd, memory);
            // SAFETY: the kernel initialized that many bytes from where the buffer ended.
            unsafe { buffer.advance_mut(*result.as_ref().unwrap_or(&0)) };
            // Nothing came perhaps: then the memory goes back.
            conn.recv.consume(0, pool);
            (result, room)
        }
    };
    outcome(result, room)
}

fn outcome(result: Result<usize, Errno>, room: usize) -> Outcome {
    match result {
        Ok(0) => Outcome::Ended(CloseReason::Eof),
        Ok(count) => Outcome::Bytes { count, room },
        Err(Errno::AGAIN) => Outcome::Nothing,
        Err(errno) => Outcome::Ended(CloseReason::Reset(std::io::Error::from(errno).kind())),
    }
}

fn into_memory(
    fd: &std::os::fd::OwnedFd,
    memory: &mut [std::mem::MaybeUninit<u8>],
) -> Result<usize, Errno> {
    loop {
        match recv(fd, &mut *memory, RecvFlags::empty()) {
            Ok(((initialized, _), _)) => return Ok(initialized.len()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
