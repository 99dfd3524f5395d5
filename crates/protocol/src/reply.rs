//! Replies: what the accepting side sends, one line each.

use std::borrow::Cow;

use crate::bodies::Bodies;
use crate::code::Code;
use crate::id::{Id, IdBuf};
use crate::object::Members;
use crate::offer::Offer;
use crate::raw::{BadJson, Raw, utf8};
use crate::scan::Stop;
use crate::shapes;
use crate::text::Text;

/// One reply, borrowed from its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The id of the request, if it had one.
    pub id: Option<Id<'a>>,
    /// The answer.
    pub answer: Answer<'a>,
}

/// What a reply says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The answer to a handshake.
    Handshake(Offer),
    /// A job's result.
    Result(Raw<'a>),
    /// The results of a batch.
    Results(Results<'a>),
    /// There is no result.
    Error(Failure<'a>),
    /// The whole `data` object of the answer to `status`.
    Status(Raw<'a>),
    /// The whole `data` object of another kind: the answers to `reset` and `shutdown`, and kinds
    /// of a later version.
    Other {
        /// `data.kind`; empty if there is none.
        kind: Cow<'a, str>,
        /// The object.
        data: Raw<'a>,
    },
}

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure<'a> {
    /// The code, or `None` for one that this version doesn't know.
    pub code: Option<Code>,
    /// The code as it was written.
    pub code_text: Text<'a>,
    /// The message.
    pub error: Text<'a>,
    /// Where the handler failed, if its language says so.
    pub traceback: Option<Text<'a>>,
}

/// The results of a batch, some of which may have failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Results<'a> {
    /// One for each body of the call, in its order; `null` in the place of a failed one.
    pub bodies: Bodies<'a>,
    /// The object whose keys are the indices of those that failed.
    failed: Option<Raw<'a>>,
}

/// Why a line is no reply. The peer that sent it doesn't speak the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadReply {
    /// The id, where it could be read.
    pub id: Option<IdBuf>,
    /// What is wrong.
    pub message: String,
}

impl<'a> Reply<'a> {
    /// Reads one line, without its `\n`.
    ///
    /// It allocates nothing for results and failures unless the line is wrong.
    ///
    /// # Errors
    ///
    /// [`BadReply`] if the line is not valid JSON or not a reply.
    #[inline]
    pub fn parse(line: &'a [u8]) -> Result<Reply<'a>, BadReply> {
        match shapes::result(line) {
            Some(reply) => Ok(reply),
            None => Reply::read(line),
        }
    }

    /// Reads a line of any shape.
    fn read(line: &'a [u8]) -> Result<Reply<'a>, BadReply> {
        let mut fields = Fields::default();
        let read = utf8(line).map_err(Fault::from).and_then(|text| {
            fields.collect(text)?;
            Ok(Reply { id: fields.id, answer: fields.answer()? })
        });
        read.map_err(|Fault(message)| BadReply { id: fields.id.map(IdBuf::from), message })
    }
}

struct Fault(String);

fn fault(message: impl Into<String>) -> Fault {
    Fault(message.into())
}

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Fault {
        BadJson::from(stop).into()
    }
}

impl From<BadJson> for Fault {
    fn from(error: BadJson) -> Fault {
        Fault(format!("the reply is {error}"))
    }
}

#[derive(Default)]
struct Fields<'a> {
    id: Option<Id<'a>>,
    ok: Option<bool>,
    data: Option<Data<'a>>,
    failure: FailureFields<'a>,
}

impl<'a> Fields<'a> {
    fn collect(&mut self, text: &'a str) -> Result<(), Fault> {
        let mut members =
            Members::open(text, 0)?.ok_or_else(|| fault("a reply must be a JSON object"))?;
        while let Some(key) = members.key()? {
            let twice = match &*key {
                "id" => {
                    let value = members.value()?;
                    let id = Id::from_value(value.as_str()).ok_or_else(|| {
                        fault("`id` must be a number or a string of at most 64 bytes")
                    })?;
                    self.id.replace(id).is_some()
                }
                "ok" => {
                    let ok = match members.value()?.as_str() {
                        "true" => true,
                        "false" => false,
                        _ => return Err(fault("`ok` must be true or false")),
                    };
                    self.ok.replace(ok).is_some()
                }
                "data" => {
                    let (data, end) = Data::read(text, members.at)?;
                    members.at = end;
                    self.data.replace(data).is_some()
                }
                _ => self.failure.take(&key, members.value()?),
            };
            if twice {
                return Err(fault(format!("`{key}` is there twice")));
            }
        }
        members.finish()?;
        Ok(())
    }

    fn answer(&self) -> Result<Answer<'a>, Fault> {
        match (self.ok, self.data) {
            (Some(true), Some(data)) => data.answer(),
            (Some(true), None) => Err(fault("`data` is missing")),
            (Some(false), _) => self.failure.read().map(Answer::Error).map_err(fault),
            (None, _) => Err(fault("`ok` is missing")),
        }
    }
}

/// The members of a reply's `data` that answers to calls have, and its whole text.
#[derive(Clone, Copy)]
struct Data<'a> {
    text: Raw<'a>,
    kind: Option<Text<'a>>,
    body: Option<Raw<'a>>,
    bodies: Option<Bodies<'a>>,
    failed: Option<Raw<'a>>,
}

impl<'a> Data<'a> {
    fn read(text: &'a str, start: usize) -> Result<(Data<'a>, usize), Fault> {
        let mut members =
            Members::open(text, start)?.ok_or_else(|| fault("`data` must be an object"))?;
        let (mut kind, mut body, mut bodies, mut failed) = (None, None, None, None);
        while let Some(key) = members.key()? {
            let twice = match &*key {
                "kind" => {
                    let value = Text::from_value(members.value()?.as_str())
                        .ok_or_else(|| fault("`data.kind` must be a string"))?;
                    kind.replace(value).is_some()
                }
                "body" => body.replace(members.value()?).is_some(),
                "bodies" => match Bodies::read(text, members.at)? {
                    Some((array, end)) => {
                        members.at = end;
                        bodies.replace(array).is_some()
                    }
                    // Only `results` gives the name a meaning; `status` may hold any value.
                    None => {
                        members.value()?;
                        false
                    }
                },
                "failed" => failed.replace(members.value()?).is_some(),
                _ => {
                    members.value()?;
                    false
                }
            };
            if twice {
                return Err(fault(format!("`data.{key}` is there twice")));
            }
        }
        let end = members.at;
        let text = Raw::checked(&text[start..end]);
        Ok((Data { text, kind, body, bodies, failed }, end))
    }

    fn answer(self) -> Result<Answer<'a>, Fault> {
        let Some(kind) = self.kind else {
            return Ok(Answer::Other { kind: Cow::Borrowed(""), data: self.text });
        };
        if kind.is("result") {
            return self.body.map(Answer::Result).ok_or_else(|| fault("a result needs a `body`"));
        }
        match kind.decode() {
            kind if kind == "results" => self.results().map(Answer::Results),
            kind if kind == "handshake" => {
                Offer::read(self.text).map(Answer::Handshake).map_err(Fault)
            }
            kind if kind == "status" => Ok(Answer::Status(self.text)),
            kind => Ok(Answer::Other { kind, data: self.text }),
        }
    }

    fn results(self) -> Result<Results<'a>, Fault> {
        let bodies = self.bodies.ok_or_else(|| fault("results need `bodies`, an array"))?;
        let failed = self.failed.filter(|failed| !matches!(failed.as_str(), "{}" | "null"));
        if let Some(failed) = failed {
            each_failure(failed, |index, _| match index < bodies.len() {
                true => Ok(()),
                false => Err(format!("`failed` names body {index} of {}", bodies.len())),
            })
            .map_err(Fault)?;
        }
        Ok(Results { bodies, failed })
    }
}

/// Reads an object of failures by index, and hands each to `take`.
fn each_failure<'a>(
    failed: Raw<'a>,
    mut take: impl FnMut(usize, Failure<'a>) -> Result<(), String>,
) -> Result<(), String> {
    let not_object = || "`failed` must be an object of objects".to_owned();
    let broken = |stop: Stop| BadJson::from(stop).to_string();
    let mut members = Members::open(failed.as_str(), 0).map_err(broken)?.ok_or_else(not_object)?;
    while let Some(key) = members.key().map_err(broken)? {
        let index = key.parse().map_err(|_| format!("`failed` has the key {key:?}: an index"))?;
        let value = members.value().map_err(broken)?;
        let mut fields = FailureFields::default();
        let mut inner = Members::open(value.as_str(), 0).map_err(broken)?.ok_or_else(not_object)?;
        while let Some(key) = inner.key().map_err(broken)? {
            fields.take(&key, inner.value().map_err(broken)?);
        }
        take(index, fields.read()?)?;
    }
    Ok(())
}

#[derive(Default)]
struct FailureFields<'a> {
    code: Option<Raw<'a>>,
    error: Option<Raw<'a>>,
    traceback: Option<Raw<'a>>,
}

impl<'a> FailureFields<'a> {
    /// Keeps the value of a field that failures have; says whether it was there already.
    fn take(&mut self, key: &str, value: Raw<'a>) -> bool {
        match key {
            "code" => self.code.replace(value).is_some(),
            "error" => self.error.replace(value).is_some(),
            "traceback" => self.traceback.replace(value).is_some(),
            _ => false,
        }
    }

    fn read(&self) -> Result<Failure<'a>, &'static str> {
        let text = |value: Option<Raw<'a>>| Text::from_value(value?.as_str());
        let code_text = text(self.code).ok_or("`code` of a failure must be a string")?;
        let error = text(self.error).ok_or("`error` of a failure must be a string")?;
        let code = Code::parse(&code_text.decode());
        Ok(Failure { code, code_text, error, traceback: text(self.traceback) })
    }
}

impl<'a> Results<'a> {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bodies.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bodies.is_empty()
    }

    /// Each body's result or failure, in order. It allocates only if some failed.
    #[must_use]
    pub fn outcomes(&self) -> Outcomes<'a> {
        let mut failures = Vec::new();
        if let Some(failed) = self.failed {
            // It was read once already, so it can't fail again.
            let _ = each_failure(failed, |index, failure| {
                failures.push((index, failure));
                Ok(())
            });
            // The next one at the end; of two with one index, either will do.
            failures.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
            failures.dedup_by_key(|(index, _)| *index);
        }
        Outcomes { bodies: self.bodies.iter(), index: 0, failures }
    }
}

/// Walks over the outcomes of a batch.
#[derive(Debug, Clone)]
pub struct Outcomes<'a> {
    bodies: crate::bodies::BodiesIter<'a>,
    index: usize,
    failures: Vec<(usize, Failure<'a>)>,
}

impl<'a> Iterator for Outcomes<'a> {
    type Item = Result<Raw<'a>, Failure<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let body = self.bodies.next()?;
        let index = self.index;
        self.index += 1;
        match self.failures.pop_if(|(failed, _)| *failed == index) {
            Some((_, failure)) => Some(Err(failure)),
            None => Some(Ok(body)),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.bodies.size_hint()
    }
}

impl ExactSizeIterator for Outcomes<'_> {}
