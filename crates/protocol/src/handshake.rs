//! The handshake, as a value for each side: lines in, a verdict and the bytes to send out.

use std::hint::black_box;

use crate::code::Code;
use crate::encode;
use crate::offer::Offer;
use crate::reply::{Answer, Reply};
use crate::request::{Op, Request};
use crate::{PROTOCOL_VERSION, raw::utf8};

/// The most bytes that a first line may have, so that a stranger can't make a pool keep more.
pub const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;

/// What the first bytes of a connection say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstBytes {
    /// Too few to tell.
    Undecided,
    /// They may begin a handshake.
    Possible,
    /// They don't: an HTTP request, a TLS client, something else. Refuse at once.
    Foreign,
}

/// Looks at the first bytes of a connection before a line is complete.
///
/// A request of HTTP must never be read line by line, for its body may hold lines that a web page
/// chose; and a TLS client would wait for ever for an answer to what holds no line end.
#[must_use]
pub fn first_bytes(bytes: &[u8]) -> FirstBytes {
    match bytes.iter().find(|byte| !matches!(byte, b' ' | b'\t')) {
        None => FirstBytes::Undecided,
        Some(b'{') => FirstBytes::Possible,
        Some(_) => FirstBytes::Foreign,
    }
}

/// The accepting side, before the first line.
#[derive(Debug, Clone)]
pub struct Accepting<'a> {
    offer: &'a Offer,
    token: Option<&'a str>,
}

/// What becomes of a connection after its first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on. The peer may still leave, if it doesn't speak the version that was reported to it.
    Accepted,
    /// Send the answer, then close.
    Refused(Code),
}

impl<'a> Accepting<'a> {
    /// A side that reports `offer` to everybody who asks.
    #[must_use]
    pub const fn new(offer: &'a Offer) -> Accepting<'a> {
        Accepting { offer, token: None }
    }

    /// Demands this token.
    #[must_use]
    pub const fn token(mut self, token: Option<&'a str>) -> Accepting<'a> {
        self.token = token;
        self
    }

    /// Takes the first line, without its `\n`, and appends the answer to `out`.
    ///
    /// The version of the peer is not looked at: this side always reports its own, and the side
    /// that connects decides.
    pub fn first_line(&self, line: &[u8], out: &mut Vec<u8>) -> Verdict {
        let request = match Request::parse(line) {
            Ok(request) => request,
            Err(bad) => {
                let id = bad.id.as_ref().map(crate::IdBuf::as_id);
                return refuse(out, id, Code::HandshakeRequired, FIRST_MUST_BE_HANDSHAKE);
            }
        };
        let Op::Handshake { token, .. } = request.op else {
            return refuse(out, request.id, Code::HandshakeRequired, FIRST_MUST_BE_HANDSHAKE);
        };
        match self.token {
            Some(expected) if !same(expected, token.as_deref().unwrap_or_default()) => {
                let message = if token.is_some() {
                    "the token is wrong"
                } else {
                    "this listener needs a token: send it as `token` in the handshake"
                };
                refuse(out, request.id, Code::Unauthorized, message)
            }
            _ => {
                encode::offer(out, request.id, self.offer);
                Verdict::Accepted
            }
        }
    }
}

const FIRST_MUST_BE_HANDSHAKE: &str =
    "the first line must be a handshake: {\"op\":\"handshake\",\"version\":\"1\"}";

fn refuse(out: &mut Vec<u8>, id: Option<crate::Id<'_>>, code: Code, message: &str) -> Verdict {
    encode::error(out, id, code, message);
    Verdict::Refused(code)
}

/// Compares secrets in a time that depends on the length of what was given alone.
fn same(expected: &str, given: &str) -> bool {
    let expected = expected.as_bytes();
    let mut differ = expected.len() ^ given.len();
    for (at, byte) in given.bytes().enumerate() {
        let other = expected.get(at % expected.len().max(1)).copied().unwrap_or(0);
        differ |= usize::from(black_box(byte ^ other));
    }
    black_box(differ) == 0
}

/// The connecting side, between its first line and the answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Connecting(());

/// Why a peer can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// It speaks another version.
    #[error(
        "the peer speaks version {theirs:?} of the protocol, this side {ours:?}: upgrade the older"
    )]
    VersionMismatch {
        /// The version of this crate.
        ours: &'static str,
        /// What the peer reported.
        theirs: String,
    },
    /// It refused.
    #[error("the peer refused the handshake with code {code}: {error}")]
    Refused {
        /// The code it gave.
        code: String,
        /// Its message.
        error: String,
    },
    /// It answered something that is no answer to a handshake.
    #[error("the peer did not answer the handshake: {message}; it sent {sent:?}")]
    NotAnAnswer {
        /// What is wrong with it.
        message: String,
        /// The beginning of what it sent.
        sent: String,
    },
}

/// How much of a wrong answer an error shows.
const SHOWN_CHARS: usize = 80;

impl Connecting {
    /// Appends the first line to `out`.
    pub fn start(token: Option<&str>, out: &mut Vec<u8>) -> Connecting {
        encode::handshake(out, PROTOCOL_VERSION, token);
        Connecting(())
    }

    /// Takes the answer, without its `\n`.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`] if the peer can't be used; close the connection.
    pub fn answer(self, line: &[u8]) -> Result<Offer, HandshakeError> {
        let wrong = |message: &str| HandshakeError::NotAnAnswer {
            message: message.to_owned(),
            sent: beginning(line),
        };
        match Reply::parse(line).map_err(|error| wrong(&error.message))?.answer {
            Answer::Handshake(offer) if offer.version == PROTOCOL_VERSION => Ok(offer),
            Answer::Handshake(offer) => Err(HandshakeError::VersionMismatch {
                ours: PROTOCOL_VERSION,
                theirs: offer.version,
            }),
            Answer::Error(failure) => Err(HandshakeError::Refused {
                code: failure.code_text.decode().into_owned(),
                error: failure.error.decode().into_owned(),
            }),
            _ => Err(wrong("it is a reply of another kind")),
        }
    }
}

fn beginning(line: &[u8]) -> String {
    let line = &line[..line.len().min(SHOWN_CHARS * 4)];
    match utf8(line) {
        Ok(text) => text.chars().take(SHOWN_CHARS).collect(),
        Err(_) => String::from_utf8_lossy(line).chars().take(SHOWN_CHARS).collect(),
    }
}
