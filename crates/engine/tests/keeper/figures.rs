//! Figures: how long a start takes, and what the keeper weighs. Run with `--ignored`.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use remuda_engine::keeper::{PidNamespace, Spawn};

use crate::pool::Pool;
use crate::support::{Herd, may_namespace, program};

pub fn trials() -> Vec<Trial> {
    let measured = |mode: PidNamespace| {
        Trial::test(format!("figures::start_and_memory::{mode:?}"), move || {
            if mode == PidNamespace::Never || may_namespace() {
                measure(mode);
                measure_end(mode);
            }
            Ok(())
        })
        .with_ignored_flag(true)
    };
    vec![measured(PidNamespace::Require), measured(PidNamespace::Never)]
}

/// From the pool's death to that of its last descendant: eight workers, each with an escapee.
fn measure_end(mode: PidNamespace) {
    let escapes = "(setsid sleep 1000 &); sleep 1000 & sleep 1000";
    let workers =
        format!("for n in 1 2 3 4 5 6 7 8; do setsid sh -c '{escapes}' & done; echo all; wait");
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            let mut pool = Pool::start(mode, &["sh", "-c", &workers]);
            pool.talk.line();
            let begin = Instant::now();
            pool.process.kill().unwrap();
            pool.talk.rest();
            begin.elapsed()
        })
        .collect();
    println!("{mode:?}: pool killed to all gone {}", spread(&mut times));
}

fn measure(mode: PidNamespace) {
    let begin = Instant::now();
    let mut herd = Herd::start(mode);
    println!("{mode:?}: keeper serves after {:?}", begin.elapsed());
    let (mut to_start, mut to_clear) = (Vec::new(), Vec::new());
    for _ in 0..500 {
        let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let spawn = Spawn { socket: Some(theirs.into()), ..program("/bin/true", &[]) };
        let begin = Instant::now();
        herd.spawn(1, spawn);
        herd.started(1);
        to_start.push(begin.elapsed());
        herd.exited(1);
        herd.cleared(1);
        to_clear.push(begin.elapsed());
    }
    println!("{mode:?}: to Started {}", spread(&mut to_start));
    println!("{mode:?}: to Cleared {}", spread(&mut to_clear));
    for (name, pid) in [("guardian", herd.keeper.guardian_pid()), ("keeper", herd.keeper_pid())] {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name| status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        println!("{mode:?}: {name} {} {}", field("VmRSS"), field("RssAnon"));
    }
}

fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    format!("p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100))
}
