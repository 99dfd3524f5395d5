//! How a Python or a JavaScript function becomes a worker process: the shim is inside the binary.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use remuda_engine::WorkerKind;

// `shim/` has links to the files of `sdk/`, so that a package of this crate holds them.
/// Worker, shim and client for Python, in one file.
const PYTHON_SOURCE: &str = include_str!("../shim/remuda.py");
/// Worker, shim and client for Node, in one file.
const NODE_SOURCE: &str = include_str!("../shim/remuda.mjs");

/// A pool of `target`, `FILE.py:FUNCTION` or `pkg.mod:FUNCTION`.
pub(crate) fn python(chosen: Option<&OsStr>, target: &str) -> WorkerKind {
    let program = chosen.map(OsStr::to_owned).unwrap_or_else(default_python);
    let args = ["-c", PYTHON_SOURCE, "--shim", target].map(OsString::from).to_vec();
    WorkerKind::Process { program, args, env: Vec::new() }
}

/// The Python of the active virtual environment, else `python3`.
fn default_python() -> OsString {
    let active = std::env::var_os("VIRTUAL_ENV")
        .map(|root| PathBuf::from(root).join("bin/python"))
        .filter(|python| python.exists());
    active.map_or_else(|| "python3".into(), PathBuf::into_os_string)
}

/// A pool of `target`, `FILE.mjs:FUNCTION`.
pub(crate) fn node(chosen: Option<&OsStr>, target: &str) -> WorkerKind {
    let args = ["--input-type=module", "-e", NODE_SOURCE, "--", "--shim", target];
    WorkerKind::Process {
        program: chosen.unwrap_or(OsStr::new("node")).to_owned(),
        args: args.map(OsString::from).to_vec(),
        env: Vec::new(),
    }
}
