//! A blocking connection to a pool, for the commands that ask one thing.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use remuda_engine::{tls_client_config, tls_server_name};
use remuda_protocol::{
    Address, Answer, Code, Connecting, Framer, HANDSHAKE_BYTES_MAX, HandshakeError, Id, Offer,
    Reply,
};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::cli::address;
use crate::cli::rings::Rings;
use crate::cli::tls_trouble;

/// How long a pool may take to be reached and to shake hands.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes that an answer may have.
const ANSWER_LIMIT: usize = 1 << 30;
/// The id of the one request that a connection is asked.
pub(crate) const ID: Option<Id<'static>> = Some(Id::Number(1));

/// A connection on which hands were shaken.
pub(crate) struct Connection {
    stream: Stream,
    framer: Framer,
    pub(crate) offer: Offer,
    patience: Option<Duration>,
}

/// What can go wrong on the way to a pool.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("{0}")]
    Address(String),
    #[error(
        "no pool answers at {tried}: start one with `remuda serve`, or say where it is with --to or REMUDA_ADDR"
    )]
    NoPool { tried: String },
    #[error(
        "{address}: this user may not call there: call as the user whose pool it is, or see \
         docs/serve.md for how an address lets others in (group=, mode=, allow_uids=)"
    )]
    Denied { address: String },
    #[error("{address}: {source}")]
    Handshake { address: String, source: HandshakeError },
    #[error(
        "{address}: {source}; give the token by token_file=FILE in the address, or by REMUDA_TOKEN"
    )]
    Unauthorized { address: String, source: HandshakeError },
    #[error("{address}: {source}; {advice}")]
    Tls { address: String, source: io::Error, advice: &'static str },
    #[error("{address}: {source}")]
    Io { address: String, source: io::Error },
    #[error(
        "the pool closed the connection without an answer: it ended or was killed, and what was asked may have been done; see `remuda status`"
    )]
    Closed,
    #[error(
        "{address}: closed before it answered the handshake: it is ending, or is no pool; nothing was asked of it"
    )]
    Unmet { address: String },
    #[error(
        "{address}: it did not answer the handshake within {}s: it is stopped or hangs, or is no pool; nothing was asked of it",
        CONNECT_TIMEOUT.as_secs()
    )]
    Silent { address: String },
    #[error(
        "the pool gave no answer within {patience:?}: it is stopped or hangs, and what was asked may have been done"
    )]
    NoAnswer { patience: Duration },
    #[error(
        "the pool read no more of the request for {patience:?}: it is stopped or hangs, and did nothing of what was asked"
    )]
    NotRead { patience: Duration },
    #[error("cannot read the token in {path}: {source}")]
    Token { path: String, source: io::Error },
}

/// The socket below.
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Shm(Box<Rings>),
}

impl Connection {
    /// Reaches the pool at `to`, or where pools are by default. Once hands were shaken, it is waited
    /// for `patience` at most until the pool has read more of a request, and until more of the
    /// answer is there.
    pub(crate) fn open(
        to: Option<&str>,
        patience: Option<Duration>,
    ) -> Result<Self, ConnectionError> {
        let address = address::to_call(to).map_err(ConnectionError::Address)?;
        address::check_owner(&address).map_err(ConnectionError::Address)?;
        match Stream::open(&address, patience) {
            Ok(stream) => Self::greet(stream, &address, patience),
            // No pool would change that.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(ConnectionError::Address(format!("{address}: {error}")))
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(ConnectionError::Denied { address: address.to_string() })
            }
            Err(error) => {
                let tried = format!("{address} ({})", plain(&error));
                Err(ConnectionError::NoPool { tried })
            }
        }
    }

    fn greet(
        stream: Stream,
        address: &Address,
        patience: Option<Duration>,
    ) -> Result<Self, ConnectionError> {
        let name = address.to_string();
        let io = |source: io::Error| {
            let address = name.clone();
            match tls_trouble::advice(&source) {
                Some(advice) => ConnectionError::Tls { address, source, advice },
                None => ConnectionError::Io { address, source },
            }
        };
        let token = token(address)?;
        let mut first = Vec::new();
        let connecting = Connecting::start(token.as_deref(), &mut first);
        let mut connection =
            Self { stream, framer: Framer::new(ANSWER_LIMIT), offer: Offer::default(), patience };
        connection.stream.set_timeouts(Some(CONNECT_TIMEOUT)).map_err(io)?;
        connection.send(&first).map_err(io)?;
        let line = match connection.line_within(HANDSHAKE_BYTES_MAX) {
            Err(error) if is_timeout(&error) => {
                return Err(ConnectionError::Silent { address: name });
            }
            line => line.map_err(io)?,
        };
        let line = line.ok_or_else(|| ConnectionError::Unmet { address: name.clone() })?;
        let is_network = matches!(address, Address::Tcp { .. } | Address::Tls { .. });
        connection.offer = connecting.answer(&line).map_err(|source| {
            let address = name.clone();
            match source {
                HandshakeError::Refused { ref code, .. }
                    if is_network && code == Code::Unauthorized.as_str() =>
                {
                    ConnectionError::Unauthorized { address, source }
                }
                source => ConnectionError::Handshake { address, source },
            }
        })?;
        connection.stream.set_timeouts(patience).map_err(io)?;
        Ok(connection)
    }

    /// The socket, for who reads and writes it otherwise. No answer may be on its way.
    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Sends whole lines. What a peer that has closed said before is still to be read.
    fn send(&mut self, lines: &[u8]) -> io::Result<()> {
        let sent = match &mut self.stream {
            Stream::Unix(stream) => stream.write_all(lines),
            Stream::Tcp(stream) => stream.write_all(lines),
            Stream::Tls(stream) => stream.write_all(lines).and_then(|()| stream.flush()),
            Stream::Shm(rings) => rings.write_all(lines),
        };
        sent.or_else(|error| if is_end(&error) { Ok(()) } else { Err(error) })
    }

    /// Sends a request with [`ID`], and waits for the line of its answer.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>, ConnectionError> {
        let io = |source| ConnectionError::Io { address: "the pool".into(), source };
        let patience = self.patience;
        self.send(request).map_err(|source| match patience {
            Some(patience) if is_timeout(&source) => ConnectionError::NotRead { patience },
            _ => io(source),
        })?;
        let line = self.line().map_err(|source| match patience {
            Some(patience) if is_timeout(&source) => ConnectionError::NoAnswer { patience },
            _ => io(source),
        });
        line?.ok_or(ConnectionError::Closed)
    }

    /// The next line, or nothing at the end.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.line_within(ANSWER_LIMIT)
    }

    /// The same; of a line over the limit, its beginning.
    fn line_within(&mut self, limit: usize) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(line) = self.framer.next_line().map_err(io::Error::other)? {
                return Ok(Some(line.to_vec()));
            }
            if self.framer.rest().len() > limit {
                return Ok(Some(self.framer.rest().to_vec()));
            }
            let spare = self.framer.spare();
            let read = match &mut self.stream {
                Stream::Unix(stream) => stream.read(spare),
                Stream::Tcp(stream) => stream.read(spare),
                Stream::Tls(stream) => stream.read(spare),
                Stream::Shm(rings) => rings.read(spare),
            };
            match read {
                Ok(0) => return Ok(None),
                Ok(read) => self.framer.filled(read),
                Err(error) if is_end(&error) => return Ok(None),
                // A read that has a time limit is cut short where the process is stopped and goes on.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What the line answers to the request with [`ID`]. A failure may come without one: the request's
/// was not understood.
pub(crate) fn answer(line: &[u8]) -> Result<Answer<'_>, String> {
    let reply =
        Reply::parse(line).map_err(|error| format!("the pool's answer can't be read: {error}"))?;
    match (reply.id, &reply.answer) {
        (id, _) if id == ID => Ok(reply.answer),
        (None, Answer::Error(_)) => Ok(reply.answer),
        (None, _) => Err("the pool's answer has no id: it may be to another request".into()),
        (Some(id), _) => Err(format!(
            "the pool answered request {id} instead of {}: that is the answer to another",
            Id::Number(1)
        )),
    }
}

impl Stream {
    fn open(address: &Address, patience: Option<Duration>) -> io::Result<Self> {
        match address {
            Address::Unix { path, .. } => UnixStream::connect(path).map(Self::Unix),
            Address::Tcp { host, port, .. } => {
                let stream = connect_tcp(host, *port)?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Address::Tls { host, port, files, .. } => {
                let wrong = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
                let config = tls_client_config(files).map_err(wrong)?;
                let name = tls_server_name(files, host).map_err(wrong)?.to_owned();
                let name = ServerName::try_from(name).map_err(io::Error::other)?;
                let stream = connect_tcp(host, *port)?;
                stream.set_nodelay(true)?;
                let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
                Ok(Self::Tls(Box::new(StreamOwned::new(session, stream))))
            }
            Address::Shm { name, .. } => {
                Rings::connect(name, patience).map(Box::new).map(Self::Shm)
            }
        }
    }

    /// How long a read waits for bytes, and a write for room. Rings know the latter since they were
    /// connected.
    fn set_timeouts(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let tcp = |stream: &TcpStream| {
            stream.set_read_timeout(timeout)?;
            stream.set_write_timeout(timeout)
        };
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            Self::Tcp(stream) => tcp(stream),
            Self::Tls(stream) => tcp(&stream.sock),
            Self::Shm(rings) => {
                rings.set_read_timeout(timeout);
                Ok(())
            }
        }
    }
}

/// Whether a read took longer than it may.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Whether the peer has closed: one that had not read all is told of by an error.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Tries the addresses of a name, each for [`CONNECT_TIMEOUT`] at most.
fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The token that the address names a file of, or the environment's.
pub(crate) fn token(address: &Address) -> Result<Option<String>, ConnectionError> {
    let Some(path) = &address.access().token_file else {
        return Ok(std::env::var("REMUDA_TOKEN").ok().filter(|token| !token.is_empty()));
    };
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConnectionError::Token { path: path.display().to_string(), source })?;
    Ok(Some(text.lines().next().unwrap_or_default().trim().to_owned()))
}

/// What the system says of an error, without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
