//! Where a pool is, if nobody says.

use std::os::unix::fs::MetadataExt;

use remuda_engine::runtime_directory_path;
use remuda_protocol::{Access, Address};

/// The variable that names a pool's address.
const ENV: &str = "REMUDA_ADDR";

/// The socket of this user.
pub(crate) fn default_unix() -> Address {
    Address::Unix { path: runtime_directory_path().join("default.sock"), access: Access::default() }
}

/// Whether it is that socket, whatever options it was given.
pub(crate) fn is_default_unix(address: &Address) -> bool {
    let default = runtime_directory_path().join("default.sock");
    matches!(address, Address::Unix { path, .. } if *path == default)
}

/// Where a pool listens, and is looked for, if nobody says: the one place that knows it.
pub(crate) fn default_address() -> Result<Address, String> {
    match std::env::var(ENV).ok().filter(|text| !text.is_empty()) {
        Some(text) => text.parse().map_err(|error| format!("{ENV}={text}: {error}")),
        None => Ok(default_unix()),
    }
}

/// Where a command finds the pool that was told `to`, or nothing.
pub(crate) fn to_call(to: Option<&str>) -> Result<Address, String> {
    match to {
        Some(text) => text.parse().map_err(|error| format!("--to {text}: {error}")),
        None => default_address(),
    }
}

/// Refuses the default socket if its folder is another user's: anybody can make one in /tmp, and
/// would be handed the jobs.
pub(crate) fn check_owner(address: &Address) -> Result<(), String> {
    let folder = runtime_directory_path();
    if !is_default_unix(address) {
        return Ok(());
    }
    // What isn't there is nobody's; the connection tells of it.
    let Ok(meta) = std::fs::symlink_metadata(&folder) else { return Ok(()) };
    let owner = meta.uid();
    if owner == rustix::process::getuid().as_raw() || owner == 0 {
        return Ok(());
    }
    Err(format!(
        "{} belongs to user {owner}, who would get the jobs: remove it, or say with --to where the \
         pool is",
        folder.display()
    ))
}
