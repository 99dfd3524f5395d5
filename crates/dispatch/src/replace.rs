//! Replacing workers that serve well, without a gap: the new one is ready before the old one
//! drains, and one at a time.

use crate::deadline::nanos;
use crate::dispatch::Dispatch;
use crate::slab::NONE;
use crate::{Action, KillReason, Payload, Phase, RestartReason};

/// The replacement that is going on.
#[derive(Debug)]
pub(crate) struct Replacing {
    slot: u32,
    /// The worker that is to take over.
    new: u32,
    /// Once it did: the one that drains.
    old: u32,
    /// Whether it is a step of a reset.
    reset: bool,
}

/// A reset that is going on.
#[derive(Debug)]
pub(crate) struct Rolling {
    generation: u32,
    /// The slot of the next step.
    slot: u32,
    replaced: u32,
}

impl Rolling {
    pub(crate) fn new(generation: u32) -> Self {
        Self { generation, slot: 0, replaced: 0 }
    }
}

impl<J: Payload, R> Dispatch<J, R> {
    /// A worker is to be replaced. It serves on until its replacement is ready.
    pub(crate) fn want_replaced(&mut self, worker: u32, reason: RestartReason) {
        let w = &mut self.workers[worker];
        if w.is_ready() && !w.is_attached() && w.retire.is_none() {
            w.retire = Some(reason);
            self.replace_next();
        }
    }

    /// Begins the next replacement, if there is one to make and none is going on.
    pub(crate) fn replace_next(&mut self) {
        if self.replacing.is_some() || self.phase != Phase::Running {
            return;
        }
        match &self.rolling {
            Some(rolling) if (rolling.slot as usize) < self.slots.len() => self.reset_step(),
            Some(_) => self.reset_done(),
            None => self.recycle_next(),
        }
    }

    fn recycle_next(&mut self) {
        for slot in 0..self.slots.len() as u32 {
            let s = &self.slots[slot as usize];
            let worn = s.current != NONE && {
                let worker = &self.workers[s.current];
                worker.is_ready() && worker.retire.is_some()
            };
            if !worn || s.next != NONE {
                continue;
            }
            if s.start_at > self.now {
                self.slot_due.set(slot, s.start_at);
                continue;
            }
            let new = self.spawn(slot, s.generation, nanos(self.config.allocate_timeout));
            self.slots[slot as usize].next = new;
            self.replacing = Some(Replacing { slot, new, old: NONE, reset: false });
            return;
        }
    }

    fn reset_step(&mut self) {
        let Some(rolling) = &mut self.rolling else { return };
        let (slot, generation) = (rolling.slot, rolling.generation);
        rolling.slot += 1;
        let timeout = nanos(self.config.reset_timeout.min(self.config.allocate_timeout));
        let new = self.spawn(slot, generation, timeout);
        let s = &mut self.slots[slot as usize];
        match s.current {
            NONE => s.current = new,
            _ => s.next = new,
        }
        self.replacing = Some(Replacing { slot, new, old: NONE, reset: true });
    }

    fn reset_done(&mut self) {
        if let Some(rolling) = self.rolling.take() {
            self.generation = rolling.generation;
            self.actions.push_back(Action::ResetDone { generation: rolling.generation });
        }
        self.recycle_next();
    }

    /// Gives a reset up. What was replaced stays so, and so does what was not.
    pub(crate) fn fail_reset(&mut self, new: Option<u32>) {
        if let Some(Rolling { generation, replaced, .. }) = self.rolling.take() {
            let worker = new.map(|index| self.worker_id(index));
            self.actions.push_back(Action::ResetFailed { generation, worker, replaced });
        }
    }

    /// A worker became ready and has its slot; the one before it, if there was one, drains.
    pub(crate) fn replacement_ready(&mut self, new: u32, old: u32) {
        let known = self.replacing.as_mut().filter(|replacing| replacing.new == new);
        let reset = known.as_ref().is_some_and(|replacing| replacing.reset);
        if let Some(replacing) = known {
            replacing.old = old;
            replacing.new = NONE;
            if old == NONE {
                self.replacing = None;
            }
            if let Some(rolling) = self.rolling.as_mut().filter(|_| reset) {
                rolling.replaced += 1;
            }
        }
        if old != NONE {
            self.retire(old, reset.then_some(RestartReason::Reset));
        }
        self.replace_next();
    }

    /// A worker is gone, which may be one of the two that a replacement is about.
    pub(crate) fn replacement_lost(&mut self, worker: u32) {
        let Some(Replacing { new, reset, .. }) = self.replacing else { return };
        if new == worker {
            self.replacing = None;
            if reset {
                self.fail_reset(Some(worker));
            }
        }
        self.old_one_gone(worker);
    }

    /// The one that drains is gone, or takes too long for the others to wait for it.
    pub(crate) fn old_one_gone(&mut self, worker: u32) {
        if self.replacing.as_ref().is_some_and(|replacing| replacing.old == worker) {
            self.replacing = None;
        }
    }

    /// Forgets the replacement and the reset that are going on: the pool is ending.
    pub(crate) fn stop_replacing(&mut self) {
        self.fail_reset(None);
        self.replacing = None;
        for slot in 0..self.slots.len() {
            let next = std::mem::replace(&mut self.slots[slot].next, NONE);
            if next != NONE {
                self.kill(next, KillReason::Stopped);
            }
        }
    }

    /// Keeps so many slots from here on.
    pub(crate) fn set_slots(&mut self, num_workers: u32) {
        let surplus = self.slots.split_off(self.slots.len().min(num_workers as usize));
        if self.replacing.as_ref().is_some_and(|replacing| replacing.slot >= num_workers) {
            self.replacing = None;
        }
        for slot in surplus {
            for worker in [slot.next, slot.current] {
                if worker != NONE {
                    self.retire(worker, None);
                }
            }
        }
        let generation = self.generation;
        self.slots.resize_with(num_workers as usize, || crate::supervise::Slot::new(generation));
        self.fill_slots();
        self.replace_next();
    }
}
