//! One call in flight: a worker beside a thread that only sends back what it reads.
//!
//! `cargo bench -p remuda-worker`. Both run on a thread of this process at the other end of a socket
//! pair, in interleaved rounds; the ratio is what the worker adds to the wake-ups.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Instant;

use remuda_worker::Worker;

const ROUNDS: usize = 31;
const CALLS: usize = 1000;

/// The middle of some round trips, in microseconds.
fn median(peer: &mut UnixStream, message: &[u8]) -> std::io::Result<f64> {
    let mut buf = [0; 4096];
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let start = Instant::now();
        peer.write_all(message)?;
        // Each message is far smaller than a socket's buffer, so it comes whole.
        let n = peer.read(&mut buf)?;
        assert_eq!(buf.get(n.wrapping_sub(1)), Some(&b'\n'));
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[CALLS / 2])
}

fn echo(mut stream: UnixStream) -> std::io::Result<()> {
    let mut buf = [0; 4096];
    loop {
        match stream.read(&mut buf)? {
            0 => return Ok(()),
            n => stream.write_all(&buf[..n])?,
        }
    }
}

fn main() -> std::io::Result<()> {
    let (mut bare, theirs) = UnixStream::pair()?;
    thread::spawn(move || echo(theirs));
    let (mut peer, theirs) = UnixStream::pair()?;
    thread::spawn(move || {
        Worker::new(|text: String| Ok::<_, Infallible>(text.to_uppercase())).serve(&theirs)
    });
    shake(&mut peer)?;
    let body = "the quick brown fox jumps over the lazy dog, and back again.";
    let call = format!("{{\"op\":\"call\",\"id\":7,\"body\":\"{body}\"}}\n");

    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let (bare, worker) =
            (median(&mut bare, call.as_bytes())?, median(&mut peer, call.as_bytes())?);
        rounds.push((worker / bare, bare, worker));
    }
    rounds.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (ratio, bare, worker) = rounds[ROUNDS / 2];
    println!("bare echo {bare:.2} us, worker {worker:.2} us, ratio {ratio:.2}");
    println!("ratios from {:.2} to {:.2} in {ROUNDS} rounds", rounds[0].0, rounds[ROUNDS - 1].0);
    Ok(())
}

fn shake(peer: &mut UnixStream) -> std::io::Result<()> {
    peer.write_all(b"{\"op\":\"handshake\",\"version\":\"1\"}\n")?;
    let n = peer.read(&mut [0; 4096])?;
    assert!(n > 0, "the worker answers the handshake");
    Ok(())
}
