//! A connection of the load: the bytes that are still to go out and to come in.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use net::address::Address;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

/// The bytes of every stream repeat with this period, so any place of it is known.
pub const PERIOD: usize = 64;
/// Bytes taken from a socket in one call at most.
const READ: usize = 256 << 10;

/// Bytes to send from, at any place of the period, and memory to receive to.
pub struct Memory {
    pub payload: Vec<u8>,
    pub scratch: Vec<u8>,
}

impl Memory {
    pub fn new(longest: usize) -> Self {
        let payload = (0..longest + PERIOD).map(|at| (at % PERIOD) as u8 ^ 0x55).collect();
        Self { payload, scratch: vec![0; READ] }
    }
}

pub struct Peer {
    fd: OwnedFd,
    tls: Option<Box<ClientConnection>>,
    /// A receive may throw bytes away instead of copying them, which only TCP can.
    discards: bool,
    /// Bytes that are to be sent, and how many ever were.
    unsent: usize,
    sent: usize,
    /// Bytes received of the message that is coming in.
    partial: usize,
    /// When those in flight were sent.
    pub in_flight: VecDeque<Instant>,
}

impl Peer {
    pub fn connect(to: &Address, tls: Option<&Arc<ClientConfig>>) -> Result<Self, Box<dyn Error>> {
        let fd: OwnedFd = match to {
            Address::Tcp(addr) => {
                let stream = TcpStream::connect(addr)?;
                stream.set_nodelay(true)?;
                stream.into()
            }
            Address::Unix(path) => UnixStream::connect(path)?.into(),
        };
        let session = |config| {
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)
        };
        let tls = tls.map(session).transpose()?.map(Box::new);
        let discards = matches!(to, Address::Tcp(_));
        Ok(Self::new(fd, discards, tls))
    }

    pub fn new(fd: OwnedFd, discards: bool, tls: Option<Box<ClientConnection>>) -> Self {
        Self { fd, tls, discards, unsent: 0, sent: 0, partial: 0, in_flight: VecDeque::new() }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends one message, and waits until it is gone.
    pub fn say(&mut self, bytes: usize) -> io::Result<()> {
        let memory = Memory::new(bytes);
        let mut socket = Socket(self.fd.as_fd());
        let message = &memory.payload[self.sent % PERIOD..][..bytes];
        match &mut self.tls {
            Some(session) => {
                let mut stream = rustls::Stream::new(&mut **session, &mut socket);
                stream.write_all(message)?;
                stream.flush()?;
            }
            None => socket.write_all(message)?,
        }
        self.sent += bytes;
        Ok(())
    }

    /// Waits for the first message, and compares its bytes.
    pub fn hear(&mut self, bytes: usize) -> Result<(), Box<dyn Error>> {
        let mut heard = vec![0; bytes];
        let mut socket = Socket(self.fd.as_fd());
        match &mut self.tls {
            Some(session) => {
                rustls::Stream::new(&mut **session, &mut socket).read_exact(&mut heard)?;
            }
            None => socket.read_exact(&mut heard)?,
        }
        if heard != Memory::new(bytes).payload[..bytes] {
            return Err("the server sent something else than it got".into());
        }
        Ok(())
    }

    /// From here on no call waits.
    pub fn go(&mut self) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.fd, true)?)
    }

    pub fn is_blocked(&self) -> bool {
        self.unsent > 0 || self.tls.as_ref().is_some_and(|session| session.wants_write())
    }

    /// Sends so many bytes more, as far as the socket takes them.
    pub fn send(&mut self, count: usize, memory: &Memory) -> io::Result<()> {
        self.unsent += count;
        self.flush(memory)
    }

    pub fn flush(&mut self, memory: &Memory) -> io::Result<()> {
        if self.tls.is_some() {
            return self.flush_encrypted(memory);
        }
        while self.unsent > 0 {
            let start = self.sent % PERIOD;
            let end = (start + self.unsent).min(memory.payload.len());
            match send(&self.fd, &memory.payload[start..end], SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.sent += count;
                    self.unsent -= count;
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn flush_encrypted(&mut self, memory: &Memory) -> io::Result<()> {
        let Some(session) = &mut self.tls else { return Ok(()) };
        loop {
            while session.wants_write() {
                match session.write_tls(&mut Socket(self.fd.as_fd())) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            if self.unsent == 0 {
                return Ok(());
            }
            let start = self.sent % PERIOD;
            let end = (start + self.unsent).min(memory.payload.len());
            let count = session.writer().write(&memory.payload[start..end])?;
            self.sent += count;
            self.unsent -= count;
        }
    }

    /// Takes what is there; returns how many bytes that was.
    pub fn receive(&mut self, memory: &mut Memory) -> io::Result<usize> {
        if self.tls.is_some() {
            return self.receive_encrypted(memory);
        }
        let flags = if self.discards { RecvFlags::TRUNC } else { RecvFlags::empty() };
        match recv(&self.fd, &mut memory.scratch[..], flags) {
            Ok((_, 0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((_, count)) => Ok(count),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    fn receive_encrypted(&mut self, memory: &mut Memory) -> io::Result<usize> {
        let Some(session) = &mut self.tls else { return Ok(0) };
        match session.read_tls(&mut Socket(self.fd.as_fd())) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        }
        session.process_new_packets().map_err(io::Error::other)?;
        let mut total = 0;
        while let Ok(count @ 1..) = session.reader().read(&mut memory.scratch) {
            total += count;
        }
        Ok(total)
    }

    /// Counts received bytes; returns how many messages are whole.
    pub fn whole(&mut self, count: usize, bytes: usize) -> usize {
        self.partial += count;
        let whole = self.partial / bytes;
        self.partial %= bytes;
        whole
    }
}

/// A socket for rustls and for reading exactly.
struct Socket<'a>(BorrowedFd<'a>);

impl Read for Socket<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.0, into, RecvFlags::empty())?.0)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, data, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
