//! The options of a pool, as flags and as `REMUDA_*` variables.

use std::time::Duration;

use clap::{Args, ValueEnum};
use remuda_engine::keeper::PidNamespace;
use remuda_engine::{Delivery, PoolConfig, RetryOn, WorkerKind};

use crate::cli::config_file::{PoolTable, Text};
use crate::cli::number;

/// The pool's options, by RoadRunner's names where they mean the same.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Pool")]
pub(crate) struct PoolArgs {
    /// Replace a worker after so many jobs [default: never]
    #[arg(long, value_name = "N", allow_negative_numbers = true, env = "REMUDA_MAX_JOBS",
          value_parser = number::whole(1..=u64::MAX))]
    max_jobs: Option<u64>,

    /// How long a worker may take to start [default: 60s]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = number::duration, env = "REMUDA_ALLOCATE_TIMEOUT")]
    allocate_timeout: Option<Duration>,

    /// How long a worker may take to end [default: 60s]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = number::duration, env = "REMUDA_DESTROY_TIMEOUT")]
    destroy_timeout: Option<Duration>,

    /// How long a new worker may take to be ready in a reset [default: 60s]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = number::duration, env = "REMUDA_RESET_TIMEOUT")]
    reset_timeout: Option<Duration>,

    /// Replace a worker that had no job for so long [default: never]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = number::duration, env = "REMUDA_IDLE_TTL")]
    idle_ttl: Option<Duration>,

    /// Kill a worker whose job runs for longer [default: never]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = number::duration, env = "REMUDA_EXEC_TTL")]
    exec_ttl: Option<Duration>,

    /// How often the workers' memory is looked at, at least 10ms [default: 1s]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = number::duration, env = "REMUDA_WATCH_TICK")]
    watch_tick: Option<Duration>,

    /// Replace a worker at this age [default: never]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = number::duration, env = "REMUDA_TTL")]
    ttl: Option<Duration>,

    /// Replace a worker whose memory is over this, in bytes or with K, M, G [default: never]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = number::bytes, env = "REMUDA_MAX_WORKER_MEMORY")]
    max_worker_memory: Option<u64>,

    /// The most bytes that a job or a result may have, at most 1G [default: 16M]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = number::bytes, env = "REMUDA_MAX_BODY_BYTES")]
    max_body_bytes: Option<u64>,

    /// Whether workers that declare it are served over rings in shared memory [default: true]
    #[arg(long, value_name = "BOOL", value_parser = clap::builder::BoolishValueParser::new(),
          env = "REMUDA_SHM")]
    shm: Option<bool>,

    /// Whether the workers live in a PID namespace of their own [default: auto]
    #[arg(long, value_enum, value_name = "WHEN", env = "REMUDA_PID_NAMESPACE")]
    pid_namespace: Option<PidNamespaceArg>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PidNamespaceArg {
    /// Where it is permitted
    Auto,
    /// Never
    Never,
    /// Or the pool doesn't start
    Require,
}

/// The largest `--max-body-bytes`: 1 GiB.
pub(crate) const MAX_BODY_BYTES_LIMIT: u64 = 1 << 30;

/// The shortest `--watch-tick`.
const WATCH_TICK_MIN: Duration = Duration::from_millis(10);

/// The most that `--spin` may be, which is what the runtime takes.
const SPIN_LIMIT: Duration = Duration::from_secs(1);

/// Why a time can't be had, by the name of its option.
pub(crate) fn unfit(name: &str, time: Duration) -> Option<String> {
    match name {
        "allocate_timeout" | "reset_timeout" if time.is_zero() => {
            Some("is 0: no worker starts in no time".to_owned())
        }
        "spin" if time > SPIN_LIMIT => {
            Some(format!("is {time:?}: it may be at most {SPIN_LIMIT:?}"))
        }
        "watch_tick" | "supervisor.watch_tick" if time < WATCH_TICK_MIN => {
            Some(format!("is {time:?}: it must be at least {WATCH_TICK_MIN:?}"))
        }
        _ => None,
    }
}

/// At least once: a job of a lost worker is tried so many times in all.
pub(crate) fn retrying(tries: u32) -> Delivery {
    match tries {
        0 | 1 => Delivery::AtMostOnce,
        tries => Delivery::AtLeastOnce {
            tries,
            retry_on: RetryOn { lost: true, timeout: false, error: false },
        },
    }
}

impl PoolArgs {
    /// These options, and where they say nothing, those of a file.
    pub(crate) fn or(&self, file: &PoolTable) -> Result<Self, String> {
        let duration = |own: Option<Duration>, other: &Option<Text>| match (own, other) {
            (None, Some(text)) => text.duration().map(Some),
            (own, _) => Ok(own),
        };
        let bytes = |own: Option<u64>, other: &Option<Text>| match (own, other) {
            (None, Some(text)) => text.bytes().map(Some),
            (own, _) => Ok(own),
        };
        let supervisor = &file.supervisor;
        Ok(Self {
            max_jobs: self.max_jobs.or(file.max_jobs),
            allocate_timeout: duration(self.allocate_timeout, &file.allocate_timeout)?,
            destroy_timeout: duration(self.destroy_timeout, &file.destroy_timeout)?,
            reset_timeout: duration(self.reset_timeout, &file.reset_timeout)?,
            ttl: duration(self.ttl, &supervisor.ttl)?,
            idle_ttl: duration(self.idle_ttl, &supervisor.idle_ttl)?,
            exec_ttl: duration(self.exec_ttl, &supervisor.exec_ttl)?,
            watch_tick: duration(self.watch_tick, &supervisor.watch_tick)?,
            max_worker_memory: bytes(self.max_worker_memory, &supervisor.max_worker_memory)?,
            max_body_bytes: bytes(self.max_body_bytes, &file.max_body_bytes)?,
            shm: self.shm.or(file.shm),
            pid_namespace: self.pid_namespace.or(file.pid_namespace()?),
        })
    }

    /// A pool of such workers with these options.
    pub(crate) fn config(&self, kind: WorkerKind) -> Result<PoolConfig, String> {
        for (name, time) in [
            ("allocate_timeout", self.allocate_timeout),
            ("reset_timeout", self.reset_timeout),
            ("watch_tick", self.watch_tick),
        ] {
            if let Some(why) = time.and_then(|time| unfit(name, time)) {
                return Err(format!("--{} {why}", name.replace('_', "-")));
            }
        }
        let mut config = PoolConfig::new(kind);
        let dispatch = &mut config.dispatch;
        dispatch.max_jobs = self.max_jobs;
        if let Some(time) = self.allocate_timeout {
            dispatch.allocate_timeout = time;
        }
        if let Some(time) = self.destroy_timeout {
            dispatch.destroy_timeout = time;
        }
        if let Some(time) = self.reset_timeout {
            dispatch.reset_timeout = time;
        }
        dispatch.supervisor.ttl = self.ttl;
        dispatch.supervisor.idle_ttl = self.idle_ttl;
        dispatch.supervisor.exec_ttl = self.exec_ttl;
        dispatch.supervisor.max_worker_memory = self.max_worker_memory;
        if let Some(bytes) = self.max_body_bytes {
            if !(1..=MAX_BODY_BYTES_LIMIT).contains(&bytes) {
                return Err(format!(
                    "--max-body-bytes is {bytes}: it must be from 1 to {MAX_BODY_BYTES_LIMIT}"
                ));
            }
            config.max_body_bytes = bytes as usize;
        }
        config.shm = self.shm.unwrap_or(config.shm);
        config.watch_tick = self.watch_tick.unwrap_or(config.watch_tick);
        config.keeper_options.pid_namespace = match self.pid_namespace {
            None | Some(PidNamespaceArg::Auto) => PidNamespace::Auto,
            Some(PidNamespaceArg::Never) => PidNamespace::Never,
            Some(PidNamespaceArg::Require) => PidNamespace::Require,
        };
        Ok(config)
    }
}
