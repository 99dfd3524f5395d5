//! The connections and the driver together: what needs both.

use std::time::Instant;

use crate::conn::{Kind, Phase};
use crate::driver::{Driver, Until};
use crate::error::Result;
use crate::slots::Key;
use crate::state::{OnAccept, State};

/// For so many turns after one with several answers, a lone answer goes as those do.
const CROWDED_TURNS: u32 = 64;

pub(crate) struct Io {
    pub(crate) state: State,
    pub(crate) driver: Driver,
    /// Turns for which there are taken to be several answers at a time.
    crowded: u32,
}

/// Closes a connection. Returns the task that is to be dropped with it.
pub(crate) fn close(
    state: &mut State,
    driver: &mut Driver,
    key: Key,
    abandon: bool,
) -> Option<u64> {
    let connecting = state.conns.get(key)?.phase == Phase::Connecting;
    let task = state.begin_close(key)?;
    driver.close(state, key, abandon || connecting);
    if state.conns.get(key).is_some() {
        state.linger(key);
    }
    task
}

impl Io {
    pub(crate) fn new(state: State, driver: Driver) -> Self {
        Self { state, driver, crowded: 0 }
    }

    pub(crate) fn driver_wait(&mut self, until: Until) -> Result<()> {
        self.driver.wait(&mut self.state, until)
    }

    pub(crate) fn driver_has_work(&self) -> bool {
        self.driver.has_work()
    }

    /// Gives the kernel what this turn's tasks sent. `sleeps` tells that nobody looks for events
    /// before the thread sleeps.
    #[inline]
    pub(crate) fn flush_dirty(&mut self, sleeps: bool) {
        match self.state.dirty.len() {
            0 => return,
            // Where others are as busy, most turns have several answers.
            1 => self.crowded = self.crowded.saturating_sub(1),
            _ => self.crowded = CROWDED_TURNS,
        }
        let with_enter = self.crowded > 0 || sleeps && self.first_is_local();
        let mut at = 0;
        // Who was first is answered first.
        while let Some(&key) = self.state.dirty.get(at) {
            at += 1;
            if !with_enter || !self.driver.send_with_enter(&mut self.state, key) {
                self.driver.flush(&mut self.state, key);
            }
        }
        self.state.dirty.clear();
    }

    /// Whether the first connection that has something to send is a Unix socket. One's exchange, one
    /// message at a time, saves a call where the thread sleeps next. TCP does so much within its
    /// send that a plain call is quicker there, and who looks for events needs no `enter` at all.
    fn first_is_local(&self) -> bool {
        let first = self.state.dirty.first();
        let conn = first.and_then(|key| self.state.conns.get(*key));
        conn.is_some_and(|conn| conn.kind == Kind::Unix)
    }

    /// What is due by the clock: connections that lingered long enough, listeners that rested.
    pub(crate) fn take_due(&mut self) {
        while let Some(key) = self.state.ended.pop() {
            self.driver.close(&mut self.state, key, false);
        }
        while let Some(key) = self.state.linger_over() {
            self.driver.close(&mut self.state, key, true);
        }
        if self.state.accept_again.is_some_and(|at| at <= self.state.clock.now()) {
            self.state.accept_again = None;
            for key in self.state.listeners.keys() {
                if self.state.listeners.get(key).is_some_and(|listener| listener.resting) {
                    self.driver.accept_again(&mut self.state, key);
                }
            }
        }
    }

    pub(crate) fn on_accept(&self, listener: Key) -> Option<(OnAccept, bool)> {
        let listener = self.state.listeners.get(listener).filter(|listener| !listener.closing)?;
        Some((OnAccept::clone(&listener.on_accept), listener.task_ends_with_conn))
    }

    /// What all listeners call. Held while listeners are closed, and dropped when nothing is
    /// borrowed: it may own what uses the runtime as it is dropped.
    pub(crate) fn handlers(&self) -> Vec<OnAccept> {
        let keys = self.state.listeners.keys().into_iter();
        keys.filter_map(|key| self.on_accept(key)).map(|(on_accept, _)| on_accept).collect()
    }

    pub(crate) fn close(&mut self, key: Key, abandon: bool) -> Option<u64> {
        close(&mut self.state, &mut self.driver, key, abandon)
    }

    /// Closes all connections and listeners; returns until when unsent bytes are tried.
    pub(crate) fn close_all(&mut self) -> Instant {
        for key in self.state.listeners.keys() {
            self.driver.unlisten(&mut self.state, key);
        }
        for key in self.state.watches.keys() {
            self.driver.unwatch(&mut self.state, key);
        }
        for key in self.state.conns.keys() {
            self.close(key, false);
        }
        self.state.accepted.clear();
        self.state.clock.now() + self.state.limits.linger
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.state.conns.len() == 0
    }

    pub(crate) fn abandon_all(&mut self) {
        for key in self.state.conns.keys() {
            self.driver.close(&mut self.state, key, true);
        }
    }
}
