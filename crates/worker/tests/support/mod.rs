//! The other end of a worker's socket.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use remuda_protocol::Framer;

/// So long a test waits for an answer before it fails; nothing depends on how long it is.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Peer {
    pub(crate) stream: UnixStream,
    framer: Framer,
}

impl Peer {
    pub(crate) fn new(stream: UnixStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Peer { stream, framer: Framer::new(64 << 20) }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// The next line, or `None` when the worker closed the connection.
    pub(crate) fn receive(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.framer.next_line().unwrap() {
                return Some(String::from_utf8(line.to_vec()).unwrap());
            }
            match self.stream.read(self.framer.spare()) {
                Ok(0) => return None,
                Ok(n) => self.framer.filled(n),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    pub(crate) fn ask(&mut self, text: &str) -> String {
        self.send(text);
        self.send("\n");
        self.receive().expect("an answer")
    }

    /// Shakes hands and returns the answer.
    pub(crate) fn shake(&mut self) -> String {
        self.ask(r#"{"op":"handshake","version":"1"}"#)
    }
}

/// The example `upper`, which `cargo test` builds beside the tests.
pub(crate) fn upper() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join("examples/upper");
    assert!(path.exists(), "run `cargo build --examples -p remuda-worker` first");
    path
}

/// Starts a program as a pool does: a connected socket at descriptor 3, stdin /dev/null.
pub(crate) fn start(program: &Path, arguments: &[&str]) -> (Child, Peer) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = Command::new("sh")
        .args(["-c", "exec 3<&0 </dev/null; exec \"$@\"", "sh"])
        .arg(program)
        .args(arguments)
        .env("REMUDA_FD", "3")
        .env("REMUDA_WORKER_ID", "test-1")
        .env("REMUDA_WORKER_SLOT", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    (child, Peer::new(ours))
}
