//! Copying bytes into and out of memory that another process may write at the same time.
//!
//! An ordinary `memcpy` may assume that nobody else writes, so the copy is done by the processor's
//! string instruction in assembly, which the compiler knows nothing of, or in relaxed atomic
//! words. Bytes that the peer changes meanwhile arrive as some mixture of both; nothing else can
//! happen.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

const WORD: usize = size_of::<u64>();

/// From here on the string instruction is faster than words.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const STRING_MIN: usize = 256;

/// Copies `from` to `to` in shared memory.
///
/// # Safety
///
/// `to` is valid for writes of `from.len()` bytes.
#[inline]
pub(crate) unsafe fn to_shared(to: *mut u8, from: &[u8]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if from.len() >= STRING_MIN {
        // SAFETY: both are valid for so many bytes, as the caller promises and the slice says.
        return unsafe { string_copy(to, from.as_ptr(), from.len()) };
    }
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

/// Fills `to` with the bytes at `from` in shared memory.
///
/// # Safety
///
/// `from` is valid for reads of `to.len()` bytes.
#[inline]
pub(crate) unsafe fn from_shared(to: &mut [MaybeUninit<u8>], from: *mut u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if to.len() >= STRING_MIN {
        // SAFETY: both are valid for so many bytes, as the slice says and the caller promises.
        return unsafe { string_copy(to.as_mut_ptr().cast(), from, to.len()) };
    }
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

/// # Safety
///
/// `to` is valid for writes and `from` for reads of `len` bytes, and they don't overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
unsafe fn string_copy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the instruction reads and writes exactly `len` bytes, which are valid; the direction
    // flag is clear by the calling convention.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_arrives_whole_and_touches_nothing_else() {
        let lens = if cfg!(miri) { 0..70 } else { 0..300 };
        for (len, shift) in lens.chain([1000]).flat_map(|len| [0, 1, 7].map(|shift| (len, shift))) {
            let source: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let mut shared = vec![0xAA_u8; len + 32];
            let base = shared.as_mut_ptr();
            // SAFETY: the vector is longer than `shift + len`.
            unsafe { to_shared(base.add(shift), &source) };
            let mut back = vec![MaybeUninit::new(0); len];
            // SAFETY: as above.
            unsafe { from_shared(&mut back, base.add(shift)) };
            // SAFETY: `from_shared` filled it all.
            let back: Vec<u8> = back.iter().map(|byte| unsafe { byte.assume_init() }).collect();
            assert_eq!(back, source);
            let (before, after) = (&shared[..shift], &shared[shift + len..]);
            assert!(
                before.iter().chain(after).all(|byte| *byte == 0xAA),
                "nothing else is touched"
            );
        }
    }
}
