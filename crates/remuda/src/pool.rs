//! A pool for a program that is not built on the runtime: it runs on a thread of its own.

use std::fmt::{self, Display};
use std::sync::mpsc;
use std::thread::JoinHandle;

use remuda_engine::{
    Pool as EnginePool, PoolConfig, PoolError, Remote, RemoteError, ThreadHandler, WorkerKind,
};
use remuda_net::{Either, Notifier};
use remuda_protocol::Raw;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// A pool of warm workers on a thread of its own, to be called from any thread.
///
/// Dropping it lets the jobs that it has accepted finish, for `destroy_timeout` (60 s) at the
/// longest, and waits for that.
///
/// ```
/// use remuda::{Pool, RawValue};
///
/// let pool = Pool::threads(2, |body: &RawValue| -> Result<u64, String> {
///     let numbers: Vec<u64> = serde_json::from_str(body.get()).map_err(|e| e.to_string())?;
///     Ok(numbers.iter().sum())
/// })?;
/// let sum: u64 = pool.call(&[20, 21, 1])?;
/// assert_eq!(sum, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pool {
    remote: Remote,
    stop: Notifier,
    thread: Option<JoinHandle<Result<(), PoolError>>>,
}

/// Why a pool can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The pool itself can't: its options don't fit together, or its keeper can't be started.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The system has no thread to give: raise its limit.
    #[error("cannot start the pool's thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The value can't be written as JSON: nothing was sent.
    #[error("the body can't be written as JSON: {0}")]
    Body(#[source] serde_json::Error),
    /// The job failed, or was not accepted; its code says which.
    #[error(transparent)]
    Job(#[from] RemoteError),
    /// The result is JSON of another type than the one asked for: the job has run.
    #[error("the result is not of the type that was asked for: {0}")]
    Result(#[source] serde_json::Error),
}

impl Pool {
    /// Starts `workers` threads that run `handler`: it gets a job's body and gives its result, or
    /// what went wrong (`handler_error`).
    ///
    /// A panic fails the job alone, and its thread is replaced. All other options have their
    /// defaults; see [`Pool::start`].
    ///
    /// # Errors
    /// More than 4096 workers, or no thread to be had.
    pub fn threads<R: Serialize, E: Display>(
        workers: u32,
        handler: impl Fn(&RawValue) -> Result<R, E> + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let handler = ThreadHandler::new(move |body: Raw<'_>, out: &mut Vec<u8>| {
            let body = serde_json::from_str(body.as_str()).map_err(|error| error.to_string())?;
            let result = handler(body).map_err(|error| error.to_string())?;
            serde_json::to_writer(out, &result).map_err(|error| error.to_string())
        });
        let mut config = PoolConfig::new(WorkerKind::Threads(handler));
        config.dispatch.num_workers = workers;
        Self::start(config)
    }

    /// Starts a pool with these options.
    ///
    /// A pool of processes starts the program's own binary once more, as their keeper: `main` must
    /// begin with
    ///
    /// ```no_run
    /// # fn main() -> std::process::ExitCode {
    /// if std::env::args_os().nth(1).is_some_and(|word| word == remuda::engine::keeper::ARGUMENT) {
    ///     return remuda::engine::keeper::main();
    /// }
    /// # std::process::ExitCode::SUCCESS }
    /// ```
    ///
    /// # Errors
    /// Options that don't fit together, a keeper that can't be started, or no thread to be had.
    pub fn start(config: PoolConfig) -> Result<Self, StartError> {
        let stop = Notifier::new();
        let stopped = stop.clone();
        let (started, starting) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("remuda-pool".into())
            .spawn(move || {
                remuda_net::run_local(remuda_engine::net_config(), async move {
                    let pool = EnginePool::start(config)?;
                    // Whoever starts a pool waits for it.
                    let _ = started.send(pool.remote());
                    if let Either::First(ended) =
                        remuda_net::select(pool.drained(), stopped.notified()).await
                    {
                        return ended;
                    }
                    pool.shut_down();
                    pool.drained().await
                })?
            })
            .map_err(StartError::Thread)?;
        match starting.recv() {
            Ok(remote) => Ok(Self { remote, stop, thread: Some(thread) }),
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error.into()),
                // It says that it has started before it can end.
                Ok(Ok(())) => Err(StartError::Thread(std::io::Error::other("it ended at once"))),
                Err(payload) => std::panic::resume_unwind(payload),
            },
        }
    }

    /// Runs a job and waits for its result. Not to be called by the pool's own handler: when all
    /// workers wait for jobs of their own pool, none is left to run them.
    ///
    /// # Errors
    /// The job failed or was not accepted, or a value doesn't go into JSON or out of it.
    pub fn call<B: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        body: &B,
    ) -> Result<R, CallError> {
        let body = serde_json::to_vec(body).map_err(CallError::Body)?;
        let result = self.remote.call(body.into(), None).wait()?;
        serde_json::from_slice(&result).map_err(CallError::Result)
    }

    /// A handle for calls with a time limit, or that are awaited on an executor.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop.notify();
        // How it ended concerns nobody any more.
        drop(self.thread.take().map(JoinHandle::join));
    }
}
