//! Sending.

use std::io::{Read, Write};

use remuda_net::{Config, NetError, ParseResult, spawn_with_handle, yield_now};

use crate::drivers::{half_pair, pair, run_beside, same_driver, take, take_all, tcp_pair};

async fn send_resolves_to_the_length() {
    let (left, right) = pair();
    assert_eq!(left.send(b"hello").unwrap().await.unwrap(), 5);
    assert_eq!(left.send(b"").unwrap().await.unwrap(), 0);
    assert_eq!(take(right, 5).await, b"hello");
}

async fn sends_arrive_in_order_copied_or_not() {
    let (left, right) = pair();
    let mut expected = Vec::new();
    for round in 0..500_u32 {
        let piece = vec![round as u8; (round as usize * 37) % 3_000];
        if round % 3 == 0 {
            left.send_bytes(bytes::Bytes::from(piece.clone())).unwrap();
        } else {
            left.send_nowait(&piece).unwrap();
        }
        expected.extend(piece);
        if round % 50 == 0 {
            yield_now().await;
        }
    }
    assert!(take(right, expected.len()).await == expected);
    assert_eq!(left.unsent(), 0);
}

async fn a_send_whose_future_is_dropped_goes_out() {
    let (left, right) = pair();
    drop(left.send(b"hello").unwrap());
    drop(left.send_parts().copy(b" and ").copy(b"goodbye").submit().unwrap());
    assert_eq!(take(right, 17).await, b"hello and goodbye");
}

async fn a_message_longer_than_the_sockets_buffer_goes_out_whole() {
    let (left, right) = pair();
    let message: Vec<u8> = (0..20_u32 << 20).map(|at| (at % 251) as u8).collect();
    let sent = left.send(&message).unwrap();
    let (sent, received) = remuda_net::join(sent, take(right, message.len())).await;
    assert_eq!(sent.unwrap(), message.len());
    assert!(received == message);
}

async fn unsent_and_flushed_tell_how_far_it_is() {
    let (conn, mut peer) = half_pair();
    conn.send_nowait(&[1; 100]).unwrap();
    assert_eq!(conn.unsent(), 100);
    // Of a long message the socket takes what it has room for at once.
    conn.send_nowait(&vec![1; (4 << 20) - 100]).unwrap();
    let unsent = conn.unsent();
    assert!(unsent > 2 << 20 && unsent < 4 << 20, "{unsent}");
    let flushed = spawn_with_handle(async move { conn.flushed(1 << 20).await });
    yield_now().await;
    assert!(conn.unsent() > 1 << 20 && !flushed.is_finished());
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; 4 << 20];
        peer.read_exact(&mut all).unwrap();
        peer
    });
    flushed.await.unwrap().unwrap();
    assert!(conn.unsent() <= 1 << 20);
    conn.flushed(0).await.unwrap();
    assert_eq!(conn.unsent(), 0);
    drop(reader.join().unwrap());
}

async fn an_exhausted_pool_is_an_error_of_its_own_kind() {
    let config = Config { send_slab_bytes: 1 << 10, send_pool_bytes: 64 << 10, ..same_driver() };
    run_beside(config, || async {
        let (left, right) = pair();
        // What the socket takes at once needs no pool; then the pool fills.
        let mut values = Vec::new();
        let error = loop {
            let value = values.len() as u8;
            match left.send_nowait(&[value; 30_000]) {
                Ok(()) => values.push(value),
                Err(error) => break error,
            }
            assert!(values.len() < 200, "the pool has no end");
        };
        assert!(matches!(error, NetError::SendPoolExhausted { limit: 65_536 }), "{error}");
        let error = left.send(&[255; 64_000]).err();
        assert!(matches!(error, Some(NetError::SendPoolExhausted { .. })), "{error:?}");
        // Nothing of it was taken, what doesn't need the pool goes, and the pool recovers.
        left.send_bytes(bytes::Bytes::from(vec![253; 30_000])).unwrap();
        values.push(253);
        let receiver = spawn_with_handle(take(right, 30_000 * (values.len() + 1)));
        left.flushed(0).await.unwrap();
        left.send_nowait(&[254; 30_000]).unwrap();
        values.push(254);
        for (part, value) in receiver.await.unwrap().chunks(30_000).zip(values) {
            assert!(part.iter().all(|byte| *byte == value));
        }
    });
}

async fn a_connection_has_a_limit_of_unsent_bytes() {
    let config = Config { send_limit: 10_000, ..same_driver() };
    run_beside(config, || async {
        let (left, right) = pair();
        left.send_nowait(&[1; 9_000]).unwrap();
        let error = left.send_nowait(&[2; 1_001]).unwrap_err();
        assert!(matches!(error, NetError::SendLimit { unsent: 9_000, limit: 10_000 }), "{error}");
        left.send_nowait(&[2; 1_000]).unwrap();
        assert_eq!(take(right, 10_000).await.len(), 10_000);
    });
}

async fn after_half_a_close_the_other_half_works() {
    let (left, right) = pair();
    left.send_nowait(b"question").unwrap();
    left.shutdown_write();
    assert!(matches!(left.send_nowait(b"more"), Err(NetError::Closed)));
    assert_eq!(take_all(right).await, b"question");
    // The peer ended its sending half alone: it is not gone, and can still be answered.
    let gone = spawn_with_handle(right.peer_gone());
    right.send(b"answer").unwrap().await.unwrap();
    assert_eq!(take(left, 6).await, b"answer");
    assert!(!gone.is_finished());
    left.close();
    gone.await.unwrap();
}

async fn half_a_close_works_on_tcp() {
    let (conn, mut peer) = tcp_pair();
    conn.send_nowait(&vec![9; 1 << 20]).unwrap();
    conn.shutdown_write();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        std::io::Write::write_all(&mut peer, b"thanks").unwrap();
        all.len()
    });
    assert_eq!(take_all(conn).await, b"thanks");
    assert_eq!(reader.join().unwrap(), 1 << 20);
}

async fn what_was_accepted_goes_out_after_close() {
    let (conn, mut peer) = half_pair();
    conn.send_nowait(&vec![5; 3 << 20]).unwrap();
    conn.close();
    assert!(matches!(conn.send_nowait(b"x"), Err(NetError::Closed)));
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all.len()
    });
    let received = remuda_net::spawn_blocking(move || reader.join().unwrap());
    assert_eq!(received.await.unwrap(), 3 << 20);
}

async fn a_last_answer_survives_requests_that_were_not_read() {
    let (conn, mut peer) = tcp_pair();
    peer.write_all(b"a bad request\n").unwrap();
    take(conn, 14).await;
    peer.write_all(&[7; 100_000]).unwrap();
    conn.send_nowait(b"an error\n").unwrap();
    conn.close();
    assert!(matches!(conn.send_nowait(b"x"), Err(NetError::Closed)));
    let asked = remuda_net::spawn_blocking(move || {
        // The peer goes on asking, though it was told, and reads only then.
        for _ in 0..20 {
            peer.write_all(&[7; 10_000]).unwrap();
        }
        let mut answer = String::new();
        peer.read_to_string(&mut answer).unwrap();
        answer
    });
    assert_eq!(asked.await.unwrap(), "an error\n");
}

async fn a_peer_that_never_reads_is_given_up_after_the_linger_time() {
    let linger = std::time::Duration::from_millis(50);
    let (config, (left, right)) = (
        Config { close_linger: linger, ..same_driver() },
        std::os::unix::net::UnixStream::pair().unwrap(),
    );
    run_beside(config, move || async move {
        let conn = remuda_net::adopt_unix(left).unwrap();
        conn.send_nowait(&vec![5; 3 << 20]).unwrap();
        let sent = conn.send(b"the end").unwrap();
        conn.close();
        assert!(matches!(sent.await, Err(NetError::Closed)));
        drop(right);
    });
}

async fn a_peer_that_goes_while_we_send_is_an_error() {
    let (conn, peer) = half_pair();
    let sent = conn.send(&vec![5; 3 << 20]).unwrap();
    let sent = spawn_with_handle(sent);
    yield_now().await;
    drop(peer);
    let error = sent.await.unwrap().unwrap_err();
    assert!(matches!(error, NetError::PeerGone(_)), "{error}");
    conn.peer_gone().await;
    assert!(matches!(conn.send_nowait(b"x"), Err(NetError::PeerGone(_))));
    assert!(conn.flushed(0).await.is_err() || conn.unsent() == 0);
}

async fn a_tcp_peer_that_resets_while_we_send_is_an_error() {
    let (conn, peer) = tcp_pair();
    let sent = spawn_with_handle(conn.send(&vec![5; 32 << 20]).unwrap());
    yield_now().await;
    socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(peer);
    assert!(matches!(sent.await.unwrap(), Err(NetError::PeerGone(_))));
}

async fn cancel_ends_a_wait_for_sending_and_keeps_the_stream_whole() {
    let (conn, mut peer) = half_pair();
    let sent = spawn_with_handle(conn.send(&vec![5; 3 << 20]).unwrap());
    yield_now().await;
    yield_now().await;
    conn.cancel().unwrap();
    assert!(matches!(sent.await.unwrap(), Err(NetError::Cancelled)));
    conn.send_nowait(b"end").unwrap();
    conn.shutdown_write();
    let read = remuda_net::spawn_blocking(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    });
    let all = read.await.unwrap();
    assert_eq!((all.len(), &all[3 << 20..]), ((3 << 20) + 3, &b"end"[..]));
}

async fn forwarding_to_itself_and_to_another_keeps_the_bytes() {
    let (front, client) = pair();
    let (back, server) = pair();
    let message: Vec<u8> = (0..200_000_u32).map(|at| (at % 241) as u8).collect();
    let relay = spawn_with_handle(async move {
        let forward = |data: &[u8]| {
            back.forward_recv_buf(data).unwrap();
            front.send_nowait(b".").unwrap();
            ParseResult::Consumed(data.len())
        };
        while front.with_data(forward).await > 0 {}
        back.shutdown_write();
    });
    let part = |data: &[u8]| {
        // Only the first half of what is there is forwarded and consumed at a time.
        let half = data.len().div_ceil(2);
        server.forward_recv_buf(&data[..half]).unwrap();
        ParseResult::Consumed(half)
    };
    let echo = async { while server.with_data(part).await > 0 {} };
    client.send_nowait(&message).unwrap();
    client.shutdown_write();
    let (echoed, ()) = remuda_net::join(take(back, message.len()), echo).await;
    assert!(echoed == message);
    relay.await.unwrap();
    assert!(!take_all_now(client).await.is_empty());
}

/// What is there, at least one byte.
async fn take_all_now(conn: remuda_net::ConnCtx) -> Vec<u8> {
    let mut taken = Vec::new();
    conn.with_data(|data| {
        taken.extend_from_slice(data);
        ParseResult::Consumed(data.len())
    })
    .await;
    taken
}

async fn forwarding_copies_only_where_it_must() {
    // With next to no pool for copies, a forward that copies fails.
    let config = Config { send_slab_bytes: 512, send_pool_bytes: 512, ..same_driver() };
    run_beside(config, || async {
        let (front, mut client) = half_pair();
        let (back, mut server) = half_pair();
        let copies = remuda_net::backend() == Some(remuda_net::Backend::Mio);
        let message = [5_u8; 4_000];
        client.write_all(&message).unwrap();
        let mut outcome = Ok(());
        front
            .with_data(|data| {
                assert_eq!(data.len(), message.len());
                outcome = back.forward_recv_buf(data);
                // The buffer has gone: a second forward of it is a copy anywhere.
                assert!(back.forward_recv_buf(data).is_err());
                ParseResult::Consumed(data.len())
            })
            .await;
        assert_eq!(outcome.is_err(), copies, "{outcome:?}");
        if !copies {
            back.flushed(0).await.unwrap();
            let mut received = [0; 4_000];
            server.read_exact(&mut received).unwrap();
            assert_eq!(received, message);
        }
        // What came in two reads lies in the connection's own memory, and is copied anywhere.
        client.write_all(&message).unwrap();
        let mut calls = 0;
        front
            .with_data(|data| {
                calls += 1;
                if calls == 1 {
                    client.write_all(&message).unwrap();
                    return ParseResult::NeedMore;
                }
                assert!(matches!(
                    back.forward_recv_buf(data),
                    Err(NetError::SendPoolExhausted { .. })
                ));
                ParseResult::Consumed(data.len())
            })
            .await;
        // So is what was never received.
        assert!(back.forward_recv_buf(&message).is_err());
    });
}

async fn a_forwarded_buffer_is_received_to_again() {
    // With two buffers, each goes round a hundred times.
    let config = Config { uring_buffers: 2, uring_buffer_bytes: 1 << 10, ..same_driver() };
    run_beside(config, || async {
        let (client, front) = pair();
        let (back, server) = pair();
        let relay = spawn_with_handle(async move {
            let forward = |data: &[u8]| {
                back.forward_recv_buf(data).unwrap();
                ParseResult::Consumed(data.len())
            };
            while front.with_data(forward).await > 0 {}
        });
        for round in 0..200 {
            client.send_nowait(&[round; 1_000]).unwrap();
            assert_eq!(take(server, 1_000).await, [round; 1_000]);
        }
        client.close();
        relay.await.unwrap();
    });
}

async fn a_peer_that_resets_ends_every_kind_of_wait() {
    for operation in 0..6 {
        let (conn, peer) = tcp_pair();
        let waiting = spawn_with_handle(async move {
            match operation {
                0 => drop(conn.with_data(|_| ParseResult::NeedMore).await),
                1 => drop(conn.with_bytes(|_| ParseResult::NeedMore).await),
                2 => conn.recv_ready().await,
                3 => conn.peer_gone().await,
                4 => assert!(conn.send(&vec![1; 32 << 20]).unwrap().await.is_err()),
                _ => {
                    conn.send_nowait(&vec![1; 32 << 20]).unwrap();
                    assert!(conn.flushed(0).await.is_err());
                }
            }
        });
        yield_now().await;
        yield_now().await;
        assert!(!waiting.is_finished(), "operation {operation}");
        socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(peer);
        waiting.await.unwrap();
        conn.close();
    }
}

async fn a_thousand_sends_of_one_turn_are_few_calls() {
    let (conn, mut peer) = half_pair();
    for _ in 0..1_000 {
        conn.send_nowait(b"0123456789").unwrap();
    }
    // Nothing of it is in the socket before the turn ends.
    assert_eq!(conn.unsent(), 10_000);
    peer.set_nonblocking(true).unwrap();
    assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    // Then all is there at once: one read gets far more than one message.
    conn.flushed(0).await.unwrap();
    let mut bytes = [0; 10_000];
    assert_eq!(peer.read(&mut bytes).unwrap(), 10_000);
}

on_both_drivers!(
    send_resolves_to_the_length,
    sends_arrive_in_order_copied_or_not,
    a_send_whose_future_is_dropped_goes_out,
    a_forwarded_buffer_is_received_to_again,
    a_message_longer_than_the_sockets_buffer_goes_out_whole,
    unsent_and_flushed_tell_how_far_it_is,
    an_exhausted_pool_is_an_error_of_its_own_kind,
    a_connection_has_a_limit_of_unsent_bytes,
    after_half_a_close_the_other_half_works,
    half_a_close_works_on_tcp,
    what_was_accepted_goes_out_after_close,
    a_last_answer_survives_requests_that_were_not_read,
    a_peer_that_never_reads_is_given_up_after_the_linger_time,
    a_peer_that_goes_while_we_send_is_an_error,
    a_tcp_peer_that_resets_while_we_send_is_an_error,
    cancel_ends_a_wait_for_sending_and_keeps_the_stream_whole,
    forwarding_to_itself_and_to_another_keeps_the_bytes,
    forwarding_copies_only_where_it_must,
    a_peer_that_resets_ends_every_kind_of_wait,
    a_thousand_sends_of_one_turn_are_few_calls,
);
