//! Listeners in shared memory: each that connects under the name gets a pair of rings of its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use remuda_net::{Either, Notifier, ReadyFd};
use remuda_shm::{ShmError, SpscFace, SpscListener};

use crate::error::PoolError;
use crate::front::listener::Gate;
use crate::front::serving;
use crate::pool::Pool;
use crate::rings::{self, Rings};
use crate::wire::Wire;

/// How many connections a listener in shared memory has at once. Further ones are refused. Each
/// takes at most 2 MiB of memory for its rings, and five descriptors.
const RINGS_CONNECTIONS_LIMIT: usize = 256;
/// How long accepting pauses when the process is out of memory or descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A name that is listened under.
#[derive(Debug)]
pub(super) struct Door(Rc<Inner>);

struct Inner {
    listener: RefCell<Option<SpscListener>>,
    closed: Notifier,
    connections: Rc<Cell<usize>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Door {
    /// Listens under `name`, and serves all who connect as clients of `pool`.
    pub(super) fn open(pool: Pool, name: &str, gate: Gate) -> Result<Self, PoolError> {
        let failed = |error| match error {
            ShmError::UnsafeDirectory { path } => PoolError::UnsafeDirectory(path.into()),
            error => {
                let address = format!("shm:{name}");
                PoolError::Listen { address, source: std::io::Error::other(error) }
            }
        };
        let listener = SpscListener::bind(name, rings::options()).map_err(failed)?;
        let readable = ReadyFd::readable(&listener)?;
        let inner = Rc::new(Inner {
            listener: RefCell::new(Some(listener)),
            closed: Notifier::new(),
            connections: Rc::default(),
        });
        remuda_net::spawn(accept(pool, inner.clone(), readable, gate));
        Ok(Self(inner))
    }

    /// Takes no more connections, and gives the name back.
    pub(super) fn close(&self) {
        drop(self.0.listener.borrow_mut().take());
        self.0.closed.notify();
    }
}

/// Accepts until the door is closed.
async fn accept(pool: Pool, door: Rc<Inner>, readable: ReadyFd, gate: Gate) {
    loop {
        while let Some(next) = door.next(&pool) {
            match next {
                Ok(Some(face)) => serve(&pool, &door, face, &gate),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!("a client could not be given rings: {error}");
                    remuda_net::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        match remuda_net::select(readable.ready(), door.closed.notified()).await {
            Either::First(Ok(())) => {}
            _ => return,
        }
    }
}

impl Inner {
    /// The pair of the next that connects; none once the door is closed.
    fn next(&self, pool: &Pool) -> Option<Result<Option<SpscFace>, ShmError>> {
        let listener = self.listener.borrow();
        let listener = listener.as_ref()?;
        let limit = RINGS_CONNECTIONS_LIMIT;
        if self.connections.get() < limit && pool.0.core.borrow().has_room_for_client() {
            return Some(listener.accept());
        }
        loop {
            match listener.turn_away() {
                Ok(true) => tracing::warn!(
                    "a client was refused: {} have rings, and descriptors are kept for workers",
                    self.connections.get()
                ),
                Ok(false) => return Some(Ok(None)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// One of the connections, as long as it lives.
struct Place(Rc<Cell<usize>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn serve(pool: &Pool, door: &Inner, face: SpscFace, gate: &Gate) {
    let opened = Rings::new(face.into_split()).map(Rc::new).and_then(|rings| {
        rings.watch_peer()?;
        Ok(rings)
    });
    match opened {
        Ok(rings) => {
            door.connections.set(door.connections.get() + 1);
            let place = Place(door.connections.clone());
            let serving = serving::serve_rings(pool.clone(), Wire::Rings(rings), gate.clone());
            remuda_net::spawn(async move {
                serving.await;
                drop(place);
            });
        }
        Err(error) => tracing::warn!("a client's rings can't be watched: {error}"),
    }
}
