//! How large rings are, and how much is put together for a message.

use remuda_dispatch::HAND_AHEAD_JOBS;
use remuda_shm::Options;

/// Messages that fit into each ring of a connection. Both rings take 2 MiB then, of which only what
/// was ever used is real memory.
const RING_CAPACITY: u32 = 128;
/// Bytes that a message holds at most.
const RING_SLOT_SIZE: u32 = 8 << 10;
/// Messages that fit into the rings to all of a pool's workers, and so many from them, as long as
/// each has at least [`WORKER_CAPACITY_MIN`]. A ring is used from its first slot to its last, be
/// there ever so little in it, and each slot is a page of its own: rings that are large in all are
/// memory and page faults.
const WORKERS_CAPACITY: u32 = 1024;
/// As many as a worker has jobs at a time, as most workers send each answer by itself: one that finds
/// no room sleeps, and the pool has to wake it with a system call. Shorter rings would also cost large
/// bodies more: those of 1 MiB cost a tenth more with 32 slots than with 128.
const WORKER_CAPACITY_MIN: u32 = HAND_AHEAD_JOBS + 1;
/// Pieces that are sent in one turn are put together up to about so many bytes: each message costs
/// more than the bytes of a short line, and the peer begins with the first ones meanwhile.
pub(super) const GATHER_BYTES: usize = 1024;
/// As many for a worker where there are more of them than processors: one that is woken by its
/// first calls takes the processor from the pool then, and sleeps again before the next come.
const GATHER_BYTES_CROWDED: usize = 4096;

/// The shape of the rings that a pool makes. Pages are taken as they are first used. The runtime
/// waits for the end of the peer, so the rings needn't ask for it.
pub(crate) fn options() -> Options {
    options_of(RING_CAPACITY)
}

/// The shape of the rings to a worker, one of so many.
pub(crate) fn worker_options(workers: u32) -> Options {
    options_of((WORKERS_CAPACITY / workers.max(1)).clamp(WORKER_CAPACITY_MIN, RING_CAPACITY))
}

/// How many bytes are put together for a worker, one of so many.
pub(crate) fn worker_gather(workers: u32) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if workers as usize > processors { GATHER_BYTES_CROWDED } else { GATHER_BYTES }
}

fn options_of(capacity: u32) -> Options {
    Options::new(capacity, RING_SLOT_SIZE).unwrap_or_default().touch(false).ask_for_peer(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_shm::SpscFace;

    #[test]
    fn a_worker_of_many_can_answer_all_that_it_has_before_anybody_reads() {
        for workers in [1, 2, 16, 32, 64, 1000] {
            let (face, _worker_part) = SpscFace::pair(&worker_options(workers)).unwrap();
            let (mut ring, _) = face.into_split();
            for answer in 0..=HAND_AHEAD_JOBS {
                assert!(ring.try_send(b"answer").is_ok(), "{workers} workers, answer {answer}");
            }
        }
    }
}
