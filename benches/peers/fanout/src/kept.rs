//! Messages that were taken and not answered yet, as a pool that loses none has to keep them: were a
//! child to die, what it had would be handed to another, and who sent each is known by nothing else.

use std::collections::VecDeque;

/// What a slot of a ring holds.
const BYTES: usize = 248;

#[repr(C, align(64))]
struct Message {
    of: u32,
    len: u32,
    bytes: [u8; BYTES],
}

#[derive(Default)]
pub struct Kept {
    messages: Vec<Message>,
    /// The places that are free, the last one that was used at the end.
    free: Vec<u32>,
    /// Those that wait until a child has room for them, in the order in which they came.
    waiting: VecDeque<u32>,
}

impl Kept {
    /// Keeps a message; gives its place.
    pub fn put(&mut self, of: u32, message: &[u8]) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.messages.push(Message { of: 0, len: 0, bytes: [0; BYTES] });
            self.messages.len() as u32 - 1
        });
        let kept = &mut self.messages[place as usize];
        (kept.of, kept.len) = (of, message.len() as u32);
        kept.bytes[..message.len()].copy_from_slice(message);
        place
    }

    /// The message is to wait.
    pub fn wait(&mut self, place: u32) {
        self.waiting.push_back(place);
    }

    pub fn any_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The first that waits, and its place.
    pub fn next(&mut self) -> Option<(u32, &[u8])> {
        let place = self.waiting.pop_front()?;
        let kept = &self.messages[place as usize];
        Some((place, &kept.bytes[..kept.len as usize]))
    }

    /// The message is answered: whose it was.
    pub fn answered(&mut self, place: u32) -> u32 {
        self.free.push(place);
        self.messages[place as usize].of
    }
}
