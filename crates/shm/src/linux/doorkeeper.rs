//! Waits for the one application of a face, on a thread, and turns away all others.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::getuid;

use crate::error::{Refusal, ShmError};
use crate::linux::bell::Bell;
use crate::linux::face::PeerPart;
use crate::linux::name::Listening;
use crate::linux::offer::Offer;
use crate::linux::pass::send_offer;

/// The thread, which ends with the first application or with this.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    stop: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl Doorkeeper {
    pub(crate) fn new(listening: Listening, peer: PeerPart) -> Result<Self, ShmError> {
        let stop = Arc::new(Bell::new()?);
        let stopped = Arc::clone(&stop);
        let thread = Builder::new()
            .name("remuda-shm".to_owned())
            .spawn(move || serve(listening, peer, &stopped))
            .map_err(ShmError::system("start the thread that waits for the application"))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Doorkeeper {
    fn drop(&mut self) {
        self.stop.ring();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say, and a panic of it has been printed.
            let _ = thread.join();
        }
    }
}

fn serve(mut listening: Listening, peer: PeerPart, stop: &Bell) {
    let Some(application) = await_application(&listening, stop) else { return };
    // Whoever hears of the pair must find the name free.
    listening.unlink();
    // If it fails the application has left already, and the face is told by its socket.
    let _ = peer.hand_over(&application);
    while let Ok((late, _)) = listening.listener.accept() {
        refuse(&late, Refusal::Taken);
    }
}

/// The first application of this user's, or `None` when there will be none.
fn await_application(listening: &Listening, stop: &Bell) -> Option<UnixStream> {
    loop {
        let mut ready =
            [PollFd::new(&listening.listener, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut ready, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
            Ok(_) if !ready[1].revents().is_empty() => return None,
            Ok(_) => {}
        }
        match listening.listener.accept() {
            Ok((application, _)) if is_own(&application) => return Some(application),
            Ok((stranger, _)) => refuse(&stranger, Refusal::WrongUser),
            Err(error) if is_passing(&error) => {}
            Err(_) => return None,
        }
    }
}

/// Whether the process at the other end runs as this user.
pub(crate) fn is_own(socket: impl AsFd) -> bool {
    socket_peercred(socket).is_ok_and(|peer| peer.uid == getuid())
}

/// Tells an application that there is no pair for it. One that has left already needs no answer.
pub(crate) fn refuse(application: &UnixStream, reason: Refusal) {
    let _ = send_offer(application.as_fd(), Offer::Refused(reason), &[]);
}

/// Whether accepting may work next time.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted)
}
