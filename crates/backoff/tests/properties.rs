//! What holds for every seed, every set of options and every history.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use proptest::prelude::*;
use remuda_backoff::{Backoff, RestartIntensity, RetryBudget, Rng, Verdict};
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
enum Step {
    Succeeded,
    Failed,
    After(Duration),
    NextDelay,
}

/// A history: steps, each so long after the one before it.
fn history() -> impl Strategy<Value = Vec<(Duration, Step)>> {
    let step = prop_oneof![
        Just(Step::Succeeded),
        Just(Step::Failed),
        (0u64..100_000).prop_map(|ms| Step::After(Duration::from_millis(ms))),
        Just(Step::NextDelay),
        Just(Step::NextDelay),
    ];
    prop::collection::vec(((0u64..30_000).prop_map(Duration::from_millis), step), 0..60)
}

/// Plays a history, and tells each delay with the ceiling and the peer's wish it was given under.
fn played(mut backoff: Backoff, steps: &[(Duration, Step)]) -> Vec<(Option<Duration>, Duration)> {
    let mut now = Duration::ZERO;
    let mut delays = Vec::new();
    for &(pause, step) in steps {
        now += pause;
        match step {
            Step::Succeeded => backoff.succeeded(now),
            Step::Failed => backoff.failed(now),
            Step::After(delay) => backoff.after(delay),
            Step::NextDelay => {
                let delay = backoff.next_delay(now);
                delays.push((delay, backoff.ceiling()));
            }
        }
    }
    delays
}

proptest! {
    #[test]
    fn same_seed_and_history_give_the_same_delays(seed: u64, steps in history()) {
        prop_assert_eq!(played(Backoff::new(seed), &steps), played(Backoff::new(seed), &steps));
    }

    #[test]
    fn no_delay_exceeds_its_ceiling_nor_the_cap(
        seed: u64,
        base in 0u64..100_000,
        cap in 0u64..100_000,
        steps in history(),
    ) {
        let (base, cap) = (Duration::from_millis(base), Duration::from_millis(cap));
        let own: Vec<_> =
            steps.into_iter().filter(|(_, step)| !matches!(step, Step::After(_))).collect();
        for (delay, ceiling) in played(Backoff::new(seed).base(base).cap(cap), &own) {
            prop_assert!(delay.unwrap() <= ceiling);
            prop_assert!(ceiling <= cap);
        }
    }

    #[test]
    fn no_attempt_starts_after_max_elapsed(
        seed: u64,
        elapsed in 0u64..100_000,
        pauses in prop::collection::vec(0u64..5_000, 1..60),
    ) {
        let elapsed = Duration::from_millis(elapsed);
        let mut backoff = Backoff::new(seed).max_elapsed(elapsed);
        let mut now = Duration::from_secs(17);
        backoff.failed(now);
        let end = now + elapsed;
        for pause in pauses {
            now += Duration::from_millis(pause);
            match backoff.next_delay(now) {
                Some(delay) => prop_assert!(now + delay <= end),
                None => prop_assert!(now > end),
            }
        }
    }

    #[test]
    fn max_attempts_fail_in_a_row_and_no_more(seed: u64, attempts in 1u32..50) {
        let mut backoff = Backoff::new(seed).max_attempts(attempts);
        let mut made = 1;
        while backoff.next_delay(Duration::ZERO).is_some() {
            made += 1;
        }
        prop_assert_eq!(made, attempts);
    }

    #[test]
    fn delay_of_the_peer_is_the_least_that_is_waited(seed: u64, told in 0u64..4_000_000) {
        let told = Duration::from_millis(told);
        let mut backoff = Backoff::new(seed);
        backoff.after(told);
        let delay = backoff.next_delay(Duration::ZERO).unwrap();
        let least = told.min(Backoff::AFTER_CAP_DEFAULT);
        prop_assert!(delay >= least && delay <= least + Backoff::BASE_DEFAULT);
    }

    #[test]
    fn extreme_options_and_times_do_not_overflow(
        seed: u64,
        nanos in prop::collection::vec(any::<(u64, u32)>(), 5),
    ) {
        let times: Vec<_> =
            nanos.iter().map(|&(s, n)| Duration::new(s, n % 1_000_000_000)).collect();
        let mut backoff = Backoff::new(seed)
            .base(times[0])
            .cap(times[1])
            .max_elapsed(times[2])
            .reset_after(times[3])
            .after_cap(Duration::MAX);
        backoff.after(times[4]);
        for &now in times.iter().chain([&Duration::MAX, &Duration::ZERO]) {
            backoff.next_delay(now);
            backoff.succeeded(now);
        }
    }

    #[test]
    fn below_and_between_stay_in_range(seed: u64, a: u64, b: u64) {
        let (lo, hi) = (a.min(b), a.max(b));
        let mut rng = Rng::new(seed);
        prop_assert!((lo..=hi).contains(&rng.between(lo, hi)));
        prop_assert!(rng.below(hi.max(1)) < hi.max(1));
        prop_assert!(rng.up_to(Duration::from_nanos(hi)) <= Duration::from_nanos(hi));
    }

    /// Over any span, retries are at most what was paid in for it and what was saved before.
    #[test]
    fn budget_never_allows_more_than_was_paid_in(
        percent in 0u32..200,
        per_second in 0u32..50,
        balance_max in 0u32..200,
        steps in prop::collection::vec((0u64..200, any::<bool>()), 1..400),
    ) {
        let mut budget =
            RetryBudget::new().percent(percent).per_second(per_second).balance_max(balance_max);
        let (mut now, mut deposits, mut retries) = (Duration::ZERO, 0u64, 0u64);
        for (pause, success) in steps {
            now += Duration::from_millis(pause);
            let available = budget.available(now);
            prop_assert!(available <= u64::from(balance_max));
            if success {
                budget.deposit();
                deposits += 1;
            } else {
                let granted = budget.withdraw(now);
                prop_assert_eq!(granted, available >= 1);
                retries += u64::from(granted);
            }
            // In hundredths of a retry, times a thousand for the milliseconds.
            let paid = deposits * u64::from(percent) * 1_000
                + now.as_millis() as u64 * u64::from(per_second) * 100;
            prop_assert!(retries * 100_000 <= paid);
        }
    }

    /// Against the plain definition: count what was recorded within the period before now.
    #[test]
    fn intensity_is_what_counting_says(
        max in 0u32..6,
        period in 0u64..5_000,
        pauses in prop::collection::vec(0u64..2_000, 1..100),
    ) {
        let period = Duration::from_millis(period);
        let mut intensity = RestartIntensity::new(max, period);
        let mut recorded = Vec::new();
        let mut now = Duration::ZERO;
        for pause in pauses {
            now += Duration::from_millis(pause);
            recorded.push(now);
            let within = recorded.iter().filter(|&&then| then + period >= now).count();
            let expected =
                if within > max as usize { Verdict::GiveUp } else { Verdict::Restart };
            prop_assert_eq!(intensity.record(now), expected);
        }
    }
}
