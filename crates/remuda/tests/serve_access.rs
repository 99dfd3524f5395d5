//! Who may call a pool and who may administer it: users, modes, roles, tokens.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use serve::{Client, Serve, not_now, remuda, text};

/// Speaks to a Unix socket as another user, and prints what comes.
const STRANGER: &str = r#"
import os, socket, sys
os.setgroups([int(g) for g in sys.argv[3].split(",") if g])
os.setgid(65534)
os.setuid(int(sys.argv[2]))
s = socket.socket(socket.AF_UNIX)
s.settimeout(60)
try:
    s.connect(sys.argv[1])
except OSError as error:
    sys.exit(f"connect: {error.strerror}")
try:
    s.sendall(b'{"op":"handshake","version":"1"}\n{"op":"call","id":1,"body":"abc"}\n')
    s.shutdown(socket.SHUT_WR)
except BrokenPipeError:
    pass
while data := s.recv(65536):
    sys.stdout.write(data.decode())
"#;

/// What user `uid` (in the groups `groups`) gets from the pool at `path`; nothing if this test may
/// not become another user.
fn as_user(uid: u32, groups: &str, path: &Path) -> Option<Output> {
    if !serve::is_root() {
        not_now("calls by another user: only root can become one");
        return None;
    }
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", STRANGER]).arg(path).arg(uid.to_string()).arg(groups);
    Some(python.output().unwrap())
}

/// A pool with one more listener in a directory that everybody may enter.
fn open_to(options: &str) -> (Serve, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("open");
    let listen = format!("--listen=unix:{}{options}", path.display());
    let serve = Serve::start_in(dir, &["-j1", "--builtin=echo", &listen]);
    serve.address(1);
    (serve, path)
}

#[test]
fn a_stranger_on_a_socket_made_0666_by_hand_is_refused_before_a_byte_is_read() {
    let (serve, path) = open_to("");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let Some(output) = as_user(65534, "", &path) else { return };
    let said = text(&output.stdout);
    assert!(said.contains(r#""code":"unauthorized""#) && said.contains("65534"), "{said}");
    assert_eq!(said.lines().count(), 1, "nothing that it asked for is answered: {said}");
    // The owner isn't disturbed.
    assert_eq!(serve.client().ask(r#"{"op":"call","id":1,"body":2}"#)["data"]["body"], 2);
}

#[test]
fn the_default_mode_keeps_strangers_out() {
    let (_serve, path) = open_to("");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let Some(output) = as_user(65534, "", &path) else { return };
    assert!(text(&output.stderr).contains("Permission denied"), "{}", text(&output.stderr));
    // The command where they may run it.
    let command = path.with_file_name("remuda");
    serve::copy_command(&command);
    let to = format!("unix:{}", path.display());
    let output = Command::new(command).args(["call", "--to", &to, "x"]).uid(65534).output();
    let said = text(&output.unwrap().stderr);
    assert!(said.starts_with(&format!("remuda: {to}: this user may not call there")), "{said}");
}

#[test]
fn a_mode_in_the_address_lets_others_call() {
    let (_serve, path) = open_to(",mode=0666");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o666);
    let Some(output) = as_user(65534, "", &path) else { return };
    assert!(text(&output.stdout).contains(r#""body":"abc""#), "{}", text(&output.stdout));
}

#[test]
fn allow_uids_lets_in_those_and_no_others() {
    let (_serve, path) = open_to(",mode=0666,allow_uids=65533");
    let Some(output) = as_user(65533, "", &path) else { return };
    assert!(text(&output.stdout).contains(r#""body":"abc""#), "{}", text(&output.stdout));
    let output = as_user(65534, "", &path).unwrap();
    assert!(text(&output.stdout).contains("unauthorized"), "{}", text(&output.stdout));
}

#[test]
fn allow_uids_alone_opens_the_file_to_those_users() {
    let (_serve, path) = open_to(",allow_uids=65533");
    let Some(output) = as_user(65533, "", &path) else { return };
    let all = text(&output.stdout) + &text(&output.stderr);
    assert!(all.contains(r#""body":"abc""#), "{all}");
    let output = as_user(65534, "", &path).unwrap();
    let all = text(&output.stdout) + &text(&output.stderr);
    assert!(all.contains("unauthorized"), "{all}");
}

#[test]
fn a_group_lets_its_members_call() {
    if !serve::is_root() {
        return not_now("a group: only root may give a file to any group");
    }
    let (_serve, path) = open_to(",group=daemon");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
    let daemon = std::fs::metadata(&path).unwrap().gid();
    let output = as_user(65534, &daemon.to_string(), &path).unwrap();
    assert!(text(&output.stdout).contains(r#""body":"abc""#), "{}", text(&output.stdout));
    let output = as_user(65534, "", &path).unwrap();
    assert!(text(&output.stderr).contains("Permission denied"), "{}", text(&output.stderr));
}

#[test]
fn a_group_that_the_user_is_not_in_is_refused_with_the_reason() {
    if !serve::is_root() {
        return not_now("a stranger's pool: only root can become another user");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let command = dir.path().join("remuda");
    serve::copy_command(&command);
    let path = dir.path().join("s");
    let listen = format!("--listen=unix:{},group=root", path.display());
    let mut serve = Command::new(command);
    serve.args(["serve", "--builtin=echo", &listen]).uid(65534).gid(65534);
    let said = text(&serve.output().unwrap().stderr);
    assert!(said.contains("may not give it to that group: name one that the user is in"), "{said}");
    assert!(!path.exists());
}

#[test]
fn a_listener_without_the_role_takes_no_admin_operations() {
    let (mut serve, path) = open_to("");
    let mut client = Client::unix(&path);
    client.greet();
    for op in ["reset", "shutdown"] {
        let reply = client.ask(&format!(r#"{{"op":"{op}","id":1}}"#));
        assert_eq!(reply["code"], "unauthorized", "{reply}");
        assert!(reply["error"].as_str().unwrap().contains("role=admin"), "{reply}");
    }
    assert_eq!(client.ask(r#"{"op":"status","id":1}"#)["data"]["phase"], "running");
    let mut admin = serve.client();
    assert_eq!(admin.ask(r#"{"op":"reset","id":1}"#)["ok"], true);
    assert_eq!(admin.ask(r#"{"op":"shutdown","id":1}"#)["ok"], true);
    assert_eq!(serve.wait_end().code(), Some(0));
}

fn serve_once(args: &[&str]) -> Output {
    remuda().args(["serve", "-j1", "--builtin=echo"]).args(args).output().unwrap()
}

#[test]
fn a_tcp_listener_that_others_reach_needs_tls_or_the_word() {
    for address in ["tcp:0.0.0.0:0", "tcp:[::]:0"] {
        let output = serve_once(&["-l", address]);
        assert_eq!(output.status.code(), Some(255), "{address}");
        let said = text(&output.stderr);
        assert!(said.contains("tls:") && said.contains("--insecure"), "{said}");
    }
    let mut command = remuda();
    command.env("REMUDA_ADDR", "tcp:0.0.0.0:0").args(["serve", "-j1", "--builtin=echo"]);
    assert_eq!(command.output().unwrap().status.code(), Some(255), "REMUDA_ADDR is no way around");

    let serve = Serve::start(&["-j1", "--builtin=echo", "-l", "tcp:0.0.0.0:0", "--insecure"]);
    let mut client = Client::tcp(&serve.address(1));
    client.greet();
    assert_eq!(client.ask(r#"{"op":"reset","id":1}"#)["code"], "unauthorized");
}

#[test]
fn a_token_must_be_the_right_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "s3cret-Token\n").unwrap();
    let listen = format!("-ltcp:127.0.0.1:0,token_file={}", file.display());
    let serve = Serve::start_in(dir, &["-j1", "--builtin=echo", &listen]);
    let address = serve.address(1);
    let hello = |token: &str| {
        let mut client = Client::tcp(&address);
        let reply = client.ask(&format!(r#"{{"op":"handshake","version":"1"{token}}}"#));
        (client, reply)
    };
    for wrong in ["", r#","token":"""#, r#","token":"s3cret-Toke""#, r#","token":"s3cret-Token!""#]
    {
        let (mut client, reply) = hello(wrong);
        assert_eq!(reply["code"], "unauthorized", "{wrong}: {reply}");
        assert!(client.is_closed(), "a connection that was refused is closed");
    }
    let (mut client, reply) = hello(r#","token":"s3cret-Token""#);
    assert_eq!(reply["ok"], true, "{reply}");
    assert_eq!(client.ask(r#"{"op":"call","id":1,"body":1}"#)["data"]["body"], 1);

    let named = format!("{address},token_file={}", file.display());
    let output = remuda().args(["call", "--to", &named, "abc"]).output().unwrap();
    assert_eq!(text(&output.stdout), "abc\n", "{}", text(&output.stderr));
    let mut command = remuda();
    command.env("REMUDA_TOKEN", "wrong").args(["call", "--to", &address, "abc"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert!(text(&output.stderr).contains("unauthorized"), "{}", text(&output.stderr));
    assert!(!serve.stderr().contains("s3cret"), "no log holds the token");
}

#[test]
fn the_token_of_the_environment_or_a_file_guards_every_tcp_listener() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = remuda();
    command.env("REMUDA_TOKEN", "abc").args(["serve", "-j1", "--builtin=echo"]);
    command.args(["-l", "tcp:127.0.0.1:0", "-l"]);
    command.arg(format!("unix:{}/s", dir.path().display()));
    // Rings are met in a folder that is the owner's alone.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    command.args(["-l", "shm:s"]).env("REMUDA_RUNTIME_DIR", dir.path());
    let mut serve = Serve::spawn(command);
    let rings = dir.path().to_owned();
    serve.dir = Some(dir);
    let reply = Client::tcp(&serve.address(0)).ask(serve::HANDSHAKE);
    assert_eq!(reply["code"], "unauthorized");
    let output = remuda().args(["call", "--to", &serve.address(0), "abc"]).output().unwrap();
    assert!(text(&output.stderr).contains("give the token by token_file=FILE"), "{output:?}");
    // Who may open a Unix socket, or come by rings, is known without one.
    serve.address(1);
    serve.client();
    serve.address(2);
    let mut call = remuda();
    let output = call.env("REMUDA_RUNTIME_DIR", rings).args(["call", "--to", "shm:s", "abc"]);
    assert_eq!(text(&output.output().unwrap().stdout), "abc\n");

    let output = serve_once(&["-l", "tcp:0.0.0.0:0", "--token-file", "/does/not/exist"]);
    assert_eq!(output.status.code(), Some(255));
    assert!(text(&output.stderr).contains("/does/not/exist"), "{}", text(&output.stderr));
    let empty = tempfile::NamedTempFile::new().unwrap();
    let output = serve_once(&["-ltcp:0.0.0.0:0", "--token-file", empty.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(255), "an empty token is no token");

    let mut command = remuda();
    command.env("REMUDA_ADDR", "tcp:127.0.0.1:0").env("REMUDA_TOKEN", "abc");
    let mut serve = Serve::spawn({
        command.args(["serve", "-j1", "--builtin=echo"]);
        command
    });
    serve.listening();
    let reply = Client::tcp(&serve.address(0)).ask(serve::HANDSHAKE);
    assert_eq!(reply["code"], "unauthorized", "the token guards REMUDA_ADDR, too");
}
