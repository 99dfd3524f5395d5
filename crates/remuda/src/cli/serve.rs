//! `remuda serve`: a pool behind listeners, until it is stopped.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use remuda_engine::{
    Listen, LogSink, Overload, Pool, PoolConfig, PoolError, WorkerKind, runtime_directory,
};
use remuda_net::{Config as NetConfig, Either3};
use remuda_protocol::Address;
use sd_notify::NotifyState;

use crate::cli::pool::PoolArgs;
use crate::cli::worker::WorkerArgs;
use crate::cli::{address, exit, systemd};

/// Serve a pool of warm workers to other programs, until it is stopped.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) worker: WorkerArgs,

    /// Where to listen; may be given several times [default: the socket of this user]
    #[arg(short = 'l', long, value_name = "ADDR")]
    pub(crate) listen: Vec<String>,

    /// How many workers run [default: the number of cores]
    #[arg(short = 'j', long = "num-workers", alias = "jobs", value_name = "N",
          env = "REMUDA_NUM_WORKERS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) num_workers: Option<u32>,

    /// How many jobs may wait in the queue [default: 4096]
    #[arg(long, value_name = "N", env = "REMUDA_MAX_QUEUE_SIZE",
          value_parser = clap::value_parser!(u32).range(1..=67_108_864))]
    pub(crate) max_queue_size: Option<u32>,

    /// Try a job of a lost worker N times in all [default: 1, a job that may have started is never
    /// started again]
    #[arg(long, value_name = "N", env = "REMUDA_RETRIES",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) retries: Option<u32>,

    /// The token that callers of TCP listeners must send is in this file
    #[arg(long, value_name = "FILE", env = "REMUDA_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Let other machines call a TCP listener without a token or TLS
    #[arg(long)]
    pub(crate) insecure: bool,

    /// Read options from FILE (remuda.toml)
    #[arg(short = 'c', long, value_name = "FILE", env = "REMUDA_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// Log as JSON lines
    #[arg(long, env = "REMUDA_LOG_JSON")]
    pub(crate) log_json: bool,

    /// Check the options, print the configuration that holds, and end
    #[arg(long)]
    pub(crate) check: bool,

    #[command(flatten)]
    pub(crate) pool: PoolArgs,
}

const EXAMPLES: &str = "\
Examples:
  remuda serve --python examples/upper.py:upper
  remuda serve -j 4 -l unix:/run/upper.sock,mode=0660,group=web -- ./worker
  remuda serve -l tcp:127.0.0.1:7000 --builtin sha256
  remuda serve -c remuda.toml --check

Without --listen, the pool listens at REMUDA_ADDR, or at default.sock in $XDG_RUNTIME_DIR/remuda or
/tmp/remuda-UID. SIGTERM lets accepted jobs finish; SIGHUP replaces the workers without a gap.

Exit status: 0 when it was stopped, 255 on any error.";

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
/// Waiting jobs are dropped after `Overload`'s rules only where the workers can't keep up.
const QUARANTINE: std::time::Duration = std::time::Duration::from_secs(60);

/// Runs the command.
pub(crate) fn run(args: ServeArgs) -> ExitCode {
    match configure(&args) {
        Ok(serve) if args.check => {
            print!("{}", serve.describe());
            ExitCode::SUCCESS
        }
        Ok(serve) => match serve.run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => exit::error(error),
        },
        Err(message) => exit::error(message),
    }
}

/// What is served, and where.
struct Serve {
    pool: PoolConfig,
    listen: Vec<Listen>,
}

fn configure(args: &ServeArgs) -> Result<Serve, String> {
    let file = crate::cli::config_file::read(args.config.as_deref())?;
    let worker = file.worker(&args.worker)?;
    let mut pool = args.pool.or(&file.pool)?.config(worker.kind()?)?;
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
    dispatch.quarantine = Some(QUARANTINE);
    dispatch.overload = Some(Overload::default());
    pool.logs = LogSink::new(|worker, line| tracing::info!(target: "worker", worker, "{line}"));
    let addresses = match (args.listen.is_empty(), file.listen.is_empty()) {
        (false, _) => args.listen.clone(),
        (true, false) => file.listen.clone(),
        (true, true) => Vec::new(),
    };
    let token = token(args)?;
    let mut listen = Vec::new();
    for text in &addresses {
        let address: Address = text.parse().map_err(|error| format!("--listen {text}: {error}"))?;
        let mut one = Listen::at(address);
        one.token = token.clone().filter(|_| !matches!(one.address, Address::Unix { .. }));
        one.insecure = args.insecure;
        listen.push(one);
    }
    if listen.is_empty() {
        let address = match std::env::var(address::ENV) {
            Ok(text) => {
                text.parse().map_err(|error| format!("{}={text}: {error}", address::ENV))?
            }
            Err(_) => address::default_unix(),
        };
        // The owner's own socket is the one by which the pool is administered.
        listen
            .push(Listen { admin: matches!(address, Address::Unix { .. }), ..Listen::at(address) });
    }
    Ok(Serve { pool, listen })
}

/// The token of `--token-file`, or of the environment.
fn token(args: &ServeArgs) -> Result<Option<String>, String> {
    if let Some(path) = &args.token_file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read the token in {}: {error}", path.display()))?;
        let token = text.lines().next().unwrap_or_default().trim().to_owned();
        if token.is_empty() {
            return Err(format!(
                "the first line of {} is empty: put the token there",
                path.display()
            ));
        }
        return Ok(Some(token));
    }
    Ok(std::env::var("REMUDA_TOKEN").ok().filter(|token| !token.is_empty()))
}

impl Serve {
    /// The configuration that holds, for a person.
    fn describe(&self) -> String {
        let dispatch = &self.pool.dispatch;
        let mut text = String::new();
        let mut line = |name: &str, value: String| text.push_str(&format!("{name} = {value}\n"));
        line("worker", format!("{:?}", crate::cli::worker::describe(&self.pool.kind)));
        for listen in &self.listen {
            line("listen", format!("{:?}", listen.address.to_string()));
        }
        line("num_workers", dispatch.num_workers.to_string());
        line("max_queue_size", dispatch.max_queue_size.to_string());
        line("delivery", format!("{:?}", format!("{:?}", dispatch.delivery)));
        line("poison_after", dispatch.poison_after.to_string());
        line("max_jobs", format!("{:?}", dispatch.max_jobs.unwrap_or(0)));
        line("allocate_timeout", format!("{:?}", format!("{:?}", dispatch.allocate_timeout)));
        line("destroy_timeout", format!("{:?}", format!("{:?}", dispatch.destroy_timeout)));
        line("reset_timeout", format!("{:?}", format!("{:?}", dispatch.reset_timeout)));
        line("max_body_bytes", self.pool.max_body_bytes.to_string());
        text.push_str("\n[supervisor]\n");
        let mut line = |name: &str, value: Option<std::time::Duration>| {
            if let Some(value) = value {
                text.push_str(&format!("{name} = \"{value:?}\"\n"));
            }
        };
        line("ttl", dispatch.supervisor.ttl);
        line("idle_ttl", dispatch.supervisor.idle_ttl);
        line("exec_ttl", dispatch.supervisor.exec_ttl);
        if let Some(bytes) = dispatch.supervisor.max_worker_memory {
            text.push_str(&format!("max_worker_memory = {bytes}\n"));
        }
        text
    }

    fn run(self, args: ServeArgs) -> Result<(), PoolError> {
        let net =
            NetConfig { recv_limit: self.pool.max_body_bytes + (1 << 20), ..NetConfig::default() };
        remuda_net::run_local(net, self.serve(args))?
    }

    async fn serve(self, args: ServeArgs) -> Result<(), PoolError> {
        let mut signals = remuda_net::signals(&[SIGHUP, SIGINT, SIGTERM])?;
        for listen in &self.listen {
            // A default address lies in a directory that may not be there yet.
            if listen.address == address::default_unix() {
                runtime_directory()?;
            }
        }
        let pool = Pool::start(self.pool)?;
        let inherited = systemd::listeners();
        for listener in inherited {
            pool.listen_on(listener, false)?;
        }
        for listen in &self.listen {
            let address = pool.listen(listen)?;
            eprintln!("remuda: listening at {address}");
        }
        systemd::notify(&[NotifyState::Ready]);
        let mut stopping = false;
        loop {
            match remuda_net::select3(pool.drained(), signals.recv(), pool.reset_wanted()).await {
                Either3::First(drained) => {
                    systemd::notify(&[NotifyState::Stopping]);
                    return drained;
                }
                Either3::Second(SIGHUP) => reset(&pool, &args),
                Either3::Second(_) if stopping => pool.stop_now(),
                Either3::Second(_) => {
                    stopping = true;
                    systemd::notify(&[NotifyState::Stopping]);
                    eprintln!("remuda: stopping: accepted jobs finish; once more to stop at once");
                    pool.shut_down();
                }
                Either3::Third(()) => reset(&pool, &args),
            }
        }
    }
}

/// Replaces the workers, after the file was read again.
fn reset(pool: &Pool, args: &ServeArgs) {
    let reloading = NotifyState::monotonic_usec_now();
    match reloading {
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
    systemd::notify(&[NotifyState::Ready]);
}
