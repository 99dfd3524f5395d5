//! The end of a pool as other pools see it that pass calls on to it: they are told which calls were
//! never read, so that these run elsewhere and none is given up for lost.

use std::task::{Poll, Waker};
use std::time::Duration;

use remuda_protocol::{Code, encode};

use crate::core::Core;
use crate::pool::Pool;

/// How long a pool that has ended waits for other pools to close their links: 1 s.
const FAREWELL: Duration = Duration::from_secs(1);

impl Pool {
    /// Tells pools that pass calls on to this one, which [has drained](Self::drained), that it has
    /// begun none that it has not answered, and waits up to a second until they have let go.
    ///
    /// # Cancel safety
    /// What is told is told at the first poll; who drops the future waits no more.
    pub async fn part(&self) {
        self.0.core.borrow_mut().part();
        let parted =
            std::future::poll_fn(|context| self.0.core.borrow_mut().poll_parted(context.waker()));
        // Whoever hasn't let go by then finds the link down.
        let _ = remuda_net::timeout(FAREWELL, parted).await;
    }
}

impl Core {
    fn part(&mut self) {
        self.scratch.clear();
        let message = "the pool has ended: what it has not answered it has not begun";
        encode::error(&mut self.scratch, None, Code::Draining, message);
        for (_, client) in self.clients.iter_mut().filter(|(_, client)| client.relays) {
            client.parting = true;
            client.send(&self.scratch);
        }
    }

    fn poll_parted(&mut self, waker: &Waker) -> Poll<()> {
        if !self.clients.iter_mut().any(|(_, client)| client.parting) {
            return Poll::Ready(());
        }
        self.watchers.push(waker.clone());
        Poll::Pending
    }
}
