//! What the kernel tells of a process, and what a process asks for itself.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Processor time of a process, user and system, of all its threads, io_uring's among them: the
/// scheduler's account of it, in nanoseconds where `/proc/PID/stat` has hundredths of a second.
/// It is exact while the threads sleep.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let account = fs::read_to_string(task?.path().join("schedstat"))?;
        let ran = account.split_whitespace().next().and_then(|ran| ran.parse().ok());
        total += Duration::from_nanos(ran.ok_or(io::ErrorKind::InvalidData)?);
    }
    Ok(total)
}

/// Memory of a process that is in use, in bytes.
pub fn resident(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    Ok(kib.ok_or(io::ErrorKind::InvalidData)? * 1024)
}

/// Keeps the process on one core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    Ok(sched_setaffinity(None, &only)?)
}

/// Has the kernel kill this process when the one that started it ends.
pub fn end_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Raises the limit of open files as far as it may be.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // A row that needs more says so itself.
    let _ = setrlimit(Resource::Nofile, raised);
}
