//! A pool whose name stops resolving and comes back elsewhere: `Client` and `--attach` find it.
//!
//! The names are those of a hosts file that only this test sees, in a mount namespace of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use remuda_client::{Backoff, CallError, CallOptions, ClientOptions};
use serve::{Serve, text};

const NAME: &str = "pool.remuda.test";
/// The variable that tells the inner test where its hosts file is.
const HOSTS: &str = "REMUDA_TEST_HOSTS";

/// Runs this program's ignored test `name` where /etc/hosts is a file of its own.
fn with_own_hosts(name: &str) {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount"]).stdin(Stdio::null());
        command
    };
    match unshare().arg("true").output() {
        Err(_) => return serve::skipped("names: there is no unshare"),
        Ok(output) if !output.status.success() => {
            return serve::not_now("names: a mount namespace is not permitted here");
        }
        Ok(_) => {}
    }
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("hosts");
    std::fs::write(&hosts, "").unwrap();
    std::fs::write(dir.path().join("nsswitch.conf"), "hosts: files\n").unwrap();
    // Without nsswitch.conf, a name that the file lacks would be asked of a server.
    let script = "mount --bind \"$1/hosts\" /etc/hosts || exit 99\n\
                  test ! -e /etc/nsswitch.conf || mount --bind \"$1/nsswitch.conf\" /etc/nsswitch.conf || exit 99\n\
                  shift; exec \"$@\"";
    let mut command = unshare();
    command.args(["sh", "-c", script, "sh"]).arg(dir.path()).arg(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture"]).env(HOSTS, &hosts);
    let output = command.output().unwrap();
    if output.status.code() == Some(99) {
        return serve::not_now("names: mounting is not permitted here");
    }
    let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

/// The hosts file, for a test that was started by [`with_own_hosts`]: others have nothing to show.
fn own_hosts() -> Option<PathBuf> {
    std::env::var_os(HOSTS).map(PathBuf::from)
}

/// A pool at `ip`, at the same port as another if one is given; and its port.
fn pool(ip: &str, port: u16) -> (Serve, u16) {
    let serve = Serve::start(&["-j1", "--builtin=echo", &format!("-ltcp:{ip}:{port}")]);
    let port = serve.address(1).rsplit(':').next().unwrap().parse().unwrap();
    (serve, port)
}

/// Says where the name leads; without an address, nowhere.
fn name_is(hosts: &Path, ip: Option<&str>) {
    let line = ip.map(|ip| format!("{ip} {NAME}\n")).unwrap_or_default();
    // In place: the file is mounted.
    std::fs::write(hosts, line).unwrap();
}

#[test]
#[ignore = "run by another test, where the hosts file is its own"]
fn inner_client() {
    let Some(hosts) = own_hosts() else { return };
    let (mut first, port) = pool("127.0.0.2", 0);
    name_is(&hosts, Some("127.0.0.2"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let backoff = || Backoff::new(7).cap(Duration::from_millis(100));
        let options = ClientOptions::new().address(format!("tcp:{NAME}:{port}").parse().unwrap());
        let client = options.backoff(backoff).connect().await.unwrap();
        assert_eq!(client.call::<_, u32>(&1).await.unwrap(), 1);

        name_is(&hosts, None);
        first.signal("KILL");
        first.wait_end();
        let link = client.links().next().unwrap();
        link.watch().until(|state| state.to_string().contains("lookup")).await.unwrap();
        let soon = CallOptions::new().deadline(Duration::from_millis(50));
        let error = client.call_with::<_, u32>(&2, soon).await.unwrap_err();
        assert!(matches!(error, CallError::Timeout { sent: false, .. }), "{error}");

        // A call that is made while the name leads nowhere waits for it.
        let waiting = {
            let client = client.clone();
            tokio::spawn(async move { client.call::<_, u32>(&3).await })
        };
        let (second, _) = pool("127.0.0.3", port);
        name_is(&hosts, Some("127.0.0.3"));
        assert_eq!(waiting.await.unwrap().unwrap(), 3);
        assert_eq!(second.status()["jobs"]["done"], 1);
    });
}

#[test]
fn a_client_finds_a_pool_whose_name_was_gone_and_leads_elsewhere() {
    with_own_hosts("inner_client");
}

#[test]
#[ignore = "run by another test, where the hosts file is its own"]
fn inner_attach() {
    let Some(hosts) = own_hosts() else { return };
    let (mut first, port) = pool("127.0.0.2", 0);
    // The name leads nowhere when the pool starts.
    let front = Serve::start(&[&format!("--attach=tcp:{NAME}:{port}")]);
    let told = front.wait_line("cannot attach to");
    assert!(told.contains(NAME), "{told}");
    name_is(&hosts, Some("127.0.0.2"));
    let mut client = front.client();
    assert_eq!(client.ask(r#"{"op":"call","id":1,"body":1}"#)["ok"], true);
    name_is(&hosts, None);
    first.signal("KILL");
    first.wait_end();
    front.status_when("away", |status| status["ready"] == false);
    client.send(r#"{"op":"call","id":2,"body":2}"#);
    let (second, _) = pool("127.0.0.3", port);
    name_is(&hosts, Some("127.0.0.3"));
    assert_eq!(client.reply()["data"]["body"], 2);
    assert_eq!(second.status()["jobs"]["done"], 1);
}

#[test]
fn an_attached_pool_is_found_again_where_its_name_leads() {
    with_own_hosts("inner_attach");
}
