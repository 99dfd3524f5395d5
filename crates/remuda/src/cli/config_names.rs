//! What may stand in `remuda.toml`: each name, and what its value is.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What the value of an option is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// `[name]`.
    Table,
    Text,
    Texts,
    Switch,
    /// A whole number within these limits.
    Whole(u64, u64),
    /// A time or a size.
    Measure,
    /// A port, or where to listen.
    Port,
}

use Kind::{Measure, Port, Switch, Table, Text, Texts, Whole};

/// The names that each table may hold.
const NAMES: [(&str, &[(&str, Kind)]); 4] = [
    (
        "",
        &[
            ("listen", Texts),
            ("http", Port),
            ("http_admin", Port),
            ("token_file", Text),
            ("insecure", Switch),
            ("worker", Table),
            ("pool", Table),
        ],
    ),
    (
        "worker",
        &[
            ("command", Texts),
            ("stdio", Switch),
            ("python", Text),
            ("python_bin", Text),
            ("node", Text),
            ("node_bin", Text),
            ("builtin", Text),
            ("threads", Switch),
            ("attach", Texts),
        ],
    ),
    (
        "pool",
        &[
            ("num_workers", Whole(1, 4096)),
            ("max_jobs", Whole(1, u64::MAX)),
            ("max_queue_size", Whole(1, 67_108_864)),
            ("retries", Whole(1, 1000)),
            ("allocate_timeout", Measure),
            ("destroy_timeout", Measure),
            ("reset_timeout", Measure),
            ("max_body_bytes", Measure),
            ("spin", Measure),
            ("shm", Switch),
            ("pid_namespace", Text),
            ("supervisor", Table),
        ],
    ),
    (
        "pool.supervisor",
        &[
            ("watch_tick", Measure),
            ("ttl", Measure),
            ("idle_ttl", Measure),
            ("exec_ttl", Measure),
            ("max_worker_memory", Measure),
        ],
    ),
];

/// How much of a value that can't be is shown.
const SHOWN_CHARS: usize = 40;

/// Refuses a name that is not an option, and names the nearest one that is; and a value of another
/// kind than its option has.
pub(super) fn check(text: &str, table: &DeTable<'_>) -> Result<(), String> {
    check_table("", text, table)
}

/// The line of the file that an option stands in, by its whole name.
pub(super) fn line_of(text: &str, table: &DeTable<'_>, name: &str) -> Option<usize> {
    let (first, rest) = name.split_once('.').map_or((name, None), |(a, b)| (a, Some(b)));
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == first)?;
    match (rest, value.get_ref()) {
        (Some(rest), DeValue::Table(inner)) => line_of(text, inner, rest),
        _ => Some(line(text, key.span())),
    }
}

fn line(text: &str, at: Range<usize>) -> usize {
    text.bytes().take(at.start).filter(|byte| *byte == b'\n').count() + 1
}

fn check_table(path: &str, text: &str, table: &DeTable<'_>) -> Result<(), String> {
    let known = NAMES.iter().find(|(name, _)| *name == path).map_or(&[][..], |(_, known)| known);
    for (key, value) in table {
        let name = key.get_ref();
        let full = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
        let line = line(text, key.span());
        let Some((_, kind)) = known.iter().find(|(known, _)| known == name) else {
            let nearest = nearest(path, name);
            return Err(format!(
                "line {line}: there is no option `{full}`; did you mean `{nearest}`?"
            ));
        };
        if !kind.is_of(value.get_ref()) {
            let shown = shown(text, value);
            let must =
                if matches!(kind, Table) { format!("{kind}: [{full}]") } else { kind.to_string() };
            return Err(format!("line {line}: `{full}` is {shown}: it must be {must}"));
        }
        if let DeValue::Table(inner) = value.get_ref() {
            check_table(&full, text, inner)?;
        }
    }
    Ok(())
}

/// A value as it stands in the file.
fn shown(text: &str, value: &Spanned<DeValue<'_>>) -> String {
    if matches!(value.get_ref(), DeValue::Table(_)) {
        return "a table".to_owned();
    }
    let written = text.get(value.span()).unwrap_or_default();
    let start: String =
        written.lines().next().unwrap_or_default().chars().take(SHOWN_CHARS).collect();
    if start.len() < written.len() { format!("{start}...") } else { start }
}

impl Kind {
    fn is_of(self, value: &DeValue<'_>) -> bool {
        match (self, value) {
            (Table, DeValue::Table(_))
            | (Text | Measure | Port, DeValue::String(_))
            | (Switch, DeValue::Boolean(_))
            | (Measure | Port, DeValue::Integer(_) | DeValue::Float(_)) => true,
            (Texts, DeValue::Array(values)) => {
                values.iter().all(|value| matches!(value.get_ref(), DeValue::String(_)))
            }
            (Whole(least, most), DeValue::Integer(number)) => {
                let number = u64::from_str_radix(number.as_str(), number.radix());
                number.is_ok_and(|number| (least..=most).contains(&number))
            }
            _ => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Table => f.write_str("a table of its own"),
            Text => f.write_str("text in quotes"),
            Texts => f.write_str("a list of texts, such as [\"a\", \"b\"]"),
            Switch => f.write_str("true or false"),
            Whole(least, most) => write!(f, "a whole number from {least} to {most}"),
            Measure => f.write_str("a number, or text with a unit such as \"2s\" or \"16M\""),
            Port => f.write_str("a port, or text such as \"127.0.0.1:8080\""),
        }
    }
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
        names.iter().map(move |(known, _)| {
            (format!("{shown}{known}"), strsim::jaro_winkler(name, known) - less)
        })
    });
    candidates.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(name, _)| name).unwrap_or_default()
}
