//! What is asked about the pool, or of it as a whole: status, reset, shutdown.

use std::task::{Poll, Waker};
use std::time::Duration;

use remuda_dispatch::{Drain, Phase, ResetRefused, WorkerView};
use remuda_protocol::{Code, Id, IdBuf, Offer, encode};
use remuda_reconnect::LinkState;
use serde_json::{Value, json};

use crate::core::Core;
use crate::front::ClientKey;
use crate::history::Incident;
use crate::link::Link;

/// A client that waits for the end of a reset.
pub(crate) struct ResetWaiter {
    /// What the reset makes; none until it has begun.
    generation: Option<u32>,
    client: ClientKey,
    id: Option<IdBuf>,
    order: Option<u64>,
}

impl ResetWaiter {
    /// Whether that client waits.
    pub(crate) fn is_of(&self, key: ClientKey) -> bool {
        self.client == key
    }
}

impl Core {
    /// What the pool says of itself in a handshake.
    pub(crate) fn offer(&self) -> Offer {
        let mut offer = Offer::default();
        offer.instance.clone_from(&self.instance);
        offer.pid = std::process::id();
        let attached = self.links.iter().filter(|link| link.attached.is_some() && link.ready);
        let theirs = attached.map(|link| link.capacity).fold(0, u32::saturating_add);
        offer.capacity = self.config.dispatch.num_workers.saturating_add(theirs).max(1);
        offer.capabilities = [Offer::CANCEL, Offer::OFFER].map(str::to_owned).into();
        offer
    }

    pub(crate) fn client_status(&mut self, key: ClientKey, id: Option<Id<'_>>) {
        let status = self.status();
        let Some(client) = self.clients.of(key) else { return };
        let order = id.is_none().then(|| client.unnamed.begin());
        let text = status.to_string();
        // The members of the object, without its braces.
        let members = text.get(1..text.len() - 1).unwrap_or_default();
        self.reply(key, order, |out| encode::ok(out, id, "status", members.as_bytes()));
    }

    pub(crate) fn client_reset(&mut self, key: ClientKey, id: Option<Id<'_>>) {
        if !self.may_administer(key, id) {
            return;
        }
        let Some(client) = self.clients.of(key) else { return };
        let order = id.is_none().then(|| client.unnamed.begin());
        let id = id.map(Id::to_owned);
        self.reset_waiters.push(ResetWaiter { generation: None, client: key, id, order });
        if let Some(waiting) = self.reset_wanted.take() {
            waiting.wake();
        }
    }

    /// Ready if a client asked for a reset that has not begun.
    pub(crate) fn poll_reset_wanted(&mut self, waker: &Waker) -> Poll<()> {
        // While one goes on, another waits: what was changed since then would be left out.
        let (going_on, wanted): (Vec<_>, Vec<_>) =
            self.reset_waiters.iter().partition(|waiter| waiter.generation.is_some());
        if going_on.is_empty() && !wanted.is_empty() && !self.is_resetting() {
            return Poll::Ready(());
        }
        self.reset_wanted = Some(waker.clone());
        Poll::Pending
    }

    fn is_resetting(&self) -> bool {
        self.dispatch.snapshot(self.now()).resetting
    }

    /// Begins a reset: those who asked for one wait for this one.
    pub(crate) fn begin_reset(&mut self) -> Result<(), ResetRefused> {
        let now = self.now();
        let generation = match self.dispatch.reset(now) {
            Ok(generation) => generation,
            Err(refused) => {
                if refused == ResetRefused::Draining {
                    self.refuse_resets(Code::Draining, &refused.to_string());
                }
                return Err(refused);
            }
        };
        if let Some(kind) = self.next_kind.take() {
            self.kinds.insert(generation, kind);
        }
        for waiter in self.reset_waiters.iter_mut().filter(|waiter| waiter.generation.is_none()) {
            waiter.generation = Some(generation);
        }
        Ok(())
    }

    /// Tells those who asked for a reset that none begins.
    pub(crate) fn refuse_resets(&mut self, code: Code, message: &str) {
        let waiters = std::mem::take(&mut self.reset_waiters);
        for waiter in waiters {
            if waiter.generation.is_some() {
                self.reset_waiters.push(waiter);
                continue;
            }
            let id = waiter.id.as_ref().map(IdBuf::as_id);
            self.reply(waiter.client, waiter.order, |out| encode::error(out, id, code, message));
        }
    }

    /// A reset has ended: tells those who wait for it.
    pub(crate) fn reset_ended(&mut self, generation: u32, failed: Option<String>) {
        if failed.is_none() {
            self.kinds = self.kinds.split_off(&generation);
        }
        match &failed {
            None => tracing::info!("the pool was reset: all workers are new"),
            Some(why) => tracing::warn!("the reset failed, and the old workers stay: {why}"),
        }
        if let Some(waiting) = self.reset_wanted.take() {
            waiting.wake();
        }
        let waiters = std::mem::take(&mut self.reset_waiters);
        for waiter in waiters {
            if waiter.generation != Some(generation) {
                self.reset_waiters.push(waiter);
                continue;
            }
            let id = waiter.id.as_ref().map(IdBuf::as_id);
            self.reply(waiter.client, waiter.order, |out| match &failed {
                None => encode::ok(out, id, "reset", b""),
                Some(why) => {
                    let message = format!("the reset failed, and the old workers stay: {why}");
                    encode::error(out, id, Code::Internal, &message);
                }
            });
        }
    }

    pub(crate) fn client_shutdown(&mut self, key: ClientKey, id: Option<Id<'_>>) {
        if !self.may_administer(key, id) {
            return;
        }
        let Some(client) = self.clients.of(key) else { return };
        let order = id.is_none().then(|| client.unnamed.begin());
        self.reply(key, order, |out| encode::ok(out, id, "shutdown", b""));
        self.drain_all();
    }

    /// Finishes what was accepted, and ends.
    pub(crate) fn drain_all(&mut self) {
        let now = self.now();
        let within = Some(self.config.dispatch.destroy_timeout);
        self.dispatch.drain(now, Drain { queued: true, within });
    }

    fn may_administer(&mut self, key: ClientKey, id: Option<Id<'_>>) -> bool {
        let is_admin = self.clients.of(key).is_some_and(|client| client.is_admin());
        if !is_admin {
            let message = "this listener takes no admin operations: use one with role=admin";
            self.reply_error(key, id, Code::Unauthorized, message);
        }
        is_admin
    }

    fn worker_status(&self, view: &WorkerView, now: Duration) -> Value {
        let link = self.links.iter().find(|link| link.worker == view.worker);
        let peer = self.peers.iter().find(|peer| peer.worker == view.worker);
        json!({
            "worker": link.map(|link| link.number),
            "slot": view.slot,
            "pid": link.and_then(|link| link.pid),
            "attached": peer.map(|peer| &peer.address),
            "link": peer.map(|peer| link_state(&peer.link.latest(), now)),
            "shm": link.is_some_and(Link::is_over_rings),
            "state": view.state.as_str(),
            "generation": view.generation,
            "jobs": view.jobs,
            "in_flight": view.in_flight,
            "age_ms": view.age.as_millis() as u64,
            "job_age_ms": view.job_age.map(|age| age.as_millis() as u64),
            "memory": view.memory,
            "cpu_ms": link.and_then(|link| link.load.cpu()).map(|cpu| cpu.as_millis() as u64),
            "cpu_percent": link.and_then(|link| link.load.percent()),
        })
    }

    /// The pool at this moment, for people and programs.
    pub(crate) fn status(&mut self) -> Value {
        let [wait, run] = self.timings.summaries();
        let now = self.now();
        let snapshot = self.dispatch.snapshot(now);
        let workers: Vec<Value> =
            snapshot.workers.iter().map(|view| self.worker_status(view, now)).collect();
        let counters = &snapshot.counters;
        let failed: serde_json::Map<String, Value> = remuda_dispatch::Code::ALL
            .iter()
            .map(|code| (code.as_str().to_owned(), counters.failed(*code).into()))
            .filter(|(_, count)| *count != 0)
            .collect();
        let restarts: serde_json::Map<String, Value> = remuda_dispatch::RestartReason::ALL
            .iter()
            .map(|reason| (reason.as_str().to_owned(), counters.restarts(*reason).into()))
            .filter(|(_, count)| *count != 0)
            .collect();
        let phase = match snapshot.phase {
            Phase::Running => "running",
            Phase::Draining => "draining",
            Phase::Stopping => "stopping",
            Phase::Drained => "drained",
        };
        json!({
            "phase": phase,
            "ready": snapshot.ready() > 0 && snapshot.phase == Phase::Running,
            "pid": std::process::id(),
            "uptime_ms": now.as_millis() as u64,
            "backend": remuda_net::backend().map(remuda_net::Backend::name),
            "backend_reason": remuda_net::backend_reason(),
            "keeper": self.keeper.as_ref().map(|keeper| json!({
                "pid": keeper.guardian_pid(),
                "pid_namespace": keeper.is_namespaced(),
            })),
            "listeners": self.listeners.iter().map(|l| l.address.as_str()).collect::<Vec<_>>(),
            "connections": self.clients.len(),
            "queued": snapshot.queued,
            "oldest_wait_ms": snapshot.oldest_wait.map(|wait| wait.as_millis() as u64),
            "in_flight": snapshot.in_flight,
            "overloaded": snapshot.overloaded,
            "resetting": snapshot.resetting,
            "starts_failed": snapshot.starts_failed,
            "workers": workers,
            "jobs": {
                "accepted": counters.accepted,
                "done": counters.done,
                "failed": failed,
                "retried": counters.retried,
            },
            "wait_us": wait,
            "run_us": run,
            "events": self.history.incidents().map(incident_status).collect::<Vec<_>>(),
            "workers_started": counters.spawned,
            "threads_left_behind": self.threads.left_behind(),
            "restarts": restarts,
        })
    }
}

/// What the link to a peer does at `now`, and why.
fn link_state(link: &LinkState, now: Duration) -> Value {
    let millis = |time: Duration| time.as_millis() as u64;
    match link {
        LinkState::Connecting => json!({"state": "connecting"}),
        LinkState::Connected { since } => {
            json!({"state": "connected", "since_ms": millis(now.saturating_sub(*since))})
        }
        LinkState::Waiting { until, because } => json!({
            "state": "waiting",
            "due_ms": millis(until.saturating_sub(now)),
            "because": &**because,
        }),
        LinkState::Failed { because } => json!({"state": "failed", "because": &**because}),
        _ => Value::Null,
    }
}

/// How a worker ended, for people and programs.
fn incident_status(incident: &Incident) -> Value {
    json!({
        "worker": incident.worker,
        "slot": incident.slot,
        "at_ms": incident.at.as_millis() as u64,
        "what": incident.explain(),
        "killed": incident.killed.map(remuda_dispatch::KillReason::as_str),
        "was_ready": incident.was_ready,
        "reason": incident.reason.map(remuda_dispatch::RestartReason::as_str),
        "in_flight": incident.jobs,
        "job": incident.job.as_ref().map(|job| json!({
            "id": job.id.as_deref().map(id_value),
            "bytes": job.bytes,
            "ran_ms": job.ran.map(|ran| ran.as_millis() as u64),
            "text": job.to_string(),
        })),
    })
}

/// An id as it was written, as a value.
fn id_value(id: &str) -> Value {
    serde_json::from_str(id).unwrap_or_else(|_| id.into())
}
