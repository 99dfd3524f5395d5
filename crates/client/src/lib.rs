//! Clients of a pool or of a worker, for tokio programs.
#![forbid(unsafe_code)]
