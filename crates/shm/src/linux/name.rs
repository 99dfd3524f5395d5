//! Names, and the directory in which they are sockets.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::getuid;

use crate::error::ShmError;
use crate::linux::pass::OFFER_TIMEOUT;

/// The longest name, in bytes.
pub const NAME_LEN_MAX: usize = 64;

const DIRECTORY_MODE: u32 = 0o700;

/// How long a name that is taken may take to become free.
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);
/// How long to wait between two looks at it.
const RELEASE_PAUSE: Duration = Duration::from_millis(5);

/// Looks whether a pair may have this name, without asking anybody: 1 to [`NAME_LEN_MAX`] ASCII
/// letters, digits, `-`, `_` and `.`, not beginning with a dot.
///
/// # Errors
///
/// [`ShmError::InvalidName`].
pub fn check_name(name: &str) -> Result<(), ShmError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let valid = (1..=NAME_LEN_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(allowed);
    if valid { Ok(()) } else { Err(ShmError::InvalidName { name: name.to_owned() }) }
}

/// Where the sockets of this user's pairs are: `$REMUDA_RUNTIME_DIR`, else
/// `$XDG_RUNTIME_DIR/remuda`, else `/tmp/remuda-UID`. The directory may not exist yet.
pub fn runtime_dir() -> PathBuf {
    let named = |variable| std::env::var_os(variable).filter(|value| !value.is_empty());
    if let Some(directory) = named("REMUDA_RUNTIME_DIR") {
        return directory.into();
    }
    match named("XDG_RUNTIME_DIR") {
        Some(directory) => PathBuf::from(directory).join("remuda"),
        None => PathBuf::from(format!("/tmp/remuda-{}", getuid().as_raw())),
    }
}

/// A name in a directory that only this user can enter.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    directory: PathBuf,
    name: String,
}

impl Place {
    pub(crate) fn new(directory: &Path, name: &str) -> Result<Self, ShmError> {
        check_name(name)?;
        Ok(Self { directory: directory.to_owned(), name: name.to_owned() })
    }

    fn path(&self) -> PathBuf {
        self.directory.join(format!("{}.shm", self.name))
    }

    /// Makes the directory if there is none, and refuses one that others can enter.
    fn prepare(&self) -> Result<(), ShmError> {
        match DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(ShmError::system("make the runtime directory")(error));
            }
            _ => {}
        }
        self.check_directory()
    }

    fn check_directory(&self) -> Result<(), ShmError> {
        let metadata = fs::symlink_metadata(&self.directory)
            .map_err(ShmError::system("look at the runtime directory"))?;
        let private = metadata.permissions().mode() & 0o077 == 0;
        if metadata.is_dir() && metadata.uid() == getuid().as_raw() && private {
            return Ok(());
        }
        Err(ShmError::UnsafeDirectory { path: self.directory.display().to_string() })
    }

    /// Whoever holds the lock may bind or unlink names; the kernel lets go of it by itself when
    /// the process ends.
    fn lock(&self) -> Result<File, ShmError> {
        let directory =
            File::open(&self.directory).map_err(ShmError::system("open the runtime directory"))?;
        loop {
            match flock(&directory, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                other => {
                    other.map_err(ShmError::system("lock the runtime directory"))?;
                    return Ok(directory);
                }
            }
        }
    }

    /// Listens under the name. What a process that was killed left there is replaced: a listener
    /// may live on for a moment, as the kernel takes an io_uring apart, and what it refers to,
    /// after the process was reaped.
    pub(crate) fn listen(self) -> Result<Listening, ShmError> {
        self.prepare()?;
        let since = Instant::now();
        loop {
            let lock = self.lock()?;
            if !is_live(&self.path()) {
                return self.bind(&lock);
            }
            // One that ends by itself needs the lock.
            drop(lock);
            if since.elapsed() >= RELEASE_PATIENCE {
                return Err(ShmError::NameTaken { name: self.name });
            }
            std::thread::sleep(RELEASE_PAUSE);
        }
    }

    /// Listens where nobody does, while the lock is held.
    fn bind(self, _lock: &File) -> Result<Listening, ShmError> {
        let path = self.path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ShmError::system("replace a stale socket")(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(ShmError::system("listen"))?;
        let this = Listening { listener, place: Some(self) };
        this.listener.set_nonblocking(true).map_err(ShmError::system("listen"))?;
        Ok(this)
    }

    /// Connects to whoever listens under the name.
    pub(crate) fn connect(&self) -> Result<UnixStream, ShmError> {
        let refused = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ShmError::NotFound { name: self.name.clone() }
            }
            _ => ShmError::system("connect")(error),
        };
        if let Err(error) = fs::symlink_metadata(&self.directory) {
            return Err(refused(error));
        }
        self.check_directory()?;
        connect_in_time(&self.path()).map_err(|error| refused(error.into()))
    }
}

/// Connects, and waits at most [`OFFER_TIMEOUT`] for a place in the queue of one that accepts
/// nobody.
fn connect_in_time(path: &Path) -> Result<UnixStream, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(OFFER_TIMEOUT))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// Whether a process listens there. A datagram socket can't connect to a listener, so that asking
/// doesn't disturb it; the error tells.
fn is_live(path: &Path) -> bool {
    let asked = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
    asked.is_err_and(|error| error.raw_os_error() == Some(Errno::PROTOTYPE.raw_os_error()))
}

/// A listening socket, whose name goes with it.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: UnixListener,
    place: Option<Place>,
}

impl Listening {
    /// Takes the name away; who is in the queue already can still be accepted.
    pub(crate) fn unlink(&mut self) {
        if let Some(place) = self.place.take() {
            // Without the lock another process might replace the socket in between; if it can't
            // be had, a stale file is the lesser evil, which the next start replaces.
            if let Ok(_lock) = place.lock() {
                let _ = fs::remove_file(place.path());
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.unlink();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for name in ["a", "app-1", "A_b.c", &"x".repeat(NAME_LEN_MAX)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        let long = "x".repeat(NAME_LEN_MAX + 1);
        for name in ["", ".", "..", ".hidden", "a/b", "../a", "a b", "a\0b", "ä", &long] {
            assert!(matches!(check_name(name), Err(ShmError::InvalidName { .. })), "{name}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri has no Unix sockets")]
    fn a_directory_that_others_can_enter_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let open = parent.path().join("open");
        DirBuilder::new().mode(0o755).create(&open).unwrap();
        let refused = Place::new(&open, "a").unwrap().listen();
        assert!(matches!(refused, Err(ShmError::UnsafeDirectory { .. })));
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(parent.path(), &link).unwrap();
        let refused = Place::new(&link, "a").unwrap().listen();
        assert!(matches!(refused, Err(ShmError::UnsafeDirectory { .. })));
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri has no Unix sockets")]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(&directory.path().join("run"), "a").unwrap();
        place.prepare().unwrap();
        drop(UnixListener::bind(place.path()).unwrap());
        assert!(place.path().exists(), "the file outlives its listener");
        let listening = place.clone().listen().unwrap();
        assert!(matches!(place.clone().listen(), Err(ShmError::NameTaken { .. })));
        let asked = listening.listener.accept();
        assert!(asked.is_err(), "asking whether it lives did not connect");
        drop(listening);
        assert!(!place.path().exists());
        assert!(matches!(place.connect(), Err(ShmError::NotFound { .. })));
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri has no Unix sockets")]
    fn a_name_that_becomes_free_in_a_moment_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(&directory.path().join("run"), "a").unwrap();
        place.prepare().unwrap();
        // As of a process that is dead: nobody takes the file away.
        let lingering = UnixListener::bind(place.path()).unwrap();
        let other = place.clone();
        let waiting = std::thread::spawn(move || other.listen());
        // Time for it to look, and to find the listener.
        std::thread::sleep(4 * RELEASE_PAUSE);
        assert!(!waiting.is_finished());
        drop(lingering);
        assert!(waiting.join().unwrap().is_ok());
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri has no Unix sockets")]
    fn a_listener_that_accepts_nobody_does_not_hold_up_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(&directory.path().join("run"), "a").unwrap();
        place.prepare().unwrap();
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let socket = socket.unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(place.path()).unwrap()).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let _queued = place.connect().unwrap();
        assert!(matches!(place.connect(), Err(ShmError::System { .. })));
    }
}
