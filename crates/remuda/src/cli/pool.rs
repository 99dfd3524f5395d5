//! The options of a pool, as flags and as `REMUDA_*` variables.

use std::time::Duration;

use clap::{Args, ValueEnum};
use remuda_engine::keeper::PidNamespace;
use remuda_engine::{PoolConfig, WorkerKind};

use crate::cli::number;

/// The pool's options, by RoadRunner's names where they mean the same.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Pool")]
pub(crate) struct PoolArgs {
    /// Replace a worker after so many jobs
    #[arg(long, value_name = "N", env = "REMUDA_MAX_JOBS",
          value_parser = clap::value_parser!(u64).range(1..))]
    max_jobs: Option<u64>,

    /// How long a worker may take to start [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = number::duration, env = "REMUDA_ALLOCATE_TIMEOUT")]
    allocate_timeout: Option<Duration>,

    /// How long a worker may take to end [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = number::duration, env = "REMUDA_DESTROY_TIMEOUT")]
    destroy_timeout: Option<Duration>,

    /// Replace a worker at this age
    #[arg(long, value_name = "TIME", value_parser = number::duration, env = "REMUDA_TTL")]
    ttl: Option<Duration>,

    /// Replace a worker whose memory is over this, in bytes or with K, M, G
    #[arg(long, value_name = "BYTES", value_parser = number::bytes, env = "REMUDA_MAX_WORKER_MEMORY")]
    max_worker_memory: Option<u64>,

    /// The most bytes that a job or a result may have [default: 16M]
    #[arg(long, value_name = "BYTES", value_parser = number::bytes, env = "REMUDA_MAX_BODY_BYTES")]
    max_body_bytes: Option<u64>,

    /// Whether the workers live in a PID namespace of their own
    #[arg(long, value_enum, default_value_t = PidNamespaceArg::Auto, env = "REMUDA_PID_NAMESPACE")]
    pid_namespace: PidNamespaceArg,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum PidNamespaceArg {
    /// Where it is permitted
    #[default]
    Auto,
    /// Never
    Never,
    /// Or the pool doesn't start
    Require,
}

/// The largest `--max-body-bytes`: 1 GiB.
const MAX_BODY_BYTES_LIMIT: u64 = 1 << 30;

impl PoolArgs {
    /// A pool of such workers with these options.
    pub(crate) fn config(&self, kind: WorkerKind) -> Result<PoolConfig, String> {
        let mut config = PoolConfig::new(kind);
        let dispatch = &mut config.dispatch;
        dispatch.max_jobs = self.max_jobs;
        if let Some(time) = self.allocate_timeout {
            dispatch.allocate_timeout = time;
        }
        if let Some(time) = self.destroy_timeout {
            dispatch.destroy_timeout = time;
        }
        dispatch.supervisor.ttl = self.ttl;
        dispatch.supervisor.max_worker_memory = self.max_worker_memory;
        if let Some(bytes) = self.max_body_bytes {
            if !(1..=MAX_BODY_BYTES_LIMIT).contains(&bytes) {
                return Err(format!(
                    "--max-body-bytes is {bytes}: it must be from 1 to {MAX_BODY_BYTES_LIMIT}"
                ));
            }
            config.max_body_bytes = bytes as usize;
        }
        config.keeper_options.pid_namespace = match self.pid_namespace {
            PidNamespaceArg::Auto => PidNamespace::Auto,
            PidNamespaceArg::Never => PidNamespace::Never,
            PidNamespaceArg::Require => PidNamespace::Require,
        };
        Ok(config)
    }
}
