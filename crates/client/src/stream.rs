//! The byte streams that a link runs on, and their two halves.

use std::io;
use std::sync::Arc;

#[cfg(feature = "tls")]
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};

#[cfg(target_os = "linux")]
use crate::rings::{RingReader, RingWriter};

#[cfg(feature = "tls")]
type Tls = tokio_rustls::client::TlsStream<TcpStream>;

/// A socket that carries the lines as they are.
#[derive(Debug)]
pub(crate) enum Plain {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Plain {
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Plain::Unix(stream) => {
                    stream.readable().await?;
                    stream.try_read(buffer)
                }
                Plain::Tcp(stream) => {
                    stream.readable().await?;
                    stream.try_read(buffer)
                }
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self {
                Plain::Unix(stream) => stream.writable().await?,
                Plain::Tcp(stream) => stream.writable().await?,
            }
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    /// Writes what there is room for, without waiting.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Plain::Unix(stream) => stream.try_write(bytes),
            Plain::Tcp(stream) => stream.try_write(bytes),
        }
    }
}

/// What a caller may write to by itself, without waiting for the link's task.
#[derive(Debug)]
pub(crate) enum Direct {
    Plain(Arc<Plain>),
    #[cfg(target_os = "linux")]
    Rings(Arc<RingWriter>),
}

impl Direct {
    /// Writes what there is room for, without waiting.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Direct::Plain(plain) => plain.try_write(bytes),
            #[cfg(target_os = "linux")]
            Direct::Rings(rings) => rings.try_write(bytes),
        }
    }
}

/// The half that lines come from.
#[derive(Debug)]
pub(crate) enum Reader {
    Plain(Arc<Plain>),
    #[cfg(target_os = "linux")]
    Rings(Box<RingReader>),
    #[cfg(feature = "tls")]
    Tls(ReadHalf<Tls>),
}

/// The half that lines go to.
#[derive(Debug)]
pub(crate) enum Writer {
    Plain(Arc<Plain>),
    #[cfg(target_os = "linux")]
    Rings(Arc<RingWriter>),
    #[cfg(feature = "tls")]
    Tls(WriteHalf<Tls>),
}

/// A connection, before and after its handshake.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

impl From<Plain> for Stream {
    fn from(plain: Plain) -> Stream {
        let plain = Arc::new(plain);
        Stream { reader: Reader::Plain(Arc::clone(&plain)), writer: Writer::Plain(plain) }
    }
}

#[cfg(feature = "tls")]
impl From<Tls> for Stream {
    fn from(stream: Tls) -> Stream {
        let (reader, writer) = tokio::io::split(stream);
        Stream { reader: Reader::Tls(reader), writer: Writer::Tls(writer) }
    }
}

#[cfg(target_os = "linux")]
impl From<(RingReader, RingWriter)> for Stream {
    fn from((reader, writer): (RingReader, RingWriter)) -> Stream {
        Stream { reader: Reader::Rings(Box::new(reader)), writer: Writer::Rings(Arc::new(writer)) }
    }
}

impl Stream {
    /// The writing end, where a caller may use it without waiting for the link's task.
    pub(crate) fn direct(&self) -> Option<Direct> {
        match &self.writer {
            Writer::Plain(plain) => Some(Direct::Plain(Arc::clone(plain))),
            #[cfg(target_os = "linux")]
            Writer::Rings(rings) => Some(Direct::Rings(Arc::clone(rings))),
            #[cfg(feature = "tls")]
            Writer::Tls(_) => None,
        }
    }
}

impl Reader {
    /// Reads once; 0 at the end. Cancel safe.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Reader::Plain(plain) => plain.read(buffer).await,
            #[cfg(target_os = "linux")]
            Reader::Rings(rings) => rings.read(buffer).await,
            #[cfg(feature = "tls")]
            Reader::Tls(half) => half.read(buffer).await,
        }
    }
}

impl Writer {
    /// Writes once. Cancel safe: a future dropped before it is ready has written nothing.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Writer::Plain(plain) => plain.write(bytes).await,
            #[cfg(target_os = "linux")]
            Writer::Rings(rings) => rings.write(bytes).await,
            #[cfg(feature = "tls")]
            Writer::Tls(half) => half.write(bytes).await,
        }
    }

    /// Sends what TLS holds back.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        match self {
            Writer::Plain(_) => Ok(()),
            #[cfg(target_os = "linux")]
            Writer::Rings(_) => Ok(()),
            #[cfg(feature = "tls")]
            Writer::Tls(half) => half.flush().await,
        }
    }
}
