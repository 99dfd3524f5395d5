//! The JSON-lines protocol of Remuda: messages, framing and handshake as values.
//!
//! A pool speaks the protocol that its workers speak, so a client, a pool and a worker all use
//! this crate. It opens no socket, reads no clock and holds no state but what it is given: bytes
//! come in as slices, messages come out as values that borrow from them, and encoders append to a
//! `Vec<u8>` that the caller reuses. Nothing that a peer sends panics.
//!
//! # A call, from both ends
//!
//! ```
//! use remuda_protocol::{Answer, Call, Id, LineScan, Op, Payload, Raw, Reply, Request, encode};
//!
//! // The side that connects writes a call.
//! let mut wire = Vec::new();
//! encode::call(&mut wire, Some(Id::Number(7)), br#"{"text":"abc"}"#, &encode::CallFields::default());
//!
//! // The side that accepts finds the line, and reads it without copying.
//! let mut scan = LineScan::new(1024);
//! let end = scan.next(&wire)?.expect("the line is complete");
//! let request = Request::parse(&wire[..end])?;
//! assert_eq!(request.id, Some(Id::Number(7)));
//! let Op::Call(Call { payload: Payload::One(body), .. }) = request.op else { panic!() };
//! assert_eq!(body.as_str(), r#"{"text":"abc"}"#);
//!
//! // It answers.
//! let mut answer = Vec::new();
//! encode::result(&mut answer, request.id, br#"{"text":"ABC"}"#);
//! let reply = Reply::parse(answer.strip_suffix(b"\n").unwrap())?;
//! assert_eq!(reply.id, Some(Id::Number(7)));
//! assert!(matches!(reply.answer, Answer::Result(body) if body.as_str() == r#"{"text":"ABC"}"#));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The parts
//!
//! - [`LineScan`] and [`Framer`] find lines in a stream, with a limit.
//! - [`Request`] and [`Reply`] are one line each, read; [`encode`] writes them.
//! - [`Raw`] is a body: one JSON value that is checked once and then passed on as text.
//! - [`Accepting`] and [`Connecting`] are the two sides of the handshake.
//! - [`Code`] says why a job has no result, and whether it may have run.
//! - [`Address`] is what the command line calls ADDR.
//! - [`json_string`] and [`unescape`] turn plain text into a JSON string and back.
#![forbid(unsafe_code)]

mod address;
mod bodies;
mod code;
pub mod encode;
mod framing;
mod handshake;
mod id;
mod number;
mod object;
mod offer;
mod raw;
mod reply;
mod request;
mod scan;
mod shapes;
mod text;

pub use address::{Access, Address, AddressError, Role, TlsFiles};
pub use bodies::{Bodies, BodiesIter};
pub use code::Code;
pub use framing::{Framer, LineScan, TooLong};
pub use handshake::{
    Accepting, Connecting, FirstBytes, HANDSHAKE_BYTES_MAX, HandshakeError, Verdict, first_bytes,
};
pub use id::{ID_BYTES_MAX, Id, IdBuf};
pub use offer::Offer;
pub use raw::{BadJson, BadJsonKind, Raw};
pub use reply::{Answer, BadReply, Failure, Outcomes, Reply, Results};
pub use request::{BadRequest, Call, Op, Payload, Request, salvage_id};
pub use text::{BadString, NotUtf8, Text, json_str, json_string, unescape, unescape_into};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExample;

/// The version of the protocol that this crate speaks.
pub const PROTOCOL_VERSION: &str = "1";

/// The line by which a pool tells a worker that declared [`Offer::SHM`] that all that follows goes
/// by rings in shared memory, which it hands over on the socket behind this line. It is written
/// as it stands here, byte for byte, so that who expects it can take it off the socket without
/// reading further: what follows carries descriptors.
pub const SHM_LINE: &[u8] = b"{\"op\":\"shm\"}\n";

/// The most bytes that a body may have unless a pool is told otherwise: 16 MiB.
pub const MAX_BODY_BYTES_DEFAULT: usize = 16 * 1024 * 1024;

/// What a line may have beyond its body: the rest of the envelope with its id, code and fields.
///
/// A line is limited to `max_body_bytes + ENVELOPE_BYTES_MAX`.
pub const ENVELOPE_BYTES_MAX: usize = 64 * 1024;

/// How many arrays and objects may lie inside each other in a body.
///
/// Python's parser fails at about a thousand; a pool that let deeper bodies through would lose a
/// worker to each.
pub const DEPTH_MAX: usize = 128;

/// How many pools may pass a call on before one refuses it with `bad_request`: more than any chain
/// that somebody would build, and few enough to end a circle at once.
pub const HOPS_MAX: u32 = 8;

const _: () = assert!(HANDSHAKE_BYTES_MAX <= ENVELOPE_BYTES_MAX);
const _: () = assert!(DEPTH_MAX <= 128, "the scanner keeps one bit a level in a u128");
