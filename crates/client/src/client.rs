//! A client that many tasks share, and that survives its peers' restarts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use remuda_protocol::{Address, Offer, Raw};
use remuda_reconnect::{Backoff, RetryBudget};
use remuda_reconnect::{LinkState, Retry, Sleep, Stopper, TokioSleep, Watch, random_seed, run};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::answer::Answered;
use crate::link::{Keeper, Link, Outcome, Refused, Request};
use crate::links::Links;
use crate::remaining::millis;
use crate::{CallError, CallOptions, ClientOptions, ConnectError, Json};

/// How much longer than its deadline a call waits for the peer's own answer, which says more than
/// the client can know.
pub const DEADLINE_GRACE: Duration = Duration::from_millis(100);

/// How much of the retry budget's time a client has behind it when it starts: without any, a link
/// that breaks early would find nothing saved up.
const BUDGET_HEAD_START: Duration = Duration::from_secs(1);

/// Calls a pool, or several, or a worker: from any number of tasks, pipelined over one connection
/// to each.
///
/// Clones are cheap and share the connections, which are closed when the last clone is dropped.
///
/// - A call waits for a link, up to its deadline; a link that breaks is made anew, with growing,
///   random delays.
/// - A job that may have run is never sent twice, unless the call is
///   [`idempotent`](CallOptions::idempotent). What was under way when a link broke ends with
///   [`CallError::LinkLost`]; what hadn't been handed to the link yet is sent on the next one.
/// - A peer that speaks another version, or refuses the token, is not asked again: calls fail with
///   [`CallError::Unreachable`].
/// - At most [`in_flight_max`](ClientOptions::in_flight_max) requests are under way on a link;
///   further callers wait in the order they came.
///
/// ```no_run
/// use remuda_client::{CallOptions, Client};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect("unix:/run/pool.sock".parse()?).await?;
/// let shout: String = client.call("abc").await?;
///
/// let soon = CallOptions::new().deadline(Duration::from_millis(250));
/// let (a, b) = tokio::join!(client.call_with("a", soon), client.call_with("b", soon));
/// let (a, b): (String, String) = (a?, b?);
/// # Ok(()) }
/// ```
///
/// # Cancel safety
///
/// Every method's future can be dropped at any time. A call that was dropped under way is cancelled
/// at the peer, if the peer takes that, and no other call notices.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    links: Links,
    call: CallOptions,
    max_body_bytes: usize,
    budget: Mutex<RetryBudget>,
    clock: TokioSleep,
    stopper: Stopper,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stopper.stop();
    }
}

impl Client {
    /// A client of the peer at `address`, with default options; see [`ClientOptions::connect`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the first attempt failed.
    pub async fn connect(address: Address) -> Result<Client, ConnectError> {
        ClientOptions::new().address(address).connect().await
    }

    /// A client of this user's default pool; see [`ClientOptions::address`].
    ///
    /// # Errors
    ///
    /// [`ConnectError::NoPool`], which names the addresses that were tried.
    pub async fn connect_default() -> Result<Client, ConnectError> {
        ClientOptions::new().connect().await
    }

    pub(crate) fn start(options: ClientOptions) -> Result<Client, ConnectError> {
        let changes = Arc::new(Notify::new());
        let stopper = Stopper::new();
        let mut links = Vec::new();
        for target in options.targets()? {
            let make = || Backoff::new(random_seed());
            let backoff = options.backoff.as_ref().map_or_else(make, |make| make());
            let retry = Retry::new(backoff, TokioSleep::new());
            let link = Arc::new(Link::new(
                &target.label(),
                options.in_flight_max,
                Arc::clone(&changes),
                retry.watch(),
            ));
            let token = options.token_for(&target);
            let keeper =
                Keeper::new(Arc::clone(&link), target, token, options.max_body_bytes, retry);
            let stopper = stopper.clone();
            // What the loop ends with is kept in the link.
            tokio::spawn(async move { stopper.race(run(keeper)).await });
            links.push(link);
        }
        let shared = Shared {
            links: Links::new(links, changes),
            call: options.call,
            max_body_bytes: options.max_body_bytes,
            budget: Mutex::new(options.budget),
            clock: TokioSleep::new(),
            stopper,
        };
        Ok(Client { shared: Arc::new(shared) })
    }

    /// Waits until a link is up.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the last attempt at each address failed; further ones may follow.
    pub async fn ready(&self) -> Result<(), ConnectError> {
        self.shared.links.first_up().await
    }

    /// Runs one job: `body` as JSON, its result read from JSON.
    ///
    /// # Errors
    ///
    /// [`CallError`]; its [`may_have_run`](CallError::may_have_run) says whether the job may have
    /// run.
    pub async fn call<T, R>(&self, body: &T) -> Result<R, CallError>
    where
        T: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.call_with(body, CallOptions::new()).await
    }

    /// [`call`](Self::call) with options of its own.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn call_with<T, R>(&self, body: &T, options: CallOptions) -> Result<R, CallError>
    where
        T: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let body = serde_json::to_vec(body).map_err(|error| CallError::Encode(Arc::new(error)))?;
        let result = self.run_job(&body, options).await?;
        result.parse().map_err(|error| CallError::Decode(Arc::new(error)))
    }

    /// Runs one job whose body is JSON text, and gives its result as JSON text.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call), and [`CallError::BadBody`] if `body` is not one JSON value.
    pub async fn call_raw(&self, body: &str, options: CallOptions) -> Result<Json, CallError> {
        let body = Raw::new(body.as_bytes()).map_err(CallError::BadBody)?;
        self.run_job(body.as_bytes(), options).await
    }

    async fn run_job(&self, body: &[u8], options: CallOptions) -> Result<Json, CallError> {
        let (bytes, max) = (body.len(), self.shared.max_body_bytes);
        if bytes > max {
            return Err(CallError::TooLarge { bytes, max });
        }
        let options = options.or(self.shared.call);
        let deadline = options.deadline.and_then(|limit| Instant::now().checked_add(limit));
        let retry = options.idempotent.unwrap_or(false);
        let request = Request::Call { body, deadline };
        self.answered(request, options.deadline, deadline, retry).await?.result()
    }

    /// What the pool says of itself: the `data` of its answer, as `remuda status --json` prints it.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call), and [`CallError::SeveralPeers`] if the client has several
    /// addresses.
    pub async fn status(&self) -> Result<Json, CallError> {
        // Asking twice does no harm.
        self.ask(Request::Status, "status", true).await
    }

    /// Replaces all workers of the pool by fresh ones; ends when that is done. The listener must
    /// have `role=admin`.
    ///
    /// # Errors
    ///
    /// As [`status`](Self::status); if the fresh workers don't become ready, the old ones stay.
    pub async fn reset(&self) -> Result<Json, CallError> {
        self.ask(Request::Reset, "reset", false).await
    }

    /// Lets the pool finish what it has accepted, and end. The listener must have `role=admin`.
    ///
    /// # Errors
    ///
    /// As [`status`](Self::status).
    pub async fn shutdown(&self) -> Result<Json, CallError> {
        self.ask(Request::Shutdown, "shutdown", false).await
    }

    async fn ask(&self, request: Request<'_>, kind: &str, retry: bool) -> Result<Json, CallError> {
        let links = self.shared.links.all().len();
        if links > 1 {
            return Err(CallError::SeveralPeers { links });
        }
        let limit = self.shared.call.deadline;
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        self.answered(request, limit, deadline, retry).await?.data(kind)
    }

    /// The links, in the order of the addresses.
    pub fn links(&self) -> impl ExactSizeIterator<Item = LinkView> + '_ {
        self.shared.links.all().iter().map(|link| LinkView { link: Arc::clone(link) })
    }

    /// Sends a request until it has an answer, or may not be sent again.
    async fn answered(
        &self,
        request: Request<'_>,
        limit: Option<Duration>,
        deadline: Option<Instant>,
        retry: bool,
    ) -> Result<Answered, CallError> {
        let sent = AtomicBool::new(false);
        let exchange = self.exchange(request, retry, &sent);
        let late = match deadline {
            None => {
                return exchange
                    .await
                    .unwrap_or(Err(CallError::Unreachable(ConnectError::RuntimeEnded)));
            }
            Some(deadline) => timeout_at(deadline + DEADLINE_GRACE, exchange).await,
        };
        if let Ok(Some(done)) = late {
            return done;
        }
        let sent = sent.load(Ordering::Relaxed);
        let because = if sent { None } else { self.shared.links.why_none() };
        Err(CallError::Timeout { limit_ms: limit.map_or(0, millis), sent, because })
    }

    /// `None`: its deadline passed before it could be sent. `sent` says whether it may have run.
    async fn exchange(
        &self,
        request: Request<'_>,
        retry: bool,
        sent: &AtomicBool,
    ) -> Option<Result<Answered, CallError>> {
        loop {
            let link = match self.shared.links.pick().await {
                Ok(link) => link,
                Err(error) => return Some(Err(CallError::Unreachable(error))),
            };
            let Ok(permit) = link.permit().await else { continue };
            let ticket = match link.submit(request, permit) {
                Ok(ticket) => ticket,
                Err(Refused::Away) => continue,
                Err(Refused::TooLate) => return None,
            };
            let before = sent.swap(true, Ordering::Relaxed);
            match ticket.await {
                Outcome::Answered(answered) => {
                    if retry {
                        self.budget(|budget, _| budget.deposit());
                    }
                    return Some(Ok(answered));
                }
                Outcome::NotSent => sent.store(before, Ordering::Relaxed),
                Outcome::Lost(_) if retry && self.budget(RetryBudget::withdraw) => {}
                Outcome::Lost(because) => {
                    let address = Arc::clone(link.label());
                    return Some(Err(CallError::LinkLost { address, because }));
                }
            }
        }
    }

    fn budget<A>(&self, act: impl FnOnce(&mut RetryBudget, Duration) -> A) -> A {
        let mut budget = self.shared.budget.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut budget, self.shared.clock.now() + BUDGET_HEAD_START)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.links()).finish()
    }
}

/// What can be seen of one of a client's links.
#[derive(Clone)]
pub struct LinkView {
    link: Arc<Link>,
}

impl LinkView {
    /// The address that it leads to.
    #[must_use]
    pub fn address(&self) -> &str {
        self.link.label()
    }

    /// What it does: connecting, connected, waiting, failed.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.link.watch().latest()
    }

    /// Shows each change of [`state`](Self::state).
    #[must_use]
    pub fn watch(&self) -> Watch<LinkState> {
        self.link.watch()
    }

    /// What the peer declared about itself; `None` while the link is down.
    #[must_use]
    pub fn offer(&self) -> Option<Arc<Offer>> {
        self.link.offer()
    }

    /// How many requests are under way, those included that were dropped and not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.link.in_flight()
    }
}

impl std::fmt::Debug for LinkView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.address(), self.state())
    }
}
