//! Certificates for the tests, made by openssl.
#![allow(unreachable_pub, reason = "each test file is a program of its own")]

use std::path::Path;
use std::process::Command;

/// True if openssl is there; a missing one is told of, and is a failure in CI.
pub fn has_openssl() -> bool {
    let there = Command::new("openssl").arg("version").output().is_ok();
    if !there {
        assert!(std::env::var_os("REMUDA_CI").is_none_or(|ci| ci != "1"), "openssl is missing");
        eprintln!("SKIPPED: openssl is missing");
    }
    there
}

/// A certificate for localhost that vouches for itself.
pub fn certificate(folder: &Path, name: &str, key: &str) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", name])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
