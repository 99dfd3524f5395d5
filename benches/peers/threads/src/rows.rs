//! The rows of work, and how one is measured: all peers in turn, pair by pair.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::median::{Interval, median};
use crate::peers::{Crossbeam, Ours, Peer, Rayon, Std, Task};

/// How many messages are on their way at once in [`Work::Flight`].
const IN_FLIGHT: u64 = 256;
/// How long one measurement takes, about.
const SLICE: Duration = Duration::from_millis(20);

/// What is done in a row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Each worker sends a stream, which is read message by message.
    Up,
    /// The same, read by bursts.
    Burst,
    /// Down and up, with 256 messages on their way.
    Flight,
    /// Down and up, one message at a time.
    Round,
}

impl Work {
    pub const ALL: [Self; 4] = [Self::Up, Self::Burst, Self::Flight, Self::Round];

    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Burst => "burst",
            Self::Flight => "flight",
            Self::Round => "round",
        }
    }

    /// Whether its figure is a time, else it's a rate.
    pub fn is_latency(self) -> bool {
        self == Self::Round
    }

    fn is_stream(self) -> bool {
        matches!(self, Self::Up | Self::Burst)
    }
}

/// Does `amount` of work for each worker.
fn run<P: Peer>(peer: &mut P, work: Work, workers: u64, amount: u64) -> Duration {
    let total = amount * workers;
    let start = Instant::now();
    match work {
        Work::Up => {
            peer.broadcast(Task::Stream(amount));
            for _ in 0..total {
                black_box(peer.recv());
            }
        }
        Work::Burst => {
            peer.broadcast(Task::Stream(amount));
            let mut read = 0;
            while read < total {
                read += peer.burst();
            }
        }
        Work::Flight => {
            (0..IN_FLIGHT).for_each(|number| peer.send_next(Task::Echo(number)));
            for number in 0..total {
                black_box(peer.recv());
                peer.send_next(Task::Echo(number));
            }
            for _ in 0..IN_FLIGHT {
                black_box(peer.recv());
            }
        }
        Work::Round => {
            for number in 0..total {
                black_box(peer.round_trip(number));
            }
        }
    }
    start.elapsed()
}

/// One peer in a row.
pub struct Side {
    pub name: &'static str,
    measure: Box<dyn FnMut() -> f64>,
    /// Seconds for each message.
    times: Vec<f64>,
    /// Its time over ours, in each pair.
    ratios: Vec<f64>,
}

impl Side {
    fn new<P: Peer + 'static>(name: &'static str, work: Work, workers: usize) -> Self {
        let mut peer = P::start(workers);
        let workers = workers as u64;
        let mut amount = 1000;
        // The fastest of some: one that the machine held up would make all slices too short.
        while (0..5).map(|_| run(&mut peer, work, workers, amount)).min() < Some(SLICE / 2) {
            amount *= 2;
        }
        let measure =
            move || run(&mut peer, work, workers, amount).as_secs_f64() / (amount * workers) as f64;
        Self { name, measure: Box::new(measure), times: Vec::new(), ratios: Vec::new() }
    }

    fn measure(&mut self) -> f64 {
        let time = (self.measure)();
        self.times.push(time);
        time
    }

    /// Messages a second or, in a row of latency, seconds.
    pub fn figure(&self, work: Work) -> f64 {
        let time = median(&self.times).middle;
        if work.is_latency() { time } else { 1.0 / time }
    }

    /// How many times as fast as this one we are.
    pub fn ratio(&self) -> Interval {
        median(&self.ratios)
    }
}

/// A row that was measured.
pub struct Row {
    pub work: Work,
    pub workers: usize,
    pub ours: Side,
    pub peers: Vec<Side>,
}

impl Row {
    pub fn measure(work: Work, workers: usize, pairs: usize) -> Self {
        let mut ours = Side::new::<Ours>("remuda-threads", work, workers);
        let mut peers = vec![
            Side::new::<Crossbeam>("crossbeam-channel", work, workers),
            Side::new::<Std>("std::sync::mpsc", work, workers),
        ];
        if !work.is_stream() {
            peers.push(Side::new::<Rayon>("rayon", work, workers));
        }
        #[cfg(feature = "published")]
        peers.push(Side::new::<crate::published::Published>("worker-pool", work, workers));
        for pair in 0..pairs {
            for peer in &mut peers {
                // Who comes first may find a cold cache: take turns.
                let (mine, theirs) = if pair % 2 == 0 {
                    let mine = ours.measure();
                    (mine, peer.measure())
                } else {
                    let theirs = peer.measure();
                    (ours.measure(), theirs)
                };
                peer.ratios.push(theirs / mine);
            }
        }
        Self { work, workers, ours, peers }
    }
}
