//! Receiving.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::ops::ControlFlow;

use remuda_net::{
    CloseReason, Config, ParseResult, Reading, spawn, spawn_blocking, spawn_with_handle, yield_now,
};

use crate::drivers::{
    PATIENCE, half_pair, pair, run_beside, same_driver, take, take_all, tcp_pair,
};

async fn the_closure_is_called_again_after_need_more() {
    let (conn, mut peer) = half_pair();
    let (calls, mut seen) = (std::cell::Cell::new(0), Vec::new());
    let reader = conn.with_data(|data| {
        calls.set(calls.get() + 1);
        seen.push(data.to_vec());
        if data.len() < 4 { ParseResult::NeedMore } else { ParseResult::Consumed(4) }
    });
    let writer = async {
        peer.write_all(b"ab").unwrap();
        while calls.get() == 0 {
            yield_now().await;
        }
        peer.write_all(b"cd").unwrap();
    };
    let (consumed, ()) = remuda_net::join(reader, writer).await;
    assert_eq!((consumed, seen), (4, vec![b"ab".to_vec(), b"abcd".to_vec()]));
}

async fn consumed_zero_of_some_is_as_need_more() {
    let (conn, mut peer) = half_pair();
    peer.write_all(b"ab").unwrap();
    let mut calls = 0;
    let reader = conn.with_data(|data| {
        calls += 1;
        if data.len() == 2 {
            peer.write_all(b"c").unwrap();
            return ParseResult::Consumed(0);
        }
        ParseResult::Consumed(data.len())
    });
    assert_eq!(reader.await, 3);
    assert_eq!(calls, 2);
}

async fn a_closure_is_not_called_again_without_more_bytes() {
    let (conn, mut peer) = half_pair();
    peer.write_all(b"ab").unwrap();
    conn.recv_ready().await;
    let mut calls = 0;
    {
        let mut reader = std::pin::pin!(conn.with_data(|_| {
            calls += 1;
            ParseResult::NeedMore
        }));
        for _ in 0..5 {
            std::future::poll_fn(|cx| {
                assert!(reader.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
            yield_now().await;
        }
    }
    assert_eq!(calls, 1);
}

async fn reading_by_hand_is_as_with_data() {
    let (conn, mut peer) = half_pair();
    peer.write_all(b"ab").unwrap();
    conn.recv_ready().await;
    let (mut reading, mut calls) = (conn.reading(), 0);
    assert_eq!(reading.conn(), conn);
    for _ in 0..5 {
        std::future::poll_fn(|cx| {
            let polled = reading.poll_with_data(cx, |_| {
                calls += 1;
                ControlFlow::Break(ParseResult::NeedMore)
            });
            assert!(polled.is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        yield_now().await;
    }
    assert_eq!(calls, 1);
    peer.write_all(b"c").unwrap();
    // What is left of one is there for the next, which nobody has to wait for.
    for (expected, count) in [(&b"abc"[..], 2), (b"c", 1)] {
        let mut seen = Vec::new();
        let consumed = std::future::poll_fn(|cx| {
            reading.poll_with_data(cx, |data| {
                seen = data.to_vec();
                ControlFlow::Break(ParseResult::Consumed(count))
            })
        });
        assert_eq!(consumed.await, count);
        assert_eq!(seen, expected);
    }
    drop(peer);
    assert_eq!(read_on(&mut reading, |_| ParseResult::NeedMore).await, 0);
}

/// Reads until nothing more can be.
async fn read_on(reading: &mut Reading, mut f: impl FnMut(&[u8]) -> ParseResult) -> usize {
    std::future::poll_fn(|cx| reading.poll_with_data(cx, |data| ControlFlow::Continue(f(data))))
        .await
}

async fn reading_goes_on_until_it_is_told_to_stop_cancelled_or_over() {
    let (conn, mut peer) = half_pair();
    let (mut reading, calls) = (conn.reading(), std::cell::Cell::new(0));
    let mut seen = Vec::new();
    let reader = std::future::poll_fn(|cx| {
        reading.poll_with_data(cx, |data| {
            calls.set(calls.get() + 1);
            seen.push(data.to_vec());
            let parsed = ParseResult::Consumed(data.len());
            if data == b"stop" { ControlFlow::Break(parsed) } else { ControlFlow::Continue(parsed) }
        })
    });
    let words = [&b"one"[..], b"two", b"stop"];
    let writer = async {
        for (before, word) in words.iter().enumerate() {
            peer.write_all(word).unwrap();
            while calls.get() == before {
                yield_now().await;
            }
        }
    };
    assert_eq!(remuda_net::join(reader, writer).await, (4, ()));
    assert_eq!(seen, words);

    // Each of the two ends it while it waits for what comes after something that it has read.
    for cancels in [true, false] {
        let mut read = 0;
        let (before, all) = (calls.get(), |data: &[u8]| {
            calls.set(calls.get() + 1);
            read += data.len();
            ParseResult::Consumed(data.len())
        });
        let end = async {
            peer.write_all(b"more").unwrap();
            while calls.get() == before {
                yield_now().await;
            }
            match cancels {
                true => conn.cancel().unwrap(),
                false => peer.shutdown(Shutdown::Both).unwrap(),
            }
        };
        assert_eq!(remuda_net::join(read_on(&mut reading, all), end).await, (0, ()));
        assert_eq!(read, 4);
    }
}

async fn buffered_data_resolves_at_once() {
    let (conn, mut peer) = half_pair();
    peer.write_all(b"one,two").unwrap();
    assert_eq!(take(conn, 4).await, b"one,");
    let mut reader = std::pin::pin!(conn.with_data(|data| ParseResult::Consumed(data.len())));
    std::future::poll_fn(|cx| {
        assert_eq!(reader.as_mut().poll(cx), std::task::Poll::Ready(3));
        std::task::Poll::Ready(())
    })
    .await;
}

async fn what_is_left_at_the_end_is_offered_then_zero() {
    let (conn, mut peer) = half_pair();
    peer.write_all(b"unfinished").unwrap();
    drop(peer);
    let mut seen = Vec::new();
    let consumed = conn.with_data(|data| {
        seen = data.to_vec();
        ParseResult::NeedMore
    });
    assert_eq!(consumed.await, 0);
    assert_eq!(seen, b"unfinished");
    assert_eq!(conn.closed_by(), Some(CloseReason::Eof));
    let left = conn.try_with_data(|data| ParseResult::Consumed(data.len()));
    assert_eq!(left, Some(ParseResult::Consumed(10)));
    assert_eq!(conn.try_with_data(|_| ParseResult::NeedMore), None);
    assert_eq!(conn.with_data(|data| ParseResult::Consumed(data.len())).await, 0);
}

async fn a_reset_is_told_from_an_end() {
    let (conn, peer) = tcp_pair();
    assert_eq!(conn.closed_by(), None);
    socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(peer);
    assert_eq!(conn.with_data(|data| ParseResult::Consumed(data.len())).await, 0);
    let reset = CloseReason::Reset(std::io::ErrorKind::ConnectionReset);
    assert_eq!(conn.closed_by(), Some(reset));
    conn.peer_gone().await;
    conn.close();
    assert_eq!(conn.closed_by(), Some(CloseReason::Local));
}

async fn a_dead_peers_last_answers_come_before_its_end() {
    let (conn, mut peer) = half_pair();
    conn.send(b"a request that nobody will read").unwrap().await.unwrap();
    peer.write_all(b"the last answer").unwrap();
    drop(peer);
    assert_eq!(take(conn, 15).await, b"the last answer");
    assert_eq!(conn.with_data(|data| ParseResult::Consumed(data.len())).await, 0);
    let reset = CloseReason::Reset(std::io::ErrorKind::ConnectionReset);
    assert_eq!(conn.closed_by(), Some(reset));
}

async fn a_closure_may_use_its_connection() {
    let (left, right) = pair();
    right.send(b"ping").unwrap().await.unwrap();
    let consumed = left.with_data(|data| {
        left.send_nowait(data).unwrap();
        left.send_nowait(b"!").unwrap();
        assert_eq!(left.unsent(), data.len() + 1);
        assert_eq!(left.try_with_data(|_| ParseResult::NeedMore), None);
        assert!(left.closed_by().is_none());
        let _ = (left.peer_addr(), left.is_outbound(), left.token(), left.peer_cred());
        left.pause_recv();
        left.resume_recv();
        ParseResult::Consumed(data.len())
    });
    assert_eq!(consumed.await, 4);
    assert_eq!(take(right, 5).await, b"ping!");
}

async fn a_closure_may_close_its_connection() {
    let (left, right) = pair();
    right.send(b"bye").unwrap().await.unwrap();
    let consumed = left.with_data(|data| {
        left.close();
        ParseResult::Consumed(data.len())
    });
    assert_eq!(consumed.await, 3);
    assert_eq!(left.closed_by(), Some(CloseReason::Local));
    assert_eq!(left.with_data(|_| ParseResult::NeedMore).await, 0);
    assert_eq!(take_all(right).await, b"");
}

async fn with_bytes_can_be_kept_without_a_copy() {
    let (left, right) = pair();
    right.send(b"key=value;rest").unwrap().await.unwrap();
    let mut kept = bytes::Bytes::new();
    let mut address = std::ptr::null();
    let consumed = left.with_bytes(|data| {
        address = data.as_ptr();
        let Some(end) = data.iter().position(|byte| *byte == b';') else {
            return ParseResult::NeedMore;
        };
        kept = data.slice(4..end);
        ParseResult::Consumed(end + 1)
    });
    assert_eq!(consumed.await, 10);
    assert_eq!(kept.as_ptr(), address.wrapping_add(4));
    right.send(b" of it").unwrap().await.unwrap();
    assert_eq!(take(left, 10).await, b"rest of it");
    assert_eq!(&kept[..], b"value");
}

async fn a_sink_is_filled_past_the_buffer() {
    let (conn, mut peer) = half_pair();
    let mut memory = [0_u8; 8];
    // SAFETY: `memory` outlives the sink, which is taken below, and isn't used meanwhile.
    unsafe { conn.set_recv_sink(memory.as_mut_ptr(), memory.len()) };
    peer.write_all(b"01234567rest").unwrap();
    drop(peer);
    assert_eq!(take(conn, 4).await, b"rest");
    assert_eq!(conn.take_recv_sink(), 8);
    assert_eq!(&memory, b"01234567");
    assert_eq!(conn.take_recv_sink(), 0);
}

async fn a_sink_that_is_partly_filled_tells_how_far() {
    let (conn, mut peer) = half_pair();
    let mut memory = [0_u8; 64];
    // SAFETY: as above.
    unsafe { conn.set_recv_sink(memory.as_mut_ptr(), memory.len()) };
    peer.write_all(b"first").unwrap();
    conn.recv_ready().await;
    peer.write_all(b"second").unwrap();
    conn.recv_ready().await;
    assert_eq!(conn.take_recv_sink(), 11);
    assert_eq!(&memory[..11], b"firstsecond");
    peer.write_all(b"third").unwrap();
    assert_eq!(take(conn, 5).await, b"third");
    assert_eq!(memory[11], 0);
}

async fn a_sink_that_is_taken_early_leaves_the_rest_to_the_buffer() {
    let (conn, mut peer) = half_pair();
    let mut memory = [0_u8; 64];
    // SAFETY: as above.
    unsafe { conn.set_recv_sink(memory.as_mut_ptr(), memory.len()) };
    assert_eq!(conn.take_recv_sink(), 0);
    peer.write_all(b"data").unwrap();
    assert_eq!(take(conn, 4).await, b"data");
    assert_eq!(memory, [0; 64]);
}

async fn recv_ready_resolves_at_the_end_too() {
    let (conn, peer) = half_pair();
    peer.shutdown(Shutdown::Write).unwrap();
    conn.recv_ready().await;
    assert_eq!(conn.closed_by(), Some(CloseReason::Eof));
}

async fn a_connection_that_nobody_reads_is_not_read_past_its_limit() {
    let config = remuda_net::Config { recv_limit: 64 << 10, ..same_driver() };
    crate::drivers::run_beside(config, || async {
        let (left, right) = pair();
        const TOTAL: usize = 16 << 20;
        right.send_nowait(&vec![7; TOTAL]).unwrap();
        // The kernel's buffers and the limit hold much less than was sent.
        remuda_net::sleep(std::time::Duration::from_millis(50)).await;
        let unsent = right.unsent();
        assert!(unsent > TOTAL / 2, "{unsent} unsent");
        assert_eq!(take(left, TOTAL).await.len(), TOTAL);
        assert_eq!(right.unsent(), 0);
    });
}

async fn a_paused_connection_is_read_after_it_resumes() {
    let (conn, mut peer) = half_pair();
    conn.pause_recv();
    // What arrives before the kernel was told may still be received.
    remuda_net::sleep(std::time::Duration::from_millis(1)).await;
    peer.write_all(b"wait").unwrap();
    let reader = spawn_with_handle(take(conn, 4));
    remuda_net::sleep(std::time::Duration::from_millis(20)).await;
    assert!(!reader.is_finished());
    conn.resume_recv();
    assert_eq!(reader.await.unwrap(), b"wait");
}

async fn a_long_line_in_many_pieces_arrives_whole() {
    const LINE: usize = 16 << 20;
    let (conn, mut peer) = half_pair();
    let writer = std::thread::spawn(move || {
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..LINE / piece.len() {
            peer.write_all(&piece).unwrap();
        }
        peer.write_all(b"\n").unwrap();
    });
    let mut scanned = 0;
    let consumed = conn.with_data(|data| {
        let found = data[scanned..].iter().position(|byte| *byte == b'\n');
        let start = std::mem::replace(&mut scanned, data.len());
        found.map_or(ParseResult::NeedMore, |at| ParseResult::Consumed(start + at + 1))
    });
    assert_eq!(consumed.await, LINE + 1);
    writer.join().unwrap();
}

async fn cancel_ends_a_wait_and_leaves_the_connection_usable() {
    let (conn, mut peer) = half_pair();
    let reader =
        spawn_with_handle(
            async move { conn.with_data(|data| ParseResult::Consumed(data.len())).await },
        );
    yield_now().await;
    conn.cancel().unwrap();
    assert_eq!(reader.await, Ok(0));
    assert_eq!(conn.closed_by(), None);
    peer.write_all(b"more").unwrap();
    assert_eq!(take(conn, 4).await, b"more");
}

async fn nobody_goes_without_a_buffer_for_those_that_need_none() {
    // Two buffers, which the first connection takes as soon as it is received from. The others are
    // refused then; and most of those that are received from next have nothing to take.
    let config = Config { uring_buffers: 2, uring_buffer_bytes: 1 << 10, ..same_driver() };
    run_beside(config, || async {
        let mut clients = Vec::new();
        for number in 0..31 {
            let (conn, mut client) = half_pair();
            if number == 0 {
                client.write_all(&[7; 8 << 10]).unwrap();
            }
            client.set_read_timeout(Some(PATIENCE / 4)).unwrap();
            clients.push(client);
            spawn(async move {
                let echo = |data: &[u8]| {
                    conn.forward_recv_buf(data).unwrap();
                    ParseResult::Consumed(data.len())
                };
                while conn.with_data(echo).await > 0 {}
            });
        }
        let answered = spawn_blocking(move || {
            clients[0].read_exact(&mut [0; 8 << 10]).unwrap();
            for client in clients.iter_mut().rev() {
                client.write_all(b"x").unwrap();
                client.read_exact(&mut [0]).unwrap();
            }
        });
        answered.await.unwrap();
    });
}

on_both_drivers!(
    nobody_goes_without_a_buffer_for_those_that_need_none,
    the_closure_is_called_again_after_need_more,
    consumed_zero_of_some_is_as_need_more,
    a_closure_is_not_called_again_without_more_bytes,
    reading_by_hand_is_as_with_data,
    reading_goes_on_until_it_is_told_to_stop_cancelled_or_over,
    buffered_data_resolves_at_once,
    what_is_left_at_the_end_is_offered_then_zero,
    a_reset_is_told_from_an_end,
    a_dead_peers_last_answers_come_before_its_end,
    a_closure_may_use_its_connection,
    a_closure_may_close_its_connection,
    with_bytes_can_be_kept_without_a_copy,
    a_sink_is_filled_past_the_buffer,
    a_sink_that_is_partly_filled_tells_how_far,
    a_sink_that_is_taken_early_leaves_the_rest_to_the_buffer,
    recv_ready_resolves_at_the_end_too,
    a_connection_that_nobody_reads_is_not_read_past_its_limit,
    a_paused_connection_is_read_after_it_resumes,
    a_long_line_in_many_pieces_arrives_whole,
    cancel_ends_a_wait_and_leaves_the_connection_usable,
);
