//! Preloaded (`LD_PRELOAD`) into a process, it counts what that asks of the allocator, in a file
//! `PID` in the folder `COUNTER_FOLDER`: eight bytes that another process may read at any time.

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(pointer: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(alignment: usize, size: usize) -> *mut c_void;
}

static BEFORE_OPEN: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicPtr<AtomicU64> = AtomicPtr::new((&raw const BEFORE_OPEN).cast_mut());

fn count() {
    // SAFETY: it points to the static above or to a mapping that is never taken away.
    unsafe { (*COUNT.load(Ordering::Relaxed)).fetch_add(1, Ordering::Relaxed) };
}

#[used]
#[unsafe(link_section = ".init_array")]
static OPEN: extern "C" fn() = open;

/// Maps the file. Nothing here may allocate.
extern "C" fn open() {
    let mut path = [0 as c_char; 512];
    // SAFETY: `snprintf` ends what it writes within the length it is given; the file is as long as
    // the mapping, and the mapping stays.
    unsafe {
        let folder = libc::getenv(c"COUNTER_FOLDER".as_ptr());
        if folder.is_null() {
            return;
        }
        let pid: c_int = libc::getpid();
        libc::snprintf(path.as_mut_ptr(), path.len(), c"%s/%d".as_ptr(), folder, pid);
        let fd = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, 0o600);
        if fd < 0 || libc::ftruncate(fd, 8) != 0 {
            return;
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let memory = libc::mmap(std::ptr::null_mut(), 8, protection, libc::MAP_SHARED, fd, 0);
        libc::close(fd);
        if memory != libc::MAP_FAILED {
            COUNT.store(memory.cast(), Ordering::Relaxed);
        }
    }
}

/// As the C library's.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    count();
    // SAFETY: as the caller's call of the C library's.
    unsafe { __libc_malloc(size) }
}

/// As the C library's.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(number: usize, size: usize) -> *mut c_void {
    count();
    // SAFETY: as the caller's call of the C library's.
    unsafe { __libc_calloc(number, size) }
}

/// As the C library's.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(pointer: *mut c_void, size: usize) -> *mut c_void {
    count();
    // SAFETY: as the caller's call of the C library's.
    unsafe { __libc_realloc(pointer, size) }
}

/// As the C library's.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(
    out: *mut *mut c_void,
    alignment: usize,
    size: usize,
) -> c_int {
    count();
    // SAFETY: as the caller's call of the C library's; `out` is the caller's.
    unsafe {
        let memory = __libc_memalign(alignment, size);
        if memory.is_null() {
            return libc::ENOMEM;
        }
        *out = memory;
    }
    0
}
