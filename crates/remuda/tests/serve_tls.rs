//! `tls:` listeners, as `remuda call`, `openssl s_client` and a caller without the demanded
//! certificate find them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/openssl.rs"]
mod openssl;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use openssl::{certificate, has_openssl};

const REMUDA: &str = env!("CARGO_BIN_EXE_remuda");

/// A pool that serves until it is dropped.
struct Served {
    child: Child,
    port: u16,
}

impl Served {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(REMUDA)
            .args(["serve", "-j", "1", "--builtin", "echo", "-l", "tls:127.0.0.1:0"])
            .args(["--tls-cert", "cert.pem", "--tls-key", "key.pem"])
            .args(args)
            .current_dir(folder)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().unwrap().unwrap();
            if let Some((_, port)) = line.split_once("listening at tls:127.0.0.1:") {
                break port.parse().unwrap();
            }
        };
        // What it logs must go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port }
    }

    fn call(&self, folder: &Path, options: &str) -> std::process::Output {
        let to = format!("tls:localhost:{}{options}", self.port);
        Command::new(REMUDA)
            .args(["call", "--to", &to, "hello"])
            .current_dir(folder)
            .output()
            .unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn call_and_openssl_reach_a_tls_listener() {
    if !has_openssl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "cert.pem", "key.pem");
    let served = Served::start(folder.path(), &[]);
    let done = served.call(folder.path(), ",ca=cert.pem");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "hello\n", "{done:?}");

    let done = served.call(folder.path(), "");
    assert_eq!(done.status.code(), Some(255), "nobody vouches for the certificate: {done:?}");

    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{}", served.port)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(b"{\"op\":\"handshake\",\"version\":\"1\"}\n").unwrap();
    stdin.write_all(b"{\"op\":\"call\",\"id\":1,\"body\":\"x\"}\n").unwrap();
    let mut answers = BufReader::new(client.stdout.take().unwrap()).lines();
    assert!(answers.next().unwrap().unwrap().contains("\"kind\":\"handshake\""));
    assert!(answers.next().unwrap().unwrap().contains("\"body\":\"x\""));
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn a_caller_without_the_demanded_certificate_is_refused() {
    if !has_openssl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "cert.pem", "key.pem");
    certificate(folder.path(), "caller.pem", "caller-key.pem");
    let served = Served::start(folder.path(), &["--tls-client-ca", "caller.pem"]);
    let refused = served.call(folder.path(), ",ca=cert.pem");
    assert_eq!(refused.status.code(), Some(255), "{refused:?}");
    let let_in = served.call(folder.path(), ",ca=cert.pem,cert=caller.pem,key=caller-key.pem");
    assert_eq!(String::from_utf8_lossy(&let_in.stdout), "hello\n", "{let_in:?}");
}

#[test]
fn files_that_are_missing_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let refused = Command::new(REMUDA)
        .args(["serve", "--builtin", "echo", "-l", "tls:127.0.0.1:0,cert=none.pem,key=none.pem"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(255));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("none.pem"), "{error}");
}

#[test]
fn a_file_of_the_address_that_is_missing_is_named() {
    for command in [&["status"][..], &["call", "abc"], &["bench", "-n1"]] {
        let to = "tls:127.0.0.1:1,ca=nosuch.pem";
        let out = Command::new(env!("CARGO_BIN_EXE_remuda"))
            .args([command[0], "--to", to])
            .args(&command[1..])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(255), "{told}");
        let wanted = "remuda: tls:127.0.0.1:1,ca=nosuch.pem: nosuch.pem can't be read: ";
        assert!(told.starts_with(wanted), "{told}");
    }
}

#[test]
fn what_is_wrong_with_tls_is_told_with_what_to_do() {
    // A listener that speaks something else.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in other.incoming() {
            let _ = socket.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let refused = |port: u16, options: &str, advice: &str| {
        let to = format!("tls:localhost:{port}{options}");
        for command in [&["call", "abc"][..], &["status"], &["bench", "-n1"]] {
            let out = Command::new(REMUDA)
                .args([command[0], "--to", &to])
                .args(&command[1..])
                .current_dir(folder.path())
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&out.stderr);
            assert_eq!(out.status.code(), Some(255), "{told}");
            assert!(told.contains(advice), "{command:?}: {told}");
        }
    };
    refused(port, "", "it speaks no TLS: say tcp:");
    if !has_openssl() {
        return;
    }
    certificate(folder.path(), "cert.pem", "key.pem");
    let served = Served::start(folder.path(), &[]);
    refused(served.port, "", "add ca=FILE to the address");
    refused(served.port, ",ca=cert.pem,name=elsewhere.test", "add name=HOST to the address");
    // What openssl makes unless it is told otherwise.
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success());
    let served = Served::start(folder.path(), &[]);
    refused(served.port, ",ca=cert.pem", "basicConstraints=CA:FALSE");
}
