//! From an address to a connection whose handshake is done.

use std::io;
use std::path::Path;
use std::time::Duration;

use remuda_protocol::{Address, Connecting, ENVELOPE_BYTES_MAX, Framer, Offer};
use rustix::net::sockopt;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use crate::ConnectError;
use crate::pool_client::{HANDSHAKE_RECV_TIMEOUT, closed_early};
use crate::stream::{Plain, Stream};
use crate::target::{self, Target};

/// How long a name may take to be looked up, and how long one address may take to connect.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a pool on TCP may be silent before the kernel asks whether it is still there.
const SILENT_FOR: Duration = Duration::from_secs(20);
/// How long the kernel waits before it asks again.
const ASKS_EVERY: Duration = Duration::from_secs(10);
/// How many questions it may leave unanswered until the connection is given up. (A limit for data,
/// `TCP_USER_TIMEOUT`, would also end the one to a pool that is there and reads nothing for so long.)
const QUESTIONS: u32 = 4;

/// A connection that calls may go by.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    pub(crate) framer: Framer,
    pub(crate) offer: Offer,
}

/// Connects to the first candidate that answers, and shakes hands with it.
pub(crate) async fn dial(
    target: &Target,
    token: Option<&str>,
    max_body_bytes: usize,
) -> Result<Connection, ConnectError> {
    let mut tried = Vec::new();
    let mut last = None;
    for address in target.candidates() {
        match connect(address).await {
            Ok(stream) => return shake(stream, address, token, max_body_bytes).await,
            Err(error @ ConnectError::Io { .. }) => {
                if let ConnectError::Io { source, .. } = &error {
                    tried.push(format!("{address} ({source})"));
                }
                last = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match last {
        Some(error) if !target.is_default() => Err(error),
        _ => Err(ConnectError::NoPool { tried: tried.join(" or ") }),
    }
}

async fn connect(address: &Address) -> Result<Stream, ConnectError> {
    let connected = match address {
        Address::Unix { path, .. } => connect_unix(path).await,
        Address::Tcp { host, port, .. } => {
            connect_tcp(host, *port).await.map(|stream| Plain::Tcp(stream).into())
        }
        #[cfg(feature = "tls")]
        Address::Tls { host, port, files, .. } => {
            let tls = crate::tls::Tls::load(files, host).map_err(|reason| {
                ConnectError::Unusable { address: address.to_string(), reason }
            })?;
            match connect_tcp(host, *port).await {
                Ok(stream) => timeout(CONNECT_TIMEOUT, tls.wrap(stream))
                    .await
                    .unwrap_or_else(|_| Err(late("no TLS handshake")))
                    .map(Stream::from),
                Err(error) => Err(error),
            }
        }
        #[cfg(not(feature = "tls"))]
        Address::Tls { .. } => {
            let reason = "this program was built without the feature `tls` of remuda-client";
            return Err(ConnectError::Unusable {
                address: address.to_string(),
                reason: reason.to_owned(),
            });
        }
        #[cfg(target_os = "linux")]
        Address::Shm { name, .. } => return crate::rings::connect(name, address).await,
        #[cfg(not(target_os = "linux"))]
        Address::Shm { .. } => {
            let reason = "shared memory needs Linux: use unix:";
            return Err(ConnectError::Unusable {
                address: address.to_string(),
                reason: reason.to_owned(),
            });
        }
    };
    connected.map_err(|error| ConnectError::io(&address.to_string(), error))
}

async fn connect_unix(path: &Path) -> io::Result<Stream> {
    target::check_owner(path)?;
    Ok(Plain::Unix(UnixStream::connect(path).await?).into())
}

/// Looks the name up anew, and tries its addresses in turn.
async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = timeout(CONNECT_TIMEOUT, lookup_host((host, port)))
        .await
        .unwrap_or_else(|_| Err(late("its name was not looked up")))
        // A name that doesn't resolve may do so later; the resolver's own kinds don't say so.
        .map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no addresses");
    for address in addresses {
        let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
        match connecting.await.unwrap_or_else(|_| Err(late("it didn't accept"))) {
            Ok(stream) if reached_itself(&stream)? => {
                let reason = format!("nothing listens at {address}, and the socket reached itself");
                last = io::Error::new(io::ErrorKind::ConnectionRefused, reason);
            }
            Ok(stream) => {
                stream.set_nodelay(true)?;
                notice_silence(&stream);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Has the kernel notice a pool whose machine or network is gone, which says no goodbye.
fn notice_silence(stream: &TcpStream) {
    // A system that can't is one where a call without a time limit may wait for ever.
    let _ = sockopt::set_socket_keepalive(stream, true);
    #[cfg(target_os = "linux")]
    {
        let _ = sockopt::set_tcp_keepidle(stream, SILENT_FOR);
        let _ = sockopt::set_tcp_keepintvl(stream, ASKS_EVERY);
        let _ = sockopt::set_tcp_keepcnt(stream, QUESTIONS);
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} in {CONNECT_TIMEOUT:?}"))
}

/// On one host, a socket can get the very port that it dials, and connect to itself.
fn reached_itself(stream: &TcpStream) -> io::Result<bool> {
    Ok(stream.local_addr()? == stream.peer_addr()?)
}

async fn shake(
    mut stream: Stream,
    address: &Address,
    token: Option<&str>,
    max_body_bytes: usize,
) -> Result<Connection, ConnectError> {
    let token = match (token, &address.access().token_file) {
        (None, Some(file)) => Some(read_token(file, address)?),
        (token, _) => token.map(str::to_owned),
    };
    let mut framer = Framer::new(ENVELOPE_BYTES_MAX);
    let exchange = exchange(&mut stream, &mut framer, address, token.as_deref());
    let offer = timeout(HANDSHAKE_RECV_TIMEOUT, exchange)
        .await
        .unwrap_or_else(|_| Err(ConnectError::NoAnswer { address: address.to_string() }))?;
    framer.set_max_line(max_body_bytes.saturating_add(ENVELOPE_BYTES_MAX));
    Ok(Connection { stream, framer, offer })
}

fn read_token(file: &Path, address: &Address) -> Result<String, ConnectError> {
    match std::fs::read_to_string(file) {
        Ok(token) => Ok(token.trim().to_owned()),
        Err(error) => Err(ConnectError::Unusable {
            address: address.to_string(),
            reason: format!("its token_file {} can't be read: {error}", file.display()),
        }),
    }
}

async fn exchange(
    stream: &mut Stream,
    framer: &mut Framer,
    address: &Address,
    token: Option<&str>,
) -> Result<Offer, ConnectError> {
    let label = || address.to_string();
    let mut out = Vec::new();
    let connecting = Connecting::start(token, &mut out);
    let failed = |error| ConnectError::io(&label(), error);
    let mut unsent = &out[..];
    while !unsent.is_empty() {
        let written = stream.writer.write(unsent).await.map_err(failed)?;
        unsent = &unsent[written..];
    }
    stream.writer.flush().await.map_err(failed)?;
    loop {
        let line = framer.next_line().map_err(|error| ConnectError::Unusable {
            address: label(),
            reason: format!("its answer to the handshake has no end: {error}"),
        })?;
        if let Some(line) = line {
            return connecting
                .answer(line)
                .map_err(|source| ConnectError::Handshake { address: label(), source });
        }
        match stream.reader.read(framer.spare()).await.map_err(failed)? {
            0 => {
                let reason = closed_early(framer.rest());
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, reason);
                return Err(ConnectError::io(&label(), error));
            }
            n => framer.filled(n),
        }
    }
}
