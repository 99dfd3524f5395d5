//! The loop that connects, runs, and decides when to connect again.
#![forbid(unsafe_code)]
