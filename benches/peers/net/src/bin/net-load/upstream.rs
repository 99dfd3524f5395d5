//! The far side of a proxy: a listener whose connections send back what comes.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use net::address::Address;

use crate::peer::Peer;

pub enum Upstream {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Upstream {
    pub fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(addr) => TcpListener::bind(addr).map(Self::Tcp),
            Address::Unix(path) => {
                // Of the burst before.
                let _ = std::fs::remove_file(path);
                UnixListener::bind(path).map(Self::Unix)
            }
        }
    }

    /// Waits for the connection that the proxy makes.
    pub fn accept(&self) -> io::Result<Peer> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok(Peer::new(stream.into(), true, None))
            }
            Self::Unix(listener) => Ok(Peer::new(listener.accept()?.0.into(), false, None)),
        }
    }
}
