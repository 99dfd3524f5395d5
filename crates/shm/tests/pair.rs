//! A pair in use: both sides in this process, over the real socket, memory and doorbells.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use remuda_shm::{CloseReason, Options, ShmError, SpscFace, SpscHandle, SpscListener};

fn pair(options: &Options) -> (SpscFace, SpscHandle) {
    let (engine, application) = UnixStream::pair().unwrap();
    let face = SpscFace::over(&engine, options).unwrap();
    let handle = SpscHandle::over(&application, options).unwrap();
    (face, handle)
}

fn small(capacity: u32, slot_size: u32) -> Options {
    Options::new(capacity, slot_size).unwrap()
}

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
fn a_blocked_receiver_is_woken_by_a_message_and_by_the_end() {
    for spin in [Duration::ZERO, Duration::from_micros(50)] {
        let (face, handle) = pair(&small(1, 8).spin(spin));
        let receiver = thread::spawn(move || {
            let mut got = 0;
            while let Some(message) = face.recv_blocking() {
                assert_eq!(message[..], u64::to_le_bytes(got));
                got += 1;
            }
            (got, face.closed_by())
        });
        for i in 0..20_000_u64 {
            handle.send_blocking(&i.to_le_bytes()).unwrap();
        }
        drop(handle);
        assert_eq!(receiver.join().unwrap(), (20_000, Some(CloseReason::PeerGone)));
    }
}

#[test]
fn answers_travel_back_while_both_sides_sleep() {
    let (face, handle) = pair(&small(2, 64).spin(Duration::ZERO));
    let engine = thread::spawn(move || {
        while let Some(message) = face.recv_blocking() {
            if face.send_blocking(&message).is_err() {
                break;
            }
        }
    });
    for i in 0..5_000_u32 {
        handle.send_blocking(&i.to_le_bytes()).unwrap();
        assert_eq!(handle.recv_blocking().as_deref(), Some(&i.to_le_bytes()[..]));
    }
    drop(handle);
    engine.join().unwrap();
}

#[test]
fn one_doorbell_wakes_who_waits_for_room_and_who_waits_for_a_message() {
    // Nobody wakes up by itself.
    let options = small(1, 8).spin(Duration::ZERO).full_limit(Duration::from_secs(86_400));
    let (face, handle) = pair(&options);
    let (mut sender, mut receiver) = handle.into_split();
    // Gives an answer for every third message, so that either half of the other side sleeps alone
    // at times.
    let engine = thread::spawn(move || {
        let mut taken = 0_u64;
        while let Some(message) = face.recv_blocking() {
            taken += 1;
            if taken.is_multiple_of(3) && face.send_blocking(&message).is_err() {
                break;
            }
        }
        taken
    });
    let (done, both_done) = std::sync::mpsc::channel();
    let received = done.clone();
    thread::spawn(move || {
        for i in 1..=10_000_u64 {
            assert_eq!(receiver.recv_blocking().as_deref(), Some(&(3 * i).to_le_bytes()[..]));
        }
        received.send(()).unwrap();
    });
    thread::spawn(move || {
        for i in 1..=30_000_u64 {
            sender.send_blocking(&i.to_le_bytes()).unwrap();
        }
        done.send(()).unwrap();
    });
    for _ in 0..2 {
        both_done.recv_timeout(Duration::from_secs(120)).expect("a wake-up was lost");
    }
    assert_eq!(engine.join().unwrap(), 30_000);
}

#[test]
fn the_doorbell_is_drained_without_waiting_after_a_receive_that_blocked() {
    let (face, handle) = pair(&small(4, 8).spin(Duration::ZERO));
    let (_keep, mut receiver) = face.into_split();
    let woken = thread::spawn(move || {
        assert_eq!(receiver.recv_blocking().as_deref(), Some(&b"1"[..]));
        receiver
    });
    thread::sleep(Duration::from_millis(20));
    handle.try_send(b"1").unwrap();
    let mut receiver = woken.join().unwrap();
    receiver.drain_doorbell();
    // And who polls for it from here on sees what comes.
    use rustix::event::{PollFd, PollFlags, poll};
    let mut rung = [PollFd::from_borrowed_fd(std::os::fd::AsFd::as_fd(&receiver), PollFlags::IN)];
    assert_eq!(poll(&mut rung, Some(&rustix::event::Timespec::default())).unwrap(), 0);
    assert!(!receiver.park().unwrap());
    handle.try_send(b"2").unwrap();
    let mut rung = [PollFd::from_borrowed_fd(std::os::fd::AsFd::as_fd(&receiver), PollFlags::IN)];
    assert_eq!(poll(&mut rung, None).unwrap(), 1);
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
fn a_ring_that_stays_full_closes_its_direction() {
    let limit = Duration::from_millis(60);
    let (face, handle) = pair(&small(1, 8).full_limit(limit));
    handle.try_send(b"first").unwrap();
    let begun = Instant::now();
    assert!(matches!(handle.send_blocking(b"second"), Err(ShmError::Closed)));
    assert!(begun.elapsed() >= limit);
    assert_eq!(handle.closed_by(), Some(CloseReason::Full));
    assert!(matches!(handle.try_send(b"third"), Err(ShmError::Closed)));
    assert_eq!(face.recv_blocking().as_deref(), Some(&b"first"[..]));
    assert_eq!(face.recv_blocking(), None, "the engine sees the end after what was sent");
    face.try_send(b"still").unwrap();
    assert_eq!(handle.recv_blocking().as_deref(), Some(&b"still"[..]), "the other direction lives");
}

#[test]
fn the_limit_counts_from_the_last_progress() {
    let (face, handle) = pair(&small(1, 8).full_limit(Duration::from_secs(2)));
    let sender = thread::spawn(move || handle.send_batch_blocking(&[[7_u8; 8]; 30]));
    // Together longer than the limit; each far shorter.
    for _ in 0..30 {
        thread::sleep(Duration::from_millis(100));
        assert!(face.recv_blocking().is_some());
    }
    sender.join().unwrap().unwrap();
}

#[test]
fn a_receive_can_be_limited_in_time() {
    let (face, handle) = pair(&small(1, 8));
    let (mut sender, _) = handle.into_split();
    let (_keep, mut receiver) = face.into_split();
    assert!(receiver.recv_timeout(Duration::from_millis(20)).unwrap().is_none());
    sender.try_send(b"x").unwrap();
    assert!(receiver.recv_timeout(Duration::from_secs(60)).unwrap().is_some());
    drop((sender, _keep));
    assert!(matches!(receiver.recv_timeout(Duration::from_secs(60)), Err(ShmError::Closed)));
}

#[test]
fn a_limit_of_any_length_is_waited_for() {
    let (face, handle) = pair(&small(1, 8).full_limit(Duration::MAX));
    handle.try_send(b"first").unwrap();
    let sending = thread::spawn(move || handle.send_blocking(b"second").map(|()| handle));
    let (_keep, mut receiver) = face.into_split();
    for expected in [&b"first"[..], b"second"] {
        let message = receiver.recv_timeout(Duration::MAX).unwrap();
        assert_eq!(message.as_deref(), Some(expected));
    }
    drop(sending.join().unwrap().unwrap());
    assert!(matches!(receiver.recv_timeout(Duration::MAX), Err(ShmError::Closed)));
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
fn an_event_loop_parks_and_waits_for_the_doorbell() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let rung = |receiver: &remuda_shm::Receiver| {
        let mut fds = [PollFd::new(receiver, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    };
    let (face, handle) = pair(&small(4, 8));
    let (_s, mut receiver) = face.into_split();
    handle.try_send(b"1").unwrap();
    assert!(!rung(&receiver), "nobody slept, so nobody was woken");
    assert!(receiver.park().unwrap(), "there is a message: don't sleep");
    assert!(receiver.try_recv().unwrap().is_some());
    assert!(!receiver.park().unwrap());
    handle.send_batch_blocking(&[b"2", b"3", b"4"]).unwrap();
    assert!(rung(&receiver));
    receiver.unpark();
    receiver.drain_doorbell();
    assert!(!rung(&receiver));
    handle.try_send(b"5").unwrap();
    assert!(!rung(&receiver), "it is awake");
    let mut got = Vec::new();
    assert_eq!(receiver.try_recv_batch(&mut got, 9).unwrap(), 4);
}

#[test]
fn a_sleeper_is_woken_when_the_sender_says_so_and_at_the_latest_by_its_end() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let rung = |receiver: &remuda_shm::Receiver| {
        let mut fds = [PollFd::new(receiver, PollFlags::IN)];
        let rung = poll(&mut fds, Some(&Timespec::default())).unwrap() == 1;
        receiver.drain_doorbell();
        rung
    };
    let (face, handle) = pair(&small(8, 8));
    let (_s, mut receiver) = face.into_split();
    let (mut sender, _r) = handle.into_split();
    assert!(!sender.try_send_unrung(b"1").unwrap(), "nobody sleeps");
    sender.ring_doorbell();
    assert!(!rung(&receiver));
    let mut got = Vec::new();
    for wake in 0..3 {
        receiver.try_recv_batch(&mut got, 9).unwrap();
        assert!(!receiver.park().unwrap());
        assert!(sender.try_send_unrung(b"2").unwrap());
        assert!(!sender.try_send_unrung(b"3").unwrap(), "it was said already");
        assert!(!rung(&receiver));
        match wake {
            0 => sender.ring_doorbell(),
            1 => sender.try_send(b"4").unwrap(),
            _ => {
                let mut slot = sender.reserve(1).unwrap();
                slot.write(0, b"5");
                slot.commit(1);
            }
        }
        assert!(rung(&receiver), "{wake}");
        sender.ring_doorbell();
        assert!(!rung(&receiver), "once is enough");
        receiver.unpark();
    }
    receiver.try_recv_batch(&mut got, 9).unwrap();
    assert!(!receiver.park().unwrap());
    assert!(sender.try_send_unrung(b"6").unwrap());
    drop(sender);
    assert!(rung(&receiver));
    receiver.try_recv_batch(&mut got, 9).unwrap();
    assert_eq!(got.len(), 10);
}

#[test]
fn a_name_leads_to_one_application() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("run");
    let options = small(4, 64);
    let connect = || SpscHandle::connect_in(&directory, "engine", &options);
    assert!(matches!(connect(), Err(ShmError::NotFound { .. })));
    let face = SpscFace::create_in(&directory, "engine", &options).unwrap();
    let again = SpscFace::create_in(&directory, "engine", &options);
    assert!(matches!(again, Err(ShmError::NameTaken { .. })));
    face.try_send(b"before you came").unwrap();
    let handle = connect().unwrap();
    assert_eq!(handle.recv_blocking().as_deref(), Some(&b"before you came"[..]));
    assert!(connect().is_err(), "a second application is refused");
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "no file is left");
    handle.try_send(b"hello").unwrap();
    assert_eq!(face.recv_blocking().as_deref(), Some(&b"hello"[..]));
}

#[test]
fn of_many_that_connect_at_once_one_is_served() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("run");
    let options = small(4, 64).touch(false);
    for _ in 0..20 {
        let face = SpscFace::create_in(&directory, "engine", &options).unwrap();
        let served = thread::scope(|scope| {
            let connect = || SpscHandle::connect_in(&directory, "engine", &options).ok();
            let all: Vec<_> = (0..4).map(|_| scope.spawn(connect)).collect();
            all.into_iter().filter_map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(served.len(), 1);
        face.try_send(b"x").unwrap();
        assert!(served[0].recv_blocking().is_some());
    }
}

#[test]
fn a_face_that_goes_takes_its_name_with_it() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("run");
    let face = SpscFace::create_in(&directory, "engine", &small(4, 64)).unwrap();
    drop(face);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}

#[test]
fn a_listener_makes_a_pair_for_each_application() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("run");
    let options = small(4, 64);
    let listener = SpscListener::bind_in(&directory, "pool", options.clone()).unwrap();
    assert!(listener.accept().unwrap().is_none());
    let applications: Vec<_> = (0..3)
        .map(|_| {
            let (directory, options) = (directory.clone(), options.clone());
            thread::spawn(move || SpscHandle::connect_in(&directory, "pool", &options).unwrap())
        })
        .collect();
    let mut faces = Vec::new();
    while faces.len() < 3 {
        let ready = &mut [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
        rustix::event::poll(ready, None).unwrap();
        faces.extend(listener.accept().unwrap());
    }
    faces.iter().for_each(|face| face.try_send(b"welcome").unwrap());
    for application in applications {
        let application = application.join().unwrap();
        assert_eq!(application.recv_blocking().as_deref(), Some(&b"welcome"[..]));
    }
}

#[test]
fn the_socket_is_the_callers_again_after_the_pair_was_handed_over() {
    use std::io::{Read, Write};
    let (mut engine, mut application) = UnixStream::pair().unwrap();
    engine.write_all(b"").unwrap();
    let face = SpscFace::over(&engine, &small(4, 64)).unwrap();
    engine.write_all(b"{\"op\":\"call\"}\n").unwrap();
    let handle = SpscHandle::over(&application, &small(1, 1)).unwrap();
    let mut line = [0; 14];
    application.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"{\"op\":\"call\"}\n");
    drop((engine, application));
    handle.try_send(b"the pair lives on").unwrap();
    assert!(face.recv_blocking().is_some());
}

#[test]
fn an_offer_that_makes_no_sense_is_an_error() {
    use std::io::Write;
    for (bytes, what) in [(&b"HTTP/1.1 400 Bad Request\r\n\r\n....."[..], "magic"), (b"", "close")]
    {
        let (mut engine, application) = UnixStream::pair().unwrap();
        engine.write_all(bytes).unwrap();
        drop(engine);
        let refused = SpscHandle::over(&application, &small(1, 1));
        assert!(matches!(refused, Err(ShmError::BadOffer(_))), "{what}");
    }
    let (mut engine, application) = UnixStream::pair().unwrap();
    let geometry = remuda_shm::Geometry::new(1, 1).unwrap();
    engine.write_all(&remuda_shm::Offer::Pair(geometry).encode()).unwrap();
    let refused = SpscHandle::over(&application, &small(1, 1));
    assert!(matches!(refused, Err(ShmError::BadOffer(_))), "an offer without descriptors");
}

#[test]
fn sides_can_be_sent_and_shared_between_threads() {
    fn assert_send_sync<T: Send + Sync + 'static>() {}
    assert_send_sync::<SpscHandle>();
    assert_send_sync::<SpscFace>();
}
