//! Who is at the other end.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

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

/// How long a TCP peer may be silent before the kernel asks whether it is still there.
pub const TCP_SILENT_FOR: Duration = Duration::from_secs(20);
/// How long the kernel waits before it asks again.
pub const TCP_ASKS_EVERY: Duration = Duration::from_secs(10);
/// How many such questions a TCP peer may leave unanswered until its connection is given up: it is
/// 60 s after it last said anything. While data is on its way the kernel doesn't ask, and gives up
/// after a quarter of an hour (`net.ipv4.tcp_retries2`). `TCP_USER_TIMEOUT` would be sooner, but it
/// also ends the connection to a peer that is there and only doesn't read for so long.
pub const TCP_QUESTIONS: u32 = 4;

/// What every TCP socket here has. Small packets are sent at once, since the runtime puts a turn's
/// sends together by itself; and a peer whose machine or network is gone, which says no goodbye, is
/// noticed by the kernel.
pub(crate) fn set_tcp_options(fd: impl AsFd) {
    // They fail only on what isn't TCP.
    let _ = sockopt::set_tcp_nodelay(&fd, true);
    let _ = sockopt::set_socket_keepalive(&fd, true);
    let _ = sockopt::set_tcp_keepidle(&fd, TCP_SILENT_FOR);
    let _ = sockopt::set_tcp_keepintvl(&fd, TCP_ASKS_EVERY);
    let _ = sockopt::set_tcp_keepcnt(&fd, TCP_QUESTIONS);
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_has_what_its_listener_was_given() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        set_tcp_options(&listener);
        let _client = TcpStream::connect(listener.local_addr()?)?;
        let (accepted, _) = listener.accept()?;
        assert!(sockopt::tcp_nodelay(&accepted)?);
        assert!(sockopt::socket_keepalive(&accepted)?);
        assert_eq!(sockopt::tcp_keepidle(&accepted)?, TCP_SILENT_FOR);
        assert_eq!(sockopt::tcp_keepintvl(&accepted)?, TCP_ASKS_EVERY);
        assert_eq!(sockopt::tcp_keepcnt(&accepted)?, TCP_QUESTIONS);
        // One that doesn't read may take its time.
        assert_eq!(sockopt::tcp_user_timeout(&accepted)?, 0);
        Ok(())
    }
}
