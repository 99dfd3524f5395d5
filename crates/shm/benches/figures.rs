//! What the rings cost between two processes, beside a bare eventfd pair and a Unix stream.
//!
//! `cargo bench -p remuda-shm --bench figures -- [ROUNDS] [FILTER] [--exact NAME] [--json]`. Every
//! case whose name contains FILTER, or is NAME, runs once a round, in the same order, each time with
//! a fresh child process; the table gives the median of the rounds and the range of their middle
//! half. With `--json` each case is a line of JSON, with the figures of all rounds in their order.
//! This process runs on core 1, the child on core 0; `CORES=0` puts both on core 0.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[cfg(target_os = "linux")]
#[path = "figures/bare.rs"]
mod bare;
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
    let json = arguments.iter().any(|argument| argument == "--json");
    arguments.retain(|argument| argument != "--json");
    let exact = arguments.iter().position(|argument| argument == "--exact").map(|at| {
        arguments.remove(at);
        assert!(at < arguments.len(), "--exact needs the name of a case");
        arguments.remove(at)
    });
    let rounds = arguments.first().and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    let filter = arguments.get(1).map_or("", String::as_str);
    let chosen = |name: &str| match &exact {
        Some(exact) => name == exact,
        None => name.contains(filter),
    };
    let cases: Vec<_> = cases::all().into_iter().filter(|case| chosen(&case.name)).collect();
    assert!(!cases.is_empty(), "no case has such a name");
    run(rounds, &cases, if json { print_json } else { print_row });
}

/// Runs each case so often, and prints what came of it.
#[cfg(target_os = "linux")]
fn run(rounds: usize, cases: &[cases::Case], print: fn(&cases::Case, &[f64])) {
    let mut figures = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for (case, figures) in cases.iter().zip(&mut figures) {
            figures.push((case.run)());
        }
    }
    for (case, figures) in cases.iter().zip(&figures) {
        print(case, figures);
    }
}

/// The figures at these parts of the way from the lowest to the highest.
#[cfg(target_os = "linux")]
fn quantiles(figures: &[f64], parts: [f64; 3]) -> [f64; 3] {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    parts.map(|part| sorted[((sorted.len() - 1) as f64 * part).round() as usize])
}

#[cfg(target_os = "linux")]
fn print_row(case: &cases::Case, figures: &[f64]) {
    let [low, median, high] = quantiles(figures, [0.25, 0.5, 0.75]);
    println!("{:44} {median:10.3} {:8} ({low:.3} to {high:.3})", case.name, case.unit);
}

#[cfg(target_os = "linux")]
fn print_json(case: &cases::Case, figures: &[f64]) {
    let [low, median, high] = quantiles(figures, [0.25, 0.5, 0.75]);
    println!(
        "{{\"name\":{:?},\"unit\":{:?},\"median\":{median},\"low\":{low},\"high\":{high},\
         \"rounds\":{figures:?}}}",
        case.name, case.unit,
    );
}

#[cfg(not(target_os = "linux"))]
fn main() {}
