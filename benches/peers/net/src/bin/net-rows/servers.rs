//! The servers as processes, and one burst of load against one of them.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::rows::{Row, Server};

const SERVER_CORE: &str = "0";
const LOAD_CORE: &str = "1";

/// A server, killed when dropped.
pub struct Running {
    process: Child,
    address: String,
    /// Where a proxy connects to.
    upstream: Option<String>,
    certificate: Option<PathBuf>,
    /// Files that go with it.
    files: Vec<PathBuf>,
}

fn beside(program: &str) -> Result<PathBuf, Box<dyn Error>> {
    Ok(std::env::current_exe()?.with_file_name(program))
}

fn path(row: &Row, server: Server, what: &str) -> PathBuf {
    let name = format!("net-rows-{}-{}-{}.{what}", std::process::id(), row.name, server.name());
    std::env::temp_dir().join(name)
}

impl Running {
    pub fn start(row: &Row, server: Server) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(beside("net-server")?);
        command.arg(server.arguments()[0]).arg(row.mode).args(&server.arguments()[1..]);
        command.args(["--core", SERVER_CORE, "--buffer", &row.buffer.to_string()]);
        command.args(["--buffers", &row.buffers.to_string()]);
        let mut files = Vec::new();
        if row.unix {
            let path = path(row, server, "sock");
            command.arg("--listen").arg(format!("unix:{}", path.display()));
            files.push(path);
        }
        let certificate = (row.mode == "tls").then(|| path(row, server, "der"));
        if let Some(path) = &certificate {
            command.arg("--certificate").arg(path);
            files.push(path.clone());
        }
        let upstream = if row.mode == "proxy" { Some(free_port()?) } else { None };
        if let Some(upstream) = &upstream {
            command.args(["--upstream", upstream]);
        }
        let mut process = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(out) = process.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let address = line.trim().strip_prefix("listening ").unwrap_or_default().to_owned();
        let running = Self { process, address, upstream, certificate, files };
        if running.address.is_empty() {
            return Err(format!("{} did not start", server.name()).into());
        }
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// An address that nobody listens on. Between two bursts nobody holds it, and connections get the
/// ports of their own side from the same range; but they have another address, 127.0.0.1.
fn free_port() -> Result<String, Box<dyn Error>> {
    Ok(format!("tcp:{}", TcpListener::bind("127.0.0.2:0")?.local_addr()?))
}

/// One burst of load; what `net-load` says of it.
pub fn burst(row: &Row, server: &Running, millis: u64) -> Result<Value, Box<dyn Error>> {
    let mut command = Command::new(beside("net-load")?);
    command.args(["--to", &server.address, "--core", LOAD_CORE]);
    command.args(["--server", &server.process.id().to_string()]);
    command.args(["--connections", &row.connections.to_string()]);
    command.args(["--depth", &row.depth.to_string(), "--bytes", &row.bytes.to_string()]);
    command.args(["--millis", &millis.to_string(), "--warm-millis", &(millis / 4).to_string()]);
    if row.idle {
        command.arg("--idle");
    }
    if let Some(upstream) = &server.upstream {
        command.args(["--upstream", upstream]);
    }
    if let Some(path) = &server.certificate {
        command.arg("--certificate").arg(path);
    }
    let done = command.stderr(Stdio::inherit()).output()?;
    if !done.status.success() {
        return Err(format!("the load of {} failed: {}", row.name, done.status).into());
    }
    Ok(serde_json::from_slice(&done.stdout)?)
}
