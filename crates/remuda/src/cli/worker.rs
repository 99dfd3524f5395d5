//! The words of a command line that say what a worker is.

use std::ffi::OsString;

use clap::Args;
use remuda_engine::WorkerKind;
use remuda_protocol::Address;

use crate::cli::builtin::Builtin;
use crate::cli::interpreter;

/// What a worker is: one of these.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Worker (one of)")]
pub(crate) struct WorkerArgs {
    /// COMMAND is any filter that answers each line of stdin with one line of stdout
    #[arg(long)]
    pub(crate) stdio: bool,

    /// A Python function, FILE.py:FUNCTION or pkg.mod:FUNCTION
    #[arg(long, value_name = "FILE.py:FUNCTION")]
    pub(crate) python: Option<String>,

    /// A JavaScript function that a module exports
    #[arg(long, value_name = "FILE.mjs:FUNCTION")]
    pub(crate) node: Option<String>,

    /// A worker inside this binary: echo, sha256 (of the file that the line names), wc, sleep
    #[arg(long, value_name = "NAME")]
    pub(crate) builtin: Option<Builtin>,

    /// Run the built-in worker on threads of this process instead of processes
    #[arg(long)]
    pub(crate) threads: bool,

    /// A worker or a whole pool that is already running, at a unix:, tcp:, tls: or shm: address;
    /// may be given several times
    #[arg(long, value_name = "ADDR")]
    pub(crate) attach: Vec<String>,

    /// The Python to run [default: that of the active virtual environment, else python3]
    #[arg(long, value_name = "PATH", env = "REMUDA_PYTHON_BIN")]
    pub(crate) python_bin: Option<OsString>,

    /// The Node to run [default: node]
    #[arg(long, value_name = "PATH", env = "REMUDA_NODE_BIN")]
    pub(crate) node_bin: Option<OsString>,

    /// A command that speaks the protocol at descriptor 3 (or, with --stdio, a filter)
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

impl WorkerArgs {
    /// Whether anything was said of what a worker is.
    pub(crate) fn is_given(&self) -> bool {
        !self.command.is_empty()
            || self.python.is_some()
            || self.node.is_some()
            || self.builtin.is_some()
            || !self.attach.is_empty()
    }

    /// Whether it is a command that is to speak the protocol.
    pub(crate) fn is_own_command(&self) -> bool {
        !self.command.is_empty() && !self.stdio
    }

    /// The peers to attach to.
    pub(crate) fn attached(&self) -> Result<Vec<Address>, String> {
        let parse =
            |text: &String| text.parse().map_err(|error| format!("--attach {text}: {error}"));
        self.attach.iter().map(parse).collect()
    }

    /// The one kind of worker that was asked for.
    pub(crate) fn kind(&self) -> Result<WorkerKind, String> {
        let asked = [
            !self.command.is_empty(),
            self.python.is_some(),
            self.node.is_some(),
            self.builtin.is_some(),
        ];
        if self.stdio && self.command.is_empty() {
            return Err("--stdio needs a filter: end the command with `-- COMMAND ARGS...`".into());
        }
        if self.threads && self.builtin.is_none() {
            return Err("--threads is for built-in workers alone: leave it out, or use --builtin \
                        NAME"
                .into());
        }
        match asked.iter().filter(|asked| **asked).count() {
            0 if !self.attach.is_empty() => return Ok(WorkerKind::None),
            0 => {
                return Err("no worker given: end the command with `-- COMMAND ARGS...`, or use \
                            --stdio -- COMMAND, --python FILE.py:FUNCTION, --node \
                            FILE.mjs:FUNCTION, --builtin NAME or --attach ADDR"
                    .into());
            }
            1 => {}
            _ => {
                return Err("more than one worker given: choose one of -- COMMAND, --python, \
                            --node and --builtin"
                    .into());
            }
        }
        if let Some((program, args)) = self.command.split_first() {
            let (program, args) = (program.clone(), args.to_vec());
            return Ok(if self.stdio {
                WorkerKind::Filter { program, args }
            } else {
                WorkerKind::Process { program, args, env: Vec::new() }
            });
        }
        if let Some(target) = &self.python {
            return Ok(interpreter::python(self.python_bin.as_deref(), target));
        }
        if let Some(target) = &self.node {
            return Ok(interpreter::node(self.node_bin.as_deref(), target));
        }
        let Some(builtin) = self.builtin else { return Err("no worker given".into()) };
        Ok(builtin.kind(self.threads))
    }
}
