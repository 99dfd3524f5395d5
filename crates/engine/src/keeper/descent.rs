//! Who descends from the keeper, and which worker each belongs to, as `/proc` tells.
//!
//! `/proc` is the one of the keeper's own PID namespace, so its numbers are those that the keeper
//! can signal.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::LazyLock;

/// One line of `/proc/PID/stat`, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// Clock ticks since boot; with `pid` it names a process for good.
    pub(crate) started: u64,
    /// No thread of it runs any more; its parent has yet to reap it.
    pub(crate) ended: bool,
}

impl Process {
    pub(crate) fn read(pid: i32) -> Option<Self> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(pid, &stat)
    }

    fn parse(pid: i32, stat: &[u8]) -> Option<Self> {
        // The second field is the name in parentheses, which may hold anything, parentheses too.
        let name_end = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(stat.get(name_end + 2..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // proc(5) counts from 1, and `rest` begins with field 3.
        let field = |number: usize| fields.get(number - 3).copied();
        let state = field(3)?;
        let threads: u64 = field(20)?.parse().ok()?;
        Some(Self {
            pid,
            parent: field(4)?.parse().ok()?,
            group: field(5)?.parse().ok()?,
            started: field(22)?.parse().ok()?,
            // A main thread that ended before the others looks like a zombie, and isn't one.
            ended: matches!(state, "Z" | "X" | "x") && threads <= 1,
        })
    }
}

/// The children of a process, zombies included.
///
/// For the caller's own process, if it has one thread, the list is exact: only the caller can take
/// a child out of it, by reaping, so a child that was there before the call is in the list.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    /// A kernel may be built without these lists.
    static LISTED: LazyLock<bool> =
        LazyLock::new(|| Path::new("/proc/thread-self/children").exists());
    if !*LISTED {
        return children_by_search(pid);
    }
    // Each thread has the children that it forked.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut children = Vec::new();
    for thread in threads {
        // A thread or process that has ended meanwhile has given its children away.
        let list = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    children
}

fn children_by_search(pid: i32) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|child| Process::read(*child).is_some_and(|process| process.parent == pid))
        .collect()
}

/// All that descend from a process, parents first.
pub(crate) fn descendants(pid: i32) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    let mut known = HashSet::from([pid]);
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for child in children(parent) {
            // A number may turn up twice in lists that were not read at one moment.
            if known.insert(child)
                && let Some(process) = Process::read(child)
            {
                found.push(process);
                parents.push(child);
            }
        }
    }
    found
}

/// The workers that processes may belong to, by what identifies each.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// By the worker's process number, which is its group's, too. True until it is reaped.
    pub(crate) roots: HashMap<i32, (u64, bool)>,
    /// By the value that [`MARK`] has in the worker's environment.
    pub(crate) marks: HashMap<Vec<u8>, u64>,
}

/// The variable by which a worker's offspring is known after it left its family.
pub(crate) const MARK: &str = "REMUDA_KEEPER_MARK";

/// Whom a process belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The worker of this id.
    Worker(u64),
    /// None of those that are known.
    Nobody,
    /// It has no environment to tell by: it ends or has ended, is between two programs, or was
    /// started without one.
    Unknown,
}

impl Roster {
    /// Whose a process is that has no parent to tell: a worker, or an orphan.
    pub(crate) fn owner(&self, process: &Process) -> Owner {
        if let Some((id, true)) = self.roots.get(&process.pid) {
            return Owner::Worker(*id);
        }
        if let Some((id, unreaped)) = self.roots.get(&process.group) {
            // A group's number stays taken as long as it has members. If the worker was reaped and
            // another process has its number, the group is that one's.
            if *unreaped || Process::read(process.group).is_none() {
                return Owner::Worker(*id);
            }
        }
        match std::fs::read(format!("/proc/{}/environ", process.pid)) {
            Ok(environment) if environment.is_empty() => Owner::Unknown,
            Ok(environment) => self.marked(&environment).map_or(Owner::Nobody, Owner::Worker),
            // Another user's, which can't be signalled either.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Owner::Nobody,
            // It is ending, and has no memory any more.
            Err(_) => Owner::Unknown,
        }
    }

    fn marked(&self, environment: &[u8]) -> Option<u64> {
        environment.split(|byte| *byte == 0).find_map(|variable| {
            let value = variable.strip_prefix(MARK.as_bytes())?.strip_prefix(b"=")?;
            self.marks.get(value).copied()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let stat = b"7 (a) Z 1 (b) S 5 6 4 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 3 0 991 10 20\n";
        let expected = Process { pid: 7, parent: 5, group: 6, started: 991, ended: false };
        assert_eq!(Process::parse(7, stat), Some(expected));
    }

    #[test]
    fn a_zombie_has_ended_only_when_no_thread_is_left() {
        let stat = |threads| format!("7 (x) Z 5 6 4 0 -1 0 1 0 0 0 0 0 0 0 20 0 {threads} 0 9 0\n");
        assert!(Process::parse(7, stat(1).as_bytes()).unwrap().ended);
        assert!(!Process::parse(7, stat(2).as_bytes()).unwrap().ended);
    }

    #[test]
    fn garbage_is_no_process() {
        for stat in [&b""[..], b"7 (x)", b"7 (x) S 1", b"7 (x) S a b c", b"\xff) \xff"] {
            assert_eq!(Process::parse(7, stat), None);
        }
    }

    fn roster(roots: &[(i32, (u64, bool))]) -> Roster {
        let marks = HashMap::from([(b"run:1".to_vec(), 1)]);
        Roster { roots: roots.iter().copied().collect(), marks }
    }

    #[test]
    fn belonging_goes_by_number_then_group_then_mark() {
        // Numbers that no process can have, so that no environment is found.
        let base = 1 << 28;
        let child = |pid, group| Process { pid, parent: 1, group, started: 0, ended: false };
        let roster = roster(&[(base + 1, (1, true)), (base + 2, (2, false))]);
        assert_eq!(roster.owner(&child(base + 1, base + 1)), Owner::Worker(1));
        assert_eq!(roster.owner(&child(base + 9, base + 1)), Owner::Worker(1));
        assert_eq!(roster.owner(&child(base + 9, base + 2)), Owner::Worker(2));
        assert_eq!(roster.owner(&child(base + 9, base + 9)), Owner::Unknown);
        assert_eq!(roster.marked(b"A=1\0REMUDA_KEEPER_MARK=run:1\0B=2\0"), Some(1));
        assert_eq!(roster.marked(b"REMUDA_KEEPER_MARK=other:1\0"), None);
        assert_eq!(roster.marked(b"REMUDA_KEEPER_MARKS=run:1\0=\0\0"), None);
    }

    #[test]
    fn a_reaped_workers_number_that_was_given_again_claims_nobody() {
        let own = std::process::id().cast_signed();
        let process = Process { group: own, ..Process::read(own).unwrap() };
        assert_eq!(roster(&[(own, (1, true))]).owner(&process), Owner::Worker(1));
        assert_eq!(roster(&[(own, (1, false))]).owner(&process), Owner::Nobody);
    }

    #[test]
    fn both_ways_to_list_children_agree() {
        let own = std::process::id().cast_signed();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id().cast_signed();
        assert!(children(own).contains(&pid));
        assert!(children_by_search(own).contains(&pid));
        assert!(descendants(own).iter().any(|process| process.pid == pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children(own).contains(&pid));
    }
}
