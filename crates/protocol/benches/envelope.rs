//! What one message costs: the median and the least of many short interleaved rounds.
//!
//! `cargo bench -p remuda-protocol -- [PART OF A NAME]`. Beside each reading stands the same line read by serde_json,
//! so that a slow machine shows in both.

use std::hint::black_box;
use std::time::Instant;

use remuda_protocol::encode::{self, CallFields};
use remuda_protocol::{Answer, Id, Op, Payload, Raw, Reply, Request, json_string, unescape_into};
use serde::Deserialize;
use serde_json::value::RawValue;

const ROUNDS: usize = 501;
const ROUND_NANOS: f64 = 200_000.0;

/// What `serde_json` is asked for: the same fields, the body left as text.
#[derive(Deserialize)]
#[allow(dead_code, reason = "the fields are read to be measured, not used")]
struct SerdeCall<'a> {
    op: &'a str,
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    body: &'a RawValue,
    timeout_ms: Option<u64>,
}

struct Case {
    name: String,
    run: Box<dyn FnMut()>,
    nanos: Vec<f64>,
}

fn case(name: impl Into<String>, run: impl FnMut() + 'static) -> Case {
    Case { name: name.into(), run: Box::new(run), nanos: Vec::new() }
}

/// Nanoseconds for each run, over about [`ROUND_NANOS`].
fn round(run: &mut dyn FnMut(), times: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..times {
        run();
    }
    start.elapsed().as_nanos() as f64 / f64::from(times)
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|at| b'a' + (at % 26) as u8).collect()
}

fn json_text(length: usize) -> Vec<u8> {
    [b"\"", &text(length)[..], b"\""].concat()
}

fn call_line(body: &[u8]) -> Vec<u8> {
    let mut line = Vec::new();
    let fields = CallFields { timeout_ms: Some(250), hops: 0 };
    encode::call(&mut line, Some(Id::Number(1_234_567)), body, &fields);
    line.pop();
    line
}

fn read_call(name: &str, line: Vec<u8>) -> [Case; 2] {
    let (length, theirs) = (line.len(), line.clone());
    [
        case(format!("read call, {name}, {length} B"), move || {
            black_box(Request::parse(black_box(&line)).is_ok());
        }),
        case(format!("  {name} by serde_json"), move || {
            black_box(serde_json::from_slice::<SerdeCall<'_>>(black_box(&theirs)).is_ok());
        }),
    ]
}

fn numbers(bytes: usize) -> Vec<u8> {
    let mut body = b"[".to_vec();
    while body.len() < bytes {
        body.extend_from_slice(b"12.5,-3,{\"x\":true},");
    }
    body.extend_from_slice(b"0]");
    body
}

fn batch_cases(cases: &mut Vec<Case>) {
    let body = json_text(60);
    let bodies: Vec<Vec<u8>> = vec![body; 100];
    let mut out = Vec::new();
    let owned = bodies.clone();
    cases.push(case("write batch of 100 of 62 B", move || {
        out.clear();
        let bodies = owned.iter().map(Vec::as_slice);
        encode::calls(&mut out, Some(Id::Number(7)), bodies, &CallFields::default());
        black_box(&out);
    }));
    let mut line = Vec::new();
    encode::results(&mut line, Some(Id::Number(7)), bodies.iter().map(|body| Ok(&body[..])));
    line.pop();
    cases.push(case("read 100 results of 62 B, each looked at", move || {
        if let Ok(Reply { answer: Answer::Results(results), .. }) = Reply::parse(black_box(&line)) {
            for outcome in results.outcomes() {
                black_box(outcome.is_ok());
            }
        }
    }));
}

fn relay_case() -> Case {
    let from_client = call_line(&json_text(60));
    let (mut to_worker, mut from_worker, mut to_client) = (Vec::new(), Vec::new(), Vec::new());
    encode::result(&mut from_worker, Some(Id::Number(5)), &json_text(60));
    from_worker.pop();
    case("relay: read call, write call, read result, write result", move || {
        to_worker.clear();
        to_client.clear();
        let Ok(Request { id, op: Op::Call(call) }) = Request::parse(black_box(&from_client)) else {
            return;
        };
        if let Payload::One(body) = call.payload {
            let fields = CallFields { timeout_ms: Some(200), hops: 1 };
            encode::call(&mut to_worker, Some(Id::Number(5)), body.as_bytes(), &fields);
        }
        if let Ok(Reply { answer: Answer::Result(body), .. }) =
            Reply::parse(black_box(&from_worker))
        {
            encode::result(&mut to_client, id, body.as_bytes());
        }
        black_box((&to_worker, &to_client));
    })
}

fn text_cases(cases: &mut Vec<Case>) {
    let (plain, mut out) = (text(60), Vec::with_capacity(256));
    cases.push(case("json_string of a line of 60 B", move || {
        out.clear();
        black_box(json_string(&mut out, black_box(&plain)).is_ok());
    }));
    let (json, mut out) = (json_text(60), Vec::with_capacity(256));
    cases.push(case("unescape_into of 60 B", move || {
        out.clear();
        let text = str::from_utf8(&json).unwrap_or_default();
        black_box(unescape_into(&mut out, black_box(text)).is_ok());
    }));
    let body = json_text(60);
    cases.push(case("check one body of 62 B", move || {
        black_box(Raw::new(black_box(&body)).is_ok());
    }));
}

fn main() {
    let mut cases = Vec::new();
    cases.extend(read_call("text", call_line(&json_text(50))));
    cases.extend(read_call(
        "object",
        call_line(br#"{"text":"abc def ghi jkl mno pqr","n":[1,2,3]}"#),
    ));
    cases.extend(read_call("1 MiB of text", call_line(&json_text(1 << 20))));
    cases.extend(read_call("1 MiB of numbers", call_line(&numbers(1 << 20))));
    let mut line = Vec::new();
    encode::result(&mut line, Some(Id::Number(1_234_567)), &json_text(50));
    line.pop();
    cases.push(case(format!("read result, {} B", line.len()), move || {
        black_box(Reply::parse(black_box(&line)).is_ok());
    }));
    cases.push(relay_case());
    batch_cases(&mut cases);
    text_cases(&mut cases);

    // Cargo adds `--bench` to the arguments.
    if let Some(part) = std::env::args().skip(1).find(|argument| !argument.starts_with('-')) {
        cases.retain(|case| case.name.contains(&part));
    }
    let times: Vec<u32> = cases
        .iter_mut()
        .map(|case| {
            let once = round(&mut case.run, 3).max(1.0);
            (ROUND_NANOS / once).clamp(1.0, 1e7) as u32
        })
        .collect();
    for _ in 0..ROUNDS {
        for (case, times) in cases.iter_mut().zip(&times) {
            let nanos = round(&mut case.run, *times);
            case.nanos.push(nanos);
        }
    }
    println!("{:<58} {:>12} {:>12}", "nanoseconds", "median", "least");
    for case in &mut cases {
        case.nanos.sort_by(f64::total_cmp);
        println!("{:<58} {:>12.1} {:>12.1}", case.name, case.nanos[ROUNDS / 2], case.nanos[0]);
    }
}
