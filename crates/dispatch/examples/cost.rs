//! What the pool itself costs a job in processor time, without workers, sockets or bodies. Linux only:
//! `cargo run --release -p remuda-dispatch --example cost`.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use remuda_dispatch::*;

struct Job;

impl Payload for Job {
    fn size(&self) -> usize {
        60
    }

    fn fingerprint(&self) -> u64 {
        0
    }
}

/// The time that this thread has spent on a processor, whatever else the machine does.
fn processor_nanos() -> u128 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    schedstat.split(' ').next().unwrap().parse().unwrap()
}

/// Nanoseconds a job, of `jobs` jobs through two workers that take `service` for each.
fn cost(offer: Offer, options: JobOptions, service: Duration, jobs: u32) -> u128 {
    let delivery = Delivery::AT_LEAST_ONCE;
    let config = Config { num_workers: 2, delivery, ..Config::default() };
    let mut pool: Dispatch<Job, ()> = Dispatch::new(config, 1).unwrap();
    let mut flying = std::collections::VecDeque::new();
    let (mut now, mut done) = (Duration::ZERO, 0);
    let start = processor_nanos();
    while done < jobs {
        while pool.room() > 0 {
            assert!(pool.submit(now, Job, options).is_ok());
        }
        while let Some(action) = pool.poll_action() {
            match action {
                Action::Spawn { worker, .. } => pool.ready(now, worker, offer),
                Action::Send { worker, call } => {
                    flying.push_back((worker, call, pool.call(call).count()));
                }
                Action::Finish { .. } => done += 1,
                _ => {}
            }
        }
        let Some((worker, call, count)) = flying.pop_front() else { continue };
        now += service * count as u32;
        pool.tick(now);
        pool.replied(now, worker, call, std::iter::repeat_n(Reply::Done(()), count)).unwrap();
    }
    (processor_nanos() - start) / u128::from(jobs)
}

fn main() {
    let single = Offer::default();
    let batching = Offer { batch: 1024, ..single };
    let plain = JobOptions::default();
    let limited = JobOptions {
        deadline: Some(Duration::from_secs(1 << 20)),
        exec_timeout: Some(Duration::from_secs(1)),
        ..plain
    };
    let (short, long) = (Duration::from_micros(1), Duration::from_micros(20));
    for round in 0..2 {
        println!("round {round}");
        println!(
            "  batches:                  {} ns a job",
            cost(batching, plain, short, 4_000_000)
        );
        println!(
            "  batches, with limits:     {} ns a job",
            cost(batching, limited, short, 4_000_000)
        );
        println!("  one by one:               {} ns a job", cost(single, plain, long, 4_000_000));
        println!("  one by one, with limits:  {} ns a job", cost(single, limited, long, 4_000_000));
    }
}
