//! A small seeded generator: xoshiro256++, seeded through splitmix64.

use std::time::Duration;

/// A deterministic generator of pseudo-random numbers, for jitter and for simulations.
///
/// The algorithm is xoshiro256++ 1.0, its state filled by splitmix64 so that neighbouring seeds
/// (0, 1, 2, ...) give unrelated streams. Both are by David Blackman and Sebastiano Vigna,
/// "Scrambled Linear Pseudorandom Number Generators", ACM Transactions on Mathematical Software
/// 47 (2021), and <https://prng.di.unimi.it>. It is not fit for secrets.
///
/// ```
/// let mut rng = remuda_backoff::Rng::new(7);
/// let die = rng.between(1, 6);
/// assert!((1..=6).contains(&die));
/// assert_eq!(remuda_backoff::Rng::new(7).between(1, 6), die);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator whose whole stream follows from `seed`. Every seed is good, zero included.
    pub fn new(seed: u64) -> Self {
        let mut counter = seed;
        Self { state: std::array::from_fn(|_| splitmix64(&mut counter)) }
    }

    /// The next 64 bits, each value as likely as any other.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let output = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        output
    }

    /// A number in `0..n`, without bias.
    ///
    /// By Daniel Lemire's multiplication with rejection, "Fast Random Integer Generation in an
    /// Interval", ACM Transactions on Modeling and Computer Simulation 29 (2019).
    ///
    /// # Panics
    ///
    /// If `n` is zero: there is no number below it.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "Rng::below(0): there is no number below zero; check for emptiness first");
        let mut product = self.multiplied(n);
        if (product as u64) < n {
            // 2^64 mod n: products whose low half is under it would favour some numbers.
            let threshold = n.wrapping_neg() % n;
            while (product as u64) < threshold {
                product = self.multiplied(n);
            }
        }
        (product >> 64) as u64
    }

    /// A number in `lo..=hi`, both ends included, without bias.
    ///
    /// # Panics
    ///
    /// If `lo` is greater than `hi`.
    pub fn between(&mut self, lo: u64, hi: u64) -> u64 {
        assert!(lo <= hi, "Rng::between({lo}, {hi}): the lower end comes first");
        match (hi - lo).checked_add(1) {
            Some(count) => lo + self.below(count),
            None => self.next_u64(),
        }
    }

    /// A duration in `0..=max`, in whole nanoseconds. What exceeds 2^64 - 1 ns (584 years) in
    /// `max` is cut off.
    pub fn up_to(&mut self, max: Duration) -> Duration {
        let nanos = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.between(0, nanos))
    }

    /// A generator of its own, whose stream is unrelated to what this one gives from here on: one
    /// for each part of a simulation keeps them from disturbing each other.
    pub fn split(&mut self) -> Rng {
        Rng::new(self.next_u64())
    }

    fn multiplied(&mut self, n: u64) -> u128 {
        u128::from(self.next_u64()) * u128::from(n)
    }
}

fn splitmix64(counter: &mut u64) -> u64 {
    *counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *counter;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The values of the authors' C programs.
    #[test]
    fn splitmix64_matches_the_reference() {
        let mut counter = 1_234_567;
        let first: Vec<u64> = (0..3).map(|_| splitmix64(&mut counter)).collect();
        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn xoshiro_matches_the_reference() {
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let first: Vec<u64> = (0..4).map(|_| rng.next_u64()).collect();
        assert_eq!(first, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }

    #[test]
    #[should_panic(expected = "no number below zero")]
    fn below_zero_panics() {
        Rng::new(0).below(0);
    }

    #[test]
    #[should_panic(expected = "the lower end comes first")]
    fn between_reversed_ends_panics() {
        Rng::new(0).between(2, 1);
    }
}
