//! Messages through a pair: both sides in this process, over the real socket, memory and doorbells.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod pairs;

use std::sync::Arc;
use std::thread;

use pairs::{pair, small};
use remuda_shm::{CloseReason, ShmError, SpscFace, SpscHandle};

#[test]
fn both_sides_send_and_receive() {
    let (face, handle) = pair(&small(4, 64));
    assert_eq!((face.capacity(), face.slot_size()), (4, 64));
    assert_eq!((handle.capacity(), handle.slot_size()), (4, 64));
    handle.try_send(b"to the engine").unwrap();
    face.try_send(b"to the application").unwrap();
    assert_eq!(face.try_recv().unwrap().as_deref(), Some(&b"to the engine"[..]));
    assert_eq!(handle.try_recv().unwrap().as_deref(), Some(&b"to the application"[..]));
    assert_eq!(face.try_recv().unwrap(), None);
}

#[test]
fn every_length_arrives_as_it_was_sent() {
    for slot_size in [56, 64, 120, 300, 5000] {
        let (face, handle) = pair(&small(3, slot_size));
        for len in (0..=slot_size as usize).step_by(if slot_size > 300 { 97 } else { 1 }) {
            let message: Vec<u8> = (0..len).map(|i| (i % 253) as u8).collect();
            handle.try_send(&message).unwrap();
            assert_eq!(face.try_recv().unwrap().as_deref(), Some(&message[..]));
        }
    }
}

#[test]
fn full_and_too_large_are_told_apart() {
    let (face, handle) = pair(&small(2, 8));
    assert!(matches!(
        handle.try_send(&[0; 9]),
        Err(ShmError::PacketTooLarge { len: 9, slot_size: 8 })
    ));
    handle.try_send(&[1; 8]).unwrap();
    handle.try_send(&[2; 8]).unwrap();
    assert!(matches!(handle.try_send(&[3; 8]), Err(ShmError::Full)));
    assert!(face.try_recv().unwrap().is_some());
    handle.try_send(&[3; 8]).unwrap();
}

#[test]
fn a_batch_is_sent_whole_or_not_at_all_when_a_message_is_too_large() {
    let (face, handle) = pair(&small(8, 8));
    let batch = [vec![1; 8], vec![2; 9]];
    assert!(matches!(
        handle.send_batch_blocking(&batch),
        Err(ShmError::PacketTooLarge { len: 9, .. })
    ));
    assert_eq!(face.try_recv().unwrap(), None);
}

#[test]
fn messages_are_received_in_batches() {
    let (face, handle) = pair(&small(8, 8));
    handle.send_batch_blocking(&[b"a", b"b", b"c"]).unwrap();
    let mut got = Vec::new();
    assert_eq!(face.try_recv_batch(&mut got, 2).unwrap(), 2);
    assert_eq!(face.try_recv_batch(&mut got, 2).unwrap(), 1);
    assert_eq!(face.try_recv_batch(&mut got, 2).unwrap(), 0);
    assert_eq!(got, [&b"a"[..], b"b", b"c"]);
}

#[test]
fn a_stream_of_several_parts_goes_on_where_the_ring_was_full() {
    let (face, handle) = pair(&small(32, 64));
    let ((mut sender, _), (_, mut receiver)) = (face.into_split(), handle.into_split());
    let whole: Vec<u8> = (0..5_000_u32).map(|at| at as u8).collect();
    let mut parts = [&whole[..10], &[][..], &whole[10..2_900], &whole[2_900..]];
    assert_eq!(sender.try_send_stream(&mut parts).unwrap(), 32 * 64);
    assert_eq!(sender.try_send_stream(&mut parts).unwrap(), 0);
    let mut got = Vec::new();
    while got.len() < whole.len() {
        assert!(receiver.try_recv_stream(&mut got, 1_000).unwrap() > 0);
        sender.try_send_stream(&mut parts).unwrap();
    }
    assert_eq!(got, whole);
    assert_eq!(parts.concat(), b"");
    drop(receiver);
    // The first that is published tells that nobody takes it.
    assert_eq!(sender.try_send_stream(&mut [b"x"]).unwrap(), 1);
    assert!(matches!(sender.try_send_stream(&mut [b"x"]), Err(ShmError::Closed)));
}

#[test]
fn what_was_sent_before_the_drop_is_received() {
    let (face, handle) = pair(&small(8, 8));
    handle.try_send(b"last").unwrap();
    drop(handle);
    assert!(matches!(face.try_send(b"x"), Err(ShmError::Closed)));
    assert_eq!(face.recv_blocking().as_deref(), Some(&b"last"[..]));
    assert_eq!(face.recv_blocking(), None);
    assert_eq!(face.closed_by(), Some(CloseReason::PeerGone));
    assert!(matches!(face.send_blocking(b"x"), Err(ShmError::Closed)));
}

#[test]
fn many_threads_send_through_one_handle() {
    let (face, handle) = pair(&small(3, 16));
    let handle = Arc::new(handle);
    let senders: Vec<_> = (0..4_u64)
        .map(|sender| {
            let handle = Arc::clone(&handle);
            thread::spawn(move || {
                for i in 0..2_000_u64 {
                    handle
                        .send_blocking(&[sender.to_le_bytes(), i.to_le_bytes()].concat())
                        .unwrap();
                }
            })
        })
        .collect();
    drop(handle);
    let mut next = [0_u64; 4];
    while let Some(message) = face.recv_blocking() {
        let sender = u64::from_le_bytes(message[..8].try_into().unwrap()) as usize;
        let i = u64::from_le_bytes(message[8..].try_into().unwrap());
        assert_eq!(i, next[sender], "each sender's messages keep their order");
        next[sender] += 1;
    }
    assert_eq!(next, [2_000; 4]);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
}

#[test]
fn who_doesnt_ask_learns_of_the_peers_end_by_being_told() {
    for asks in [true, false] {
        // A peer that was never there closes nothing: the socket alone tells that it is gone.
        let (face, peer) = SpscFace::pair(&small(4, 64).ask_for_peer(asks)).unwrap();
        drop(peer);
        let (mut sender, mut receiver) = face.into_split();
        assert_eq!(sender.try_send(b"x").is_err(), asks);
        assert_eq!(receiver.try_recv().is_err(), asks);
        receiver.note_peer_gone();
        assert!(matches!(sender.try_send(b"x"), Err(ShmError::Closed)));
        assert!(matches!(receiver.try_recv(), Err(ShmError::Closed)));
        assert_eq!(sender.closed_by(), Some(CloseReason::PeerGone));
    }
}

#[test]
fn a_slot_is_written_and_read_in_place() {
    let (face, handle) = pair(&small(2, 100_000));
    let (mut sender, _r) = handle.into_split();
    let (_s, mut receiver) = face.into_split();
    let message: Vec<u8> = (0..100_000_u32).map(|i| (i % 249) as u8).collect();
    let mut slot = sender.reserve(message.len()).unwrap();
    slot.write(33, &message[33..]);
    slot.write(0, &message[..33]);
    slot.commit(message.len());
    let _abandoned = sender.reserve(10).unwrap();
    let incoming = receiver.try_recv_in_place().unwrap().unwrap();
    assert_eq!(incoming.len(), message.len());
    let mut seen = Vec::new();
    incoming.for_each_chunk(|chunk| seen.extend_from_slice(chunk));
    assert_eq!(seen, message);
    let mut part = [0; 1001];
    incoming.read(77, &mut part);
    assert_eq!(part[..], message[77..1078]);
    drop(incoming);
    assert!(receiver.try_recv_in_place().unwrap().is_none(), "a dropped reservation sends nothing");
    assert!(matches!(sender.reserve(100_001), Err(ShmError::PacketTooLarge { .. })));
}

#[test]
#[allow(unsafe_code, reason = "the calls for a trusted peer are unsafe")]
fn a_trusted_peer_is_given_slices() {
    let (face, handle) = pair(&small(2, 1000));
    let (mut sender, _r) = handle.into_split();
    let (_s, mut receiver) = face.into_split();
    let mut slot = sender.reserve(1000).unwrap();
    // SAFETY: the peer is this thread.
    unsafe { slot.as_mut_slice() }.fill(7);
    slot.commit(3);
    let incoming = receiver.try_recv_in_place().unwrap().unwrap();
    // SAFETY: the peer is this thread.
    assert_eq!(unsafe { incoming.as_slice() }, [7, 7, 7]);
}

#[test]
fn sides_can_be_sent_and_shared_between_threads() {
    fn assert_send_sync<T: Send + Sync + 'static>() {}
    assert_send_sync::<SpscHandle>();
    assert_send_sync::<SpscFace>();
}
