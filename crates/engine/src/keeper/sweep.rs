//! Killing: of what belongs to some workers, and of all that descends from this process.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    self, Pid, PidfdFlags, WaitOptions, getpid, kill_process_group, pidfd_open, pidfd_send_signal,
    wait,
};

use super::descent::{Process, Roster, Snapshot};
use super::signals::Signals;

/// The pause before looking again doubles from the first to the last of these.
pub(crate) const PAUSE_FIRST: Duration = Duration::from_millis(1);
pub(crate) const PAUSE_LAST: Duration = Duration::from_millis(64);

/// So many looks in a row must find nobody but those who may not be signalled, or find nobody
/// while strangers come and go, before that counts as nobody.
const LOOKS_ENOUGH: u32 = 3;

/// What a look over the processes found of one worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Still there, and signalled.
    pub(crate) signalled: usize,
    /// Still there, and not ours to signal.
    pub(crate) refused: usize,
}

/// Decides from look to look whether a worker's offspring is gone.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    doubtful: u32,
}

impl Verdict {
    /// True if nobody is left whom killing would help.
    pub(crate) fn is_clear(&mut self, found: Found, vanished: bool) -> bool {
        if found.signalled > 0 {
            self.doubtful = 0;
            return false;
        }
        if found.refused == 0 && !vanished {
            return true;
        }
        self.doubtful += 1;
        self.doubtful >= LOOKS_ENOUGH
    }
}

/// Sends a signal to all that belongs to the workers `ids`, and counts by worker. True as second
/// part if a process vanished between being listed and being looked at.
pub(crate) fn signal_trees(
    roster: &Roster,
    ids: &HashSet<u64>,
    signal: process::Signal,
) -> (HashMap<u64, Found>, bool) {
    let keeper = getpid().as_raw_pid();
    let snapshot = Snapshot::take();
    let mut found: HashMap<u64, Found> = HashMap::new();
    let mut groups = HashSet::new();
    for (process, owner) in roster.owners(&snapshot, keeper) {
        let Some(owner) = owner.filter(|owner| ids.contains(owner)) else {
            continue;
        };
        if signal == process::Signal::KILL
            && process.parent == keeper
            && is_of(roster, process.group, owner)
            && groups.insert(process.group)
        {
            // All of a group at once: not even a chain of forks gets through. The keeper alone
            // can reap this process, so its group's number can't become another's meanwhile.
            kill_group(process.group);
        }
        if !process.ended {
            let count = found.entry(owner).or_default();
            match signal_one(&process, signal) {
                Sent::Yes => count.signalled += 1,
                Sent::NotPermitted => count.refused += 1,
                Sent::Gone => {}
            }
        }
    }
    (found, snapshot.vanished)
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
        Snapshot::take().descend(own, (), |process, ()| {
            if process.parent == own && process.group != process::getpgrp().as_raw_pid() {
                kill_group(process.group);
            }
            match signal_one(process, process::Signal::KILL) {
                Sent::Yes if !process.ended => found.signalled += 1,
                Sent::NotPermitted => found.refused += 1,
                Sent::Yes | Sent::Gone => {}
            }
        });
        // Children are there, so finding nobody at all only means that they vanished meanwhile.
        if found.refused > 0 && verdict.is_clear(found, false) {
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
    fn a_verdict_needs_certainty_or_three_looks() {
        let nobody = Found::default();
        let refused = Found { signalled: 0, refused: 1 };
        let alive = Found { signalled: 1, refused: 0 };
        assert!(Verdict::default().is_clear(nobody, false));
        let mut verdict = Verdict::default();
        let looks = [
            (nobody, true),
            (refused, false),
            (alive, false),
            (refused, false),
            (refused, false),
            (nobody, true),
        ];
        let clear = looks.map(|(found, vanished)| verdict.is_clear(found, vanished));
        assert_eq!(clear, [false, false, false, false, false, true]);
    }
}
