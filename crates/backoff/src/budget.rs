//! A budget for retries: a share of what succeeds, plus a few a second.

use std::time::Duration;

/// A retry's price, and the unit of the balance: so fine that a nanosecond of a refill of one a
/// second still counts.
const PRICE: u64 = 1_000_000_000;

/// Says whether a retry is affordable, so that retries can't multiply the load on a peer that is
/// failing.
///
/// Each success pays in a part of a retry, and so does each second; a retry takes out a whole one.
/// While most requests succeed, each failure may be retried; when nothing succeeds any more, the
/// retries fall to a few a second, whatever the number of requests. The shape is that of Finagle's
/// `RetryBudget`: twenty per cent plus ten a second.
///
/// Share one budget between all the links to the same peer.
///
/// ```
/// use remuda_backoff::RetryBudget;
/// use std::time::Duration;
///
/// let mut budget = RetryBudget::new().percent(20).per_second(0);
/// for _ in 0..5 {
///     budget.deposit();
/// }
/// assert!(budget.withdraw(Duration::ZERO), "five successes pay for one retry");
/// assert!(!budget.withdraw(Duration::ZERO), "and for no second one");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct RetryBudget {
    percent: u32,
    per_second: u32,
    balance_max: u64,
    balance: u64,
    refilled_at: Duration,
}

impl RetryBudget {
    /// The share of successes that pays for retries, in per cent, unless
    /// [`percent`](Self::percent) says otherwise.
    pub const PERCENT_DEFAULT: u32 = 20;
    /// The retries that each second pays for, unless [`per_second`](Self::per_second) says
    /// otherwise.
    pub const PER_SECOND_DEFAULT: u32 = 10;
    /// The most retries that can be saved up, unless [`balance_max`](Self::balance_max) says
    /// otherwise.
    pub const BALANCE_MAX_DEFAULT: u32 = 100;

    /// The defaults, and nothing saved up.
    pub fn new() -> Self {
        Self {
            percent: Self::PERCENT_DEFAULT,
            per_second: Self::PER_SECOND_DEFAULT,
            balance_max: u64::from(Self::BALANCE_MAX_DEFAULT) * PRICE,
            balance: 0,
            refilled_at: Duration::ZERO,
        }
    }

    /// How many retries a hundred successes pay for. Default: 20.
    pub fn percent(mut self, percent: u32) -> Self {
        self.percent = percent;
        self
    }

    /// How many retries each second pays for, so that a client with few requests can retry at
    /// all. Default: 10.
    pub fn per_second(mut self, retries: u32) -> Self {
        self.per_second = retries;
        self
    }

    /// How many retries can be saved up: what a long good time pays for at most when a bad one
    /// begins. Zero allows no retry at all. Default: 100.
    pub fn balance_max(mut self, retries: u32) -> Self {
        self.balance_max = u64::from(retries) * PRICE;
        self.balance = self.balance.min(self.balance_max);
        self
    }

    /// A request succeeded.
    pub fn deposit(&mut self) {
        self.pay_in(u64::from(self.percent) * (PRICE / 100));
    }

    /// A retry is wanted at `now`: true if it is affordable, and it is then paid for. A time
    /// before one that was given already counts as no time passed.
    #[must_use = "a retry that was refused must not be made"]
    pub fn withdraw(&mut self, now: Duration) -> bool {
        self.refill(now);
        match self.balance.checked_sub(PRICE) {
            Some(rest) => {
                self.balance = rest;
                true
            }
            None => false,
        }
    }

    /// How many whole retries are affordable at `now`.
    pub fn available(&self, now: Duration) -> u64 {
        let mut then = self.clone();
        then.refill(now);
        then.balance / PRICE
    }

    fn refill(&mut self, now: Duration) {
        let nanos = now.saturating_sub(self.refilled_at).as_nanos();
        self.refilled_at = self.refilled_at.max(now);
        // `PRICE` is a second in nanoseconds, so that one retry a second pays in 1 a nanosecond.
        let paid = nanos.saturating_mul(u128::from(self.per_second));
        self.pay_in(u64::try_from(paid).unwrap_or(u64::MAX));
    }

    fn pay_in(&mut self, amount: u64) {
        self.balance = self.balance.saturating_add(amount).min(self.balance_max);
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new()
    }
}
