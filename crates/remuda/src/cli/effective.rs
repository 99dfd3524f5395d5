//! `serve --check`: the configuration that holds, as a file that says the same.

use std::time::Duration;

use remuda_engine::keeper::PidNamespace;
use remuda_engine::{Delivery, Listen, PoolConfig};
use remuda_protocol::{Address, Role};
use toml::{Table, Value};

use crate::cli::serve::Serve;
use crate::cli::worker::WorkerArgs;

/// The options that hold, as a `remuda.toml`.
pub(crate) fn as_file(serve: &Serve) -> String {
    let mut file = Table::new();
    let listen = serve.listen.iter().map(|one| address(one).into()).collect::<Vec<Value>>();
    file.insert("listen".into(), listen.into());
    for (name, address) in [("http", &serve.http.calls), ("http_admin", &serve.http.admin)] {
        if let Some(address) = address {
            file.insert(name.into(), address.to_string().into());
        }
    }
    if let Some(path) = &serve.token_file {
        file.insert("token_file".into(), (&*path.to_string_lossy()).into());
    }
    if serve.insecure {
        file.insert("insecure".into(), true.into());
    }
    file.insert("worker".into(), worker_table(&serve.worker).into());
    file.insert("pool".into(), pool_table(&serve.pool, serve.spin).into());
    file.to_string()
}

/// Where one listens, with what holds of the default socket without its being said.
fn address(listen: &Listen) -> String {
    let mut address = listen.address.clone();
    if let (true, Address::Unix { access, .. }) = (listen.admin, &mut address) {
        access.role.get_or_insert(Role::Admin);
    }
    address.to_string()
}

fn worker_table(worker: &WorkerArgs) -> Table {
    let mut table = Table::new();
    let mut set = |name: &str, value: Value| table.insert(name.into(), value);
    if !worker.command.is_empty() {
        let words = worker.command.iter().map(|word| Value::from(&*word.to_string_lossy()));
        set("command", words.collect::<Vec<_>>().into());
        set("stdio", worker.stdio.into());
    }
    if !worker.attach.is_empty() {
        let peers = worker.attach.iter().map(|peer| Value::from(peer.as_str()));
        set("attach", peers.collect::<Vec<_>>().into());
    }
    if let Some(target) = &worker.python {
        set("python", target.as_str().into());
        if let Some(bin) = &worker.python_bin {
            set("python_bin", (&*bin.to_string_lossy()).into());
        }
    }
    if let Some(target) = &worker.node {
        set("node", target.as_str().into());
        if let Some(bin) = &worker.node_bin {
            set("node_bin", (&*bin.to_string_lossy()).into());
        }
    }
    if let Some(builtin) = worker.builtin {
        set("builtin", builtin.name().into());
        set("threads", worker.threads.into());
    }
    table
}

fn pool_table(pool: &PoolConfig, spin: Duration) -> Table {
    let dispatch = &pool.dispatch;
    let mut table = Table::new();
    let mut set = |name: &str, value: Value| table.insert(name.into(), value);
    // A pool of attached peers alone has none, and a file can't say so otherwise.
    if dispatch.num_workers > 0 {
        set("num_workers", dispatch.num_workers.into());
    }
    if let Some(jobs) = dispatch.max_jobs {
        set("max_jobs", whole(jobs));
    }
    set("max_queue_size", whole(dispatch.max_queue_size as u64));
    let tries = match dispatch.delivery {
        Delivery::AtMostOnce => 1,
        Delivery::AtLeastOnce { tries, .. } => tries,
    };
    set("retries", tries.into());
    set("allocate_timeout", time(dispatch.allocate_timeout));
    set("destroy_timeout", time(dispatch.destroy_timeout));
    set("reset_timeout", time(dispatch.reset_timeout));
    set("max_body_bytes", whole(pool.max_body_bytes as u64));
    set("spin", time(spin));
    set("shm", pool.shm.into());
    let namespace = match pool.keeper_options.pid_namespace {
        PidNamespace::Auto => "auto",
        PidNamespace::Never => "never",
        PidNamespace::Require => "require",
    };
    set("pid_namespace", namespace.into());

    let mut supervisor = Table::new();
    supervisor.insert("watch_tick".into(), time(pool.watch_tick));
    let limits = &dispatch.supervisor;
    for (name, limit) in
        [("ttl", limits.ttl), ("idle_ttl", limits.idle_ttl), ("exec_ttl", limits.exec_ttl)]
    {
        if let Some(limit) = limit {
            supervisor.insert(name.into(), time(limit));
        }
    }
    if let Some(bytes) = limits.max_worker_memory {
        supervisor.insert("max_worker_memory".into(), whole(bytes));
    }
    table.insert("supervisor".into(), supervisor.into());
    table
}

/// A number; TOML's end at `i64::MAX`.
fn whole(number: u64) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

/// A time in the words that options take.
fn time(time: Duration) -> Value {
    let millis = time.as_secs_f64() * 1e3;
    match millis {
        1e3.. => format!("{}s", millis / 1e3),
        1.0.. => format!("{millis}ms"),
        _ => format!("{}us", time.as_nanos() as f64 / 1e3),
    }
    .into()
}
