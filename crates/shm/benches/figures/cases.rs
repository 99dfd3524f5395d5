//! The cases: each starts a child, runs, and gives one figure.

use std::hint::spin_loop;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use remuda_shm::{Options, Receiver, Sender, SpscFace};
use rustix::event::{EventfdFlags, eventfd};

use crate::bare;
use crate::child::pin;

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) run: Box<dyn Fn() -> f64>,
}

fn case(name: impl Into<String>, unit: &'static str, run: impl Fn() -> f64 + 'static) -> Case {
    Case { name: name.into(), unit, run: Box::new(run) }
}

const TRIPS: u64 = 30_000;
const SLEEPING_TRIPS: u64 = 8_000;
const MESSAGES: u64 = 1_500_000;

pub(crate) fn all() -> Vec<Case> {
    let mut cases = vec![
        case("64 B round trip, polled", "us", || trip_polled(64)),
        case("56 B round trip, polled", "us", || trip_polled(56)),
        case("64 B round trip, blocking, spinning", "us", || trip_blocking("echo-spinning", 100)),
        case("64 B round trip, blocking, asleep", "us", || trip_blocking("echo-blocking", 0)),
        case("bare eventfds, round trip", "us", trip_eventfd),
        case("Unix stream, 64 B round trip", "us", || trip_stream(64)),
        case("64 B one way, send_blocking to recv", "M/s", || one_way("sink-recv", 64, send)),
        case("64 B one way, send_blocking to batches", "M/s", || one_way("sink-batch", 64, send)),
        case("56 B one way, send_blocking to batches", "M/s", || one_way("sink-batch", 56, send)),
        case("64 B one way, batches of 16 to recv", "M/s", || one_way("sink-recv", 64, send_16)),
        case("64 B one way, batches of 16 to batches", "M/s", || {
            one_way("sink-batch", 64, send_16)
        }),
        case("64 B one way, send (tokio) to batches", "M/s", || one_way_tokio(1)),
        case("64 B one way, send_batch of 16 (tokio)", "M/s", || one_way_tokio(16)),
        case("system calls a message under load", "", system_calls_a_message),
    ];
    for (size, name) in [(4096, "4 KiB"), (8000, "8,000 B"), (65_536, "64 KiB"), (1 << 20, "1 MiB")]
    {
        cases.extend([
            case(format!("{name}, Unix stream"), "GB/s", move || bytes_stream(size)),
            case(format!("{name}, bare copies"), "GB/s", move || {
                bare::copies(size, count_of(size))
            }),
            case(format!("{name}, copied"), "GB/s", move || bytes("sink-into", size, send)),
            case(format!("{name}, copied, as Bytes"), "GB/s", move || {
                bytes("sink-recv", size, send)
            }),
            case(format!("{name}, read in chunks"), "GB/s", move || {
                bytes("sink-chunks", size, send)
            }),
            case(format!("{name}, in place at both ends"), "GB/s", move || {
                bytes("sink-slice", size, write_in_place)
            }),
        ]);
    }
    cases
}

/// System calls of this process so far, as far as the kernel counts them: it does not count those
/// that wait, but each of these that slept was a voluntary context switch.
pub(crate) fn system_calls() -> u64 {
    let field = |file: &str, name: &str| -> u64 {
        let text = std::fs::read_to_string(file).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit([' ', '\t']).next().unwrap().parse().unwrap()
    };
    field("/proc/self/io", "syscw")
        + field("/proc/self/io", "syscr")
        + field("/proc/self/status", "voluntary_ctxt_switches")
}

fn child(role: &str, count: u64, size: usize, stdin: OwnedFd, stdout: Option<OwnedFd>) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", role, &count.to_string(), &size.to_string()])
        .stdin(stdin)
        .stdout(stdout.map_or(Stdio::inherit(), Stdio::from))
        .spawn()
        .unwrap()
}

fn options(size: usize) -> Options {
    // About what fits into the second-level cache, at most 1,024 slots, and 64 for large ones.
    let capacity = ((1 << 20) / size).clamp(16, 1024);
    Options::new(capacity as u32, size as u32).unwrap()
}

/// A ring to a fresh child.
fn ring(role: &str, count: u64, size: usize, spin: u64) -> (Sender, Receiver, Child) {
    let (own, peer) = UnixStream::pair().unwrap();
    let options = options(size).spin(Duration::from_micros(spin));
    let face = SpscFace::over(&own, &options).unwrap();
    let child = child(role, count, size, peer.into(), None);
    let (sender, receiver) = face.into_split();
    (sender, receiver, child)
}

fn micros(begun: Instant, count: u64) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6 / count as f64
}

fn trip_polled(size: usize) -> f64 {
    let (mut sender, mut receiver, mut child) = ring("echo-polled", TRIPS + 1, size, 0);
    pin(1);
    let message = vec![7; size];
    let mut answer = Vec::new();
    let mut begun = Instant::now();
    for i in 0..=TRIPS {
        answer.clear();
        sender.try_send(&message).unwrap();
        while receiver.try_recv_into(&mut answer).unwrap().is_none() {
            spin_loop();
        }
        if i == 0 {
            begun = Instant::now();
        }
    }
    let figure = micros(begun, TRIPS);
    child.wait().unwrap();
    figure
}

fn trip_blocking(role: &str, spin: u64) -> f64 {
    let (mut sender, mut receiver, mut child) = ring(role, SLEEPING_TRIPS + 1, 64, spin);
    pin(1);
    let message = [7; 64];
    let mut begun = Instant::now();
    for i in 0..=SLEEPING_TRIPS {
        sender.send_blocking(&message).unwrap();
        receiver.recv_blocking().unwrap();
        if i == 0 {
            begun = Instant::now();
        }
    }
    let figure = micros(begun, SLEEPING_TRIPS);
    child.wait().unwrap();
    figure
}

fn trip_eventfd() -> f64 {
    let (there, back) = (eventfd(0, EventfdFlags::CLOEXEC), eventfd(0, EventfdFlags::CLOEXEC));
    let (there, back) = (there.unwrap(), back.unwrap());
    let own = |fd: &OwnedFd| fd.try_clone().unwrap();
    let mut child = child("echo-eventfd", SLEEPING_TRIPS + 1, 0, own(&there), Some(own(&back)));
    pin(1);
    let mut begun = Instant::now();
    for i in 0..=SLEEPING_TRIPS {
        rustix::io::write(&there, &1_u64.to_ne_bytes()).unwrap();
        rustix::io::read(&back, &mut [0_u8; 8]).unwrap();
        if i == 0 {
            begun = Instant::now();
        }
    }
    let figure = micros(begun, SLEEPING_TRIPS);
    child.wait().unwrap();
    figure
}

fn trip_stream(size: usize) -> f64 {
    let (mut own, peer) = UnixStream::pair().unwrap();
    let mut child = child("echo-stream", SLEEPING_TRIPS + 1, size, peer.into(), None);
    pin(1);
    let mut message = vec![7; size];
    let mut begun = Instant::now();
    for i in 0..=SLEEPING_TRIPS {
        own.write_all(&message).unwrap();
        own.read_exact(&mut message).unwrap();
        if i == 0 {
            begun = Instant::now();
        }
    }
    let figure = micros(begun, SLEEPING_TRIPS);
    child.wait().unwrap();
    figure
}

fn send(sender: &mut Sender, message: &[u8], _left: u64) -> u64 {
    sender.send_blocking(message).unwrap();
    1
}

fn send_16(sender: &mut Sender, message: &[u8], left: u64) -> u64 {
    let count = left.min(16);
    sender.send_batch_blocking(&[message; 16][..count as usize]).unwrap();
    count
}

fn write_in_place(sender: &mut Sender, message: &[u8], _left: u64) -> u64 {
    sender.wait_room_blocking().unwrap();
    let mut slot = sender.reserve(message.len()).unwrap();
    #[allow(unsafe_code, reason = "the peer is this program")]
    // SAFETY: the peer is this program, which leaves a slot alone that isn't its own.
    let bytes = unsafe { slot.as_mut_slice() };
    bytes.fill(message[0]);
    slot.commit(message.len());
    1
}

/// Seconds that `count` messages take.
fn seconds(
    role: &str,
    count: u64,
    size: usize,
    send: fn(&mut Sender, &[u8], u64) -> u64,
) -> (f64, u64) {
    let (mut sender, mut receiver, mut child) = ring(role, count, size, 10);
    pin(1);
    let message = vec![7; size];
    let mut sent = send(&mut sender, &message, 1);
    let begun = Instant::now();
    while sent < count {
        sent += send(&mut sender, &message, count - sent);
    }
    let of_child = receiver.recv_blocking().unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    child.wait().unwrap();
    (seconds, u64::from_ne_bytes(of_child[..].try_into().unwrap()))
}

fn one_way(role: &str, size: usize, send: fn(&mut Sender, &[u8], u64) -> u64) -> f64 {
    MESSAGES as f64 / seconds(role, MESSAGES, size, send).0 / 1e6
}

fn system_calls_a_message() -> f64 {
    let before = system_calls();
    let (_, of_child) = seconds("sink-recv", MESSAGES, 64, send);
    (system_calls() - before + of_child) as f64 / MESSAGES as f64
}

fn one_way_tokio(batch: usize) -> f64 {
    let (own, peer) = UnixStream::pair().unwrap();
    let face = SpscFace::over(&own, &options(64)).unwrap();
    let mut child = child("sink-batch", MESSAGES, 64, peer.into(), None);
    pin(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let seconds = runtime.block_on(async {
        let message = Bytes::from_static(&[7; 64]);
        let messages = vec![message.clone(); batch];
        face.send(message.clone()).await.unwrap();
        let begun = Instant::now();
        let mut sent = 1;
        while sent < MESSAGES {
            if batch == 1 {
                face.send(message.clone()).await.unwrap();
                sent += 1;
            } else {
                let count = (MESSAGES - sent).min(batch as u64);
                face.send_batch(&messages[..count as usize]).await.unwrap();
                sent += count;
            }
        }
        face.recv().await.unwrap();
        begun.elapsed().as_secs_f64()
    });
    child.wait().unwrap();
    MESSAGES as f64 / seconds / 1e6
}

fn count_of(size: usize) -> u64 {
    ((1 << 30) / size as u64).min(200_000)
}

fn bytes(role: &str, size: usize, send: fn(&mut Sender, &[u8], u64) -> u64) -> f64 {
    let count = count_of(size);
    (count * size as u64) as f64 / seconds(role, count, size, send).0 / 1e9
}

fn bytes_stream(size: usize) -> f64 {
    let (mut own, peer) = UnixStream::pair().unwrap();
    let count = count_of(size);
    let mut child =
        child("sink-stream", count, size, peer.as_fd().try_clone_to_owned().unwrap(), None);
    drop(peer);
    pin(1);
    let message = vec![7; size];
    let begun = Instant::now();
    for _ in 0..count {
        own.write_all(&message).unwrap();
    }
    own.read_exact(&mut [0]).unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    child.wait().unwrap();
    (count * size as u64) as f64 / seconds / 1e9
}
