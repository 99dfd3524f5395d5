//! `remuda serve` as a real process, and a client that speaks its lines: what the tests of the
//! service share.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file is a program of its own and uses a part of it"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take on a loaded machine before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const HANDSHAKE: &str = r#"{"op":"handshake","version":"1"}"#;

/// A handler that does what the job says.
const HANDLER: &str = r#"
import json, os, signal, sys, time

hoard = []


def handle(body):
    if not isinstance(body, dict):
        return body
    if "touch" in body:
        with open(body["touch"], "a") as file:
            file.write(f"{body.get('mark', 'x')}\n")
    if "burn" in body:
        until = time.monotonic() + body["burn"]
        while time.monotonic() < until:
            pass
    if "sleep" in body:
        time.sleep(body["sleep"])
    if "until" in body:
        while not os.path.exists(body["until"]):
            time.sleep(0.005)
    if "leak" in body:
        hoard.append(b"x" * body["leak"])
    if "exit" in body:
        print("the handler ends on purpose", file=sys.stderr, flush=True)
        os._exit(body["exit"])
    if "kill" in body:
        os.kill(os.getpid(), signal.SIGKILL)
    if "env" in body:
        return {name: os.environ.get(name) for name in body["env"]}
    if "fds" in body:
        names = {}
        for fd in os.listdir("/proc/self/fd"):
            try:
                names[fd] = os.readlink(f"/proc/self/fd/{fd}")
            except OSError:
                pass
        return names
    if "big" in body:
        return "y" * body["big"]
    return body.get("back", os.getpid())
"#;

pub fn remuda() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_remuda"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("REMUDA_") && name != "REMUDA_NET_BACKEND" {
            command.env_remove(&name);
        }
    }
    command.env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null());
    if Path::new("/usr/bin/python3").exists() {
        command.env("REMUDA_PYTHON_BIN", "/usr/bin/python3");
    }
    command
}

/// A file for which jobs wait, however long a test takes to come to the point where they may end.
pub struct Gate(pub PathBuf);

impl Gate {
    /// The body of a job that waits for it, and gives back a JSON value.
    pub fn job(&self, back: &str) -> String {
        format!(r#"{{"until":"{}","back":{back}}}"#, self.0.display())
    }

    pub fn open(&self) {
        std::fs::write(&self.0, "").unwrap();
    }

    pub fn shut(&self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// Puts the command there, where another user may run it. A process of its own writes the file:
/// while a child of this one that another test starts has it open, nobody could run it.
pub fn copy_command(to: &Path) {
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_remuda")).arg(to).status();
    assert!(copied.unwrap().success());
}

/// The handler's file in `dir`, as `--python` takes it.
pub fn handler(dir: &Path) -> String {
    let path = dir.join("work.py");
    std::fs::write(&path, HANDLER).unwrap();
    format!("{}:handle", path.display())
}

#[derive(Default)]
struct Printed {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

/// A pool that serves. It is killed when the test ends.
pub struct Serve {
    pub child: Child,
    pub dir: Option<tempfile::TempDir>,
    printed: Arc<Printed>,
    pub addresses: Vec<String>,
}

impl Serve {
    /// One with an admin socket in a directory of its own, and these further arguments.
    pub fn start(args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), args)
    }

    /// One whose workers do what a job says, see `HANDLER`.
    pub fn python(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let handler = handler(dir.path());
        let mut all = vec!["--python", &handler];
        all.extend(args);
        Self::start_in(dir, &all)
    }

    pub fn start_in(dir: tempfile::TempDir, args: &[&str]) -> Self {
        let mut command = remuda();
        command.arg("serve");
        command.arg(format!("--listen=unix:{}/s,role=admin", dir.path().display())).args(args);
        let mut serve = Self::spawn(command);
        serve.dir = Some(dir);
        serve.listening();
        serve
    }

    /// Runs `command`, and reads what it prints on stderr.
    pub fn spawn(mut command: Command) -> Self {
        command.stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let printed = Arc::new(Printed::default());
        let stderr = child.stderr.take().unwrap();
        let shared = Arc::clone(&printed);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { break };
                shared.lines.lock().unwrap().0.push(line);
                shared.changed.notify_all();
            }
            shared.lines.lock().unwrap().1 = true;
            shared.changed.notify_all();
        });
        Self { child, dir: None, printed, addresses: Vec::new() }
    }

    /// Waits until it listens, at every address that it was given.
    pub fn listening(&mut self) {
        self.addresses.push(self.listening_once());
    }

    fn listening_once(&self) -> String {
        let line = self.wait_line("listening at ");
        line.split("listening at ").nth(1).unwrap().to_owned()
    }

    /// One that listens at a TCP port once more, besides its own socket: a port may for a moment be
    /// that of somebody's outgoing connection.
    pub fn again(args: &[&str]) -> Self {
        let since = Instant::now();
        loop {
            let serve = Self::start(args);
            let listening = |lines: &[String]| {
                lines.iter().filter(|line| line.contains("listening at ")).count() > 1
            };
            if listening(&serve.wait(listening)) {
                return serve;
            }
            assert!(since.elapsed() < PATIENCE, "the port is in use: {}", serve.stderr());
        }
    }

    /// The n-th address that it listens at.
    pub fn address(&self, n: usize) -> String {
        let lines = self
            .wait(|lines| lines.iter().filter(|line| line.contains("listening at ")).count() > n);
        let line = lines.iter().filter(|line| line.contains("listening at ")).nth(n).unwrap();
        line.split("listening at ").nth(1).unwrap().to_owned()
    }

    /// Waits for a line on stderr that contains `part`.
    pub fn wait_line(&self, part: &str) -> String {
        let lines = self.wait(|lines| lines.iter().any(|line| line.contains(part)));
        match lines.iter().find(|line| line.contains(part)) {
            Some(line) => line.clone(),
            None => panic!("no line with `{part}`; it printed:\n{}", lines.join("\n")),
        }
    }

    fn wait(&self, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let guard = self.printed.lines.lock().unwrap();
        let (guard, _) = self
            .printed
            .changed
            .wait_timeout_while(guard, PATIENCE, |(lines, ended)| !enough(lines) && !*ended)
            .unwrap();
        guard.0.clone()
    }

    /// All that it printed on stderr so far.
    pub fn stderr(&self) -> String {
        self.printed.lines.lock().unwrap().0.join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn path(&self) -> PathBuf {
        self.dir.as_ref().unwrap().path().join("s")
    }

    /// A file in its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.as_ref().unwrap().path().join(name)
    }

    /// A gate that is shut.
    pub fn gate(&self) -> Gate {
        Gate(self.file("gate"))
    }

    /// A client on which hands were shaken.
    pub fn client(&self) -> Client {
        let mut client = Client::unix(&self.path());
        client.greet();
        client
    }

    /// A command of `remuda` that asks this pool.
    pub fn command(&self, name: &str) -> Command {
        let mut command = remuda();
        command.arg(name).arg(format!("--to=unix:{}", self.path().display()));
        command
    }

    pub fn run(&self, name: &str, args: &[&str]) -> Output {
        self.command(name).args(args).output().unwrap()
    }

    pub fn status(&self) -> Value {
        let mut client = self.client();
        client.ask(r#"{"op":"status","id":0}"#)["data"].clone()
    }

    /// The status once `is` holds, asked again and again: nothing else tells of it.
    pub fn status_when(&self, what: &str, mut is: impl FnMut(&Value) -> bool) -> Value {
        let mut client = self.client();
        let since = Instant::now();
        loop {
            let status = client.ask(r#"{"op":"status","id":0}"#)["data"].clone();
            if is(&status) {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "never {what}: {status:#}\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until all its workers are ready; gives their pids.
    pub fn ready(&self) -> Vec<u32> {
        let status = self.status_when("all workers ready", |status| {
            let workers = status["workers"].as_array().unwrap();
            // The keeper may tell of a worker's pid after the worker itself has answered.
            let is_ready =
                |w: &Value| w["pid"].is_u64() && (w["state"] == "idle" || w["state"] == "busy");
            !workers.is_empty() && workers.iter().all(is_ready)
        });
        pids(&status)
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits until it has ended.
    pub fn wait_end(&mut self) -> ExitStatus {
        wait_end(&mut self.child)
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    /// CPU time of the process, user and system.
    pub fn cpu(&self) -> Duration {
        cpu_of(self.pid())
    }
}

/// CPU time of a process, user and system.
pub fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after = stat.rsplit(") ").next().unwrap();
    let fields: Vec<&str> = after.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

impl Drop for Serve {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the pool printed:\n{}\n---", self.stderr());
        }
        // One that has ended already is what most tests want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn wait_end(child: &mut Child) -> ExitStatus {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(since.elapsed() < PATIENCE, "the process never ended");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn pids(status: &Value) -> Vec<u32> {
    let workers = status["workers"].as_array().unwrap();
    workers.iter().filter_map(|worker| worker["pid"].as_u64()).map(|pid| pid as u32).collect()
}

/// Sends a signal by its name, and sees to it that it was sent.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.unwrap().success(), "kill -{name} {pid}");
}

pub enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(bytes),
            Self::Tcp(stream) => stream.read(bytes),
        }
    }
}

/// A connection to a pool, by lines.
pub struct Client {
    pub lines: BufReader<Stream>,
}

impl Client {
    pub fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path)
            .unwrap_or_else(|error| panic!("connect to {}: {error}", path.display()));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { lines: BufReader::new(Stream::Unix(stream)) }
    }

    /// Connects to `tcp:HOST:PORT`.
    pub fn tcp(address: &str) -> Self {
        let stream = TcpStream::connect(address.strip_prefix("tcp:").unwrap()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { lines: BufReader::new(Stream::Tcp(stream)) }
    }

    pub fn greet(&mut self) {
        let reply = self.ask(HANDSHAKE);
        assert_eq!(reply["ok"], true, "{reply}");
    }

    /// Another handle of a Unix socket's connection.
    pub fn stream(&self) -> UnixStream {
        match self.lines.get_ref() {
            Stream::Unix(stream) => stream.try_clone().unwrap(),
            Stream::Tcp(_) => panic!("it is no Unix socket"),
        }
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self.lines.get_mut() {
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tcp(stream) => stream.write_all(bytes),
        }
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub fn send(&mut self, line: &str) {
        self.send_bytes(format!("{line}\n").as_bytes());
    }

    /// The next line as it came, or nothing at the end.
    pub fn try_line(&mut self) -> std::io::Result<Option<String>> {
        let mut line = String::new();
        match self.lines.read_line(&mut line)? {
            0 => Ok(None),
            _ => Ok(Some(line.trim_end_matches('\n').to_owned())),
        }
    }

    pub fn line(&mut self) -> Option<String> {
        self.try_line().expect("a line within the test's patience")
    }

    pub fn reply(&mut self) -> Value {
        let line = self.line().expect("a reply, but the connection ended");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    pub fn ask(&mut self, line: &str) -> Value {
        self.send(line);
        self.reply()
    }

    /// The same connection once more, for a thread that sends while another one reads.
    pub fn twin(&self) -> Self {
        let stream = match self.lines.get_ref() {
            Stream::Unix(stream) => Stream::Unix(stream.try_clone().unwrap()),
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone().unwrap()),
        };
        Self { lines: BufReader::new(stream) }
    }

    pub fn end_sending(&self) {
        match self.lines.get_ref() {
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write).unwrap(),
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write).unwrap(),
        }
    }

    /// True once the pool has closed the connection; what it still sent is skipped.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = [0; 64 << 10];
        loop {
            match self.lines.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    return error.kind() == std::io::ErrorKind::ConnectionReset;
                }
            }
        }
    }
}

/// Prints, so that it can't be overlooked, that something was not tested for want of something on
/// this machine; where everything must be tested, that is a failure.
pub fn skipped(why: &str) {
    assert!(std::env::var_os("REMUDA_CI").is_none_or(|ci| ci != "1"), "not tested: {why}");
    not_now(why);
}

/// Prints that something is left to the long runs, or to another user.
pub fn not_now(why: &str) {
    eprintln!("SKIPPED: {why}");
}

pub fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout == b"0\n"
}

/// Whether the long runs are wanted.
pub fn is_soak() -> bool {
    std::env::var_os("REMUDA_SOAK").is_some_and(|value| value == "1")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
