//! What systemd hands over and wants to be told.

use std::os::unix::net::UnixListener;

use sd_notify::NotifyState;

/// Tells systemd of the service's state; without systemd, nothing happens.
pub(crate) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd was not told: {error}");
    }
}

/// The Unix sockets that systemd opened for this process (LISTEN_FDS, LISTEN_PID). The variables
/// are taken out of the environment: workers never see them.
pub(crate) fn listeners() -> Vec<UnixListener> {
    let mut inherited = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for place in 0..inherited.len() {
        match inherited.take_unix_listener(place) {
            Ok(Some(listener)) => listeners.push(listener),
            Ok(None) => {}
            Err(error) => eprintln!("remuda: socket {place} of LISTEN_FDS is not used: {error}"),
        }
    }
    listeners
}
