//! Opens the sockets of listeners: nobody's socket is taken over, and a stale file is replaced.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use remuda_protocol::Access;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

use crate::error::PoolError;

/// The permissions of a socket unless its address says otherwise.
const MODE_DEFAULT: u32 = 0o600;

/// How long a socket of a process that is dead may take to be released.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait between two looks at it.
const RELEASE_PAUSE: Duration = Duration::from_millis(5);

/// The file of a socket, removed when the listener ends.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Which file it was: another that took its place is left alone.
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            // One that is gone already needs no removing.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn failed(path: &Path, source: io::Error) -> PoolError {
    PoolError::Listen { address: format!("unix:{}", path.display()), source }
}

/// Opens a Unix socket, under a lock of its directory.
pub(crate) fn unix(path: &Path, access: &Access) -> Result<(UnixListener, SocketFile), PoolError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let lock = open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failed(path, errno.into()))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|errno| failed(path, errno.into()))?;
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => {
            is_stale(path)?;
            fs::remove_file(path).map_err(|error| failed(path, error))?;
        }
        Ok(_) => {
            let error = io::Error::other("a file that is no socket is there: choose another path");
            return Err(failed(path, error));
        }
        Err(_) => {}
    }
    // The file has no permissions for others from its first moment.
    let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(mask);
    let listener = bound.map_err(|error| failed(path, error))?;
    let inode = fs::symlink_metadata(path).map_err(|error| failed(path, error))?.ino();
    let file = SocketFile { path: path.to_owned(), inode };
    if let Some(gid) = group(path, access)? {
        std::os::unix::fs::chown(path, None, Some(gid)).map_err(|error| {
            let why = "this user may not give it to that group: name one that the user is in";
            failed(path, io::Error::other(format!("{why} ({error})")))
        })?;
    }
    // Whose processes may call is looked at in any case: a list of users opens the file to all.
    let mode = access.mode.unwrap_or(match &access.group {
        _ if !access.allow_uids.is_empty() => 0o666,
        Some(_) => 0o660,
        None => MODE_DEFAULT,
    });
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|error| failed(path, error))?;
    Ok((listener, file))
}

/// Looks whether nobody listens at a socket any more. A listener whose process is dead may live on
/// for a moment: the kernel takes an io_uring apart, and what it refers to, after the process was
/// reaped.
fn is_stale(path: &Path) -> Result<(), PoolError> {
    let since = Instant::now();
    loop {
        let holder = match UnixStream::connect(path) {
            Ok(holder) => holder,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(()),
            Err(error) => return Err(failed(path, error)),
        };
        let pid = rustix::net::sockopt::socket_peercred(&holder).map(|cred| cred.pid);
        let is_dead =
            pid.is_ok_and(|pid| rustix::process::test_kill_process(pid) == Err(Errno::SRCH));
        if !is_dead || since.elapsed() > RELEASE_PATIENCE {
            let address = format!("unix:{}", path.display());
            let pid = pid.map_or(0, |pid| pid.as_raw_nonzero().get());
            return Err(PoolError::InUse { address, pid });
        }
        std::thread::sleep(RELEASE_PAUSE);
    }
}

/// The group that a socket is to have.
pub(crate) fn group(path: &Path, access: &Access) -> Result<Option<u32>, PoolError> {
    let Some(group) = &access.group else { return Ok(None) };
    let missing = || io::Error::other(format!("there is no group `{group}`: make it, or name one"));
    group_number(group).map(Some).ok_or_else(|| failed(path, missing()))
}

/// The number of a group, by name or number.
fn group_number(group: &str) -> Option<u32> {
    if let Ok(number) = group.parse() {
        return Some(number);
    }
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == group).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// Where a `tcp:` or a `tls:` listener is to be opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) scheme: &'static str,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
}

impl Place<'_> {
    /// Opens its socket. One that others than this machine reach must be `guarded`.
    pub(crate) fn open(self, guarded: bool) -> Result<TcpListener, PoolError> {
        let addresses = self.addresses(guarded)?;
        TcpListener::bind(&addresses[..]).map_err(|error| self.failed(error))
    }

    /// The addresses of its socket, which must be `guarded` if others than this machine reach it.
    pub(crate) fn addresses(self, guarded: bool) -> Result<Vec<SocketAddr>, PoolError> {
        let addresses = (self.host, self.port).to_socket_addrs();
        let addresses: Vec<_> = addresses.map_err(|error| self.failed(error))?.collect();
        if !guarded && addresses.iter().any(|address| !address.ip().is_loopback()) {
            return Err(PoolError::Unguarded(self.name()));
        }
        Ok(addresses)
    }

    fn failed(self, source: io::Error) -> PoolError {
        PoolError::Listen { address: self.name(), source }
    }

    fn name(self) -> String {
        format!("{}:{}:{}", self.scheme, self.host, self.port)
    }
}

/// The token in a file: its first line.
pub(crate) fn read_token(path: &Path) -> Result<String, PoolError> {
    let text = fs::read_to_string(path)
        .map_err(|source| PoolError::Token { path: path.to_owned(), source })?;
    let token = text.lines().next().unwrap_or_default().trim().to_owned();
    if token.is_empty() {
        let source = io::Error::other("its first line is empty");
        return Err(PoolError::Token { path: path.to_owned(), source });
    }
    Ok(token)
}

/// The directory of sockets that have no other place, `$XDG_RUNTIME_DIR/remuda` or
/// `/tmp/remuda-UID`: made with mode 0700 if it is not there, and refused if another user's or open
/// to others.
///
/// # Errors
/// The directory can't be made or isn't safe.
pub fn runtime_directory() -> Result<PathBuf, PoolError> {
    let path = runtime_directory_path();
    match fs::DirBuilder::new().recursive(false).create(&path) {
        Ok(()) => {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
                .map_err(|error| failed(&path, error))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(&path, error)),
    }
    let meta = fs::symlink_metadata(&path).map_err(|error| failed(&path, error))?;
    let own = rustix::process::geteuid().as_raw();
    if !meta.is_dir() || meta.uid() != own || meta.mode() & 0o077 != 0 {
        return Err(PoolError::UnsafeDirectory(path));
    }
    Ok(path)
}

/// Where that directory is, whether or not it is there.
pub fn runtime_directory_path() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_dir()) {
        Some(dir) => PathBuf::from(dir).join("remuda"),
        None => PathBuf::from(format!("/tmp/remuda-{}", rustix::process::geteuid().as_raw())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_in_use_names_its_holder_and_a_stale_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (listener, file) = unix(&path, &Access::default()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        match unix(&path, &Access::default()) {
            Err(PoolError::InUse { pid, .. }) => assert_eq!(pid as u32, std::process::id()),
            other => panic!("{other:?}"),
        }
        std::mem::forget(file);
        drop(listener);
        let (_listener, file) = unix(&path, &Access::default()).unwrap();
        drop(file);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert!(unix(&path, &Access::default()).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn tcp_off_loopback_needs_a_guard() {
        let at = |host| Place { scheme: "tls", host, port: 0 };
        let refused = at("0.0.0.0").open(false).unwrap_err();
        assert!(matches!(&refused, PoolError::Unguarded(address) if address == "tls:0.0.0.0:0"));
        assert!(at("127.0.0.1").open(false).is_ok());
    }
}
