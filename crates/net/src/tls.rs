//! TLS on a connection: rustls between the driver's bytes and the connection's buffers.

use std::io::{self, BufRead, IoSlice, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use crate::conn::{CloseReason, Conn, Phase};
use crate::error::{NetError, Result};
use crate::recv_buf::RecvPool;
use crate::send_queue::{Chunk, SendPool, SendQueue};
use crate::slots::Key;
use crate::state::State;

/// What was agreed on in a TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// The version, as in `TLSv1_3`.
    pub version: String,
    /// The cipher suite, as in `TLS13_AES_256_GCM_SHA384`.
    pub cipher_suite: String,
    /// The protocol that ALPN chose.
    pub alpn: Option<Vec<u8>>,
    /// The name that the client asked for (SNI), or connected to.
    pub server_name: Option<String>,
    /// The peer's certificates, its own first, in DER; empty if it showed none.
    pub peer_certificates: Vec<Vec<u8>>,
}

/// A connection's session.
pub(crate) struct Tls {
    session: Connection,
    server_name: Option<String>,
    /// The peer said that it sends no more.
    peer_ended: bool,
    /// Why the session failed.
    pub(crate) error: Option<String>,
}

impl Tls {
    pub(crate) fn server(config: &Arc<ServerConfig>) -> Result<Box<Self>> {
        let session = ServerConnection::new(Arc::clone(config)).map_err(failed)?;
        Ok(Self::new(session.into(), None))
    }

    pub(crate) fn client(config: &Arc<ClientConfig>, name: &str) -> Result<Box<Self>> {
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|error| NetError::Tls(format!("{name:?} is no server's name: {error}")))?;
        let session = ClientConnection::new(Arc::clone(config), server_name).map_err(failed)?;
        Ok(Self::new(session.into(), Some(name.to_owned())))
    }

    fn new(mut session: Connection, server_name: Option<String>) -> Box<Self> {
        // The send queue has the limits; what is written here moves on to it at once.
        session.set_buffer_limit(None);
        Box::new(Self { session, server_name, peer_ended: false, error: None })
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    pub(crate) fn info(&self) -> Option<TlsInfo> {
        let version = self.session.protocol_version()?;
        let suite = self.session.negotiated_cipher_suite()?;
        let server_name = match &self.session {
            Connection::Server(session) => session.server_name().map(str::to_owned),
            Connection::Client(_) => self.server_name.clone(),
        };
        let certificates = self.session.peer_certificates().unwrap_or_default();
        Some(TlsInfo {
            version: format!("{version:?}"),
            cipher_suite: format!("{:?}", suite.suite()),
            alpn: self.session.alpn_protocol().map(<[u8]>::to_vec),
            server_name,
            peer_certificates: certificates
                .iter()
                .map(|der: &CertificateDer<'_>| der.to_vec())
                .collect(),
        })
    }

    /// Encrypts `data` and sends or queues it, a few records at a time: the session takes memory
    /// for each, which is used again for the next ones.
    pub(crate) fn send(&mut self, data: &[u8], queue: &mut Queue<'_>) -> Result<()> {
        if data.len() < DIRECT_BYTES {
            // Small ones are put together, and go at the end of the turn.
            queue.socket = None;
        }
        for records in data.chunks(BYTES_AT_A_TIME) {
            self.session.writer().write_all(records).map_err(NetError::io("encrypting"))?;
            self.drain(queue);
        }
        Ok(())
    }

    /// Tells the peer that no more is sent.
    pub(crate) fn end(&mut self, queue: &mut Queue<'_>) {
        self.session.send_close_notify();
        self.queue_output(queue);
    }

    /// Queues what the session has to say for itself.
    fn queue_output(&mut self, queue: &mut Queue<'_>) {
        queue.socket = None;
        self.drain(queue);
    }

    /// Moves what the session wants sent to where it goes.
    fn drain(&mut self, queue: &mut Queue<'_>) {
        while self.session.wants_write() {
            // It doesn't fail: what the socket doesn't take goes to memory.
            let _ = self.session.write_tls(queue);
        }
    }

    /// Decrypts received bytes into the connection's buffer; returns how many came out.
    fn receive(
        &mut self,
        mut data: &[u8],
        mut deliver: impl FnMut(&[u8]),
    ) -> std::result::Result<usize, rustls::Error> {
        let mut total = 0;
        while !data.is_empty() {
            let taken = match self.session.read_tls(&mut data) {
                Ok(taken) => taken,
                // Its buffers are full of what was not processed, which the next lines do.
                Err(error) if error.kind() == io::ErrorKind::Other => 0,
                Err(_) => 0,
            };
            let state = self.session.process_new_packets()?;
            self.peer_ended |= state.peer_has_closed();
            let before = total;
            while let Ok(chunk) = self.session.reader().fill_buf() {
                let len = chunk.len();
                if len == 0 {
                    break;
                }
                deliver(chunk);
                self.session.reader().consume(len);
                total += len;
            }
            if taken == 0 && total == before {
                // After close_notify nothing more is taken.
                break;
            }
        }
        Ok(total)
    }
}

/// Plaintext bytes that are encrypted before the result goes on: four full records.
const BYTES_AT_A_TIME: usize = 64 << 10;
/// Less is queued, not given to the socket at once.
const DIRECT_BYTES: usize = 16 << 10;

/// Where a session's output goes: to the socket, as long as that takes it without waiting and
/// nothing is queued before it, and else to the connection's queue.
pub(crate) struct Queue<'a> {
    conn: &'a mut SendQueue,
    pool: &'a mut SendPool,
    socket: Option<&'a OwnedFd>,
}

impl Queue<'_> {
    /// Gives the socket what it takes. If that isn't all, the rest is for the queue.
    fn send_directly(&mut self, encrypted: &[IoSlice<'_>]) -> usize {
        let Some(socket) = self.socket else { return 0 };
        let total: usize = encrypted.iter().map(|slice| slice.len()).sum();
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let mut none = SendAncillaryBuffer::default();
        // An error comes again when the queue is sent.
        let sent = sendmsg(socket, encrypted, &mut none, flags).unwrap_or(0);
        if sent < total {
            self.socket = None;
        }
        self.conn.passed(sent);
        sent
    }
}

impl Write for Queue<'_> {
    fn write_vectored(&mut self, encrypted: &[IoSlice<'_>]) -> io::Result<usize> {
        let sent = self.send_directly(encrypted);
        if sent > 0 {
            return Ok(sent);
        }
        let first = encrypted.iter().find(|slice| !slice.is_empty());
        first.map_or(Ok(0), |slice| self.write(slice))
    }

    fn write(&mut self, encrypted: &[u8]) -> io::Result<usize> {
        let queued = self.conn.push_over_pieces(encrypted, self.pool);
        if queued < encrypted.len() {
            // The session can't take back what it encrypted, so this goes beside the pool.
            let rest = bytes::Bytes::copy_from_slice(&encrypted[queued..]);
            self.conn.push(Chunk::Shared(rest));
        }
        Ok(encrypted.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn failed(error: rustls::Error) -> NetError {
    NetError::Tls(error.to_string())
}

impl State {
    /// Runs `f` with a connection's session and where its output goes, if it has a session.
    pub(crate) fn with_tls<R>(
        &mut self,
        key: Key,
        f: impl FnOnce(&mut Tls, &mut Queue<'_>) -> R,
    ) -> Option<R> {
        let conn = self.conns.get_mut(key)?;
        let tls = conn.rare.as_mut()?.tls.as_mut()?;
        let free = conn.phase == Phase::Open && !conn.driver.send_blocked;
        let socket = (free && conn.send.unsent() == 0).then_some(&conn.fd);
        let pool = &mut self.send_pool;
        let result = f(tls, &mut Queue { conn: &mut conn.send, pool, socket });
        self.mark_dirty(key);
        Some(result)
    }

    /// Puts a session on an open connection, and begins the handshake.
    pub(crate) fn start_tls(&mut self, key: Key, tls: Box<Tls>) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.rare().tls = Some(tls);
        }
        self.with_tls(key, |tls, queue| tls.queue_output(queue));
    }

    /// Encrypted bytes arrived.
    pub(crate) fn arrived_encrypted(&mut self, key: Key, data: &[u8]) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(mut tls) = conn.rare().tls.take() else { return };
        if tls.error.is_some() || tls.peer_ended {
            conn.rare().tls = Some(tls);
            return;
        }
        let was_handshaking = tls.is_handshaking();
        let pool = &mut self.recv_pool;
        let received = tls.receive(data, |plain| deliver(conn, plain, pool));
        let ended = tls.peer_ended;
        if was_handshaking && !tls.is_handshaking() {
            conn.wake_event_waiters(&mut self.wakes);
        }
        if let Err(error) = &received {
            tls.error = Some(error.to_string());
        }
        conn.rare().tls = Some(tls);
        // Answers to the handshake, new keys, and the alert that says why it failed.
        self.with_tls(key, |tls, queue| tls.queue_output(queue));
        match received {
            Ok(0) => {}
            Ok(count) => self.arrived(key, count),
            Err(_) => self.recv_ended(key, CloseReason::Reset(io::ErrorKind::InvalidData)),
        }
        if ended {
            self.recv_ended(key, CloseReason::Eof);
        }
    }

    /// The stream ended below TLS: without the peer's word for it, it may have been cut off.
    pub(crate) fn end_reason(&self, key: Key, reason: CloseReason) -> CloseReason {
        let tls = self.conns.get(key).and_then(Conn::tls);
        match (reason, tls) {
            (CloseReason::Eof, Some(tls)) if !tls.peer_ended => {
                CloseReason::Reset(io::ErrorKind::UnexpectedEof)
            }
            _ => reason,
        }
    }
}

/// Gives decrypted bytes to the sink or the buffer.
fn deliver(conn: &mut Conn, mut plain: &[u8], pool: &mut RecvPool) {
    if conn.recv.is_empty()
        && let Some(sink) = conn.sink()
    {
        plain = &plain[sink.fill(plain)..];
    }
    if !plain.is_empty() {
        conn.recv.append(plain, pool);
    }
}
