//! The progress line on a terminal.

use std::fmt;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::cli::number::grouped;
use crate::cli::say;

/// How often the line is drawn, in times a second.
const DRAWS_PER_SECOND: u8 = 8;

/// The progress line, or nothing where there is no terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows a line on stderr if `shown`; with the time left once [`Progress::total`] is known.
    pub(crate) fn new(shown: bool) -> Self {
        let bar = shown.then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
            let bar = ProgressBar::with_draw_target(None, target);
            bar.set_style(style("{spinner} {human_pos} done, {rate}{msg}"));
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Self { bar }
    }

    /// Whether there is a line.
    pub(crate) fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// The input has ended: it held so many jobs.
    pub(crate) fn total(&self, jobs: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(jobs);
            bar.set_style(style("{bar:24} {human_pos}/{human_len}, {rate}, {eta} left{msg}"));
        }
    }

    /// So many jobs have ended, so many of them failed, so many workers are at work.
    pub(crate) fn update(&self, done: u64, failed: u64, busy: usize, workers: usize) {
        let Some(bar) = &self.bar else { return };
        bar.set_position(done);
        if failed > 0 {
            bar.set_message(format!(", {failed} failed, {busy}/{workers} busy"));
        } else {
            bar.set_message(format!(", {busy}/{workers} busy"));
        }
    }

    /// Prints a line to stderr without disturbing the progress line.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say::line(line)),
            None => say::line(line),
        }
    }

    /// Takes the line away.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
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
