//! `nats-peer respond URL` answers requests in a queue group with what they carry;
//! `nats-peer load URL IN_FLIGHT SECONDS WARMUP BYTES` keeps so many requests in flight over one
//! connection, and prints one line of JSON. Both use one thread.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Error};
use futures_util::StreamExt;

const SUBJECT: &str = "jobs";
const GROUP: &str = "workers";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().collect();
    // The server may be on its way.
    let options = ConnectOptions::new().retry_on_initial_connect();
    let client = options.connect(&arguments[2]).await?;
    match arguments[1].as_str() {
        "respond" => respond(client).await,
        _ => load(client, &arguments[3..]).await,
    }
}

async fn respond(client: Client) -> Result<(), Error> {
    let mut jobs = client.queue_subscribe(SUBJECT, GROUP.into()).await?;
    client.flush().await?;
    println!("ready");
    while let Some(job) = jobs.next().await {
        if let Some(reply) = job.reply {
            client.publish(reply, job.payload).await?;
        }
    }
    Ok(())
}

async fn load(client: Client, arguments: &[String]) -> Result<(), Error> {
    let in_flight: usize = arguments[0].parse()?;
    let seconds = Duration::from_secs_f64(arguments[1].parse()?);
    let warmup = Duration::from_secs_f64(arguments[2].parse()?);
    let body = bytes(arguments[3].parse()?);
    let begun = Instant::now() + warmup;
    let end = begun + seconds;
    let times_ns = RefCell::new(Vec::new());
    let ask = || async {
        loop {
            let sent = Instant::now();
            if sent >= end {
                return Ok::<_, Error>(());
            }
            client.request(SUBJECT, body.clone().into()).await?;
            if sent >= begun {
                times_ns.borrow_mut().push(sent.elapsed().as_nanos() as u64);
            }
        }
    };
    futures_util::future::try_join_all((0..in_flight).map(|_| ask())).await?;
    let mut times_ns = times_ns.into_inner();
    times_ns.sort_unstable();
    let p50 = times_ns[times_ns.len() / 2] as f64 / 1e3;
    let rate = times_ns.len() as f64 / begun.elapsed().as_secs_f64();
    println!("{{\"jobs_per_second\":{rate:.1},\"p50_us\":{p50}}}");
    Ok(())
}

fn bytes(count: usize) -> Vec<u8> {
    b"the quick brown fox jumps over the lazy dog ".iter().copied().cycle().take(count).collect()
}
