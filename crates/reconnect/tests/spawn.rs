//! Generic code can spawn the loop, on a runtime with threads and on one without.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use remuda_backoff::Backoff;
use remuda_reconnect::{ConnResult, Connector, LocalConnector, RunResult, run};
use remuda_reconnect::{GaveUp, Retry, Sleep, SleepFn, Stopper};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet};

/// Knows of the connector only that it is one.
fn keep<C: Connector + 'static>(connector: C) -> JoinHandle<Result<(), C::Error>> {
    tokio::spawn(run(connector))
}

/// The same for one that can be stopped.
fn keep_until<C: Connector + 'static>(
    connector: C,
    stopper: Stopper,
) -> JoinHandle<Option<Result<(), C::Error>>> {
    tokio::spawn(async move { stopper.race(run(connector)).await })
}

fn keep_local<C: LocalConnector + 'static>(connector: C) -> JoinHandle<Result<(), C::Error>>
where
    C::Error: 'static,
{
    tokio::task::spawn_local(run(connector))
}

/// Connects at the third attempt, waits for one message, and ends.
struct Mailbox<S> {
    retry: Retry<S>,
    inbox: Option<mpsc::Receiver<u32>>,
    outbox: mpsc::Sender<u32>,
}

impl<S: Sleep<Sleeping: Send> + Send> Connector for Mailbox<S> {
    type ConnType = mpsc::Receiver<u32>;
    type Error = GaveUp;

    async fn connect(&mut self) -> ConnResult<mpsc::Receiver<u32>, GaveUp> {
        tokio::task::yield_now().await;
        if self.retry.failures() < 2 {
            self.retry.failed("not yet");
            return ConnResult::Reconnect;
        }
        self.retry.connected();
        ConnResult::Connected(self.inbox.take().unwrap())
    }

    async fn run(&mut self, mut connection: mpsc::Receiver<u32>) -> RunResult<GaveUp> {
        let message = connection.recv().await.unwrap();
        self.outbox.send(message + 1).await.unwrap();
        RunResult::Exit(Ok(()))
    }

    async fn retry_delay(&mut self) -> RunResult<GaveUp> {
        self.retry.delay().await.into()
    }
}

type Ends = (mpsc::Sender<u32>, mpsc::Receiver<u32>);

fn mailbox<S: Sleep>(sleep: S) -> (Mailbox<S>, Ends) {
    let (to, inbox) = mpsc::channel(1);
    let (outbox, from) = mpsc::channel(1);
    let retry = Retry::new(Backoff::new(1).base(Duration::from_millis(1)), sleep);
    (Mailbox { retry, inbox: Some(inbox), outbox }, (to, from))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generic_code_spawns_the_loop_on_threads() {
    let (connector, (to, mut from)) = mailbox(SleepFn::new(tokio::time::sleep));
    let looping = keep(connector);
    to.send(41).await.unwrap();
    assert_eq!(from.recv().await, Some(42));
    assert_eq!(looping.await.unwrap(), Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generic_code_spawns_the_loop_and_stops_it() {
    let (connector, (_to, mut from)) = mailbox(SleepFn::new(tokio::time::sleep));
    let mut watch = connector.retry.watch();
    let stopper = Stopper::new();
    let looping = keep_until(connector, stopper.clone());
    watch.until(|state| state.is_connected()).await.expect("it connects");
    stopper.stop();
    assert_eq!(looping.await.unwrap(), None);
    assert_eq!(from.recv().await, None, "the connector is gone, its end of the channel too");
    assert!(watch.is_over());
}

/// A sleep that must stay on its thread, as those of a thread-per-core runtime do.
#[tokio::test(flavor = "current_thread")]
async fn local_loop_needs_nothing_to_be_send() {
    struct Local(Rc<()>, Retry<LocalSleep>);
    type LocalSleep = SleepFn<fn(Duration) -> std::pin::Pin<Box<dyn Future<Output = ()>>>>;

    impl LocalConnector for Local {
        type ConnType = Rc<()>;
        type Error = GaveUp;

        async fn connect(&mut self) -> ConnResult<Rc<()>, GaveUp> {
            if self.1.failures() < 2 {
                self.1.failed("not yet");
                return ConnResult::Reconnect;
            }
            ConnResult::Connected(Rc::clone(&self.0))
        }

        async fn run(&mut self, connection: Rc<()>) -> RunResult<GaveUp> {
            tokio::task::yield_now().await;
            assert_eq!(Rc::strong_count(&connection), 2);
            RunResult::Exit(Ok(()))
        }

        async fn retry_delay(&mut self) -> RunResult<GaveUp> {
            self.1.delay().await.into()
        }
    }

    let sleep: LocalSleep = SleepFn::new(|duration| Box::pin(tokio::time::sleep(duration)));
    let retry = Retry::new(Backoff::new(1).base(Duration::from_millis(1)), sleep);
    let local = LocalSet::new();
    let ended = local.run_until(async { keep_local(Local(Rc::default(), retry)).await.unwrap() });
    assert_eq!(ended.await, Ok(()));
}

#[tokio::test(flavor = "current_thread")]
async fn connector_is_a_local_connector_too() {
    let (connector, (to, mut from)) = mailbox(SleepFn::new(tokio::time::sleep));
    let local = LocalSet::new();
    let ended = local.run_until(async {
        let looping = keep_local(connector);
        to.send(1).await.unwrap();
        assert_eq!(from.recv().await, Some(2));
        looping.await.unwrap()
    });
    assert_eq!(ended.await, Ok(()));
}
