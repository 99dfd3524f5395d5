//! Tells of failed jobs on stderr: each kind once when it first happens, its number at the end.

use std::collections::HashMap;

use crate::cli::number::grouped;

/// How many kinds of failure are told apart; any beyond are counted together.
const KINDS_LIMIT: usize = 1000;
/// How many kinds are told of as they happen.
const SHOWN_LIMIT: usize = 20;
/// How much of a message is shown, in bytes.
const MESSAGE_LIMIT: usize = 500;

/// The failures of a run, grouped by code and message.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    kinds: HashMap<(String, String), Kind>,
    order: Vec<(String, String)>,
    beyond: u64,
}

#[derive(Debug)]
struct Kind {
    count: u64,
    first: u64,
}

impl Failures {
    /// Counts a failure of job `seq`; returns the line to print if its kind is told of now.
    pub(crate) fn record(&mut self, seq: u64, code: &str, message: &str) -> Option<String> {
        let message = short(message);
        let key = (code.to_owned(), message.to_owned());
        if let Some(kind) = self.kinds.get_mut(&key) {
            kind.count += 1;
            return None;
        }
        if self.order.len() >= KINDS_LIMIT {
            self.beyond += 1;
            return None;
        }
        let shown = self.order.len() < SHOWN_LIMIT;
        self.order.push(key.clone());
        self.kinds.insert(key, Kind { count: 1, first: seq });
        shown.then(|| format!("remuda: line {seq}: {code}: {message}"))
    }

    /// The lines that say how often each kind happened, for those that one line didn't tell.
    pub(crate) fn summary(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (place, key) in self.order.iter().enumerate() {
            let kind = &self.kinds[key];
            let (code, message) = key;
            let first = grouped(kind.first);
            if kind.count > 1 {
                let times = grouped(kind.count);
                lines.push(format!(
                    "remuda: {code}: {message}, {times} times, first at line {first}"
                ));
            } else if place >= SHOWN_LIMIT {
                lines.push(format!("remuda: line {first}: {code}: {message}"));
            }
        }
        if self.beyond > 0 {
            lines.push(format!("remuda: and {} failures of other kinds", grouped(self.beyond)));
        }
        lines
    }
}

/// The first line of a message, cut to [`MESSAGE_LIMIT`].
fn short(message: &str) -> &str {
    let line = message.lines().next().unwrap_or("");
    let mut end = line.len().min(MESSAGE_LIMIT);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    &line[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_failures_are_one_line_and_a_number() {
        let mut failures = Failures::default();
        let first = failures.record(17, "handler_error", "KeyError: 'x'");
        assert_eq!(first.as_deref(), Some("remuda: line 17: handler_error: KeyError: 'x'"));
        for seq in 18..50_017 {
            assert_eq!(failures.record(seq, "handler_error", "KeyError: 'x'"), None);
        }
        assert!(failures.record(60_000, "timeout", "over 2s").is_some());
        assert_eq!(
            failures.summary(),
            ["remuda: handler_error: KeyError: 'x', 50,000 times, first at line 17"]
        );
    }

    #[test]
    fn the_number_of_kinds_is_bounded() {
        let mut failures = Failures::default();
        for seq in 1..=5_000 {
            failures.record(seq, "handler_error", &format!("message {seq}"));
        }
        assert_eq!(failures.order.len(), KINDS_LIMIT);
        let last = failures.summary().pop().unwrap();
        assert_eq!(last, "remuda: and 4,000 failures of other kinds");
    }
}
