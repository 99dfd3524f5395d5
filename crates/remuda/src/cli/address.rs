//! Where a pool is, if nobody says.

use remuda_engine::runtime_directory_path;
use remuda_protocol::{Access, Address};

/// The variable that names a pool's address.
const ENV: &str = "REMUDA_ADDR";

/// The socket of this user.
pub(crate) fn default_unix() -> Address {
    Address::Unix { path: runtime_directory_path().join("default.sock"), access: Access::default() }
}

/// Where a pool listens that was not told where.
pub(crate) fn to_listen() -> Result<Address, String> {
    match std::env::var(ENV).ok().filter(|text| !text.is_empty()) {
        Some(text) => text.parse().map_err(|error| format!("{ENV}={text}: {error}")),
        None => Ok(default_unix()),
    }
}

/// The addresses to try, in order, for a command that was told `to` or nothing.
pub(crate) fn to_try(to: Option<&str>) -> Result<Vec<Address>, String> {
    let env = std::env::var(ENV).ok().filter(|text| !text.is_empty());
    match (to, env) {
        (Some(text), _) => Ok(vec![text.parse().map_err(|e| format!("--to {text}: {e}"))?]),
        (None, Some(text)) => Ok(vec![text.parse().map_err(|e| format!("{ENV}={text}: {e}"))?]),
        (None, None) => Ok(vec![default_unix()]),
    }
}
