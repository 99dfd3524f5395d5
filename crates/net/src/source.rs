//! Sources: what a task waits for that the kernel doesn't see, such as a ring in shared memory.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::error::{NetError, Result};
use crate::runtime;
use crate::sleeper::Sleeper;
use crate::slots::{Key, Slots};
use crate::state::Watch;
use crate::wakes::Wakes;

/// What a runtime looks at by itself, and sleeps on by a doorbell.
///
/// While the thread is awake it only looks ([`is_ready`](Self::is_ready)), once a turn and, if
/// [`Config::spin`](crate::Config::spin) lets it, again and again before it sleeps: whoever is on
/// the other side has no system call to make. Before the thread really sleeps it says so
/// ([`park`](Self::park)), and from then on the other side rings the doorbell.
///
/// The methods are called by the runtime's thread, and must not call the runtime.
pub trait Source {
    /// Whether there is what the task waits for. Called often; it should take nanoseconds.
    fn is_ready(&self) -> bool;

    /// The thread is going to sleep: asks for the doorbell to be rung from now on, then looks
    /// again. Returns true if what the task waits for has come by then; it does not sleep then.
    fn park(&self) -> bool;

    /// The thread is awake again, and looks by itself.
    fn unpark(&self);
}

struct Entry {
    source: Rc<dyn Source>,
    /// The task that waits for it.
    sleeper: Option<Sleeper>,
    /// It is in the list of those to be looked at.
    active: bool,
    parked: bool,
    watch: Key,
}

/// The sources of a runtime.
#[derive(Default)]
pub(crate) struct Sources {
    entries: RefCell<Slots<Entry>>,
    /// Those that a task waits for and that aren't parked: all that has to be looked at.
    active: RefCell<Vec<Key>>,
}

impl Sources {
    /// Whether one of those that tasks wait for is ready.
    pub(crate) fn any_ready(&self) -> bool {
        let active = self.active.borrow();
        if active.is_empty() {
            return false;
        }
        let entries = self.entries.borrow();
        active.iter().any(|key| entries.get(*key).is_some_and(|entry| entry.source.is_ready()))
    }

    /// Wakes the tasks whose source is ready.
    #[inline]
    pub(crate) fn wake_ready(&self, wakes: &mut Wakes) {
        self.keep_active(|entry| {
            let ready = entry.source.is_ready();
            if ready {
                wakes.extend(entry.sleeper.take());
            }
            entry.active = !ready;
            !ready
        });
    }

    /// Parks what is looked at. Returns false if something came meanwhile: its task is in
    /// `wakes` then, and the thread must not sleep.
    #[inline]
    pub(crate) fn park(&self, wakes: &mut Wakes) -> bool {
        let mut quiet = true;
        self.keep_active(|entry| {
            if entry.source.park() {
                entry.source.unpark();
                wakes.extend(entry.sleeper.take());
                quiet = false;
            } else {
                entry.parked = true;
            }
            entry.active = false;
            false
        });
        quiet
    }

    /// The doorbell of a source was rung: it is looked at again from now on.
    pub(crate) fn rung(&self, key: Key) {
        let mut entries = self.entries.borrow_mut();
        let Some(entry) = entries.get_mut(key) else { return };
        if std::mem::take(&mut entry.parked) {
            entry.source.unpark();
            if entry.sleeper.is_some() && !std::mem::replace(&mut entry.active, true) {
                self.active.borrow_mut().push(key);
            }
        }
    }

    #[inline]
    fn keep_active(&self, mut keep: impl FnMut(&mut Entry) -> bool) {
        let mut active = self.active.borrow_mut();
        if !active.is_empty() {
            let mut entries = self.entries.borrow_mut();
            active.retain(|key| entries.get_mut(*key).is_some_and(&mut keep));
        }
    }

    fn poll(&self, key: Key, waker: &Waker) -> Poll<()> {
        let mut entries = self.entries.borrow_mut();
        let Some(entry) = entries.get_mut(key) else { return Poll::Pending };
        if entry.source.is_ready() {
            if std::mem::take(&mut entry.parked) {
                entry.source.unpark();
            }
            return Poll::Ready(());
        }
        entry.sleeper = Some(Sleeper::of(waker));
        if !entry.parked && !std::mem::replace(&mut entry.active, true) {
            self.active.borrow_mut().push(key);
        }
        Poll::Pending
    }
}

/// A source that a runtime watches. Dropping it ends that.
pub struct SourceHandle {
    key: Key,
    local: PhantomData<Rc<()>>,
}

/// Has this thread's runtime watch a source, whose `doorbell` (an eventfd; a duplicate of it is
/// kept) the other side writes to while the source is parked. The runtime never reads from it.
///
/// # Errors
/// If the doorbell can't be duplicated or watched, or no runtime runs on this thread.
pub fn watch_source(source: Rc<dyn Source>, doorbell: &impl AsFd) -> Result<SourceHandle> {
    let duplicate = doorbell.as_fd().try_clone_to_owned();
    let fd: OwnedFd = duplicate.map_err(NetError::io("duplicating a doorbell"))?;
    let key = runtime::with(|core| {
        let entry = Entry {
            source,
            sleeper: None,
            active: false,
            parked: false,
            watch: Key { index: 0, serial: 0 },
        };
        let key = core.sources().entries.borrow_mut().insert(entry);
        let watch = Watch::of_doorbell(fd, key);
        let watching = runtime::with_io(|state, driver| {
            let watch = state.watches.insert(watch);
            driver.watch(state, watch).map(|()| watch).inspect_err(|_| {
                state.watches.remove(watch);
            })
        });
        let mut entries = core.sources().entries.borrow_mut();
        match watching.unwrap_or(Err(NetError::NoRuntime)) {
            Ok(watch) => {
                entries.get_mut(key).into_iter().for_each(|entry| entry.watch = watch);
                Ok(key)
            }
            Err(error) => {
                entries.remove(key);
                Err(error)
            }
        }
    });
    let key = key.unwrap_or(Err(NetError::NoRuntime))?;
    Ok(SourceHandle { key, local: PhantomData })
}

impl SourceHandle {
    /// Resolves when the source is ready. It never does if the runtime has ended. Cancel safe;
    /// of several tasks that wait for one source, the last is woken.
    pub async fn ready(&self) {
        std::future::poll_fn(|cx| {
            let polled = runtime::with(|core| core.sources().poll(self.key, cx.waker()));
            polled.unwrap_or(Poll::Pending)
        })
        .await;
    }
}

impl Drop for SourceHandle {
    fn drop(&mut self) {
        let entry = runtime::with(|core| core.sources().entries.borrow_mut().remove(self.key));
        if let Some(entry) = entry.flatten() {
            runtime::with_io(|state, driver| driver.unwatch(state, entry.watch));
        }
    }
}
