//! What the socket takes at once is given to it at once.
//!
//! A send by io_uring makes a completion, unless it is a silent one, and that ends the wait that
//! the same `enter` begins. A plain send that doesn't block costs no more than the operation, and
//! there is nothing to wait for.

use std::io::IoSlice;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send as send_slice, sendmsg};

use crate::conn::{Conn, Phase};
use crate::recv_buf::RecvPool;
use crate::send_queue::{PIECES_PER_SEND, SendPool};
use crate::slots::Key;
use crate::state::State;

/// Shorter sends wait for the end of the turn, to be put together: copying them is cheaper than
/// a system call of their own.
pub(crate) const DIRECT_BYTES: usize = 16 << 10;

const FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

/// Writes until the queue is empty (true) or the socket full (false).
#[inline]
pub(super) fn write_all(
    conn: &mut Conn,
    pool: &mut SendPool,
    recv: &mut RecvPool,
) -> Result<bool, Errno> {
    while conn.send.has_chunks() {
        let (written, wanted) = match write(conn) {
            Ok(amounts) => amounts,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Ok(false),
            Err(errno) => return Err(errno),
        };
        conn.send.advance(written, pool, recv);
        if written < wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

/// One call; returns how much was written and how much there was.
fn write(conn: &Conn) -> Result<(usize, usize), Errno> {
    if let Some(only) = conn.send.only_piece() {
        return Ok((send_slice(&conn.fd, only, FLAGS)?, only.len()));
    }
    write_pieces(conn)
}

/// Apart from what mostly happens, for the room that the list of pieces takes.
#[cold]
fn write_pieces(conn: &Conn) -> Result<(usize, usize), Errno> {
    let mut slices = [IoSlice::new(&[]); PIECES_PER_SEND];
    let (count, total) = conn.send.slices(&mut slices);
    let mut none = SendAncillaryBuffer::default();
    Ok((sendmsg(&conn.fd, &slices[..count], &mut none, FLAGS)?, total))
}

/// Gives the kernel what is queued and then as much of a long `data` as it takes; returns how much
/// of `data` that was. With an operation in flight, or on an error, it is nothing: then the
/// queue's own way tells.
pub(super) fn send(state: &mut State, key: Key, data: &[u8]) -> usize {
    let Some(conn) = state.conns.get_mut(key) else { return 0 };
    let busy = conn.phase != Phase::Open || conn.driver.send_blocked;
    if busy || conn.send.pieces() >= PIECES_PER_SEND {
        return 0;
    }
    let mut slices = [IoSlice::new(&[]); PIECES_PER_SEND];
    let (count, queued) = conn.send.slices(&mut slices);
    slices[count] = IoSlice::new(data);
    let mut none = SendAncillaryBuffer::default();
    let Ok(written) = sendmsg(&conn.fd, &slices[..=count], &mut none, FLAGS) else { return 0 };
    conn.send.advance(written.min(queued), &mut state.send_pool, &mut state.recv_pool);
    let direct = written.saturating_sub(queued);
    conn.send.passed(direct);
    conn.note_sent(&mut state.wakes);
    direct
}
