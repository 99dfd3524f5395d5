//! Peers that the tests talk to: real sockets, and what a test says they do.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use remuda_protocol::{Op, Payload, Request, encode};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, ChildStdout, Command};

/// The answer to a handshake.
pub(crate) const HELLO: &str = r#"{"ok":true,"data":{"kind":"handshake","version":"1","instance":"test","pid":1,"capacity":4,"ordered":false,"batch":8,"capabilities":["cancel"]}}"#;

/// A Unix socket in a directory of its own.
pub(crate) struct Place {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peer.sock");
        Place { directory, path }
    }

    /// The same place, listened at.
    pub(crate) fn listen() -> (Place, UnixListener) {
        let place = Place::new();
        let listener = UnixListener::bind(&place.path).unwrap();
        (place, listener)
    }

    /// Takes the place of a listener that is gone.
    pub(crate) fn listen_again(&self) -> UnixListener {
        let _ = std::fs::remove_file(&self.path);
        UnixListener::bind(&self.path).unwrap()
    }
}

/// One accepted connection, driven line by line.
pub(crate) struct Peer {
    pub(crate) lines: Lines<BufReader<OwnedReadHalf>>,
    pub(crate) writer: OwnedWriteHalf,
}

impl Peer {
    pub(crate) fn new(stream: UnixStream) -> Peer {
        let (reader, writer) = stream.into_split();
        Peer { lines: BufReader::new(reader).lines(), writer }
    }

    /// Accepts a connection, and nothing more.
    pub(crate) async fn accept(listener: &UnixListener) -> Peer {
        Peer::new(listener.accept().await.unwrap().0)
    }

    /// Accepts a connection and answers its handshake.
    pub(crate) async fn greet(listener: &UnixListener) -> Peer {
        let mut peer = Peer::accept(listener).await;
        assert!(peer.line().await.starts_with(r#"{"op":"handshake","version":"1""#));
        peer.send(HELLO).await;
        peer
    }

    /// The next line, which must come.
    pub(crate) async fn line(&mut self) -> String {
        self.next().await.expect("the client closed the connection")
    }

    /// The next line, or `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<String> {
        self.lines.next_line().await.ok().flatten()
    }

    pub(crate) async fn send(&mut self, line: &str) {
        self.bytes(format!("{line}\n").as_bytes()).await;
    }

    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        // A client that left already is for the test to notice.
        let _ = self.writer.write_all(bytes).await;
    }

    /// Answers a call with its own body.
    pub(crate) async fn echo(&mut self, line: &str) {
        let mut out = Vec::new();
        echo_line(line.as_bytes(), &mut out);
        self.bytes(&out).await;
    }

    /// Answers all calls with their own bodies, until the client leaves.
    pub(crate) async fn echo_all(mut self) {
        while let Some(line) = self.next().await {
            self.echo(&line).await;
        }
    }
}

/// Appends the answer to one request: a call's own body.
pub(crate) fn echo_line(line: &[u8], out: &mut Vec<u8>) {
    let request = Request::parse(line).unwrap();
    match request.op {
        Op::Call(call) => match call.payload {
            Payload::One(body) => encode::result(out, request.id, body.as_bytes()),
            Payload::Many(bodies) => {
                encode::results(
                    out,
                    request.id,
                    bodies.iter().map(|body| Ok(body.as_str().as_bytes())),
                );
            }
        },
        Op::Status => encode::ok(out, request.id, "status", br#""pid":4711"#),
        Op::Reset => encode::ok(out, request.id, "reset", b""),
        Op::Shutdown => encode::ok(out, request.id, "shutdown", b""),
        Op::Cancel => {}
        Op::Handshake { .. } => out.extend_from_slice(format!("{HELLO}\n").as_bytes()),
    }
}

/// The id of a request, as it was written.
pub(crate) fn id_of(line: &str) -> u64 {
    Request::parse(line.as_bytes()).unwrap().id.unwrap().number().unwrap()
}

/// A Python worker, in a process of its own, that listens at a path. Killed when dropped.
pub(crate) struct PythonWorker {
    pub(crate) child: Child,
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl PythonWorker {
    /// Starts it with `function` as its function, and waits until it listens.
    pub(crate) async fn start(path: &Path, function: &str) -> PythonWorker {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/python");
        let program = format!(
            "import socket, sys, time\n\
             sys.path.insert(0, sys.argv[1])\n\
             import remuda\n\
             listen = socket.socket.listen\n\
             def listen_and_tell(self, *backlog):\n    listen(self, *backlog)\n    print('listening', flush=True)\n\
             socket.socket.listen = listen_and_tell\n\
             remuda.serve({function}, listen=sys.argv[2])\n"
        );
        let mut child = Command::new("python3")
            .args(["-c", &program])
            .arg(sdk)
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 runs the worker");
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(stdout.next_line().await.unwrap().as_deref(), Some("listening"));
        PythonWorker { child, _stdout: stdout }
    }
}
