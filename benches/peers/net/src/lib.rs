//! What the server, the load and the rows share.

pub mod address;
pub mod process;
