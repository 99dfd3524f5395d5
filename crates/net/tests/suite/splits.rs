//! However a stream is split into packets, the same messages come out.

use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;

use proptest::prelude::*;
use remuda_net::{Backend, Config, ConnCtx, ParseResult, adopt_unix};

use crate::drivers::{config, run_with};

/// A message as it is sent: its length in four bytes, then its bytes.
fn frame(message: &[u8]) -> Vec<u8> {
    let mut frame = (message.len() as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(message);
    frame
}

/// The first message of `data`, as its range, if it is all there.
fn parse(data: &[u8]) -> Option<std::ops::Range<usize>> {
    let len = u32::from_le_bytes(data.get(..4)?.try_into().ok()?) as usize;
    (data.len() >= 4 + len).then_some(4..4 + len)
}

async fn with_data(conn: ConnCtx) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut next = |data: &[u8]| {
        let Some(range) = parse(data) else { return ParseResult::NeedMore };
        messages.push(data[range.clone()].to_vec());
        ParseResult::Consumed(range.end)
    };
    while conn.with_data(&mut next).await > 0 {}
    messages
}

async fn polled(conn: ConnCtx) -> Vec<Vec<u8>> {
    let (mut messages, mut reading) = (Vec::new(), conn.reading());
    let mut next = |data: &[u8]| {
        let Some(range) = parse(data) else { return ControlFlow::Continue(ParseResult::NeedMore) };
        messages.push(data[range.clone()].to_vec());
        let parsed = ParseResult::Consumed(range.end);
        // Both, in turn.
        if messages.len() % 2 == 0 {
            ControlFlow::Break(parsed)
        } else {
            ControlFlow::Continue(parsed)
        }
    };
    while std::future::poll_fn(|cx| reading.poll_with_data(cx, &mut next)).await > 0 {}
    messages
}

async fn with_bytes(conn: ConnCtx) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut next = |data: bytes::Bytes| {
        let Some(range) = parse(&data) else { return ParseResult::NeedMore };
        messages.push(data.slice(range.clone()));
        ParseResult::Consumed(range.end)
    };
    while conn.with_bytes(&mut next).await > 0 {}
    messages.into_iter().map(Vec::from).collect()
}

/// Writes the stream in packets of the given sizes, over and over, from a thread.
fn write_split(mut peer: UnixStream, stream: Vec<u8>, sizes: Vec<usize>) {
    let mut rest = &stream[..];
    let mut sizes = sizes.into_iter().cycle();
    while let Some(size) = sizes.next().filter(|_| !rest.is_empty()) {
        let (packet, after) = rest.split_at(size.min(rest.len()));
        peer.write_all(packet).unwrap();
        rest = after;
    }
}

fn check(backend: Backend, messages: &[Vec<u8>], sizes: &[usize], small_buffers: bool) {
    let stream: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
    let mut config = config(backend);
    if small_buffers {
        config = Config {
            recv_buffer_bytes: 1 << 10,
            recv_limit: 1 << 10,
            uring_buffers: 2,
            uring_buffer_bytes: 1 << 10,
            ..config
        };
    }
    run_with(config, async {
        for way in 0..3 {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let conn = adopt_unix(ours).unwrap();
            let (stream, sizes) = (stream.clone(), sizes.to_vec());
            let writer = std::thread::spawn(move || write_split(theirs, stream, sizes));
            let received = match way {
                0 => with_data(conn).await,
                1 => with_bytes(conn).await,
                _ => polled(conn).await,
            };
            writer.join().unwrap();
            assert!(received == messages, "{} of {} messages", received.len(), messages.len());
        }
    });
}

fn a_message() -> impl Strategy<Value = Vec<u8>> {
    // Mostly short ones, and some up to a mebibyte; the bytes follow from length and start.
    let len =
        prop_oneof![8 => 1..100_usize, 4 => 100..20_000_usize, 1 => 20_000..(1_usize << 20) + 1];
    (len, any::<u8>())
        .prop_map(|(len, start)| (0..len).map(|at| start.wrapping_add((at % 251) as u8)).collect())
}

fn packet_sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![1 => 1..8_usize, 4 => 8..5_000_usize, 4 => 5_000..200_000_usize];
    // At least one large packet, or a long stream takes for ever.
    (prop::collection::vec(size, 0..12), 2_000..200_000_usize).prop_map(|(mut sizes, large)| {
        sizes.push(large);
        sizes
    })
}

fn holds(backend: Backend) {
    let cases = std::env::var("REMUDA_NET_TEST_SPLITS").ok().and_then(|cases| cases.parse().ok());
    let config = ProptestConfig { cases: cases.unwrap_or(32), ..ProptestConfig::default() };
    let config = ProptestConfig { failure_persistence: None, ..config };
    let messages = prop::collection::vec(a_message(), 1..20);
    let inputs = (messages, packet_sizes(), any::<bool>());
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&inputs, |(messages, sizes, small_buffers)| {
            check(backend, &messages, &sizes, small_buffers);
            Ok(())
        })
        .unwrap();
}

mod mio {
    #[test]
    fn any_split_gives_the_same_messages() {
        super::holds(remuda_net::Backend::Mio);
    }
}

mod io_uring {
    #[test]
    fn any_split_gives_the_same_messages() {
        super::holds(remuda_net::Backend::IoUring);
    }
}
