//! Copies in relaxed atomic words.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

const WORD: usize = size_of::<u64>();

/// # Safety
///
/// As [`super::to_shared`].
#[inline]
pub(super) unsafe fn to_shared(to: *mut u8, from: &[u8]) {
    let (first, from) = from.split_at(to.align_offset(WORD).min(from.len()));
    for (i, byte) in first.iter().enumerate() {
        // SAFETY: it lies within the bytes that are valid.
        unsafe { AtomicU8::from_ptr(to.add(i)) }.store(*byte, Ordering::Relaxed);
    }
    // SAFETY: as above, and aligned from here on, unless nothing is left.
    let to = unsafe { to.add(first.len()) };
    let words = from.chunks_exact(WORD);
    let rest = words.remainder();
    for (i, word) in words.enumerate() {
        // SAFETY: word `i` lies within the bytes that are valid, and is aligned as `to` is.
        let to = unsafe { AtomicU64::from_ptr(to.add(i * WORD).cast()) };
        let mut bytes = [0; WORD];
        bytes.copy_from_slice(word);
        to.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
    }
    for (i, byte) in rest.iter().enumerate() {
        // SAFETY: the rest lies behind the whole words, within the bytes that are valid.
        let to = unsafe { AtomicU8::from_ptr(to.add(from.len() - rest.len() + i)) };
        to.store(*byte, Ordering::Relaxed);
    }
}

/// # Safety
///
/// As [`super::from_shared`].
#[inline]
pub(super) unsafe fn from_shared(to: &mut [MaybeUninit<u8>], from: *mut u8) {
    let (first, to) = to.split_at_mut(from.align_offset(WORD).min(to.len()));
    for (i, byte) in first.iter_mut().enumerate() {
        // SAFETY: it lies within the bytes that are valid.
        byte.write(unsafe { AtomicU8::from_ptr(from.add(i)) }.load(Ordering::Relaxed));
    }
    // SAFETY: as above, and aligned from here on, unless nothing is left.
    let from = unsafe { from.add(first.len()) };
    let len = to.len();
    let mut words = to.chunks_exact_mut(WORD);
    for (i, word) in (&mut words).enumerate() {
        // SAFETY: word `i` lies within the bytes that are valid, and is aligned as `from` is.
        let from = unsafe { AtomicU64::from_ptr(from.add(i * WORD).cast()) };
        word.write_copy_of_slice(&from.load(Ordering::Relaxed).to_ne_bytes());
    }
    let rest = words.into_remainder();
    let whole = len - rest.len();
    for (i, byte) in rest.iter_mut().enumerate() {
        // SAFETY: the rest lies behind the whole words, within the bytes that are valid.
        let from = unsafe { AtomicU8::from_ptr(from.add(whole + i)) };
        byte.write(from.load(Ordering::Relaxed));
    }
}
