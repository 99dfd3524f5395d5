//! What a run finds of an earlier one (`--resume`, `--resume-failed`), and the files it writes to.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::MapConfig;
use super::error::MapError;
use super::joblog::{self, History};
use super::output::{Portion, Sinks};

/// Where a run begins.
pub(crate) struct Plan {
    sinks: Option<Sinks>,
    /// The jobs that are not run again.
    pub(crate) history: History,
    rewrite: Option<Rewrite>,
}

/// Old results are copied to new files, which take the old ones' places at the end: a failed job's
/// result belongs between others that are there already.
struct Rewrite {
    old_output: File,
    old_log: Option<File>,
    renames: Vec<(PathBuf, PathBuf)>,
}

impl Plan {
    /// Reads the job log, if there is one to go by, and opens what is to be written.
    pub(crate) fn make(config: &MapConfig) -> Result<Self, MapError> {
        let mut history = History::default();
        if let (Some(log), true) = (&config.joblog, config.resume) {
            let output_len = match &config.output {
                Some(path) => Some(std::fs::metadata(path).map_or(0, |meta| meta.len())),
                None => None,
            };
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
        let mut plan = Self { sinks: None, history, rewrite };
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
            sinks.errors = Some(open_at(path, 0)?);
        }
        Ok(sinks)
    }

    /// The file of that name, cut to what is kept of it; in a rewrite, a new one beside it.
    fn file(&mut self, path: &Path, keep: u64) -> Result<File, MapError> {
        let Some(rewrite) = &mut self.rewrite else { return open_at(path, keep) };
        let mut beside = path.as_os_str().to_owned();
        beside.push(".resuming");
        let beside = PathBuf::from(beside);
        rewrite.renames.push((beside.clone(), path.to_owned()));
        open_at(&beside, 0)
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

    /// All is written: new files take the old ones' places.
    pub(crate) fn finish(self) -> Result<(), MapError> {
        for (from, to) in self.rewrite.map(|rewrite| rewrite.renames).unwrap_or_default() {
            std::fs::rename(&from, &to).map_err(|source| MapError::Create { name: to, source })?;
        }
        Ok(())
    }
}

impl Rewrite {
    fn of(config: &MapConfig, output: &Path) -> Result<Self, MapError> {
        let open = |path: &Path| {
            File::open(path).map_err(|source| MapError::Input { name: path.to_owned(), source })
        };
        let old_log = config.joblog.as_deref().map(open).transpose()?;
        Ok(Self { old_output: open(output)?, old_log, renames: Vec::new() })
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
