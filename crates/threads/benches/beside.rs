//! Ours beside crossbeam-channel and std's mpsc, in one interleaved run.
fn main() {}
