//! The ring: one producer, one consumer, over any [`Storage`].
//!
//! Every slot begins with a sequence word, which says whose turn the slot is and how long the
//! message is, so that a small message and the news of it travel in one cache line. A run of
//! messages is written completely, all words but the first included, before the first word makes
//! it visible with one release store; a producer that dies half way has published nothing of it.
//! The header's head and tail tell the room, and are what each side checks the other by.
//!
//! **Sleeping.** A side that found nothing says so in its state word ([`Consumer::park`],
//! [`Producer::park`]), passes a full fence, and looks again before it sleeps. The other side
//! passes a full fence between publishing and looking at that word. So one of the two always sees
//! the other, and a wake-up costs a system call only when somebody sleeps. The ring itself calls
//! nothing: it returns whether the other side must be woken.
//!
//! **Waking ahead.** To wake up across processors takes longer than to write a message, or to make
//! a short one out of another. So a consumer that sleeps at each message may be woken before its
//! message is there ([`Producer::wake_ahead`]): that takes back what it said, like any wake-up, and
//! a consumer that looks too early says it again, and is woken again.

mod ahead;
mod consumer;
mod producer;
mod word;

pub use crate::heap::{Heap, heap};
pub use crate::storage::{Index, Ordering, Storage};
pub use consumer::{Consumer, Look, Message};
pub use producer::{Producer, PushError, Reserved};

/// The bit of a state word that says: its writer sleeps, or is about to.
const WAITING: u64 = 1;
/// The bit of a state word that says: its writer has left.
const CLOSED: u64 = 2;
