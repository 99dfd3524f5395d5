//! Ten times more calls than the pool can do: those that it can are answered in time, the others
//! are refused soon.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serve::{Client, Serve, Stream};

/// How long a job takes, its budget, and how long all of it lasts.
struct Size {
    job_ms: u64,
    budget_ms: u64,
    run: Duration,
}

/// In an ordinary run the machine may be loaded: what has waited for a tenth of its budget is refused,
/// and a processor may come later than a small one allows. The long run has the machine to itself.
fn size() -> Size {
    match serve::is_soak() {
        true => Size { job_ms: 5, budget_ms: 50, run: Duration::from_secs(30) },
        false => Size { job_ms: 50, budget_ms: 500, run: Duration::from_secs(6) },
    }
}

/// What a pool made of such a load.
struct Outcome {
    /// How many calls were answered in time, of those that it could do; as the client saw it, and as
    /// the pool meant it.
    in_time: f64,
    done: f64,
    /// How long those that were refused waited for that, but for one in a hundred.
    p99: Duration,
}

fn ten_times(size: &Size) -> Outcome {
    let Size { job_ms, budget_ms, run } = *size;
    let job = Duration::from_millis(job_ms).as_secs_f64();
    let serve = Serve::start(&["-j2", "--builtin=sleep"]);
    serve.ready();
    let mut client = serve.client();
    // What the pool can do, as measured: a sleep takes longer on a busy machine.
    let since = Instant::now();
    let calls: String =
        (0..40).map(|n| format!("{{\"op\":\"call\",\"id\":{n},\"body\":{job}}}\n")).collect();
    client.send_bytes(calls.as_bytes());
    (0..40).for_each(|_| assert_eq!(client.reply()["ok"], true));
    let capacity = 40.0 / since.elapsed().as_secs_f64();
    let rate = 10.0 * capacity;

    let mut lines = client.lines;
    let Stream::Unix(stream) = lines.get_mut() else { panic!("a Unix socket") };
    let mut writer = stream.try_clone().unwrap();
    let total = (rate * run.as_secs_f64()) as usize;
    let sent = Arc::new(Mutex::new(vec![None; total]));
    let shared = Arc::clone(&sent);
    let load = std::thread::spawn(move || {
        let begin = Instant::now();
        let mut next = 0;
        while next < total {
            let due = ((begin.elapsed().as_secs_f64() * rate) as usize + 1).min(total);
            let calls: String = (next..due)
                .map(|n| {
                    format!(
                        "{{\"op\":\"call\",\"id\":{n},\"timeout_ms\":{budget_ms},\"body\":{job}}}\n"
                    )
                })
                .collect();
            let now = Instant::now();
            shared.lock().unwrap()[next..due].fill(Some(now));
            writer.write_all(calls.as_bytes()).unwrap();
            next = due;
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let mut client = Client { lines };
    let (mut in_time, mut refused, mut late) = (0u64, Vec::new(), 0u64);
    let mut codes = std::collections::BTreeMap::new();
    let mut most = 0;
    let since = Instant::now();
    for n in 0..total {
        let reply = client.reply();
        let id = reply["id"].as_u64().unwrap() as usize;
        let took = sent.lock().unwrap()[id].unwrap().elapsed();
        if reply["ok"] == true {
            match took <= Duration::from_millis(budget_ms + 5) {
                true => in_time += 1,
                false => late += 1,
            }
        } else {
            *codes.entry(reply["code"].as_str().unwrap().to_owned()).or_insert(0u64) += 1;
            refused.push(took);
        }
        if n % 1000 == 0 {
            most = most.max(serve.resident());
        }
    }
    let elapsed = since.elapsed();
    load.join().unwrap();
    refused.sort();
    let could = capacity * elapsed.as_secs_f64();
    let share = in_time as f64 / could;
    let (p50, p99) = (refused[refused.len() / 2], refused[refused.len() * 99 / 100]);
    println!(
        "{total} calls in {elapsed:?}, 10 x {capacity:.0}/s: {in_time} in time ({:.1} % of {could:.0}), \
         {late} late; refused {codes:?}, p50 {p50:?}, p99 {p99:?}; at most {} MiB",
        share * 100.0,
        most >> 20
    );
    // Back to normal within a second after.
    std::thread::sleep(Duration::from_millis(500));
    let since = Instant::now();
    let reply = client.ask(&format!(r#"{{"op":"call","id":0,"body":{job}}}"#));
    assert_eq!(reply["ok"], true);
    println!("a call half a second after took {:?}", since.elapsed());
    assert!(most < 128 << 20, "{} MiB", most >> 20);
    assert_eq!(in_time + late + refused.len() as u64, total as u64, "each is answered");
    Outcome { in_time: share, done: (in_time + late) as f64 / could, p99 }
}

#[test]
fn ten_times_more_than_it_can_do() {
    let outcome = ten_times(&size());
    assert!(outcome.done > 0.0, "work goes on");
    // How many are in time on a machine that does other things as well says more of the machine. The
    // simulation of the dispatch holds it without a clock, see `crates/dispatch/tests/overload.rs`.
    if serve::is_soak() {
        assert!(outcome.in_time > 0.9, "{}", outcome.in_time);
        assert!(outcome.p99 < Duration::from_millis(10), "{:?}", outcome.p99);
    }
}
