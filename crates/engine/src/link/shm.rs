//! The calling side of rings: how the pool reaches a peer that listens in shared memory.

use std::rc::Rc;

use remuda_shm::{ShmError, SpscHandle, runtime_dir};

use crate::link::attached::Trouble;
use crate::rings::{self, Rings};

/// Takes a pair of rings from whoever listens under `name`. The peer makes them, in its own shape.
///
/// It blocks for a bounded time while the peer hands the memory over, so it is done on a thread for
/// blocking work. Dropping the future lets that run on, and drops what came of it.
pub(crate) async fn connect(name: &str) -> Result<Rc<Rings>, Trouble> {
    let name = name.to_owned();
    let connecting = remuda_net::spawn_blocking(move || {
        SpscHandle::connect_in(&runtime_dir(), &name, &rings::options())
    });
    let handle: Result<SpscHandle, ShmError> = connecting.await?;
    let rings = Rc::new(Rings::new(handle?.into_split())?);
    rings.watch_peer()?;
    Ok(rings)
}
