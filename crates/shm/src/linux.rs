//! Pairs of rings between processes: memfd, eventfd, and descriptors passed over Unix sockets.

mod bell;
mod copy;
mod doorkeeper;
#[cfg(feature = "tokio")]
mod ears;
mod face;
mod handle;
mod incoming;
mod life;
mod link;
mod listener;
mod memory;
mod name;
mod offer;
mod options;
mod pass;
mod receiver;
mod sender;
mod sleeper;
mod spin;
mod surface;
#[cfg(feature = "tokio")]
mod tasks;
#[cfg(feature = "tokio")]
mod turn;
#[cfg(not(feature = "tokio"))]
#[path = "linux/thread_turn.rs"]
mod turn;
mod vigil;

pub use face::{PeerPart, SpscFace};
pub use handle::SpscHandle;
pub use incoming::Incoming;
pub use listener::SpscListener;
pub use name::{NAME_LEN_MAX, check_name, runtime_dir};
pub use offer::{OFFER_DESCRIPTORS, OFFER_LEN, Offer};
pub use options::{FULL_LIMIT_DEFAULT, Options, SPIN_DEFAULT};
pub use pass::OFFER_TIMEOUT;
pub use receiver::Receiver;
pub use sender::{Outgoing, Sender};
