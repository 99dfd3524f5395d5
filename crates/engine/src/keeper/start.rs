//! Starting one worker, and telling why it could not be.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use rustix::io::Errno;

use super::WORKER_FD;
use super::descent::MARK;
use super::error::{StartError, StartFailure};
use super::message::Spawn;

/// Where the C library looks for programs if there is no `PATH`.
const PATH_DEFAULT: &str = "/bin:/usr/bin";

/// A first line longer than this is not read by the kernel either.
const FIRST_LINE_BYTES: u64 = 256;

/// Starts the worker; its process number. The child is the caller's to reap.
pub(crate) fn start(id: u64, mark: &str, mut spawn: Spawn) -> Result<u32, StartError> {
    let mut command = Command::new(&spawn.program);
    command.args(&spawn.args).process_group(0);
    // A pool that is itself a worker has these of its own, and they don't mean its workers.
    command.env("REMUDA_WORKER_ID", id.to_string()).env_remove("REMUDA_FD");
    for (name, value) in &spawn.env {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env(MARK, mark);
    if let Some(cwd) = &spawn.cwd {
        command.current_dir(cwd);
    }
    // The keeper's own stdin is /dev/null, its stdout and stderr are the pool's stderr.
    command.stdin(stdio(spawn.stdin.take()));
    command.stdout(stdio(spawn.stdout.take()));
    command.stderr(stdio(spawn.stderr.take()));
    if let Some(parent_fd) = spawn.socket.take() {
        command.env("REMUDA_FD", WORKER_FD.to_string());
        // One mapping can't collide with another.
        let _ = command.fd_mappings(vec![FdMapping { parent_fd, child_fd: WORKER_FD }]);
    }
    match command.spawn() {
        Ok(child) => Ok(child.id()),
        Err(error) => Err(explain(&spawn, &error)),
    }
}

fn stdio(fd: Option<OwnedFd>) -> Stdio {
    fd.map_or_else(Stdio::inherit, Stdio::from)
}

fn explain(spawn: &Spawn, error: &io::Error) -> StartError {
    let errno = error.raw_os_error().unwrap_or(0);
    let kind = match Errno::from_io_error(error) {
        None => StartFailure::BadRequest(error.to_string()),
        Some(Errno::TOOBIG) => StartFailure::TooLarge,
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => {
            StartFailure::NoResources
        }
        Some(
            errno @ (Errno::NOENT
            | Errno::NOTDIR
            | Errno::ACCESS
            | Errno::PERM
            | Errno::LOOP
            | Errno::NOEXEC
            | Errno::ISDIR
            | Errno::LIBBAD),
        ) => of_path(spawn, errno),
        Some(_) => StartFailure::Other,
    };
    StartError { program: spawn.program.clone(), kind, errno }
}

/// What is wrong with the paths. The system's number alone doesn't say which path it means: the
/// program's, its interpreter's or the working directory's.
fn of_path(spawn: &Spawn, errno: Errno) -> StartFailure {
    if let Some(cwd) = spawn.cwd.as_ref().filter(|cwd| std::fs::read_dir(cwd).is_err()) {
        // A directory may be enterable and not readable; then the program is to blame.
        let enterable = cwd.join(".").metadata().is_ok_and(|data| data.is_dir());
        if !enterable {
            return StartFailure::BadDirectory(cwd.clone());
        }
    }
    let Some(path) = find(spawn) else {
        return StartFailure::NotFound;
    };
    if path.is_dir() {
        return StartFailure::IsDirectory;
    }
    if !is_executable(&path) {
        return StartFailure::NotExecutable;
    }
    match (interpreter(&path), errno) {
        (Some(interpreter), _) => StartFailure::BadInterpreter(interpreter),
        // The file is there, and yet something isn't: it can only be the loader that it names.
        (None, Errno::NOENT | Errno::LIBBAD) => {
            StartFailure::BadInterpreter("the loader of another system's programs".into())
        }
        (None, Errno::ACCESS | Errno::PERM) => StartFailure::NotExecutable,
        (None, _) => StartFailure::Other,
    }
}

/// The file that the program's name means, executable if there is one.
fn find(spawn: &Spawn) -> Option<PathBuf> {
    let program = Path::new(&spawn.program);
    let base = spawn.cwd.clone().unwrap_or_default();
    if program.as_os_str().as_bytes().contains(&b'/') {
        return Some(base.join(program)).filter(|path| path.exists());
    }
    let changed = spawn.env.iter().rev().find(|(name, _)| name == "PATH");
    let path = match changed {
        Some((_, value)) => value.clone(),
        None => std::env::var_os("PATH"),
    };
    let path = path.unwrap_or_else(|| PATH_DEFAULT.into());
    let found: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|directory| base.join(directory).join(program))
        .filter(|path| path.exists() && !program.as_os_str().is_empty())
        .collect();
    let runnable = found.iter().find(|path| path.is_file() && is_executable(path));
    runnable.or(found.first()).cloned()
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.permissions().mode() & 0o111 != 0)
}

/// What the file's first line names after `#!`.
fn interpreter(path: &Path) -> Option<OsString> {
    let mut start = Vec::new();
    File::open(path).ok()?.take(FIRST_LINE_BYTES).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let name = line.trim_ascii().split(u8::is_ascii_whitespace).next()?;
    Some(OsString::from_vec(OsStr::from_bytes(name).as_bytes().to_vec()))
}
