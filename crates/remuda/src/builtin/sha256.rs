//! `sha256`: the line that `sha256sum` prints for the file that the job names.

use std::fs::File;
use std::io::Read;

use sha2::{Digest, Sha256};

/// How much of a file is read at once, in bytes.
const READ_SIZE: usize = 256 << 10;

/// The line for file `name`, or why there is none.
pub(super) fn sha256(name: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{name}: {}", super::reason(&error));
    let mut file = File::open(name).map_err(failed)?;
    let size = file.metadata().map_or(READ_SIZE, |meta| meta.len() as usize + 1);
    let mut buffer = vec![0; size.clamp(1, READ_SIZE)];
    let mut hasher = Sha256::new();
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(line(&hasher.finalize(), name))
}

/// `sha256sum` writes names with line breaks or backslashes escaped, and says so by a backslash.
fn line(digest: &[u8], name: &str) -> String {
    let mut out = String::with_capacity(68 + name.len());
    let escaped = name.contains(['\\', '\n', '\r']);
    if escaped {
        out.push('\\');
    }
    for byte in digest {
        for half in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
        }
    }
    out.push_str("  ");
    if escaped {
        out.push_str(&name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r"));
    } else {
        out.push_str(name);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_prints_what_sha256sum_prints() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [("plain", &b"abc"[..]), ("odd\\name", b""), ("a\nb", &[7; 300_000])]
        {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            let path = path.to_str().unwrap();
            let theirs = std::process::Command::new("sha256sum").arg(path).output().unwrap();
            let ours = sha256(path).unwrap() + "\n";
            assert_eq!(ours.as_bytes(), theirs.stdout);
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        assert_eq!(sha256("/no/such"), Err("/no/such: No such file or directory".into()));
    }
}
