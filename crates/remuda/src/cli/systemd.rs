//! What systemd hands over and wants to be told.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use sd_notify::NotifyState;

/// A socket that systemd opened for this process.
pub(crate) enum Inherited {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Tells systemd of the service's state; without systemd, nothing happens.
pub(crate) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd was not told: {error}");
    }
}

/// The sockets that systemd opened for this process (LISTEN_FDS, LISTEN_PID). Called before
/// anything is started: from here on they are not passed on.
pub(crate) fn listeners() -> Vec<Inherited> {
    let mut inherited = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for place in 0..inherited.len() {
        if let Ok(Some(listener)) = inherited.take_unix_listener(place) {
            listeners.push(Inherited::Unix(listener));
            continue;
        }
        match inherited.take_tcp_listener(place) {
            Ok(Some(listener)) => listeners.push(Inherited::Tcp(listener)),
            Ok(None) => {}
            Err(_) => tracing::warn!(
                "socket {place} of LISTEN_FDS is not used: it is no Unix or TCP stream socket"
            ),
        }
    }
    listeners
}
