//! A thread-per-core runtime on io_uring, or on mio where that is denied.
#![allow(unsafe_code)]
