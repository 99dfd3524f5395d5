//! Lines over a pair of rings in shared memory: each direction is one stream of bytes, cut into
//! messages wherever a slot ends.

use std::io;
use std::time::Duration;

use remuda_protocol::Address;
use remuda_shm::{
    CloseReason, Options, Receiver, Refusal, Sender, ShmError, SpscHandle, runtime_dir,
};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::ConnectError;
use crate::stream::Stream;

/// How long a ring may stay full before the link is given up: as good as never, as on a socket. A
/// pool that is busy takes its time, and one that dies is noticed otherwise.
const FULL_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// The most slots that are filled before they are shown to the pool, which is woken once for them.
const RUN_MAX: usize = 32;

/// Connects to the pool that listens under `name`.
pub(crate) async fn connect(name: &str, address: &Address) -> Result<Stream, ConnectError> {
    let name = name.to_owned();
    // It waits for the pool to hand the memory over, for a bounded time.
    let connecting = spawn_blocking(move || {
        let options = Options::default().full_limit(FULL_LIMIT);
        SpscHandle::connect_in(&runtime_dir(), &name, &options)
    });
    let connected = connecting.await.map_err(|_| ConnectError::RuntimeEnded)?;
    let (sender, receiver) =
        connected.map_err(|error| refused(&address.to_string(), error))?.into_split();
    let reader = RingReader { receiver, rest: Vec::new(), rest_from: 0 };
    Ok((reader, RingWriter { sender: Mutex::new(sender) }).into())
}

/// Tells what may pass, such as a pool that isn't there yet, from what won't.
fn refused(address: &str, error: ShmError) -> ConnectError {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ResourceBusy};
    let kind = match &error {
        ShmError::NotFound { .. } => ConnectionRefused,
        ShmError::Refused { reason: Refusal::Taken | Refusal::Exhausted } => ResourceBusy,
        // So it looks, too, when the pool ends before it has handed the memory over.
        ShmError::BadOffer(_) => ConnectionAborted,
        ShmError::System { source, .. } => source.kind(),
        _ => {
            return ConnectError::Unusable {
                address: address.to_owned(),
                reason: error.to_string(),
            };
        }
    };
    ConnectError::io(address, io::Error::new(kind, error))
}

/// The half that lines come from.
#[derive(Debug)]
pub(crate) struct RingReader {
    receiver: Receiver,
    /// What of a message didn't fit into the buffer that was read into.
    rest: Vec<u8>,
    rest_from: usize,
}

impl RingReader {
    /// Reads what is there into `buffer`, as many messages as fit; 0 at the end. Cancel safe.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = self.take_rest(buffer);
        // An empty message is none of ours, and no end either.
        while filled == 0 && !buffer.is_empty() {
            if let Err(error) = self.receiver.wait_message().await {
                return self.ended(error);
            }
            filled = self.take_messages(buffer);
        }
        Ok(filled)
    }

    fn ended(&self, error: ShmError) -> io::Result<usize> {
        match self.receiver.closed_by() {
            Some(CloseReason::PeerGone) => Ok(0),
            Some(CloseReason::Corrupt(lie)) => Err(io::Error::other(ShmError::Corrupt(lie))),
            _ => Err(io::Error::other(error)),
        }
    }

    fn take_rest(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.rest[self.rest_from..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.rest_from += len;
        len
    }

    /// Takes messages until the buffer is full or none is left. An error shows again at the next
    /// wait.
    fn take_messages(&mut self, buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < buffer.len()
            && let Ok(Some(message)) = self.receiver.try_recv_in_place()
        {
            let fits = message.len().min(buffer.len() - filled);
            message.read(0, &mut buffer[filled..filled + fits]);
            filled += fits;
            if fits < message.len() {
                self.rest.resize(message.len() - fits, 0);
                self.rest_from = 0;
                message.read(fits, &mut self.rest);
            }
        }
        filled
    }
}

/// The half that lines go to, which callers and the link's task share.
#[derive(Debug)]
pub(crate) struct RingWriter {
    sender: Mutex<Sender>,
}

impl RingWriter {
    /// Writes what there is room for, and waits until there is some. Cancel safe: a future dropped
    /// before it is ready has written nothing.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sender = self.sender.lock().await;
        loop {
            match put(&mut sender, bytes)? {
                0 if !bytes.is_empty() => sender.wait_room().await.map_err(broken)?,
                written => return Ok(written),
            }
        }
    }

    /// Writes what there is room for, without waiting.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        // Taken, it is by who waits for room: there is none.
        let mut sender = self.sender.try_lock().map_err(|_| io::ErrorKind::WouldBlock)?;
        match put(&mut sender, bytes)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            written => Ok(written),
        }
    }
}

/// Puts as much of `bytes` into the ring as there is room for.
fn put(sender: &mut Sender, bytes: &[u8]) -> io::Result<usize> {
    let slot_size = sender.slot_size();
    let mut written = 0;
    while written < bytes.len() {
        let mut run = [&bytes[..0]; RUN_MAX];
        let mut count = 0;
        for (place, message) in run.iter_mut().zip(bytes[written..].chunks(slot_size)) {
            *place = message;
            count += 1;
        }
        let sent = sender.try_send_batch(&run[..count]).map_err(broken)?;
        written += run[..sent].iter().map(|message| message.len()).sum::<usize>();
        if sent < count {
            break;
        }
    }
    Ok(written)
}

fn broken(error: ShmError) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}
