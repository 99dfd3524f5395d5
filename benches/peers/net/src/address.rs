//! Addresses as the command lines write them: `tcp:127.0.0.1:7000` or `unix:/path`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("tcp", rest)) => {
                rest.parse().map(Self::Tcp).map_err(|error| format!("{rest}: {error}"))
            }
            Some(("unix", rest)) => Ok(Self::Unix(PathBuf::from(rest))),
            _ => Err(format!("{text} is neither tcp:HOST:PORT nor unix:/path")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "tcp:{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
