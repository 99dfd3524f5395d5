//! The Unix socket of a worker that was started by hand.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// A listening socket at `path` that only this user can connect to.
///
/// It replaces the file of a worker that was killed, never one that somebody listens on.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match bind_fresh(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_stale(path)?;
            bind_fresh(path)
        }
        bound => bound,
    }
}

fn bind_fresh(path: &Path) -> io::Result<UnixListener> {
    let kind = SocketType::STREAM;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Before it listens nobody can connect, so no one slips in under wider permissions.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let taken = |why: &str| io::Error::new(ErrorKind::AddrInUse, why);
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(taken("a file that is no socket is there: choose another path"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(taken("another process listens there: choose another path, or stop it")),
    }
}
