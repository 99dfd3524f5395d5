//! What a client is told before it connects, and what a call is told.

use std::sync::Arc;
use std::time::Duration;

use remuda_protocol::{Address, AddressError, MAX_BODY_BYTES_DEFAULT};
use remuda_reconnect::{Backoff, RetryBudget};

use crate::target::{TOKEN_VARIABLE, Target};
use crate::{Client, ConnectError};

/// How many requests may be under way on one link unless told otherwise.
pub const IN_FLIGHT_MAX_DEFAULT: usize = 1024;

/// The most that [`ClientOptions::in_flight_max`] takes.
const IN_FLIGHT_MAX: usize = 1 << 16;

/// What a [`Client`] is told before it connects.
///
/// ```
/// use remuda_client::ClientOptions;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let options = ClientOptions::new()
///     .address("unix:/run/one.sock".parse()?)
///     .address("unix:/run/two.sock".parse()?)
///     .deadline(Duration::from_secs(5))
///     .in_flight_max(256);
/// # drop(options); Ok(()) }
/// ```
#[derive(Clone)]
pub struct ClientOptions {
    pub(crate) addresses: Vec<Address>,
    pub(crate) token: Option<String>,
    pub(crate) call: CallOptions,
    pub(crate) in_flight_max: usize,
    pub(crate) max_body_bytes: usize,
    pub(crate) backoff: Option<Arc<dyn Fn() -> Backoff + Send + Sync>>,
    pub(crate) budget: RetryBudget,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            addresses: Vec::new(),
            token: None,
            call: CallOptions::new(),
            in_flight_max: IN_FLIGHT_MAX_DEFAULT,
            max_body_bytes: MAX_BODY_BYTES_DEFAULT,
            backoff: None,
            budget: RetryBudget::new(),
        }
    }
}

impl ClientOptions {
    /// The defaults: the default address, no deadline, nothing sent twice.
    #[must_use]
    pub fn new() -> ClientOptions {
        ClientOptions::default()
    }

    /// Adds an address. With several, each call goes to the less loaded of two that are chosen at
    /// random among those whose links are up.
    ///
    /// Default: that in `REMUDA_ADDR`, else `default.sock` in `$XDG_RUNTIME_DIR/remuda`, else in
    /// `/tmp/remuda-UID`.
    #[must_use]
    pub fn address(mut self, address: Address) -> ClientOptions {
        self.addresses.push(address);
        self
    }

    /// The token for listeners that ask for one. Default: the first line of the address's
    /// `token_file`, read at each attempt, else that in `REMUDA_TOKEN`, else none.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> ClientOptions {
        self.token = Some(token.into());
        self
    }

    /// How long a call may take, waiting for a link included, unless the call says otherwise.
    /// Default: for ever.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> ClientOptions {
        self.call.deadline = Some(limit);
        self
    }

    /// Whether a job may run twice, unless the call says otherwise; see
    /// [`CallOptions::idempotent`]. Default: no.
    #[must_use]
    pub const fn idempotent(mut self, idempotent: bool) -> ClientOptions {
        self.call.idempotent = Some(idempotent);
        self
    }

    /// How many requests may be under way on one link; further callers wait. At least 1, at most
    /// 65,536. Default: [`IN_FLIGHT_MAX_DEFAULT`].
    #[must_use]
    pub fn in_flight_max(mut self, requests: usize) -> ClientOptions {
        self.in_flight_max = requests.clamp(1, IN_FLIGHT_MAX);
        self
    }

    /// The largest body that is sent and result that is taken, in bytes. Default: 16 MiB, as a
    /// pool's.
    #[must_use]
    pub const fn max_body_bytes(mut self, bytes: usize) -> ClientOptions {
        self.max_body_bytes = bytes;
        self
    }

    /// Makes the delays between attempts to connect: called once for each link, which needs a seed
    /// of its own. Default: [`Backoff::new`] with a random seed, which never gives up.
    #[must_use]
    pub fn backoff(mut self, make: impl Fn() -> Backoff + Send + Sync + 'static) -> ClientOptions {
        self.backoff = Some(Arc::new(make));
        self
    }

    /// What pays for sending idempotent jobs again, shared by all links of this client and its
    /// clones. Default: a fifth of those that succeed, and ten a second.
    #[must_use]
    pub fn retry_budget(mut self, budget: RetryBudget) -> ClientOptions {
        self.budget = budget;
        self
    }

    /// A client whose first link is up.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the first attempt at each address failed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let client = self.start()?;
        client.ready().await?;
        Ok(client)
    }

    /// A client that connects in the background: its calls wait for a link, up to their deadlines.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Unusable`] if `REMUDA_ADDR` is needed and holds no address.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled.
    pub fn start(self) -> Result<Client, ConnectError> {
        Client::start(self)
    }

    pub(crate) fn targets(&self) -> Result<Vec<Target>, ConnectError> {
        if !self.addresses.is_empty() {
            return Ok(self.addresses.iter().cloned().map(Target::one).collect());
        }
        let target = Target::by_default().map_err(|error: AddressError| {
            let reason = error.to_string();
            ConnectError::Unusable { address: "REMUDA_ADDR".to_owned(), reason }
        })?;
        Ok(vec![target])
    }

    pub(crate) fn token_for(&self, target: &Target) -> Option<String> {
        let has_file =
            target.candidates().iter().any(|address| address.access().token_file.is_some());
        let from_environment =
            || std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty() && !has_file);
        self.token.clone().or_else(from_environment)
    }
}

impl std::fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the token, which logs mustn't show.
        f.debug_struct("ClientOptions")
            .field("addresses", &self.addresses)
            .field("call", &self.call)
            .field("in_flight_max", &self.in_flight_max)
            .field("max_body_bytes", &self.max_body_bytes)
            .finish_non_exhaustive()
    }
}

/// What one call is told. What it leaves open is as the client's options say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallOptions {
    pub(crate) deadline: Option<Duration>,
    pub(crate) idempotent: Option<bool>,
}

impl CallOptions {
    /// All as the client's options say.
    #[must_use]
    pub const fn new() -> CallOptions {
        CallOptions { deadline: None, idempotent: None }
    }

    /// How long the call may take, counted from when it is first polled: waiting for a link and
    /// for room on it, the pool's queue, and the job itself. The peer is told what remains of it.
    #[must_use]
    pub const fn deadline(mut self, limit: Duration) -> CallOptions {
        self.deadline = Some(limit);
        self
    }

    /// The job may run twice: when a link breaks under it, it is sent again, as far as the retry
    /// budget goes. Without it, a job that may have run is never sent again.
    #[must_use]
    pub const fn idempotent(mut self, idempotent: bool) -> CallOptions {
        self.idempotent = Some(idempotent);
        self
    }

    pub(crate) fn or(self, default: CallOptions) -> CallOptions {
        CallOptions {
            deadline: self.deadline.or(default.deadline),
            idempotent: self.idempotent.or(default.idempotent),
        }
    }
}
