//! A pair whose sides are both in this process.
#![allow(dead_code, reason = "each test file is a program of its own and uses a part of it")]

use std::os::unix::net::UnixStream;

use remuda_shm::{Options, SpscFace, SpscHandle};

pub(crate) fn pair(options: &Options) -> (SpscFace, SpscHandle) {
    let (engine, application) = UnixStream::pair().unwrap();
    let face = SpscFace::over(&engine, options).unwrap();
    let handle = SpscHandle::over(&application, options).unwrap();
    (face, handle)
}

pub(crate) fn small(capacity: u32, slot_size: u32) -> Options {
    Options::new(capacity, slot_size).unwrap()
}
