//! Shared-memory rings between two processes.
#![allow(unsafe_code)] // Shared memory is outside of what the compiler can check.

mod error;
mod geometry;
mod heap;
pub mod ring;
mod storage;
mod sync;

pub use error::{CloseReason, Lie, Refusal, ShmError};
pub use geometry::{
    CAPACITY_DEFAULT, CAPACITY_MAX, Geometry, REGION_SIZE_MAX, SLOT_SIZE_DEFAULT, SLOT_SIZE_MAX,
};
