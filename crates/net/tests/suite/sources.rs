//! Sources that the kernel doesn't see, watched with and without spinning.

use std::cell::Cell;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use remuda_net::{Config, Source, watch_source};
use rustix::event::{EventfdFlags, eventfd};

use crate::drivers::{run_beside, same_driver};

/// A count that another thread raises, and the doorbell beside it.
struct Shared {
    count: AtomicU64,
    sleeps: AtomicBool,
    rung: AtomicU64,
    doorbell: std::os::fd::OwnedFd,
}

impl Shared {
    fn new() -> Arc<Self> {
        let doorbell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let (count, rung) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { count, sleeps: AtomicBool::new(false), rung, doorbell })
    }

    fn raise(&self) {
        self.count.fetch_add(1, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.sleeps.swap(false, Ordering::Relaxed) {
            self.rung.fetch_add(1, Ordering::Relaxed);
            rustix::io::write(&self.doorbell, &1u64.to_ne_bytes()).unwrap();
        }
    }
}

/// What the runtime looks at.
struct Counted {
    shared: Arc<Shared>,
    seen: Cell<u64>,
}

impl Counted {
    fn take(&self) -> u64 {
        let count = self.shared.count.load(Ordering::Acquire);
        count - self.seen.replace(count)
    }
}

impl Source for Counted {
    fn is_ready(&self) -> bool {
        self.shared.count.load(Ordering::Acquire) != self.seen.get()
    }

    fn park(&self) -> bool {
        self.shared.sleeps.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.is_ready()
    }

    fn unpark(&self) {
        self.shared.sleeps.store(false, Ordering::Relaxed);
    }
}

fn counted(shared: &Arc<Shared>) -> Rc<Counted> {
    Rc::new(Counted { shared: Arc::clone(shared), seen: Cell::new(0) })
}

/// One at a time, so that each must be noticed for the next to come.
fn rounds(config: Config, rounds: u64) -> u64 {
    let (shared, (answer, answers)) = (Shared::new(), mpsc::channel());
    let raised = Arc::clone(&shared);
    let raiser = std::thread::spawn(move || {
        for _ in 0..rounds {
            raised.raise();
            answers.recv().unwrap();
        }
    });
    let rung = Arc::clone(&shared);
    run_beside(config, move || async move {
        let source = counted(&shared);
        let handle = watch_source(Rc::clone(&source) as Rc<dyn Source>, &shared.doorbell).unwrap();
        let mut seen = 0;
        while seen < rounds {
            handle.ready().await;
            let taken = source.take();
            seen += taken;
            (0..taken).for_each(|_| answer.send(()).unwrap());
        }
    });
    raiser.join().unwrap();
    rung.rung.load(Ordering::Relaxed)
}

async fn every_change_of_a_source_is_noticed() {
    assert!(rounds(same_driver(), 5_000) > 0, "a thread that slept was woken by the doorbell");
    rounds(Config { spin: Duration::from_micros(50), ..same_driver() }, 5_000);
    rounds(Config { spin: Duration::from_millis(20), ..same_driver() }, 5_000);
}

async fn a_source_that_is_rung_between_other_events_is_noticed() {
    let shared = [Shared::new(), Shared::new()];
    let sources = shared.each_ref().map(counted);
    let watch = |source: &Rc<Counted>| {
        let doorbell = source.shared.doorbell.as_fd();
        watch_source(Rc::clone(source) as Rc<dyn Source>, &doorbell).unwrap()
    };
    let handles = sources.each_ref().map(watch);
    for round in 0..1_000 {
        let turn = round % 2;
        let raised = Arc::clone(&shared[turn]);
        let raiser = std::thread::spawn(move || raised.raise());
        let either = remuda_net::select(handles[0].ready(), handles[1].ready()).await;
        assert_eq!(turn == 0, matches!(either, remuda_net::Either::First(())));
        assert_eq!(sources[turn].take(), 1);
        raiser.join().unwrap();
    }
}

async fn a_source_that_is_dropped_is_not_looked_at() {
    let shared = Shared::new();
    let source = counted(&shared);
    let handle = watch_source(Rc::clone(&source) as Rc<dyn Source>, &shared.doorbell).unwrap();
    let waiting = remuda_net::timeout(Duration::from_millis(1), handle.ready()).await;
    assert!(waiting.is_err());
    drop(handle);
    assert_eq!(Rc::strong_count(&source), 1);
    shared.raise();
    remuda_net::sleep(Duration::from_millis(1)).await;
    assert_eq!(source.take(), 1);
}

/// What a listener calls owns the handle, and drops it when the listener or the runtime ends.
async fn a_source_that_a_listener_owns_ends_with_it() {
    let listen = |shared: &Arc<Shared>| {
        let source = counted(shared);
        let handle = watch_source(Rc::clone(&source) as Rc<dyn Source>, &shared.doorbell).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let serve = move |_| {
            let _ = &handle;
            async {}
        };
        (remuda_net::listen_tcp(listener, serve).unwrap(), source)
    };
    let shared = Shared::new();
    let (listener, source) = listen(&shared);
    listener.close();
    assert_eq!(Rc::strong_count(&source), 1);
    run_beside(same_driver(), move || async move {
        let _ = listen(&shared);
    });
}

on_both_drivers!(
    a_source_that_a_listener_owns_ends_with_it,
    every_change_of_a_source_is_noticed,
    a_source_that_is_rung_between_other_events_is_noticed,
    a_source_that_is_dropped_is_not_looked_at,
);
