//! Requests: what the connecting side sends, one line each.

use std::borrow::Cow;

use crate::bodies::Bodies;
use crate::code::Code;
use crate::id::{Id, IdBuf};
use crate::object::{Members, whole_number};
use crate::raw::{BadJson, Raw, utf8};
use crate::scan::Stop;
use crate::shapes;
use crate::text::Text;

/// One request, borrowed from its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// The id to echo, if it has one. Without one, answers come in the order of the requests.
    pub id: Option<Id<'a>>,
    /// What is asked for.
    pub op: Op<'a>,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op<'a> {
    /// The first message of each connection.
    Handshake {
        /// The version that the sender speaks; empty if it didn't say.
        version: Cow<'a, str>,
        /// The token, where the listener needs one.
        token: Option<Cow<'a, str>>,
    },
    /// Run a job, or several.
    Call(Call<'a>),
    /// Stop the call with the request's id, which is always there. It has no answer of its own.
    Cancel,
    /// Report on itself.
    Status,
    /// Replace all workers. An admin operation.
    Reset,
    /// Finish what was accepted, and end. An admin operation.
    Shutdown,
}

/// A job, or a batch of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// The input.
    pub payload: Payload<'a>,
    /// How long the call may take from its arrival, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// How many pools have passed the call on already; 0 from a client.
    pub hops: u32,
}

/// The input of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// `body`: one job.
    One(Raw<'a>),
    /// `bodies`: a batch of at least one.
    Many(Bodies<'a>),
}

/// Why a line is no request. The answer to it carries `code`, `message` and, where it could be
/// read, `id`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadRequest {
    /// `bad_request` or `unknown_op`.
    pub code: Code,
    /// The id of the request, where it could be read.
    pub id: Option<IdBuf>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl<'a> Request<'a> {
    /// Reads one line, without its `\n`.
    ///
    /// It allocates nothing unless the line is wrong or escapes characters in a field's name.
    ///
    /// # Errors
    ///
    /// [`BadRequest`], ready to be sent back.
    #[inline]
    pub fn parse(line: &'a [u8]) -> Result<Request<'a>, BadRequest> {
        match shapes::call(line) {
            Some(request) => Ok(request),
            None => Request::read(line),
        }
    }

    /// Reads a line of any shape.
    fn read(line: &'a [u8]) -> Result<Request<'a>, BadRequest> {
        let mut fields = Fields::default();
        let read = utf8(line).map_err(Fault::from).and_then(|text| {
            fields.collect(text)?;
            Ok(Request { id: fields.id, op: fields.op()? })
        });
        read.map_err(|Fault { code, message }| BadRequest {
            code,
            id: fields.id.map(IdBuf::from),
            message,
        })
    }
}

struct Fault {
    code: Code,
    message: String,
}

fn fault(message: impl Into<String>) -> Fault {
    Fault { code: Code::BadRequest, message: message.into() }
}

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Fault {
        BadJson::from(stop).into()
    }
}

impl From<BadJson> for Fault {
    fn from(error: BadJson) -> Fault {
        fault(format!("the request is {error}"))
    }
}

#[derive(Default)]
struct Fields<'a> {
    id: Option<Id<'a>>,
    op: Option<Raw<'a>>,
    body: Option<Raw<'a>>,
    bodies: Option<Bodies<'a>>,
    timeout_ms: Option<Raw<'a>>,
    hops: Option<Raw<'a>>,
    version: Option<Raw<'a>>,
    token: Option<Raw<'a>>,
}

impl<'a> Fields<'a> {
    /// Reads the members. What is wrong with a value is said at the end, so that an `id` behind it
    /// is still found; broken JSON ends the reading.
    fn collect(&mut self, text: &'a str) -> Result<(), Fault> {
        let mut members =
            Members::open(text, 0)?.ok_or_else(|| fault("a request must be a JSON object"))?;
        let mut wrong = None;
        while let Some(key) = members.key()? {
            let twice = match &*key {
                "op" => self.op.replace(members.value()?).is_some(),
                "id" => {
                    let value = members.value()?;
                    let twice = self.id.is_some();
                    self.id = Id::from_value(value.as_str());
                    if self.id.is_none() {
                        wrong
                            .get_or_insert("`id` must be a number or a string of at most 64 bytes");
                    }
                    twice
                }
                "body" => self.body.replace(members.value()?).is_some(),
                "bodies" => match Bodies::read(text, members.at)? {
                    Some((bodies, end)) => {
                        members.at = end;
                        self.bodies.replace(bodies).is_some()
                    }
                    None => {
                        members.value()?;
                        wrong.get_or_insert("`bodies` must be an array");
                        false
                    }
                },
                "timeout_ms" => self.timeout_ms.replace(members.value()?).is_some(),
                "hops" => self.hops.replace(members.value()?).is_some(),
                "version" => self.version.replace(members.value()?).is_some(),
                "token" => self.token.replace(members.value()?).is_some(),
                _ => {
                    members.value()?;
                    false
                }
            };
            if twice {
                wrong.get_or_insert("a field is there twice");
            }
        }
        members.finish()?;
        wrong.map_or(Ok(()), |message| Err(fault(message)))
    }

    fn op(&self) -> Result<Op<'a>, Fault> {
        let op = self
            .op
            .and_then(|op| Text::from_value(op.as_str()))
            .ok_or_else(|| fault("`op` is missing or not a string"))?;
        if op.is("call") {
            return self.call().map(Op::Call);
        }
        match &*op.decode() {
            "handshake" => Ok(Op::Handshake {
                version: self.text(self.version, "version")?.unwrap_or_default(),
                token: self.text(self.token, "token")?,
            }),
            "cancel" if self.id.is_none() => Err(fault("`cancel` needs the `id` of the call")),
            "cancel" => Ok(Op::Cancel),
            "status" => Ok(Op::Status),
            "reset" => Ok(Op::Reset),
            "shutdown" => Ok(Op::Shutdown),
            other => Err(unknown_op(other)),
        }
    }

    fn call(&self) -> Result<Call<'a>, Fault> {
        let payload = match (self.body, self.bodies) {
            (Some(body), None) => Payload::One(body),
            (None, Some(bodies)) if bodies.is_empty() => {
                return Err(fault("`bodies` must hold at least one body"));
            }
            (None, Some(bodies)) => Payload::Many(bodies),
            (None, None) => return Err(fault("a call needs a `body`")),
            (Some(_), Some(_)) => {
                return Err(fault("a call has either `body` or `bodies`, not both"));
            }
        };
        let timeout_ms = number(self.timeout_ms, "timeout_ms")?;
        let hops = number(self.hops, "hops")?.unwrap_or(0);
        Ok(Call { payload, timeout_ms, hops: u32::try_from(hops).unwrap_or(u32::MAX) })
    }

    fn text(&self, value: Option<Raw<'a>>, name: &str) -> Result<Option<Cow<'a, str>>, Fault> {
        match value.map(Raw::as_str) {
            None | Some("null") => Ok(None),
            Some(json) => Text::from_value(json)
                .map(|text| Some(text.decode()))
                .ok_or_else(|| fault(format!("`{name}` must be a string"))),
        }
    }
}

fn number(value: Option<Raw<'_>>, name: &str) -> Result<Option<u64>, Fault> {
    let Some(value) = value else { return Ok(None) };
    whole_number(value).ok_or_else(|| fault(format!("`{name}` must be a number of at least 0")))
}

fn unknown_op(op: &str) -> Fault {
    // The peer's text goes into the answer and into logs: bound it.
    let shown: String = op.chars().take(32).collect();
    Fault {
        code: Code::UnknownOp,
        message: format!(
            "unknown op {shown:?}: known are handshake, call, cancel, status, reset, shutdown"
        ),
    }
}

/// The id in the beginning of a line that is too long to be read whole, if it stands there.
///
/// So that the refusal of a body over the limit can say whose it was: write `id` before `body`.
#[must_use]
pub fn salvage_id(beginning: &[u8]) -> Option<IdBuf> {
    // The cut may be inside a character.
    let text = match str::from_utf8(beginning) {
        Ok(text) => text,
        Err(error) => str::from_utf8(&beginning[..error.valid_up_to()]).ok()?,
    };
    let mut members = Members::open(text, 0).ok()??;
    while let Some(key) = members.key().ok()? {
        let value = members.value().ok()?;
        if key == "id" {
            return Id::from_value(value.as_str()).map(IdBuf::from);
        }
    }
    None
}
