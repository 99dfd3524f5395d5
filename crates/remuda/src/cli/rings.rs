//! A blocking stream of lines over a pair of rings in shared memory.

use std::io::{self, Read, Write};
use std::time::Duration;

use remuda_shm::{CloseReason, Options, Receiver, Sender, ShmError, SpscHandle, runtime_dir};

/// How long a ring may stay full before it is given up: as good as never, as a socket.
const FULL_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);
/// The most slots that are filled before they are shown to the pool.
const RUN_MAX: usize = 32;
/// About how many bytes are taken out of the ring at once.
const READ_BYTES: usize = 64 << 10;

/// Both directions.
#[derive(Debug)]
pub(crate) struct Rings {
    sender: Sender,
    receiver: Receiver,
    /// What was received and not read yet, from `read` on.
    received: Vec<u8>,
    read: usize,
    timeout: Option<Duration>,
}

impl Rings {
    /// Connects to the pool that listens under `name`. A write waits for room for `patience` at
    /// most.
    pub(crate) fn connect(name: &str, patience: Option<Duration>) -> io::Result<Self> {
        let options = Options::default().full_limit(patience.unwrap_or(FULL_LIMIT));
        let handle = SpscHandle::connect_in(&runtime_dir(), name, &options);
        let (sender, receiver) = handle.map_err(io::Error::other)?.into_split();
        Ok(Self { sender, receiver, received: Vec::new(), read: 0, timeout: None })
    }

    /// How long a read waits, at most.
    pub(crate) fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// Both halves, for who waits otherwise. Nothing that was received may be unread.
    pub(crate) fn into_split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

impl Read for Rings {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.received.len() {
            self.received.clear();
            self.read = 0;
            let waited = self.receiver.wait_message_blocking(self.timeout);
            let taken =
                waited.and_then(|()| self.receiver.try_recv_stream(&mut self.received, READ_BYTES));
            match taken {
                Ok(0) if self.timeout.is_some() => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {}
                Err(_) if self.receiver.closed_by() == Some(CloseReason::PeerGone) => return Ok(0),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let mut unread = &self.received[self.read..];
        let count = unread.read(buffer)?;
        self.read += count;
        Ok(count)
    }
}

impl Write for Rings {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut run = [&bytes[..0]; RUN_MAX];
        let (mut count, mut written) = (0, 0);
        for (place, message) in run.iter_mut().zip(bytes.chunks(self.sender.slot_size())) {
            *place = message;
            (count, written) = (count + 1, written + message.len());
        }
        match self.sender.send_batch_blocking(&run[..count]) {
            Ok(()) => Ok(written),
            Err(ShmError::Closed) if self.sender.closed_by() == Some(CloseReason::Full) => {
                Err(io::ErrorKind::TimedOut.into())
            }
            Err(ShmError::Closed) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
