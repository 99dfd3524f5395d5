//! Messages as bytes. Both sides are the same binary, so there are no versions.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::error::{StartError, StartFailure};
use super::frame::Frame;
use super::message::{Event, Scope, Signal, Spawn, Status};

/// What the pool asks.
#[derive(Debug)]
pub(crate) enum Request {
    Spawn { id: u64, spawn: Spawn },
    Signal { id: u64, signal: Signal, scope: Scope },
}

/// What the keeper answers.
#[derive(Debug)]
pub(crate) enum Report {
    /// The first message: the keeper serves.
    Ready { namespaced: bool },
    /// The first message: it can't.
    Refused { reason: String },
    /// The pid of `Started` is the keeper's view; the pool asks the pidfd for its own.
    Event(Event),
}

/// Bytes that are no message.
#[derive(Debug)]
pub(crate) struct Malformed;

impl Request {
    pub(crate) fn into_frame(self) -> Frame {
        let mut out = Writer::default();
        match self {
            Self::Spawn { id, spawn } => {
                out.u8(0).u64(id).text(&spawn.program);
                out.u64(spawn.args.len() as u64);
                for arg in &spawn.args {
                    out.text(arg);
                }
                out.u64(spawn.env.len() as u64);
                for (name, value) in &spawn.env {
                    out.text(name).option(value.as_deref());
                }
                out.option(spawn.cwd.as_ref().map(|path| path.as_os_str()));
                out.fd(spawn.socket).fd(spawn.stdin).fd(spawn.stdout).fd(spawn.stderr);
            }
            Self::Signal { id, signal, scope } => {
                out.u8(1).u64(id).u8(match signal {
                    Signal::Interrupt => 0,
                    Signal::Terminate => 1,
                    Signal::Kill => 2,
                });
                out.u8(match scope {
                    Scope::Process => 0,
                    Scope::Tree => 1,
                });
            }
        }
        out.0
    }

    /// Of a frame whose descriptors got lost, the absent ones are `None`.
    pub(crate) fn from_frame(frame: Frame) -> Result<Self, Malformed> {
        let mut from = Reader::new(&frame.body, frame.fds);
        let request = match from.u8()? {
            0 => Self::Spawn { id: from.u64()?, spawn: from.spawn()? },
            1 => Self::Signal {
                id: from.u64()?,
                signal: match from.u8()? {
                    0 => Signal::Interrupt,
                    1 => Signal::Terminate,
                    2 => Signal::Kill,
                    _ => return Err(Malformed),
                },
                scope: match from.u8()? {
                    0 => Scope::Process,
                    1 => Scope::Tree,
                    _ => return Err(Malformed),
                },
            },
            _ => return Err(Malformed),
        };
        from.end(request)
    }
}

impl Report {
    pub(crate) fn into_frame(self) -> Frame {
        let mut out = Writer::default();
        match self {
            Self::Ready { namespaced } => drop(out.u8(0).u8(namespaced.into())),
            Self::Refused { reason } => drop(out.u8(1).text(OsStr::new(&reason))),
            Self::Event(Event::Started { id, pid, pidfd }) => {
                out.u8(2).u64(id).u64(pid.into()).fd(pidfd);
            }
            Self::Event(Event::StartFailed { id, error }) => {
                out.u8(3).u64(id).text(&error.program).u64(error.errno as u64).failure(&error.kind);
            }
            Self::Event(Event::Exited { id, status }) => {
                let (kind, number) = match status {
                    Status::Code(code) => (0, code),
                    Status::Signal(signal) => (1, signal),
                };
                out.u8(4).u64(id).u8(kind).u64(number as u64);
            }
            Self::Event(Event::Cleared { id }) => drop(out.u8(5).u64(id)),
            Self::Event(Event::Lost) => drop(out.u8(6)),
        }
        out.0
    }

    pub(crate) fn from_frame(frame: Frame) -> Result<Self, Malformed> {
        let mut from = Reader::new(&frame.body, frame.fds);
        let report = match from.u8()? {
            0 => Self::Ready { namespaced: from.u8()? != 0 },
            1 => Self::Refused { reason: from.text()?.to_string_lossy().into_owned() },
            2 => {
                let (id, pid) = (from.u64()?, from.u64()? as u32);
                Self::Event(Event::Started { id, pid, pidfd: from.fd()? })
            }
            3 => {
                let id = from.u64()?;
                let program = from.text()?;
                let errno = from.u64()? as i32;
                let kind = from.failure()?;
                Self::Event(Event::StartFailed { id, error: StartError { program, kind, errno } })
            }
            4 => {
                let (id, kind, number) = (from.u64()?, from.u8()?, from.u64()? as i32);
                let status = if kind == 0 { Status::Code(number) } else { Status::Signal(number) };
                Self::Event(Event::Exited { id, status })
            }
            5 => Self::Event(Event::Cleared { id: from.u64()? }),
            6 => Self::Event(Event::Lost),
            _ => return Err(Malformed),
        };
        from.end(report)
    }
}

#[derive(Default)]
struct Writer(Frame);

impl Writer {
    fn u8(&mut self, value: u8) -> &mut Self {
        self.0.body.push(value);
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.body.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn text(&mut self, text: &OsStr) -> &mut Self {
        self.u64(text.len() as u64);
        self.0.body.extend_from_slice(text.as_bytes());
        self
    }

    fn option(&mut self, text: Option<&OsStr>) -> &mut Self {
        match text {
            None => self.u8(0),
            Some(text) => self.u8(1).text(text),
        }
    }

    fn fd(&mut self, fd: Option<OwnedFd>) -> &mut Self {
        self.u8(fd.is_some().into());
        self.0.fds.extend(fd);
        self
    }

    fn failure(&mut self, kind: &StartFailure) -> &mut Self {
        match kind {
            StartFailure::NotFound => self.u8(0),
            StartFailure::NotExecutable => self.u8(1),
            StartFailure::IsDirectory => self.u8(2),
            StartFailure::BadInterpreter(name) => self.u8(3).text(name),
            StartFailure::BadDirectory(path) => self.u8(4).text(path.as_os_str()),
            StartFailure::TooLarge => self.u8(5),
            StartFailure::BadRequest(what) => self.u8(6).text(OsStr::new(what)),
            StartFailure::NoResources => self.u8(7),
            StartFailure::Other => self.u8(8),
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    fds: std::vec::IntoIter<OwnedFd>,
}

impl<'a> Reader<'a> {
    fn new(body: &'a [u8], fds: Vec<OwnedFd>) -> Self {
        Self { rest: body, fds: fds.into_iter() }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        let bytes = self.take(8)?.try_into().map_err(|_| Malformed)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn text(&mut self) -> Result<OsString, Malformed> {
        let count = usize::try_from(self.u64()?).map_err(|_| Malformed)?;
        Ok(OsString::from_vec(self.take(count)?.to_vec()))
    }

    fn option(&mut self) -> Result<Option<OsString>, Malformed> {
        Ok(if self.u8()? == 0 { None } else { Some(self.text()?) })
    }

    fn fd(&mut self) -> Result<Option<OwnedFd>, Malformed> {
        Ok(if self.u8()? == 0 { None } else { self.fds.next() })
    }

    fn spawn(&mut self) -> Result<Spawn, Malformed> {
        let program = self.text()?;
        let args = (0..self.u64()?).map(|_| self.text()).collect::<Result<_, _>>()?;
        let env = (0..self.u64()?)
            .map(|_| Ok((self.text()?, self.option()?)))
            .collect::<Result<_, Malformed>>()?;
        let cwd = self.option()?.map(PathBuf::from);
        let [socket, stdin, stdout, stderr] = [self.fd()?, self.fd()?, self.fd()?, self.fd()?];
        Ok(Spawn { program, args, env, cwd, socket, stdin, stdout, stderr })
    }

    fn failure(&mut self) -> Result<StartFailure, Malformed> {
        Ok(match self.u8()? {
            0 => StartFailure::NotFound,
            1 => StartFailure::NotExecutable,
            2 => StartFailure::IsDirectory,
            3 => StartFailure::BadInterpreter(self.text()?),
            4 => StartFailure::BadDirectory(self.text()?.into()),
            5 => StartFailure::TooLarge,
            6 => StartFailure::BadRequest(self.text()?.to_string_lossy().into_owned()),
            7 => StartFailure::NoResources,
            8 => StartFailure::Other,
            _ => return Err(Malformed),
        })
    }

    fn end<T>(self, message: T) -> Result<T, Malformed> {
        if self.rest.is_empty() { Ok(message) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_start_survives_the_journey() {
        let null = || Some(OwnedFd::from(File::open("/dev/null").unwrap()));
        let spawn = Spawn {
            program: OsString::from_vec(vec![0xff, b'x']),
            args: vec!["a b".into(), "".into()],
            env: vec![("SET".into(), Some("1".into())), ("GONE".into(), None)],
            cwd: Some("/tmp".into()),
            socket: null(),
            stdin: None,
            stdout: null(),
            stderr: None,
        };
        let frame = Request::Spawn { id: u64::MAX, spawn }.into_frame();
        assert_eq!(frame.fds.len(), 2);
        let Ok(Request::Spawn { id: u64::MAX, spawn }) = Request::from_frame(frame) else {
            panic!("another request");
        };
        assert_eq!(spawn.program.as_bytes(), [0xff, b'x']);
        assert_eq!(spawn.args, ["a b", ""]);
        assert_eq!(spawn.env, [("SET".into(), Some("1".into())), ("GONE".into(), None)]);
        assert_eq!(spawn.cwd, Some("/tmp".into()));
        let present = [&spawn.socket, &spawn.stdin, &spawn.stdout, &spawn.stderr];
        assert_eq!(present.map(Option::is_some), [true, false, true, false]);
    }

    #[test]
    fn every_failure_survives_the_journey() {
        let kinds = [
            StartFailure::NotFound,
            StartFailure::NotExecutable,
            StartFailure::IsDirectory,
            StartFailure::BadInterpreter("/no/sh".into()),
            StartFailure::BadDirectory("/no/dir".into()),
            StartFailure::TooLarge,
            StartFailure::BadRequest("in use".into()),
            StartFailure::NoResources,
            StartFailure::Other,
        ];
        for kind in kinds {
            let error = StartError { program: "p".into(), kind, errno: 2 };
            let event = Event::StartFailed { id: 3, error: error.clone() };
            let Ok(Report::Event(Event::StartFailed { id: 3, error: arrived })) =
                Report::from_frame(Report::Event(event).into_frame())
            else {
                panic!("another report");
            };
            assert_eq!(arrived, error);
        }
    }

    #[test]
    fn every_cut_of_a_message_is_refused() {
        let whole = Request::Spawn { id: 1, spawn: Spawn::new("program") }.into_frame().body;
        for length in 0..whole.len() {
            let body = whole[..length].to_vec();
            assert!(Request::from_frame(Frame { body, ..Frame::default() }).is_err(), "{length}");
        }
        let mut longer = whole;
        longer.push(0);
        assert!(Request::from_frame(Frame { body: longer, ..Frame::default() }).is_err());
    }
}
