//! Who descends from the keeper, and which worker each belongs to, as `/proc` tells.
//!
//! `/proc` is the one of the keeper's own PID namespace, so its numbers are those that the keeper
//! can signal.

use std::collections::HashMap;

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

/// All processes at about one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    processes: HashMap<i32, Process>,
    /// A process that was listed had ended when it was looked at: it may have forked before.
    pub(crate) vanished: bool,
}

impl Snapshot {
    pub(crate) fn take() -> Self {
        let mut snapshot = Self::default();
        // The listing goes by rising numbers, and new processes get higher ones, so what is forked
        // meanwhile is mostly seen; `vanished` tells of the rest.
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match Process::read(pid) {
                Some(process) => drop(snapshot.processes.insert(pid, process)),
                None => snapshot.vanished = true,
            }
        }
        snapshot
    }

    pub(crate) fn contains(&self, pid: i32) -> bool {
        self.processes.contains_key(&pid)
    }

    /// Calls `visit` for all descendants of `root`, parents first, with what `visit` returned for
    /// the parent; for children of `root` that is `seed`.
    pub(crate) fn descend<T: Copy>(
        &self,
        root: i32,
        seed: T,
        mut visit: impl FnMut(&Process, T) -> T,
    ) {
        let mut children: HashMap<i32, Vec<&Process>> = HashMap::new();
        for process in self.processes.values() {
            children.entry(process.parent).or_default().push(process);
        }
        let mut rest = vec![(root, seed)];
        while let Some((parent, passed)) = rest.pop() {
            // Taken out, so that a loop, which a listing over time may show, can't go on for ever.
            for process in children.remove(&parent).unwrap_or_default() {
                rest.push((process.pid, visit(process, passed)));
            }
        }
    }
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

impl Roster {
    /// All descendants of the keeper, each with the worker that it belongs to.
    pub(crate) fn owners(&self, snapshot: &Snapshot, keeper: i32) -> Vec<(Process, Option<u64>)> {
        let mut owned = Vec::new();
        snapshot.descend(keeper, None, |process, parents| {
            let owner = parents.or_else(|| self.owner(snapshot, process));
            owned.push((process.clone(), owner));
            owner
        });
        owned
    }

    /// Whose a process is that has no parent to tell.
    fn owner(&self, snapshot: &Snapshot, process: &Process) -> Option<u64> {
        if let Some((id, true)) = self.roots.get(&process.pid) {
            return Some(*id);
        }
        if let Some((id, unreaped)) = self.roots.get(&process.group) {
            // A group's number stays taken as long as it has members. If the worker was reaped and
            // another process has its number, the group is that one's.
            if *unreaped || !snapshot.contains(process.group) {
                return Some(*id);
            }
        }
        self.marked(process.pid)
    }

    fn marked(&self, pid: i32) -> Option<u64> {
        // Not readable: another user's, which can't be signalled either; or ended.
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
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

    fn process(pid: i32, parent: i32, group: i32) -> (i32, Process) {
        (pid, Process { pid, parent, group, started: 0, ended: false })
    }

    #[test]
    fn belonging_goes_by_parents_then_by_group() {
        // Numbers that no process can have, so that no environment is found.
        let base = 1 << 28;
        let (keeper, one, two) = (base, base + 1, base + 2);
        let snapshot = Snapshot {
            processes: HashMap::from([
                process(one, keeper, one),
                process(base + 10, one, base + 10),
                process(base + 11, base + 10, two),
                process(base + 12, keeper, two),
                process(base + 13, base + 12, base + 13),
                process(base + 14, keeper, base + 14),
                process(base + 15, 1, one),
            ]),
            vanished: false,
        };
        let roster = Roster {
            roots: HashMap::from([(one, (1, true)), (two, (2, false))]),
            marks: HashMap::new(),
        };
        let mut owned: Vec<(i32, Option<u64>)> = roster
            .owners(&snapshot, keeper)
            .into_iter()
            .map(|(process, owner)| (process.pid - base, owner))
            .collect();
        owned.sort_unstable();
        let expected =
            [(1, Some(1)), (10, Some(1)), (11, Some(1)), (12, Some(2)), (13, Some(2)), (14, None)];
        assert_eq!(owned, expected);
    }

    #[test]
    fn a_reaped_workers_number_that_was_given_again_claims_nobody() {
        let base = 1 << 28;
        let (keeper, reused) = (base, base + 1);
        let snapshot = Snapshot {
            processes: HashMap::from([
                process(reused, keeper, reused),
                process(base + 2, keeper, reused),
            ]),
            vanished: false,
        };
        let roster = Roster { roots: HashMap::from([(reused, (1, false))]), marks: HashMap::new() };
        assert!(roster.owners(&snapshot, keeper).iter().all(|(_, owner)| owner.is_none()));
    }
}
