//! A pool of workers as a deterministic state machine: no I/O, no clock.
#![forbid(unsafe_code)]
