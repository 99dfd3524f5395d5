//! Every path of the loop, every exit, and what is called on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use remuda_reconnect::{ConnResult, Connector, LocalConnector, RunResult, run};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use support::block_on;

/// What the script lets each call answer, in turn.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Connected,
    Reconnect,
    Ok,
    Err,
}

/// Answers from a script and notes each call; the connection is the number of the attempt.
struct Scripted {
    script: VecDeque<Answer>,
    calls: Arc<Mutex<Vec<String>>>,
    attempts: u32,
}

impl Scripted {
    fn note(&mut self, call: impl Into<String>) -> Answer {
        self.calls.lock().unwrap().push(call.into());
        self.script.pop_front().expect("the loop calls no more than the script has answers")
    }

    fn run_result(answer: Answer) -> RunResult<&'static str> {
        match answer {
            Answer::Reconnect => RunResult::Reconnect,
            Answer::Ok => RunResult::Exit(Ok(())),
            Answer::Err => RunResult::Exit(Err("broken")),
            Answer::Connected => unreachable!("only connect answers so"),
        }
    }
}

impl Connector for Scripted {
    type ConnType = u32;
    type Error = &'static str;

    async fn connect(&mut self) -> ConnResult<u32, &'static str> {
        self.attempts += 1;
        match self.note("connect") {
            Answer::Connected => ConnResult::Connected(self.attempts),
            Answer::Reconnect => ConnResult::Reconnect,
            Answer::Ok => ConnResult::Exit(Ok(())),
            Answer::Err => ConnResult::Exit(Err("broken")),
        }
    }

    async fn run(&mut self, connection: u32) -> RunResult<&'static str> {
        Scripted::run_result(self.note(format!("run {connection}")))
    }

    async fn retry_delay(&mut self) -> RunResult<&'static str> {
        Scripted::run_result(self.note("delay"))
    }
}

/// The same, by futures that aren't `Send`.
struct Local {
    scripted: Rc<RefCell<Scripted>>,
}

#[allow(clippy::await_holding_refcell_ref, reason = "the loop calls one method at a time")]
impl LocalConnector for Local {
    type ConnType = Rc<u32>;
    type Error = Rc<str>;

    async fn connect(&mut self) -> ConnResult<Rc<u32>, Rc<str>> {
        match Connector::connect(&mut *self.scripted.borrow_mut()).await {
            ConnResult::Connected(attempt) => ConnResult::Connected(Rc::new(attempt)),
            ConnResult::Reconnect => ConnResult::Reconnect,
            ConnResult::Exit(result) => ConnResult::Exit(result.map_err(Rc::from)),
        }
    }

    async fn run(&mut self, connection: Rc<u32>) -> RunResult<Rc<str>> {
        local(Connector::run(&mut *self.scripted.borrow_mut(), *connection).await)
    }

    async fn retry_delay(&mut self) -> RunResult<Rc<str>> {
        local(Connector::retry_delay(&mut *self.scripted.borrow_mut()).await)
    }
}

fn local(result: RunResult<&'static str>) -> RunResult<Rc<str>> {
    match result {
        RunResult::Reconnect => RunResult::Reconnect,
        RunResult::Exit(result) => RunResult::Exit(result.map_err(Rc::from)),
    }
}

/// Plays a script through both traits: both give the same calls and the same end.
fn play(script: &[Answer]) -> (Vec<String>, Result<(), String>) {
    let scripted = || {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let script = script.iter().copied().collect();
        (Scripted { script, calls: Arc::clone(&calls), attempts: 0 }, calls)
    };

    let (connector, calls) = scripted();
    let result = block_on(run(connector)).map_err(str::to_owned);

    let (connector, calls_local) = scripted();
    let connector = Rc::new(RefCell::new(connector));
    let result_local =
        block_on(run(Local { scripted: Rc::clone(&connector) })).map_err(|e| e.to_string());

    assert!(connector.borrow().script.is_empty(), "the loop ended before the script did");
    let calls = calls.lock().unwrap().clone();
    assert_eq!(calls, *calls_local.lock().unwrap(), "both traits are driven alike");
    assert_eq!(result, result_local, "both traits end alike");
    (calls, result)
}

fn assert_play(script: &[Answer], calls: &[&str], result: Result<(), &str>) {
    assert_eq!(
        play(script),
        (calls.iter().map(|&call| call.to_owned()).collect(), result.map_err(str::to_owned))
    );
}

use Answer::{Connected, Err as Error, Ok as Done, Reconnect};

#[test]
fn connect_exits_well() {
    assert_play(&[Done], &["connect"], Ok(()));
}

#[test]
fn connect_exits_with_an_error() {
    assert_play(&[Error], &["connect"], Err("broken"));
}

#[test]
fn run_gets_the_connection_and_exits_well() {
    assert_play(&[Connected, Done], &["connect", "run 1"], Ok(()));
}

#[test]
fn run_exits_with_an_error() {
    assert_play(&[Connected, Error], &["connect", "run 1"], Err("broken"));
}

#[test]
fn failed_attempt_asks_for_the_delay_which_exits_well() {
    assert_play(&[Reconnect, Done], &["connect", "delay"], Ok(()));
}

#[test]
fn failed_attempt_asks_for_the_delay_which_exits_with_an_error() {
    assert_play(&[Reconnect, Error], &["connect", "delay"], Err("broken"));
}

#[test]
fn failed_attempts_are_retried_until_one_connects() {
    assert_play(
        &[Reconnect, Reconnect, Reconnect, Reconnect, Connected, Done],
        &["connect", "delay", "connect", "delay", "connect", "run 3"],
        Ok(()),
    );
}

#[test]
fn failed_attempt_is_followed_by_a_fatal_one() {
    assert_play(&[Reconnect, Reconnect, Error], &["connect", "delay", "connect"], Err("broken"));
}

#[test]
fn ended_connection_is_waited_for_before_a_new_one_is_made() {
    assert_play(
        &[Connected, Reconnect, Reconnect, Connected, Done],
        &["connect", "run 1", "delay", "connect", "run 2"],
        Ok(()),
    );
}

#[test]
fn ended_connection_asks_for_the_delay_which_exits_well() {
    assert_play(&[Connected, Reconnect, Done], &["connect", "run 1", "delay"], Ok(()));
}

#[test]
fn ended_connection_asks_for_the_delay_which_exits_with_an_error() {
    assert_play(&[Connected, Reconnect, Error], &["connect", "run 1", "delay"], Err("broken"));
}

#[test]
fn ended_connection_is_followed_by_a_failed_attempt_and_a_fatal_one() {
    assert_play(
        &[Connected, Reconnect, Reconnect, Reconnect, Reconnect, Error],
        &["connect", "run 1", "delay", "connect", "delay", "connect"],
        Err("broken"),
    );
}

#[test]
fn nothing_is_called_before_the_first_poll_nor_after_the_future_is_dropped() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let dropped = Arc::new(());
    let connector = Hanging { calls: Arc::clone(&calls), held: Arc::clone(&dropped) };
    {
        let mut looping = pin!(run(connector));
        assert!(calls.lock().unwrap().is_empty());
        assert!(looping.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(*calls.lock().unwrap(), ["connect", "run"]);
        assert_eq!(Arc::strong_count(&dropped), 3, "the connector and the connection live");
    }
    assert_eq!(Arc::strong_count(&dropped), 1, "both are gone with the future");
    assert_eq!(*calls.lock().unwrap(), ["connect", "run"]);
}

/// Connects, and keeps the connection for ever.
struct Hanging {
    calls: Arc<Mutex<Vec<&'static str>>>,
    held: Arc<()>,
}

impl Connector for Hanging {
    type ConnType = Arc<()>;
    type Error = ();

    async fn connect(&mut self) -> ConnResult<Arc<()>, ()> {
        self.calls.lock().unwrap().push("connect");
        ConnResult::Connected(Arc::clone(&self.held))
    }

    async fn run(&mut self, _connection: Arc<()>) -> RunResult<()> {
        self.calls.lock().unwrap().push("run");
        std::future::pending().await
    }

    async fn retry_delay(&mut self) -> RunResult<()> {
        unreachable!("the connection never ends")
    }
}

/// A million turns use no more stack or memory than one: the loop doesn't recurse.
#[test]
fn loop_runs_on_for_ever() {
    struct Flapping(u32);

    impl Connector for Flapping {
        type ConnType = ();
        type Error = u32;

        async fn connect(&mut self) -> ConnResult<(), u32> {
            self.0 += 1;
            if self.0.is_multiple_of(2) { ConnResult::Reconnect } else { ConnResult::Connected(()) }
        }

        async fn run(&mut self, (): ()) -> RunResult<u32> {
            RunResult::Reconnect
        }

        async fn retry_delay(&mut self) -> RunResult<u32> {
            if self.0 < 1_000_000 { RunResult::Reconnect } else { RunResult::Exit(Err(self.0)) }
        }
    }

    assert_eq!(block_on(run(Flapping(0))), Err(1_000_000));
}

#[test]
fn name_is_nothing_by_default_and_the_same_through_both_traits() {
    struct Named;

    impl Connector for Named {
        type ConnType = ();
        type Error = ();

        async fn connect(&mut self) -> ConnResult<(), ()> {
            ConnResult::Exit(Ok(()))
        }
        async fn run(&mut self, (): ()) -> RunResult<()> {
            RunResult::Reconnect
        }
        async fn retry_delay(&mut self) -> RunResult<()> {
            RunResult::Reconnect
        }
        fn name(&self) -> Option<&str> {
            Some("unix:/run/x.sock")
        }
    }

    assert_eq!(LocalConnector::name(&Named), Some("unix:/run/x.sock"));
    assert_eq!(Connector::name(&Named), Some("unix:/run/x.sock"));
    let calls = Arc::default();
    let hanging = Hanging { calls, held: Arc::default() };
    assert_eq!(Connector::name(&hanging), None);
    assert_eq!(LocalConnector::name(&hanging), None);
}
