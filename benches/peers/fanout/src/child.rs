//! A child: a process that gives back what it gets, and its parent's side of it.

use std::io::{Error, Result};

use crate::ring::{Bell, Link, SLOTS};

/// What a child has at most: one message that it is at, and as many more as a pool hands ahead.
pub const IN_FLIGHT: usize = 33;
const _: () = assert!(IN_FLIGHT <= SLOTS);

pub struct Child {
    pub link: &'static Link,
    pub bell: Bell,
    pub in_flight: usize,
    /// Its bell is to be rung.
    pub handed: bool,
}

impl Child {
    pub fn start(parent: Bell) -> Result<Self> {
        let (link, bell) = (Link::new()?, Bell::new()?);
        // SAFETY: there is one thread, so that the child may do whatever this process may.
        match unsafe { libc::fork() } {
            -1 => Err(Error::last_os_error()),
            0 => give_back(link, bell, parent),
            _ => Ok(Self { link, bell, in_flight: 0, handed: false }),
        }
    }

    pub fn has_room(&self) -> bool {
        self.in_flight < IN_FLIGHT
    }

    pub fn put(&mut self, place: u32, message: &[u8]) {
        self.link.down.put(place, message);
        self.in_flight += 1;
    }
}

/// What a child does: it sleeps as soon as there is nothing.
fn give_back(link: &Link, own: Bell, parent: Bell) -> ! {
    // SAFETY: no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    loop {
        let mut any = false;
        while link.down.take(|place, message| link.up.put(place, message)) {
            any = true;
        }
        if any {
            parent.ring();
        } else {
            own.sleep(|| link.down.is_empty());
        }
    }
}
