//! Copies in assembly, which the compiler knows nothing of.

use std::arch::asm;
use std::mem::MaybeUninit;

/// From here on the string instruction is faster than registers.
const STRING_MIN: usize = 256;

/// # Safety
///
/// As [`super::to_shared`].
#[inline]
pub(super) unsafe fn to_shared(to: *mut u8, from: &[u8]) {
    // SAFETY: both are valid for so many bytes, as the caller promises and the slice says.
    unsafe { copy(to, from.as_ptr(), from.len()) }
}

/// # Safety
///
/// As [`super::from_shared`].
#[inline]
pub(super) unsafe fn from_shared(to: &mut [MaybeUninit<u8>], from: *mut u8) {
    // SAFETY: both are valid for so many bytes, as the slice says and the caller promises.
    unsafe { copy(to.as_mut_ptr().cast(), from, to.len()) }
}

/// Short copies end with a piece that reaches back over the one before, which takes no loop for
/// what is no whole register. Those bytes are copied twice, and the later copy stands.
///
/// # Safety
///
/// `to` is valid for writes and `from` for reads of `len` bytes, and they don't overlap.
#[inline]
unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: each piece lies within the `len` bytes, which are valid on both sides.
    unsafe {
        match len {
            STRING_MIN.. => string(to, from, len),
            16.. => {
                let mut at = 0;
                while at + 16 < len {
                    piece16(to.add(at), from.add(at));
                    at += 16;
                }
                piece16(to.add(len - 16), from.add(len - 16));
            }
            8.. => {
                piece8(to, from);
                piece8(to.add(len - 8), from.add(len - 8));
            }
            _ => (0..len).for_each(|at| piece1(to.add(at), from.add(at))),
        }
    }
}

/// # Safety
///
/// As [`copy`], of 16 bytes.
#[inline]
unsafe fn piece16(to: *mut u8, from: *const u8) {
    // SAFETY: the instructions read and write 16 bytes at any address, which are valid.
    unsafe {
        asm!(
            "movdqu {piece}, [{from}]",
            "movdqu [{to}], {piece}",
            piece = out(xmm_reg) _,
            from = in(reg) from,
            to = in(reg) to,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
///
/// As [`copy`], of 8 bytes.
#[inline]
unsafe fn piece8(to: *mut u8, from: *const u8) {
    // SAFETY: the instructions read and write 8 bytes at any address, which are valid.
    unsafe {
        asm!(
            "mov {piece}, [{from}]",
            "mov [{to}], {piece}",
            piece = out(reg) _,
            from = in(reg) from,
            to = in(reg) to,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
///
/// As [`copy`], of one byte.
#[inline]
unsafe fn piece1(to: *mut u8, from: *const u8) {
    // SAFETY: the instructions read and write one byte, which is valid.
    unsafe {
        asm!(
            "mov {piece}, [{from}]",
            "mov [{to}], {piece}",
            piece = out(reg_byte) _,
            from = in(reg) from,
            to = in(reg) to,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
///
/// As [`copy`].
#[inline]
unsafe fn string(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the instruction reads and writes exactly `len` bytes, which are valid; the
    // direction flag is clear by the calling convention.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
}
