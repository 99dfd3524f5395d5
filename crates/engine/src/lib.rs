//! Drives the dispatch of jobs on the runtime: listeners, links, keeper, supervision.
#![forbid(unsafe_code)]

pub mod keeper;
