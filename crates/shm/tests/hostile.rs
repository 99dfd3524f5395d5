//! A peer that writes anything into the shared memory while the other side runs: no crash, no
//! access outside of the mapping, an error in the end. 200,000 steps in an ordinary run, ten
//! million with `REMUDA_SOAK=1`.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
#![allow(unsafe_code, reason = "the hostile side maps the memory by itself")]

mod support;

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use remuda_shm::{
    CloseReason, OFFER_LEN, Offer, Options, Receiver, Sender, ShmError, SpscFace, SpscHandle,
};
use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use support::{Random, amount};

const CAPACITY: u32 = 4;
const SLOT_SIZE: u32 = 200;
/// The words of both rings' headers begin here, each 128 bytes after the other.
const INDICES: usize = 128;
const INDEX_SPACING: usize = 128;
const SLOTS: usize = 4096;

/// What an application gets, without anything that would treat it well.
struct Hostile {
    memory: OwnedFd,
    base: *mut u8,
    size: usize,
    _descriptors: Vec<OwnedFd>,
}

// SAFETY: it is used through atomics alone.
unsafe impl Send for Hostile {}

fn take_offer(socket: &UnixStream) -> Hostile {
    let mut bytes = [0; OFFER_LEN];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags).unwrap();
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let Offer::Pair(geometry) = Offer::decode(&bytes).unwrap() else { panic!("refused") };
    let memory = descriptors.remove(0);
    let size = geometry.region_size() as usize;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel picks the place.
    let base = unsafe { mmap(null_mut(), size, access, MapFlags::SHARED, &memory, 0) }.unwrap();
    Hostile { memory, base: base.cast(), size, _descriptors: descriptors }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        // SAFETY: nothing points into it any more.
        unsafe { munmap(self.base.cast(), self.size) }.unwrap();
    }
}

impl Hostile {
    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.size);
        // SAFETY: within the mapping, aligned, and accessed by atomics alone.
        unsafe { AtomicU64::from_ptr(self.base.add(at).cast()) }
    }

    fn stride(&self) -> usize {
        (64 + SLOT_SIZE as usize).next_multiple_of(64)
    }

    /// One write of something to somewhere.
    fn step(&self, random: &mut Random) {
        let at = match random.below(10) {
            0..4 => INDICES + random.below(8) as usize * INDEX_SPACING,
            4..8 => {
                let ring = (CAPACITY as usize * self.stride()).next_multiple_of(4096);
                let slot = random.below(CAPACITY.into()) as usize * self.stride();
                SLOTS + random.below(2) as usize * ring + slot
            }
            _ => random.below(self.size as u64 / 8) as usize * 8,
        };
        let word = self.word(at);
        let old = word.load(Ordering::Relaxed);
        let lengths = [0, 1, SLOT_SIZE, SLOT_SIZE + 1, 1 << 20, (1 << 28) - 1];
        let value = match random.below(8) {
            0 => random.next(),
            1 => old.wrapping_add(1),
            2 => old.wrapping_sub(1),
            3 => 0,
            4 => u64::MAX,
            5 => random.below(8),
            6 => old ^ (1 << random.below(64)),
            // The word of a message that might be awaited, with some length.
            _ => {
                let length = lengths[random.below(lengths.len() as u64) as usize];
                let sequence = random.below(12) << 32;
                sequence | 1 << 31 | random.below(2) << 30 | u64::from(length)
            }
        };
        word.store(value, Ordering::SeqCst);
    }

    /// Takes pages away from under the other side, which may be done to sealed memory.
    fn punch(&self, random: &mut Random) {
        let page = random.below(self.size as u64 / 4096) * 4096;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.memory, flags, page, 4096).unwrap();
    }
}

/// Uses every call until the pair is closed. `true` when that was by a lie.
fn use_until_closed(sender: &mut Sender, receiver: &mut Receiver, random: &mut Random) -> bool {
    let message = [7; SLOT_SIZE as usize];
    loop {
        let len = random.below(u64::from(SLOT_SIZE) + 1) as usize;
        let done = match random.below(9) {
            0 => sender.try_send(&message[..len]),
            1 => sender.try_send_batch(&[&message[..len]; 3]).map(|_| ()),
            2 => sender.reserve(len).map(|mut slot| {
                slot.write(len / 2, &message[len / 2..len]);
                slot.commit(len);
            }),
            3 => sender.park().map(|_| sender.unpark()),
            4 => receiver.try_recv().map(|got| assert!(got.is_none_or(|got| got.len() <= 200))),
            5 => receiver.try_recv_batch(&mut Vec::new(), 9).map(|_| ()),
            6 => receiver.try_recv_in_place().map(|got| {
                if let Some(got) = got {
                    let mut len = 0;
                    got.for_each_chunk(|chunk| len += chunk.len());
                    assert_eq!(len, got.len());
                }
            }),
            7 => receiver.park().map(|_| receiver.unpark()),
            _ => receiver.recv_timeout(Duration::from_micros(10)).map(|_| ()),
        };
        match done {
            Ok(()) | Err(ShmError::Full) => {}
            Err(ShmError::Corrupt(_)) => return true,
            Err(ShmError::Closed) => return false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Ends the attack, also when an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn whatever_the_peer_writes_is_an_error_at_worst() {
    let mut random = support::seed();
    let steps = amount(200_000, 10_000_000);
    let options = Options::new(CAPACITY, SLOT_SIZE).unwrap().touch(false);
    let (mut done, mut lies, mut pairs) = (0, 0, 0);
    while done < steps || pairs < 300 {
        pairs += 1;
        let (own, peer) = UnixStream::pair().unwrap();
        let (mut sender, mut receiver) = SpscFace::over(&own, &options).unwrap().into_split();
        let hostile = take_offer(&peer);
        let stop = AtomicBool::new(false);
        let mut theirs = Random(random.next() | 1);
        done += thread::scope(|scope| {
            let attack = scope.spawn(|| {
                let hostile = hostile;
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    hostile.step(&mut theirs);
                    count += 1;
                    // Sometimes the other side gets further before the next lie.
                    (0..theirs.below(64)).for_each(|_| std::hint::spin_loop());
                    if count % 1024 == 0 {
                        hostile.punch(&mut theirs);
                    }
                }
                count
            });
            let stopping = Stop(&stop);
            let lied = use_until_closed(&mut sender, &mut receiver, &mut random);
            if lied {
                assert!(matches!(sender.try_send(b""), Err(ShmError::Closed)), "it is the end");
            }
            lies += u64::from(lied);
            drop(stopping);
            attack.join().unwrap().max(1)
        });
    }
    assert!(lies > 0, "lies were noticed");
}

#[test]
fn an_index_that_lies_is_told_as_what_closed_the_pair() {
    let options = Options::new(CAPACITY, SLOT_SIZE).unwrap();
    let (own, peer) = UnixStream::pair().unwrap();
    let face = SpscFace::over(&own, &options).unwrap();
    let hostile = take_offer(&peer);
    for _ in 0..CAPACITY {
        face.try_send(b"x").unwrap();
    }
    // The head of e2a, the second ring.
    hostile.word(INDICES + 4 * INDEX_SPACING).store(99, Ordering::SeqCst);
    assert!(matches!(face.try_send(b"x"), Err(ShmError::Corrupt(_))));
    assert!(matches!(face.closed_by(), Some(CloseReason::Corrupt(_))));
    assert!(matches!(face.try_send(b"x"), Err(ShmError::Closed)));
    assert_eq!(face.recv_blocking(), None, "the other direction ends as well");
}

#[test]
fn the_memory_can_be_neither_shrunk_nor_grown_nor_sealed_further() {
    let (own, peer) = UnixStream::pair().unwrap();
    let _face = SpscFace::over(&own, &Options::default()).unwrap();
    let hostile = take_offer(&peer);
    assert!(ftruncate(&hostile.memory, 0).is_err());
    assert!(ftruncate(&hostile.memory, hostile.size as u64 * 2).is_err());
    assert!(fcntl_add_seals(&hostile.memory, SealFlags::FUTURE_WRITE).is_err());
}

/// An engine that hands over memory which it could still take away is refused.
#[test]
fn memory_without_seals_is_refused() {
    use rustix::fs::{MemfdFlags, memfd_create};
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::io::IoSlice;
    use std::os::fd::AsFd;

    let geometry = remuda_shm::Geometry::new(4, 64).unwrap();
    let sealable = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    for (size, seals, fine) in [
        (geometry.region_size(), all, true),
        (geometry.region_size(), SealFlags::SHRINK | SealFlags::GROW, false),
        (geometry.region_size(), SealFlags::empty(), false),
        (geometry.region_size() - 4096, all, false),
    ] {
        let memory = memfd_create("hostile", sealable).unwrap();
        ftruncate(&memory, size).unwrap();
        fcntl_add_seals(&memory, seals).unwrap();
        let (own, peer) = UnixStream::pair().unwrap();
        let event = || rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
        let (one, other) = (event(), event());
        let (life, _kept) = UnixStream::pair().unwrap();
        let descriptors = [memory.as_fd(), one.as_fd(), other.as_fd(), life.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        let bytes = Offer::Pair(geometry).encode();
        sendmsg(&own, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::empty()).unwrap();
        let joined = SpscHandle::over(&peer, &Options::default());
        match joined {
            Ok(_) => assert!(fine),
            Err(ShmError::BadOffer(_)) => assert!(!fine),
            Err(error) => panic!("{error}"),
        }
    }
}
