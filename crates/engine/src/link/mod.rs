//! The pool's side of each worker: what it is told, and what is known of it.

mod answers;
mod asleep;
pub(crate) mod attached;
pub(crate) mod filter;
mod parcel;
pub(crate) mod process;
mod shm;
mod talk;
pub(crate) mod thread;
pub(crate) mod tls;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use remuda_dispatch::{CallId, Dispatch, Exit, KillReason, WorkerId};
use remuda_net::Notifier;

use crate::history::LostJob;
use crate::job::{Answer, Job};
use crate::logs::LogTail;
use crate::usage::Load;
use filter::FilterLink;
use process::ProcessLink;
use thread::ThreadLink;

/// A worker, from its start until it is gone.
pub(crate) struct Link {
    pub(crate) worker: WorkerId,
    /// Its number, counted from 1: `REMUDA_WORKER_ID`.
    pub(crate) number: u64,
    pub(crate) slot: u32,
    pub(crate) transport: Transport,
    pub(crate) pid: Option<u32>,
    pub(crate) pidfd: Option<OwnedFd>,
    /// It has shaken hands.
    pub(crate) ready: bool,
    /// Its socket was read to the end.
    pub(crate) read_to_end: bool,
    /// Its process has ended.
    pub(crate) exit: Option<Exit>,
    /// Why the pool killed it.
    pub(crate) killed: Option<KillReason>,
    /// For a peer that the pool attached to: told once hands were shaken.
    pub(crate) attached: Option<Notifier>,
    /// How many jobs it runs at once, as it said when hands were shaken.
    pub(crate) capacity: u32,
    /// The job for which it is killed, which has had its answer already.
    pub(crate) overdue: Option<LostJob>,
    /// What it used of a processor lately.
    pub(crate) load: Load,
    /// What went wrong with it, where more is known than how it ended.
    pub(crate) trouble: Option<String>,
    /// Another start would fail in the same way.
    pub(crate) hopeless: bool,
    /// A peer that turned out to be this pool.
    pub(crate) is_itself: bool,
    /// The reading end of its stdout and stderr.
    pub(crate) log: Option<File>,
    pub(crate) tail: LogTail,
}

/// How a worker is reached.
pub(crate) enum Transport {
    /// A socket with a process that speaks the protocol.
    Process(ProcessLink),
    /// The stdin and stdout of a filter.
    Filter(Rc<FilterLink>),
    /// A thread of this process.
    Thread(ThreadLink),
}

impl Link {
    pub(crate) fn new(worker: WorkerId, number: u64, slot: u32, transport: Transport) -> Self {
        Self {
            worker,
            number,
            slot,
            transport,
            pid: None,
            pidfd: None,
            ready: false,
            read_to_end: false,
            exit: None,
            killed: None,
            attached: None,
            capacity: 0,
            overdue: None,
            load: Load::default(),
            trouble: None,
            hopeless: false,
            is_itself: false,
            log: None,
            tail: LogTail::default(),
        }
    }

    /// What is done about one that broke the protocol, for who reads of it.
    pub(crate) fn remedy(&self) -> &'static str {
        match self.attached {
            Some(_) => "its link is closed and tried again",
            None => "it is replaced",
        }
    }

    /// Whether it is served over rings in shared memory.
    pub(crate) fn is_over_rings(&self) -> bool {
        matches!(&self.transport, Transport::Process(link) if link.rings().is_some())
    }

    /// Hands a call over; true if it is gathered with others, and to be sent with them.
    pub(crate) fn send(
        &self,
        dispatch: &Dispatch<Job, Answer>,
        call: CallId,
        scratch: &mut Vec<u8>,
    ) -> bool {
        match &self.transport {
            Transport::Process(link) => return link.send(dispatch, call, scratch),
            Transport::Filter(link) => link.send(dispatch, call),
            Transport::Thread(link) => link.send(dispatch, self.worker, call),
        }
        false
    }

    /// Sends the calls that were gathered.
    pub(crate) fn send_gathered(&self) {
        if let Transport::Process(link) = &self.transport {
            link.send_gathered();
        }
    }

    /// Tells it that a call is not wanted any more.
    pub(crate) fn cancel(&self, call: CallId, scratch: &mut Vec<u8>) {
        match &self.transport {
            Transport::Process(link) => link.cancel(call, scratch),
            Transport::Filter(_) | Transport::Thread(_) => {}
        }
    }

    /// Asks it to end, by ending what it reads.
    pub(crate) fn stop(&self) {
        match &self.transport {
            Transport::Process(link) => link.stop(),
            Transport::Filter(link) => link.stop(),
            Transport::Thread(link) => link.stop(),
        }
    }
}

/// The links of a pool, found by the worker's name.
#[derive(Default)]
pub(crate) struct Links {
    places: Vec<Option<Link>>,
    /// Whether a worker came over rings, be it gone by now.
    pub(crate) any_over_rings: bool,
}

impl Links {
    pub(crate) fn insert(&mut self, link: Link) {
        let place = link.worker.index();
        if place >= self.places.len() {
            self.places.resize_with(place + 1, || None);
        }
        self.places[place] = Some(link);
    }

    /// The link of that worker, unless it is gone.
    pub(crate) fn of(&mut self, worker: WorkerId) -> Option<&mut Link> {
        self.places.get_mut(worker.index())?.as_mut().filter(|link| link.worker == worker)
    }

    /// The link of the worker with that number.
    pub(crate) fn numbered(&mut self, number: u64) -> Option<&mut Link> {
        self.places.iter_mut().flatten().find(|link| link.number == number)
    }

    pub(crate) fn remove(&mut self, worker: WorkerId) -> Option<Link> {
        let place = self.places.get_mut(worker.index())?;
        if place.as_ref()?.worker == worker { place.take() } else { None }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.places.iter().flatten()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.places.iter_mut().flatten()
    }
}
