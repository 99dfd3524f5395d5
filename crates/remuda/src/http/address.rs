//! Where HTTP is listened to: `host:port`, or a port of loopback.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::str::FromStr;

use remuda_engine::PoolError;

use crate::http::HttpError;

/// Where a bare port listens.
const LOOPBACK: &str = "127.0.0.1";

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpAddress {
    host: String,
    port: u16,
}

impl FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no HTTP address: give host:port, or a port of loopback");
        let text = text.strip_prefix("tcp:").unwrap_or(text);
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) => inner,
            None if host.contains([':', '/']) => return Err(wrong()),
            None => host,
        };
        let host = if host.is_empty() { LOOPBACK } else { host };
        Ok(Self { host: host.to_owned(), port: port.parse().map_err(|_| wrong())? })
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl HttpAddress {
    /// Opens it. One that other machines reach must be `guarded`, or is refused as `open`.
    pub(crate) fn bind(
        &self,
        guarded: bool,
        open: fn(String) -> HttpError,
    ) -> Result<(TcpListener, SocketAddr), HttpError> {
        let addresses = self.addresses(guarded, open)?;
        let failed = |source| self.failed(source);
        let listener = TcpListener::bind(&addresses[..]).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let at = listener.local_addr().map_err(failed)?;
        Ok((listener, at))
    }

    /// What is to be opened: see [`HttpAddress::bind`].
    pub(crate) fn addresses(
        &self,
        guarded: bool,
        open: fn(String) -> HttpError,
    ) -> Result<Vec<SocketAddr>, HttpError> {
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let addresses: Vec<_> = found.map_err(|source| self.failed(source))?.collect();
        if !guarded && addresses.iter().any(|address| !address.ip().is_loopback()) {
            return Err(open(format!("http://{self}")));
        }
        Ok(addresses)
    }

    fn failed(&self, source: io::Error) -> HttpError {
        HttpError::Listen(PoolError::Listen { address: format!("http://{self}"), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, shown) in [
            ("9000", "127.0.0.1:9000"),
            (":9000", "127.0.0.1:9000"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("localhost:0", "localhost:0"),
            ("[::1]:9000", "[::1]:9000"),
        ] {
            assert_eq!(text.parse::<HttpAddress>().unwrap().to_string(), shown);
        }
        for text in ["", "x", "host:", "host:70000", "::1:9000", "http://a:1", "unix:/a"] {
            assert!(text.parse::<HttpAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_off_loopback_must_be_guarded() {
        let address: HttpAddress = "0.0.0.0:0".parse().unwrap();
        assert!(matches!(address.bind(false, HttpError::OpenAdmin), Err(HttpError::OpenAdmin(_))));
        assert!(address.bind(true, HttpError::OpenAdmin).is_ok());
    }
}
