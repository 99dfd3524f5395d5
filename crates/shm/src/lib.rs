//! Shared-memory rings between two processes that may crash or misbehave.
//!
//! An engine creates a pair of rings under a name, an application connects to it, and each sends
//! the other messages of up to a slot's size. Under load a message costs no system call; a side
//! that has nothing to do sleeps, and is woken.
//!
#![cfg_attr(feature = "tokio", doc = "```")]
#![cfg_attr(not(feature = "tokio"), doc = "```ignore")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), remuda_shm::ShmError> {
//! use bytes::Bytes;
//! use remuda_shm::{SpscFace, SpscHandle};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let directory = directory.path().join("run");
//! # let options = remuda_shm::Options::default();
//! # let create = |name: &str| SpscFace::create_in(&directory, name, &options);
//! # let connect = |name: &str| SpscHandle::connect_in(&directory, name, &options);
//! # /*
//! let engine = SpscFace::create("frames")?; // in one process
//! let application = SpscHandle::connect("frames")?; // in another
//! # */
//! # let (engine, application) = (create("frames")?, connect("frames")?);
//!
//! application.send(Bytes::from_static(b"ping")).await?;
//! assert_eq!(engine.recv().await.as_deref(), Some(&b"ping"[..]));
//!
//! drop(engine);
//! assert_eq!(application.recv().await, None);
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//!
//! - **No message is lost or torn**, whenever one side is killed. The other is told within
//!   milliseconds: it gets what was published before, then the end.
//! - **No wake-up is lost.** A side publishes, fences and looks whether the other sleeps; a side
//!   that goes to sleep says so, fences and looks again. loom checks this on the code that ships.
//! - **A peer can't harm this process through the memory.** The memory can't be shrunk. What is
//!   read of it is read once and checked; a lie is [`ShmError::Corrupt`] and the end of the pair.
//!   No Rust reference is formed over bytes that the peer may write, unless an `unsafe` call says
//!   that it is trusted.
//! - **Nothing is left behind.** The memory has no name; descriptors close with their process. Of
//!   a listener that was killed a socket file stays, which the next one replaces.
//!
//! Both processes run as the same user, and a process of that user may do to another whatever a
//! signal or a debugger can. What is defended against is a peer that errs, however badly. One that
//! means harm has a way of its own: it may fill the count of its doorbell and have it block, and
//! the next call that rings then blocks its thread, for as long as the peer likes.
//!
//! # Which calls
//!
//! [`SpscHandle`] and [`SpscFace`] have futures for tokio (feature `tokio`, on by default), calls
//! that block, and calls that don't wait; their calls take `&self`. Split into [`Sender`] and
//! [`Receiver`], each side also serves an event loop, which waits for the doorbell's descriptor;
//! and large messages are written and read in their slots. The [`ring`] itself knows no operating
//! system. Everything but that needs Linux.
//!
//! # What waiting costs
//!
//! A wake-up across processors costs several microseconds on both sides. A call that waits
//! therefore watches its ring for a short while first, as long as that pays: see
//! [`Options::spin`].
//!
//! A call that blocks until a message comes sleeps in a read of its doorbell, which is the shortest
//! way to sleep and to be woken, and sees nothing else. The first such sleep starts a thread that
//! is there until the process ends, waits for the end of the peers of all of them, and rings.
#![allow(unsafe_code)] // Shared memory is outside of what the compiler can check.

mod error;
mod geometry;
mod heap;
#[cfg(all(target_os = "linux", not(loom)))]
mod linux;
pub mod ring;
mod storage;
mod sync;

/// What is received, and what may be sent without a copy.
pub use bytes::Bytes;
pub use error::{CloseReason, Lie, Refusal, ShmError};
pub use geometry::{
    CAPACITY_DEFAULT, CAPACITY_MAX, Geometry, REGION_SIZE_MAX, SLOT_SIZE_DEFAULT, SLOT_SIZE_MAX,
};
#[cfg(all(target_os = "linux", not(loom)))]
pub use linux::*;
/// What [`SpscFace::set_cancel`] takes.
#[cfg(all(target_os = "linux", not(loom), feature = "tokio"))]
pub use tokio_util::sync::CancellationToken;

#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct ReadmeExample;
