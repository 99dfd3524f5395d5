//! What the rings cost between two processes, beside a bare eventfd pair and a Unix stream.
//!
//! `cargo bench -p remuda-shm --bench figures -- [ROUNDS] [FILTER]`. Every case runs once a round,
//! in the same order, each time with a fresh child process; the table gives the median of the
//! rounds and the range of their middle half. This process runs on core 1, the child on core 0;
//! `CORES=0` puts both on core 0.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[cfg(target_os = "linux")]
#[path = "figures/cases.rs"]
mod cases;
#[cfg(target_os = "linux")]
#[path = "figures/child.rs"]
mod child;

#[cfg(target_os = "linux")]
fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    arguments.retain(|argument| argument != "--bench");
    if arguments.first().is_some_and(|first| first == "child") {
        return child::run(&arguments[1..]);
    }
    let rounds = arguments.first().and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    let filter = arguments.get(1).map_or("", String::as_str);
    table(rounds, filter);
}

#[cfg(target_os = "linux")]
fn table(rounds: usize, filter: &str) {
    let cases: Vec<_> =
        cases::all().into_iter().filter(|case| case.name.contains(filter)).collect();
    let mut figures = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for (case, figures) in cases.iter().zip(&mut figures) {
            figures.push((case.run)());
        }
    }
    for (case, figures) in cases.iter().zip(&mut figures) {
        figures.sort_by(f64::total_cmp);
        let at = |part: f64| figures[((figures.len() - 1) as f64 * part).round() as usize];
        println!(
            "{:44} {:10.3} {:8} ({:.3} to {:.3})",
            case.name,
            at(0.5),
            case.unit,
            at(0.25),
            at(0.75)
        );
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {}
