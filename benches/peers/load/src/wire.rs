//! How a call is written, and how answers are counted.

use std::io::{Error, ErrorKind, Result, Write};

use crate::options::Options;

/// The handshake that begins a connection of lines.
pub const HANDSHAKE: &[u8] = b"{\"op\":\"handshake\",\"version\":\"1\"}\n";

/// How much of an answer's head is looked at.
const HEAD_MAX: usize = 4096;

/// Writes calls.
pub struct Caller {
    http: Option<Vec<u8>>,
    body: Vec<u8>,
    next: u64,
}

impl Caller {
    /// Of such calls.
    pub fn new(options: &Options) -> Self {
        let mut body = vec![b'"'];
        body.extend(
            b"the quick brown fox jumps over the lazy dog ".iter().cycle().take(options.bytes),
        );
        body.push(b'"');
        let http = options.http.then(|| {
            let mut request = format!(
                "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                options.path,
                body.len()
            )
            .into_bytes();
            request.extend_from_slice(&body);
            request
        });
        Self { http, body, next: 0 }
    }

    /// Appends the next call.
    pub fn write(&mut self, out: &mut Vec<u8>) {
        if let Some(request) = &self.http {
            return out.extend_from_slice(request);
        }
        self.next += 1;
        // Writing to memory can't fail.
        let _ = write!(out, "{{\"op\":\"call\",\"id\":{},\"body\":", self.next);
        out.extend_from_slice(&self.body);
        out.extend_from_slice(b"}\n");
    }
}

/// Counts the answers in a stream of bytes.
#[derive(Default)]
pub struct Answers {
    /// Those with a result.
    pub done: u64,
    /// Those without.
    pub failed: u64,
    head: Vec<u8>,
    /// Of an HTTP body, what is still to come.
    body_left: usize,
}

impl Answers {
    /// All that came so far.
    pub fn all(&self) -> u64 {
        self.done + self.failed
    }

    /// Takes what came.
    pub fn take(&mut self, http: bool, bytes: &[u8]) -> Result<()> {
        if http { self.take_http(bytes) } else { self.take_lines(bytes) }
    }

    fn take_lines(&mut self, mut bytes: &[u8]) -> Result<()> {
        const ENOUGH: usize = 48;
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.keep(&bytes[..end], ENOUGH);
            let failed = self.head.windows(10).any(|word| word == b"\"ok\":false");
            self.head.clear();
            self.count(!failed);
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes, ENOUGH);
        Ok(())
    }

    fn take_http(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let taken = self.body_left.min(bytes.len());
                self.body_left -= taken;
                bytes = &bytes[taken..];
                continue;
            }
            let before = self.head.len();
            self.keep(bytes, HEAD_MAX);
            let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
                return match self.head.len() {
                    HEAD_MAX => {
                        Err(Error::new(ErrorKind::InvalidData, "the answer has no end of head"))
                    }
                    _ => Ok(()),
                };
            };
            let head = String::from_utf8_lossy(&self.head[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            self.body_left =
                length.and_then(|length| length.trim().parse().ok()).ok_or_else(|| {
                    Error::new(ErrorKind::InvalidData, "the answer has no Content-Length")
                })?;
            self.count(head.starts_with("http/1.1 200"));
            bytes = &bytes[end + 4 - before..];
            self.head.clear();
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8], at_most: usize) {
        let room = at_most.saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    fn count(&mut self, ok: bool) {
        if ok {
            self.done += 1;
        } else {
            self.failed += 1;
        }
    }

    /// Whether an answer has come whole, and nothing of another.
    pub fn between(&self) -> bool {
        self.body_left == 0 && self.head.is_empty()
    }
}
