//! Large sends without a copy: what the socket takes at once goes to it from the sender's memory.

use std::io::IoSlice;

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use crate::conn::Phase;
use crate::send_queue::PIECES_PER_SEND;
use crate::slots::Key;
use crate::state::State;

/// Shorter sends wait for the end of the turn, to be put together: copying them is cheaper than
/// a system call of their own.
const DIRECT_BYTES: usize = 16 << 10;

/// Gives the kernel what is queued and then as much of `data` as it takes; returns how much of
/// `data` that was. With an operation in flight, or on an error, it is nothing: then the
/// queue's own way tells.
pub(super) fn send(state: &mut State, key: Key, data: &[u8]) -> usize {
    let Some(conn) = state.conns.get_mut(key) else { return 0 };
    let busy = conn.phase != Phase::Open || conn.driver.send_blocked;
    if data.len() < DIRECT_BYTES || busy || conn.send.pieces() >= PIECES_PER_SEND {
        return 0;
    }
    let mut slices = [IoSlice::new(&[]); PIECES_PER_SEND];
    let (count, queued) = conn.send.slices(&mut slices);
    slices[count] = IoSlice::new(data);
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let mut none = SendAncillaryBuffer::default();
    let Ok(written) = sendmsg(&conn.fd, &slices[..=count], &mut none, flags) else { return 0 };
    conn.send.advance(written.min(queued), &mut state.send_pool, &mut state.recv_pool);
    let direct = written.saturating_sub(queued);
    conn.send.passed(direct);
    if written > 0 {
        state.sent_further(key);
    }
    direct
}
