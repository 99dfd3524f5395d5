//! Many calls in flight, on sockets that don't block.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Events, Interest, Poll, Token};

use crate::Measured;
use crate::one::handshaken;
use crate::options::Options;
use crate::wire::{Answers, Caller};

/// How much is made ready to be written at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Nothing for so long, and the server is thought to hang.
const PATIENCE: Duration = Duration::from_secs(60);

trait Stream: Read + Write + Source {}
impl<T: Read + Write + Source> Stream for T {}

struct Connection {
    stream: Box<dyn Stream>,
    answers: Answers,
    /// Calls that may be written already.
    owed: u64,
    out: Vec<u8>,
    written: usize,
    /// When the one call in flight was written, where there is only one.
    sent: Instant,
}

impl Connection {
    fn open(options: &Options, owed: u64) -> Result<Self> {
        let stream: Box<dyn Stream> = if options.http {
            let stream = std::net::TcpStream::connect(&options.to)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Box::new(TcpStream::from_std(stream))
        } else {
            let stream = handshaken(&options.to)?;
            stream.set_nonblocking(true)?;
            Box::new(UnixStream::from_std(stream))
        };
        let answers = Answers::default();
        Ok(Self { stream, answers, owed, out: Vec::new(), written: 0, sent: Instant::now() })
    }

    /// Writes what is owed, until the socket is full.
    fn write(&mut self, caller: &mut Caller) -> Result<()> {
        loop {
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
                while self.owed > 0 && self.out.len() < CHUNK_BYTES {
                    caller.write(&mut self.out);
                    self.owed -= 1;
                }
                if self.out.is_empty() {
                    return Ok(());
                }
                self.sent = Instant::now();
            }
            match self.stream.write(&self.out[self.written..]) {
                Ok(n) => self.written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what has come, and gives how many answers that ended.
    fn read(&mut self, http: bool, buffer: &mut [u8]) -> Result<u64> {
        let before = self.answers.all();
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(Error::new(ErrorKind::UnexpectedEof, "the server hung up")),
                Ok(n) => {
                    self.answers.take(http, &buffer[..n])?;
                    if n < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(self.answers.all() - before)
    }
}

/// Runs the loop.
pub fn run(options: &Options) -> Result<Measured> {
    let count = options.connections.min(options.in_flight);
    let mut left = options.calls.unwrap_or(u64::MAX);
    let mut connections = Vec::with_capacity(count);
    for index in 0..count {
        let share = options.in_flight / count + usize::from(index < options.in_flight % count);
        let owed = left.min(share as u64);
        left -= owed;
        connections.push(Connection::open(options, owed)?);
    }
    let mut poll = Poll::new()?;
    for (index, connection) in connections.iter_mut().enumerate() {
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut connection.stream, Token(index), both)?;
    }
    let mut caller = Caller::new(options);
    let (mut events, mut buffer) = (Events::with_capacity(1024), vec![0; 256 << 10]);
    let one_each = options.in_flight == count;
    let started = Instant::now();
    let (mut begun, mut before, mut all) = (started, 0, 0);
    let warmup = if options.calls.is_some() { Duration::ZERO } else { options.warmup };
    let mut warm = warmup.is_zero();
    let mut times_ns = Vec::new();
    for connection in &mut connections {
        connection.write(&mut caller)?;
    }
    loop {
        poll.poll(&mut events, Some(PATIENCE))?;
        if events.is_empty() {
            return Err(Error::new(ErrorKind::TimedOut, "nothing came for a minute"));
        }
        for event in &events {
            let connection = &mut connections[event.token().0];
            let came = connection.read(options.http, &mut buffer)?;
            if came > 0 && one_each && warm {
                times_ns.push(connection.sent.elapsed().as_nanos() as u64);
            }
            let next = left.min(came);
            left -= next;
            connection.owed += next;
            all += came;
            connection.write(&mut caller)?;
        }
        if !warm && started.elapsed() >= warmup {
            (warm, begun, before) = (true, Instant::now(), all);
        }
        let over = match options.calls {
            Some(calls) => all >= calls,
            None => warm && begun.elapsed() >= options.seconds,
        };
        if over {
            break;
        }
    }
    Ok(Measured {
        done: all - before,
        total: connections.iter().map(|connection| connection.answers.done).sum(),
        failed: connections.iter().map(|connection| connection.answers.failed).sum(),
        seconds: begun.elapsed().as_secs_f64(),
        times_ns,
    })
}
