//! What the tests of the command line share: runs of the binary, tools that may be missing, worker
//! scripts, and ways to wait for what happens.
// Each test file uses a part of it.
#![allow(dead_code)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// Far more than any run takes, on the slowest machine: then it hangs.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// The binary under test.
pub(crate) const REMUDA: &str = env!("CARGO_BIN_EXE_remuda");

/// How a run ended.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// The lines of stdout, sorted.
    pub(crate) fn sorted(&self) -> Vec<&str> {
        let mut lines: Vec<&str> = self.text().lines().collect();
        lines.sort_unstable();
        lines
    }

    #[track_caller]
    pub(crate) fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "stderr: {}", self.stderr);
        self
    }

    /// Succeeded, and said nothing.
    #[track_caller]
    pub(crate) fn quiet(self) -> Self {
        assert_eq!(self.stderr, "", "stderr must be empty");
        self.expect(0)
    }

    /// Stderr is this one line.
    #[track_caller]
    pub(crate) fn says(self, line: &str) -> Self {
        assert_eq!(self.stderr.trim_end_matches('\n'), line);
        self
    }

    /// Some line of stderr holds each of these.
    #[track_caller]
    pub(crate) fn tells(self, parts: &[&str]) -> Self {
        let told = self.stderr.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(told, "no line with {parts:?} in: {}", self.stderr);
        self
    }
}

/// Runs `remuda map ARGS` on `input` to its end.
#[track_caller]
pub(crate) fn map(args: &[&str], input: impl Into<Vec<u8>>) -> Ran {
    map_in(Path::new("."), args, input)
}

/// The same, in a folder.
#[track_caller]
pub(crate) fn map_in(dir: &Path, args: &[&str], input: impl Into<Vec<u8>>) -> Ran {
    let out = assert_cmd::Command::from_std(command(dir, args))
        .write_stdin(input)
        .timeout(LONG)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    let status = out.status.code().unwrap_or_else(|| panic!("{:?}: {stderr}", out.status));
    Ran { status, stdout: out.stdout, stderr }
}

/// `remuda map ARGS`, free of what the environment of the tests would set.
pub(crate) fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(REMUDA);
    command.arg("map").args(args).current_dir(dir);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("REMUDA_") {
            command.env_remove(name);
        }
    }
    command
}

/// The same, running, with all its streams at the test.
pub(crate) fn start(dir: &Path, args: &[&str]) -> Running {
    let mut child = command(dir, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    Running { child, stderr }
}

/// A run that has not ended. It is killed if the test fails.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) stderr: BufReader<std::process::ChildStderr>,
}

impl Running {
    /// Writes lines to its stdin, and closes that if nothing more comes.
    pub(crate) fn give(&mut self, lines: &str, more: bool) {
        let mut stdin = self.child.stdin.take().unwrap();
        stdin.write_all(lines.as_bytes()).unwrap();
        if more {
            self.child.stdin = Some(stdin);
        }
    }

    /// Reads stderr up to a line that holds `part`.
    pub(crate) fn hears(&mut self, part: &str) {
        let mut seen = String::new();
        loop {
            let start = seen.len();
            let read = self.stderr.read_line(&mut seen).unwrap();
            assert!(read > 0, "no {part:?} in: {seen}");
            if seen[start..].contains(part) {
                return;
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end; gives its status, stdout and the rest of stderr.
    pub(crate) fn end(mut self) -> (ExitStatus, String, String) {
        drop(self.child.stdin.take());
        let (mut stdout, mut stderr) = (String::new(), String::new());
        if let Some(mut out) = self.child.stdout.take() {
            out.read_to_string(&mut stdout).unwrap();
        }
        self.stderr.read_to_string(&mut stderr).unwrap();
        (self.child.wait().unwrap(), stdout, stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal, by its name, to a process.
pub(crate) fn signal(pid: u32, name: &str) {
    let pid = pid.to_string();
    Command::new("sh").args(["-c", "kill -s $0 $1", name, &pid]).status().unwrap();
}

/// Whether a tool is there. In CI a missing one is a failure.
pub(crate) fn has(tool: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file()));
    if !found {
        assert!(std::env::var_os("REMUDA_CI").is_none_or(|ci| ci != "1"), "{tool} is missing");
        println!("SKIPPED: {tool} is missing");
        eprintln!("SKIPPED: {tool} is missing");
    }
    found
}

/// Whether the long tests run.
pub(crate) fn is_soak() -> bool {
    std::env::var_os("REMUDA_SOAK").is_some_and(|soak| soak == "1")
}

/// The numbers from 1 to `n`, one a line.
pub(crate) fn numbers(n: u64) -> String {
    (1..=n).map(|n| format!("{n}\n")).collect()
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

pub(crate) fn read(dir: &Path, name: &str) -> String {
    String::from_utf8(std::fs::read(dir.join(name)).unwrap()).unwrap()
}

pub(crate) fn lines(dir: &Path, name: &str) -> Vec<String> {
    read(dir, name).lines().map(str::to_owned).collect()
}

/// A worker in the shell: `$line` is what it reads, `$id` and `$body` what the call has. `job` runs
/// for each call, and answers with `ok JSON`, `fail MESSAGE` or by writing to descriptor 3.
pub(crate) fn shell_worker(dir: &Path, name: &str, job: &str) -> String {
    let script = format!(
        r#"
say() {{ printf '%s\n' "$1" >&3; }}
ok() {{ say "{{\"id\":$id,\"ok\":true,\"data\":{{\"kind\":\"result\",\"body\":$1}}}}"; }}
fail() {{ say "{{\"id\":$id,\"ok\":false,\"code\":\"handler_error\",\"error\":\"$1\"}}"; }}
read -r line <&3
say '{{"ok":true,"data":{{"kind":"handshake","version":"1","instance":"t","pid":1,"capacity":1,"ordered":true,"batch":0,"capabilities":[]}}}}'
while read -r line <&3; do
  id=${{line#*'"id":'}}; id=${{id%%,*}}
  body=${{line#*'"body":'}}; body=${{body%'}}'}}; body=${{body%',"timeout_ms":'*}}
  {job}
done
"#
    );
    write(dir, name, script).to_str().unwrap().to_owned()
}

/// Makes a FIFO: its reader sees the end once nobody holds it open for writing any more.
pub(crate) fn fifo(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

/// Waits for somebody to open a FIFO for writing, and reads it.
pub(crate) fn open_fifo(path: &Path) -> BufReader<File> {
    BufReader::new(File::open(path).unwrap())
}

/// Random numbers from a seed.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// From `REMUDA_TEST_SEED`, or one of the day.
    pub(crate) fn new() -> Self {
        let seed = std::env::var("REMUDA_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.unwrap().subsec_nanos().into()
        });
        eprintln!("REMUDA_TEST_SEED={seed}");
        Self(seed)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}
