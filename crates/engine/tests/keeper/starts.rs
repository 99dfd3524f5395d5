//! Starts: what a worker gets, and why it can't be started.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use remuda_engine::keeper::{
    self, Event, Keeper, KeeperCommand, KeeperError, KeeperOptions, PidNamespace, Spawn,
    StartFailure, Status,
};

use crate::pool::{self, Pool};
use crate::support::{Herd, LONG, Test, kill, make_fifo, program, sh, wait};

pub const TESTS: &[Test] = &[
    ("starts::a_worker_speaks_over_descriptor_3", a_worker_speaks_over_descriptor_3),
    ("starts::ends_are_told_in_order_with_their_status", ends_are_told_in_order_with_their_status),
    ("starts::nothing_of_the_pools_surroundings_is_inherited", nothing_is_inherited),
    ("starts::a_worker_is_away_from_the_terminal", a_worker_is_away_from_the_terminal),
    ("starts::a_terminals_interrupt_does_not_reach_a_worker", a_terminals_interrupt),
    ("starts::numbers_agree_inside_and_outside", numbers_agree_inside_and_outside),
    ("starts::each_failure_has_its_kind_and_advice", each_failure_has_its_kind_and_advice),
    ("starts::two_mebibytes_of_arguments_and_environment_arrive", large_arguments_arrive),
    ("starts::an_id_in_use_is_refused", an_id_in_use_is_refused),
    ("starts::descriptors_that_do_not_fit_are_an_error", descriptors_that_do_not_fit),
    ("starts::a_keeper_without_privileges_does_its_work", without_privileges),
];

/// Tests of the keeper's own start, which have no mode.
pub const TESTS_OF_START: &[(&str, fn())] = &[
    ("starts::what_is_no_keeper_is_found_out", what_is_no_keeper_is_found_out),
    ("starts::a_program_that_is_no_keeper_starts_itself_once", starts_itself_once),
    ("starts::a_namespace_that_is_required_and_denied_is_an_error", required_and_denied),
    ("starts::a_guardian_that_may_start_no_keeper_says_so", the_last_process_is_the_guardian),
];

fn a_worker_speaks_over_descriptor_3(mode: PidNamespace) {
    let mut herd = Herd::start(mode);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let script = r#"read -r line <&3; echo "$line $REMUDA_FD $REMUDA_WORKER_ID $EXTRA" >&3"#;
    let env = vec![("EXTRA".into(), Some("extra".into())), ("HOME".into(), None)];
    herd.spawn(7, Spawn { socket: Some(theirs.into()), env, ..sh(script) });
    (&ours).write_all(b"hello\n").unwrap();
    let mut answer = String::new();
    BufReader::new(&ours).read_line(&mut answer).unwrap();
    assert_eq!(answer, "hello 3 7 extra\n");
    herd.started(7);
    assert_eq!(herd.exited(7), Status::Code(0));
}

fn ends_are_told_in_order_with_their_status(mode: PidNamespace) {
    let mut herd = Herd::start(mode);
    for (script, status) in [("exit 7", Status::Code(7)), ("kill -9 $$", Status::Signal(9))] {
        herd.spawn(1, sh(script));
        let (pid, pidfd) = herd.started(1);
        assert!(pid > 1);
        assert_eq!(herd.exited(1), status);
        assert!(wait(std::os::fd::AsFd::as_fd(&pidfd), LONG));
        herd.cleared(1);
    }
    herd.keeper.stop().unwrap();
}

fn nothing_is_inherited(mode: PidNamespace) {
    // A pool that was started as under nohup, with open files and blocked signals.
    let mut odd = Command::new("python3");
    let script = "import os, signal, sys\n\
        for fd in 3, 5, 9: os.dup2(0, fd, inheritable=True)\n\
        for s in signal.SIGHUP, signal.SIGINT, signal.SIGUSR1: signal.signal(s, signal.SIG_IGN)\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    odd.env("REMUDA_FD", "9").arg("-c").arg(script).arg(std::env::current_exe().unwrap());
    let look = "echo ${REMUDA_FD-none}; ls /proc/self/fd | tr '\\n' ' '; echo; grep -E 'Sig(Blk|Ign)' /proc/self/status";
    // The C library keeps two signals beyond these 31 to itself.
    let named = |line: String| u64::from_str_radix(&line[8..], 16).unwrap() & 0x7fff_ffff;
    let mut pool = Pool::start_by(odd, mode, &["sh", "-c", look]);
    assert_eq!(pool.talk.line(), "none");
    // 3 is the listing itself.
    assert_eq!(pool.talk.line(), "0 1 2 3");
    assert_eq!([0; 2].map(|_| named(pool.talk.line())), [0, 0]);
}

fn a_worker_is_away_from_the_terminal(mode: PidNamespace) {
    let mut herd = Herd::start(mode);
    let keeper = herd.keeper_pid();
    let mut talk = herd.spawn_talking(1, sh("echo here; exec sleep 1000"));
    talk.line();
    let (pid, _pidfd) = herd.started(1);
    let stat = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields = stat.rsplit(") ").next().unwrap().to_owned();
        let field = |n: usize| fields.split(' ').nth(n - 3).unwrap().parse::<i64>().unwrap();
        (field(5), field(6), field(7))
    };
    let own = stat(std::process::id());
    let (group, session, terminal) = stat(pid);
    assert_eq!((group, session, terminal), (pid.into(), keeper.into(), 0));
    assert_ne!(session, own.1);
    assert_ne!(stat(herd.keeper.guardian_pid()).0, own.0);
    // What a terminal and a service manager send leaves the keeper unmoved.
    use rustix::process::Signal;
    for signal in [Signal::INT, Signal::QUIT, Signal::HUP, Signal::TERM] {
        kill(keeper, signal);
        kill(herd.keeper.guardian_pid(), signal);
    }
    herd.spawn(2, program("true", &[]));
    herd.started(2);
    assert!(talk.is_held());
}

/// Runs its arguments in a terminal of their own, with a witness beside them. Types Ctrl-C once the
/// worker is there, waits until the witness has felt it, and then lets the worker speak.
const TERMINAL: &str = "
import os, pty, signal, sys, time
streams = os.dup(0), os.dup(1)
felt, feel = os.pipe()
pid, terminal = pty.fork()
if pid == 0:
    if os.fork() == 0:
        signal.signal(signal.SIGINT, lambda *_: os.write(feel, b'!'))
        os.write(feel, b'.')
        time.sleep(1000)
    os.read(felt, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(streams[0], 0)
    os.dup2(streams[1], 1)
    os.execv(sys.argv[2], sys.argv[2:])
with open(sys.argv[1] + '/here') as here: here.read()
os.write(terminal, b'\\x03')
assert os.read(felt, 1) == b'!'
with open(sys.argv[1] + '/speak', 'w') as speak: speak.write('unmoved\\n')
os.waitpid(pid, 0)
";

fn a_terminals_interrupt(mode: PidNamespace) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["here", "speak"] {
        make_fifo(&dir.path().join(name));
    }
    let mut terminal = Command::new("python3");
    terminal.arg("-c").arg(TERMINAL).arg(dir.path()).arg(std::env::current_exe().unwrap());
    let script = r#"echo here > "$0/here"; read -r line < "$0/speak"; echo "$line""#;
    let worker = ["sh", "-c", script, dir.path().to_str().unwrap()];
    let mut pool = Pool::start_by(terminal, mode, &worker);
    assert_eq!(pool.talk.line(), "unmoved");
}

fn numbers_agree_inside_and_outside(mode: PidNamespace) {
    let mut herd = Herd::start(mode);
    assert_eq!(herd.keeper.is_namespaced(), mode == PidNamespace::Require);
    let script = "echo $$; cut -d' ' -f1 /proc/$$/stat; exec sleep 1000";
    let mut talk = herd.spawn_talking(1, sh(script));
    let inside = talk.line();
    assert_eq!(talk.line(), inside);
    let (pid, _pidfd) = herd.started(1);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    assert_eq!(numbers.split_whitespace().last().unwrap(), inside);
    assert_eq!(pid.to_string() == inside, mode == PidNamespace::Never);
}

fn each_failure_has_its_kind_and_advice(mode: PidNamespace) {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        let (path, written) = (dir.path().join(name), dir.path().join("written"));
        std::fs::write(&written, text).unwrap();
        // By a process of its own: nobody can run what a child of this one has open.
        assert!(Command::new("cp").arg(&written).arg(&path).status().unwrap().success());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let plain = file("plain", "text", 0o644);
    let orphan = file("orphan", "#!/nowhere/interpreter -x\n", 0o755);
    let by_plain = file("by_plain", &format!("#!{}\n", plain.display()), 0o755);
    let in_dir = |cwd: &Path| Spawn { cwd: Some(cwd.into()), ..Spawn::new("true") };
    let of = |path: &Path| Spawn::new(path);
    let path = |value: Option<OsString>| vec![("PATH".into(), value)];
    let in_path = Spawn { env: path(Some(dir.path().into())), ..Spawn::new("plain") };
    let found_in_path = Spawn { env: path(Some(dir.path().into())), ..Spawn::new("orphan") };
    let relative = Spawn { cwd: Some(dir.path().into()), ..Spawn::new("./orphan") };
    let nowhere = StartFailure::BadInterpreter("/nowhere/interpreter".into());
    let cases = [
        (Spawn::new("no-such-program"), StartFailure::NotFound, 2, "install it or give its path"),
        (Spawn::new(""), StartFailure::NotFound, 2, "not found"),
        (of(&dir.path().join("none")), StartFailure::NotFound, 2, "not found"),
        (of(&plain.join("below")), StartFailure::NotFound, 20, "not found"),
        (of(&plain), StartFailure::NotExecutable, 13, "chmod +x"),
        (in_path, StartFailure::NotExecutable, 13, "chmod +x"),
        (of(dir.path()), StartFailure::IsDirectory, 13, "is a directory"),
        (of(&orphan), nowhere.clone(), 2, "first line"),
        (found_in_path, nowhere.clone(), 2, "first line"),
        (relative, nowhere, 2, "first line"),
        (of(&by_plain), StartFailure::BadInterpreter(plain.clone().into()), 13, "first line"),
        (in_dir(&dir.path().join("none")), bad_directory(&dir.path().join("none")), 2, "enter"),
        (in_dir(&plain), bad_directory(&plain), 20, "enter"),
        (program("true", &["a\0b"]), bad_request(), 0, "nul byte"),
    ];
    let mut herd = Herd::start(mode);
    for (spawn, kind, errno, advice) in cases {
        let case = format!("{spawn:?}");
        let name = spawn.program.clone();
        // With a socket and without, the standard library starts programs in different ways.
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let again = Spawn {
            program: spawn.program.clone(),
            args: spawn.args.clone(),
            env: spawn.env.clone(),
            cwd: spawn.cwd.clone(),
            socket: Some(ours.into()),
            ..Spawn::default()
        };
        for spawn in [spawn, again] {
            herd.spawn(1, spawn);
            let Event::StartFailed { id: 1, error } = herd.next() else { panic!("{case}") };
            assert_eq!((&error.program, &error.kind, error.errno), (&name, &kind, errno), "{case}");
            assert!(error.to_string().contains(advice), "{error}");
            assert!(error.to_string().starts_with("worker command `"), "{error}");
        }
    }
    // The keeper is none the worse.
    herd.spawn(1, program("true", &[]));
    herd.started(1);
}

fn bad_directory(path: &Path) -> StartFailure {
    StartFailure::BadDirectory(path.into())
}

fn bad_request() -> StartFailure {
    StartFailure::BadRequest("nul byte found in provided data".into())
}

fn large_arguments_arrive(mode: PidNamespace) {
    let mut herd = Herd::start(mode);
    let long = |n: usize| OsString::from("x".repeat(n));
    // The kernel takes at most 128 KiB each, and 2 MiB in all under the usual stack limit.
    let script = r#"echo $#; printf %s "$1$LONG" | wc -c"#;
    let mut spawn = sh(script);
    spawn.args.push("sh".into());
    spawn.args.extend((0..14).map(|_| long(130_000)));
    spawn.env.push(("LONG".into(), Some(long(130_000))));
    let mut talk = herd.spawn_talking(1, spawn);
    assert_eq!(talk.line(), "14");
    assert_eq!(talk.line(), "260000");
    herd.started(1);
    herd.exited(1);
    herd.cleared(1);

    let mut spawn = sh("true");
    spawn.args.extend((0..50).map(|_| long(130_000)));
    herd.spawn(1, spawn);
    let Event::StartFailed { error, .. } = herd.next() else { panic!("started") };
    assert_eq!((error.kind, error.errno), (StartFailure::TooLarge, 7));

    let spawn = Spawn { args: vec![long(9 << 20)], ..Spawn::new("true") };
    let error = herd.keeper.spawn(1, spawn).unwrap_err();
    assert!(matches!(error, KeeperError::TooLarge { size, .. } if size > 9 << 20));
}

fn an_id_in_use_is_refused(mode: PidNamespace) {
    let mut herd = Herd::start(mode);
    herd.spawn(1, program("sleep", &["1000"]));
    herd.started(1);
    herd.spawn(1, program("true", &[]));
    let Event::StartFailed { id: 1, error } = herd.next() else { panic!("started") };
    assert!(matches!(error.kind, StartFailure::BadRequest(_)), "{error}");
}

fn descriptors_that_do_not_fit(mode: PidNamespace) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let mut herd = Herd::start(mode);
    let keeper = herd.keeper_pid();
    let limit = |current| {
        let pid = Pid::from_raw(keeper.cast_signed());
        let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
        prlimit(pid, Resource::Nofile, Rlimit { current: Some(current), maximum }).unwrap()
    };
    let null = || Some(std::fs::File::open("/dev/null").unwrap().into());
    let with_all = || {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (stdin, stdout, stderr) = (null(), null(), null());
        Spawn { socket: Some(ours.into()), stdin, stdout, stderr, ..program("true", &[]) }
    };
    let open = std::fs::read_dir(format!("/proc/{keeper}/fd")).unwrap();
    let highest = open.map(|fd| fd.unwrap().file_name().to_str().unwrap().parse().unwrap()).max();
    // Room for none, one, two and three of the four that come.
    for room in 1..=4 {
        let before = limit(highest.unwrap_or(0u64) + room);
        herd.spawn(1, with_all());
        let Event::StartFailed { id: 1, error } = herd.next() else { panic!("started") };
        assert_eq!((error.kind, error.errno), (StartFailure::NoResources, 24));
        limit(before.current.unwrap());
    }
    herd.spawn(1, with_all());
    herd.started(1);
    assert_eq!(herd.exited(1), Status::Code(0));
}

/// A command that runs this binary again as a user without privileges.
fn unprivileged() -> Command {
    // By this link the binary's directory need not be open to all.
    let mut command = Command::new("/proc/self/exe");
    if rustix::process::getuid().is_root() {
        command.uid(65534).gid(65534).current_dir("/");
    }
    command
}

fn without_privileges(mode: PidNamespace) {
    if mode == PidNamespace::Require {
        return;
    }
    let worker = ["sh", "-c", "(setsid sleep 1000 &); echo here; exec sleep 1000"];
    let mut pool = Pool::start_by(unprivileged(), PidNamespace::Auto, &worker);
    assert!(!pool.namespaced);
    assert_eq!(pool.talk.line(), "here");
    pool.process.kill().unwrap();
    assert_eq!(pool.talk.rest(), "");
}

fn required_and_denied() {
    let (mut process, mut talk, line) = pool::run(unprivileged(), PidNamespace::Require, &["true"]);
    assert!(line.contains("CAP_SYS_ADMIN"), "{line}");
    assert_eq!(talk.rest(), "");
    assert!(!process.wait().unwrap().success());
}

/// The guardian starts, and may not start the keeper: the pool is told so.
fn the_last_process_is_the_guardian() {
    use rustix::io::{FdFlags, fcntl_setfd};
    use std::io::Read;
    use std::os::fd::AsRawFd;

    let binary = std::fs::File::open("/proc/self/exe").unwrap();
    // So it can be started by another user, to whom its directory need not be open.
    fcntl_setfd(&binary, FdFlags::empty()).unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut guardian = Command::new("sh");
    if rustix::process::getuid().is_root() {
        // One who has no other processes, and whom limits hold.
        guardian.uid(65533).gid(65534).current_dir("/");
    }
    // dash calls it by another letter than bash.
    let script = "ulimit -p 1 2>/dev/null || ulimit -u 1; exec /proc/self/fd/$0 \"$1\" --pid-namespace=never";
    guardian.args(["-c", script, &binary.as_raw_fd().to_string(), keeper::ARGUMENT]);
    guardian.stdin(std::os::fd::OwnedFd::from(theirs)).stderr(Stdio::null());
    let mut process = guardian.spawn().unwrap();
    drop(guardian);
    let mut told = Vec::new();
    ours.read_to_end(&mut told).unwrap();
    let told = String::from_utf8_lossy(&told);
    assert!(told.contains("could not start the keeper proper"), "{told}");
    assert!(told.contains("ulimit -u"), "{told}");
    assert!(!process.wait().unwrap().success());
}

fn what_is_no_keeper_is_found_out() {
    let start = |program: &str, args: &[&str]| {
        let args = args.iter().map(ToString::to_string).collect();
        let command = KeeperCommand { program: program.into(), args };
        Keeper::start(command, KeeperOptions::default()).unwrap_err()
    };
    assert!(matches!(start("/nowhere/keeper", &[]), KeeperError::Start { .. }));
    assert!(matches!(start("true", &[]), KeeperError::NoAnswer { .. }));
    // By hand, as a user who is curious would.
    let mut by_hand = Command::new("/proc/self/exe");
    let output = by_hand.arg(keeper::ARGUMENT).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("started by a pool"));
}

/// The variable by which this binary plays a program that never looks at its first argument, and
/// names the file in which it notes that it was started.
pub const FORGETFUL: &str = "REMUDA_TEST_FORGETFUL";

/// Such a program.
pub fn forgetful(notes: &OsString) -> std::process::ExitCode {
    let mut file = std::fs::File::options().append(true).create(true).open(notes).unwrap();
    file.write_all(b"started\n").unwrap();
    // A test that fails must end, too.
    if std::fs::read_to_string(notes).unwrap().lines().count() < 5 {
        eprintln!(
            "{}",
            Keeper::start(KeeperCommand::default(), KeeperOptions::default()).unwrap_err()
        );
    }
    std::process::ExitCode::FAILURE
}

fn starts_itself_once() {
    let dir = tempfile::tempdir().unwrap();
    let notes = dir.path().join("notes");
    let output = Command::new("/proc/self/exe").env(FORGETFUL, &notes).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("starts a pool of its own"), "{told}");
    assert!(told.contains("did not answer as a keeper"), "{told}");
    let started = std::fs::read_to_string(&notes).unwrap();
    assert_eq!(started, "started\nstarted\n", "the program, and its keeper that is none");
}
