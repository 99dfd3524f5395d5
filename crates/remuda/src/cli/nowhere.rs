//! Standard streams that were closed when the program was started. Before `main`, the standard
//! library opens `/dev/null` in their places, for reading and writing.
//!
//! That can't be told from a `/dev/null` that whoever started the program gave it: Python's
//! `subprocess.DEVNULL`, Node's `"ignore"` and daemon(3) open it for reading and writing too. So it
//! is no error, and only said. A shell's `> /dev/null` and `< /dev/null` open it for one of them:
//! they were meant, and nothing is said.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use crate::cli::say;

/// The device number of `/dev/null` on Linux: major 1, minor 3.
const NULL_DEVICE: u64 = 0x103;
/// The bits of a descriptor's flags that say what it was opened for, and what they are for both.
const ACCESS: u32 = 0o3;
const READ_AND_WRITE: u32 = 0o2;

/// Says that results go nowhere, if stdout may have been closed.
pub(crate) fn tell_of_stdout() {
    if may_have_been_closed(1) {
        say::line(
            "remuda: stdout was closed, or is /dev/null: results go nowhere; -o FILE keeps them",
        );
    }
}

/// Says that no job comes, if stdin may have been closed.
pub(crate) fn tell_of_stdin() {
    if may_have_been_closed(0) {
        say::line("remuda: stdin was closed, or is /dev/null: there are no jobs; -a FILE has some");
    }
}

/// Whether the descriptor is a `/dev/null` for reading and writing. False where it can't be told.
fn may_have_been_closed(descriptor: u8) -> bool {
    let is_null = std::fs::metadata(format!("/proc/self/fd/{descriptor}"))
        .is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == NULL_DEVICE);
    is_null
        && std::fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}"))
            .is_ok_and(|info| access(&info) == Some(READ_AND_WRITE))
}

/// What a descriptor was opened for, by the kernel's description of it.
fn access(info: &str) -> Option<u32> {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    u32::from_str_radix(flags.trim(), 8).ok().map(|flags| flags & ACCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_descriptor_was_opened_for_stands_in_its_flags() {
        let info = |flags: &str| access(&format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t24\n"));
        assert_eq!(info("0100002"), Some(READ_AND_WRITE));
        assert_eq!(info("0100001"), Some(1));
        assert_eq!(info("what"), None);
        assert_eq!(access(""), None);
    }
}
