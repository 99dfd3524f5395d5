//! What the tests share: a watchdog, and a count of the threads that are alive.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Long enough for a machine that is ten times slower for a while.
const PATIENCE: Duration = Duration::from_secs(if cfg!(miri) { 1800 } else { 60 });

/// Runs a test in a thread of its own, and ends the process if it hangs: a test about deadlocks
/// must not wait for ever to say that there's one.
pub fn within_a_minute<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    within(PATIENCE, test)
}

/// As [`within_a_minute`], with another patience.
pub fn within<T: Send + 'static>(
    patience: Duration,
    test: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (ended, end) = mpsc::channel::<()>();
    let name = thread::current().name().unwrap_or("test").to_owned();
    let runner = thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            let _ended = ended;
            test()
        })
        .unwrap();
    if end.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
        eprintln!("{name} hangs");
        eprintln!("{}", stacks());
        std::process::abort();
    }
    runner.join().unwrap_or_else(|payload| resume_unwind(payload))
}

/// Where each thread of this process is: gdb's stacks if there's a gdb, the kernel's view if not.
fn stacks() -> String {
    let pid = std::process::id();
    let gdb = std::process::Command::new("gdb")
        .args(["-batch", "-ex", "thread apply all backtrace", "-p", &pid.to_string()])
        .output();
    if let Ok(output) = gdb
        && output.status.success()
    {
        return String::from_utf8_lossy(&output.stdout).into_owned();
    }
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return String::new() };
    let tasks = tasks.filter_map(Result::ok).map(|task| {
        let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let (name, place, call) = (read("comm"), read("wchan"), read("syscall"));
        format!("{}: {} in {place}, system call {call}", task.path().display(), name.trim())
    });
    tasks.collect()
}

/// Counts the threads that hold one of its tokens.
#[derive(Default)]
pub struct Alive(Arc<()>);

impl Alive {
    pub fn token(&self) -> Arc<()> {
        Arc::clone(&self.0)
    }

    pub fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}
