//! Measures what a hop costs: client -> relay -> worker -> relay -> client over Unix sockets, three
//! processes, all asleep while they wait, nothing parsed. With `uring` the relay waits on io_uring,
//! as a pool does, and with `epoll` on that, and not in a read. With `eventfds`, or `eventfds
//! spinning`, there are only the wake-ups; with `alone`, or `alone spinning`, rings with messages. With
//! `client SOCKET` the same blocking client calls the pool at that socket instead, and with `rings
//! NAME` the one at `shm:NAME`, without ever watching the ring before it sleeps. Prints the median
//! round trip in microseconds. `RELAY_SECONDS` and `RELAY_WARMUP` are the seconds that are measured,
//! and those before.

mod alone;
mod epoll;
mod eventfds;
mod rings;
mod uring;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A call of a body of 60 letters, which is also what the bare relay passes on.
const CALL: &str = "{\"op\":\"call\",\"id\":1,\"body\":\"the quick brown fox jumps over the lazy dog and then some...\"}\n";
const HANDSHAKE: &str = "{\"op\":\"handshake\",\"version\":\"1\"}\n";
const WARM_UP_S: f64 = 0.5;
const MEASURED_S: f64 = 2.0;

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next(), args.next()) {
        (Some("relay"), Some(own), Some(worker)) => relay(&own, &worker, args.next().as_deref()),
        (Some("worker"), Some(own), _) => worker(&own),
        (Some("client"), Some(pool), _) => client(UnixStream::connect(pool)?),
        (Some("rings"), Some(name), _) => client(rings::Rings::connect(&name)?),
        (Some("eventfds"), how, _) => eventfds::measure(how.as_deref() == Some("spinning")),
        (Some("alone"), how, _) => alone::measure(how.as_deref() == Some("spinning")),
        (how, ..) => measure(how),
    }
}

fn worker(own: &str) -> std::io::Result<()> {
    let (mut peer, _) = UnixListener::bind(own)?.accept()?;
    pass_on(&mut peer, None)
}

fn relay(own: &str, worker: &str, how: Option<&str>) -> std::io::Result<()> {
    let listener = UnixListener::bind(own)?;
    let mut worker = connect(worker);
    let (mut client, _) = listener.accept()?;
    match how {
        Some("uring") => uring::pass_on(&client, &worker),
        Some("epoll") => epoll::pass_on(&client, &worker),
        _ => pass_on(&mut client, Some(&mut worker)),
    }
}

/// Gives back what comes, by way of `through` if there is one.
fn pass_on(peer: &mut UnixStream, mut through: Option<&mut UnixStream>) -> std::io::Result<()> {
    let mut message = [0; 4096];
    loop {
        let mut n = peer.read(&mut message)?;
        if n == 0 {
            return Ok(());
        }
        if let Some(through) = &mut through {
            through.write_all(&message[..n])?;
            n = through.read(&mut message)?;
        }
        peer.write_all(&message[..n])?;
    }
}

fn measure(how: Option<&str>) -> std::io::Result<()> {
    let folder = std::env::temp_dir().join(format!("relay-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (own, behind) = (path("relay"), path("worker"));
    let mut worker = start(&["worker", &behind])?;
    let mut relay = start(&[&["relay", &own, &behind], how.as_slice()].concat())?;
    rounds(connect(&own))?;
    worker.wait()?;
    relay.wait()?;
    std::fs::remove_dir_all(folder)
}

fn client(mut link: impl Read + Write) -> std::io::Result<()> {
    link.write_all(HANDSHAKE.as_bytes())?;
    line(&mut link)?;
    rounds(link)
}

/// Reads until a line is whole, which is mostly once.
fn line(link: &mut impl Read) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match link.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n if buffer[n - 1] == b'\n' => return Ok(()),
            _ => {}
        }
    }
}

/// So many seconds as the environment says, or else as usual.
fn time(name: &str, usual: f64) -> Duration {
    let said = std::env::var(name).ok().and_then(|text| text.parse().ok());
    Duration::from_secs_f64(said.unwrap_or(usual))
}

/// One message in flight, until the time is over.
fn rounds(mut link: impl Read + Write) -> std::io::Result<()> {
    timed(|| {
        link.write_all(CALL.as_bytes())?;
        line(&mut link)
    })
}

/// Prints the median time of a round.
fn timed(mut once: impl FnMut() -> std::io::Result<()>) -> std::io::Result<()> {
    let mut round = || -> std::io::Result<Duration> {
        let started = Instant::now();
        once()?;
        Ok(started.elapsed())
    };
    let (warm_up, measured) = (time("RELAY_WARMUP", WARM_UP_S), time("RELAY_SECONDS", MEASURED_S));
    let warm = Instant::now();
    while warm.elapsed() < warm_up {
        round()?;
    }
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < measured {
        times.push(round()?);
    }
    times.sort_unstable();
    println!("{{\"figure\":{:.2}}}", times[times.len() / 2].as_nanos() as f64 / 1000.0);
    Ok(())
}

fn start(args: &[&str]) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?).args(args).spawn()
}

/// Connects as soon as somebody listens.
fn connect(path: &str) -> UnixStream {
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(_) => std::thread::yield_now(),
        }
    }
}
