//! A pool in a process of its own, for tests that kill it or put it into odd surroundings.

use std::io::{self, PipeReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use remuda_engine::keeper::{Keeper, KeeperCommand, KeeperOptions, PidNamespace, Spawn};
use rustix::event::{PollFd, PollFlags, poll};

use crate::support::Talk;

pub const ARGUMENT: &str = "__pool";

/// `__pool MODE PROGRAM ARGS...`: a pool with one worker, which shares its stdout. It says on
/// stdout what became of its start, and ends with its stdin.
pub fn main() -> ExitCode {
    let mut args = std::env::args().skip(2);
    let mut options = KeeperOptions::default();
    options.pid_namespace = match args.next().unwrap().as_str() {
        "Require" => PidNamespace::Require,
        "Never" => PidNamespace::Never,
        _ => PidNamespace::Auto,
    };
    let mut keeper = match Keeper::start(KeeperCommand::default(), options) {
        Ok(keeper) => keeper,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{} {}", keeper.guardian_pid(), keeper.is_namespaced());
    let mut spawn = Spawn::new(args.next().unwrap());
    spawn.args = args.map(Into::into).collect();
    spawn.stdout = Some(io::stdout().as_fd().try_clone_to_owned().unwrap());
    keeper.spawn(1, spawn).unwrap();
    let stdin = io::stdin();
    loop {
        let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&keeper, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        if !fds[0].revents().is_empty() {
            return ExitCode::SUCCESS;
        }
        keeper.events().unwrap().for_each(drop);
    }
}

/// A pool that runs, as the test sees it.
pub struct Pool {
    pub process: Child,
    pub talk: Talk,
    pub guardian: u32,
    pub namespaced: bool,
    _stdin: ChildStdin,
}

/// Starts a pool by `wrapper`, a command that runs the one given by its arguments; its first line.
pub fn run(mut wrapper: Command, mode: PidNamespace, worker: &[&str]) -> (Child, Talk, String) {
    let (reader, writer): (PipeReader, _) = io::pipe().unwrap();
    let process = wrapper
        .arg(ARGUMENT)
        .arg(format!("{mode:?}"))
        .args(worker)
        .stdin(Stdio::piped())
        .stdout(writer)
        .spawn()
        .unwrap();
    drop(wrapper);
    let mut talk = Talk::from(reader);
    let line = talk.line();
    (process, talk, line)
}

impl Pool {
    pub fn start(mode: PidNamespace, worker: &[&str]) -> Self {
        Self::start_by(Command::new("/proc/self/exe"), mode, worker)
    }

    pub fn start_by(wrapper: Command, mode: PidNamespace, worker: &[&str]) -> Self {
        let (mut process, talk, line) = run(wrapper, mode, worker);
        let (guardian, namespaced) = line.split_once(' ').expect(&line);
        Self {
            _stdin: process.stdin.take().unwrap(),
            process,
            talk,
            guardian: guardian.parse().unwrap(),
            namespaced: namespaced.parse().unwrap(),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = io::stdout().flush();
    }
}
