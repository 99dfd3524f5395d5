//! What a worker prints: captured line by line, bounded, its last lines kept for the report of its
//! death.

use std::collections::VecDeque;

/// The most bytes of a line that are kept; what is beyond is cut off.
pub(crate) const LINE_LIMIT: usize = 4096;
/// How many of the last lines are kept.
pub(crate) const TAIL_LINES: usize = 20;

/// Cuts what a worker prints into lines, and keeps the last ones.
#[derive(Debug, Default)]
pub(crate) struct LogTail {
    line: Vec<u8>,
    lines: VecDeque<String>,
}

impl LogTail {
    /// Takes in what was read; calls `each` with every line that is whole now.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&str)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.extend(&bytes[..end]);
            self.end_line(&mut each);
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    /// Nothing more comes: a last line without its break is a line, too.
    pub(crate) fn end(&mut self, mut each: impl FnMut(&str)) {
        if !self.line.is_empty() {
            self.end_line(&mut each);
        }
    }

    /// The last lines that were printed, oldest first.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = LINE_LIMIT - self.line.len();
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self, each: &mut impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.line);
        // Control characters could repaint the terminal of whoever reads the log.
        let clean: String = text
            .trim_end_matches('\r')
            .chars()
            .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
            .collect();
        self.line.clear();
        each(&clean);
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(clean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_bounded() {
        let mut tail = LogTail::default();
        let mut seen = Vec::new();
        tail.feed(b"on", |line| seen.push(line.to_owned()));
        tail.feed(b"e\ntwo\r\n\x1b[2Jthree", |line| seen.push(line.to_owned()));
        tail.end(|line| seen.push(line.to_owned()));
        assert_eq!(seen, ["one", "two", "\u{fffd}[2Jthree"]);
        tail.feed(&vec![b'x'; LINE_LIMIT * 3], |_| panic!("no line has ended"));
        for n in 0..100 {
            tail.feed(format!("\n{n}").as_bytes(), |_| {});
        }
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert_eq!(tail.lines().last(), Some("98"));
    }
}
