//! Copying bytes into and out of memory that another process may write at the same time.
//!
//! An ordinary `memcpy` may assume that nobody else writes, so the copy is done in assembly, which
//! the compiler knows nothing of, or in relaxed atomic words. Bytes that the peer changes meanwhile
//! arrive as some mixture of both; nothing else can happen.

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod assembly;
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod words;

use std::mem::MaybeUninit;

#[cfg(all(target_arch = "x86_64", not(miri)))]
use self::assembly as sys;
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
use self::words as sys;

/// Copies `from` to `to` in shared memory.
///
/// # Safety
///
/// `to` is valid for writes of `from.len()` bytes.
#[inline]
pub(crate) unsafe fn to_shared(to: *mut u8, from: &[u8]) {
    // SAFETY: what it asks for is what the caller promises.
    unsafe { sys::to_shared(to, from) }
}

/// Fills `to` with the bytes at `from` in shared memory.
///
/// # Safety
///
/// `from` is valid for reads of `to.len()` bytes.
#[inline]
pub(crate) unsafe fn from_shared(to: &mut [MaybeUninit<u8>], from: *mut u8) {
    // SAFETY: what it asks for is what the caller promises.
    unsafe { sys::from_shared(to, from) }
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
