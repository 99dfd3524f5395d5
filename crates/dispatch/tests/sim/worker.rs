//! A worker of the simulation: what it was sent, what it is doing, what it has answered.

use std::collections::VecDeque;

use remuda_dispatch::*;

use crate::plan::{Deed, Job};

/// A call on its way to a worker, or with it.
#[derive(Clone, Debug)]
pub struct Work {
    pub call: CallId,
    pub jobs: Vec<Job>,
    /// Tells it from all other work, in events.
    pub token: u64,
}

impl Work {
    /// How long it takes until it is done, or until the worker dies of it; and which of both.
    /// `None`: it never ends.
    pub fn course(&self) -> Option<(u64, bool)> {
        let mut takes = 0;
        for job in &self.jobs {
            takes += job.takes;
            match job.deed {
                Deed::Kill => return Some((takes, true)),
                Deed::Hang => return None,
                Deed::Work | Deed::Fail => {}
            }
        }
        Some((takes, false))
    }

    pub fn answers(&self) -> Vec<Reply<u64>> {
        let answer = |job: &Job| match job.deed {
            Deed::Fail => Reply::Failed { code: Code::HandlerError, error: 0 },
            _ => Reply::Done(job.number as u64),
        };
        self.jobs.iter().map(answer).collect()
    }
}

/// An answer on its way to the pool.
#[derive(Debug)]
pub struct Answer {
    pub call: CallId,
    pub jobs: Vec<usize>,
    pub replies: Vec<Reply<u64>>,
}

#[derive(Debug)]
pub struct SimWorker {
    pub id: WorkerId,
    pub attached: bool,
    pub offer: Offer,
    pub alive: bool,
    pub ready: bool,
    /// The pool wants it dead.
    pub killed: bool,
    /// It answered what can't be, and the pool heard it.
    pub faulted: bool,
    /// It is shutting down, and takes no calls until its link is made anew.
    pub draining: bool,
    pub wire_in: VecDeque<Work>,
    pub wire_in_until: u64,
    pub inbox: VecDeque<Work>,
    pub running: Vec<Work>,
    pub wire_out: VecDeque<Answer>,
    pub wire_out_until: u64,
    /// Grows when the link is lost: events of the one before are void.
    pub link: u32,
}

impl SimWorker {
    pub fn new(id: WorkerId, attached: bool, offer: Offer) -> Self {
        Self {
            id,
            attached,
            offer,
            alive: true,
            ready: false,
            killed: false,
            faulted: false,
            draining: false,
            wire_in: VecDeque::new(),
            wire_in_until: 0,
            inbox: VecDeque::new(),
            running: Vec::new(),
            wire_out: VecDeque::new(),
            wire_out_until: 0,
            link: 0,
        }
    }

    /// What it starts next, if it may.
    pub fn next_work(&mut self) -> Option<Work> {
        let most = if self.offer.ordered { 1 } else { self.offer.capacity.max(1) as usize };
        if !self.alive || self.running.len() >= most {
            return None;
        }
        self.inbox.pop_front()
    }

    /// Takes out what a call names, wherever it is: running or not begun.
    pub fn take(&mut self, call: CallId) -> Option<(Work, bool)> {
        if let Some(at) = self.running.iter().position(|work| work.call == call) {
            return Some((self.running.remove(at), true));
        }
        let at = self.inbox.iter().position(|work| work.call == call)?;
        self.inbox.remove(at).map(|work| (work, false))
    }
}
