//! Going on over rings in shared memory, where the pool that started this worker wants it.
//!
//! Each direction is one stream of bytes, cut into ring messages of up to a slot.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use remuda_protocol::SHM_LINE;
use remuda_shm::{Options, Receiver, Sender, ShmError, SpscHandle};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// Messages that are put into a ring at once.
const RUN: usize = 16;
/// A pool that is stopped takes nothing for as long as it is stopped; its end is noticed at once.
const FULL_LIMIT: Duration = Duration::from_secs(365 * 86_400);

/// Waits for the first bytes after the handshake. If they say that all that follows goes by rings,
/// takes those; else leaves them where they are.
pub(crate) fn taken_over(
    stream: &UnixStream,
    spin: Duration,
) -> io::Result<Option<(RingReader, RingWriter)>> {
    // What follows the line carries descriptors, which a read beyond its end would lose.
    let mut first = [0; SHM_LINE.len()];
    if receive(stream, &mut first, RecvFlags::PEEK)? < first.len() || first != *SHM_LINE {
        return Ok(None);
    }
    receive(stream, &mut first, RecvFlags::empty())?;
    // The pool has chosen the shape of the rings; pages are mapped as they are first used. Whoever
    // waits for the pool, for messages or for room, sees its end: no send needs to ask for it.
    let options =
        Options::default().spin(spin).full_limit(FULL_LIMIT).touch(false).ask_for_peer(false);
    let (sender, receiver) =
        SpscHandle::over(stream, &options).map_err(io::Error::other)?.into_split();
    let reader = RingReader { receiver, left: Vec::new(), taken: 0 };
    Ok(Some((reader, RingWriter { sender })))
}

fn receive(stream: &UnixStream, into: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    loop {
        match recv(stream, &mut *into, flags) {
            Ok((_, count)) => return Ok(count),
            Err(Errno::INTR) => {}
            // The end; whoever reads on finds it.
            Err(Errno::CONNRESET) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
    }
}

/// What the pool sends.
pub(crate) struct RingReader {
    receiver: Receiver,
    /// A message that was larger than what there was to read it into, and how much of it was read.
    left: Vec<u8>,
    taken: usize,
}

impl Read for RingReader {
    /// Reads what is there, and blocks until something is.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.taken < self.left.len() {
            let count = (&self.left[self.taken..]).read(into)?;
            self.taken += count;
            return Ok(count);
        }
        let mut filled = 0;
        loop {
            match self.receiver.try_recv_in_place() {
                Ok(Some(message)) if message.len() <= into.len() - filled => {
                    let end = filled + message.len();
                    message.read(0, &mut into[filled..end]);
                    filled = end;
                }
                Ok(Some(message)) => {
                    // In a slot nothing can stay behind.
                    self.left.resize(message.len(), 0);
                    message.read(0, &mut self.left);
                    drop(message);
                    self.taken = (&self.left[..]).read(&mut into[filled..])?;
                    return Ok(filled + self.taken);
                }
                Ok(None) => {}
                Err(error) => {
                    is_end(error)?;
                    return Ok(filled);
                }
            }
            match self.receiver.sees_message() {
                true => {}
                false if filled > 0 => return Ok(filled),
                false => self.receiver.wait_message_blocking(None).or_else(is_end)?,
            }
        }
    }
}

/// The end of the pool, however it came, is the end of what it sends.
fn is_end(error: ShmError) -> io::Result<()> {
    match error {
        ShmError::Closed => Ok(()),
        error => Err(io::Error::other(error)),
    }
}

/// What is sent to the pool.
pub(crate) struct RingWriter {
    sender: Sender,
}

impl Write for RingWriter {
    /// Sends the beginning of `data`, as much as there is room for, and blocks until there is some.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        let slot_size = self.sender.slot_size();
        // Nearly every answer.
        if data.len() <= slot_size {
            self.sender.send_blocking(data).map_err(broken)?;
            return Ok(data.len());
        }
        let (mut run, mut count) = ([&[][..]; RUN], 0);
        for (place, part) in run.iter_mut().zip(data.chunks(slot_size)) {
            *place = part;
            count += 1;
        }
        loop {
            match self.sender.try_send_batch(&run[..count]).map_err(broken)? {
                0 => self.sender.wait_room_blocking().map_err(broken)?,
                sent => return Ok(run[..sent].iter().map(|part| part.len()).sum()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn broken(error: ShmError) -> io::Error {
    match error {
        ShmError::Closed => ErrorKind::BrokenPipe.into(),
        error => io::Error::other(error),
    }
}
