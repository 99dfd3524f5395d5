//! The other process: what it does is its first argument, how often its second.

use std::hint::{black_box, spin_loop};
use std::io::{Read, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use remuda_shm::{Options, Receiver, Sender, SpscHandle};

/// Sums the bytes as words, which reads every one of them.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    words.fold(0, |sum, word| sum.wrapping_add(u64::from_ne_bytes(word.try_into().unwrap())))
}

pub(crate) fn pin(core: usize) {
    let core = if std::env::var_os("CORES").is_some_and(|cores| cores == "0") { 0 } else { core };
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}

pub(crate) fn run(arguments: &[String]) {
    let count: u64 = arguments[1].parse().unwrap();
    let size: usize = arguments[2].parse().unwrap();
    // Before the pinning: a side that sees one processor would never spin.
    let halves = |spin| {
        let options = Options::default().spin(Duration::from_micros(spin));
        SpscHandle::over(stdin().as_fd(), &options).unwrap().into_split()
    };
    match arguments[0].as_str() {
        "echo-polled" => echo_polled(halves(0), count),
        "echo-blocking" => echo_blocking(halves(0), count),
        "echo-spinning" => echo_blocking(halves(100), count),
        "echo-eventfd" => echo_eventfd(count),
        "echo-stream" => echo_stream(count, size),
        "sink-recv" => sink_recv(halves(10), count),
        "sink-batch" => sink_batch(halves(10), count),
        "sink-into" => sink_into(halves(10), count),
        "sink-chunks" => sink_chunks(halves(10), count),
        "sink-slice" => sink_slice(halves(10), count),
        "sink-stream" => sink_stream(count, size),
        other => panic!("no such child: {other}"),
    }
}

fn echo_polled((mut sender, mut receiver): (Sender, Receiver), count: u64) {
    pin(0);
    let mut message = Vec::new();
    for _ in 0..count {
        message.clear();
        while receiver.try_recv_into(&mut message).unwrap().is_none() {
            spin_loop();
        }
        sender.try_send(&message).unwrap();
    }
}

fn echo_blocking((mut sender, mut receiver): (Sender, Receiver), count: u64) {
    pin(0);
    for _ in 0..count {
        let message = receiver.recv_blocking().unwrap();
        sender.send_blocking(&message).unwrap();
    }
}

fn echo_eventfd(count: u64) {
    pin(0);
    let (stdin, stdout) = (stdin(), stdout());
    for _ in 0..count {
        rustix::io::read(&stdin, &mut [0_u8; 8]).unwrap();
        rustix::io::write(&stdout, &1_u64.to_ne_bytes()).unwrap();
    }
}

fn stream() -> UnixStream {
    stdin().as_fd().try_clone_to_owned().unwrap().into()
}

fn echo_stream(count: u64, size: usize) {
    pin(0);
    let mut stream = stream();
    let mut message = vec![0; size];
    for _ in 0..count {
        stream.read_exact(&mut message).unwrap();
        stream.write_all(&message).unwrap();
    }
}

/// Tells the other process that all has come, and what it took of the system.
fn done(sender: &mut Sender) {
    sender.send_blocking(&crate::cases::system_calls().to_ne_bytes()).unwrap();
}

fn sink_recv((mut sender, mut receiver): (Sender, Receiver), count: u64) {
    pin(0);
    for _ in 0..count {
        black_box(sum(&receiver.recv_blocking().unwrap()));
    }
    done(&mut sender);
}

fn sink_batch((mut sender, mut receiver): (Sender, Receiver), count: u64) {
    pin(0);
    let mut messages = Vec::new();
    let mut taken = 0;
    while taken < count {
        receiver.wait_message_blocking(None).unwrap();
        taken += receiver.try_recv_batch(&mut messages, 64).unwrap() as u64;
        for message in messages.drain(..) {
            black_box(sum(&message));
        }
    }
    done(&mut sender);
}

fn sink_into((mut sender, mut receiver): (Sender, Receiver), count: u64) {
    pin(0);
    let mut message = Vec::new();
    for _ in 0..count {
        message.clear();
        receiver.wait_message_blocking(None).unwrap();
        receiver.try_recv_into(&mut message).unwrap();
        black_box(sum(&message));
    }
    done(&mut sender);
}

fn sink_chunks((mut sender, mut receiver): (Sender, Receiver), count: u64) {
    pin(0);
    for _ in 0..count {
        receiver.wait_message_blocking(None).unwrap();
        let message = receiver.try_recv_in_place().unwrap().unwrap();
        let mut total = 0_u64;
        message.for_each_chunk(|chunk| total = total.wrapping_add(sum(chunk)));
        black_box(total);
    }
    done(&mut sender);
}

fn sink_slice((mut sender, mut receiver): (Sender, Receiver), count: u64) {
    pin(0);
    for _ in 0..count {
        receiver.wait_message_blocking(None).unwrap();
        let message = receiver.try_recv_in_place().unwrap().unwrap();
        #[allow(unsafe_code, reason = "the peer is this program")]
        // SAFETY: the peer is this program, which leaves a slot alone that isn't its own.
        black_box(sum(unsafe { message.as_slice() }));
    }
    done(&mut sender);
}

fn sink_stream(count: u64, size: usize) {
    pin(0);
    let mut stream = stream();
    let mut message = vec![0; size];
    for _ in 0..count {
        stream.read_exact(&mut message).unwrap();
        black_box(sum(&message));
    }
    stream.write_all(&[1]).unwrap();
}
