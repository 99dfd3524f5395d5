//! iceoryx2 between two processes, in the cases of `crates/shm/benches/figures.rs` and with the
//! same pinning: this process on core 1, the child on core 0. `iceoryx-peer polled|event|one-way`
//! prints one line of JSON.

use std::error::Error;
use std::hint::{black_box, spin_loop};
use std::process::{Child, Command};
use std::time::Instant;

use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;

const TRIPS: u64 = 30_000;
const SLEEPING_TRIPS: u64 = 8_000;
const MESSAGES: u64 = 500_000;
const BUFFER: usize = 1024;

type Message = [u8; 64];
type Node = iceoryx2::node::Node<ipc::Service>;
type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    set_log_level(LogLevel::Error);
    let mut arguments = std::env::args().skip(1);
    let case = arguments.next().ok_or("polled, event or one-way")?;
    match arguments.next() {
        Some(name) => child(&case, &name),
        None => parent(&case),
    }
}

fn pin(core: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// One direction: messages, and an event that says there are some.
struct Way {
    out: Publisher<ipc::Service, Message, ()>,
    input: Subscriber<ipc::Service, Message, ()>,
    ring: Notifier<ipc::Service>,
    bell: Listener<ipc::Service>,
}

/// Sends by `name`+`out`, and hears by `name`+`input`.
fn way(node: &Node, name: &str, out: &str, input: &str) -> Result<Way> {
    let messages = |end: &str| -> Result<_> {
        Ok(node
            .service_builder(&ServiceName::new(&format!("{name}/{end}"))?)
            .publish_subscribe::<Message>()
            .subscriber_max_buffer_size(BUFFER)
            .enable_safe_overflow(false)
            .open_or_create()?)
    };
    let events = |end: &str| -> Result<_> {
        Ok(node
            .service_builder(&ServiceName::new(&format!("{name}/{end}/bell"))?)
            .event()
            .open_or_create()?)
    };
    Ok(Way {
        out: messages(out)?
            .publisher_builder()
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()?,
        input: messages(input)?.subscriber_builder().buffer_size(BUFFER).create()?,
        ring: events(out)?.notifier_builder().create()?,
        bell: events(input)?.listener_builder().create()?,
    })
}

impl Way {
    fn send(&self, message: Message) -> Result<()> {
        self.out.loan_uninit()?.write_payload(message).send()?;
        Ok(())
    }

    fn poll(&self) -> Result<Message> {
        loop {
            match self.input.receive()? {
                Some(sample) => return Ok(*sample),
                None => spin_loop(),
            }
        }
    }

    fn wait(&self) -> Result<Message> {
        loop {
            if let Some(sample) = self.input.receive()? {
                return Ok(*sample);
            }
            self.bell.blocking_wait(|_| ())?;
        }
    }
}

fn child(case: &str, name: &str) -> Result<()> {
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let way = way(&node, name, "back", "there")?;
    pin(0)?;
    way.send([1; 64])?;
    way.ring.notify()?;
    match case {
        "polled" => (0..=TRIPS).try_for_each(|_| way.send(way.poll()?))?,
        "event" => (0..=SLEEPING_TRIPS).try_for_each(|_| {
            way.send(way.wait()?)?;
            way.ring.notify()?;
            Ok::<_, Box<dyn Error>>(())
        })?,
        _ => {
            for _ in 0..=MESSAGES {
                black_box(way.poll()?.iter().map(|&byte| u64::from(byte)).sum::<u64>());
            }
            way.send([2; 64])?;
        }
    }
    // The other process takes the last message before this one, and what it shares, goes.
    way.poll()?;
    Ok(())
}

fn parent(case: &str) -> Result<()> {
    let name = format!("remuda-peers-{}", std::process::id());
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let way = way(&node, &name, "there", "back")?;
    let mut child: Child = Command::new(std::env::current_exe()?).args([case, &name]).spawn()?;
    // The child is there once it said so.
    way.wait()?;
    pin(1)?;
    let round = |count: u64| -> Result<f64> {
        let mut begun = Instant::now();
        for i in 0..=count {
            way.send([7; 64])?;
            if case == "event" {
                way.ring.notify()?;
                way.wait()?;
            } else {
                way.poll()?;
            }
            if i == 0 {
                begun = Instant::now();
            }
        }
        Ok(begun.elapsed().as_secs_f64() * 1e6 / count as f64)
    };
    let figure = match case {
        "polled" => round(TRIPS)?,
        "event" => round(SLEEPING_TRIPS)?,
        _ => {
            way.send([7; 64])?;
            let begun = Instant::now();
            for _ in 0..MESSAGES {
                way.send([7; 64])?;
            }
            way.poll()?;
            MESSAGES as f64 / begun.elapsed().as_secs_f64() / 1e6
        }
    };
    way.send([9; 64])?;
    child.wait()?;
    println!("{{\"figure\":{figure}}}");
    Ok(())
}
