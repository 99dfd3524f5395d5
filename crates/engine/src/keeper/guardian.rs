//! The guardian: the process that the pool starts, which starts the keeper and outlives it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, wait};

use super::frame::Outbox;
use super::serve;
use super::signals::Signals;
use super::sweep;
use super::wire::Report;

/// The keeper's side. Never returns before the pool, and all workers, are gone.
///
/// The binary calls this first thing, before it starts a thread or opens a file, if its first
/// argument is [`ARGUMENT`](super::ARGUMENT), and ends with the result. The socket is its stdin.
pub fn main() -> ExitCode {
    close_inherited();
    // Takes number 3 for good: none of the keeper's own descriptors, nor one that the standard
    // library opens for a start, may be where a worker's socket is placed.
    let placeholder = File::open("/dev/null");
    match run() {
        Ok(()) => {
            drop(placeholder);
            ExitCode::SUCCESS
        }
        Err(reason) => {
            refuse(reason);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let signals = Signals::install().map_err(|error| format!("signal handlers: {error}"))?;
    if let Err(error) = std::fs::read("/proc/self/stat") {
        return Err(match error.kind() {
            io::ErrorKind::NotFound => "there is no /proc to find processes in: mount it".into(),
            _ => format!("can't read /proc: {error}"),
        });
    }
    let last = std::env::args().next_back().unwrap_or_default();
    match last.as_str() {
        "--pid-namespace=auto" => guard(&signals, enter_namespace().is_ok()),
        "--pid-namespace=never" => guard(&signals, false),
        "--pid-namespace=require" => {
            enter_namespace().map_err(|errno| {
                format!(
                    "no PID namespace ({errno}): run as root or with CAP_SYS_ADMIN, or don't \
                     require one"
                )
            })?;
            guard(&signals, true)
        }
        "--serve=namespace" => serve::run(&signals, true),
        "--serve=plain" => serve::run(&signals, false),
        _ => Err("it is started by a pool, not by hand".to_owned()),
    }
}

/// Starts the keeper, waits for its end, and kills what it left, if it was killed.
fn guard(signals: &Signals, namespaced: bool) -> Result<(), String> {
    let failed = |error: io::Error| {
        format!(
            "could not start the keeper proper: {error}; if too many processes run, raise their \
             limit (`ulimit -u`, or pids.max of the container)"
        )
    };
    set_child_subreaper(Some(getpid())).map_err(|errno| failed(errno.into()))?;
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    arguments.pop();
    let socket = own_socket()?;
    let theirs = socket.try_clone().map_err(failed)?;
    let keeper = Command::new("/proc/self/exe")
        .arg0("remuda-keeper")
        .args(arguments)
        .arg(if namespaced { "--serve=namespace" } else { "--serve=plain" })
        .stdin(theirs)
        .spawn()
        .map_err(|error| {
            // There the pool is told why.
            let _ = rustix::stdio::dup2_stdin(&socket);
            failed(error)
        })?;
    // The keeper's end of it is to be the only one.
    drop(socket);
    let keeper = Pid::from_raw(keeper.id().cast_signed());
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if Some(pid) == keeper => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    sweep::kill_all(signals);
    Ok(())
}

/// Makes a PID namespace for the children, and a mount namespace in which they can have a `/proc`
/// of theirs.
fn enter_namespace() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    // Mounts made outside stay visible inside, but not the other way round.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    // A security module may permit namespaces and deny mounts: see that before it is too late to
    // go without. This one shows the same as the one that it covers.
    mount_proc()?;
    unshare(CloneFlags::CLONE_NEWPID)
}

/// Covers `/proc` with one of the caller's PID namespace.
pub(super) fn mount_proc() -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let none: Option<&str> = None;
    mount(Some("proc"), "/proc", Some("proc"), flags, none)
}

/// Closes what the pool's own parent left open: workers must not inherit it.
fn close_inherited() {
    let Ok(listing) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers: Vec<i32> = listing
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in numbers {
        // Nothing of this process's own is open yet. The listing's own descriptor is closed
        // already: that error, the only one, is expected.
        let _ = nix::unistd::close(number);
    }
}

/// Takes the socket off stdin, and leaves /dev/null there.
pub(super) fn own_socket() -> Result<OwnedFd, String> {
    let failed = |error: io::Error| format!("could not arrange its descriptors: {error}");
    let socket = rustix::stdio::stdin().try_clone_to_owned().map_err(failed)?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(failed)?;
    rustix::stdio::dup2_stdin(&null).map_err(|errno| failed(errno.into()))?;
    Ok(socket)
}

/// Tells the pool, or whoever started this by hand, why there will be no keeper.
fn refuse(reason: String) {
    // `eprintln` would panic if nobody listens any more.
    let _ = writeln!(io::stderr(), "remuda keeper: {reason}");
    let mut outbox = Outbox::default();
    outbox.push(Report::Refused { reason }.into_frame());
    // Whoever isn't there to hear it has seen the line above.
    let _ = outbox.flush(rustix::stdio::stdin().as_fd());
}
