//! Tests of the open loop whose answers lag behind its rate, against a pool in the test's hand.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Parser;
use remuda_net::Config as NetConfig;
use remuda_protocol::{Id, Op, Request};

use super::load::Load;
use super::plan::{End, Measured, Pace, Plan};
use super::{BenchArgs, IN_FLIGHT_MAX, OPEN_BYTES_MAX, plan, wire};

const OFFER: &str =
    r#"{"ok":true,"data":{"kind":"handshake","version":"1","instance":"x","pid":1,"capacity":1}}"#;
/// What is expected comes long before this.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pool's end of a connection.
struct Pool {
    stream: BufReader<UnixStream>,
}

impl Pool {
    fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        let mut stream = BufReader::new(stream);
        stream.read_line(&mut String::new()).unwrap();
        writeln!(stream.get_mut(), "{OFFER}").unwrap();
        Self { stream }
    }

    /// The ids of the next calls; fewer at the end.
    fn calls(&mut self, count: usize) -> Vec<u64> {
        let lines = self.stream.by_ref().lines().take(count).map_while(Result::ok);
        let id = |line: String| match Request::parse(line.as_bytes()).unwrap() {
            Request { op: Op::Call { .. }, id: Some(Id::Number(id)), .. } => id,
            other => panic!("{other:?} is no call"),
        };
        lines.map(id).collect()
    }

    fn answer(&mut self, ids: &[u64]) {
        let mut lines = String::new();
        for id in ids {
            lines += &format!(
                "{{\"id\":{id},\"ok\":true,\"data\":{{\"kind\":\"result\",\"body\":1}}}}\n"
            );
        }
        self.stream.get_mut().write_all(lines.as_bytes()).unwrap();
    }

    /// Nothing more comes for so long.
    fn is_quiet_for(&mut self, time: Duration) -> bool {
        let stream = self.stream.get_mut();
        stream.set_read_timeout(Some(time)).unwrap();
        let came = loop {
            match stream.read(&mut [0]).map_err(|error| error.kind()) {
                // The process was stopped, and goes on.
                Err(ErrorKind::Interrupted) => {}
                came => break came,
            }
        };
        stream.set_read_timeout(None).unwrap();
        self.stream.buffer().is_empty() && came == Err(ErrorKind::WouldBlock)
    }
}

fn open(rate: f64, end: End, in_flight_max: u32) -> Plan {
    Plan {
        pace: Pace::Open { rate },
        end,
        warmup: Duration::ZERO,
        body: b"1".to_vec(),
        timeout_ms: None,
        patience: PATIENCE,
        in_flight_max,
    }
}

/// Loads a pool that does `answer` on a thread of its own; nothing if that takes too long.
fn load<T: Send + 'static>(
    plan: Plan,
    answer: impl FnOnce(Pool) -> T + Send + 'static,
) -> (Option<Measured>, JoinHandle<T>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let pool = std::thread::spawn(move || answer(Pool::accept(&listener)));
    let to = format!("unix:{}", path.display());
    let measured = remuda_net::run_local(NetConfig::default(), async move {
        let (wire, _) = wire::open(Some(&to)).await.unwrap();
        remuda_net::timeout(PATIENCE, Load::start(plan, vec![wire]).finish(false)).await.ok()
    });
    (measured.unwrap(), pool)
}

/// What this thread has computed so far, in ticks of 10 ms.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}

#[test]
fn what_is_due_beyond_the_limit_waits_for_its_turn_and_counts_from_when_it_was_due() {
    const HELD: Duration = Duration::from_millis(500);
    for end in [End::Calls(12), End::After(Duration::from_micros(120))] {
        let before = processor_time();
        let (measured, pool) = load(open(100_000.0, end, 3), |mut pool| {
            let first = pool.calls(3);
            assert!(pool.is_quiet_for(HELD), "more than three were in flight");
            pool.answer(&first);
            for _ in 0..3 {
                let ids = pool.calls(3);
                pool.answer(&ids);
            }
            pool.calls(1)
        });
        assert!(processor_time() - before < HELD / 2, "who waits for an answer sleeps");
        assert!(pool.join().unwrap().is_empty());
        let measured = measured.unwrap();
        assert_eq!((measured.done.len(), measured.cut), (12, None));
        assert!(u128::from(measured.done.min()) >= (HELD - Duration::from_millis(1)).as_nanos());
    }
}

#[test]
fn once_there_is_a_place_calls_go_out_when_they_are_due() {
    let plan = open(4.0, End::After(Duration::from_secs(3600)), 3);
    let (measured, pool) = load(plan, |mut pool| {
        let first = pool.calls(3);
        pool.answer(&first[..2]);
        // The fourth and the fifth are not due when these are answered.
        pool.calls(2).len()
    });
    let measured = measured.unwrap();
    assert_eq!(pool.join().unwrap(), 2);
    assert_eq!(measured.done.len(), 2);
    assert_eq!(measured.failed["connection_lost"], 3);
}

#[test]
fn a_pool_that_hangs_is_given_up_after_the_time_though_calls_wait_for_their_turn() {
    let (told, over) = mpsc::channel::<()>();
    let mut plan = open(100_000.0, End::After(Duration::from_millis(1)), 3);
    plan.patience = Duration::from_millis(100);
    let begun = Instant::now();
    let (measured, pool) = load(plan, move |mut pool| (pool.calls(3).len(), over.recv()));
    drop(told);
    assert_eq!(pool.join().unwrap().0, 3);
    let measured = measured.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(100));
    assert_eq!(measured.failed["unanswered"], 3);
    assert!(measured.cut.unwrap().contains("answered none of 3 calls"));
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: BenchArgs,
}

#[test]
fn so_many_are_in_flight_that_a_pool_that_reads_nothing_fills_no_memory() {
    let limit = |args: &[&str]| {
        let args = Line::try_parse_from([&["bench"], args].concat()).unwrap().args;
        plan(&args).unwrap().in_flight_max
    };
    assert_eq!(limit(&["-r1"]), IN_FLIGHT_MAX);
    let body = "x".repeat(100_000);
    let some = limit(&["-r1", "--body", &body]) as usize;
    assert!(some * body.len() <= OPEN_BYTES_MAX && (some + 50) * body.len() > OPEN_BYTES_MAX);
}
