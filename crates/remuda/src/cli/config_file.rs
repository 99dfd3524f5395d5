//! `remuda.toml`: the options of `serve` in a file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Deserialize;

use crate::cli::builtin::Builtin;
use crate::cli::number;
use crate::cli::pool::{MAX_BODY_BYTES_LIMIT, PidNamespaceArg, unfit};
use crate::cli::worker::WorkerArgs;
use crate::http::HttpAddress;

/// What a file says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigFile {
    pub(crate) listen: Vec<String>,
    pub(crate) http: HttpText,
    pub(crate) http_admin: HttpText,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) insecure: bool,
    worker: WorkerTable,
    pub(crate) pool: PoolTable,
}

/// `[worker]`: one of these.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WorkerTable {
    command: Vec<String>,
    stdio: bool,
    python: Option<String>,
    python_bin: Option<String>,
    node: Option<String>,
    node_bin: Option<String>,
    builtin: Option<String>,
    threads: bool,
    attach: Vec<String>,
}

/// `[pool]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PoolTable {
    pub(crate) num_workers: Option<u32>,
    pub(crate) max_jobs: Option<u64>,
    pub(crate) max_queue_size: Option<u32>,
    pub(crate) retries: Option<u32>,
    pub(crate) allocate_timeout: Option<Text>,
    pub(crate) destroy_timeout: Option<Text>,
    pub(crate) reset_timeout: Option<Text>,
    pub(crate) max_body_bytes: Option<Text>,
    pub(crate) spin: Option<Text>,
    pub(crate) shm: Option<bool>,
    pid_namespace: Option<String>,
    pub(crate) supervisor: SupervisorTable,
}

/// `[pool.supervisor]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SupervisorTable {
    pub(crate) watch_tick: Option<Text>,
    pub(crate) ttl: Option<Text>,
    pub(crate) idle_ttl: Option<Text>,
    pub(crate) exec_ttl: Option<Text>,
    pub(crate) max_worker_memory: Option<Text>,
}

/// A time or a size: a number, or text with a unit.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a number, or text with a unit such as \"2s\" or \"16M\"")]
pub(crate) enum Text {
    WithUnit(String),
    Whole(u64),
    Number(f64),
}

impl Text {
    pub(crate) fn duration(&self) -> Result<std::time::Duration, String> {
        number::duration(&self.to_string())
    }

    pub(crate) fn bytes(&self) -> Result<u64, String> {
        number::bytes(&self.to_string())
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WithUnit(text) => f.write_str(text),
            Self::Whole(number) => number.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// An address of HTTP, if the file has one: `host:port`, or a port as a number.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct HttpText(Option<Text>);

impl HttpText {
    pub(crate) fn address(&self, name: &str) -> Result<Option<HttpAddress>, String> {
        let parse = |text: &Text| text.to_string().parse().map_err(|e| format!("{name}: {e}"));
        self.0.as_ref().map(parse).transpose()
    }
}

/// The names that each table may hold.
const NAMES: [(&str, &[&str]); 4] = [
    ("", &["listen", "http", "http_admin", "token_file", "insecure", "worker", "pool"]),
    (
        "worker",
        &[
            "command",
            "stdio",
            "python",
            "python_bin",
            "node",
            "node_bin",
            "builtin",
            "threads",
            "attach",
        ],
    ),
    (
        "pool",
        &[
            "num_workers",
            "max_jobs",
            "max_queue_size",
            "retries",
            "allocate_timeout",
            "destroy_timeout",
            "reset_timeout",
            "max_body_bytes",
            "spin",
            "shm",
            "pid_namespace",
            "supervisor",
        ],
    ),
    ("pool.supervisor", &["watch_tick", "ttl", "idle_ttl", "exec_ttl", "max_worker_memory"]),
];

/// Reads the file; without one, nothing is said.
pub(crate) fn read(path: Option<&Path>) -> Result<ConfigFile, String> {
    let Some(path) = path else { return Ok(ConfigFile::default()) };
    let name = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    parse(&text).map_err(|error| format!("{name}: {error}"))
}

fn parse(text: &str) -> Result<ConfigFile, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    check("", &table)?;
    let file: ConfigFile = table
        .try_into()
        .map_err(|error: toml::de::Error| error.to_string().trim_end().to_owned())?;
    let pool = &file.pool;
    within("num_workers", pool.num_workers, 1..=4096)?;
    within("max_queue_size", pool.max_queue_size, 1..=67_108_864)?;
    within("retries", pool.retries, 1..=1000)?;
    within("max_jobs", pool.max_jobs, 1..=u64::MAX)?;
    pool.check()?;
    file.worker.builtin()?;
    Ok(file)
}

impl PoolTable {
    pub(crate) fn pid_namespace(&self) -> Result<Option<PidNamespaceArg>, String> {
        let Some(name) = &self.pid_namespace else { return Ok(None) };
        named(name)
            .map(Some)
            .map_err(|known| format!("`pool.pid_namespace` is {name:?}: it must be one of {known}"))
    }

    /// Refuses texts that are no times or sizes, by the names of their options.
    fn check(&self) -> Result<(), String> {
        let of = |name: &str, error| format!("`pool.{name}`: {error}");
        let watched = &self.supervisor;
        for (name, time) in [
            ("allocate_timeout", &self.allocate_timeout),
            ("destroy_timeout", &self.destroy_timeout),
            ("reset_timeout", &self.reset_timeout),
            ("spin", &self.spin),
            ("supervisor.watch_tick", &watched.watch_tick),
            ("supervisor.ttl", &watched.ttl),
            ("supervisor.idle_ttl", &watched.idle_ttl),
            ("supervisor.exec_ttl", &watched.exec_ttl),
        ] {
            let time = time.as_ref().map(Text::duration).transpose();
            let time = time.map_err(|error| of(name, error))?;
            if let Some(why) = time.and_then(|time| unfit(name, time)) {
                return Err(format!("`pool.{name}` {why}"));
            }
        }
        let size = |name, size: &Option<Text>| {
            size.as_ref().map(Text::bytes).transpose().map_err(|error| of(name, error))
        };
        self.pid_namespace()?;
        size("supervisor.max_worker_memory", &watched.max_worker_memory)?;
        let body = size("max_body_bytes", &self.max_body_bytes)?;
        within("max_body_bytes", body, 1..=MAX_BODY_BYTES_LIMIT)
    }
}

impl WorkerTable {
    fn builtin(&self) -> Result<Option<Builtin>, String> {
        let Some(name) = &self.builtin else { return Ok(None) };
        named(name).map(Some).map_err(|known| {
            format!("`worker.builtin`: there is no built-in worker `{name}`; there are {known}")
        })
    }
}

/// What a flag has by that name, or all names that it knows.
fn named<E: ValueEnum>(name: &str) -> Result<E, String> {
    E::from_str(name, false).map_err(|_| {
        let known = E::value_variants().iter().filter_map(E::to_possible_value);
        known.map(|known| known.get_name().to_owned()).collect::<Vec<_>>().join(", ")
    })
}

/// The same limits as those of the flags.
fn within<N: Into<u64>>(
    name: &str,
    value: Option<N>,
    limits: RangeInclusive<u64>,
) -> Result<(), String> {
    match value.map(N::into) {
        Some(value) if !limits.contains(&value) => Err(format!(
            "`pool.{name}` is {value}: it must be from {} to {}",
            limits.start(),
            limits.end()
        )),
        _ => Ok(()),
    }
}

/// Refuses a name that is not an option, and names the nearest one that is.
fn check(path: &str, table: &toml::Table) -> Result<(), String> {
    let tables: BTreeMap<&str, &[&str]> = NAMES.into_iter().collect();
    let Some(known) = tables.get(path) else { return Ok(()) };
    for (name, value) in table {
        let full = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if !known.contains(&name.as_str()) {
            let nearest = nearest(path, name);
            return Err(format!("there is no option `{full}`; did you mean `{nearest}`?"));
        }
        if let toml::Value::Table(inner) = value {
            check(&full, inner)?;
        }
    }
    Ok(())
}

/// The option that was meant, probably: one of the same table, by its name alone, if there is one
/// that is about as similar.
fn nearest(path: &str, name: &str) -> String {
    /// How much more similar one of another table must be.
    const ELSEWHERE: f64 = 0.1;
    let candidates = NAMES.iter().flat_map(|(table, names)| {
        let (shown, less) = match *table == path {
            true => (String::new(), 0.0),
            false if table.is_empty() => (String::new(), ELSEWHERE),
            false => (format!("{table}."), ELSEWHERE),
        };
        names.iter().map(move |known| (format!("{shown}{known}"), similar(name, known) - less))
    });
    candidates.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(name, _)| name).unwrap_or_default()
}

fn similar(a: &str, b: &str) -> f64 {
    strsim::jaro_winkler(a, b)
}

impl ConfigFile {
    /// The worker: what the command line says, or else the file.
    pub(crate) fn worker(&self, args: &WorkerArgs) -> Result<WorkerArgs, String> {
        if args.is_given() {
            return Ok(args.clone());
        }
        let table = &self.worker;
        let mut worker = args.clone();
        worker.command = table.command.iter().map(OsString::from).collect();
        worker.stdio |= table.stdio;
        worker.python.clone_from(&table.python);
        worker.node.clone_from(&table.node);
        worker.threads |= table.threads;
        worker.attach.clone_from(&table.attach);
        if worker.python_bin.is_none() {
            worker.python_bin = table.python_bin.as_ref().map(OsString::from);
        }
        if worker.node_bin.is_none() {
            worker.node_bin = table.node_bin.as_ref().map(OsString::from);
        }
        worker.builtin = table.builtin()?;
        Ok(worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read() {
        let file = parse(
            "listen = [\"unix:/run/x.sock\"]\n[worker]\npython = \"a.py:f\"\n[pool]\nnum_workers = 3\n\
             allocate_timeout = 2.5\n[pool.supervisor]\nttl = \"1h\"\nmax_worker_memory = \"1G\"\n",
        )
        .unwrap();
        assert_eq!(file.pool.num_workers, Some(3));
        assert_eq!(
            file.pool.allocate_timeout.unwrap().duration(),
            Ok(std::time::Duration::from_millis(2500))
        );
        assert_eq!(file.pool.supervisor.max_worker_memory.unwrap().bytes(), Ok(1 << 30));
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_the_nearest() {
        let error = parse("[pool]\nnum_worker = 3\n").unwrap_err();
        assert_eq!(error, "there is no option `pool.num_worker`; did you mean `num_workers`?");
        let error = parse("[pool.supervisor]\nexec_tl = 3\n").unwrap_err();
        assert!(error.contains("`exec_ttl`"), "{error}");
        for misplaced in ["num_workers = 3\n", "nmu_workers = 3\n"] {
            let error = parse(misplaced).unwrap_err();
            assert!(error.contains("did you mean `pool.num_workers`?"), "{error}");
        }
        assert!(parse("[pool]\nnum_workers = \"many\"\n").is_err());
    }
}
