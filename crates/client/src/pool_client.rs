//! One connection to one worker, with one request at a time.

use std::path::Path;
use std::time::Duration;

use remuda_protocol::{
    Answer, Connecting, ENVELOPE_BYTES_MAX, Framer, HandshakeError, MAX_BODY_BYTES_DEFAULT, Offer,
    Reply,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::{PoolError, PoolRequest, PoolResponse};

/// How long a worker may take to answer the handshake.
pub const HANDSHAKE_RECV_TIMEOUT: Duration = Duration::from_secs(10);

/// What [`PoolError::Handshake`] says when the worker took longer than that.
pub(crate) const HANDSHAKE_TIMED_OUT: &str = "handshake recv timeout (10s)";

const _: () = assert!(HANDSHAKE_RECV_TIMEOUT.as_secs() == 10, "the message says so");

/// What the buffer for a request may keep of its memory.
const KEEP_BYTES: usize = 256 * 1024;

/// A thin client of one worker, or of one pool, over one Unix socket.
///
/// Messages are JSON lines. [`connect`](PoolClient::connect) opens the socket and exchanges
/// handshakes; [`send_request`](PoolClient::send_request) is called for each message; dropping the
/// client closes the socket.
///
/// One request is under way at a time: `send_request` takes `&mut self`, so the compiler sees to
/// it. Tasks that share a client wrap it in `Arc<tokio::sync::Mutex<PoolClient>>`, and keep the
/// guard across the `await`. It is `Send`, and `Sync` as well. For many calls at a time, and for
/// links that come back, there is [`Client`](crate::Client).
///
/// ```no_run
/// use remuda_client::{Json, PoolClient, PoolRequest, PoolResponse};
/// use std::path::Path;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut worker = PoolClient::connect(Path::new("/tmp/upper.sock")).await?;
/// match worker.send_request(PoolRequest::call(Json::of("abc")?)).await? {
///     PoolResponse::Result(result) => println!("{}", result.parse::<String>()?),
///     PoolResponse::Error(error) => eprintln!("{error}"),
///     other => eprintln!("unexpected: {other:?}"),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct PoolClient {
    stream: UnixStream,
    framer: Framer,
    out: Vec<u8>,
    offer: Offer,
    last_id: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Ready,
    /// Between sending a request and having its answer. Found at the start of a request, it says
    /// that the future of the one before was dropped.
    Busy,
    Broken(String),
}

impl PoolClient {
    /// Connects to the worker that listens at `sock_path`, and exchanges handshakes with it.
    ///
    /// The worker's answer is waited for up to [`HANDSHAKE_RECV_TIMEOUT`]. A client exists only if
    /// all went well; otherwise the connection is closed.
    ///
    /// # Errors
    ///
    /// - [`PoolError::Connect`]: the socket couldn't be connected.
    /// - [`PoolError::Handshake`]: the answer is no valid answer to a handshake, there was none, or
    ///   it took longer than 10 s.
    /// - [`PoolError::VersionMismatch`]: the worker speaks another version.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the half-made connection of a dropped future is closed. Nothing else is
    /// lost; connect again.
    pub async fn connect(sock_path: &Path) -> Result<PoolClient, PoolError> {
        let mut stream = UnixStream::connect(sock_path).await.map_err(PoolError::Connect)?;
        let mut framer = Framer::new(ENVELOPE_BYTES_MAX);
        let mut out = Vec::new();
        let connecting = Connecting::start(None, &mut out);
        let failed = |error: std::io::Error| PoolError::Handshake(error.to_string());
        let exchange = async {
            stream.write_all(&out).await.map_err(failed)?;
            loop {
                let line = framer.next_line();
                if let Some(line) = line.map_err(|error| PoolError::Handshake(error.to_string()))? {
                    return connecting.answer(line).map_err(handshake_error);
                }
                match stream.read(framer.spare()).await.map_err(failed)? {
                    0 => return Err(PoolError::Handshake(closed_early(framer.rest()))),
                    n => framer.filled(n),
                }
            }
        };
        let offer = timeout(HANDSHAKE_RECV_TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| Err(PoolError::Handshake(HANDSHAKE_TIMED_OUT.to_owned())))?;
        framer.set_max_line(MAX_BODY_BYTES_DEFAULT + ENVELOPE_BYTES_MAX);
        Ok(PoolClient { stream, framer, out, offer, last_id: 0, state: State::Ready })
    }

    /// What the worker declared about itself in the handshake.
    #[must_use]
    pub const fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Sends a request as one line, and waits for its answer, however long that takes.
    ///
    /// An answer that says why there is no result is [`PoolResponse::Error`], and leaves the
    /// connection as good as it was. After an error other than [`PoolError::TooLarge`], the
    /// connection is of no more use: each later call gives [`PoolError::Unusable`].
    ///
    /// # Errors
    ///
    /// [`PoolError::Io`] and [`PoolError::Closed`] when the connection ends: the request may have
    /// been carried out. [`PoolError::Protocol`] when the worker sends what is no answer to it.
    /// [`PoolError::TooLarge`] and [`PoolError::Unusable`]: nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: if the future is dropped before it is ready, a part of the request may have
    /// been sent, and its answer may still come. Every later call gives [`PoolError::Unusable`],
    /// and never the answer to an earlier one. Drop the client, and connect again.
    ///
    /// # Panics
    ///
    /// Does not panic.
    pub async fn send_request(&mut self, req: PoolRequest) -> Result<PoolResponse, PoolError> {
        self.check_usable()?;
        self.out.clear();
        self.out.shrink_to(KEEP_BYTES);
        let id = self.last_id + 1;
        req.write(&mut self.out, id);
        let max = MAX_BODY_BYTES_DEFAULT + ENVELOPE_BYTES_MAX;
        if self.out.len() > max {
            return Err(PoolError::TooLarge { bytes: self.out.len(), max });
        }
        self.last_id = id;
        self.state = State::Busy;
        let answered = self.exchange(id).await;
        self.state = match &answered {
            Ok(_) => State::Ready,
            Err(error) => State::Broken(format!("an earlier request failed: {error}")),
        };
        answered
    }

    fn check_usable(&self) -> Result<(), PoolError> {
        let because = match &self.state {
            State::Ready => return Ok(()),
            State::Busy => "an earlier request was dropped before its answer came".to_owned(),
            State::Broken(because) => because.clone(),
        };
        Err(PoolError::Unusable { because })
    }

    async fn exchange(&mut self, id: u64) -> Result<PoolResponse, PoolError> {
        let sent = self.stream.write_all(&self.out).await;
        loop {
            let line = self.framer.next_line();
            if let Some(line) = line.map_err(|error| PoolError::Protocol(error.to_string()))? {
                return answer_to(id, line);
            }
            match self.stream.read(self.framer.spare()).await {
                Ok(0) => return Err(sent.err().map_or(PoolError::Closed, PoolError::Io)),
                Ok(n) => self.framer.filled(n),
                Err(error) => return Err(PoolError::Io(sent.err().unwrap_or(error))),
            }
        }
    }
}

/// Reads the line that came next, which must be the answer to the only request under way.
fn answer_to(id: u64, line: &[u8]) -> Result<PoolResponse, PoolError> {
    let reply = Reply::parse(line).map_err(|bad| PoolError::Protocol(bad.message))?;
    let is_answer = match (reply.id, &reply.answer) {
        (Some(theirs), _) => theirs.number() == Some(id),
        // A peer that couldn't read the id refuses without one.
        (None, answer) => matches!(answer, Answer::Handshake(_) | Answer::Error(_)),
    };
    if is_answer {
        return Ok(reply.answer.into());
    }
    let theirs = reply.id.map_or("no id".to_owned(), |theirs| format!("id {theirs}"));
    Err(PoolError::Protocol(format!("it sent an answer with {theirs} to the request with id {id}")))
}

fn handshake_error(error: HandshakeError) -> PoolError {
    match error {
        HandshakeError::VersionMismatch { ours, theirs } => {
            PoolError::VersionMismatch { ours, theirs }
        }
        other => PoolError::Handshake(other.to_string()),
    }
}

/// What to say of a peer that closed instead of answering the handshake.
pub(crate) fn closed_early(part: &[u8]) -> String {
    match part.len() {
        0 => "the peer closed the connection before it answered".to_owned(),
        n => format!("the peer closed the connection after {n} bytes of a line without an end"),
    }
}
