//! One link: what its callers and the task that keeps it share.

mod keep;
mod slots;
mod traffic;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use remuda_protocol::encode::{self, CallFields};
use remuda_protocol::{Id, Offer};
use remuda_reconnect::{LinkState, Watch};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::ConnectError;
use crate::remaining::millis_until;
use crate::stream::Direct;
use slots::{Key, Slots};

pub(crate) use keep::Keeper;
pub(crate) use slots::Outcome;

/// What a caller asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request<'a> {
    Call { body: &'a [u8], deadline: Option<Instant> },
    Status,
    Reset,
    Shutdown,
}

/// Why a request wasn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The link is down.
    Away,
    /// The deadline has passed.
    TooLate,
}

/// One link to one peer, which comes and goes.
#[derive(Debug)]
pub(crate) struct Link {
    label: Arc<str>,
    line: Mutex<Line>,
    /// Told when there is something to write.
    to_write: Notify,
    /// One for each request that may be under way. Taken by a caller, given back when the answer
    /// comes: a caller that is slow to take its answer holds up no other.
    permits: Semaphore,
    permits_max: usize,
    is_up: AtomicBool,
    capacity: AtomicU32,
    /// Told when this link, or another of the same client, comes up or fails.
    changes: Arc<Notify>,
    watch: Watch<LinkState>,
}

#[derive(Debug, Default)]
struct Line {
    slots: Slots,
    /// Requests that nobody has written yet.
    out: Vec<u8>,
    /// The writer has bytes in its hands that come before those in `out`.
    is_writing: bool,
    /// How many bytes this connection's stream has with what is in `out`, and how many of them
    /// were handed to the socket.
    enqueued: u64,
    written: u64,
    offer: Option<Arc<Offer>>,
    direct: Option<Direct>,
    last_error: Option<ConnectError>,
    is_over: bool,
}

impl Link {
    pub(crate) fn new(
        label: &str,
        requests_max: usize,
        changes: Arc<Notify>,
        watch: Watch<LinkState>,
    ) -> Link {
        Link {
            label: label.into(),
            line: Mutex::default(),
            to_write: Notify::new(),
            permits: Semaphore::new(requests_max),
            permits_max: requests_max,
            is_up: AtomicBool::new(false),
            capacity: AtomicU32::new(1),
            changes,
            watch,
        }
    }

    /// What the lock guards is whole whenever it is released, so a panic elsewhere spoils nothing.
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn label(&self) -> &Arc<str> {
        &self.label
    }

    pub(crate) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    pub(crate) fn watch(&self) -> Watch<LinkState> {
        self.watch.clone()
    }

    pub(crate) fn offer(&self) -> Option<Arc<Offer>> {
        self.lock().offer.clone()
    }

    /// The requests under way, those that nobody waits for any more included.
    pub(crate) fn in_flight(&self) -> usize {
        self.permits_max - self.permits.available_permits()
    }

    /// How many jobs the peer runs at once.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Why the last attempt failed, or the link broke.
    pub(crate) fn last_error(&self) -> Option<ConnectError> {
        self.lock().last_error.clone()
    }

    /// Why no further attempt is made.
    pub(crate) fn over(&self) -> Option<ConnectError> {
        let line = self.lock();
        if line.is_over { line.last_error.clone() } else { None }
    }

    /// Waits for room for a request. First come, first served; cancel safe.
    pub(crate) async fn permit(&self) -> Result<SemaphorePermit<'_>, Refused> {
        // It is never closed.
        self.permits.acquire().await.map_err(|_| Refused::Away)
    }

    /// Hands a request to the link, if it is up.
    pub(crate) fn submit(
        &self,
        request: Request<'_>,
        permit: SemaphorePermit<'_>,
    ) -> Result<Ticket<'_>, Refused> {
        let mut line = self.lock();
        if line.offer.is_none() {
            return Err(Refused::Away);
        }
        let fields = match request {
            Request::Call { deadline: Some(deadline), .. } => {
                let left = millis_until(deadline).ok_or(Refused::TooLate)?;
                CallFields { timeout_ms: Some(left), hops: 0 }
            }
            _ => CallFields::default(),
        };
        let is_first = line.out.is_empty();
        let key = line.slots.take().ok_or(Refused::Away)?;
        line.write(key, request, &fields);
        permit.forget();
        if is_first {
            self.send(&mut line);
        }
        Ok(Ticket {
            link: self,
            key,
            is_call: matches!(request, Request::Call { .. }),
            done: false,
        })
    }

    /// Sees to it that `out`, which was empty, is written.
    fn send(&self, line: &mut Line) {
        // Alone on the link, it goes out at once, which spares a switch to the link's task. With
        // others under way it waits for that task, and travels together with what comes meanwhile.
        if line.slots.used() == 1 && !line.is_writing && line.write_directly() {
            return;
        }
        self.to_write.notify_one();
    }

    fn abandon(&self, key: Key, is_call: bool) {
        let mut line = self.lock();
        let unanswered = line.slots.abandon(key);
        let takes_cancel = line.offer.as_ref().is_some_and(|offer| offer.takes_cancel());
        let tell = unanswered && is_call && takes_cancel;
        if tell {
            let is_first = line.out.is_empty();
            let before = line.out.len();
            encode::cancel(&mut line.out, Id::Number(key.id()));
            line.enqueued += (line.out.len() - before) as u64;
            if is_first {
                self.to_write.notify_one();
            }
        }
    }

    fn poll(&self, key: Key, waker: &Waker) -> Poll<Outcome> {
        self.lock().slots.poll(key, waker)
    }

    /// The handshake is done: calls may go.
    fn up(&self, offer: Offer, direct: Option<Direct>) {
        let mut line = self.lock();
        self.capacity.store(offer.capacity.max(1), Ordering::Relaxed);
        line.offer = Some(Arc::new(offer));
        line.direct = direct;
        line.last_error = None;
        drop(line);
        self.is_up.store(true, Ordering::Release);
        self.changes.notify_waiters();
    }

    /// The link broke: all that is under way ends here.
    fn down(&self, because: &Arc<str>, error: ConnectError) {
        self.is_up.store(false, Ordering::Release);
        let mut wakers = Vec::new();
        let mut line = self.lock();
        line.offer = None;
        line.direct = None;
        line.last_error = Some(error);
        line.out = Vec::new();
        line.is_writing = false;
        let written = std::mem::take(&mut line.written);
        line.enqueued = 0;
        let ended = line.slots.lose_all(written, because, &mut wakers);
        drop(line);
        self.permits.add_permits(ended);
        wakers.into_iter().for_each(Waker::wake);
        self.changes.notify_waiters();
    }

    /// An attempt failed; another one follows unless `is_over`.
    fn failed(&self, error: ConnectError, is_over: bool) {
        let mut line = self.lock();
        line.last_error = Some(error);
        line.is_over |= is_over;
        drop(line);
        self.changes.notify_waiters();
    }
}

impl Line {
    /// Appends the request to `out`, and notes where it ends.
    fn write(&mut self, key: Key, request: Request<'_>, fields: &CallFields) {
        let before = self.out.len();
        let id = Some(Id::Number(key.id()));
        match request {
            Request::Call { body, .. } => encode::call(&mut self.out, id, body, fields),
            Request::Status => encode::status(&mut self.out, id),
            Request::Reset => encode::reset(&mut self.out, id),
            Request::Shutdown => encode::shutdown(&mut self.out, id),
        }
        self.enqueued += (self.out.len() - before) as u64;
        self.slots.ends_at(key, self.enqueued);
    }

    /// Writes what the socket takes at once; `true` if that was all. An error is left for the
    /// writer, which will meet it too.
    fn write_directly(&mut self) -> bool {
        let Some(Ok(written)) = self.direct.as_ref().map(|direct| direct.try_write(&self.out))
        else {
            return false;
        };
        self.written += written as u64;
        self.out.drain(..written);
        self.out.is_empty()
    }
}

/// A request under way: a future of its outcome. Dropped before, it is cancelled.
#[derive(Debug)]
pub(crate) struct Ticket<'l> {
    link: &'l Link,
    key: Key,
    is_call: bool,
    done: bool,
}

impl Future for Ticket<'_> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let polled = self.link.poll(self.key, context.waker());
        self.done |= polled.is_ready();
        polled
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.link.abandon(self.key, self.is_call);
        }
    }
}
