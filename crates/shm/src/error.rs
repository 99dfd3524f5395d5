//! What can go wrong, and what closed a ring.

use std::io;

/// Why an operation on a pair of rings failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShmError {
    /// The pair is closed: the peer is gone, the token was cancelled, the ring stayed full for its
    /// whole limit, or the peer broke the protocol. `closed_by` says which. Make a new pair.
    #[error("the shared-memory pair is closed; `closed_by` says by what")]
    Closed,
    /// No slot is free. Only the calls that don't wait say so; try again when the peer has taken
    /// something.
    #[error("the ring is full")]
    Full,
    /// A message is larger than a slot. Nothing was published; send it by another way, or create
    /// the pair with larger slots.
    #[error("a message of {len} bytes does not fit into a slot of {slot_size}")]
    PacketTooLarge {
        /// Bytes of the message.
        len: usize,
        /// Bytes that a slot holds.
        slot_size: usize,
    },
    /// The name is empty, longer than [`NAME_LEN_MAX`](crate::NAME_LEN_MAX), begins with a dot, or
    /// has a character other than ASCII letters, digits, `-`, `_` and `.`.
    #[error(
        "{name:?} is no valid name: use 1 to 64 ASCII letters, digits, '-', '_' and '.', and no '.' at its beginning"
    )]
    InvalidName {
        /// The name as it was given.
        name: String,
    },
    /// Capacity or slot size is outside its limits.
    #[error(
        "two rings of {capacity} slots of {slot_size} bytes are outside of the limits: \
         1 to 1048576 slots of 1 to 67108864 bytes, 4 GiB in all"
    )]
    Geometry {
        /// Slots asked for.
        capacity: u32,
        /// Bytes a slot asked for.
        slot_size: u32,
    },
    /// Nobody listens under this name: the engine has not created it, is gone, or has its peer
    /// already.
    #[error("nobody waits for a connection under the name {name:?}")]
    NotFound {
        /// The name asked for.
        name: String,
    },
    /// Another process that still runs listens under this name.
    #[error(
        "the name {name:?} is taken by a process that still listens: end it, or use another name"
    )]
    NameTaken {
        /// The name asked for.
        name: String,
    },
    /// The engine has its peer already; a pair of rings has one application.
    #[error("the engine refused the connection: {reason}")]
    Refused {
        /// What the engine said.
        reason: Refusal,
    },
    /// The process at the other end belongs to another user.
    #[error("the peer runs as user {peer}, this process as {own}; both must be the same")]
    WrongUser {
        /// User id of the peer.
        peer: u32,
        /// User id of this process.
        own: u32,
    },
    /// The runtime directory is not a directory of this user's with mode 0700.
    #[error("{path} must be a directory with mode 0700 that belongs to this user")]
    UnsafeDirectory {
        /// The directory.
        path: String,
    },
    /// The message that should hand over the memory does not make sense.
    #[error("the peer's offer is not one of remuda-shm's: {0}")]
    BadOffer(&'static str),
    /// The peer wrote into the shared memory what it must not. The pair is of no more use.
    #[error("the peer broke the ring's protocol: {0}")]
    Corrupt(#[from] Lie),
    /// The system refused.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Why an engine refuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The pair has its application.
    #[error("the pair has its application already")]
    Taken,
    /// The application runs as another user.
    #[error("the application runs as another user")]
    WrongUser,
    /// The engine could not make the memory or the descriptors for a pair.
    #[error("the engine has no memory or no descriptors left")]
    Exhausted,
}

/// Something in the shared memory that no honest peer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lie {
    /// The consumer's index went backwards, or past what was published.
    #[error("the consumer's index {head} is not between {taken} and {tail}")]
    Head {
        /// What it says.
        head: u64,
        /// What it said before.
        taken: u64,
        /// Messages published.
        tail: u64,
    },
    /// The producer's index is further ahead of what was taken than the ring is long.
    #[error("the producer's index {tail} is more than {capacity} ahead of {head}")]
    Tail {
        /// What it says.
        tail: u64,
        /// Messages taken.
        head: u64,
        /// Slots in the ring.
        capacity: u32,
    },
    /// The sequence word of a slot is neither that of the message awaited nor that of the one
    /// before.
    #[error("the sequence word {word:#x} does not belong to message {position}")]
    Sequence {
        /// The word.
        word: u64,
        /// The message awaited.
        position: u64,
    },
    /// A length is larger than the slot.
    #[error("a message claims {len} bytes in a slot of {slot_size}")]
    Length {
        /// What it says.
        len: u32,
        /// Bytes that a slot holds.
        slot_size: u32,
    },
    /// The index says that a message is published, its slot says that it is not: the memory under
    /// it was taken away.
    #[error("message {position} was published, and its slot is empty")]
    Missing {
        /// The message awaited.
        position: u64,
    },
}

/// What closed a pair, or one direction of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer dropped its side, or its process ended.
    PeerGone,
    /// The cancellation token fired.
    Cancelled,
    /// The ring stayed full for the whole of
    /// [`Options::full_limit`](crate::Options::full_limit) without any progress.
    Full,
    /// The peer wrote into the shared memory what it must not.
    Corrupt(Lie),
}

impl ShmError {
    /// For `map_err`: what was being done when the system refused.
    #[cfg(all(target_os = "linux", not(loom)))]
    pub(crate) fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { doing, source: source.into() }
    }
}
