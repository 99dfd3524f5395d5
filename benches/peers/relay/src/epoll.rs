//! A relay that waits by epoll, as a server of many connections does without io_uring: a wait, a
//! receive and a send for each message.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

const MESSAGE_MAX: usize = 4096;

/// Passes on what comes on one to the other, until one of them ends.
pub fn pass_on(client: &UnixStream, worker: &UnixStream) -> io::Result<()> {
    let ends = [client, worker];
    let epoll = epoll(&ends)?;
    let mut message = [0; MESSAGE_MAX];
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 8];
    loop {
        // SAFETY: the kernel writes at most so many events.
        let ready = unsafe {
            libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, -1)
        };
        let ready = usize::try_from(ready).map_err(|_| io::Error::last_os_error())?;
        for event in &events[..ready] {
            let from = event.u64 as usize;
            let count = (&mut &*ends[from]).read(&mut message)?;
            if count == 0 {
                return Ok(());
            }
            (&mut &*ends[1 - from]).write_all(&message[..count])?;
        }
    }
}

fn epoll(ends: &[&UnixStream; 2]) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if epoll == -1 {
        return Err(io::Error::last_os_error());
    }
    for (from, end) in ends.iter().enumerate() {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: from as u64 };
        // SAFETY: the kernel reads one event of this stack.
        if unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, end.as_raw_fd(), &raw mut event) }
            == -1
        {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: it was made above, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(epoll) })
}
