//! `remuda.toml`, `--check`, and which of flags, environment and file holds.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use std::process::Output;

use serve::{Serve, remuda, text};

fn check(file: &str, env: &[(&str, &str)], args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("remuda.toml");
    std::fs::write(&path, file).unwrap();
    let mut command = remuda();
    command.args(["serve", "--check", "-c"]).arg(&path).args(args).envs(env.iter().copied());
    command.output().unwrap()
}

fn effective(file: &str, env: &[(&str, &str)], args: &[&str]) -> toml::Table {
    let output = check(file, env, args);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).parse().unwrap()
}

const FILE: &str = r#"
http_admin = 9090
insecure = true
listen = ["unix:/run/some/where.sock,role=admin", "tcp:127.0.0.1:7000"]
[worker]
command = ["./worker", "--fast"]
[pool]
num_workers = 3
max_jobs = 1000
max_queue_size = 64
retries = 2
allocate_timeout = "5s"
destroy_timeout = 2.5
reset_timeout = "1m"
max_body_bytes = "1M"
spin = "20us"
shm = false
pid_namespace = "never"
[pool.supervisor]
watch_tick = "250ms"
ttl = "1h"
idle_ttl = "10m"
exec_ttl = "30s"
max_worker_memory = "512M"
"#;

#[test]
fn what_check_prints_is_a_file_that_says_the_same() {
    let printed = effective(FILE, &[], &[]);
    assert_eq!(printed["pool"]["num_workers"].as_integer(), Some(3));
    assert_eq!(printed["pool"]["max_queue_size"].as_integer(), Some(64));
    assert_eq!(printed["pool"]["max_body_bytes"].as_integer(), Some(1 << 20));
    assert_eq!(printed["pool"]["spin"].as_str(), Some("20us"));
    assert_eq!(printed["pool"]["shm"].as_bool(), Some(false));
    assert_eq!(printed["pool"]["pid_namespace"].as_str(), Some("never"));
    assert_eq!(printed["insecure"].as_bool(), Some(true));
    assert_eq!(printed["pool"]["destroy_timeout"].as_str(), Some("2.5s"));
    assert_eq!(printed["pool"]["supervisor"]["watch_tick"].as_str(), Some("250ms"));
    assert_eq!(printed["worker"]["command"][1].as_str(), Some("--fast"));
    assert_eq!(printed["listen"][1].as_str(), Some("tcp:127.0.0.1:7000"));
    assert!(printed["http_admin"].as_str().unwrap().ends_with(":9090"), "{printed}");
    assert_eq!(effective(&printed.to_string(), &[], &[]), printed);
    let otherwise = effective(FILE, &[("REMUDA_SHM", "1")], &["--spin=0"]);
    assert_eq!(otherwise["pool"]["shm"].as_bool(), Some(true));
    assert_eq!(otherwise["pool"]["spin"].as_str(), Some("0us"));

    let defaults = effective("[worker]\nbuiltin = \"echo\"\n", &[], &[]);
    assert_eq!(defaults["worker"]["builtin"].as_str(), Some("echo"));
    assert_eq!(defaults["pool"]["max_queue_size"].as_integer(), Some(4096));
    assert_eq!(effective(&defaults.to_string(), &[], &[]), defaults);
    // The owner's own socket is the one to stop the pool by, said or not.
    let listen = defaults["listen"][0].as_str().unwrap();
    assert!(listen.ends_with("/default.sock,role=admin"), "{listen}");

    // Nor does a listener lose its token when the flags become a file.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "q8Zr\n").unwrap();
    let token_file = path.to_str().unwrap();
    let args = ["--builtin=echo", "-l", "tcp:127.0.0.1:0", "--token-file", token_file];
    let guarded = effective("", &[], &args);
    assert_eq!(guarded["token_file"].as_str(), Some(token_file));
    assert_eq!(effective(&guarded.to_string(), &[], &[]), guarded);
}

#[test]
fn flags_come_before_the_environment_and_that_before_the_file() {
    let workers = |env: &[(&str, &str)], args: &[&str]| {
        effective(FILE, env, args)["pool"]["num_workers"].as_integer()
    };
    let env = [("REMUDA_NUM_WORKERS", "5")];
    assert_eq!(workers(&[], &[]), Some(3));
    assert_eq!(workers(&env, &[]), Some(5));
    assert_eq!(workers(&env, &["-j7"]), Some(7));
    let worker = effective(FILE, &[], &["--builtin=echo"]);
    assert!(worker["worker"].get("command").is_none(), "the worker of the flags holds: {worker}");
    let listen = effective(FILE, &[], &["-l", "unix:/tmp/x"]);
    assert_eq!(listen["listen"].as_array().unwrap().len(), 1, "the listeners of the flags hold");
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_nearest() {
    for (file, wrong, nearest) in [
        ("[pool]\nnum_worker = 3\n", "pool.num_worker", "num_workers"),
        ("[pool.supervisor]\nmax_memory = 3\n", "pool.supervisor.max_memory", "max_worker_memory"),
        ("[worker]\npyton = \"a:b\"\n", "worker.pyton", "python"),
        ("lisen = []\n", "lisen", "listen"),
    ] {
        let output = check(file, &[], &["--builtin=echo"]);
        assert_eq!(output.status.code(), Some(255));
        let said = text(&output.stderr);
        assert!(said.contains(&format!("`{wrong}`")), "{said}");
        assert!(said.contains(&format!("`{nearest}`")), "{said}");
        assert!(said.contains("remuda.toml"), "it names the file: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_value_that_cannot_be_is_an_error() {
    for file in [
        "[pool]\nnum_workers = 0\n",
        "[pool]\nnum_workers = 5000\n",
        "[pool]\nmax_queue_size = 0\n",
        "[pool]\nmax_jobs = 0\n",
        "[pool]\nretries = 0\n",
        "[pool]\nallocate_timeout = \"soon\"\n",
        "[pool]\nmax_body_bytes = \"2G\"\n",
        "[pool]\nnum_workers = \"many\"\n",
        "pool = 3\n",
        "listen = [\"http:nowhere\"]\n",
        "[pool\n",
    ] {
        let output = check(file, &[], &["--builtin=echo"]);
        assert_eq!(output.status.code(), Some(255), "{file}: {}", text(&output.stdout));
        assert!(text(&output.stderr).starts_with("remuda: "), "{file}: {}", text(&output.stderr));
    }
    let output = check("", &[], &[]);
    assert_eq!(output.status.code(), Some(255), "a pool without a worker");
    let output = check("[worker]\nbuiltin = \"sha255\"\n", &[], &[]);
    assert!(text(&output.stderr).contains("sha255"), "{}", text(&output.stderr));
    let mut command = remuda();
    let output = command.args(["serve", "--check", "-c", "/does/not/exist"]).output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert!(text(&output.stderr).contains("/does/not/exist"));
}

#[test]
fn a_pool_is_served_as_the_file_says_and_a_reset_reads_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("remuda.toml");
    let file = |workers: u32| {
        let listen = format!("unix:{}/s,role=admin", dir.path().display());
        format!(
            "listen = [{listen:?}]\n[worker]\nbuiltin = \"echo\"\n[pool]\nnum_workers = {workers}\n"
        )
    };
    std::fs::write(&path, file(1)).unwrap();
    let mut command = remuda();
    command.args(["serve", "-c"]).arg(&path);
    let mut serve = Serve::spawn(command);
    serve.listening();
    let text_of = file(3);
    serve.dir = Some(dir);
    assert_eq!(serve.ready().len(), 1);

    std::fs::write(&path, "[pool]\nnum_wrkers = 3\n").unwrap();
    let output = serve.run("reset", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("num_workers"), "{}", text(&output.stderr));
    assert_eq!(serve.client().ask(r#"{"op":"call","id":1,"body":1}"#)["data"]["body"], 1);

    std::fs::write(&path, text_of).unwrap();
    let output = serve.run("reset", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serve.status_when("three workers", |status| status["workers"].as_array().unwrap().len() == 3);
}

#[test]
fn a_value_of_the_file_is_refused_by_its_name_there() {
    for (file, wanted) in [
        ("[pool]\nallocate_timeout = \"soon\"\n", "`pool.allocate_timeout`: `soon` is not a time"),
        ("[pool]\nspin = -1\n", "`pool.spin`: `-1` is not a time"),
        ("[pool]\npid_namespace = \"on\"\n", "must be one of auto, never, require"),
        ("[pool]\nspin = \"1h\"\n", "`pool.spin` is 3600s: it may be at most 1s"),
        ("[pool]\nallocate_timeout = 0\n", "`pool.allocate_timeout` is 0: no worker starts"),
        (
            "[pool]\nnum_workers = \"two\"\n",
            "line 2: `pool.num_workers` is \"two\": it must be a whole",
        ),
        (
            "[pool]\nspin = true\n",
            "line 2: `pool.spin` is true: it must be a number, or text with a unit",
        ),
        ("[pool]\nmax_body_bytes = \"2G\"\n", "`pool.max_body_bytes` is 2147483648: it must be"),
        ("[pool.supervisor]\nttl = \"x\"\n", "`pool.supervisor.ttl`: `x` is not a time"),
        (
            "[pool.supervisor]\nmax_worker_memory = \"1.5G\"\n",
            "`pool.supervisor.max_worker_memory`: `1.5G` is not a size",
        ),
        (
            "[worker]\nbuiltin = \"sha255\"\n",
            "`worker.builtin`: there is no built-in worker `sha255`",
        ),
    ] {
        let output = check(file, &[], &["--builtin=echo"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(255), "{said}");
        assert!(said.contains("remuda.toml: ") && said.contains(wanted), "{said}");
    }
}

#[test]
fn the_interpreters_of_the_flags_come_before_those_of_the_file() {
    let file = "[worker]\nnode = \"a.mjs:f\"\nnode_bin = \"file\"\n";
    let node = |env: &[(&str, &str)], args: &[&str]| {
        effective(file, env, args)["worker"]["node_bin"].as_str().map(str::to_owned)
    };
    let env = [("REMUDA_NODE_BIN", "environment")];
    assert_eq!(node(&[], &[]).as_deref(), Some("file"));
    assert_eq!(node(&env, &[]).as_deref(), Some("environment"));
    assert_eq!(node(&env, &["--node-bin", "flag"]).as_deref(), Some("flag"));
}

#[test]
fn a_variable_that_is_empty_is_none() {
    let named = |name: &str| format!("REMUDA_{name}");
    let of_serve = [
        "ADDR",
        "CONFIG",
        "EXEC_TTL",
        "HTTP",
        "LOG",
        "LOG_JSON",
        "MAX_JOBS",
        "MAX_WORKER_MEMORY",
        "NUM_WORKERS",
        "PID_NAMESPACE",
        "SHM",
        "TLS_CERT",
        "TOKEN",
        "TOKEN_FILE",
    ];
    let empty = of_serve.map(|name| (named(name), ""));
    let plain = remuda().args(["serve", "--check", "--builtin=echo"]).output().unwrap();
    let mut command = remuda();
    let output = command.args(["serve", "--check", "--builtin=echo"]).envs(empty).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), text(&plain.stdout));

    let empty =
        ["JOBS", "POISON_AFTER", "PYTHON_BIN", "RETRIES", "TIMEOUT"].map(|name| (named(name), ""));
    let output = remuda().args(["map", "--builtin=echo"]).envs(empty).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn check_finds_listeners_that_would_be_refused() {
    for (args, wanted) in [
        (&["-l", "tcp:0.0.0.0:0"][..], "tcp:0.0.0.0:0 can be reached from other machines"),
        (&["-l", "tls:127.0.0.1:0"], "a tls: listener needs cert=PATH and key=PATH"),
        (&["-l", "tcp:127.0.0.1:0,token_file=/none"], "cannot read the token in /none"),
        (&["-l", "shm:x,allow_uids=1000"], "leave allow_uids out"),
        (&["-l", "shm:.x"], "no dot at its beginning"),
        (&["-l", "unix:/tmp/x,group=no-such-group"], "there is no group `no-such-group`"),
        (&["-l", "tcp:127.0.0.1:99999"], "no port of at most 65535"),
        (&["--spin", "1h"], "--spin is 3600s: it may be at most 1s"),
        (&["--allocate-timeout", "0"], "--allocate-timeout is 0: no worker starts in no time"),
        (&["--reset-timeout", "0"], "--reset-timeout is 0"),
        (&["--watch-tick", "1ms"], "--watch-tick is 1ms: it must be at least 10ms"),
        (&["--http", "0.0.0.0:0"], "give it a token"),
        (&["--http-admin", "0.0.0.0:0"], "listen at loopback"),
    ] {
        let args = [&["--builtin=echo"], args].concat();
        let output = check("", &[], &args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(255), "{args:?}: {said}");
        assert!(said.starts_with("remuda: ") && said.contains(wanted), "{args:?}: {said}");
    }
    let args = ["--builtin=echo", "-l", "tcp:0.0.0.0:0", "--http-admin", "0.0.0.0:0", "--insecure"];
    effective("", &[], &args);
}
