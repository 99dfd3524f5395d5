//! The doorbell of one side: an eventfd that the other side rings when this one sleeps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, read, write};

use crate::error::ShmError;

/// A doorbell, to be rung or to be heard.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> Result<Self, ShmError> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(Self)
            .map_err(ShmError::system("make a doorbell"))
    }

    /// A doorbell that a peer handed over.
    pub(crate) fn from_peer(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Rings. A doorbell that can't count any further has been rung, and one whose owner is gone
    /// needs no ringing: there is nothing to do about an error.
    pub(crate) fn ring(&self) {
        while matches!(write(&self.0, &1_u64.to_ne_bytes()), Err(Errno::INTR)) {}
    }

    /// Forgets that it was rung.
    pub(crate) fn drain(&self) {
        let mut count = [0; 8];
        while matches!(read(&self.0, &mut count), Err(Errno::INTR)) {}
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
