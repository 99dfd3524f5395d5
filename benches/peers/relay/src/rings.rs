//! A client's rings as a stream of bytes that blocks.

use std::io::{Error, Read, Result, Write};
use std::time::Duration;

use remuda_shm::{Options, Receiver, Sender, SpscHandle, runtime_dir};

/// The two halves, and what was received and not read.
pub struct Rings {
    sender: Sender,
    receiver: Receiver,
    received: Vec<u8>,
}

impl Rings {
    /// Connects to the pool that listens at `shm:name`.
    pub fn connect(name: &str) -> Result<Self> {
        let options = Options::default().spin(Duration::ZERO);
        let handle =
            SpscHandle::connect_in(&runtime_dir(), name, &options).map_err(Error::other)?;
        let (sender, receiver) = handle.into_split();
        Ok(Self { sender, receiver, received: Vec::new() })
    }
}

impl Read for Rings {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        while self.received.is_empty() {
            self.receiver.wait_message_blocking(None).map_err(Error::other)?;
            self.receiver
                .try_recv_stream(&mut self.received, buffer.len())
                .map_err(Error::other)?;
        }
        let count = self.received.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.received[..count]);
        self.received.drain(..count);
        Ok(count)
    }
}

impl Write for Rings {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let count = bytes.len().min(self.sender.slot_size());
        self.sender.send_blocking(&bytes[..count]).map_err(Error::other)?;
        Ok(count)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
