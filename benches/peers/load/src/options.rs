//! What the command line asks for.

use std::time::Duration;

/// The options; see the top of the program.
pub struct Options {
    /// HTTP, or else lines.
    pub http: bool,
    /// `HOST:PORT`, or the path of a Unix socket.
    pub to: String,
    /// Where HTTP posts.
    pub path: String,
    /// How many connections.
    pub connections: usize,
    /// How many calls are in flight on all connections together.
    pub in_flight: usize,
    /// How many letters a body has.
    pub bytes: usize,
    /// So many calls, each answered before the end. Without it, `seconds`.
    pub calls: Option<u64>,
    /// Not measured.
    pub warmup: Duration,
    /// How long is measured.
    pub seconds: Duration,
}

impl Options {
    /// Reads the command line.
    ///
    /// # Panics
    ///
    /// If it is wrong: this program is started by a script.
    pub fn parse() -> Self {
        let mut words = std::env::args().skip(1);
        let http = match words.next().as_deref() {
            Some("http") => true,
            Some("lines") => false,
            other => panic!("`http` or `lines`, not {other:?}"),
        };
        let mut options = Self {
            http,
            to: String::new(),
            path: "/call".into(),
            connections: 1,
            in_flight: 0,
            bytes: 60,
            calls: None,
            warmup: Duration::from_millis(300),
            seconds: Duration::from_secs(1),
        };
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            let number = || value.parse::<f64>().unwrap_or_else(|_| panic!("{name} {value}"));
            match name.as_str() {
                "--to" => options.to = value,
                "--path" => options.path = value,
                "--connections" => options.connections = number() as usize,
                "--in-flight" => options.in_flight = number() as usize,
                "--bytes" => options.bytes = number() as usize,
                "--calls" => options.calls = Some(number() as u64),
                "--warmup" => options.warmup = Duration::from_secs_f64(number()),
                "--seconds" => options.seconds = Duration::from_secs_f64(number()),
                _ => panic!("no such option: {name}"),
            }
        }
        if options.in_flight == 0 || http {
            options.in_flight = options.connections;
        }
        options
    }
}
