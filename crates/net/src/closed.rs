//! Which of the standard streams were closed when the program was started.
//!
//! Before `main`, the standard library opens `/dev/null` in their places, and that can't be told
//! from one that whoever started the program gave it. So they are looked at before that, where the
//! C library initialises what is linked into the program.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

/// A bit for each of the descriptors 0 and 1.
static CLOSED: AtomicU8 = AtomicU8::new(0);

// SAFETY: the C library calls each function that stands in this section, once, on the only thread
// that there is. `look` is one of the C ABI, and the arguments that it is given and does not take
// are in registers. It needs nothing that is initialised later.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = look;

extern "C" fn look() {
    for fd in 0..2 {
        // SAFETY: the call asks for a flag of a number, and changes nothing, whatever stands behind it.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            // Nothing else can be wrong with it.
            CLOSED.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
}

/// Whether stdin was open when the program was started.
///
/// # Errors
/// What reading from it would have said, if it was closed.
pub fn stdin_was_open() -> io::Result<()> {
    was_open(0)
}

/// Whether stdout was open when the program was started.
///
/// # Errors
/// What writing to it would have said, if it was closed.
pub fn stdout_was_open() -> io::Result<()> {
    was_open(1)
}

fn was_open(fd: u8) -> io::Result<()> {
    match CLOSED.load(Ordering::Relaxed) & (1 << fd) {
        0 => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EBADF)),
    }
}
