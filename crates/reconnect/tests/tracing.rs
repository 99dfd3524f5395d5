//! The steps of the loop in the log.
#![cfg(feature = "tracing")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use remuda_reconnect::{ConnResult, Connector, RunResult, run};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use support::block_on;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

/// Notes each event as `level target name: message`.
struct Lines(Arc<Mutex<Vec<String>>>);

#[derive(Default)]
struct Fields {
    name: String,
    message: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" {
            self.name = value.to_owned();
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let meta = event.metadata();
        let line =
            format!("{} {} {}: {}", meta.level(), meta.target(), fields.name, fields.message);
        self.0.lock().unwrap().push(line);
    }
}

/// Fails, connects, loses the connection, and gives up.
struct Steps(u32);

impl Connector for Steps {
    type ConnType = ();
    type Error = &'static str;

    async fn connect(&mut self) -> ConnResult<(), &'static str> {
        self.0 += 1;
        match self.0 {
            1 => ConnResult::Reconnect,
            2 => ConnResult::Connected(()),
            _ => ConnResult::Exit(Err("gone")),
        }
    }

    async fn run(&mut self, (): ()) -> RunResult<&'static str> {
        RunResult::Reconnect
    }

    async fn retry_delay(&mut self) -> RunResult<&'static str> {
        RunResult::Reconnect
    }

    fn name(&self) -> Option<&str> {
        Some("shm:prices")
    }
}

#[test]
fn steps_are_logged_with_the_name_of_the_target() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let subscriber = Lines(Arc::clone(&lines));
    let result = tracing::subscriber::with_default(subscriber, || block_on(run(Steps(0))));
    assert_eq!(result, Err("gone"));
    let expected = [
        "attempt failed",
        "connecting again",
        "connected",
        "connection ended",
        "connecting again",
        "ended with an error",
    ]
    .map(|step| format!("DEBUG remuda_reconnect shm:prices: {step}"));
    assert_eq!(*lines.lock().unwrap(), expected);
}
