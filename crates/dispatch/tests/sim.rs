//! Thousands of random histories of a pool, each decided by a seed, with what always holds checked
//! after every step.
//!
//! `REMUDA_SIM_SEEDS=100000` plays more of them than the usual 2,000, and
//! `REMUDA_SIM_FIRST=5000000` others than those from 0 on; `REMUDA_SIM_SEED=17` plays that one
//! alone, and prints what happens.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
// The modules of a test are private anyway.
#![allow(unreachable_pub)]

#[path = "sim/check.rs"]
mod check;
#[path = "sim/plan.rs"]
mod plan;
#[path = "sim/totals.rs"]
mod totals;
#[path = "sim/worker.rs"]
mod worker;
#[path = "sim/world.rs"]
mod world;

use totals::Totals;
use world::World;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Says which history it was if it panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("\nthis history again: REMUDA_SIM_SEED={} cargo test --test sim\n", self.0);
        }
    }
}

fn play(seed: u64, talk: bool) -> Totals {
    let _seed = Seed(seed);
    World::new(seed, talk).play()
}

#[test]
fn what_always_holds_in_random_histories() {
    if let Some(seed) = variable("REMUDA_SIM_SEED") {
        eprintln!("{:#?}", play(seed, true));
        return;
    }
    let seeds = variable("REMUDA_SIM_SEEDS").unwrap_or(2000);
    let first = variable("REMUDA_SIM_FIRST").unwrap_or(0);
    let mut all = Totals::default();
    for seed in first..first.saturating_add(seeds) {
        all.add(&play(seed, false));
    }
    eprintln!("{seeds} histories: {all:#?}");
    // A simulator in which nothing happens proves nothing.
    if seeds >= 2000 {
        all.assert_eventful();
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let traced = |seed| {
        let _seed = Seed(seed);
        World::new(seed, false).traced().play()
    };
    for seed in 0..100 {
        assert_eq!(traced(seed), traced(seed), "seed {seed}");
    }
    assert_ne!(traced(0).trace, traced(1).trace, "the trace tells histories apart");
}
