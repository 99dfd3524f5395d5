//! Kills: what belongs to a worker goes with it, and nothing else does.

use std::collections::HashSet;

use remuda_engine::keeper::{Event, PidNamespace, Scope, Signal, Spawn, Status};

use crate::support::{Herd, Test, children_of, make_fifo, program, python, sh};

pub const TESTS: &[Test] = &[
    ("kills::a_replaced_worker_takes_its_escapees_along", a_replaced_worker_takes_all_along),
    ("kills::a_worker_that_exits_leaves_nothing_behind", a_worker_that_exits_leaves_nothing),
    ("kills::a_chain_of_forks_is_caught", a_chain_of_forks_is_caught),
    ("kills::a_chain_of_forks_and_sessions_is_caught", a_chain_of_sessions_is_caught),
    ("kills::each_of_a_tree_is_asked_once_to_end", each_of_a_tree_is_asked_once_to_end),
    ("kills::a_signal_to_the_process_spares_its_children", a_signal_to_the_process_alone),
    ("kills::a_stopped_worker_can_be_killed", a_stopped_worker_can_be_killed),
    ("kills::two_hundred_quick_workers_leave_no_trace", two_hundred_quick_workers_leave_no_trace),
];

/// Forks twice, with a session of its own in between: the parent chain is cut. Says "away".
pub const ESCAPE: &str = "
import os, sys, time
def escape():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while os.getppid() == os.getsid(0): time.sleep(0.001)
            os.write(1, b'away\\n')
            time.sleep(1000)
        os._exit(0)
    os.wait()
escape()
";

/// Every process of the chain forks the next and ends at once. The worker goes on when it runs.
pub const CHAIN: &str = "
import os
runs, told = os.pipe()
if os.fork() == 0:
    os.setsid()
    os.write(1, b'away\\n')
    os.write(told, b'.')
    while True:
        if os.fork(): os._exit(0)
os.read(runs, 1)
";

/// The same, each in a session of its own, so that no signal to a group reaches two of them.
pub const CHAIN_OF_SESSIONS: &str = "
import os
runs, told = os.pipe()
if os.fork() == 0:
    os.write(1, b'away\\n')
    os.write(told, b'.')
    while True:
        if os.fork(): os._exit(0)
        os.setsid()
os.read(runs, 1)
";

fn a_replaced_worker_takes_all_along(mode: PidNamespace) {
    let mut herd = Herd::start(mode);
    let stay = format!("{ESCAPE}\ntime.sleep(1000)");
    let mut replaced = herd.spawn_talking(1, python(&stay));
    let mut spared = herd.spawn_talking(2, python(&stay));
    let (_pid, _pidfd) = herd.started(1);
    let (_pid, _pidfd) = herd.started(2);
    assert_eq!((replaced.line(), spared.line()), ("away".into(), "away".into()));

    herd.keeper.signal(1, Signal::Kill, Scope::Tree).unwrap();
    assert_eq!(herd.exited(1), Status::Signal(9));
    herd.cleared(1);
    assert_eq!(replaced.rest(), "");
    assert!(spared.is_held());
    // Two of the other worker's are left: itself and its escapee.
    assert_eq!(children_of(herd.keeper_pid()).len(), 2);
    herd.keeper.stop().unwrap();
    assert_eq!(spared.rest(), "");
}

fn a_worker_that_exits_leaves_nothing(mode: PidNamespace) {
    let mut herd = Herd::start(mode);
    // One escapee by Python, one by the shell, one in the background of the worker's own group.
    let script = r#"python3 -c "$0"; (setsid sleep 1000 &); sleep 1000 & exit 3"#;
    let mut spawn = sh(script);
    spawn.args.push(ESCAPE.into());
    let mut talk = herd.spawn_talking(1, spawn);
    herd.started(1);
    assert_eq!(talk.line(), "away");
    assert_eq!(herd.exited(1), Status::Code(3));
    herd.cleared(1);
    assert_eq!(talk.rest(), "");
    assert_eq!(children_of(herd.keeper_pid()), Vec::<u32>::new());
}

fn a_chain_of_forks_is_caught(mode: PidNamespace) {
    chain_is_caught(mode, CHAIN);
}

fn a_chain_of_sessions_is_caught(mode: PidNamespace) {
    chain_is_caught(mode, CHAIN_OF_SESSIONS);
}

fn chain_is_caught(mode: PidNamespace, chain: &str) {
    let mut herd = Herd::start(mode);
    // Left behind by a worker that exits, then by one that is killed.
    let mut talk = herd.spawn_talking(1, python(chain));
    herd.started(1);
    assert_eq!(talk.line(), "away");
    assert_eq!(herd.exited(1), Status::Code(0));
    herd.cleared(1);
    assert_eq!(talk.rest(), "");

    let mut talk =
        herd.spawn_talking(1, python(&format!("{chain}\nimport time; time.sleep(1000)")));
    herd.started(1);
    assert_eq!(talk.line(), "away");
    herd.keeper.signal(1, Signal::Kill, Scope::Tree).unwrap();
    assert_eq!(herd.exited(1), Status::Signal(9));
    herd.cleared(1);
    assert_eq!(talk.rest(), "");
}

fn each_of_a_tree_is_asked_once_to_end(mode: PidNamespace) {
    let mut herd = Herd::start(mode);
    let script = "
import os, signal, sys
asked = 0
def ask(*_):
    global asked
    asked += 1
signal.signal(signal.SIGTERM, ask)
child = os.fork()
if child == 0: os.setsid()
os.write(1, b'ready\\n')
while not asked: signal.pause()
if child: os.wait()
# A second signal would have come by now, since both are sent in one go.
os.write(1, b'asked %d\\n' % asked)
os._exit(asked)
";
    let mut talk = herd.spawn_talking(1, python(script));
    herd.started(1);
    assert_eq!((talk.line(), talk.line()), ("ready".into(), "ready".into()));
    herd.keeper.signal(1, Signal::Terminate, Scope::Tree).unwrap();
    assert_eq!((talk.line(), talk.line()), ("asked 1".into(), "asked 1".into()));
    assert_eq!(herd.exited(1), Status::Code(1));
}

fn a_signal_to_the_process_alone(mode: PidNamespace) {
    let mut herd = Herd::start(mode);
    let script = "trap 'echo parent; exit 0' INT; \
        sh -c 'trap \"echo child\" INT; echo ready; while :; do read x; done' < \"$0\" & \
        while :; do wait; done";
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    // A child that waits for input that never comes.
    make_fifo(&fifo);
    let _held = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let mut spawn = sh(script);
    spawn.args.push(fifo.into());
    let mut talk = herd.spawn_talking(1, spawn);
    herd.started(1);
    assert_eq!(talk.line(), "ready");
    herd.keeper.signal(1, Signal::Interrupt, Scope::Process).unwrap();
    assert_eq!(talk.line(), "parent");
    assert_eq!(herd.exited(1), Status::Code(0));
    herd.cleared(1);
    assert_eq!(talk.rest(), "");
    // Nobody of that name: nothing happens.
    herd.keeper.signal(1, Signal::Kill, Scope::Process).unwrap();
    herd.keeper.signal(9, Signal::Kill, Scope::Tree).unwrap();
    herd.spawn(1, program("true", &[]));
    herd.started(1);
}

fn a_stopped_worker_can_be_killed(mode: PidNamespace) {
    let mut herd = Herd::start(mode);
    let mut talk = herd.spawn_talking(1, sh("echo here; kill -STOP $$"));
    herd.started(1);
    assert_eq!(talk.line(), "here");
    herd.keeper.signal(1, Signal::Kill, Scope::Tree).unwrap();
    assert_eq!(herd.exited(1), Status::Signal(9));
    herd.cleared(1);
}

fn two_hundred_quick_workers_leave_no_trace(mode: PidNamespace) {
    const WORKERS: u64 = 200;
    let mut herd = Herd::start(mode);
    let keeper = herd.keeper_pid();
    let descriptors = || std::fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().count();
    let before = descriptors();
    for id in 0..WORKERS {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        herd.spawn(id, Spawn { socket: Some(ours.into()), ..program("true", &[]) });
    }
    let mut open: HashSet<u64> = (0..WORKERS).collect();
    let mut seen: Vec<Vec<&str>> = vec![Vec::new(); WORKERS as usize];
    while !open.is_empty() {
        match herd.next() {
            Event::Started { id, .. } => seen[id as usize].push("started"),
            Event::Exited { id, status } => {
                assert_eq!(status, Status::Code(0));
                seen[id as usize].push("exited");
            }
            Event::Cleared { id } => {
                seen[id as usize].push("cleared");
                assert!(open.remove(&id));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(seen.iter().all(|events| *events == ["started", "exited", "cleared"]));
    assert_eq!(children_of(keeper), Vec::<u32>::new());
    assert_eq!(descriptors(), before);
}
