//! `wc`: lines, words, bytes and name of the file that the job names.

use std::fs::File;
use std::io::Read;

/// How much of a file is read at once, in bytes.
const READ_SIZE: usize = 256 << 10;

/// The line for file `name`, or why there is none.
pub(super) fn wc(name: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{name}: {}", super::reason(&error));
    let mut file = File::open(name).map_err(failed)?;
    let mut buffer = vec![0; READ_SIZE];
    let (mut lines, mut words, mut bytes) = (0u64, 0u64, 0u64);
    let mut in_word = false;
    loop {
        let n = file.read(&mut buffer).map_err(failed)?;
        if n == 0 {
            return Ok(format!("{lines} {words} {bytes} {name}"));
        }
        bytes += n as u64;
        for byte in &buffer[..n] {
            lines += u64::from(*byte == b'\n');
            let space = byte.is_ascii_whitespace() || *byte == 0x0b;
            words += u64::from(!space && !in_word);
            in_word = !space;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_what_wc_counts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let name = file.path().to_str().unwrap();
        for content in ["", "one", "one two\nthree\n", " a\t b \n\n"] {
            std::fs::write(file.path(), content).unwrap();
            let theirs = std::process::Command::new("wc").arg(name).output().unwrap();
            let theirs = String::from_utf8(theirs.stdout).unwrap();
            let theirs: Vec<&str> = theirs.split_whitespace().collect();
            assert_eq!(wc(name).unwrap().split_whitespace().collect::<Vec<_>>(), theirs);
        }
    }
}
