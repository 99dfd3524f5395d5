//! The progress line: drawn anew and anew on a terminal, now and then a line elsewhere.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::cli::number::grouped;
use crate::cli::say;

/// How often the line is drawn, in times a second.
const DRAWS_PER_SECOND: u8 = 8;

/// Where there is no terminal: when the first line is printed, and how much later than the one
/// before each further line at most. Up to there each comes twice as late as the one before.
const FIRST_LINE: Duration = Duration::from_secs(1);
const LINES_APART: Duration = Duration::from_secs(60);

/// The progress line, or nothing where nobody wants it.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: Option<Shown>,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines(Mutex<Lines>),
}

#[derive(Debug)]
struct Lines {
    started: Instant,
    /// When the next is due, from the start.
    due: Duration,
    total: Option<u64>,
}

impl Lines {
    fn new() -> Self {
        Self { started: Instant::now(), due: FIRST_LINE, total: None }
    }

    /// The line, if one is due.
    fn line(&mut self, done: u64, workers: &str) -> Option<String> {
        let elapsed = self.started.elapsed();
        if elapsed < self.due {
            return None;
        }
        self.due = elapsed + elapsed.min(LINES_APART);
        let done_of = match self.total {
            Some(total) => format!("{}/{}", grouped(done), grouped(total)),
            None => grouped(done),
        };
        let rate = rate(done as f64 / elapsed.as_secs_f64());
        Some(format!("remuda: {done_of} done, {rate}{workers}"))
    }
}

impl Progress {
    /// Shows a line on stderr if `shown`; with the time left once [`Progress::total`] is known.
    pub(crate) fn new(shown: bool) -> Self {
        let shown = shown.then(|| {
            if !io::stderr().is_terminal() {
                return Shown::Lines(Mutex::new(Lines::new()));
            }
            let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
            let bar = ProgressBar::with_draw_target(None, target);
            bar.set_style(style("{spinner} {human_pos} done, {rate}{msg}"));
            bar.enable_steady_tick(Duration::from_millis(250));
            Shown::Bar(bar)
        });
        Self { shown }
    }

    /// Whether there is a line.
    pub(crate) fn is_shown(&self) -> bool {
        self.shown.is_some()
    }

    /// The input has ended: it held so many jobs.
    pub(crate) fn total(&self, jobs: u64) {
        match &self.shown {
            None => {}
            Some(Shown::Bar(bar)) => {
                bar.set_length(jobs);
                bar.set_style(style("{bar:24} {human_pos}/{human_len}, {rate}, {eta} left{msg}"));
            }
            Some(Shown::Lines(lines)) => held(lines).total = Some(jobs),
        }
    }

    /// So many jobs have ended, so many of them failed, so many workers are at work.
    pub(crate) fn update(&self, done: u64, failed: u64, busy: usize, workers: usize) {
        let Some(shown) = &self.shown else { return };
        let at_work = match failed {
            0 => format!(", {busy}/{workers} busy"),
            failed => format!(", {failed} failed, {busy}/{workers} busy"),
        };
        match shown {
            Shown::Bar(bar) => {
                bar.set_position(done);
                bar.set_message(at_work);
            }
            Shown::Lines(lines) => {
                if let Some(line) = held(lines).line(done, &at_work) {
                    say::line(&line);
                }
            }
        }
    }

    /// Prints a line to stderr without disturbing the progress line.
    pub(crate) fn say(&self, line: &str) {
        match &self.shown {
            Some(Shown::Bar(bar)) => bar.suspend(|| say::line(line)),
            _ => say::line(line),
        }
    }

    /// Takes the line away.
    pub(crate) fn clear(&self) {
        if let Some(Shown::Bar(bar)) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// What is only counted is whole after a panic, too.
fn held(lines: &Mutex<Lines>) -> std::sync::MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A template of this file; each is one that indicatif accepts.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_spinner()).with_key("rate", write_rate)
}

/// The jobs a second; a decimal only where there are few.
fn write_rate(state: &ProgressState, out: &mut dyn fmt::Write) {
    // A line that can't be written is drawn without.
    let _ = out.write_str(&rate(state.per_sec()));
}

fn rate(jobs: f64) -> String {
    if jobs < 10.0 { format!("{jobs:.1}/s") } else { format!("{}/s", grouped(jobs as u64)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_no_more_digits_than_they_are_worth() {
        for (jobs, text) in
            [(0.0, "0.0/s"), (1.9419, "1.9/s"), (21.9, "21/s"), (1.8e6, "1,800,000/s")]
        {
            assert_eq!(rate(jobs), text);
        }
    }
}
