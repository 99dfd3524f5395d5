//! The other process of a test: the same program, told by its environment to play a part.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

const ROLE: &str = "REMUDA_SHM_TEST_ROLE";

/// The part that this process plays, if it is the other one.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Starts this program again, in `test`, which must play `role`. The socket is its stdin; its
/// stdout can be read.
pub(crate) fn start(test: &str, role: &str, socket: UnixStream) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .stdin(OwnedFd::from(socket))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The socket that the other process was started with.
pub(crate) fn socket() -> UnixStream {
    std::io::stdin().as_fd().try_clone_to_owned().unwrap().into()
}

/// `short` in an ordinary run, `long` where `REMUDA_SOAK=1` asks for it.
pub(crate) fn amount(short: u64, long: u64) -> u64 {
    if std::env::var_os("REMUDA_SOAK").is_some_and(|soak| soak == "1") { long } else { short }
}

/// Keeps this thread, and those it starts, on one processor.
pub(crate) fn pin(processor: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(processor);
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}

/// The first two processors that this process may use; the same one twice if there is one only.
pub(crate) fn two_processors() -> [usize; 2] {
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    let mut usable = (0..1024).filter(|processor| set.is_set(*processor));
    let first = usable.next().unwrap();
    [first, usable.next().unwrap_or(first)]
}

/// Numbers that look random, the same for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A seed, printed so that a failure can be repeated with `REMUDA_SEED`.
pub(crate) fn seed() -> Random {
    let given = std::env::var("REMUDA_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = given.unwrap_or(now.as_nanos() as u64) | 1;
    println!("REMUDA_SEED={seed}");
    Random(seed)
}
