//! The link to a peer that runs already, a worker or a whole pool, kept by the reconnect loop.
//!
//! The pool neither starts nor ends such a peer, and never tells it to shut down. While it is
//! away, it takes no job and costs nothing.

use std::cell::Cell;
use std::fmt::Display;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::time::Duration;

use remuda_backoff::Backoff;
use remuda_dispatch::{Exit, WorkerId};
use remuda_net::{ConnCtx, ConnectFuture, Either, Either3, NetError, Notifier};
use remuda_protocol::Address;
use remuda_reconnect::{ConnResult, LinkState, LocalConnector, Retry, RunResult, Sleep, Watch};
use remuda_shm::ShmError;

use crate::core::Core;
use crate::error::PoolError;
use crate::link::process::{self, ProcessLink};
use crate::link::{Link, Transport, shm, tls};
use crate::pool::{Inner, Pool};
use crate::wire::Wire;

/// How long a peer may take to be reached, and to shake hands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a peer is asked how many jobs it runs at once by now, if it can be asked.
const OFFER_EVERY: Duration = Duration::from_secs(2);

/// A peer that was asked, and of which for so many times [`OFFER_EVERY`] nothing at all was seen,
/// is taken as away: its process is stopped, its machine hangs, or it is in an endless loop.
const SILENCE_LIMIT: u32 = 5;

/// A peer, as the pool's status tells of it.
pub(crate) struct Peer {
    pub(crate) worker: WorkerId,
    pub(crate) address: String,
    /// What its link does; times are the pool's.
    pub(crate) link: Watch<LinkState>,
}

/// Keeps the link to a peer, for as long as the pool lives.
pub(crate) async fn keep(attached: Attached) {
    let (pool, worker) = (attached.pool.clone(), attached.worker);
    if let Err(error) = remuda_reconnect::run(attached).await
        && let Some(inner) = pool.upgrade()
    {
        let core = &mut *inner.core.borrow_mut();
        let now = core.now();
        core.dispatch.detach(now, worker);
        let is_mistake = matches!(error, PoolError::AttachedToItself { .. });
        if is_mistake || core.has_no_worker_left() {
            core.fail(error);
        } else {
            // The pool goes on with the workers that it has.
            tracing::error!("{error}; it is not tried again");
        }
        core.carry_out(&[]);
    }
}

impl Core {
    /// Whether it has neither workers of its own nor peers.
    fn has_no_worker_left(&self) -> bool {
        let own = self.config.dispatch.num_workers;
        own == 0 && self.dispatch.snapshot(self.now()).workers.is_empty()
    }
}

/// Looks whether a peer at `address` can be attached to, as far as that can be told without asking
/// it.
pub(crate) fn check(address: &Address) -> Result<(), PoolError> {
    let wrong = match address {
        Address::Unix { .. } | Address::Tcp { .. } => return Ok(()),
        Address::Tls { host, files, .. } => {
            tls::client_config(files).and(tls::server_name(files, host).map(drop)).err()
        }
        Address::Shm { name, .. } => {
            remuda_shm::check_name(name).err().map(|error| error.to_string())
        }
    };
    wrong.map_or(Ok(()), |trouble| Err(PoolError::Attach { address: address.to_string(), trouble }))
}

/// A peer, as the loop drives it.
pub(crate) struct Attached {
    pool: Weak<Inner>,
    worker: WorkerId,
    address: Address,
    name: String,
    token: Option<String>,
    retry: Retry<NetSleep>,
    /// It was logged that the peer can't be reached; it is not said again for each attempt.
    told: bool,
}

impl Attached {
    /// A peer that `pool`, whose state is `core`, is to be attached to.
    pub(crate) fn new(
        pool: &Rc<Inner>,
        core: &mut Core,
        address: Address,
        token: Option<String>,
    ) -> Self {
        let now = core.now();
        let sleep = NetSleep { origin: core.instant(Duration::ZERO) };
        Self {
            pool: Rc::downgrade(pool),
            worker: core.dispatch.attach(now),
            name: address.to_string(),
            address,
            token,
            retry: Retry::new(Backoff::new(remuda_reconnect::random_seed()), sleep),
            told: false,
        }
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer { worker: self.worker, address: self.name.clone(), link: self.retry.watch() }
    }
}

impl LocalConnector for Attached {
    type ConnType = Wire;
    type Error = PoolError;

    async fn connect(&mut self) -> ConnResult<Wire, PoolError> {
        self.retry.connecting();
        match remuda_net::timeout(CONNECT_TIMEOUT, connect(&self.address)).await {
            Ok(Ok(wire)) => ConnResult::Connected(wire),
            Ok(Err(error)) => {
                self.failed(error);
                ConnResult::Reconnect
            }
            Err(_) => {
                self.failed("it could not be reached in time");
                ConnResult::Reconnect
            }
        }
    }

    async fn run(&mut self, wire: Wire) -> RunResult<PoolError> {
        let Some(pool) = self.pool.upgrade().map(Pool) else { return RunResult::Exit(Ok(())) };
        let shaken = Notifier::new();
        if let Err(error) = open(&pool, self.worker, wire.clone(), self.token.as_deref(), &shaken) {
            self.failed(error);
            return RunResult::Reconnect;
        }
        let heard = Cell::new(false);
        let read = process::read_attached(pool.clone(), self.worker, wire.clone(), &heard);
        let mut read = pin!(read);
        let mut was_silent = false;
        let silence = remuda_net::sleep(CONNECT_TIMEOUT);
        let because = match remuda_net::select3(shaken.notified(), silence, &mut read).await {
            Either3::First(()) => {
                self.retry.connected();
                self.told = false;
                tracing::info!("attached to {}", self.name);
                let silent = ask_offers(&pool, self.worker, &wire, &heard);
                let ended = remuda_net::select(read, silent).await;
                was_silent = matches!(ended, Either::Second(()));
                "the link is down"
            }
            Either3::Second(()) => "it did not answer the handshake",
            Either3::Third(()) => "it closed the connection before hands were shaken",
        };
        wire.close();
        let next = self.ended(&pool, because);
        if was_silent {
            self.went_silent();
        }
        next
    }

    async fn retry_delay(&mut self) -> RunResult<PoolError> {
        if self.pool.upgrade().is_none() {
            return RunResult::Exit(Ok(()));
        }
        match self.retry.delay().await {
            Ok(()) => RunResult::Reconnect,
            // The backoff has no end.
            Err(_) => RunResult::Exit(Ok(())),
        }
    }

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

impl Attached {
    /// An attempt failed; the next one follows after a while.
    fn failed(&mut self, because: impl Display) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!("cannot attach to {}: {because}; it is tried again", self.name);
        }
        self.retry.failed(because);
    }

    /// The link stood, and nobody was heard.
    fn went_silent(&mut self) {
        let because =
            format!("it was silent for {:?}, though it was asked", OFFER_EVERY * SILENCE_LIMIT);
        tracing::warn!("{} counts as away: {because}; it is tried again", self.name);
        self.retry.failed(because);
    }

    /// The link is down: its jobs are judged.
    fn ended(&mut self, pool: &Pool, because: &str) -> RunResult<PoolError> {
        let core = &mut *pool.0.core.borrow_mut();
        let now = core.now();
        let link = core.links.remove(self.worker);
        core.dispatch.exited(now, self.worker, Exit::Unknown);
        core.carry_out(&[]);
        match link {
            Some(link) if link.ready => {
                tracing::info!("the link to {} is down", self.name);
                RunResult::Reconnect
            }
            Some(Link { is_itself: true, .. }) => {
                let address = self.name.clone();
                RunResult::Exit(Err(PoolError::AttachedToItself { address }))
            }
            Some(Link { trouble: Some(trouble), hopeless: true, .. }) => {
                RunResult::Exit(Err(PoolError::Attach { address: self.name.clone(), trouble }))
            }
            Some(Link { trouble: Some(trouble), .. }) => {
                self.failed(trouble);
                RunResult::Reconnect
            }
            _ => {
                self.failed(because);
                RunResult::Reconnect
            }
        }
    }
}

/// Asks a peer now and then what it offers by now, until it is silent. Part of a long answer, or
/// of a long call that it takes, is a sign of life too; so a slow network is none of silence.
async fn ask_offers(pool: &Pool, worker: WorkerId, wire: &Wire, heard: &Cell<bool>) {
    let (mut silent, mut unsent) = (0, 0);
    while silent < SILENCE_LIMIT {
        remuda_net::sleep(OFFER_EVERY).await;
        let has_answered = pool.0.core.borrow_mut().ask_offer(worker);
        let was_unsent = std::mem::replace(&mut unsent, wire.unsent());
        let shows_life = heard.take() || unsent != was_unsent;
        silent = if has_answered || shows_life { 0 } else { silent + 1 };
    }
}

/// Sends the handshake on a connection to a peer.
fn open(
    pool: &Pool,
    worker: WorkerId,
    wire: Wire,
    token: Option<&str>,
    shaken: &Notifier,
) -> remuda_net::Result<()> {
    let core = &mut *pool.0.core.borrow_mut();
    let process = ProcessLink::attach(wire, token, &mut core.scratch)?;
    let number = core.next_number();
    let mut link = Link::new(worker, number, 0, Transport::Process(process));
    link.attached = Some(shaken.clone());
    core.links.insert(link);
    Ok(())
}

/// Connects; a name is looked up, and files of TLS are read, each time.
async fn connect(address: &Address) -> Result<Wire, Trouble> {
    let conn = match address {
        Address::Shm { name, .. } => return Ok(Wire::Rings(shm::connect(name).await?)),
        Address::Tcp { host, port, .. } => first_of(host, *port, remuda_net::connect).await,
        Address::Tls { host, port, files, .. } => {
            let config = tls::client_config(files).map_err(NetError::Tls)?;
            let name = tls::server_name(files, host).map_err(NetError::Tls)?;
            let dial = |address| remuda_net::connect_tls_with(address, &config, name, None);
            first_of(host, *port, dial).await
        }
        address => {
            let path = address.unix_path().unwrap_or_else(|| std::path::Path::new(""));
            remuda_net::connect_unix(path)?.await
        }
    };
    Ok(Wire::Socket(conn?))
}

/// Why a peer could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Shm(#[from] ShmError),
}

/// A connection to the first of a host's addresses that can be reached.
async fn first_of(
    host: &str,
    port: u16,
    dial: impl Fn(SocketAddr) -> remuda_net::Result<ConnectFuture>,
) -> remuda_net::Result<ConnCtx> {
    let mut failed = NetError::PeerGone(std::io::ErrorKind::AddrNotAvailable);
    for address in remuda_net::resolve(host, port).await? {
        match dial(address)?.await {
            Ok(conn) => return Ok(conn),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Sleeping on the runtime, for the reconnect loop.
struct NetSleep {
    /// The pool's start.
    origin: std::time::Instant,
}

impl Sleep for NetSleep {
    type Sleeping = remuda_net::Sleep;

    fn now(&self) -> Duration {
        remuda_net::now().saturating_duration_since(self.origin)
    }

    fn sleep(&self, time: Duration) -> remuda_net::Sleep {
        remuda_net::sleep(time)
    }
}
