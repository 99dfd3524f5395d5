//! Killing: of what belongs to some workers, and of all that descends from this process.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    self, Pid, PidfdFlags, WaitOptions, getpid, kill_process_group, pidfd_open, pidfd_send_signal,
    wait,
};

use super::descent::{Owner, Process, Roster, children, descendants};
use super::signals::Signals;

/// The pause before looking again doubles from the first to the last of these.
pub(crate) const PAUSE_FIRST: Duration = Duration::from_millis(1);
pub(crate) const PAUSE_LAST: Duration = Duration::from_millis(64);

/// For so long nobody may be found but those who may not be signalled, or of whom it can't be told
/// whose they are, before that counts as nobody: time enough for a process that is between two
/// programs to show its environment, on a machine that is busy.
const DOUBT_AT_MOST: Duration = Duration::from_millis(250);

/// A look follows a chain of forks for so many steps at most.
const STEPS_AT_MOST: u32 = 256;

/// What a look over the processes found of one worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Signalled just now, or ended since orphans were reaped last: it may have forked meanwhile.
    pub(crate) signalled: usize,
    /// Not ours to signal.
    pub(crate) refused: usize,
}

/// Decides from look to look whether a worker's offspring is gone.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    doubtful_since: Option<Instant>,
}

impl Verdict {
    /// True if nobody is left whom killing would help.
    pub(crate) fn is_clear(&mut self, found: Found, unknown: bool, now: Instant) -> bool {
        if found.signalled > 0 {
            self.doubtful_since = None;
            return false;
        }
        if found.refused == 0 && !unknown {
            return true;
        }
        let since = *self.doubtful_since.get_or_insert(now);
        now.duration_since(since) >= DOUBT_AT_MOST
    }
}

/// A process, named for good: its number, and when it started.
pub(crate) type Name = (i32, u64);

/// What a look over the processes found.
#[derive(Debug, Default)]
pub(crate) struct Look {
    pub(crate) found: HashMap<u64, Found>,
    /// Of these it can't be told whose they are.
    pub(crate) unknown: HashSet<Name>,
    /// A chain of forks was followed for as long as a look may take.
    pub(crate) outrun: bool,
}

/// Sends a signal to all that belongs to the workers `ids`, and counts by worker.
///
/// Nobody gets away: as long as anybody of a worker lives, one of its line is a child of the
/// keeper, which got it as worker or as orphan; and that one stays in the list of the keeper's
/// children, alive or not, until the keeper reaps it, which it doesn't while it looks. Of one that
/// has ended there is no environment to tell whose it was; but its children have been given to the
/// keeper by then, so the list is read again until it brings no new ones.
pub(crate) fn signal_trees(roster: &Roster, ids: &HashSet<u64>, signal: process::Signal) -> Look {
    let keeper = getpid().as_raw_pid();
    let mut look = Look::default();
    let mut seen = HashSet::new();
    for _ in 0..STEPS_AT_MOST {
        let mut arrived = children(keeper);
        arrived.retain(|pid| seen.insert(*pid));
        if arrived.is_empty() {
            return look;
        }
        while let Some(pid) = arrived.pop() {
            let Some(top) = Process::read(pid) else {
                continue;
            };
            match roster.owner(&top) {
                Owner::Worker(id) if ids.contains(&id) => {
                    // The keeper alone can reap its children, so the number of their group can't
                    // become another's meanwhile.
                    let whole_group = top.parent == keeper && is_of(roster, top.group, id);
                    // Listed before they are signalled: afterwards they may be orphans, whose
                    // belonging is harder to tell.
                    let below = descendants(pid);
                    // Nor must an orphan be signalled twice.
                    seen.extend(below.iter().map(|process| process.pid));
                    if whole_group && signal == process::Signal::KILL {
                        // All at once: not even a chain of forks gets through.
                        kill_group(top.group);
                    }
                    signal_tree(&top, &below, signal, look.found.entry(id).or_default());
                }
                Owner::Worker(_) => {}
                owner => {
                    // Its children may tell more than it does, above all while it is ending.
                    arrived.extend(children(pid).into_iter().filter(|pid| seen.insert(*pid)));
                    if owner == Owner::Unknown
                        && Process::read(pid).is_some_and(|again| !again.ended)
                    {
                        look.unknown.insert((pid, top.started));
                    }
                }
            }
        }
    }
    look.outrun = true;
    look
}

/// Signals a process and its descendants, one by one.
fn signal_tree(top: &Process, below: &[Process], signal: process::Signal, found: &mut Found) {
    match signal_one(top, signal) {
        Sent::NotPermitted => found.refused += 1,
        // Also if it has ended: it may have forked since it was looked at.
        Sent::Yes | Sent::Gone => found.signalled += 1,
    }
    for process in below.iter().filter(|process| !process.ended) {
        match signal_one(process, signal) {
            Sent::Yes => found.signalled += 1,
            Sent::NotPermitted => found.refused += 1,
            Sent::Gone => {}
        }
    }
}

/// Whether a process in this group is a reason to signal the whole group for the worker's sake.
fn is_of(roster: &Roster, group: i32, owner: u64) -> bool {
    match roster.roots.get(&group) {
        Some((root, _)) => *root == owner,
        // The keeper is in a group of its own, which no descendant can join from outside its
        // session; groups of other sessions hold descendants of the session's maker.
        None => group != process::getpgrp().as_raw_pid(),
    }
}

fn kill_group(group: i32) {
    // To kill group 1 would be `kill(-1, ...)`, which means every process there is.
    if let Some(group) = Pid::from_raw(group).filter(|_| group > 1) {
        // Whom this misses is found one by one.
        let _ = kill_process_group(group, process::Signal::KILL);
    }
}

enum Sent {
    Yes,
    NotPermitted,
    Gone,
}

/// Signals exactly the process that was looked at, or nobody.
fn signal_one(process: &Process, signal: process::Signal) -> Sent {
    let Some(pid) = Pid::from_raw(process.pid) else {
        return Sent::Gone;
    };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Sent::Gone;
    };
    // The number may have become another's before the pidfd was made; it can't after.
    if Process::read(process.pid).is_none_or(|again| again.started != process.started) {
        return Sent::Gone;
    }
    match pidfd_send_signal(&pidfd, signal) {
        Ok(()) => Sent::Yes,
        Err(Errno::PERM) => Sent::NotPermitted,
        Err(_) => Sent::Gone,
    }
}

/// Kills all descendants of this process, and returns when none is left, those excepted that may
/// not be signalled.
pub(crate) fn kill_all(signals: &Signals) {
    let own = getpid().as_raw_pid();
    let mut verdict = Verdict::default();
    let mut pause = PAUSE_FIRST;
    loop {
        signals.drain();
        if !reap_all() {
            // No child, so no descendant: the orphans of all were given to this process.
            return;
        }
        let mut found = Found::default();
        for top in children(own).into_iter().filter_map(Process::read) {
            let below = descendants(top.pid);
            if top.group != process::getpgrp().as_raw_pid() {
                kill_group(top.group);
            }
            for process in std::iter::once(&top).chain(&below) {
                match signal_one(process, process::Signal::KILL) {
                    Sent::NotPermitted => found.refused += 1,
                    Sent::Yes if !process.ended => found.signalled += 1,
                    Sent::Yes | Sent::Gone => {}
                }
            }
        }
        // Finding only children that have ended means nothing: they are reaped in the next turn.
        if found.refused > 0 && verdict.is_clear(found, false, Instant::now()) {
            return;
        }
        signals.wait(pause);
        pause = (pause * 2).min(PAUSE_LAST);
    }
}

/// Reaps whoever has ended; false if there are no children at all.
fn reap_all() -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_certainty_or_time() {
        let nobody = Found::default();
        let refused = Found { signalled: 0, refused: 1 };
        let alive = Found { signalled: 1, refused: 0 };
        let begin = Instant::now();
        assert!(Verdict::default().is_clear(nobody, false, begin));
        let mut verdict = Verdict::default();
        let looks = [
            (nobody, true, 0),
            (refused, false, 200),
            (alive, false, 240),
            (refused, false, 300),
            (nobody, true, 549),
            (nobody, true, 550),
        ];
        let clear = looks.map(|(found, unknown, at)| {
            verdict.is_clear(found, unknown, begin + Duration::from_millis(at))
        });
        assert_eq!(clear, [false, false, false, false, false, true]);
    }
}
