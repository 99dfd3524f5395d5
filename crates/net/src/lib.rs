//! A thread-per-core runtime on io_uring, or on mio where that is denied.
//!
//! ```
//! use remuda_net::{Config, ParseResult, adopt_unix, run_local, spawn};
//! use std::os::unix::net::UnixStream;
//!
//! let (ours, theirs) = UnixStream::pair()?;
//! let answer = run_local(Config::default(), async {
//!     let client = adopt_unix(ours)?;
//!     let server = adopt_unix(theirs)?;
//!     spawn(async move {
//!         let upper = |data: &[u8]| match data.split(|byte| *byte == b'\n').next() {
//!             Some(line) if line.len() < data.len() => {
//!                 let _ = server.send_nowait(&line.to_ascii_uppercase());
//!                 ParseResult::Consumed(line.len() + 1)
//!             }
//!             _ => ParseResult::NeedMore,
//!         };
//!         while server.with_data(upper).await > 0 {}
//!     });
//!     client.send(b"hello\n")?.await?;
//!     let mut answer = Vec::new();
//!     client.with_data(|data| {
//!         answer.extend_from_slice(data);
//!         ParseResult::Consumed(data.len())
//!     })
//!     .await;
//!     Ok::<_, remuda_net::NetError>(answer)
//! })??;
//! assert_eq!(answer, b"HELLO");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
// The kernel is told of memory here; each unsafe block says why that is sound.
#![allow(unsafe_code)]

mod blocking;
mod builder;
mod cancel;
mod clock;
mod closed;
mod combine;
mod config;
mod conn;
mod connect;
mod ctx;
mod driver;
mod error;
mod forward;
mod futures_io_adapter;
mod handshake;
mod io;
mod join_handle;
mod listen;
pub mod mpsc;
mod notify;
pub mod oneshot;
mod parts;
mod peer;
mod prefetch;
mod readiness;
mod recv;
mod recv_buf;
mod remote;
mod resolve;
mod runtime;
mod send;
mod send_queue;
mod signals;
mod sleeper;
mod slots;
mod source;
mod spin;
mod splice;
mod state;
mod task;
mod time;
mod timers;
mod tls;
mod wakes;

/// What [`ConnCtx::send_bytes`] takes.
pub use bytes::Bytes;
/// The TLS that [`Config::tls_server`] and [`Config::tls_client`] are configurations of.
pub use rustls;

pub use blocking::{
    BlockingExecutor, BlockingHandle, BlockingJob, SMALL_POOL_IDLE, SMALL_POOL_QUEUE,
    SMALL_POOL_THREADS, SmallPool,
};
pub use builder::{AsyncEventHandler, Builder, ShutdownHandle};
pub use cancel::CancellationToken;
pub use closed::{stdin_was_open, stdout_was_open};
pub use combine::{Either, Either3, join, join3, select, select3, yield_now};
pub use config::{BACKEND_ENV, Backend, Config};
pub use conn::CloseReason;
pub use connect::{
    ConnectFuture, adopt_tcp, adopt_unix, connect, connect_tls, connect_tls_with, connect_unix,
    connect_with_timeout,
};
pub use ctx::{ConnCtx, ConnToken};
pub use error::{Elapsed, NetError, Result};
pub use forward::{Forwarded, forward_both};
pub use futures_io_adapter::ConnStream;
pub use handshake::listen_tls;
pub use join_handle::{JoinError, JoinHandle, spawn_with_handle};
pub use listen::{ListenerHandle, listen_tcp, listen_unix};
pub use notify::Notifier;
pub use parts::AsyncSendBuilder;
pub use peer::{PeerAddr, PeerCred, TCP_ASKS_EVERY, TCP_QUESTIONS, TCP_SILENT_FOR};
pub use prefetch::prefetch;
pub use readiness::{Readiness, ReadyFd, child_exited, readable, writable};
pub use recv::{ParseResult, Reading, RecvReadyFuture, WithBytesFuture, WithDataFuture};
pub use resolve::resolve;
pub use runtime::{
    backend, backend_reason, enters, now, others_can_run, run_local, shutdown_requested, spawn,
    spawn_blocking,
};
pub use send::{Flushed, PeerGone, SendFuture};
pub use signals::{Signals, signals};
pub use source::{Source, SourceHandle, watch_source};
pub use time::{Sleep, sleep, sleep_until, timeout, timeout_at};
pub use tls::TlsInfo;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExample;
