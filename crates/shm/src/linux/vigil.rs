//! A thread of this process that waits for the end of peers, for those who sleep by a read of
//! their doorbell and see nothing else.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Builder;

use rustix::event::epoll;

use crate::linux::bell::Bell;
use crate::linux::life::Life;

/// Bytes of stack that the thread has.
const STACK_SIZE: usize = 64 * 1024;
/// Ends that are taken note of at a time.
const EVENTS: usize = 16;

/// Started with the first vigil, and there until the process ends; `None` where it can't be.
static WATCH: OnceLock<Option<Watch>> = OnceLock::new();

/// As long as it lives, the doorbell rings when the peer is gone, which `life` then knows.
#[derive(Debug)]
pub(crate) struct Vigil {
    watch: &'static Watch,
    key: u64,
}

#[derive(Debug)]
struct Watch {
    epoll: OwnedFd,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    next: u64,
    sides: HashMap<u64, (Arc<Life>, Arc<Bell>)>,
}

impl Vigil {
    /// `None` when the process may have no more threads or descriptors.
    pub(crate) fn keep(life: &Arc<Life>, bell: &Arc<Bell>) -> Option<Self> {
        let watch = WATCH.get_or_init(Watch::new).as_ref()?;
        let mut kept = watch.kept();
        let key = kept.next;
        kept.next += 1;
        kept.sides.insert(key, (Arc::clone(life), Arc::clone(bell)));
        drop(kept);
        let this = Self { watch, key };
        let once = epoll::EventFlags::RDHUP | epoll::EventFlags::ONESHOT;
        // Where it fails, dropping `this` takes back what was kept.
        epoll::add(&watch.epoll, life, epoll::EventData::new_u64(key), once).ok()?;
        Some(this)
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        let side = self.watch.kept().sides.remove(&self.key);
        if let Some((life, _)) = side {
            // It may never have been added.
            let _ = epoll::delete(&self.watch.epoll, life);
        }
    }
}

impl Watch {
    fn new() -> Option<Self> {
        let this = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).ok()?,
            kept: Mutex::default(),
        };
        let thread = Builder::new().name("remuda-shm-vigil".into()).stack_size(STACK_SIZE);
        thread.spawn(run).ok()?;
        Some(this)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, key: u64) {
        // Under the lock: once a vigil is dropped, nothing of its side is open here any more.
        let kept = self.kept();
        if let Some((life, bell)) = kept.sides.get(&key) {
            life.give_up();
            bell.ring();
        }
    }
}

fn run() {
    // Waits until whoever started this thread has set it.
    let Some(watch) = WATCH.wait() else { return };
    let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
    loop {
        // No error but an interruption is possible.
        let Ok((ended, _)) = epoll::wait(&watch.epoll, &mut events, None) else { continue };
        for event in ended {
            let data = event.data;
            watch.ended(data.u64());
        }
    }
}
