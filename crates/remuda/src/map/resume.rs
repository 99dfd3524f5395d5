//! What a run finds of an earlier one (`--resume`, `--resume-failed`), and the files it writes to.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::MapConfig;
use super::emit;
use super::error::MapError;
use super::joblog::{self, History};
use super::output::{Portion, Sinks};

/// Where a run begins.
pub(crate) struct Plan {
    sinks: Option<Sinks>,
    /// The jobs that are not run again.
    pub(crate) history: History,
    rewrite: Option<Rewrite>,
    joblog: Option<PathBuf>,
}

/// Old results are copied to new files, which take the old ones' places at the end: a failed job's
/// result belongs between others that are there already.
struct Rewrite {
    /// The name of the output.
    output: PathBuf,
    old_output: File,
    old_log: Option<File>,
}

impl Plan {
    /// Reads the job log, if there is one to go by, and opens what is to be written.
    pub(crate) fn make(config: &MapConfig) -> Result<Self, MapError> {
        let mut history = History::default();
        if let (Some(log), true) = (&config.joblog, config.resume) {
            finish_renames(log, config.output.as_deref())?;
            let len = |path: &PathBuf| std::fs::metadata(path).map_or(0, |meta| meta.len());
            let output_len = config.output.as_ref().map(len);
            history = History::read(log, output_len)
                .map_err(|source| MapError::JobLog { name: log.clone(), source })?;
        }
        let failed = history.jobs.values().any(|past| !past.succeeded);
        let rewrite = match &config.output {
            Some(output) if config.resume_failed && failed => Some(Rewrite::of(config, output)?),
            _ => None,
        };
        if config.resume_failed {
            history.jobs.retain(|_, past| past.succeeded);
        }
        let mut plan = Self { sinks: None, history, rewrite, joblog: config.joblog.clone() };
        plan.sinks = Some(plan.open(config)?);
        Ok(plan)
    }

    fn open(&mut self, config: &MapConfig) -> Result<Sinks, MapError> {
        let mut sinks = Sinks::to_stdout()?;
        let rewrite = self.rewrite.is_some();
        // The log first: without it, an output can't be told from one of another run.
        if let Some(path) = &config.joblog {
            let keep = if rewrite { 0 } else { self.history.log_bytes };
            let mut log = self.file(path, keep)?;
            if keep == 0 {
                log.write_all(joblog::HEADER.as_bytes())
                    .map_err(|source| MapError::Create { name: path.clone(), source })?;
            }
            sinks.joblog = Some(log);
        }
        if let Some(path) = &config.output {
            let keep = if rewrite { 0 } else { self.history.output_bytes };
            sinks.results = self.file(path, keep)?;
            sinks.results_name = path.display().to_string();
        }
        if let Some(path) = &config.errors {
            let keep = if rewrite { 0 } else { self.known_errors(path)? };
            sinks.errors = Some(open_at(path, keep)?);
        }
        Ok(sinks)
    }

    /// The file of that name, cut to what is kept of it; in a rewrite, a new one beside it.
    fn file(&self, path: &Path, keep: u64) -> Result<File, MapError> {
        if self.rewrite.is_none() {
            return open_at(path, keep);
        }
        open_at(&with_suffix(path, WRITING), 0)
    }

    /// Length of the part of the file of errors that tells of jobs in the log. Errors are written
    /// before their rows: what a killed run told of beyond the log is told again.
    fn known_errors(&self, path: &Path) -> Result<u64, MapError> {
        let failed = |source| MapError::Input { name: path.to_owned(), source };
        let mut reader = match File::open(path) {
            Ok(file) if !self.history.jobs.is_empty() => BufReader::new(file),
            Ok(_) => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(failed(error)),
        };
        let (mut known, mut line) = (0, Vec::new());
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(failed)? as u64;
            let number = line.strip_suffix(b"\n").and_then(emit::number_of_error);
            let past = number.and_then(|number| self.history.jobs.get(&number));
            match past {
                Some(past) if !past.succeeded => known += read,
                _ => return Ok(known),
            }
        }
    }

    /// Whether old results have to be written again.
    pub(crate) fn rewrites(&self) -> bool {
        self.rewrite.is_some()
    }

    /// Where the results go. Taken once.
    pub(crate) fn take_sinks(&mut self) -> Result<Sinks, MapError> {
        self.sinks.take().map_or_else(Sinks::to_stdout, Ok)
    }

    /// Writes a job of an earlier run again: its result, and its row.
    pub(crate) fn write_past(&self, number: u64, portion: &mut Portion) -> io::Result<()> {
        let (Some(rewrite), Some(past)) = (&self.rewrite, self.history.jobs.get(&number)) else {
            return Ok(());
        };
        copy(&rewrite.old_output, past.output, &mut portion.results)?;
        match &rewrite.old_log {
            Some(log) => copy(log, past.row, &mut portion.rows),
            None => Ok(()),
        }
    }

    /// All is written: new files take the old ones' places. The new log gets a name first that
    /// says that all is there; a run that is killed after that is finished by the next one.
    pub(crate) fn finish(self) -> Result<(), MapError> {
        let (Some(rewrite), Some(log)) = (&self.rewrite, &self.joblog) else { return Ok(()) };
        rename(&with_suffix(log, WRITING), &with_suffix(log, WRITTEN))?;
        finish_renames(log, Some(&rewrite.output))
    }
}

/// The end of a file's name while old results are copied to it.
const WRITING: &str = ".resuming";
/// The end of the new log's name once all is written.
const WRITTEN: &str = ".resumed";

/// Moves new files to the old ones' places, if a run has written them to their end.
fn finish_renames(log: &Path, output: Option<&Path>) -> Result<(), MapError> {
    let written = with_suffix(log, WRITTEN);
    if !written.exists() {
        return Ok(());
    }
    if let Some(output) = output {
        let beside = with_suffix(output, WRITING);
        if beside.exists() {
            rename(&beside, output)?;
        }
    }
    rename(&written, log)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn rename(from: &Path, to: &Path) -> Result<(), MapError> {
    std::fs::rename(from, to).map_err(|source| MapError::Create { name: to.to_owned(), source })
}

impl Rewrite {
    fn of(config: &MapConfig, output: &Path) -> Result<Self, MapError> {
        let open = |path: &Path| {
            File::open(path).map_err(|source| MapError::Input { name: path.to_owned(), source })
        };
        let old_log = config.joblog.as_deref().map(open).transpose()?;
        Ok(Self { output: output.to_owned(), old_output: open(output)?, old_log })
    }
}

/// Appends a part of a file, its start and its length.
fn copy(file: &File, part: (u64, u64), into: &mut Vec<u8>) -> io::Result<()> {
    let start = into.len();
    into.resize(start + part.1 as usize, 0);
    file.read_exact_at(&mut into[start..], part.0)
}

impl Sinks {
    fn to_stdout() -> Result<Self, MapError> {
        let stdout = io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| MapError::Write { name: "stdout".into(), source })?;
        Ok(Self {
            results: stdout.into(),
            results_name: "stdout".into(),
            joblog: None,
            errors: None,
        })
    }
}

/// Opens a file to be written from `keep` on, where it is cut.
fn open_at(path: &Path, keep: u64) -> Result<File, MapError> {
    let open = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        // A device or a pipe, such as /dev/stdout, has no length to cut.
        if file.metadata()?.is_file() {
            file.set_len(keep)?;
            file.seek(SeekFrom::Start(keep))?;
        }
        Ok(file)
    };
    open().map_err(|source| MapError::Create { name: path.to_owned(), source })
}
