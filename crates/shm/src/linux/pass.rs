//! Passing an offer and its descriptors over a Unix socket, in one message.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::error::ShmError;
use crate::linux::offer::{OFFER_DESCRIPTORS, OFFER_LEN, Offer};

/// How long a side that connects waits for the offer.
pub const OFFER_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends an offer. Does not block: 32 bytes fit into any socket buffer that isn't full.
pub(crate) fn send_offer(
    socket: BorrowedFd<'_>,
    offer: Offer,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), ShmError> {
    let bytes = offer.encode();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(OFFER_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        debug_assert!(fits, "there is room for all that an offer carries");
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let sent = loop {
        match sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            other => break other.map_err(ShmError::system("hand over the shared memory"))?,
        }
    };
    if sent == bytes.len() {
        return Ok(());
    }
    Err(ShmError::System {
        doing: "hand over the shared memory",
        source: std::io::ErrorKind::WriteZero.into(),
    })
}

/// Receives an offer and its descriptors. Reads exactly the offer, so that what follows it on the
/// socket is left for others.
pub(crate) fn recv_offer(socket: BorrowedFd<'_>) -> Result<(Offer, Vec<OwnedFd>), ShmError> {
    let deadline = Instant::now() + OFFER_TIMEOUT;
    let mut bytes = [0; OFFER_LEN];
    let mut filled = 0;
    let mut descriptors = Vec::new();
    while filled < OFFER_LEN {
        await_input(socket, deadline)?;
        match recv_part(socket, &mut bytes[filled..], &mut descriptors) {
            Ok(0) => return Err(ShmError::BadOffer("the engine closed the connection before it")),
            Ok(received) => filled += received,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::CONNRESET) => {
                return Err(ShmError::BadOffer("the engine closed the connection before it"));
            }
            Err(error) => return Err(ShmError::system("receive the shared memory")(error)),
        }
    }
    Ok((Offer::decode(&bytes)?, descriptors))
}

fn recv_part(
    socket: BorrowedFd<'_>,
    into: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<usize, Errno> {
    // Descriptors past the ones expected are closed by the kernel.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(OFFER_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(into)], &mut ancillary, flags)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(received.bytes)
}

fn await_input(socket: BorrowedFd<'_>, deadline: Instant) -> Result<(), ShmError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::new(&socket.as_fd(), PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            Ok(0) => return Err(ShmError::BadOffer("it did not come in five seconds")),
            Ok(_) => return Ok(()),
            Err(error) => return Err(ShmError::system("wait for the shared memory")(error)),
        }
    }
}
