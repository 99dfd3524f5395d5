//! A name under which many applications connect, each to a pair of its own.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::error::{Refusal, ShmError};
use crate::linux::doorkeeper::{is_own, is_passing, refuse};
use crate::linux::face::SpscFace;
use crate::linux::name::{Listening, Place, runtime_dir};
use crate::linux::options::Options;

/// Listens under a name, and makes a pair for each application that connects: for an engine with
/// many peers. It never blocks; wait for its descriptor ([`AsFd`]) to be readable.
///
/// Dropping it frees the name. Pairs that were made live on.
#[derive(Debug)]
pub struct SpscListener {
    listening: Listening,
    options: Options,
}

impl SpscListener {
    /// Listens under `name` in [`runtime_dir`]. Each pair is made as `options` say.
    ///
    /// # Errors
    ///
    /// As [`SpscFace::create`].
    pub fn bind(name: &str, options: Options) -> Result<Self, ShmError> {
        Self::bind_in(&runtime_dir(), name, options)
    }

    /// Listens under `name` in another directory, which must have mode 0700 or not exist.
    ///
    /// # Errors
    ///
    /// As [`SpscFace::create`].
    pub fn bind_in(directory: &Path, name: &str, options: Options) -> Result<Self, ShmError> {
        Ok(Self { listening: Place::new(directory, name)?.listen()?, options })
    }

    /// Makes a pair for the next application in the queue; `None` when there is none. Processes of
    /// other users are refused.
    ///
    /// # Errors
    ///
    /// [`ShmError::System`]. The application at hand is told; the listener can be used further.
    pub fn accept(&self) -> Result<Option<SpscFace>, ShmError> {
        loop {
            match self.listening.listener.accept() {
                Ok((application, _)) if !is_own(&application) => {
                    refuse(&application, Refusal::WrongUser);
                }
                Ok((application, _)) => return self.welcome(&application).map(Some),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(ShmError::system("accept an application")(error)),
            }
        }
    }

    /// Turns the next application in the queue away, as
    /// [`Refusal::Exhausted`]; false when there is none.
    ///
    /// # Errors
    ///
    /// [`ShmError::System`]; the listener can be used further.
    pub fn turn_away(&self) -> Result<bool, ShmError> {
        loop {
            match self.listening.listener.accept() {
                Ok((application, _)) => {
                    refuse(&application, Refusal::Exhausted);
                    return Ok(true);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(ShmError::system("accept an application")(error)),
            }
        }
    }

    fn welcome(&self, application: &UnixStream) -> Result<SpscFace, ShmError> {
        SpscFace::over(application, &self.options)
            .inspect_err(|_| refuse(application, Refusal::Exhausted))
    }
}

impl AsFd for SpscListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listening.listener.as_fd()
    }
}
