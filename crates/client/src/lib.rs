//! Clients of a pool or of a worker, for tokio programs.
//!
//! - [`Client`] is for programs that call a pool: any number of tasks share it, its calls are
//!   pipelined, it survives restarts of the pool, and every call ends with a result or an error
//!   that says whether the job may have run.
//! - [`PoolClient`] is one Unix socket with one request at a time, and nothing in between.
//!
//! ```
//! use remuda_client::{Client, ClientOptions};
//!
//! # use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("pool.sock");
//! # let listener = tokio::net::UnixListener::bind(&path)?;
//! # tokio::spawn(async move {
//! #     let (reader, mut writer) = listener.accept().await.unwrap().0.into_split();
//! #     let mut lines = BufReader::new(reader).lines();
//! #     while let Some(line) = lines.next_line().await.unwrap() {
//! #         let answer: &[u8] = if line.contains("handshake") {
//! #             b"{\"ok\":true,\"data\":{\"kind\":\"handshake\",\"version\":\"1\"}}\n"
//! #         } else {
//! #             b"{\"id\":0,\"ok\":true,\"data\":{\"kind\":\"result\",\"body\":\"ABC\"}}\n"
//! #         };
//! #         writer.write_all(answer).await.unwrap();
//! #     }
//! # });
//! # let address = remuda_client::Address::unix(path);
//! let client: Client = ClientOptions::new().address(address).connect().await?;
//! let shout: String = client.call("abc").await?;
//! assert_eq!(shout, "ABC");
//! # Ok(()) }
//! ```
//!
//! # Features
//!
//! | feature | function |
//! | --- | --- |
//! | `tls` | `tls:` addresses, by rustls. On by default |
#![forbid(unsafe_code)]

mod answer;
mod call_error;
mod client;
mod connect_error;
mod dial;
mod job_error;
mod json;
mod link;
mod links;
mod options;
mod pool_client;
mod pool_error;
mod pool_request;
mod pool_response;
mod remaining;
#[cfg(target_os = "linux")]
mod rings;
mod stream;
mod target;
#[cfg(feature = "tls")]
mod tls;

pub use call_error::CallError;
pub use client::{Client, DEADLINE_GRACE, LinkView};
pub use connect_error::ConnectError;
pub use job_error::JobError;
pub use json::Json;
pub use options::{CallOptions, ClientOptions, IN_FLIGHT_MAX_DEFAULT};
pub use pool_client::{HANDSHAKE_RECV_TIMEOUT, PoolClient};
pub use pool_error::PoolError;
pub use pool_request::PoolRequest;
pub use pool_response::PoolResponse;

pub use remuda_protocol::{Access, Address, AddressError, Role, TlsFiles};
pub use remuda_protocol::{BadJson, BadJsonKind, Code, HandshakeError, Offer};
pub use remuda_reconnect::{Backoff, GaveUp, RetryBudget};
pub use remuda_reconnect::{LinkState, Watch};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
