//! Who is at the other end.

use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::net::{SocketAddrUnix, getpeername, sockopt};

use crate::conn::{Conn, Kind};

/// A peer's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAddr {
    /// Of a TCP connection.
    Tcp(SocketAddr),
    /// Of a Unix socket, where the peer is bound to a path.
    Unix(Option<PathBuf>),
}

/// A Unix peer's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCred {
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// The process; `None` if it is in a namespace that can't be seen from here.
    pub pid: Option<i32>,
}

pub(crate) fn peer_addr(conn: &Conn) -> Option<PeerAddr> {
    let name = getpeername(&conn.fd).ok()?;
    match conn.kind {
        Kind::Tcp => SocketAddr::try_from(name?).ok().map(PeerAddr::Tcp),
        Kind::Unix => {
            // A peer that isn't bound has no name.
            let name = name.and_then(|name| SocketAddrUnix::try_from(name).ok());
            let path = name.as_ref().and_then(SocketAddrUnix::path_bytes);
            let path = path.map(|path| {
                use std::os::unix::ffi::OsStrExt;
                PathBuf::from(std::ffi::OsStr::from_bytes(path))
            });
            Some(PeerAddr::Unix(path))
        }
    }
}

pub(crate) fn peer_cred(conn: &Conn) -> Option<PeerCred> {
    let mut raw = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `raw` and `len` are valid for writing, and `len` says how large `raw` is. (The
    // safe wrapper takes a process id of 0, which a foreign namespace's peer has, for invalid.)
    let status = unsafe {
        libc::getsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&conn.fd),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut raw).cast(),
            &mut len,
        )
    };
    let pid = Some(raw.pid).filter(|pid| *pid > 0);
    (status == 0).then_some(PeerCred { uid: raw.uid, gid: raw.gid, pid })
}

/// Sends small packets at once: the runtime puts a turn's sends together by itself.
pub(crate) fn without_delay(fd: impl std::os::fd::AsFd) {
    // It fails only on what isn't TCP.
    let _ = sockopt::set_tcp_nodelay(fd, true);
}
