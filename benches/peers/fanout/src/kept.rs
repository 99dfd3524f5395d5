//! Messages that wait until a child has room for them, in the order in which they came.

/// A message's length and whose it is, in front of it.
const HEAD: usize = 8;
/// What was taken is forgotten once it is so much, and most of what is kept.
const FORGET_BYTES: usize = 64 << 10;

#[derive(Default)]
pub struct Backlog {
    bytes: Vec<u8>,
    from: usize,
}

impl Backlog {
    pub fn push(&mut self, of: u32, message: &[u8]) {
        let head = u64::from(of) << 32 | message.len() as u64;
        self.bytes.extend_from_slice(&head.to_ne_bytes());
        self.bytes.extend_from_slice(message);
    }

    pub fn is_empty(&self) -> bool {
        self.from == self.bytes.len()
    }

    /// The first one.
    pub fn take(&mut self, read: impl FnOnce(u32, &[u8])) {
        let Some((head, rest)) = self.bytes[self.from..].split_first_chunk::<HEAD>() else {
            return;
        };
        let head = u64::from_ne_bytes(*head);
        let len = head as u32 as usize;
        read((head >> 32) as u32, &rest[..len]);
        self.from += HEAD + len;
        if self.is_empty() {
            self.bytes.clear();
            self.from = 0;
        } else if self.from > FORGET_BYTES.max(self.bytes.len() / 2) {
            self.bytes.drain(..self.from);
            self.from = 0;
        }
    }
}
