//! One call in flight, on a socket that blocks.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::Measured;
use crate::options::Options;
use crate::wire::{Answers, Caller, HANDSHAKE};

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn connect(options: &Options) -> Result<Box<dyn Stream>> {
    if options.http {
        let stream = TcpStream::connect(&options.to)?;
        stream.set_nodelay(true)?;
        return Ok(Box::new(stream));
    }
    Ok(Box::new(handshaken(&options.to)?))
}

/// A connection of lines whose handshake is over.
pub fn handshaken(path: &str) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(path)?;
    stream.write_all(HANDSHAKE)?;
    let mut byte = [0];
    while byte[0] != b'\n' {
        stream.read_exact(&mut byte)?;
    }
    Ok(stream)
}

/// Runs the loop.
pub fn run(options: &Options) -> Result<Measured> {
    let mut stream = connect(options)?;
    let (mut caller, mut answers) = (Caller::new(options), Answers::default());
    let (mut out, mut buffer) = (Vec::new(), vec![0; 256 << 10]);
    let mut round = |answers: &mut Answers| -> Result<Duration> {
        out.clear();
        caller.write(&mut out);
        let (before, started) = (answers.all(), Instant::now());
        stream.write_all(&out)?;
        while answers.all() == before || !answers.between() {
            match stream.read(&mut buffer)? {
                0 => return Err(Error::new(ErrorKind::UnexpectedEof, "the server hung up")),
                n => answers.take(options.http, &buffer[..n])?,
            }
        }
        Ok(started.elapsed())
    };
    let warm = Instant::now();
    while options.calls.is_none() && warm.elapsed() < options.warmup {
        round(&mut answers)?;
    }
    let (before, begun) = (answers.all(), Instant::now());
    let mut times_ns = Vec::new();
    loop {
        let over = match options.calls {
            Some(calls) => answers.all() >= calls,
            None => begun.elapsed() >= options.seconds,
        };
        if over {
            break;
        }
        times_ns.push(round(&mut answers)?.as_nanos() as u64);
    }
    Ok(Measured {
        done: answers.all() - before,
        total: answers.done,
        failed: answers.failed,
        seconds: begun.elapsed().as_secs_f64(),
        times_ns,
    })
}
