//! The load: calls that are sent when they are due, and answers that are timed.
//!
//! All is on one thread. Once it runs, a call costs no allocation: a call's id is the place where
//! its due time is kept, and lines are written into one buffer a connection.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use remuda_net::{Either, Notifier};
use remuda_protocol::encode::{self, CallFields};
use remuda_protocol::{Answer, Id, LineScan, Reply};

use super::plan::{End, Measured, Pace, Plan};
use super::wire::Wire;
use crate::cli::number::grouped;
use crate::cli::say;

/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// The longest time that is told apart from longer ones, in nanoseconds: an hour.
const HIGHEST_NS: u64 = 3_600_000_000_000;
/// Digits of a time that are kept.
const DIGITS: u8 = 3;
/// The most bytes of an answer: 128 MiB.
const ANSWER_LIMIT: usize = 128 << 20;
const SIGINT: i32 = 2;

/// A connection and its calls.
struct Lane {
    wire: Wire,
    scan: LineScan,
    /// When the call with that id was due; nothing where none is in flight.
    due: Vec<Option<Instant>>,
    free: Vec<u32>,
    in_flight: u32,
    /// In the closed loop, so many are kept in flight.
    share: u32,
    out: Vec<u8>,
    lost: bool,
}

struct State {
    lanes: Vec<Lane>,
    in_flight: u32,
    /// Calls that were sent, in the warm-up too, and those of them that are measured.
    sent: u64,
    sent_measured: u64,
    start: Instant,
    measure_from: Instant,
    last_answer: Instant,
    /// Since then calls are in flight, and none was answered.
    quiet_since: Instant,
    stopped: bool,
    next_lane: usize,
    measured: Measured,
}

/// A load that runs.
pub(super) struct Load {
    state: Rc<RefCell<State>>,
    done: Notifier,
}

impl Load {
    /// Begins to call over these connections.
    pub(super) fn start(plan: Plan, wires: Vec<Wire>) -> Self {
        let mut lanes: Vec<Lane> = wires.into_iter().map(Lane::new).collect();
        let connections = lanes.len();
        if let Pace::Closed { in_flight } = plan.pace {
            for (place, lane) in lanes.iter_mut().enumerate() {
                let (each, rest) =
                    (in_flight as usize / connections, in_flight as usize % connections);
                lane.share = (each + usize::from(place < rest)) as u32;
            }
        }
        let start = Instant::now();
        let measure_from = start + plan.warmup;
        let (done, refused) = (times(), times());
        let measured = Measured {
            plan,
            connections,
            backend: remuda_net::backend().map_or("", remuda_net::Backend::name),
            elapsed: Duration::ZERO,
            done,
            refused,
            failed: BTreeMap::new(),
            first_failure: None,
            cut: None,
        };
        let state = Rc::new(RefCell::new(State {
            lanes,
            in_flight: 0,
            sent: 0,
            sent_measured: 0,
            start,
            measure_from,
            last_answer: measure_from,
            quiet_since: start,
            stopped: false,
            next_lane: 0,
            measured,
        }));
        let done = Notifier::new();
        for place in 0..connections {
            remuda_net::spawn(read(state.clone(), place, done.clone()));
        }
        Self { state, done }
    }

    /// Calls until the end, and gives what was measured.
    pub(super) async fn finish(self, shown: bool) -> Measured {
        if shown {
            remuda_net::spawn(show(self.state.clone()));
        }
        let interrupted = async {
            match remuda_net::signals(&[SIGINT]) {
                Ok(mut signals) => {
                    signals.recv().await;
                }
                Err(_) => std::future::pending().await,
            }
        };
        if let Either::Second(()) = remuda_net::select(self.send_all(), interrupted).await {
            self.state.borrow_mut().stopped = true;
        }
        // What was sent is still answered.
        self.state.borrow_mut().rest();
        while self.state.borrow().in_flight > 0 && !self.state.borrow().is_quiet(Instant::now()) {
            let until = self.state.borrow().quiet_until();
            let _ = remuda_net::select(remuda_net::sleep_until(until), self.done.notified()).await;
        }
        if shown {
            say::part("\r\x1b[K");
        }
        let state = &mut *self.state.borrow_mut();
        if state.in_flight > 0 {
            let unanswered = u64::from(state.in_flight);
            state.fail("unanswered", unanswered);
            let limit = state.quiet_limit();
            state.cut(format!(
                "the pool answered none of {unanswered} calls for {limit:?}: it is stopped or \
                 hangs; for calls that take longer, say so by --timeout"
            ));
        }
        let measured = &mut state.measured;
        measured.elapsed = state.last_answer.saturating_duration_since(state.measure_from);
        Measured {
            plan: measured.plan.clone(),
            connections: measured.connections,
            backend: measured.backend,
            elapsed: measured.elapsed,
            done: std::mem::replace(&mut measured.done, times()),
            refused: std::mem::replace(&mut measured.refused, times()),
            failed: std::mem::take(&mut measured.failed),
            first_failure: measured.first_failure.take(),
            cut: measured.cut.take(),
        }
    }

    /// Sends calls as they become due; those of the closed loop become so as answers are read.
    async fn send_all(&self) {
        loop {
            let next = {
                let state = &mut *self.state.borrow_mut();
                let now = Instant::now();
                for place in 0..state.lanes.len() {
                    state.refill(place, now);
                }
                state.send_due(now);
                state.flush();
                if state.is_over(now) {
                    return;
                }
                state.next_look(now)
            };
            // The end of the closed loop, or a place in the open one, is told by an answer.
            let _ = remuda_net::select(remuda_net::sleep_until(next), self.done.notified()).await;
        }
    }
}

/// Room for times, all of it at once.
fn times() -> Histogram<u64> {
    let histogram = Histogram::new_with_bounds(1, HIGHEST_NS, DIGITS);
    // These bounds are ones that a histogram can have.
    histogram.unwrap_or_else(|_| unreachable!("the bounds are constants"))
}

impl Lane {
    fn new(wire: Wire) -> Self {
        Self {
            wire,
            scan: LineScan::new(ANSWER_LIMIT),
            due: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            share: 0,
            out: Vec::new(),
            lost: false,
        }
    }

    /// Writes a call that was due then.
    fn call(&mut self, due: Instant, body: &[u8], fields: &CallFields) {
        let id = self.free.pop().unwrap_or_else(|| {
            self.due.push(None);
            (self.due.len() - 1) as u32
        });
        self.due[id as usize] = Some(due);
        self.in_flight += 1;
        encode::call(&mut self.out, Some(Id::Number(u64::from(id))), body, fields);
    }

    /// The call with that id was answered: when it was due, if there is one.
    fn answered(&mut self, id: Option<Id<'_>>) -> Option<Instant> {
        let Some(Id::Number(id)) = id else { return None };
        let due = self.due.get_mut(usize::try_from(id).ok()?)?.take()?;
        self.free.push(id as u32);
        self.in_flight -= 1;
        Some(due)
    }

    fn flush(&mut self) {
        if !self.out.is_empty() {
            self.wire.send(&self.out);
            self.out.clear();
        }
    }
}

impl State {
    fn fields(&self) -> CallFields {
        CallFields { timeout_ms: self.measured.plan.timeout_ms, hops: 0 }
    }

    /// Whether a call that is due then is to be sent.
    fn wants(&self, due: Instant) -> bool {
        if self.stopped {
            return false;
        }
        match self.measured.plan.end {
            End::Calls(calls) => self.sent_measured < calls,
            End::After(time) => due < self.measure_from + time,
        }
    }

    fn send(&mut self, place: usize, due: Instant) {
        let fields = self.fields();
        self.lanes[place].call(due, &self.measured.plan.body, &fields);
        if self.in_flight == 0 {
            self.quiet_since = self.quiet_since.max(due);
        }
        self.in_flight += 1;
        self.sent += 1;
        self.sent_measured += u64::from(due >= self.measure_from);
    }

    /// In the closed loop, sends what a connection's share allows.
    fn refill(&mut self, place: usize, now: Instant) {
        while !self.lanes[place].lost
            && self.lanes[place].in_flight < self.lanes[place].share
            && self.wants(now)
        {
            self.send(place, now);
        }
    }

    /// When the next call of the open loop is due; nothing in the closed loop.
    fn next_due(&self) -> Option<Instant> {
        let Pace::Open { rate } = self.measured.plan.pace else { return None };
        Some(self.start + Duration::from_secs_f64(self.sent as f64 / rate))
    }

    /// In the open loop, sends what is due.
    fn send_due(&mut self, now: Instant) {
        while let Some(due) = self.next_due()
            && due <= now
            && !self.is_full()
            && self.wants(due)
        {
            let Some(place) = self.open_lane() else { return };
            self.send(place, due);
        }
    }

    /// The connection whose turn it is.
    fn open_lane(&mut self) -> Option<usize> {
        for _ in 0..self.lanes.len() {
            let place = self.next_lane;
            self.next_lane = (place + 1) % self.lanes.len();
            if !self.lanes[place].lost {
                return Some(place);
            }
        }
        None
    }

    fn flush(&mut self) {
        self.lanes.iter_mut().for_each(Lane::flush);
    }

    /// No call will be sent any more.
    fn is_over(&self, now: Instant) -> bool {
        let due = self.next_due().unwrap_or(now);
        let waits = match self.measured.plan.end {
            End::Calls(_) => false,
            End::After(time) => now < self.measure_from + time,
        };
        !self.wants(due) || self.all_lost() || !waits && self.is_quiet(now)
    }

    /// In the open loop, so many calls are in flight that those that are due wait for a place.
    fn is_full(&self) -> bool {
        let open = matches!(self.measured.plan.pace, Pace::Open { .. });
        open && self.in_flight >= self.measured.plan.in_flight_max
    }

    fn all_lost(&self) -> bool {
        self.lanes.iter().all(|lane| lane.lost)
    }

    /// How long all calls may be without an answer.
    fn quiet_limit(&self) -> Duration {
        let timeout = self.measured.plan.timeout_ms.map_or(Duration::ZERO, Duration::from_millis);
        self.measured.plan.patience.saturating_add(timeout)
    }

    fn quiet_until(&self) -> Instant {
        self.quiet_since + self.quiet_limit()
    }

    /// From here on, answers alone are waited for.
    fn rest(&mut self) {
        let now = Instant::now();
        if !self.is_quiet(now) {
            self.quiet_since = now;
        }
    }

    /// There are calls in flight, and no answer comes.
    fn is_quiet(&self, now: Instant) -> bool {
        self.in_flight > 0 && now >= self.quiet_until()
    }

    /// When there may be something to do that no answer tells of.
    fn next_look(&self, now: Instant) -> Instant {
        match (self.next_due(), self.measured.plan.end) {
            (Some(due), _) if !self.is_full() => due,
            // Calls that wait for a place are sent after the end, too.
            (_, End::After(time)) if now < self.measure_from + time => self.measure_from + time,
            _ => now + PROGRESS_EVERY,
        }
    }

    /// Not all of the plan is done; what is told first counts.
    fn cut(&mut self, why: String) {
        self.measured.cut.get_or_insert(why);
    }

    fn fail(&mut self, code: &str, calls: u64) {
        if let Some(count) = self.measured.failed.get_mut(code) {
            *count += calls;
        } else if calls > 0 {
            self.measured.failed.insert(code.to_owned(), calls);
        }
    }

    /// Takes in the answers that are whole in `bytes`, and gives how far they reach; or why nothing
    /// that follows is an answer.
    fn read(&mut self, place: usize, bytes: &[u8], now: Instant) -> Result<usize, String> {
        let mut used = 0;
        loop {
            let line = match self.lanes[place].scan.next(&bytes[used..]) {
                Ok(Some(end)) => &bytes[used..used + end],
                Ok(None) => break,
                Err(_) => return Err(format!("it sent a line of more than {ANSWER_LIMIT} bytes")),
            };
            used += line.len() + 1;
            self.take_answer(place, line, now)?;
        }
        self.refill(place, now);
        self.send_due(now);
        self.flush();
        Ok(used)
    }

    fn take_answer(&mut self, place: usize, line: &[u8], now: Instant) -> Result<(), String> {
        let known = match Reply::parse(line) {
            Ok(Reply { id, answer }) => self.answered(place, id, now, |state, time| match answer {
                Answer::Result(_) => state.measured.done.saturating_record(time),
                Answer::Error(failure) => {
                    state.measured.refused.saturating_record(time);
                    state.fail(&failure.code_text.decode(), 1);
                    let first = &mut state.measured.first_failure;
                    first.get_or_insert_with(|| failure.error.decode().into_owned());
                }
                _ => state.fail("unreadable", 1),
            }),
            Err(bad) => {
                let id = bad.id.as_ref().map(remuda_protocol::IdBuf::as_id);
                self.answered(place, id, now, |state, _| state.fail("unreadable", 1))
            }
        };
        if known { Ok(()) } else { Err(format!("it answered no call by {}", shown(line))) }
    }

    /// A call was answered, if there is one with that id; one of the warm-up isn't measured.
    fn answered(
        &mut self,
        place: usize,
        id: Option<Id<'_>>,
        now: Instant,
        measure: impl FnOnce(&mut Self, u64),
    ) -> bool {
        let Some(due) = self.lanes[place].answered(id) else { return false };
        self.in_flight -= 1;
        self.quiet_since = now;
        if due >= self.measure_from {
            self.last_answer = now;
            measure(self, (now - due).as_nanos() as u64);
        }
        true
    }

    /// A connection has ended: its calls will not be answered.
    fn lose(&mut self, place: usize, why: Option<String>) {
        let calls = u64::from(self.lanes[place].in_flight);
        if let Some(why) = why {
            self.cut(format!("a connection was given up, for what is there is no pool: {why}"));
        } else if calls > 0 || !self.is_over(Instant::now()) {
            self.cut("the pool closed a connection before the load was over".into());
        }
        let lane = &mut self.lanes[place];
        lane.lost = true;
        let calls = std::mem::take(&mut lane.in_flight);
        self.in_flight -= calls;
        self.fail("connection_lost", u64::from(calls));
    }
}

/// How much of what a peer sent is shown.
const SHOWN_BYTES: usize = 40;

/// The beginning of a line that is no answer.
fn shown(line: &[u8]) -> String {
    let start = &line[..line.len().min(SHOWN_BYTES)];
    let more = if start.len() < line.len() { "..." } else { "" };
    format!("{:?}{more}", String::from_utf8_lossy(start))
}

/// Reads the answers of a connection.
async fn read(state: Rc<RefCell<State>>, place: usize, done: Notifier) {
    let wire = state.borrow().lanes[place].wire.clone();
    let mut wrong = None;
    let read = |bytes: &[u8]| {
        let state = &mut *state.borrow_mut();
        let now = Instant::now();
        let was_full = state.is_full();
        let used = state.read(place, bytes, now);
        if state.in_flight == 0 || was_full || state.is_over(now) {
            done.notify();
        }
        used.map_err(|why| wrong = Some(why)).ok()
    };
    wire.read(read).await;
    state.borrow_mut().lose(place, wrong);
    done.notify();
}

/// Shows how far it is.
async fn show(state: Rc<RefCell<State>>) {
    let mut last = (Instant::now(), 0);
    loop {
        remuda_net::sleep(PROGRESS_EVERY).await;
        let (now, state) = (Instant::now(), state.borrow());
        let answered = state.sent - u64::from(state.in_flight);
        let rate = (answered - last.1) as f64 / (now - last.0).as_secs_f64();
        let warming = if now < state.measure_from { ", warming up" } else { "" };
        let seconds = (now - state.start).as_secs();
        let (calls, rate) = (grouped(answered), grouped(rate as u64));
        say::part(format!("\r\x1b[K{seconds} s, {calls} calls, {rate}/s{warming}"));
        last = (now, answered);
    }
}
