//! Whether a filter waits for more input, as the system tells it.

use std::fs;

/// How many processes of a filter are looked at.
const PROCESSES_LIMIT: usize = 64;

/// True if every process of the filter sleeps, and one of them reads its standard input.
///
/// Where the system doesn't say in which call a process sleeps, sleeping is enough.
pub(crate) fn waits_for_input(pid: u32) -> bool {
    let mut pids = vec![pid];
    let mut next = 0;
    let mut reads = false;
    while let Some(pid) = pids.get(next).copied() {
        next += 1;
        match state(pid) {
            Some('S') => {}
            Some('Z') | None => continue,
            Some(_) => return false,
        }
        reads |= reads_stdin(pid);
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        pids.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        if pids.len() > PROCESSES_LIMIT {
            return false;
        }
    }
    reads
}

/// The state letter of a process.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, brackets and what is no UTF-8 included.
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(name_end + 2).copied().map(char::from)
}

/// True if the process sleeps in a read of descriptor 0, or if that can't be known.
fn reads_stdin(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/syscall")) {
        Ok(call) => {
            let mut words = call.split_whitespace();
            words.next() == Some(READ) && words.next() == Some("0x0")
        }
        Err(_) => true,
    }
}

/// The number of `read` among the system calls of this machine.
#[cfg(target_arch = "x86_64")]
const READ: &str = "0";
#[cfg(not(target_arch = "x86_64"))]
const READ: &str = "63";

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::io::{Read, Write};
    use std::os::unix::ffi::OsStrExt;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_that_computes_or_waits_for_another_is_not_waiting_for_input() {
        let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        assert!(!waits_for_input(busy.id()));
        busy.kill().unwrap();
        busy.wait().unwrap();
    }

    #[test]
    fn a_program_whose_name_is_no_utf8_has_a_state() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(OsStr::from_bytes(b"fil\xc3"));
        // By a process of its own: nobody can run what a child of this one has open.
        assert!(Command::new("cp").arg("/bin/sleep").arg(&program).status().unwrap().success());
        let mut running = Command::new(&program).arg("60").spawn().unwrap();
        let state = state(running.id());
        running.kill().unwrap();
        running.wait().unwrap();
        assert!(state.is_some_and(|letter| letter.is_ascii_uppercase()), "{state:?}");
    }

    #[test]
    fn a_filter_that_answered_and_reads_on_waits_for_input() {
        let mut cat = Command::new("sh")
            .args(["-c", "cat | cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = cat.stdin.take().unwrap();
        stdin.write_all(b"x\n").unwrap();
        cat.stdout.take().unwrap().read_exact(&mut [0; 2]).unwrap();
        // It answered, so it is on its way back into the read; give it the processor until then.
        while !waits_for_input(cat.id()) {
            std::thread::yield_now();
        }
        drop(stdin);
        cat.wait().unwrap();
    }
}
