//! Writes results, job log and errors on a thread of its own, in that order.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// How many portions may wait for the disk or for the reader of stdout.
pub(crate) const PORTIONS_LIMIT: usize = 4;

/// What is written together. The rows are written after the results they stand for.
#[derive(Debug, Default)]
pub(crate) struct Portion {
    pub(crate) results: Vec<u8>,
    pub(crate) rows: Vec<u8>,
    pub(crate) errors: Vec<u8>,
}

impl Portion {
    pub(crate) fn is_empty(&self) -> bool {
        self.results.is_empty() && self.rows.is_empty() && self.errors.is_empty()
    }

    fn clear(&mut self) {
        self.results.clear();
        self.rows.clear();
        self.errors.clear();
    }
}

/// Where a run writes.
#[derive(Debug)]
pub(crate) struct Sinks {
    pub(crate) results: File,
    /// What the results' sink is called in an error.
    pub(crate) results_name: String,
    pub(crate) joblog: Option<File>,
    pub(crate) errors: Option<File>,
}

/// Why writing stopped.
#[derive(Debug)]
pub(crate) enum WriteFailed {
    /// Whoever read stdout has gone: the run ends quietly.
    ReaderGone,
    /// Anything else, with the name of what was written.
    Other(String, io::Error),
}

/// The thread that writes.
#[derive(Debug)]
pub(crate) struct Writer {
    portions: SyncSender<Portion>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Starts the thread. `done` is called after each portion, with the emptied portion to be used
    /// again; after a failure nothing more is written.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(crate) fn start(
        sinks: Sinks,
        done: impl FnMut(Result<Portion, WriteFailed>) + Send + 'static,
    ) -> io::Result<Self> {
        let (portions, incoming) = sync_channel(PORTIONS_LIMIT);
        let thread = std::thread::Builder::new()
            .name("remuda-output".into())
            .spawn(move || write_all(sinks, &incoming, done))?;
        Ok(Self { portions, thread })
    }

    /// Hands over a portion; it waits if [`PORTIONS_LIMIT`] are waiting already.
    pub(crate) fn write(&self, portion: Portion) {
        // An error means that the thread ended after a failure that it has told.
        let _ = self.portions.send(portion);
    }

    /// Waits until all is written.
    pub(crate) fn finish(self) {
        drop(self.portions);
        let _ = self.thread.join();
    }
}

fn write_all(
    mut sinks: Sinks,
    incoming: &Receiver<Portion>,
    mut done: impl FnMut(Result<Portion, WriteFailed>),
) {
    for mut portion in incoming {
        let written = sinks.write(&portion);
        let failed = written.is_err();
        portion.clear();
        done(written.map(|()| portion));
        if failed {
            return;
        }
    }
}

impl Sinks {
    fn write(&mut self, portion: &Portion) -> Result<(), WriteFailed> {
        self.results.write_all(&portion.results).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => WriteFailed::ReaderGone,
            _ => WriteFailed::Other(self.results_name.clone(), error),
        })?;
        write_file(&mut self.errors, &portion.errors, "the file of --errors")?;
        write_file(&mut self.joblog, &portion.rows, "the job log")
    }
}

fn write_file(file: &mut Option<File>, bytes: &[u8], name: &str) -> Result<(), WriteFailed> {
    match file {
        Some(file) if !bytes.is_empty() => {
            file.write_all(bytes).map_err(|error| WriteFailed::Other(name.to_owned(), error))
        }
        _ => Ok(()),
    }
}
