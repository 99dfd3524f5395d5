//! No file of a run may have two roles: what is written would be read as jobs, or overwritten.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::MapConfig;
use super::error::MapError;

/// What tells files apart: two names may be one file.
#[derive(PartialEq, Eq)]
enum Identity {
    /// Device and number.
    There(u64, u64),
    /// Where it will be.
    ToBe(PathBuf),
}

/// Refuses a run that would write to its own input, or two things to one file.
pub(super) fn check(config: &MapConfig, input: &File, input_name: &Path) -> Result<(), MapError> {
    let mut seen: Vec<(Identity, &'static str)> = Vec::new();
    let mut add = |identity: Option<Identity>, name: &Path, role| {
        let Some(identity) = identity else { return Ok(()) };
        if let Some((_, other)) = seen.iter().find(|(known, _)| *known == identity) {
            return Err(MapError::Clash { name: name.to_owned(), roles: (other, role) });
        }
        seen.push((identity, role));
        Ok(())
    };
    add(of_open(input), input_name, "the input")?;
    match &config.output {
        Some(path) => add(of_path(path), path, "the output")?,
        None => {
            let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from).ok();
            add(stdout.as_ref().and_then(of_open), Path::new("stdout"), "the output")?;
        }
    }
    for (path, role) in [(&config.joblog, "the job log"), (&config.errors, "the file of --errors")]
    {
        if let Some(path) = path {
            add(of_path(path), path, role)?;
        }
    }
    Ok(())
}

/// Terminals, pipes and `/dev/null` may be many things at once.
fn of_metadata(metadata: &Metadata) -> Option<Identity> {
    metadata.is_file().then(|| Identity::There(metadata.dev(), metadata.ino()))
}

fn of_open(file: &File) -> Option<Identity> {
    of_metadata(&file.metadata().ok()?)
}

fn of_path(path: &Path) -> Option<Identity> {
    match std::fs::metadata(path) {
        Ok(metadata) => of_metadata(&metadata),
        Err(_) => std::path::absolute(path).ok().map(Identity::ToBe),
    }
}
