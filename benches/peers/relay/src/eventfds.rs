//! The wake-ups of a call and nothing else: client -> middle -> worker -> middle -> client, three
//! processes that wake each other by eventfds. With all asleep that is four wake-ups; where the middle
//! spins, a client and a worker that change a word in shared memory need not wake it, and there are
//! two.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::timed;

/// What the client and the worker write for a middle that spins, a cache line each.
#[repr(C)]
struct Words {
    call: Word,
    answer: Word,
}

#[repr(C, align(128))]
struct Word(AtomicU32);

impl Word {
    fn set(&self, value: u32) {
        self.0.store(value, Ordering::Release);
    }

    fn await_change(&self, from: u32) -> u32 {
        loop {
            match self.0.load(Ordering::Acquire) {
                value if value == from => std::hint::spin_loop(),
                value => return value,
            }
        }
    }
}

/// Measures round trips.
pub fn measure(spinning: bool) -> io::Result<()> {
    let (to_middle, to_worker) = (eventfd()?, eventfd()?);
    let (from_worker, to_client) = (eventfd()?, eventfd()?);
    let words = words()?;
    if spinning {
        child(|| spin(words, &to_worker, &to_client))?;
        child(|| {
            for call in 1.. {
                wait(&to_worker)?;
                words.answer.set(call);
            }
            Ok(())
        })?;
    } else {
        child(|| {
            loop {
                wait(&to_middle)?;
                wake(&to_worker)?;
                wait(&from_worker)?;
                wake(&to_client)?;
            }
        })?;
        child(|| {
            loop {
                wait(&to_worker)?;
                wake(&from_worker)?;
            }
        })?;
    }
    let mut call = 0;
    timed(|| {
        call += 1;
        if spinning {
            words.call.set(call)
        } else {
            wake(&to_middle)?
        }
        wait(&to_client)
    })
}

/// The middle that never sleeps.
fn spin(words: &Words, worker: &File, client: &File) -> io::Result<()> {
    let (mut call, mut answer) = (0, 0);
    loop {
        call = words.call.await_change(call);
        wake(worker)?;
        answer = words.answer.await_change(answer);
        wake(client)?;
    }
}

fn eventfd() -> io::Result<File> {
    // SAFETY: no memory is involved.
    match unsafe { libc::eventfd(0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: it is this process's own, and nobody else has it.
        fd => Ok(unsafe { File::from_raw_fd(fd) }),
    }
}

fn wake(mut bell: &File) -> io::Result<()> {
    bell.write_all(&1_u64.to_ne_bytes())
}

fn wait(mut bell: &File) -> io::Result<()> {
    bell.read_exact(&mut [0; 8])
}

/// A process that does this for as long as its parent lives.
pub fn child(work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    // SAFETY: there is one thread, so that the child may do whatever this process may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: no memory is involved.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            std::process::exit(i32::from(work().is_err()))
        }
        _ => Ok(()),
    }
}

fn words() -> io::Result<&'static Words> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let memory =
        unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Words>(), access, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed, page-aligned, large enough, and never unmapped.
    Ok(unsafe { &*memory.cast() })
}
