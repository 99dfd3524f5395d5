//! Where a pool listens, and how it is found: the default socket, one that is in use, a stale one.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use serve::{Serve, remuda, text};

fn echo_at_default(dir: &std::path::Path) -> Command {
    let mut command = remuda();
    command.env("XDG_RUNTIME_DIR", dir).args(["serve", "-j1", "--builtin", "echo"]);
    command
}

fn serve_default(dir: &std::path::Path) -> Serve {
    let mut serve = Serve::spawn(echo_at_default(dir));
    serve.listening();
    serve
}

fn call(dir: &std::path::Path, args: &[&str]) -> std::process::Output {
    remuda().env("XDG_RUNTIME_DIR", dir).arg("call").args(args).output().unwrap()
}

#[test]
fn the_default_socket_lies_in_the_runtime_directory_and_is_the_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut serve = serve_default(dir.path());
    let folder = dir.path().join("remuda");
    let socket = folder.join("default.sock");
    assert_eq!(serve.addresses, [format!("unix:{}", socket.display())]);
    assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    let meta = std::fs::symlink_metadata(&socket).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.mode() & 0o777, 0o600);

    let output = call(dir.path(), &["abc"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("abc\n", Some(0)));
    let output = call(dir.path(), &["--json", r#"{"a": [1, "x"]}"#]);
    assert_eq!(text(&output.stdout), "{\"a\": [1, \"x\"]}\n");

    // The default socket is the one by which the pool is administered.
    let stop = remuda().env("XDG_RUNTIME_DIR", dir.path()).arg("stop").output().unwrap();
    assert!(stop.status.success(), "{}", text(&stop.stderr));
    assert_eq!(serve.wait_end().code(), Some(0));
    assert!(!socket.exists(), "the socket's file is gone with the pool");
}

#[test]
fn a_user_who_is_not_root_calls_the_pool_at_the_default_socket() {
    if !serve::is_root() {
        // The other tests are run by such a user.
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let binary = dir.path().join("binary");
    serve::copy_command(&binary);
    let command = |args: &[&str]| {
        let mut command = Command::new(&binary);
        command.args(args).env("XDG_RUNTIME_DIR", dir.path()).uid(65534).gid(65534);
        command
    };
    let mut serve = Serve::spawn(command(&["serve", "-j1", "--builtin=echo"]));
    serve.listening();
    let output = command(&["call", "abc"]).output().unwrap();
    assert_eq!(text(&output.stdout), "abc\n", "{}", text(&output.stderr));
}

#[test]
fn remuda_addr_names_the_address_for_serve_and_call() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix:{}/own.sock", dir.path().display());
    let mut command = remuda();
    command.env("REMUDA_ADDR", &address).args(["serve", "-j1", "--builtin=echo"]);
    let mut serve = Serve::spawn(command);
    serve.listening();
    let mut call = remuda();
    let output = call.env("REMUDA_ADDR", &address).args(["call", "abc"]).output().unwrap();
    assert_eq!(text(&output.stdout), "abc\n");
}

#[test]
fn the_default_sockets_folder_is_made_when_its_address_is_spelled_out_too() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix:{}/remuda/default.sock,role=admin", dir.path().display());
    let mut serve = echo_at_default(dir.path());
    serve.args(["--listen", &address]);
    let mut serve = Serve::spawn(serve);
    serve.listening();
    assert_eq!(text(&call(dir.path(), &["abc"]).stdout), "abc\n");
}

#[test]
fn a_call_without_a_pool_says_which_addresses_it_tried() {
    let dir = tempfile::tempdir().unwrap();
    let output = call(dir.path(), &["abc"]);
    assert_eq!(output.status.code(), Some(255));
    let socket = dir.path().join("remuda/default.sock");
    let said = text(&output.stderr);
    assert!(said.contains(&format!("unix:{}", socket.display())), "{said}");
    assert!(said.contains("remuda serve"), "it says what to do: {said}");

    let mut named = remuda();
    let output = named.args(["call", "--to=tcp:127.0.0.1:1", "abc"]).output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert!(text(&output.stderr).contains("tcp:127.0.0.1:1"), "{}", text(&output.stderr));
}

#[test]
fn of_a_peer_that_closes_during_the_handshake_nothing_was_asked() {
    let refusal = r#"{"ok":false,"code":"unauthorized","error":"not you"}"#.to_owned() + "\n";
    for (says, wanted) in [("", "closed before it answered the handshake"), (&refusal, "not you")] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mut command = remuda();
        command.args(["call", "abc", "--to"]).arg(&path).stderr(std::process::Stdio::piped());
        let calling = command.spawn().unwrap();
        // It reads nothing, so what it closes with is an error to the other side.
        std::io::Write::write_all(&mut listener.accept().unwrap().0, says.as_bytes()).unwrap();
        let output = calling.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(255));
        let said = text(&output.stderr);
        assert!(said.contains(wanted) && !said.contains("may have been done"), "{said}");
    }
}

#[test]
fn a_peer_that_never_ends_its_handshake_is_given_up_in_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    for (flood, wanted) in [
        (true, "did not answer the handshake: a reply must be a JSON object; it sent \"xxx"),
        (false, "did not answer the handshake within 10s: it is stopped or hangs, or is no pool"),
    ] {
        let mut command = remuda();
        command.args(["call", "abc", "--to"]).arg(&path).stderr(std::process::Stdio::piped());
        let calling = command.spawn().unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let piece = [b'x'; 1 << 16];
        // More than the buffers of a socket hold, and than it may take: it hangs up.
        let taken =
            (0..1000).take_while(|_| flood && std::io::Write::write_all(&mut peer, &piece).is_ok());
        assert!(taken.count() < 1000);
        let output = calling.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(255));
        let said = text(&output.stderr);
        assert!(said.contains(wanted), "{said}");
    }
}

#[test]
fn a_pool_that_answers_no_more_is_given_up() {
    for (args, wanted) in [
        (&["call", "--timeout=100ms", "abc"][..], "no answer within 1.1s: it is stopped or hangs"),
        (&["status"], "no answer within 10s: it is stopped or hangs"),
    ] {
        // Each has its own: a call that takes its time connects once more, to ask why.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mut command = remuda();
        command.args(args).arg("--to").arg(&path).stderr(std::process::Stdio::piped());
        let calling = command.spawn().unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let hello = b"{\"ok\":true,\"data\":{\"kind\":\"handshake\",\"version\":\"1\"}}\n";
        std::io::Write::write_all(&mut peer, hello).unwrap();
        let output = calling.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(255));
        let said = text(&output.stderr);
        assert!(said.contains(wanted), "{said}");
    }
}

#[test]
fn a_second_pool_at_the_same_address_refuses_and_names_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = serve_default(dir.path());
    let output = echo_at_default(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    let said = text(&output.stderr);
    assert!(said.contains(&format!("process {}", first.pid())), "{said}");
    assert_eq!(text(&call(dir.path(), &["still"]).stdout), "still\n");
}

#[test]
fn a_socket_that_a_killed_pool_left_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = serve_default(dir.path());
    first.signal("KILL");
    first.wait_end();
    let socket = dir.path().join("remuda/default.sock");
    assert!(socket.exists(), "a killed pool can't remove its socket's file");
    let _second = serve_default(dir.path());
    assert_eq!(text(&call(dir.path(), &["abc"]).stdout), "abc\n");
}

#[test]
fn a_socket_that_outlives_its_dead_pool_for_a_moment_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    // The process that listened is dead, and another one still has its socket for a while.
    let script = "import os, socket, sys, time\n\
                  s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n\
                  if os.fork() == 0: time.sleep(0.5)\n";
    let mut holder = Command::new("python3");
    holder.args(["-c", script]).arg(dir.path().join("s"));
    assert!(holder.status().expect("python3 runs").success());
    let serve = Serve::start_in(dir, &["-j1", "--builtin=echo"]);
    assert_eq!(serve.client().ask(r#"{"op":"call","id":1,"body":1}"#)["ok"], true);
}

#[test]
fn of_many_that_replace_a_stale_socket_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = serve_default(dir.path());
    first.signal("KILL");
    first.wait_end();
    let rivals: Vec<Serve> = (0..6).map(|_| Serve::spawn(echo_at_default(dir.path()))).collect();
    let mut winners = Vec::new();
    for mut rival in rivals {
        let said = rival.wait_line("remuda: ");
        if said.contains("listening at") {
            winners.push(rival);
        } else {
            assert!(said.contains("is in use by process"), "{said}");
            assert_eq!(rival.wait_end().code(), Some(255));
        }
    }
    assert_eq!(winners.len(), 1, "exactly one listens");
    assert_eq!(text(&call(dir.path(), &["abc"]).stdout), "abc\n");
}

#[test]
fn a_directory_that_others_may_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("remuda");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = echo_at_default(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    let said = text(&output.stderr);
    assert!(said.contains("0700") && said.contains(&folder.display().to_string()), "{said}");

    // A link to a directory that is safe is not safe: another could have made it.
    std::fs::remove_dir(&folder).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), &folder).unwrap();
    let output = echo_at_default(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{}", text(&output.stderr));
}

#[test]
fn a_directory_of_another_user_is_refused() {
    if !serve::is_root() {
        return serve::not_now("another user's directory: only root can make one");
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("remuda");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&folder, Some(65534), None).unwrap();
    let output = echo_at_default(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{}", text(&output.stderr));
    // Nor is a job sent to who listens there.
    let _listener = std::os::unix::net::UnixListener::bind(folder.join("default.sock")).unwrap();
    let output = call(dir.path(), &["abc"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(255), "{told}");
    assert!(told.contains("belongs to user 65534, who would get the jobs"), "{told}");
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let mut command = remuda();
    command.args(["serve", "-j1", "--builtin=echo"]);
    let output = command.arg(format!("--listen=unix:{}", path.display())).output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert!(text(&output.stderr).contains("no socket"), "{}", text(&output.stderr));
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
}

#[test]
fn who_can_not_listen_is_told_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere/pool.sock");
    for (option, advice) in [
        (format!("--listen=tcp:127.0.0.1:{port}"), "choose another address"),
        (format!("--http={port}"), "choose another address"),
        (format!("--listen=unix:{}", nowhere.display()), "make its directory"),
    ] {
        let output = echo_at_default(dir.path()).arg(&option).output().unwrap();
        assert_eq!(output.status.code(), Some(255), "{option}");
        assert!(text(&output.stderr).contains(advice), "{option}: {}", text(&output.stderr));
    }
    // What can be known before is told before anything listens.
    let output = echo_at_default(dir.path()).arg("--http=0.0.0.0:0").output().unwrap();
    let said = text(&output.stderr);
    assert!(said.contains("give it a token") && !said.contains("listening at"), "{said}");
}

#[test]
fn several_addresses_are_served_at_once() {
    let serve = Serve::start(&["-j1", "--builtin=echo", "-l", "tcp:127.0.0.1:0"]);
    let address = serve.address(1);
    assert!(!address.ends_with(":0"), "the port that was chosen is told: {address}");
    let mut call = remuda();
    let output = call.args(["call", "--to", &address, "abc"]).output().unwrap();
    assert_eq!(text(&output.stdout), "abc\n");
    assert_eq!(text(&serve.run("call", &["def"]).stdout), "def\n");
}
