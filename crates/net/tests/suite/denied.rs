//! The choice of the driver, where io_uring works and where it is denied.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use remuda_net::{Backend, Config, NetError, backend, backend_reason, run_local};

use crate::drivers::AUTO_ENV;

/// The numbers of io_uring_setup, io_uring_enter and io_uring_register, on every architecture.
const DENIED: [u32; 3] = [425, 426, 427];

const fn statement(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// Answers EPERM to io_uring's calls, as container runtimes do, and lets all others through.
const FILTER: [libc::sock_filter; 6] = [
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
    statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 3, 0, DENIED[0]),
    statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 2, 0, DENIED[1]),
    statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, DENIED[2]),
    statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
];

fn deny_io_uring() -> std::io::Result<()> {
    let program = libc::sock_fprog { len: FILTER.len() as u16, filter: FILTER.as_ptr().cast_mut() };
    // SAFETY: both calls read their arguments only, and the program outlives them.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
    };
    if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Runs tests of this suite in a process that may not use io_uring.
fn run_denied(arguments: &[&str], env: (&str, &str)) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments).env(env.0, env.1).env_remove("REMUDA_NET_BACKEND");
    // SAFETY: between fork and exec only prctl is called.
    unsafe { command.pre_exec(deny_io_uring) };
    command.output().unwrap()
}

/// The child's part of the tests below; run by itself it shows what is chosen here.
#[test]
fn choice() {
    let Ok(wanted) = std::env::var("REMUDA_NET_TEST_CHOICE") else { return };
    let choose = |backend| {
        let start = std::time::Instant::now();
        let chosen = run_local(Config { backend, ..Config::default() }, async {
            (backend_reason(), remuda_net::backend().unwrap())
        });
        (chosen, start.elapsed())
    };
    let (chosen, took) = choose(Backend::Auto);
    let (reason, chosen) = chosen.unwrap();
    assert_eq!(chosen.name(), wanted, "{reason}");
    eprintln!("{wanted} was chosen in {took:?}: {reason}");
    if wanted == "mio" {
        assert!(reason.contains("denied"), "{reason}");
        let error = choose(Backend::IoUring).0.unwrap_err();
        assert!(matches!(&error, NetError::Backend { backend, .. } if backend == "io_uring"));
        assert!(error.to_string().contains("denied"), "{error}");
    }
    let (mut tries, mut best) = (0, took);
    // A machine that is busy for a moment may need several tries to show how quick it is.
    while best > std::time::Duration::from_millis(10) && tries < 100 {
        best = best.min(choose(Backend::Auto).1);
        tries += 1;
    }
    assert!(best <= std::time::Duration::from_millis(10), "the choice takes {best:?}");
}

#[test]
fn auto_takes_mio_where_a_filter_denies_io_uring() {
    let env = ("REMUDA_NET_TEST_CHOICE", "mio");
    let output = run_denied(&["--exact", "denied::choice", "--nocapture"], env);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("mio was chosen"));
}

#[test]
fn auto_takes_io_uring_where_it_works() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "denied::choice", "--nocapture"]);
    command.env("REMUDA_NET_TEST_CHOICE", "io_uring").env_remove("REMUDA_NET_BACKEND");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_whole_suite_passes_where_io_uring_is_denied() {
    if std::env::var_os(AUTO_ENV).is_some() {
        return;
    }
    let output = run_denied(&["::mio::"], (AUTO_ENV, "1"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("running 0 tests"));
}

#[test]
fn the_environment_forces_a_driver() {
    if let Ok(wanted) = std::env::var("REMUDA_NET_TEST_FORCED") {
        let chosen = run_local(Config::default(), async { backend().map(Backend::name) });
        match chosen {
            Ok(chosen) => assert_eq!(chosen, Some(wanted.as_str())),
            Err(error) => assert_eq!(wanted, "nonsense", "{error}"),
        }
        return;
    }
    for wanted in ["mio", "io_uring", "nonsense"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "denied::the_environment_forces_a_driver"]);
        command.env("REMUDA_NET_TEST_FORCED", wanted).env("REMUDA_NET_BACKEND", wanted);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
