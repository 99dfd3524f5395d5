//! Workers over rings.

pub const TESTS: &[(&str, fn())] = &[];
