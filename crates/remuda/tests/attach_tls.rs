//! `--attach tls:`: a pool on another machine, by a certificate and a token.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/openssl.rs"]
mod openssl;
#[path = "support/serve.rs"]
mod serve;

use std::path::Path;

use openssl::{certificate, has_openssl};
use serve::{Serve, remuda, text};

/// A pool that shows cert.pem of `folder` at a `tls:` listener, and that listener's port.
fn behind(folder: &Path, args: &[&str]) -> (Serve, String) {
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let listen = format!("-ltls:127.0.0.1:0,cert={},key={}", file("cert.pem"), file("key.pem"));
    let mut all = vec!["-j1", "--builtin=echo", &listen];
    all.extend(args);
    let pool = Serve::start(&all);
    let address = pool.address(1);
    let port = address.rsplit(':').next().unwrap().to_owned();
    (pool, port)
}

fn calls(front: &Serve) {
    front.status_when("attached", |status| status["ready"] == true);
    let mut client = front.client();
    for id in 0..50 {
        let reply = client.ask(&format!(r#"{{"op":"call","id":{id},"body":{id}}}"#));
        assert_eq!(reply["data"]["body"], id, "{reply}");
    }
}

#[test]
fn a_pool_is_attached_over_tls_by_its_ca_and_a_token() {
    if !has_openssl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "cert.pem", "key.pem");
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(file("token"), "open-sesame\n").unwrap();
    let (mut pool, port) = behind(folder.path(), &["--token-file", &file("token")]);
    let (ca, token) = (file("cert.pem"), file("token"));
    let attach = format!("--attach=tls:localhost:{port},ca={ca},token_file={token}");
    let front = Serve::start(&[&attach]);
    calls(&front);
    // It is kept: after the pool's death the link is made anew, with its handshakes.
    pool.signal("KILL");
    pool.wait_end();
    front.status_when("away", |status| status["ready"] == false);
    let listen = format!("-ltls:127.0.0.1:{port},cert={ca},key={}", file("key.pem"));
    let args = ["-j1", "--builtin=echo", &listen, "--token-file", &token];
    let _pool = Serve::again(&args);
    calls(&front);
}

#[test]
fn whom_nobody_vouches_for_is_not_attached_to() {
    if !has_openssl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "cert.pem", "key.pem");
    certificate(folder.path(), "other.pem", "other-key.pem");
    let (pool, port) = behind(folder.path(), &[]);
    let other = folder.path().join("other.pem");
    let ca = folder.path().join("cert.pem");
    for options in
        [format!("ca={}", other.display()), format!("ca={},name=elsewhere.example", ca.display())]
    {
        let front = Serve::start(&[&format!("--attach=tls:localhost:{port},{options}")]);
        let line = front.wait_line("cannot attach to");
        assert!(line.contains("certificate") && line.contains("tried again"), "{line}");
    }
    assert_eq!(pool.status()["jobs"]["accepted"], 0);
}

#[test]
fn a_certificate_is_shown_where_one_is_demanded() {
    if !has_openssl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "cert.pem", "key.pem");
    certificate(folder.path(), "caller.pem", "caller-key.pem");
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (_pool, port) = behind(folder.path(), &["--tls-client-ca", &file("caller.pem")]);
    let (ca, cert, key) = (file("cert.pem"), file("caller.pem"), file("caller-key.pem"));
    let without = Serve::start(&[&format!("--attach=tls:localhost:{port},ca={ca}")]);
    without.wait_line("cannot attach to");
    let with = format!("--attach=tls:localhost:{port},ca={ca},cert={cert},key={key}");
    calls(&Serve::start(&[&with]));
}

#[test]
fn files_that_are_missing_are_named_at_the_start() {
    let output = remuda()
        .args(["serve", "-l", "tcp:127.0.0.1:0", "--attach", "tls:localhost:1,ca=/nowhere/ca.pem"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(255));
    let told = text(&output.stderr);
    assert!(told.contains("tls:localhost:1") && told.contains("/nowhere/ca.pem"), "{told}");
}
