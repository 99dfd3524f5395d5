//! What can be chosen when a pair of rings is made or joined.

use std::time::Duration;

use crate::error::ShmError;
use crate::geometry::{CAPACITY_DEFAULT, Geometry, SLOT_SIZE_DEFAULT};

/// How long a send waits for room, while the peer takes nothing, before it closes its direction.
pub const FULL_LIMIT_DEFAULT: Duration = Duration::from_secs(5);
/// How long a blocking call watches its ring before it sleeps, at most. A wake-up across cores
/// costs about half of this on both sides; see [`Options::spin`].
pub const SPIN_DEFAULT: Duration = Duration::from_micros(10);

/// The shape of a pair, and how its sides wait.
///
/// ```
/// use std::time::Duration;
/// use remuda_shm::Options;
///
/// let options = Options::new(1024, 64)?.spin(Duration::ZERO);
/// # Ok::<(), remuda_shm::ShmError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) geometry: Geometry,
    pub(crate) waiting: Waiting,
    pub(crate) touch: bool,
}

/// How one side waits. Each side chooses its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) spin: Duration,
    pub(crate) full_limit: Duration,
    /// Calls ask the kernel now and then whether the peer is gone.
    pub(crate) asks: bool,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { spin: SPIN_DEFAULT, full_limit: FULL_LIMIT_DEFAULT, asks: true }
    }
}

impl Options {
    /// Rings of `capacity` slots of `slot_size` bytes in both directions.
    ///
    /// # Errors
    ///
    /// [`ShmError::Geometry`] when one of them is outside its limits.
    pub fn new(capacity: u32, slot_size: u32) -> Result<Self, ShmError> {
        let geometry = Geometry::new(capacity, slot_size)?;
        Ok(Self { geometry, ..Self::standard() })
    }

    /// [`CAPACITY_DEFAULT`] slots of [`SLOT_SIZE_DEFAULT`] bytes.
    fn standard() -> Self {
        let geometry = Geometry::standard(CAPACITY_DEFAULT, SLOT_SIZE_DEFAULT);
        Self { geometry, waiting: Waiting::default(), touch: true }
    }

    /// How long a call that waits watches its ring before it sleeps, at most. Default
    /// [`SPIN_DEFAULT`]; zero sleeps at once. A side that was woken and finds nothing watches for a
    /// few microseconds in any case: it may have been woken ahead of what is on its way.
    ///
    /// Spinning saves the wake-up, which costs several microseconds on both sides, and burns this
    /// side's processor meanwhile, which it offers to others after the first 10 us. It adapts: where watching leads to nothing, as it does when the
    /// peer shares the processor, it is soon done in one of 128 waits only, until it pays again.
    /// On a machine with one processor it is never done. A call of the async API watches for a
    /// tenth of the time, because it holds up the other tasks of its thread.
    #[must_use]
    pub fn spin(mut self, spin: Duration) -> Self {
        self.waiting.spin = spin;
        self
    }

    /// How long a send waits for room, while the peer takes nothing, before it closes its
    /// direction. Default [`FULL_LIMIT_DEFAULT`].
    #[must_use]
    pub fn full_limit(mut self, limit: Duration) -> Self {
        self.waiting.full_limit = limit;
        self
    }

    /// Whether calls ask the kernel by themselves, every few milliseconds, if the peer is gone: one
    /// system call. Default yes. An event loop that learns of it anyway, and then says so with
    /// [`Receiver::note_peer_gone`](crate::Receiver::note_peer_gone), saves it; one that doesn't
    /// would send to nobody.
    #[must_use]
    pub fn ask_for_peer(mut self, ask: bool) -> Self {
        self.waiting.asks = ask;
        self
    }

    /// Whether all pages are brought in when the pair is made, so that no message pays for it.
    /// Default yes: [`region_size`](Geometry::region_size) bytes are then used at once, without it
    /// as slots are first written.
    #[must_use]
    pub fn touch(mut self, touch: bool) -> Self {
        self.touch = touch;
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::standard()
    }
}
