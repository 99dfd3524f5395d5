//! The runtime's behaviour, each test on both drivers.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
// Sinks and seccomp filters are unsafe to set up; each block says why it is sound.
#![allow(unsafe_code)]

#[macro_use]
mod drivers;

mod channels;
mod config;
mod connect;
mod denied;
mod forward;
mod listen;
mod process;
mod recv;
mod send;
mod sources;
mod splits;
mod streams;
mod tasks;
mod time;
mod tls;
mod turns;
mod workers;
