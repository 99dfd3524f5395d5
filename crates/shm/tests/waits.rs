//! Who waits for a message or for room is woken, and waits no longer than it wants to.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod pairs;

use std::thread;
use std::time::{Duration, Instant};

use pairs::{pair, small};
use remuda_shm::{CloseReason, ShmError};

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
    let (face, handle) = pair(&small(1, 8).full_limit(Duration::from_secs(4)));
    let sender = thread::spawn(move || handle.send_batch_blocking(&[[7_u8; 8]; 30]));
    // Together longer than the limit; each far shorter.
    for _ in 0..30 {
        thread::sleep(Duration::from_millis(150));
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
