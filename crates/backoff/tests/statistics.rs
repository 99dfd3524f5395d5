//! The means and spreads that full jitter is chosen for. Seeds are fixed: nothing here is flaky.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use remuda_backoff::{Backoff, RetryBudget, Rng};
use std::time::Duration;

const CLIENTS: u64 = 20_000;

/// Delay number `n` (from zero) of each client, as a share of its ceiling.
fn shares(n: u32) -> Vec<f64> {
    let share = |seed| {
        let mut backoff = Backoff::new(seed);
        let mut last = Duration::ZERO;
        for _ in 0..=n {
            last = backoff.next_delay(Duration::ZERO).unwrap();
        }
        last.as_secs_f64() / backoff.ceiling().as_secs_f64()
    };
    (0..CLIENTS).map(share).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let (mean_a, mean_b) = (mean(a), mean(b));
    let product = |a: &[f64], ma: f64, b: &[f64], mb: f64| -> f64 {
        a.iter().zip(b).map(|(x, y)| (x - ma) * (y - mb)).sum()
    };
    product(a, mean_a, b, mean_b)
        / (product(a, mean_a, a, mean_a) * product(b, mean_b, b, mean_b)).sqrt()
}

/// Uniform on [0, 1]: mean 1/2 and variance 1/12. Of 20,000, the mean's standard error is 0.002.
#[test]
fn delays_are_uniform_up_to_the_ceiling_at_each_attempt() {
    for n in [0, 1, 4, 7, 12] {
        let shares = shares(n);
        let mean = mean(&shares);
        assert!((mean - 0.5).abs() < 0.008, "mean share {mean} at attempt {n}");
        let variance =
            shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / CLIENTS as f64;
        assert!((variance - 1.0 / 12.0).abs() < 0.004, "variance {variance} at attempt {n}");
        for tenth in 0..10 {
            let lo = f64::from(tenth) / 10.0;
            let count = shares.iter().filter(|&&s| s >= lo && s < lo + 0.1).count() as f64;
            let share = count / CLIENTS as f64;
            assert!((share - 0.1).abs() < 0.01, "{share} in tenth {tenth} at attempt {n}");
        }
    }
}

/// With neighbouring seeds, one attempt's shares across the clients tell nothing of the
/// neighbours' nor of the same client's next. Of 20,000, a correlation's standard error is 0.007.
#[test]
fn clients_of_neighbouring_seeds_are_uncorrelated() {
    let first = shares(0);
    let next = shares(1);
    for lag in [1, 2, 64] {
        let r = correlation(&first[lag..], &first[..first.len() - lag]);
        assert!(r.abs() < 0.03, "correlation {r} between seeds {lag} apart");
    }
    let r = correlation(&first, &next);
    assert!(r.abs() < 0.03, "correlation {r} between a client's first two delays");
}

/// Two clients over a long history of capped delays.
#[test]
fn two_clients_are_uncorrelated_over_time() {
    let delays = |seed| -> Vec<f64> {
        let mut backoff = Backoff::new(seed).base(Backoff::CAP_DEFAULT);
        (0..CLIENTS).map(|_| backoff.next_delay(Duration::ZERO).unwrap().as_secs_f64()).collect()
    };
    for (a, b) in [(0, 1), (1, 2), (41, 42), (0, u64::MAX), (5, 0x9e37_79b9_7f4a_7c15 + 5)] {
        let r = correlation(&delays(a), &delays(b));
        assert!(r.abs() < 0.03, "correlation {r} between seeds {a} and {b}");
    }
}

#[test]
fn split_streams_are_uncorrelated() {
    let mut parent = Rng::new(3);
    let mut child = parent.split();
    let draw =
        |rng: &mut Rng| -> Vec<f64> { (0..CLIENTS).map(|_| rng.below(1 << 32) as f64).collect() };
    let r = correlation(&draw(&mut parent), &draw(&mut child));
    assert!(r.abs() < 0.03, "correlation {r}");
}

/// Of 3 * 2^62 numbers, a remainder of 64 bits would fall into the lowest third half of the time,
/// and a bare multiplication would favour every third number.
#[test]
fn below_is_unbiased_where_cheaper_ways_are_not() {
    let mut rng = Rng::new(11);
    let n = 3 << 62;
    let numbers: Vec<u64> = (0..CLIENTS).map(|_| rng.below(n)).collect();
    let share = |matching: &dyn Fn(u64) -> bool| {
        numbers.iter().filter(|&&number| matching(number)).count() as f64 / CLIENTS as f64
    };
    for third in 0..3 {
        let in_range = share(&|number| number / (n / 3) == third);
        let by_remainder = share(&|number| number % 3 == third);
        for share in [in_range, by_remainder] {
            assert!((share - 1.0 / 3.0).abs() < 0.015, "{share} for third {third}");
        }
    }
}

#[test]
fn below_and_between_reach_every_value() {
    let mut rng = Rng::new(5);
    let mut seen = [0u32; 6];
    for _ in 0..6_000 {
        seen[rng.below(6) as usize] += 1;
        seen[rng.between(1, 6) as usize - 1] += 1;
    }
    assert!(seen.iter().all(|&count| (1_800..2_200).contains(&count)), "{seen:?}");
    assert_eq!(rng.between(9, 9), 9);
    assert_eq!(rng.below(1), 0);
}

/// A server that fails everything: 1,000 requests a second for a minute, each wanting retries
/// without end. What reaches the server beyond the requests is ten a second.
#[test]
fn budget_holds_a_storm_to_a_few_a_second() {
    let mut budget = RetryBudget::new();
    let mut retries = 0;
    for ms in 0..60_000 {
        while budget.withdraw(Duration::from_millis(ms)) {
            retries += 1;
        }
    }
    assert_eq!(retries, 599, "ten a second, up to the last whole one before 60 s");
}

/// One in ten requests fails, at 1,000 a second: each failure is retried, since a fifth would be.
#[test]
fn budget_pays_for_every_retry_while_most_succeed() {
    let mut budget = RetryBudget::new().per_second(0);
    let mut refused = 0;
    for request in 1..=60_000u64 {
        if request.is_multiple_of(10) {
            refused += u64::from(!budget.withdraw(Duration::from_millis(request)));
        } else {
            budget.deposit();
        }
    }
    assert_eq!(refused, 0);
}

#[test]
fn a_fifth_of_what_succeeds_pays_for_retries() {
    let mut budget = RetryBudget::new().per_second(0);
    for (deposits, retries) in [(4, 0), (5, 1), (9, 1), (10, 2)] {
        let mut budget = budget.clone();
        (0..deposits).for_each(|_| budget.deposit());
        assert_eq!(budget.available(Duration::ZERO), retries, "after {deposits} successes");
    }
    assert!(!budget.withdraw(Duration::ZERO), "and nothing is given in advance");
}

#[test]
fn budget_saves_up_no_more_than_its_maximum() {
    let mut budget = RetryBudget::new().balance_max(7);
    for _ in 0..1_000_000 {
        budget.deposit();
    }
    let now = Duration::from_secs(1_000_000);
    assert_eq!(budget.available(now), 7);
    assert_eq!((0..20).filter(|_| budget.withdraw(now)).count(), 7);
}

#[test]
fn budget_is_not_paid_in_twice_for_a_time_that_comes_again() {
    let mut budget = RetryBudget::new().per_second(1);
    let now = Duration::from_secs(10);
    assert_eq!((0..20).filter(|_| budget.withdraw(now)).count(), 10);
    assert!(!budget.withdraw(Duration::ZERO));
    assert!(!budget.withdraw(now));
    assert!(budget.withdraw(now + Duration::from_secs(1)));
}
