//! The connected socket that a pool leaves at a descriptor of the worker it starts.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};

/// Why the socket is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InheritError {
    /// The variable holds no number of a descriptor.
    #[error("REMUDA_FD is {value:?}, not the number of a descriptor: let a pool start this worker")]
    NotANumber { value: String },
    /// It was taken before.
    #[error("the pool's socket is served already: call serve() once in a process")]
    TakenBefore,
    /// There is no socket.
    #[error(
        "descriptor {fd} of REMUDA_FD is no connected socket ({error}): let a pool start this worker"
    )]
    NotASocket { fd: RawFd, error: io::Error },
}

/// The descriptors below belong to the standard streams.
const FIRST_FREE: RawFd = 3;

/// The socket of `REMUDA_FD`, or `None` if no pool started this process.
pub(crate) fn take() -> Result<Option<UnixStream>, InheritError> {
    let Some(value) = std::env::var_os("REMUDA_FD") else { return Ok(None) };
    let fd = value.to_str().and_then(|fd| fd.parse().ok()).filter(|fd| *fd >= FIRST_FREE);
    let Some(fd) = fd else {
        return Err(InheritError::NotANumber { value: value.to_string_lossy().into_owned() });
    };
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(InheritError::TakenBefore);
    }
    adopt(fd).map(Some)
}

fn adopt(fd: RawFd) -> Result<UnixStream, InheritError> {
    // A descriptor that isn't open must not become an `OwnedFd`, which would close one that some
    // other part of the program opens later under the same number.
    let failed = |error| InheritError::NotASocket { fd, error };
    std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).map_err(failed)?;
    // SAFETY: the pool that set REMUDA_FD passed this descriptor on for this purpose, so no other
    // part of the program owns it; it is open, as was just seen; and TAKEN lets one caller through.
    #[allow(unsafe_code, reason = "an inherited number can't become a descriptor otherwise")]
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    // A process that the handler starts must not hold the socket open after this one has died.
    fcntl_setfd(&owned, FdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let stream = UnixStream::from(owned);
    stream.peer_addr().map_err(failed)?;
    Ok(stream)
}
