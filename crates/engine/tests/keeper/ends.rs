//! Ends: of the pool, the keeper and the guardian, each killed with SIGKILL.

use std::os::fd::AsFd;

use remuda_engine::keeper::{Event, KeeperError, PidNamespace, Spawn};
use rustix::process::Signal;

use crate::kills::{CHAIN, CHAIN_OF_SESSIONS, ESCAPE};
use crate::pool::Pool;
use crate::support::{Herd, LONG, Talk, Test, children_of, kill, pidfd, program, python, sh, wait};

pub const TESTS: &[Test] = &[
    ("ends::a_killed_pool_takes_all_along", a_killed_pool_takes_all_along),
    ("ends::a_killed_pool_takes_chains_of_forks_along", a_killed_pool_takes_chains_along),
    ("ends::a_pool_that_returns_takes_all_along", a_pool_that_returns_takes_all_along),
    ("ends::stop_returns_when_all_are_gone", stop_returns_when_all_are_gone),
    ("ends::a_killed_keeper_is_told_and_takes_all_along", a_killed_keeper_takes_all_along),
    ("ends::a_killed_guardian_changes_nothing", a_killed_guardian_changes_nothing),
];

/// Escapees of every kind: the last two can't even be told from other workers' any more.
fn escapees() -> String {
    format!(
        "{ESCAPE}
import subprocess
subprocess.run(['sh', '-c', '(setsid sleep 1000 &); sleep 1000 &'])
subprocess.run(['env', '-i', 'PATH=' + os.environ['PATH'], 'python3', '-c', r'''{ESCAPE}'''])
subprocess.run(['env', '-i', 'setsid', '-f', 'sleep', '1000'])
os.write(1, b'all\\n')
time.sleep(1000)
"
    )
}

/// Waits until the escapees have escaped; in which order is theirs to decide.
fn all_are_out(talk: &mut Talk) {
    let mut lines = [0; 3].map(|_| talk.line());
    lines.sort();
    assert_eq!(lines, ["all", "away", "away"]);
}

fn a_killed_pool_takes_all_along(mode: PidNamespace) {
    let mut pool = Pool::start(mode, &["python3", "-c", &escapees()]);
    all_are_out(&mut pool.talk);
    let guardian = pidfd(pool.guardian);
    let keeper = pidfd(children_of(pool.guardian)[0]);
    pool.process.kill().unwrap();
    assert_eq!(pool.talk.rest(), "");
    assert!(wait(keeper.as_fd(), LONG));
    assert!(wait(guardian.as_fd(), LONG));
}

fn a_killed_pool_takes_chains_along(mode: PidNamespace) {
    for chain in [CHAIN, CHAIN_OF_SESSIONS] {
        let script = format!("{chain}\nimport time; time.sleep(1000)");
        let mut pool = Pool::start(mode, &["python3", "-c", &script]);
        assert_eq!(pool.talk.line(), "away");
        let guardian = pidfd(pool.guardian);
        pool.process.kill().unwrap();
        assert_eq!(pool.talk.rest(), "");
        assert!(wait(guardian.as_fd(), LONG));
    }
}

fn a_pool_that_returns_takes_all_along(mode: PidNamespace) {
    let mut herd = Herd::start(mode);
    let mut talk = herd.spawn_talking(1, python(&escapees()));
    all_are_out(&mut talk);
    drop(herd);
    assert_eq!(talk.rest(), "");
}

fn stop_returns_when_all_are_gone(mode: PidNamespace) {
    let mut herd = Herd::start(mode);
    let mut talk = herd.spawn_talking(1, sh("echo here; trap '' TERM; sleep 1000"));
    assert_eq!(talk.line(), "here");
    let (_pid, worker) = herd.started(1);
    herd.keeper.stop().unwrap();
    assert!(wait(worker.as_fd(), std::time::Duration::ZERO));
}

fn a_killed_keeper_takes_all_along(mode: PidNamespace) {
    let mut herd = Herd::start(mode);
    let mut talk = herd.spawn_talking(1, python(&escapees()));
    all_are_out(&mut talk);
    herd.started(1);
    kill(herd.keeper_pid(), Signal::KILL);
    assert!(matches!(herd.next(), Event::Lost));
    assert_eq!(herd.keeper.events().unwrap().count(), 0);
    let error = herd.keeper.spawn(2, program("true", &[])).unwrap_err();
    assert!(matches!(error, KeeperError::Unreachable { .. }));
    assert_eq!(talk.rest(), "");
    herd.keeper.stop().unwrap();
}

fn a_killed_guardian_changes_nothing(mode: PidNamespace) {
    let mut herd = Herd::start(mode);
    let mut talk = herd.spawn_talking(1, python(&escapees()));
    all_are_out(&mut talk);
    herd.started(1);
    kill(herd.keeper.guardian_pid(), Signal::KILL);
    herd.spawn(2, Spawn::new("true"));
    herd.started(2);
    herd.keeper.stop().unwrap();
    assert_eq!(talk.rest(), "");
}
