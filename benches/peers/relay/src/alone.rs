//! The rings of a hop and nothing else: client -> middle -> worker -> middle -> client, three
//! processes with the rings that a pool has, and messages that nobody looks into. With all asleep
//! that is four wake-ups; a middle that spins takes what comes without one, and there are two.

use std::io::{Error, Result};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use remuda_shm::{Options, Receiver, Sender, SpscFace, SpscHandle};

use crate::eventfds::child;
use crate::{CALL, timed};

/// The shape of a pool's rings.
const CAPACITY: u32 = 128;
const SLOT_SIZE: u32 = 8 << 10;

/// Both directions of a pair.
struct Pair {
    sender: Sender,
    receiver: Receiver,
    message: Vec<u8>,
}

impl Pair {
    /// The side that makes it.
    fn over(socket: &UnixStream) -> Result<Self> {
        let pair = SpscFace::over(socket, &options()?).map_err(Error::other)?;
        Ok(Self::of(pair.into_split()))
    }

    /// The side that is given it.
    fn from(socket: &UnixStream) -> Result<Self> {
        let pair = SpscHandle::over(socket, &options()?).map_err(Error::other)?;
        Ok(Self::of(pair.into_split()))
    }

    fn of((sender, receiver): (Sender, Receiver)) -> Self {
        Self { sender, receiver, message: Vec::new() }
    }

    /// Waits for a message and takes it.
    fn take(&mut self, spinning: bool) -> Result<()> {
        self.message.clear();
        while self.message.is_empty() {
            while spinning && !self.receiver.sees_message() {
                std::hint::spin_loop();
            }
            self.receiver.wait_message_blocking(None).map_err(Error::other)?;
            self.receiver.try_recv_stream(&mut self.message, 4096).map_err(Error::other)?;
        }
        Ok(())
    }

    fn send(&mut self, message: &[u8]) -> Result<()> {
        self.sender.send_blocking(message).map_err(Error::other)
    }
}

fn options() -> Result<Options> {
    let options = Options::new(CAPACITY, SLOT_SIZE).map_err(Error::other)?;
    Ok(options.touch(false).ask_for_peer(false).spin(Duration::ZERO))
}

/// Measures round trips.
pub fn measure(spinning: bool) -> Result<()> {
    let (to_middle, from_client) = UnixStream::pair()?;
    let (to_worker, from_middle) = UnixStream::pair()?;
    child(|| {
        let mut client = Pair::over(&from_client)?;
        let mut worker = Pair::over(&to_worker)?;
        loop {
            client.take(spinning)?;
            worker.send(&client.message)?;
            worker.take(spinning)?;
            client.send(&worker.message)?;
        }
    })?;
    child(|| {
        let mut middle = Pair::from(&from_middle)?;
        loop {
            middle.take(false)?;
            middle.sender.send_blocking(&middle.message).map_err(Error::other)?;
        }
    })?;
    let mut middle = Pair::from(&to_middle)?;
    timed(|| {
        middle.send(CALL.as_bytes())?;
        middle.take(false)
    })
}
