//! Sleeping in a blocking call until the doorbell rings or the peer is gone.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::error::ShmError;
use crate::linux::bell::Bell;
use crate::linux::life::Life;

const BELL: u64 = 0;
const LIFE: u64 = 1;

/// An epoll instance of one direction. It watches the doorbell for edges, so that a wake-up is one
/// system call, without another to empty the counter; and two directions that sleep at once each
/// see every ring.
#[derive(Debug)]
pub(crate) struct Sleeper(OwnedFd);

impl Sleeper {
    pub(crate) fn new(bell: &Bell, life: &Life) -> Result<Self, ShmError> {
        let doing = "prepare to sleep";
        let this =
            Self(epoll::create(epoll::CreateFlags::CLOEXEC).map_err(ShmError::system(doing))?);
        let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&this.0, bell, epoll::EventData::new_u64(BELL), edges)
            .map_err(ShmError::system(doing))?;
        let hang_up = epoll::EventFlags::RDHUP;
        epoll::add(&this.0, life, epoll::EventData::new_u64(LIFE), hang_up)
            .map_err(ShmError::system(doing))?;
        Ok(this)
    }

    /// Sleeps until the doorbell rings, the peer is gone (which `life` then knows), or `deadline`.
    /// May also return early.
    pub(crate) fn sleep(&self, life: &Life, deadline: Option<Instant>) -> Result<(), ShmError> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left: Duration| Timespec::try_from(left).unwrap_or(FOREVER));
        let mut events = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; 2];
        let (events, _) = match epoll::wait(&self.0, &mut events, timeout.as_ref()) {
            Err(Errno::INTR) => return Ok(()),
            other => other.map_err(ShmError::system("sleep"))?,
        };
        for event in events {
            let data = event.data;
            if data.u64() == LIFE {
                life.is_gone();
            }
        }
        Ok(())
    }
}

/// Longer than any program runs, and within what the kernel takes.
const FOREVER: Timespec = Timespec { tv_sec: i32::MAX as i64, tv_nsec: 0 };
