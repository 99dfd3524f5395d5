//! Writing messages: each function appends one whole line, its `\n` included.
//!
//! Bodies are JSON text that was checked before, as [`Raw::as_bytes`](crate::Raw::as_bytes) gives
//! it; line breaks between their tokens are left out here, so that a message is one line whatever
//! the body.

use memchr::memchr2;

use crate::code::Code;
use crate::id::Id;
use crate::number::push_number;
use crate::offer::Offer;
use crate::reply::Failure;
use crate::text::json_str;

/// The optional fields of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallFields {
    /// How long the call may take from its arrival, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// How many pools have passed the call on, the sender included; 0 is left out.
    pub hops: u32,
}

/// Appends a handshake, the first message of a connection.
pub fn handshake(out: &mut Vec<u8>, version: &str, token: Option<&str>) {
    out.extend_from_slice(br#"{"op":"handshake","version":"#);
    json_str(out, version);
    if let Some(token) = token {
        out.extend_from_slice(br#","token":"#);
        json_str(out, token);
    }
    out.extend_from_slice(b"}\n");
}

/// Appends a call with one body.
#[inline]
pub fn call(out: &mut Vec<u8>, id: Option<Id<'_>>, body: &[u8], fields: &CallFields) {
    call_with(out, id, fields, |out| push_body(out, body));
}

/// Appends a call whose body `write_body` appends: exactly one JSON value without line breaks.
///
/// It saves a copy where the body is made on the spot, as by [`json_string`](crate::json_string).
#[inline]
pub fn call_with(
    out: &mut Vec<u8>,
    id: Option<Id<'_>>,
    fields: &CallFields,
    write_body: impl FnOnce(&mut Vec<u8>),
) {
    begin_call(out, id);
    out.extend_from_slice(br#","body":"#);
    write_body(out);
    end_call(out, fields);
}

/// Appends what stands before and behind a call's body; the answer says where in `out` that is.
///
/// A large body then needn't be copied; [`is_unbroken`] says whether it may go between as it is.
pub fn call_around(out: &mut Vec<u8>, id: Option<Id<'_>>, fields: &CallFields) -> usize {
    let mut body_at = 0;
    call_with(out, id, fields, |out| body_at = out.len());
    body_at
}

/// Appends a call with several bodies, for a peer that declared a `batch` of as many.
pub fn calls<'b>(
    out: &mut Vec<u8>,
    id: Option<Id<'_>>,
    bodies: impl IntoIterator<Item = &'b [u8]>,
    fields: &CallFields,
) {
    calls_with(out, id, fields, bodies, push_body);
}

/// Appends a call with several bodies, each of which `write_body` appends: exactly one JSON value
/// without line breaks.
///
/// It saves a copy where bodies are made on the spot, as by [`json_string`](crate::json_string).
pub fn calls_with<B>(
    out: &mut Vec<u8>,
    id: Option<Id<'_>>,
    fields: &CallFields,
    bodies: impl IntoIterator<Item = B>,
    mut write_body: impl FnMut(&mut Vec<u8>, B),
) {
    begin_call(out, id);
    out.extend_from_slice(br#","bodies":["#);
    for (place, body) in bodies.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_body(out, body);
    }
    out.push(b']');
    end_call(out, fields);
}

#[inline]
fn begin_call(out: &mut Vec<u8>, id: Option<Id<'_>>) {
    match id {
        Some(id) => {
            out.extend_from_slice(br#"{"op":"call","id":"#);
            push_id(out, id);
        }
        None => out.extend_from_slice(br#"{"op":"call""#),
    }
}

#[inline]
fn end_call(out: &mut Vec<u8>, fields: &CallFields) {
    if let Some(timeout_ms) = fields.timeout_ms {
        out.extend_from_slice(br#","timeout_ms":"#);
        push_number(out, timeout_ms);
    }
    if fields.hops > 0 {
        out.extend_from_slice(br#","hops":"#);
        push_number(out, u64::from(fields.hops));
    }
    out.extend_from_slice(b"}\n");
}

/// Appends a request to stop the call with this id.
pub fn cancel(out: &mut Vec<u8>, id: Id<'_>) {
    op(out, "cancel", Some(id));
}

/// Appends a request for a report.
pub fn status(out: &mut Vec<u8>, id: Option<Id<'_>>) {
    op(out, "status", id);
}

/// Appends a request to replace all workers.
pub fn reset(out: &mut Vec<u8>, id: Option<Id<'_>>) {
    op(out, "reset", id);
}

/// Appends a request to end.
pub fn shutdown(out: &mut Vec<u8>, id: Option<Id<'_>>) {
    op(out, "shutdown", id);
}

fn op(out: &mut Vec<u8>, name: &str, id: Option<Id<'_>>) {
    begin_op(out, name, id);
    out.extend_from_slice(b"}\n");
}

fn begin_op(out: &mut Vec<u8>, name: &str, id: Option<Id<'_>>) {
    out.extend_from_slice(br#"{"op":""#);
    out.extend_from_slice(name.as_bytes());
    out.push(b'"');
    if let Some(id) = id {
        out.extend_from_slice(br#","id":"#);
        push_id(out, id);
    }
}

/// Appends the answer to a handshake.
pub fn offer(out: &mut Vec<u8>, id: Option<Id<'_>>, offer: &Offer) {
    begin_ok(out, id, "handshake");
    out.extend_from_slice(br#","version":"#);
    json_str(out, &offer.version);
    out.extend_from_slice(br#","instance":"#);
    json_str(out, &offer.instance);
    out.extend_from_slice(br#","pid":"#);
    push_number(out, u64::from(offer.pid));
    out.extend_from_slice(br#","capacity":"#);
    push_number(out, u64::from(offer.capacity));
    out.extend_from_slice(br#","ordered":"#);
    out.extend_from_slice(if offer.ordered { b"true" } else { b"false" });
    out.extend_from_slice(br#","batch":"#);
    push_number(out, u64::from(offer.batch));
    out.extend_from_slice(br#","capabilities":["#);
    let mut separator: &[u8] = b"";
    for name in &offer.capabilities {
        out.extend_from_slice(separator);
        json_str(out, name);
        separator = b",";
    }
    out.extend_from_slice(b"]}}\n");
}

/// Appends a job's result.
#[inline]
pub fn result(out: &mut Vec<u8>, id: Option<Id<'_>>, body: &[u8]) {
    begin_result(out, id);
    push_body(out, body);
    out.extend_from_slice(b"}}\n");
}

/// Appends a job's result whose body `write_body` appends: exactly one JSON value without line
/// breaks. If it fails, `out` is as it was.
///
/// # Errors
///
/// Those of `write_body`.
#[inline]
pub fn result_with<E>(
    out: &mut Vec<u8>,
    id: Option<Id<'_>>,
    write_body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let before = out.len();
    begin_result(out, id);
    if let Err(error) = write_body(out) {
        out.truncate(before);
        return Err(error);
    }
    out.extend_from_slice(b"}}\n");
    Ok(())
}

/// Appends what stands before and behind a result's body; the answer says where in `out` that is.
///
/// A large body then needn't be copied; [`is_unbroken`] says whether it may go between as it is.
pub fn result_around(out: &mut Vec<u8>, id: Option<Id<'_>>) -> usize {
    begin_result(out, id);
    let body_at = out.len();
    out.extend_from_slice(b"}}\n");
    body_at
}

/// Appends the results of a batch: each body, or why there is none.
pub fn results<'b>(
    out: &mut Vec<u8>,
    id: Option<Id<'_>>,
    outcomes: impl IntoIterator<Item = Result<&'b [u8], Fault<'b>>>,
) {
    let mut writer = ResultsWriter::new(out, id);
    for outcome in outcomes {
        match outcome {
            Ok(body) => writer.ok(body),
            Err(fault) => writer.fail(&fault),
        }
    }
    writer.finish();
}

/// Writes the results of a batch one by one, as a worker makes them.
///
/// Without [`ResultsWriter::finish`], what it appended is no complete line.
#[derive(Debug)]
pub struct ResultsWriter<'o> {
    out: &'o mut Vec<u8>,
    failed: Vec<u8>,
    count: u64,
}

impl<'o> ResultsWriter<'o> {
    /// Begins the answer to the call with this id.
    pub fn new(out: &'o mut Vec<u8>, id: Option<Id<'_>>) -> ResultsWriter<'o> {
        begin_ok(out, id, "results");
        out.extend_from_slice(br#","bodies":["#);
        ResultsWriter { out, failed: Vec::new(), count: 0 }
    }

    /// Adds a result.
    pub fn ok(&mut self, body: &[u8]) {
        self.separate();
        push_body(self.out, body);
    }

    /// Adds a result that `write_body` appends; if it fails, nothing was added.
    ///
    /// # Errors
    ///
    /// Those of `write_body`.
    pub fn ok_with<E>(
        &mut self,
        write_body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.out.len();
        self.separate();
        let written = write_body(self.out);
        if written.is_err() {
            self.out.truncate(before);
            self.count -= 1;
        }
        written
    }

    /// Adds a failure.
    pub fn fail(&mut self, fault: &Fault<'_>) {
        self.failed.extend_from_slice(if self.failed.is_empty() { b"\"" } else { b",\"" });
        push_number(&mut self.failed, self.count);
        self.failed.extend_from_slice(b"\":{");
        push_fault(&mut self.failed, fault);
        self.failed.push(b'}');
        self.separate();
        self.out.extend_from_slice(b"null");
    }

    fn separate(&mut self) {
        if self.count > 0 {
            self.out.push(b',');
        }
        self.count += 1;
    }

    /// Ends the line.
    pub fn finish(self) {
        self.out.push(b']');
        if !self.failed.is_empty() {
            self.out.extend_from_slice(br#","failed":{"#);
            self.out.extend_from_slice(&self.failed);
            self.out.push(b'}');
        }
        self.out.extend_from_slice(b"}}\n");
    }
}

/// Appends an answer of another kind: `status`, `reset`, `shutdown`.
///
/// `members` are further members of `data` as JSON text without braces, such as
/// `"workers":[],"queue":0`; empty for none.
pub fn ok(out: &mut Vec<u8>, id: Option<Id<'_>>, kind: &str, members: &[u8]) {
    begin_ok(out, id, kind);
    if !members.is_empty() {
        out.push(b',');
        push_unbroken(out, members);
    }
    out.extend_from_slice(b"}}\n");
}

/// Begins a result, up to its body.
#[inline]
fn begin_result(out: &mut Vec<u8>, id: Option<Id<'_>>) {
    match id {
        Some(id) => {
            out.extend_from_slice(br#"{"id":"#);
            push_id(out, id);
            out.extend_from_slice(br#","ok":true,"data":{"kind":"result","body":"#);
        }
        None => out.extend_from_slice(br#"{"ok":true,"data":{"kind":"result","body":"#),
    }
}

fn begin_ok(out: &mut Vec<u8>, id: Option<Id<'_>>, kind: &str) {
    out.push(b'{');
    if let Some(id) = id {
        out.extend_from_slice(br#""id":"#);
        push_id(out, id);
        out.push(b',');
    }
    out.extend_from_slice(br#""ok":true,"data":{"kind":""#);
    out.extend_from_slice(kind.as_bytes());
    out.push(b'"');
}

/// Why there is no result, to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault<'a> {
    /// The code.
    pub code: Code,
    /// The message.
    pub error: &'a str,
    /// Where the handler failed, if its language says so.
    pub traceback: Option<&'a str>,
}

/// Appends a failure without a traceback.
pub fn error(out: &mut Vec<u8>, id: Option<Id<'_>>, code: Code, error: &str) {
    fault(out, id, &Fault { code, error, traceback: None });
}

/// Appends a failure.
pub fn fault(out: &mut Vec<u8>, id: Option<Id<'_>>, fault: &Fault<'_>) {
    begin_error(out, id);
    push_fault(out, fault);
    out.extend_from_slice(b"}\n");
}

/// Passes on a failure that a worker sent, under another id: its text is copied as it came.
pub fn failure(out: &mut Vec<u8>, id: Option<Id<'_>>, failure: &Failure<'_>) {
    begin_error(out, id);
    out.extend_from_slice(br#""code":"#);
    out.extend_from_slice(failure.code_text.as_json().as_bytes());
    out.extend_from_slice(br#","error":"#);
    out.extend_from_slice(failure.error.as_json().as_bytes());
    if let Some(traceback) = failure.traceback {
        out.extend_from_slice(br#","traceback":"#);
        out.extend_from_slice(traceback.as_json().as_bytes());
    }
    out.extend_from_slice(b"}\n");
}

fn begin_error(out: &mut Vec<u8>, id: Option<Id<'_>>) {
    out.push(b'{');
    if let Some(id) = id {
        out.extend_from_slice(br#""id":"#);
        push_id(out, id);
        out.push(b',');
    }
    out.extend_from_slice(br#""ok":false,"#);
}

fn push_fault(out: &mut Vec<u8>, fault: &Fault<'_>) {
    out.extend_from_slice(br#""code":""#);
    out.extend_from_slice(fault.code.as_str().as_bytes());
    out.extend_from_slice(br#"","error":"#);
    json_str(out, fault.error);
    if let Some(traceback) = fault.traceback {
        out.extend_from_slice(br#","traceback":"#);
        json_str(out, traceback);
    }
}

/// Appends a checked JSON value without the line breaks between its tokens.
#[inline]
pub fn push_body(out: &mut Vec<u8>, body: &[u8]) {
    if is_one_string(body) {
        out.extend_from_slice(body);
    } else {
        push_unbroken(out, body);
    }
}

/// Whether a checked JSON value has no line breaks between its tokens.
#[must_use]
pub fn is_unbroken(body: &[u8]) -> bool {
    is_one_string(body) || memchr2(b'\n', b'\r', body).is_none()
}

/// A string is one token, and can't hold a raw line break.
#[inline]
fn is_one_string(body: &[u8]) -> bool {
    matches!(body, [b'"', .., b'"'])
}

/// Appends checked JSON text without its line breaks: they can only stand between tokens.
fn push_unbroken(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(at) = memchr2(b'\n', b'\r', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Appends an id as it came.
#[inline]
fn push_id(out: &mut Vec<u8>, id: Id<'_>) {
    match id {
        Id::Number(number) => push_number(out, number),
        Id::Token(token) => out.extend_from_slice(token.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::push_body;

    #[test]
    fn line_breaks_between_tokens_are_left_out() {
        for (body, expected) in [
            (r#""a string""#, r#""a string""#),
            ("\"a\"\r", r#""a""#),
            ("{\"a\":\r\n[1,\n2]}", r#"{"a":[1,2]}"#),
            ("[\"a\",\n\"b\"]", r#"["a","b"]"#),
            ("7\n", "7"),
        ] {
            let mut out = Vec::new();
            push_body(&mut out, body.as_bytes());
            assert_eq!(out, expected.as_bytes());
        }
    }
}
