//! Running a call and writing its answer.

use remuda_protocol::encode::{self, Fault, ResultsWriter};
use remuda_protocol::{Bodies, Call, Code, Id, Payload, Raw};

use crate::handler::{Handler, guarded};
use crate::job::Job;
use crate::permits::Permits;

/// What all connections of a worker share.
pub(crate) struct Runner {
    pub(crate) handler: Box<dyn Handler>,
    /// How many calls run at once; `None` where one thread alone runs them.
    pub(crate) permits: Option<Permits>,
    pub(crate) max_body_bytes: usize,
}

impl Runner {
    /// Runs a call and appends its answer to `out`. The caller has made `job` the current one.
    pub(crate) fn call(&self, id: Option<Id<'_>>, call: &Call<'_>, job: &Job, out: &mut Vec<u8>) {
        let permit = self.permits.as_ref().map(Permits::acquire);
        if job.is_cancelled() {
            return encode::error(out, id, Code::Cancelled, "cancelled before it ran");
        }
        match call.payload {
            Payload::One(body) => self.one(id, body, job, out),
            Payload::Many(bodies) => self.many(id, bodies, job, out),
        }
        drop(permit);
    }

    fn one(&self, id: Option<Id<'_>>, body: Raw<'_>, job: &Job, out: &mut Vec<u8>) {
        let written = encode::result_with(out, id, |out| self.bounded(body, job, out));
        if let Err((code, error)) = written {
            encode::error(out, id, code, &error);
        }
    }

    fn many(&self, id: Option<Id<'_>>, bodies: Bodies<'_>, job: &Job, out: &mut Vec<u8>) {
        let mut writer = ResultsWriter::new(out, id);
        match self.handler.list(bodies) {
            Some(outcomes) => {
                for outcome in outcomes {
                    match outcome {
                        Ok(body) if body.len() > self.max_body_bytes => {
                            fail(&mut writer, self.too_large(body.len()));
                        }
                        Ok(body) => writer.ok(&body),
                        Err(error) => fail(&mut writer, failed(job, error)),
                    }
                }
            }
            None => {
                for body in bodies {
                    let written = writer.ok_with(|out| self.bounded(body, job, out));
                    if let Err(failure) = written {
                        fail(&mut writer, failure);
                    }
                }
            }
        }
        writer.finish();
    }

    /// Appends one result, if the handler gives one that is not too large.
    fn bounded(&self, body: Raw<'_>, job: &Job, out: &mut Vec<u8>) -> Result<(), (Code, String)> {
        let start = out.len();
        guarded(|| self.handler.one(body, out)).map_err(|error| failed(job, error))?;
        match out.len() - start {
            length if length > self.max_body_bytes => Err(self.too_large(length)),
            _ => Ok(()),
        }
    }

    fn too_large(&self, length: usize) -> (Code, String) {
        let limit = self.max_body_bytes;
        (Code::BodyTooLarge, format!("the result has {length} bytes, and {limit} are allowed"))
    }
}

fn failed(job: &Job, error: String) -> (Code, String) {
    (if job.is_cancelled() { Code::Cancelled } else { Code::HandlerError }, error)
}

fn fail(writer: &mut ResultsWriter<'_>, (code, error): (Code, String)) {
    writer.fail(&Fault { code, error: &error, traceback: None });
}
