//! What happened in a history, or in all of them.

use std::collections::BTreeMap;

use remuda_dispatch::*;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How often each kind of thing happened.
    pub counts: BTreeMap<String, u64>,
    /// A hash of all that the pool wanted done, in order, if it was kept.
    pub trace: u64,
}

impl Totals {
    pub fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    pub fn trace(&mut self, what: &str) {
        for byte in what.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn add(&mut self, other: &Totals) {
        for (what, count) in &other.counts {
            *self.counts.entry(what.clone()).or_default() += count;
        }
    }

    /// Each kind of thing that a history can have did happen.
    pub fn assert_eventful(&self) {
        let codes = [
            Code::QueueTimeout,
            Code::Timeout,
            Code::Cancelled,
            Code::WorkerLost,
            Code::Poisoned,
            Code::HandlerError,
            Code::Draining,
            Code::Internal,
        ];
        let refusals = ["QueueFull", "Draining", "Poisoned"].map(|why| format!("refused {why}"));
        let others = [
            "done",
            "batch",
            "handed ahead",
            "told to cancel",
            "gave up",
            "reset done",
            "reset failed",
            "link lost",
            "peer drained",
            "fault UnknownCall",
            "fault AnswerCount",
            "killed ExecTimeout",
            "killed AllocateTimeout",
            "killed DestroyTimeout",
            "overloaded",
        ];
        let restarts = RestartReason::ALL.map(|reason| format!("restart {}", reason.as_str()));
        let all = codes
            .map(|code| format!("failed {code}"))
            .into_iter()
            .chain(refusals)
            .chain(others.map(String::from))
            .chain(restarts);
        for what in all {
            assert!(self.counts.contains_key(&what), "no history had: {what}");
        }
    }
}
