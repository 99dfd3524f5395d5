//! Clients of a pool or of a worker, for tokio programs.
#![forbid(unsafe_code)]

mod job_error;
mod json;
mod pool_client;
mod pool_error;
mod pool_request;
mod pool_response;
mod remaining;

pub use job_error::JobError;
pub use json::Json;
pub use pool_client::{HANDSHAKE_RECV_TIMEOUT, PoolClient};
pub use pool_error::PoolError;
pub use pool_request::PoolRequest;
pub use pool_response::PoolResponse;
