//! `remuda.toml`: the options of `serve` in a file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Deserialize;
use toml::de::DeTable;

use crate::cli::builtin::Builtin;
use crate::cli::config_names;
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
#[serde(untagged)]
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

/// Reads the file; without one, nothing is said.
pub(crate) fn read(path: Option<&Path>) -> Result<ConfigFile, String> {
    let Some(path) = path else { return Ok(ConfigFile::default()) };
    let name = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    parse(&text).map_err(|error| format!("{name}: {error}"))
}

fn parse(text: &str) -> Result<ConfigFile, String> {
    let said = |error: toml::de::Error| error.to_string().trim_end().to_owned();
    let table = DeTable::parse(text).map_err(said)?;
    config_names::check(text, table.get_ref())?;
    let file: ConfigFile = toml::from_str(text).map_err(said)?;
    let wrong = file.pool.check().and_then(|()| file.worker.builtin().map(drop));
    wrong.map_err(|wrong| match config_names::line_of(text, table.get_ref(), &wrong.name) {
        Some(line) => format!("line {line}: {wrong}"),
        None => wrong.to_string(),
    })?;
    Ok(file)
}

/// Why the value of an option can't be.
#[derive(Debug, thiserror::Error)]
#[error("`{name}`{why}")]
struct Wrong {
    name: String,
    why: String,
}

impl Wrong {
    fn new(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { name: name.into(), why: why.into() }
    }
}

impl PoolTable {
    pub(crate) fn pid_namespace(&self) -> Result<Option<PidNamespaceArg>, String> {
        self.namespace().map_err(|wrong| wrong.to_string())
    }

    fn namespace(&self) -> Result<Option<PidNamespaceArg>, Wrong> {
        let Some(name) = &self.pid_namespace else { return Ok(None) };
        named(name).map(Some).map_err(|known| {
            Wrong::new("pool.pid_namespace", format!(" is {name:?}: it must be one of {known}"))
        })
    }

    /// Refuses texts that are no times or sizes, by the names of their options.
    fn check(&self) -> Result<(), Wrong> {
        let of = |name: &str, error| Wrong::new(format!("pool.{name}"), format!(": {error}"));
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
                return Err(Wrong::new(format!("pool.{name}"), format!(" {why}")));
            }
        }
        let size = |name, size: &Option<Text>| {
            size.as_ref().map(Text::bytes).transpose().map_err(|error| of(name, error))
        };
        self.namespace()?;
        size("supervisor.max_worker_memory", &watched.max_worker_memory)?;
        let name = "max_body_bytes";
        match size(name, &self.max_body_bytes)? {
            Some(bytes) if !(1..=MAX_BODY_BYTES_LIMIT).contains(&bytes) => {
                let why = format!(" is {bytes}: it must be from 1 to {MAX_BODY_BYTES_LIMIT}");
                Err(Wrong::new(format!("pool.{name}"), why))
            }
            _ => Ok(()),
        }
    }
}

impl WorkerTable {
    fn builtin(&self) -> Result<Option<Builtin>, Wrong> {
        let Some(name) = &self.builtin else { return Ok(None) };
        named(name).map(Some).map_err(|known| {
            let why = format!(": there is no built-in worker `{name}`; there are {known}");
            Wrong::new("worker.builtin", why)
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
        worker.builtin = table.builtin().map_err(|wrong| wrong.to_string())?;
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
        assert_eq!(
            error,
            "line 2: there is no option `pool.num_worker`; did you mean `num_workers`?"
        );
        let error = parse("[pool.supervisor]\nexec_tl = 3\n").unwrap_err();
        assert!(error.contains("`exec_ttl`"), "{error}");
        for misplaced in ["num_workers = 3\n", "nmu_workers = 3\n"] {
            let error = parse(misplaced).unwrap_err();
            assert!(error.contains("did you mean `pool.num_workers`?"), "{error}");
        }
    }

    #[test]
    fn a_value_of_another_kind_is_told_of_in_the_words_of_the_file() {
        let line_2 = |line: &str| parse(&format!("# a file\n{line}\n")).unwrap_err();
        for (line, told) in [
            (
                "listen = \"x\"",
                "`listen` is \"x\": it must be a list of texts, such as [\"a\", \"b\"]",
            ),
            ("listen = [1, 2]", "`listen` is [1, 2]: it must be a list of texts"),
            ("insecure = 1", "`insecure` is 1: it must be true or false"),
            ("token_file = 1979-05-27", "`token_file` is 1979-05-27: it must be text in quotes"),
            ("http = true", "`http` is true: it must be a port, or text such as"),
            ("pool = 3", "`pool` is 3: it must be a table of its own: [pool]"),
            ("[listen]", "`listen` is a table: it must be a list of texts"),
            (
                "pool.num_workers = \"many\"",
                "is \"many\": it must be a whole number from 1 to 4096",
            ),
            ("pool.num_workers = 2.5", "`pool.num_workers` is 2.5: it must be a whole number"),
            ("pool.retries = -1", "`pool.retries` is -1: it must be a whole number from 1 to 1000"),
            (
                "pool.num_workers = 0x2000",
                "`pool.num_workers` is 0x2000: it must be a whole number",
            ),
            (
                "pool.spin = true",
                "is true: it must be a number, or text with a unit such as \"2s\"",
            ),
            ("pool.spin = \"1h\"", "`pool.spin` is 3600s: it may be at most 1s"),
            ("pool.supervisor.ttl = \"x\"", "`pool.supervisor.ttl`: `x` is not a time"),
            (
                "worker.builtin = \"sha255\"",
                "`worker.builtin`: there is no built-in worker `sha255`",
            ),
        ] {
            let error = line_2(line);
            assert!(error.starts_with("line 2: `") && error.contains(told), "{line}: {error}");
        }
        let long = format!("listen = \"{}\"", "x".repeat(1000));
        assert!(line_2(&long).len() < 200, "{}", line_2(&long));
        assert!(parse("[pool]\nnum_workers = 0x10\nmax_jobs = 1_000\n").is_ok());
    }
}
