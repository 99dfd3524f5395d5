//! The doorbell of one side: an eventfd that the other side rings when this one sleeps.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, ReadWriteFlags, preadv2, read, write};

use crate::error::ShmError;

/// A doorbell, to be rung or to be heard.
#[derive(Debug)]
pub(crate) struct Bell {
    descriptor: OwnedFd,
    /// How many wait for it by other means than [`hear`](Bell::hear).
    watchers: AtomicUsize,
}

/// Somebody who waits for the doorbell by the edges that a poll sees, until this is dropped.
#[derive(Debug)]
pub(crate) struct Watched(Arc<Bell>);

impl Bell {
    pub(crate) fn new() -> Result<Self, ShmError> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(Self::from_peer)
            .map_err(ShmError::system("make a doorbell"))
    }

    /// A doorbell that a peer handed over.
    pub(crate) fn from_peer(descriptor: OwnedFd) -> Self {
        Self { descriptor, watchers: AtomicUsize::new(0) }
    }

    /// Rings. A doorbell that can't count any further has been rung, and one whose owner is gone
    /// needs no ringing: there is nothing to do about an error.
    pub(crate) fn ring(&self) {
        while matches!(write(&self.descriptor, &1_u64.to_ne_bytes()), Err(Errno::INTR)) {}
    }

    /// Forgets that it was rung.
    pub(crate) fn drain(&self) {
        let mut count = [0; 8];
        // Without blocking, whatever `let_block` did. There is no position in it.
        let mut forget = || {
            let into = &mut [IoSliceMut::new(&mut count)];
            preadv2(&self.descriptor, into, u64::MAX, ReadWriteFlags::NOWAIT)
        };
        while matches!(forget(), Err(Errno::INTR)) {}
    }

    /// Lets [`hear`](Self::hear) block. The other side shares the setting; its rings block only
    /// where the count is full, which nobody lives to see unless the peer wants it so. No write to
    /// an eventfd can be asked not to block: the kernel takes `RWF_NOWAIT` for reads only.
    pub(crate) fn let_block(&self) -> bool {
        fcntl_getfl(&self.descriptor)
            .and_then(|flags| fcntl_setfl(&self.descriptor, flags - OFlags::NONBLOCK))
            .is_ok()
    }

    /// Blocks until it rings, and forgets it: in one system call, and a shorter one than any that
    /// waits for several descriptors. Whoever watches for edges would miss the one that is
    /// forgotten here, and is rung for again; so nobody should come here while it
    /// [`is_watched`](Self::is_watched).
    pub(crate) fn hear(&self) -> Result<(), Errno> {
        match read(&self.descriptor, &mut [0; 8]) {
            Err(Errno::INTR) => return Ok(()),
            heard => heard?,
        };
        // Who watches said so before it told the peer that it sleeps; so if this ring was meant
        // for it, that is seen here.
        if self.is_watched() {
            self.ring();
        }
        Ok(())
    }

    /// Whether somebody waits for it by other means than [`hear`](Self::hear).
    pub(crate) fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::SeqCst) > 0
    }

    /// Says that somebody will watch for edges, before it tells the peer that it sleeps.
    pub(crate) fn watched(self: &Arc<Self>) -> Watched {
        self.watch_forever();
        Watched(Arc::clone(self))
    }

    /// Says that from here on somebody may watch for edges at any time.
    pub(crate) fn watch_forever(&self) {
        self.watchers.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
