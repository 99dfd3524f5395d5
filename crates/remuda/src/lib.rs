//! Keeps workers warm and hands each job to a free one.
#![forbid(unsafe_code)]
