//! Ten thousand clients lose their server for 30 s and come back, by a virtual clock.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod world;

use remuda_backoff::Backoff;
use remuda_reconnect::{
    ConnResult, GaveUp, LocalConnector, Publisher, Retry, RunResult, Sleep, run,
};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;
use world::{World, WorldSleep};

const CLIENTS: u64 = 10_000;
const DIES_AT: Duration = Duration::from_secs(60);
const RETURNS_AT: Duration = Duration::from_secs(90);
const ENDS_AT: Duration = Duration::from_secs(240);
const BIN: Duration = Duration::from_millis(100);

/// A server that is up or down, and what it saw.
struct Server {
    is_up: Publisher<bool>,
    /// Accepts, and closes at once.
    is_rude: bool,
    attempts: RefCell<Vec<Duration>>,
    connected: Cell<u64>,
    last_connected_at: Cell<Duration>,
}

/// One client: a network's round trip to connect, and a link that lasts as long as the server.
struct Client {
    server: Rc<Server>,
    world: WorldSleep,
    round_trip: Duration,
    retry: Retry<WorldSleep>,
}

impl LocalConnector for Client {
    type ConnType = ();
    type Error = GaveUp;

    async fn connect(&mut self) -> ConnResult<(), GaveUp> {
        self.retry.connecting();
        self.server.attempts.borrow_mut().push(self.world.now());
        self.world.sleep(self.round_trip).await;
        if !self.server.is_up.latest() {
            self.retry.failed("connection refused");
            return ConnResult::Reconnect;
        }
        self.retry.connected();
        self.server.connected.set(self.server.connected.get() + 1);
        self.server.last_connected_at.set(self.world.now());
        ConnResult::Connected(())
    }

    async fn run(&mut self, (): ()) -> RunResult<GaveUp> {
        if !self.server.is_rude {
            self.server.is_up.watch().until(|is_up| !is_up).await;
        }
        self.retry.failed("connection reset");
        self.server.connected.set(self.server.connected.get() - 1);
        RunResult::Reconnect
    }

    async fn retry_delay(&mut self) -> RunResult<GaveUp> {
        self.retry.delay().await.into()
    }
}

/// How the clients came back.
#[derive(Debug, PartialEq)]
struct Return {
    connected: u64,
    took: Duration,
    /// Attempts in the fullest 100 ms, and in the mean 100 ms, from the server's return to the
    /// last client's.
    peak: u64,
    mean: f64,
}

impl Server {
    fn new(is_rude: bool) -> Rc<Self> {
        Rc::new(Self {
            is_up: Publisher::new(true),
            is_rude,
            attempts: RefCell::default(),
            connected: Cell::default(),
            last_connected_at: Cell::default(),
        })
    }
}

fn clients(
    count: u64,
    server: &Rc<Server>,
    world: &WorldSleep,
    backoff_of: impl Fn(u64) -> Backoff,
) -> Vec<Pin<Box<dyn Future<Output = ()>>>> {
    let mut tasks: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    for number in 0..count {
        let client = Client {
            server: Rc::clone(server),
            world: world.clone(),
            round_trip: Duration::from_micros(100 + number % 900),
            retry: Retry::new(backoff_of(number), world.clone()),
        };
        tasks.push(Box::pin(async { run(client).await.unwrap() }));
    }
    tasks
}

/// The server dies and returns under `count` clients.
fn simulate(count: u64, backoff_of: impl Fn(u64) -> Backoff) -> Return {
    let world = WorldSleep(Rc::default());
    let server = Server::new(false);
    let mut tasks = clients(count, &server, &world, backoff_of);
    let (clock, dying) = (world.clone(), Rc::clone(&server));
    tasks.push(Box::pin(async move {
        clock.sleep(DIES_AT).await;
        assert_eq!(dying.connected.get(), count, "all were connected at first");
        dying.is_up.publish(false);
        clock.sleep(RETURNS_AT - DIES_AT).await;
        assert_eq!(dying.connected.get(), 0, "all were cut off");
        dying.is_up.publish(true);
    }));
    World::run(&world.0, tasks, ENDS_AT);
    counted(&server)
}

fn counted(server: &Server) -> Return {
    let took = server.last_connected_at.get().saturating_sub(RETURNS_AT);
    let bins = took.as_nanos().div_ceil(BIN.as_nanos()) as usize;
    let mut counts = vec![0u64; bins.max(1)];
    for attempt in server.attempts.borrow().iter().filter(|&&at| at >= RETURNS_AT) {
        if let Some(count) =
            counts.get_mut(((*attempt - RETURNS_AT).as_nanos() / BIN.as_nanos()) as usize)
        {
            *count += 1;
        }
    }
    Return {
        connected: server.connected.get(),
        took,
        peak: counts.iter().copied().max().unwrap(),
        mean: counts.iter().sum::<u64>() as f64 / (took.as_secs_f64() / BIN.as_secs_f64()),
    }
}

/// Neighbouring seeds, as a deployment that numbers its clients would give them.
fn seeded(fleet: u64) -> impl Fn(u64) -> Backoff {
    move |number| Backoff::new(fleet * 1_000_000 + number)
}

#[test]
fn clients_come_back_evenly_and_within_the_cap_plus_5_s() {
    for fleet in 0..3 {
        let back = simulate(CLIENTS, seeded(fleet));
        println!("fleet {fleet}: {back:?}, peak {:.2} of the mean", back.peak as f64 / back.mean);
        assert_eq!(back.connected, CLIENTS);
        assert!(back.took <= Backoff::CAP_DEFAULT + Duration::from_secs(5), "{back:?}");
        assert!(back.peak as f64 <= 3.0 * back.mean, "{back:?}");
    }
}

#[test]
fn other_caps_hold_the_same_bounds() {
    for cap in [1, 20].map(Duration::from_secs) {
        let back = simulate(CLIENTS, |number| seeded(7)(number).cap(cap));
        println!("cap {cap:?}: {back:?}, peak {:.2} of the mean", back.peak as f64 / back.mean);
        assert_eq!(back.connected, CLIENTS);
        assert!(back.took <= cap + Duration::from_secs(5), "{back:?}");
        assert!(back.peak as f64 <= 3.0 * back.mean, "{back:?}");
    }
}

#[test]
fn history_is_the_same_each_time() {
    assert_eq!(simulate(500, seeded(3)), simulate(500, seeded(3)));
}

/// What the jitter is for, and that this simulation would show its lack: clients that share one
/// seed come back all at once.
#[test]
fn clients_of_one_seed_come_back_all_at_once() {
    let back = simulate(500, |_| Backoff::new(1));
    assert_eq!(back.connected, 500);
    assert_eq!(back.peak, 500, "{back:?}");
}

/// A link that dies at once is not a success: the delays grow all the same, to half the cap in
/// the mean.
#[test]
fn server_that_accepts_and_closes_at_once_raises_no_storm() {
    const COUNT: u64 = 200;
    let world = WorldSleep(Rc::default());
    let server = Server::new(true);
    World::run(&world.0, clients(COUNT, &server, &world, seeded(1)), ENDS_AT);
    let last_minute = ENDS_AT - Duration::from_secs(60);
    let attempts = server.attempts.borrow().iter().filter(|&&at| at >= last_minute).count() as f64;
    let expected = COUNT as f64 * 60.0 / (Backoff::CAP_DEFAULT.as_secs_f64() / 2.0);
    assert!((attempts / expected - 1.0).abs() < 0.1, "{attempts} attempts, {expected} expected");
}
