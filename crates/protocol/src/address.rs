//! ADDR of the command line: where a pool or a worker is reached, and who may call there.

mod display;
mod error;
mod parse;

use std::path::{Path, PathBuf};

pub use error::AddressError;

/// Where a pool or a worker is reached.
///
/// `unix:/path`, `tcp:host:port`, `tls:host:port` or `shm:name`, with options after commas:
/// `unix:/run/x.sock,mode=0660,group=web`. A text with a slash and without a scheme is the path of
/// a Unix socket.
///
/// ```
/// use remuda_protocol::Address;
///
/// let address: Address = "unix:/run/x.sock,mode=0660,group=web".parse()?;
/// let Address::Unix { path, access } = &address else { panic!() };
/// assert_eq!(path.to_str(), Some("/run/x.sock"));
/// assert_eq!(access.mode, Some(0o660));
/// assert_eq!(address.to_string(), "unix:/run/x.sock,mode=0660,group=web");
/// # Ok::<(), remuda_protocol::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Who may call there. A client ignores it.
        access: Access,
    },
    /// A TCP socket.
    Tcp {
        /// A name, an IPv4 address, or an IPv6 address without its brackets.
        host: String,
        /// The port; 0 lets the system choose.
        port: u16,
        /// Who may call there. A client ignores it, but for the token.
        access: Access,
    },
    /// TLS over TCP.
    Tls {
        /// A name, an IPv4 address, or an IPv6 address without its brackets.
        host: String,
        /// The port; 0 lets the system choose.
        port: u16,
        /// Who may call there. A client ignores it, but for the token.
        access: Access,
        /// Where keys and certificates are.
        files: TlsFiles,
    },
    /// Rings in shared memory.
    Shm {
        /// The name: letters, digits, `.`, `_` and `-`.
        name: String,
        /// Who may call there. A client ignores it.
        access: Access,
    },
}

/// Who may call at a listener, and what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// `mode=0660`: the permissions of the socket's file. Unix only; the listener's default is
    /// 0600.
    pub mode: Option<u32>,
    /// `group=web`: the group of the socket's file, by name or number. Unix only.
    pub group: Option<String>,
    /// `allow_uids=1000+1001`: users that may call besides the owner and root. Unix and shm only.
    pub allow_uids: Vec<u32>,
    /// `role=admin` or `role=call`: whether `reset` and `shutdown` are accepted. `None`: the
    /// listener's default.
    pub role: Option<Role>,
    /// `token_file=/path`: the file with the token that callers send. TCP and TLS only.
    pub token_file: Option<PathBuf>,
}

/// What a listener accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Jobs and `status`.
    Call,
    /// `reset` and `shutdown` too.
    Admin,
}

/// Where the keys and certificates of a TLS address are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// `cert=/path`: a listener's certificate chain, PEM.
    pub cert: Option<PathBuf>,
    /// `key=/path`: its private key, PEM.
    pub key: Option<PathBuf>,
    /// `ca=/path`: the certificates that the peer's must descend from, PEM.
    pub ca: Option<PathBuf>,
    /// `name=host`: the name in the server's certificate, if it is not the host.
    pub name: Option<String>,
}

impl Address {
    /// A Unix socket with default access.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Address {
        Address::Unix { path: path.into(), access: Access::default() }
    }

    /// Who may call there.
    #[must_use]
    pub const fn access(&self) -> &Access {
        match self {
            Address::Unix { access, .. }
            | Address::Tcp { access, .. }
            | Address::Tls { access, .. }
            | Address::Shm { access, .. } => access,
        }
    }

    /// The path of the Unix socket, if it is one.
    #[must_use]
    pub fn unix_path(&self) -> Option<&Path> {
        match self {
            Address::Unix { path, .. } => Some(path),
            _ => None,
        }
    }
}
