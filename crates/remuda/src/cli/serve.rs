//! `remuda serve`: a pool behind listeners, until it is stopped.

use std::error::Error;
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use remuda_engine::{
    Listen, LogSink, Overload, Pool, PoolConfig, PoolError, WorkerKind, runtime_directory,
};
use remuda_net::{Config as NetConfig, Either, Either3, Signals};
use remuda_protocol::Address;
use sd_notify::NotifyState;

use crate::cli::config_file::ConfigFile;
use crate::cli::pool::{PoolArgs, unfit};
use crate::cli::systemd::Inherited;
use crate::cli::worker::WorkerArgs;
use crate::cli::{address, effective, exit, log, number, say, systemd};
use crate::http::{Http, HttpAddress, HttpOptions};
use crate::map::NO_FILTER;

/// Serve a pool of warm workers to other programs, until it is stopped.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// Where to listen: unix:PATH, tcp:HOST:PORT, tls:HOST:PORT or shm:NAME, each with options after
    /// commas; may be given several times [default: the socket of this user]
    #[arg(short = 'l', long, value_name = "ADDR")]
    pub(crate) listen: Vec<String>,

    /// How many workers run, 1 to 4096, or by the cores: +N more, -N fewer, N% of them
    /// [default: 100%]
    #[arg(short = 'j', long = "num-workers", alias = "jobs", value_name = "N", allow_negative_numbers = true,
          env = "REMUDA_NUM_WORKERS", value_parser = number::workers(4096))]
    pub(crate) num_workers: Option<u32>,

    /// How many jobs may wait in the queue [default: 4096]
    #[arg(long, value_name = "N", allow_negative_numbers = true, env = "REMUDA_MAX_QUEUE_SIZE",
          value_parser = number::whole::<u32>(1..=67_108_864))]
    pub(crate) max_queue_size: Option<u32>,

    /// Try a job of a lost worker N times in all [default: 1, a job that may have started is never
    /// started again]
    #[arg(long, value_name = "N", allow_negative_numbers = true, env = "REMUDA_RETRIES",
          value_parser = number::whole::<u32>(1..=1000))]
    pub(crate) retries: Option<u32>,

    /// The token that callers of TCP, TLS and HTTP listeners must send is the first line of FILE
    /// [default: REMUDA_TOKEN, else none is asked for]
    #[arg(long, value_name = "FILE", env = "REMUDA_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Take jobs by HTTP as well: POST /call at host:port, or at a port of loopback [default: no]
    #[arg(long, value_name = "ADDR", env = "REMUDA_HTTP")]
    pub(crate) http: Option<HttpAddress>,

    /// Give /livez, /readyz, /metrics and /status at host:port, or at a port of loopback
    /// [default: no]
    #[arg(long, value_name = "ADDR", env = "REMUDA_HTTP_ADMIN")]
    pub(crate) http_admin: Option<HttpAddress>,

    /// The certificate chain of tls: listeners, PEM
    #[arg(long, value_name = "FILE", env = "REMUDA_TLS_CERT")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Its private key, PEM
    #[arg(long, value_name = "FILE", env = "REMUDA_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Callers of tls: listeners must show a certificate that descends from one of these, PEM
    #[arg(long, value_name = "FILE", env = "REMUDA_TLS_CLIENT_CA")]
    pub(crate) tls_client_ca: Option<PathBuf>,

    /// Let other machines call a TCP, TLS or HTTP listener that isn't guarded by TLS and a token
    #[arg(long)]
    pub(crate) insecure: bool,

    /// Read options from FILE (remuda.toml)
    #[arg(short = 'c', long, value_name = "FILE", env = "REMUDA_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// Log as JSON lines; REMUDA_LOG says what is logged [default: info]
    #[arg(long, env = "REMUDA_LOG_JSON")]
    pub(crate) log_json: bool,

    /// Check the options, print the configuration that holds, and end
    #[arg(long)]
    pub(crate) check: bool,

    // Behind the options of its own, which would stand under its heading.
    #[command(flatten)]
    pub(crate) worker: WorkerArgs,

    #[command(flatten)]
    pub(crate) pool: PoolArgs,

    /// How long the pool's thread looks for events before it sleeps, while they come that fast and
    /// nobody else needs its processor, and workers for calls, if there are processors enough; 0 for
    /// never, at most 1s [default: 50us]
    #[arg(long, help_heading = "Pool", value_name = "TIME", allow_negative_numbers = true, value_parser = number::duration, env = "REMUDA_SPIN")]
    pub(crate) spin: Option<Duration>,
}

const EXAMPLES: &str = "\
Examples:
  remuda serve --python examples/upper.py:upper
  remuda serve -j 4 -l unix:/run/upper.sock,mode=0660,group=web -- ./worker
  remuda serve -l tcp:127.0.0.1:7000 --builtin sha256
  remuda serve -l shm:upper,role=admin --builtin wc     for programs of this user, over rings
  remuda serve -c remuda.toml --check

A TIME is seconds (2, 0.5), or has a unit: 50us, 150ms, 2s, 5m, 1h, 1d. A SIZE is bytes, or has K, M
or G. 0 turns off a limit of time or memory that is off by default.

Without --listen, the pool listens at REMUDA_ADDR, or at default.sock in $XDG_RUNTIME_DIR/remuda or
/tmp/remuda-UID. A flag comes before its REMUDA_* variable, and that before the file.
SIGTERM lets accepted jobs finish; SIGHUP replaces the workers without a gap.

Exit status: 0 it was stopped, 255 any other error.";

/// The default of `--spin`: a round trip through a worker is rarely longer where watching pays.
const SPIN_DEFAULT: Duration = Duration::from_micros(50);
const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
/// How long a body is refused under which several workers died.
const QUARANTINE: Duration = Duration::from_secs(60);

/// Runs the command.
pub(crate) fn run(args: ServeArgs) -> ExitCode {
    let told = Told::by(&args);
    match configure(&args) {
        Ok(serve) if args.check => {
            if let Err(error) = serve.check() {
                return told.error(error);
            }
            say::out(effective::as_file(&serve))
                .map_or_else(|status| status, |()| ExitCode::SUCCESS)
        }
        Ok(serve) => match serve.run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => told.error(error),
        },
        Err(message) => told.error(message),
    }
}

/// What `serve` itself says on stderr: for people, or in the form of the log where that is read by
/// a program.
#[derive(Clone, Copy)]
enum Told {
    Plainly,
    InLog,
}

impl Told {
    fn by(args: &ServeArgs) -> Self {
        if args.log_json { Self::InLog } else { Self::Plainly }
    }

    fn line(self, text: impl Display) {
        match self {
            Self::Plainly => say::line(format_args!("remuda: {text}")),
            Self::InLog => tracing::info!(target: "remuda", "{text}"),
        }
    }

    /// Says why it ends, and gives the status for that.
    fn error(self, why: impl Display) -> ExitCode {
        match self {
            Self::Plainly => exit::error(why),
            Self::InLog => {
                tracing::error!(target: "remuda", "{why}");
                exit::ERROR.into()
            }
        }
    }
}

/// What is served, and where.
pub(crate) struct Serve {
    pub(crate) worker: WorkerArgs,
    pub(crate) pool: PoolConfig,
    pub(crate) spin: Duration,
    pub(crate) listen: Vec<Listen>,
    /// Nobody said where to listen.
    at_default: bool,
    token: Option<String>,
    /// The file that the token is from, if not the environment.
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) insecure: bool,
    pub(crate) http: HttpOptions,
}

fn configure(args: &ServeArgs) -> Result<Serve, String> {
    let file = crate::cli::config_file::read(args.config.as_deref())?;
    let worker = file.worker(&args.worker)?;
    let options = args.pool.or(&file.pool)?;
    let spin = spin(args, &file)?;
    let mut pool = options.config(worker.kind()?)?;
    pool.attach = worker.attached()?;
    if matches!(pool.kind, WorkerKind::None) {
        pool.dispatch.num_workers = 0;
    }
    let dispatch = &mut pool.dispatch;
    if let Some(workers) = args.num_workers.or(file.pool.num_workers)
        && dispatch.num_workers > 0
    {
        dispatch.num_workers = workers;
    }
    if let Some(size) = args.max_queue_size.or(file.pool.max_queue_size) {
        dispatch.max_queue_size = size as usize;
    }
    if let Some(tries) = args.retries.or(file.pool.retries) {
        dispatch.delivery = crate::cli::pool::retrying(tries);
    }
    if spin.is_zero() || may_look(&worker, dispatch.num_workers as usize) {
        pool.worker_spin = Some(spin);
    }
    dispatch.quarantine = Some(QUARANTINE);
    dispatch.overload = Some(Overload::default());
    pool.logs = LogSink::new(|worker, line| tracing::info!(target: "worker", worker, "{line}"));
    let (token, token_file) = token(args, &file)?;
    let insecure = args.insecure || file.insecure;
    let (listen, at_default) = listeners(args, &file, token.as_deref(), insecure)?;
    let http = HttpOptions {
        admin: args.http_admin.clone().or(file.http_admin.address("http_admin")?),
        calls: args.http.clone().or(file.http.address("http")?),
        token: token.clone(),
        insecure,
        ..HttpOptions::default()
    };
    Ok(Serve { worker, pool, spin, listen, at_default, token, token_file, insecure, http })
}

/// Whether its workers may look for their next call before they sleep. Those that do on all
/// processors would take them from the pool, which needs one where its workers are fast; Python's
/// are not.
fn may_look(worker: &WorkerArgs, num_workers: usize) -> bool {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let others = usize::from(worker.python.is_none());
    processors > 1 && num_workers + others <= processors
}

/// Where the pool listens, and whether that is the default since nobody says where.
fn listeners(
    args: &ServeArgs,
    file: &ConfigFile,
    token: Option<&str>,
    insecure: bool,
) -> Result<(Vec<Listen>, bool), String> {
    let (addresses, from) = match args.listen.is_empty() {
        true => (&file.listen, "listen"),
        false => (&args.listen, "--listen"),
    };
    let guarded = |address: Address| {
        let mut listen = Listen::at(address);
        // Who calls by a Unix socket or by rings is known without a token.
        let is_network = matches!(listen.address, Address::Tcp { .. } | Address::Tls { .. });
        listen.token = token.filter(|_| is_network).map(str::to_owned);
        listen.insecure = insecure;
        listen
    };
    let mut listen = Vec::new();
    for text in addresses {
        let mut address = text.parse().map_err(|error| format!("{from} {text}: {error}"))?;
        if let Address::Tls { files, .. } = &mut address {
            files.cert = files.cert.take().or_else(|| args.tls_cert.clone());
            files.key = files.key.take().or_else(|| args.tls_key.clone());
            files.ca = files.ca.take().or_else(|| args.tls_client_ca.clone());
        }
        listen.push(guarded(address));
    }
    let at_default = listen.is_empty();
    if at_default {
        let mut one = guarded(address::default_address()?);
        // The owner's own socket is the one by which the pool is administered.
        one.admin = matches!(one.address, Address::Unix { .. });
        listen.push(one);
    }
    Ok((listen, at_default))
}

/// How long it is looked for events.
fn spin(args: &ServeArgs, file: &ConfigFile) -> Result<Duration, String> {
    let spin = match (args.spin, &file.pool.spin) {
        (Some(spin), _) => spin,
        (None, Some(text)) => text.duration()?,
        (None, None) => SPIN_DEFAULT,
    };
    match unfit("spin", spin) {
        Some(why) => Err(format!("--spin {why}")),
        None => Ok(spin),
    }
}

/// The token of `--token-file`, or of the environment, or of the file's `token_file`; and the file
/// that it is from.
fn token(args: &ServeArgs, file: &ConfigFile) -> Result<(Option<String>, Option<PathBuf>), String> {
    let of_environment = std::env::var("REMUDA_TOKEN").ok().filter(|token| !token.is_empty());
    let path = match (&args.token_file, &of_environment) {
        (Some(path), _) => Some(path),
        (None, Some(_)) => None,
        (None, None) => file.token_file.as_ref(),
    };
    if let Some(path) = path {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read the token in {}: {error}", path.display()))?;
        let token = text.lines().next().unwrap_or_default().trim().to_owned();
        if token.is_empty() {
            return Err(format!(
                "the first line of {} is empty: put the token there",
                path.display()
            ));
        }
        return Ok((Some(token), Some(path.clone())));
    }
    Ok((of_environment, None))
}

impl Serve {
    /// What can be known of the listeners before they are opened.
    fn check(&self) -> Result<(), Box<dyn Error>> {
        for listen in &self.listen {
            listen.check()?;
        }
        Ok(self.http.check()?)
    }

    fn run(self, args: ServeArgs) -> Result<(), Box<dyn Error>> {
        self.check()?;
        let inherited = systemd::listeners();
        let recv_limit = self.pool.max_body_bytes + (1 << 20);
        let net = NetConfig { recv_limit, spin: self.spin, ..remuda_engine::net_config() };
        remuda_net::run_local(net, self.serve(args, inherited))?
    }

    async fn serve(self, args: ServeArgs, inherited: Vec<Inherited>) -> Result<(), Box<dyn Error>> {
        let signals = remuda_net::signals(&[SIGHUP, SIGINT, SIGTERM])?;
        let told = Told::by(&args);
        let Self { worker, pool, mut listen, at_default, token, insecure, http, .. } = self;
        let is_activated = !inherited.is_empty();
        if is_activated && at_default {
            // systemd says where: its socket takes the default one's place.
            listen.clear();
        }
        if listen.iter().any(|listen| address::is_default_unix(&listen.address)) {
            // A default address lies in a directory that may not be there yet.
            runtime_directory()?;
        }
        let pool = Pool::start(pool)?;
        // The keeper is started before any thread.
        log::behind();
        remuda_engine::raise_descriptor_limit();
        for listener in inherited {
            let address = match listener {
                Inherited::Unix(listener) => pool.listen_on_unix(listener, at_default)?,
                Inherited::Tcp(listener) => {
                    pool.listen_on_tcp(listener, token.as_deref(), insecure)?
                }
            };
            told.line(format_args!("listening at {address}"));
        }
        for listen in &listen {
            let address = pool.listen(listen)?;
            told.line(format_args!("listening at {address}"));
        }
        let http = Http::start(&http, pool.remote())?;
        pool.keep_descriptors(http.as_ref().map_or(0, |http| http.connections));
        for address in http.iter().flat_map(|http| &http.addresses) {
            told.line(format_args!("listening at {address}"));
        }
        systemd::notify(&[NotifyState::Status("waiting for the first worker")]);
        if worker.is_own_command() {
            remuda_net::spawn(tell_of_filters(pool.clone(), told));
        }
        let ended = run_until_stopped(&pool, &args, signals).await;
        if ended.is_ok() {
            pool.part().await;
        }
        if let Some(http) = http {
            // The last answers still go out.
            remuda_net::spawn_blocking(move || drop(http)).await?;
        }
        Ok(ended?)
    }
}

/// Says what the command may be, if the first thing that is known of it is that it doesn't start.
async fn tell_of_filters(pool: Pool, told: Told) {
    pool.until(|pool| pool.ready() > 0 || pool.starts_failed > 0).await;
    if pool.snapshot().starts_failed > 0 {
        told.line(NO_FILTER);
    }
}

/// What systemd is to be told of once it has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Nothing,
    FirstWorker,
    ResetEnd,
}

impl Awaited {
    async fn come(self, pool: &Pool) {
        match self {
            Self::Nothing => std::future::pending().await,
            Self::FirstWorker => pool.until(|pool| pool.ready() > 0).await,
            Self::ResetEnd => pool.until(|pool| !pool.resetting).await,
        }
    }
}

async fn run_until_stopped(
    pool: &Pool,
    args: &ServeArgs,
    mut signals: Signals,
) -> Result<(), PoolError> {
    let told = Told::by(args);
    let mut awaited = Awaited::FirstWorker;
    let mut stopping = false;
    // A SIGHUP came during a reset: what was changed since its begin needs another.
    let mut again = false;
    loop {
        let asked = remuda_net::select3(pool.drained(), signals.recv(), pool.reset_wanted());
        let event = match remuda_net::select(asked, awaited.come(pool)).await {
            Either::First(event) => event,
            Either::Second(()) => {
                awaited = Awaited::Nothing;
                systemd::notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
                if std::mem::take(&mut again) {
                    reset(pool, args);
                    awaited = Awaited::ResetEnd;
                }
                continue;
            }
        };
        match event {
            Either3::First(drained) => {
                systemd::notify(&[NotifyState::Stopping]);
                return drained;
            }
            Either3::Second(SIGHUP) | Either3::Third(()) if stopping => {
                pool.refuse_reset("the pool is draining: start it anew instead");
            }
            Either3::Second(SIGHUP) if pool.snapshot().resetting => {
                again = true;
                awaited = Awaited::ResetEnd;
            }
            Either3::Second(SIGHUP) | Either3::Third(()) => {
                reset(pool, args);
                awaited = Awaited::ResetEnd;
            }
            Either3::Second(_) if stopping => pool.stop_now(),
            Either3::Second(_) => {
                (stopping, awaited) = (true, Awaited::Nothing);
                systemd::notify(&[NotifyState::Stopping]);
                told.line("stopping: accepted jobs finish; once more to stop at once");
                pool.shut_down();
            }
        }
    }
}

/// Begins to replace the workers, after the file was read again.
fn reset(pool: &Pool, args: &ServeArgs) {
    match NotifyState::monotonic_usec_now() {
        Ok(usec) => systemd::notify(&[NotifyState::Reloading, usec]),
        Err(error) => tracing::debug!("systemd was not told: {error}"),
    }
    let configured = configure(args)
        .and_then(|serve| pool.configure(serve.pool).map_err(|error| error.to_string()));
    match configured {
        Ok(()) => {
            if let Err(refused) = pool.reset() {
                tracing::warn!("not reset: {refused}");
            }
        }
        Err(message) => {
            tracing::error!("not reset, the old configuration stays: {message}");
            pool.refuse_reset(&message);
        }
    }
}
