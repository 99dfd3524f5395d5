//! Filters that a pool serves and that print what they shouldn't: they cost their own jobs, and
//! neither memory nor the pool.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use serve::Serve;

fn pool(script: &str) -> Serve {
    let serve = Serve::start(&["-j1", "--stdio", "--", "bash", "-c", script]);
    serve.ready();
    serve
}

#[test]
fn a_filter_that_prints_on_after_it_was_refused_is_replaced() {
    // The first one answers twice, and goes on for as long as it is let.
    let serve = pool(
        r#"[ "$REMUDA_WORKER_ID" -gt 1 ] && exec cat
        trap "" TERM
        read -r line; echo 1; echo 2
        while sleep 0.05; do echo 3; done"#,
    );
    let mut client = serve.client();
    assert_eq!(client.ask(r#"{"op":"call","id":1,"body":1}"#)["code"], "worker_lost");
    assert_eq!(client.ask(r#"{"op":"call","id":2,"body":2}"#)["data"]["body"], 2);
    assert!(!serve.stderr().contains("panicked"), "{}", serve.stderr());
}

#[test]
fn an_answer_over_the_limit_fails_its_own_line_and_takes_no_memory() {
    let total = if serve::is_soak() { 4 << 30 } else { 200 << 20 };
    let serve = pool(&format!(
        r#"while read -r line; do
            [ "$line" = '"large"' ] && head -c {total} /dev/zero | tr '\0' 1
            echo 7
        done"#
    ));
    let before = serve.resident();
    let mut client = serve.client();
    let reply = client.ask(r#"{"op":"call","id":1,"body":"large"}"#);
    assert_eq!(reply["code"], "body_too_large", "{reply}");
    let grown = serve.resident().saturating_sub(before) >> 20;
    assert!(grown < 80, "{grown} MiB");
    assert_eq!(client.ask(r#"{"op":"call","id":2,"body":"small"}"#)["data"]["body"], 7);
    assert_eq!(serve.status()["workers_started"], 1);
}

#[test]
fn lines_without_end_end_the_filter_and_not_the_memory() {
    // It prints for ever, having read but the beginning of a line that the pipe does not hold.
    let serve = pool(r#"[ "$REMUDA_WORKER_ID" -gt 1 ] && exec cat; read -rN 1; yes 1"#);
    let before = serve.resident();
    let mut client = serve.client();
    let long = format!(r#"{{"op":"call","id":1,"body":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(client.ask(&long)["code"], "worker_lost");
    let grown = serve.resident().saturating_sub(before) >> 20;
    assert!(grown < 80, "{grown} MiB");
    assert_eq!(client.ask(r#"{"op":"call","id":2,"body":2}"#)["data"]["body"], 2);
}

#[test]
fn one_that_closes_its_stdin_and_does_not_end_is_replaced_and_costs_no_processor() {
    deaf_after("");
}

#[test]
fn one_that_closes_its_stdin_with_a_line_unread_is_replaced() {
    deaf_after("until read -t 0; do :; done");
}

/// A filter that closes its stdin after `what`, and stays, loses its job to another one.
fn deaf_after(what: &str) {
    let serve = pool(&format!(
        r#"[ "$REMUDA_WORKER_ID" -gt 1 ] && exec cat
        echo "closes its stdin" >&2; {what}
        exec 0<&-; echo "closed its stdin" >&2; exec sleep 1000"#
    ));
    // Before it is closed the pipe takes a line, as it does where the pool is the faster of the two.
    serve.wait_line(if what.is_empty() { "closed its stdin" } else { "closes its stdin" });
    let mut client = serve.client();
    let before = serve.cpu();
    // It is waited for during two seconds.
    let reply = client.ask(r#"{"op":"call","id":1,"body":1,"timeout_ms":60000}"#);
    let used = serve.cpu() - before;
    assert_eq!(reply["code"], "worker_lost", "{reply}");
    assert!(used < std::time::Duration::from_secs(1), "it spins: {used:?}");
    assert_eq!(client.ask(r#"{"op":"call","id":2,"body":2}"#)["data"]["body"], 2);
}
