//! Which lines can be jobs.

use remuda_engine::{Code, Failed};
use remuda_protocol::Raw;

use super::emit::failure;

/// What a line has to be.
pub(super) struct Lines {
    /// Each is a JSON value.
    pub(super) json: bool,
    pub(super) delimiter: u8,
    /// Bytes of a line, at most.
    pub(super) max_len: usize,
    /// The workers take any bytes, but for line breaks.
    pub(super) takes_bytes: bool,
}

impl Lines {
    /// Says why a line can't be a job.
    pub(super) fn check(&self, line: &[u8]) -> Result<(), Failed> {
        if line.len() > self.max_len {
            return Err(self.too_long(line.len() as u64));
        }
        if self.json {
            Raw::new(line).map(|_| ()).map_err(|error| {
                failure(Code::BadRequest, format!("the line is not a JSON value: {error}"))
            })
        } else if self.takes_bytes {
            match self.delimiter != b'\n' && memchr::memchr(b'\n', line).is_some() {
                true => Err(failure(
                    Code::BadRequest,
                    "the job holds a line break, which a filter takes for two jobs",
                )),
                false => Ok(()),
            }
        } else {
            std::str::from_utf8(line).map(|_| ()).map_err(|error| {
                let at = error.valid_up_to() + 1;
                let message =
                    format!("the line is not UTF-8 (at byte {at}): only --stdio takes any bytes");
                failure(Code::BadRequest, message)
            })
        }
    }

    pub(super) fn too_long(&self, bytes: u64) -> Failed {
        let limit = self.max_len;
        let message = format!(
            "the line has {bytes} bytes, and a job at most {limit}: raise --max-body-bytes"
        );
        failure(Code::BodyTooLarge, message)
    }
}
