//! The schedule from a seed as a table, and what each call does to it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use remuda_backoff::Backoff;
use std::time::Duration;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Failure by failure: the ceiling in ms, then the delay in ns that seeds 7 and 8 give under the
/// defaults. The delays were worked out apart from this crate, from the definitions of splitmix64,
/// xoshiro256++ and Lemire's bounded numbers.
const TABLE: [(u64, u64, u64); 10] = [
    (100, 5_536_043, 39_192_266),
    (200, 34_423_171, 85_120_559),
    (400, 287_030_452, 138_477_511),
    (800, 341_767_855, 555_551_247),
    (1_600, 1_541_855_235, 652_211_296),
    (3_200, 1_490_251_805, 2_878_649_453),
    (6_400, 4_633_005_410, 1_899_764_124),
    (10_000, 3_298_394_295, 6_693_124_875),
    (10_000, 9_823_226_513, 3_055_876_643),
    (10_000, 732_837_910, 7_049_383_173),
];

#[test]
fn schedule_is_the_table_of_its_seed() {
    let mut seven = Backoff::new(7);
    let mut eight = Backoff::new(8);
    for (ceiling, delay_of_7, delay_of_8) in TABLE {
        seven.failed(Duration::ZERO);
        assert_eq!(seven.ceiling(), ms(ceiling));
        assert_eq!(seven.next_delay(Duration::ZERO), Some(Duration::from_nanos(delay_of_7)));
        // Without `failed`, the attempt that was granted counts as failed all the same.
        assert_eq!(eight.next_delay(Duration::ZERO), Some(Duration::from_nanos(delay_of_8)));
    }
}

#[test]
fn failed_said_twice_counts_once() {
    let mut backoff = Backoff::new(0);
    backoff.failed(s(0));
    backoff.failed(s(1));
    assert_eq!(backoff.failures(), 1);
    backoff.next_delay(s(2)).unwrap();
    backoff.failed(s(3));
    assert_eq!(backoff.failures(), 2);
}

#[test]
fn link_that_lived_resets_and_one_that_died_at_once_does_not() {
    let mut backoff = Backoff::new(0);
    for _ in 0..3 {
        backoff.next_delay(s(0)).unwrap();
    }
    backoff.succeeded(s(100));
    backoff.failed(s(100) + ms(9_999));
    assert_eq!(backoff.failures(), 4, "a link that lived 9.999 s is one more failure");
    backoff.next_delay(s(110)).unwrap();
    backoff.succeeded(s(200));
    backoff.failed(s(210));
    assert_eq!(backoff.failures(), 0, "a link that lived 10 s makes up for all before it");
    assert_eq!(backoff.ceiling(), Backoff::BASE_DEFAULT);
}

#[test]
fn lifetime_ends_when_the_link_does_not_when_the_delay_is_asked_for() {
    let mut backoff = Backoff::new(0).reset_after(s(10));
    backoff.next_delay(s(0)).unwrap();
    backoff.succeeded(s(1));
    backoff.failed(s(2));
    backoff.next_delay(s(100)).unwrap();
    assert_eq!(backoff.failures(), 2);
}

#[test]
fn lifetime_starts_with_the_first_success() {
    let mut backoff = Backoff::new(0).reset_after(s(5));
    backoff.next_delay(s(0)).unwrap();
    backoff.succeeded(s(1));
    backoff.succeeded(s(10));
    backoff.next_delay(s(11)).unwrap();
    assert_eq!(backoff.failures(), 0);
}

#[test]
fn max_attempts_counts_the_first_one_too() {
    let mut backoff = Backoff::new(0).max_attempts(3);
    assert!(backoff.next_delay(s(0)).is_some());
    assert!(backoff.next_delay(s(0)).is_some());
    assert_eq!(backoff.next_delay(s(0)), None);
    assert_eq!(backoff.next_delay(s(1_000)), None, "the answer stays the same");
}

#[test]
fn max_attempts_of_one_or_zero_retries_only_what_lived() {
    for attempts in [0, 1] {
        let mut backoff = Backoff::new(0).max_attempts(attempts).reset_after(s(10));
        assert_eq!(backoff.clone().next_delay(s(0)), None);
        backoff.succeeded(s(0));
        assert!(backoff.next_delay(s(10)).is_some());
        assert_eq!(backoff.next_delay(s(11)), None);
    }
}

#[test]
fn max_elapsed_cuts_the_last_delay_and_then_ends() {
    let mut backoff = Backoff::new(0).base(s(1_000)).cap(s(1_000)).max_elapsed(s(5));
    backoff.failed(s(100));
    let mut cut = 0;
    for seed in 0..100 {
        let mut other = Backoff::new(seed).base(s(1_000)).cap(s(1_000)).max_elapsed(s(5));
        other.failed(s(100));
        let delay = other.next_delay(s(102)).unwrap();
        assert!(delay <= s(3));
        cut += u32::from(delay == s(3));
    }
    assert!(cut > 90, "997 of 1,000 delays up to 1,000 s are longer than 3 s");
    assert!(backoff.next_delay(s(105)).is_some(), "the very end still counts");
    assert_eq!(backoff.next_delay(s(105) + ms(1)), None);
}

#[test]
fn max_elapsed_starts_over_after_a_link_that_lived() {
    let mut backoff = Backoff::new(0).max_elapsed(s(5)).reset_after(s(10));
    backoff.next_delay(s(0)).unwrap();
    backoff.succeeded(s(1));
    assert!(backoff.next_delay(s(20)).is_some());
    assert!(backoff.next_delay(s(25)).is_some());
    assert_eq!(backoff.next_delay(s(26)), None);
}

#[test]
fn delay_of_the_peer_is_waited_for_once_with_jitter_on_top() {
    let mut backoff = Backoff::new(7);
    backoff.failed(s(0));
    backoff.after(s(20));
    backoff.after(s(30));
    backoff.after(s(25));
    let jitter = Duration::from_nanos(TABLE[0].1);
    assert_eq!(backoff.next_delay(s(0)), Some(s(30) + jitter), "the longest holds");
    assert_eq!(backoff.next_delay(s(40)), Some(Duration::from_nanos(TABLE[1].1)));
}

#[test]
fn delay_of_the_peer_is_cut_to_after_cap() {
    let mut backoff = Backoff::new(0).base(Duration::ZERO).after_cap(s(60));
    backoff.after(Duration::MAX);
    assert_eq!(backoff.next_delay(s(0)), Some(s(60)));
}

#[test]
fn delay_of_the_peer_that_exceeds_the_time_ends_the_retries() {
    let mut backoff = Backoff::new(0).max_elapsed(s(10));
    backoff.failed(s(0));
    backoff.after(s(11));
    assert_eq!(backoff.next_delay(s(0)), None);
    assert_eq!(backoff.next_delay(s(0)), None, "the answer stays the same");

    let mut fits = Backoff::new(0).max_elapsed(s(10));
    fits.failed(s(0));
    fits.after(s(10));
    assert_eq!(fits.next_delay(s(0)), Some(s(10)), "only the jitter is cut");
}

#[test]
fn success_makes_the_delay_of_the_peer_void() {
    let mut backoff = Backoff::new(7);
    backoff.failed(s(0));
    backoff.after(s(30));
    backoff.succeeded(s(1));
    assert!(backoff.next_delay(s(2)).unwrap() < s(1));
}

#[test]
fn zero_base_means_no_delay() {
    let mut backoff = Backoff::new(0).base(Duration::ZERO);
    for _ in 0..200 {
        assert_eq!(backoff.next_delay(s(0)), Some(Duration::ZERO));
    }
}

#[test]
fn tiny_base_reaches_a_large_cap() {
    let mut backoff = Backoff::new(0).base(Duration::from_nanos(1)).cap(s(1_000_000));
    for _ in 0..60 {
        backoff.next_delay(s(0)).unwrap();
    }
    assert_eq!(backoff.ceiling(), s(1_000_000));
}

#[test]
fn base_above_the_cap_is_cut_to_it() {
    let mut backoff = Backoff::new(0).base(s(60)).cap(s(1));
    assert!(backoff.next_delay(s(0)).unwrap() <= s(1));
    assert_eq!(backoff.ceiling(), s(1));
}
