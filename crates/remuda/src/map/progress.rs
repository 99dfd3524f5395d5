//! The progress line on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
            bar.set_style(style("{spinner} {human_pos} done, {per_sec}{msg}"));
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
            bar.set_style(style("{bar:24} {human_pos}/{human_len}, {per_sec}, {eta} left{msg}"));
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
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
