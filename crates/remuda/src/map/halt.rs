//! `--halt`: when a run ends before its input does, by the words of GNU parallel.

use std::str::FromStr;

/// A percentage is looked at only when this many jobs have ended, as GNU parallel does.
const PERCENT_FROM: u64 = 3;

/// When to end early, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Halt {
    /// Kill what runs, instead of letting it finish.
    pub(crate) now: bool,
    what: What,
    limit: Limit,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Fail,
    Success,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    Jobs(u64),
    Percent(f64),
}

impl Halt {
    /// Ends at once with the first failure (`--on-error halt`).
    pub(crate) const NOW_AT_FIRST_FAILURE: Self =
        Self { now: true, what: What::Fail, limit: Limit::Jobs(1) };

    /// True if the run ends, after so many failures and successes.
    pub(crate) fn reached(&self, failed: u64, succeeded: u64) -> bool {
        let done = failed + succeeded;
        let count = match self.what {
            What::Fail => failed,
            What::Success => succeeded,
            What::Done => done,
        };
        match self.limit {
            Limit::Jobs(limit) => count >= limit,
            Limit::Percent(percent) => {
                done >= PERCENT_FROM && count as f64 * 100.0 >= percent * done as f64
            }
        }
    }

    /// True if reaching it is what the user hoped for.
    pub(crate) fn is_success(&self) -> bool {
        self.what != What::Fail
    }
}

impl FromStr for Halt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not of the form now|soon,fail|success|done=N|N% (or `never`), as in `soon,fail=3`"
            )
        };
        let (when, rest) = text.split_once(',').ok_or_else(wrong)?;
        let now = match when {
            "now" => true,
            "soon" => false,
            _ => return Err(wrong()),
        };
        let (what, limit) = rest.split_once('=').ok_or_else(wrong)?;
        let what = match what {
            "fail" => What::Fail,
            "success" => What::Success,
            "done" => What::Done,
            _ => return Err(wrong()),
        };
        let limit = match limit.strip_suffix('%') {
            Some(percent) => Limit::Percent(
                percent.parse().ok().filter(|p| *p > 0.0 && *p <= 100.0).ok_or_else(wrong)?,
            ),
            None => Limit::Jobs(limit.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?),
        };
        Ok(Self { now, what, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_percentages() {
        let halt: Halt = "soon,fail=3".parse().unwrap();
        assert!(!halt.now && !halt.reached(2, 90) && halt.reached(3, 0));
        let halt: Halt = "now,success=1".parse().unwrap();
        assert!(halt.now && halt.is_success() && halt.reached(9, 1) && !halt.reached(9, 0));
        let halt: Halt = "soon,fail=50%".parse().unwrap();
        assert!(!halt.reached(2, 0), "two jobs are too few for a percentage");
        assert!(halt.reached(2, 2) && !halt.reached(2, 3));
        assert!("now,done=2".parse::<Halt>().unwrap().reached(1, 1));
    }

    #[test]
    fn what_is_not_of_the_form_is_refused() {
        for text in [
            "",
            "now",
            "now,fail",
            "later,fail=1",
            "now,fail=0",
            "now,fail=0%",
            "now,fail=101%",
            "now,fail=x",
        ] {
            assert!(text.parse::<Halt>().is_err(), "{text}");
        }
    }
}
