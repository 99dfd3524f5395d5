//! Every client gets the same answer from one pool: `remuda call`, `PoolClient`, `Client`, the
//! Python and Node clients, curl, and a person with socat.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/openssl.rs"]
mod openssl;
#[path = "support/serve.rs"]
mod serve;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use remuda_client::{
    Address, CallError, Client, ClientOptions, ConnectError, Json, PoolClient, PoolRequest,
    PoolResponse,
};
use serve::{Serve, remuda, text};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Runs something on tokio, as programs that use the clients do.
fn on_tokio<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn upper() -> Serve {
    let function = format!("{ROOT}/examples/upper.py:upper");
    Serve::start(&["-j1", "--python", &function, "--http=0"])
}

/// True if `tool` is there; a missing one is told of, and is a failure in CI.
fn has(tool: &str, version: &str) -> bool {
    let mut command = Command::new(tool);
    let there = command.arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        serve::skipped(&format!("there is no {tool}"));
    }
    there
}

/// What a program prints, which must end well.
fn printed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn each_client_gets_the_same_answer_from_one_pool() {
    let serve = upper();
    let path = serve.path();
    let address = format!("unix:{}", path.display());

    assert_eq!(printed(serve.command("call").arg("abc")), "ABC\n");
    assert_eq!(printed(serve.command("call").args(["--json", "\"abc\""])), "\"ABC\"\n");

    let by_pool_client = on_tokio(async {
        let mut client = PoolClient::connect(&path).await.unwrap();
        client.send_request(PoolRequest::call(Json::of("abc").unwrap())).await.unwrap()
    });
    assert_eq!(by_pool_client, PoolResponse::Result(Json::of("ABC").unwrap()));

    let by_client: String = on_tokio(async {
        Client::connect(address.parse().unwrap()).await.unwrap().call("abc").await.unwrap()
    });
    assert_eq!(by_client, "ABC");

    if has("python3", "--version") {
        let program = "import sys; sys.path.insert(0, sys.argv[1]); import remuda\n\
                       with remuda.Client(sys.argv[2]) as pool: print(pool.call('abc'))\n";
        let sdk = format!("{ROOT}/sdk/python");
        assert_eq!(printed(Command::new("python3").args(["-c", program, &sdk, &address])), "ABC\n");
    }
    if has("node", "--version") {
        let sdk = format!("{ROOT}/sdk/node/remuda.mjs");
        let program = format!(
            "import {{ connect }} from {sdk:?};\n\
             const pool = await connect(process.argv[1]);\n\
             console.log(await pool.call('abc')); await pool.close();"
        );
        let mut node = Command::new("node");
        node.args(["--input-type=module", "-e", &program, &address]);
        assert_eq!(printed(&mut node), "ABC\n");
    }
    if has("curl", "--version") {
        let url = format!("{}/call", serve.address(1).split(' ').next().unwrap());
        let header = "Content-Type: application/json";
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "60", &url, "-H", header, "-d", "\"abc\""]);
        assert_eq!(printed(&mut curl), "\"ABC\"");
    }
    if has("socat", "-V") {
        assert_eq!(typed_into_socat(&path), "\"ABC\"");
    }
}

/// What somebody gets who types a handshake and a call, and reads what comes.
fn typed_into_socat(path: &Path) -> String {
    let mut socat = Command::new("socat");
    socat.arg("-").arg(format!("UNIX-CONNECT:{}", path.display()));
    let mut child = socat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    let mut screen = BufReader::new(child.stdout.take().unwrap());
    let mut answer = |line: &str| {
        writeln!(keys, "{line}").unwrap();
        let mut shown = String::new();
        screen.read_line(&mut shown).unwrap();
        serde_json::from_str::<serde_json::Value>(&shown).unwrap()
    };
    assert_eq!(answer(serve::HANDSHAKE)["data"]["kind"], "handshake");
    let body = answer(r#"{"op":"call","body":"abc"}"#)["data"]["body"].to_string();
    drop(keys);
    assert!(child.wait().unwrap().success());
    body
}

#[test]
fn a_client_calls_over_tcp_with_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "open-sesame\n").unwrap();
    let listen = format!("-ltcp:127.0.0.1:0,token_file={}", file.display());
    let serve = Serve::start(&["-j1", "--builtin=echo", &listen]);
    let address = serve.address(1);
    on_tokio(async {
        let at: Address = address.parse().unwrap();
        let client = ClientOptions::new().address(at.clone()).token("open-sesame");
        let answer: Vec<u32> = client.connect().await.unwrap().call(&[1, 2]).await.unwrap();
        assert_eq!(answer, [1, 2]);

        let named = format!("{address},token_file={}", file.display()).parse().unwrap();
        let answer: String = Client::connect(named).await.unwrap().call("x").await.unwrap();
        assert_eq!(answer, "x");

        for wrong in [ClientOptions::new(), ClientOptions::new().token("open-sesam")] {
            let refused = wrong.address(at.clone()).connect().await.unwrap_err();
            assert!(matches!(refused, ConnectError::Handshake { .. }), "{refused}");
            assert!(refused.to_string().contains("token"), "{refused}");
        }
    });
}

#[test]
fn a_client_calls_over_tls_by_a_ca() {
    if !openssl::has_openssl() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    openssl::certificate(dir.path(), "cert.pem", "key.pem");
    openssl::certificate(dir.path(), "other.pem", "other-key.pem");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (cert, key, other) = (file("cert.pem"), file("key.pem"), file("other.pem"));
    let listen = format!("-ltls:127.0.0.1:0,cert={cert},key={key}");
    let mut serve = Serve::start(&["-j1", "--builtin=echo", &listen]);
    let port = serve.address(1).rsplit(':').next().unwrap().to_owned();
    on_tokio(async {
        let to = |options: &str| -> Address {
            format!("tls:localhost:{port},{options}").parse().unwrap()
        };
        let options = ClientOptions::new().address(to(&format!("ca={cert}")));
        let client = options.deadline(serve::PATIENCE).connect().await.unwrap();
        // A body of many records, and many calls at once.
        let large = "x".repeat(1 << 20);
        let calls = (0..20).map(|n| {
            let (client, large) = (client.clone(), large.clone());
            tokio::spawn(async move {
                let body = format!("{n}{large}");
                let answer: String = client.call(&body).await.unwrap();
                assert!(answer == body);
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        for stranger in [format!("ca={other}"), format!("ca={cert},name=elsewhere.example")] {
            let refused = Client::connect(to(&stranger)).await.unwrap_err();
            assert!(refused.to_string().contains("certificate"), "{refused}");
        }
        let missing = Client::connect(to("ca=/nowhere/ca.pem")).await.unwrap_err();
        assert!(matches!(missing, ConnectError::Unusable { .. }), "{missing}");

        // The link is made anew, with its handshakes, and what was under way has an answer.
        serve.signal("KILL");
        serve.wait_end();
        let listen = format!("-ltls:127.0.0.1:{port},cert={cert},key={key}");
        let _again = Serve::again(&["-j1", "--builtin=echo", &listen]);
        let answer: Result<u32, CallError> = client.call(&7).await;
        assert!(matches!(answer, Ok(7) | Err(CallError::LinkLost { .. })), "{answer:?}");
        assert_eq!(client.call::<_, u32>(&8).await.unwrap(), 8);
    });
}

/// A pool behind TLS and a token, and the addresses to reach it by: with whom to trust, with
/// somebody else, and without the token.
fn behind_tls(dir: &Path) -> (Serve, [String; 3]) {
    openssl::certificate(dir, "cert.pem", "key.pem");
    openssl::certificate(dir, "other.pem", "other-key.pem");
    let file = |name: &str| dir.join(name).display().to_string();
    let (cert, key, other, token) =
        (file("cert.pem"), file("key.pem"), file("other.pem"), file("token"));
    std::fs::write(&token, "open-sesame\n").unwrap();
    let listen = format!("-ltls:127.0.0.1:0,cert={cert},key={key},token_file={token}");
    let serve = Serve::start(&["-j2", "--builtin=echo", &listen]);
    let port = serve.address(1).rsplit(':').next().unwrap().to_owned();
    let at = |options: &str| format!("tls:127.0.0.1:{port},name=localhost,{options}");
    let addresses = [
        at(&format!("ca={cert},token_file={token}")),
        at(&format!("ca={other},token_file={token}")),
        at(&format!("ca={cert}")),
    ];
    (serve, addresses)
}

#[test]
fn the_python_clients_call_over_tls() {
    if !openssl::has_openssl() || !has("python3", "--version") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_serve, [right, stranger, no_token]) = behind_tls(dir.path());
    let program = r#"
import asyncio, sys, threading
sys.path.insert(0, sys.argv[1])
import remuda
right, stranger, no_token = sys.argv[2:]
large = "x" * 300_000
def calls(pool, n):
    for turn in range(10):
        body = "%d %d %s" % (n, turn, large)
        assert pool.call(body, timeout=60) == body
        assert pool.call(turn) == turn
with remuda.Client(right) as pool:
    threads = [threading.Thread(target=calls, args=(pool, n)) for n in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert list(pool.map(range(500))) == list(range(500))
    assert pool.status()["kind"] == "status"
async def on_asyncio():
    async with remuda.AsyncClient(right) as pool:
        bodies = ["%d %s" % (n, large) for n in range(20)]
        assert await asyncio.gather(*map(pool.call, bodies)) == bodies
asyncio.run(on_asyncio())
async def refused(address):
    try:
        async with remuda.AsyncClient(address): pass
    except remuda.RemudaError as error:
        return str(error)
for address, part in [(stranger, "certificate"), (no_token, "token")]:
    try:
        remuda.Client(address)
        sys.exit("it was let in")
    except remuda.RemudaError as error:
        assert part in str(error).lower(), error
    told = asyncio.run(refused(address))
    assert part in told.lower(), told
print("done")
"#;
    let sdk = format!("{ROOT}/sdk/python");
    let mut python = Command::new("python3");
    python.args(["-c", program, &sdk, &right, &stranger, &no_token]).env_remove("REMUDA_TOKEN");
    assert_eq!(printed(&mut python), "done\n");
}

#[test]
fn the_node_client_calls_over_tls() {
    if !openssl::has_openssl() || !has("node", "--version") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_serve, [right, stranger, no_token]) = behind_tls(dir.path());
    let sdk = format!("{ROOT}/sdk/node/remuda.mjs");
    let program = format!(
        r#"
import assert from "node:assert/strict";
import {{ connect }} from {sdk:?};
const [right, stranger, noToken] = process.argv.slice(1);
const pool = await connect(right);
const bodies = Array.from({{ length: 20 }}, (_, n) => `${{n}} ${{"x".repeat(300_000)}}`);
assert.deepEqual(await Promise.all(bodies.map((body) => pool.call(body))), bodies);
assert.equal((await pool.status()).kind, "status");
await pool.close();
await assert.rejects(connect(stranger), /certificate|self.signed/i);
await assert.rejects(connect(noToken), /token/);
console.log("done");
"#
    );
    let mut node = Command::new("node");
    node.args(["--input-type=module", "-e", &program, &right, &stranger, &no_token]);
    assert_eq!(printed(node.env_remove("REMUDA_TOKEN")), "done\n");
}

/// Runs the ignored test `name` of this program, in an environment of its own.
fn in_environment(name: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture"]).env("REMUDA_TEST_CHILD", "1");
    for name in ["REMUDA_ADDR", "REMUDA_TOKEN", "XDG_RUNTIME_DIR"] {
        command.env_remove(name);
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

/// Whether this is the child of [`in_environment`]: by itself, such a test has nothing to show.
fn is_child() -> bool {
    std::env::var_os("REMUDA_TEST_CHILD").is_some()
}

#[test]
#[ignore = "run by the next test in an environment of its own"]
fn the_default_pool_answers() {
    if is_child() {
        on_tokio(async {
            let client = Client::connect_default().await.unwrap();
            assert_eq!(client.call::<_, String>("abc").await.unwrap(), "abc");
        });
    }
}

#[test]
#[ignore = "run by the next test in an environment of its own"]
fn there_is_no_default_pool() {
    if is_child() {
        on_tokio(async {
            let error = Client::connect_default().await.unwrap_err();
            let runtime = std::env::var("XDG_RUNTIME_DIR").unwrap();
            assert!(matches!(error, ConnectError::NoPool { .. }), "{error:?}");
            assert!(error.to_string().contains(&runtime), "{error}");
        });
    }
}

#[test]
fn a_client_that_is_told_nothing_finds_the_pool_of_its_user() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = dir.path().to_str().unwrap();
    in_environment("there_is_no_default_pool", &[("XDG_RUNTIME_DIR", runtime)]);
    let mut command = remuda();
    command.env("XDG_RUNTIME_DIR", runtime).args(["serve", "-j1", "--builtin=echo"]);
    let mut by_default = Serve::spawn(command);
    by_default.listening();
    in_environment("the_default_pool_answers", &[("XDG_RUNTIME_DIR", runtime)]);

    // REMUDA_ADDR comes before it, and REMUDA_TOKEN goes along.
    by_default.signal("KILL");
    by_default.wait_end();
    let mut command = remuda();
    command.env("REMUDA_TOKEN", "open-sesame").args(["serve", "-j1", "--builtin=echo"]);
    command.arg("-ltcp:127.0.0.1:0");
    let mut elsewhere = Serve::spawn(command);
    elsewhere.listening();
    let address = elsewhere.address(0);
    let told = [
        ("REMUDA_ADDR", address.as_str()),
        ("REMUDA_TOKEN", "open-sesame"),
        ("XDG_RUNTIME_DIR", runtime),
    ];
    in_environment("the_default_pool_answers", &told);
}
