//! One side is killed at a random moment under traffic: the other is told, nothing torn arrives,
//! nothing is left over. 40 times in an ordinary run, 1,000 times with `REMUDA_SOAK=1`.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use remuda_shm::{CloseReason, Options, ShmError, SpscFace, SpscHandle};

const NAME: &str = "crash";
const SLOT_SIZE: usize = 600;
/// A peer's death is noticed within this time on a machine that isn't overloaded.
const NOTICED: Duration = Duration::from_millis(10);

/// One test counts what the whole process holds, so the other must not run meanwhile.
static ALONE: Mutex<()> = Mutex::new(());

fn options() -> Options {
    Options::new(8, SLOT_SIZE as u32).unwrap()
}

/// Message number `i`: its length and every byte follow from the number.
fn message(i: u64) -> Vec<u8> {
    let len = 8 + (i * 37 % (SLOT_SIZE as u64 - 8)) as usize;
    let mut message = vec![i as u8; len];
    message[..8].copy_from_slice(&i.to_le_bytes());
    message
}

fn send_until_closed(send: impl Fn(&[u8]) -> Result<(), ShmError>) {
    for i in 0.. {
        match send(&message(i)) {
            Ok(()) => {}
            Err(ShmError::Closed) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

fn receive_until_closed(recv: impl Fn() -> Option<bytes::Bytes>) -> u64 {
    let mut count = 0;
    while let Some(got) = recv() {
        assert_eq!(got, message(count), "message {count} arrived whole and in its turn");
        count += 1;
    }
    count
}

/// The other process: sends and receives until it is killed.
fn play(role: &str, directory: &Path) -> ! {
    macro_rules! traffic {
        ($side:expr) => {{
            let side = Arc::new($side);
            // The parent waits for this byte.
            std::io::stdout().write_all(b"!").unwrap();
            std::io::stdout().flush().unwrap();
            let receiving = Arc::clone(&side);
            thread::spawn(move || receive_until_closed(|| receiving.recv_blocking()));
            send_until_closed(|message| side.send_blocking(message));
        }};
    }
    match role {
        "engine" => traffic!(SpscFace::create_in(directory, NAME, &options()).unwrap()),
        _ => traffic!(SpscHandle::connect_in(directory, NAME, &options()).unwrap()),
    }
    // Only if the parent went first.
    std::process::exit(0);
}

fn directory_of(socket: &mut UnixStream) -> PathBuf {
    let mut len = [0];
    socket.read_exact(&mut len).unwrap();
    let mut path = vec![0; len[0].into()];
    socket.read_exact(&mut path).unwrap();
    String::from_utf8(path).unwrap().into()
}

/// How long the survivor took to notice.
fn round(random: &mut support::Random, directory: &Path, kill: &str) -> Duration {
    let (mut own, peer) = UnixStream::pair().unwrap();
    let path = directory.to_str().unwrap();
    own.write_all(&[path.len() as u8]).unwrap();
    own.write_all(path.as_bytes()).unwrap();
    macro_rules! survive {
        ($side:expr, $child:expr) => {{
            let (side, mut child) = (Arc::new($side), $child);
            let receiving = Arc::clone(&side);
            let receiving = thread::spawn(move || {
                let count = receive_until_closed(|| receiving.recv_blocking());
                (count, Instant::now())
            });
            let sending = Arc::clone(&side);
            let sending = thread::spawn(move || {
                send_until_closed(|message| sending.send_blocking(message));
                Instant::now()
            });
            thread::sleep(Duration::from_micros(random.below(4_000)));
            let killed = Instant::now();
            child.kill().unwrap();
            let (_, received) = receiving.join().unwrap();
            let sent = sending.join().unwrap();
            // Only now: a dead process that nobody has waited for looks alive to a signal.
            child.wait().unwrap();
            assert_eq!(side.closed_by(), Some(CloseReason::PeerGone));
            received.max(sent) - killed
        }};
    }
    let started = |mut child: std::process::Child| {
        // The test harness prints before the part is played.
        let mut stdout = BufReader::new(child.stdout.as_mut().unwrap());
        stdout.read_until(b'!', &mut Vec::new()).unwrap();
        child
    };
    let test = "the_survivor_is_told_and_nothing_is_left";
    if kill == "engine" {
        let child = started(support::start(test, "engine", peer));
        survive!(SpscHandle::connect_in(directory, NAME, &options()).unwrap(), child)
    } else {
        let face = SpscFace::create_in(directory, NAME, &options()).unwrap();
        survive!(face, started(support::start(test, "application", peer)))
    }
}

fn left_over() -> (usize, usize) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (descriptors, maps.matches("remuda-shm").count())
}

/// Has the thread started that waits for the end of peers: it and its descriptor stay for as long
/// as this process lives.
fn start_vigil() {
    let (engine, application) = std::os::unix::net::UnixStream::pair().unwrap();
    let face = SpscFace::over(&engine, &options()).unwrap();
    let handle = SpscHandle::over(&application, &options()).unwrap();
    let blocked = thread::spawn(move || handle.recv_blocking());
    let is_vigil = |task: std::io::Result<std::fs::DirEntry>| {
        let name = task.and_then(|task| std::fs::read_to_string(task.path().join("comm")));
        name.is_ok_and(|name| name.starts_with("remuda-shm-vigi"))
    };
    while !std::fs::read_dir("/proc/self/task").unwrap().any(is_vigil) {
        thread::yield_now();
    }
    drop(face);
    assert_eq!(blocked.join().unwrap(), None);
}

#[test]
fn the_survivor_is_told_and_nothing_is_left() {
    if let Some(role) = support::role() {
        play(&role, &directory_of(&mut support::socket()));
    }
    let _alone = ALONE.lock();
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("run");
    let mut random = support::seed();
    start_vigil();
    let before = left_over();
    let mut fastest = Duration::MAX;
    for i in 0..support::amount(40, 1_000) {
        let kill = if i % 2 == 0 { "engine" } else { "application" };
        fastest = fastest.min(round(&mut random, &directory, kill));
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "no file is left");
    }
    assert_eq!(left_over(), before, "no descriptor and no mapping is left");
    assert!(fastest < NOTICED, "the fastest of all took {fastest:?}");
}

/// A side that is always busy sending never sleeps, and is told nevertheless.
#[test]
fn a_sender_with_room_is_told_of_a_death_too() {
    const TEST: &str = "a_sender_with_room_is_told_of_a_death_too";
    if support::role().is_some() {
        let handle = SpscHandle::over(support::socket(), &Options::default()).unwrap();
        handle.send_blocking(b"here").unwrap();
        thread::park();
    }
    let _alone = ALONE.lock();
    let (own, peer) = UnixStream::pair().unwrap();
    let options = Options::new(1 << 20, 8).unwrap();
    let face = SpscFace::over(&own, &options).unwrap();
    let mut child = support::start(TEST, "application", peer);
    assert!(face.recv_blocking().is_some());
    face.try_send(b"hi").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let begun = Instant::now();
    // Slow enough that the ring, which nobody empties, never fills.
    let mut sent = 0;
    while face.try_send(b"hi").is_ok() {
        sent += 1;
        assert!(sent < 1 << 19, "not told after {:?}", begun.elapsed());
        thread::sleep(Duration::from_micros(100));
    }
    assert_eq!(face.closed_by(), Some(CloseReason::PeerGone));
    assert_eq!(face.recv_blocking(), None);
}
