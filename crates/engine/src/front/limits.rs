//! What clients may take of the pool's memory and time: lines that don't end, and answers that are
//! not read.

use std::time::Duration;

use remuda_protocol::Code;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::blocking::CONNECTIONS_LIMIT;
use crate::config::PoolConfig;
use crate::core::Core;
use crate::front::ClientKey;

/// How often clients are looked at that are too slow, unless their time limits are short.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The most bytes that may wait for one client to take them, or as many as two results of the
/// largest size have; it is cut then.
const UNSENT_LIMIT: usize = 256 << 20;
/// For all clients together, so many times that may wait; those for whom most waits are cut then.
const UNSENT_ALL: usize = 2;
/// Descriptors that a pool keeps for itself, and for each of its workers and peers: sockets, logs,
/// rings, and all of these twice while a worker is replaced.
const OWN_DESCRIPTORS: usize = 32;
const LINK_DESCRIPTORS: usize = 12;

/// How many descriptors the process may have.
#[must_use]
pub fn descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Lets the process have as many descriptors as it may give itself. Not before the pool was
/// started: what it starts gets the limit that was there, since programs that use `select` can't
/// deal with a higher one.
pub fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // It goes on with what it has.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// The most bytes that may wait for one client where bodies have these limits.
pub(super) fn unsent_limit(config: &PoolConfig) -> usize {
    UNSENT_LIMIT.max(config.max_body_bytes.saturating_mul(2))
}

/// How often clients are looked at with these limits.
pub(crate) fn watch_every(config: &PoolConfig) -> Duration {
    let shortest = config.line_timeout.min(config.write_timeout);
    WATCH_EVERY.min(shortest / 4).max(Duration::from_millis(1))
}

impl Core {
    /// Whether another client leaves workers and peers the descriptors that they need. A quarter of
    /// all is for clients in any case.
    pub(super) fn has_room_for_client(&self) -> bool {
        let limit = descriptor_limit().min(CONNECTIONS_LIMIT);
        let links = self.config.dispatch.num_workers as usize + self.peers.len();
        let kept = links.saturating_mul(LINK_DESCRIPTORS) + OWN_DESCRIPTORS + self.kept_descriptors;
        self.clients.descriptors() < limit.saturating_sub(kept).max(limit / 4)
    }

    /// Keeps account of lines that have no end yet. One that holds more than its share while all
    /// together hold too much is not read until there is room. `is_another` says that a line ended
    /// before this one began.
    pub(super) fn note_unfinished(&mut self, key: ClientKey, bytes: usize, is_another: bool) {
        let now = self.now();
        let clients = self.clients.len().max(1);
        let Some(client) = self.clients.of(key) else { return };
        self.unfinished = self.unfinished - client.unfinished + bytes;
        client.unfinished_since = match bytes {
            0 => None,
            _ if is_another => Some(now),
            _ => Some(client.unfinished_since.unwrap_or(now)),
        };
        client.unfinished = bytes;
        if is_another {
            if self.favoured == Some(key) {
                self.favoured = None;
            }
            // First the others: this one has had its turn.
            self.resume_paused();
        }
        let limit = self.config.max_unfinished_bytes;
        // One may always go on, or else all could wait for room that nobody makes.
        if self.unfinished > limit
            && bytes > limit / clients
            && *self.favoured.get_or_insert(key) != key
            && let Some(client) = self.clients.of(key).filter(|client| !client.paused)
        {
            client.paused = true;
            client.wire.pause_recv();
            self.paused += 1;
        }
    }

    /// Reads on from those that were paused, if there is room by now; or else from the one whose
    /// line has come farthest, if no other may go on.
    pub(super) fn resume_paused(&mut self) {
        let has_room = self.unfinished <= self.config.max_unfinished_bytes;
        if self.paused == 0 || !has_room && self.favoured.is_some() {
            return;
        }
        let now = self.now();
        let mut paused: Vec<_> =
            self.clients.iter_mut().filter(|(_, client)| client.paused).collect();
        if !has_room {
            paused.sort_unstable_by_key(|(_, client)| std::cmp::Reverse(client.unfinished));
            paused.truncate(1);
            self.favoured = paused.first().map(|(key, _)| *key);
        }
        self.paused -= paused.len();
        for (_, client) in paused {
            client.paused = false;
            // It was not the client that took its time.
            client.unfinished_since = (client.unfinished > 0).then_some(now);
            client.wire.resume_recv();
        }
    }

    /// Cuts clients that send a line too slowly, or don't take what is sent to them.
    pub(crate) fn watch_clients(&mut self) {
        let now = self.now();
        let (write_timeout, line_timeout) = (self.config.write_timeout, self.config.line_timeout);
        let mut slow = Vec::new();
        let mut unsent = Vec::new();
        for (key, client) in self.clients.iter_mut() {
            unsent.extend(Some((client.wire.unsent(), key)).filter(|(bytes, _)| *bytes > 0));
            if client.takes_nothing(now, write_timeout) {
                tracing::info!("a client that takes no answers was cut");
                client.wire.close();
            }
            let since =
                client.unfinished_since.filter(|_| !client.closing && !client.is_not_read());
            if since.is_some_and(|since| now - since > line_timeout) {
                slow.push(key);
            }
        }
        self.cut_slowest(unsent);
        for key in slow {
            let message = "the line took too long to arrive: send it as a whole";
            self.reply_error(key, None, Code::BadRequest, message);
            if let Some(client) = self.clients.of(key) {
                client.closing = true;
                client.wire.close();
            }
        }
    }

    /// Cuts those for whom most waits, while too much waits for all together. What a cut one had
    /// accepted is still tried for a moment.
    fn cut_slowest(&mut self, mut unsent: Vec<(usize, ClientKey)>) {
        let mut total: usize = unsent.iter().map(|(bytes, _)| bytes).sum();
        unsent.sort_unstable_by_key(|(bytes, _)| *bytes);
        let limit = unsent_limit(&self.config).saturating_mul(UNSENT_ALL);
        while total > limit
            && let Some((bytes, key)) = unsent.pop()
        {
            total -= bytes;
            if let Some(client) = self.clients.of(key) {
                tracing::info!("a client that reads too slowly was cut: too much waits for all");
                client.wire.close();
            }
        }
    }
}
