//! Clients that send or read slowly: those that stop are cut, those that go on are served.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use remuda_engine::{Listen, Pool, PoolConfig, ThreadHandler, WorkerKind};
use remuda_protocol::Address;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Far more than anything here takes, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The size of a result: more than the socket's own buffers hold.
const RESULT: usize = 4 << 20;

/// Runs a pool with these limits, and `program` on a thread of its own beside it.
fn beside(
    line_timeout: Duration,
    write_timeout: Duration,
    program: impl FnOnce(&Path) + Send + 'static,
) {
    let change = |config: &mut PoolConfig| {
        (config.line_timeout, config.write_timeout) = (line_timeout, write_timeout);
    };
    beside_with(change, program);
}

/// Runs a pool that is configured so, and `program` on a thread of its own beside it.
fn beside_with(change: impl FnOnce(&mut PoolConfig), program: impl FnOnce(&Path) + Send + 'static) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    remuda_net::run_local(remuda_engine::net_config(), async move {
        let handler = ThreadHandler::new(|_, out| {
            out.push(b'"');
            out.resize(RESULT + 1, b'x');
            out.push(b'"');
            Ok(())
        });
        let mut config = PoolConfig::new(WorkerKind::Threads(handler));
        config.dispatch.num_workers = 1;
        change(&mut config);
        let pool = Pool::start(config).unwrap();
        pool.listen(&Listen::at(Address::unix(&path))).unwrap();
        let (told, ended) = remuda_net::oneshot::channel();
        let thread = std::thread::spawn(move || {
            program(&path);
            // The receiver waits until this is sent.
            let _ = told.send(());
        });
        ended.await.ok();
        thread.join().expect("the program beside the pool");
        pool.shut_down();
        pool.drained().await.unwrap();
    })
    .unwrap();
}

fn greeted(path: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"{\"op\":\"handshake\",\"version\":\"1\"}\n").unwrap();
    // Byte by byte, so that nothing of what follows is taken.
    let mut byte = [0];
    while byte[0] != b'\n' {
        stream.read_exact(&mut byte).unwrap();
    }
    stream
}

/// Waits until the other side has closed the connection, without reading.
fn closed(stream: &UnixStream) -> bool {
    let patience = Timespec::try_from(PATIENCE).unwrap();
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    rustix::io::retry_on_intr(|| poll(&mut fds, Some(&patience))).unwrap() > 0
}

const CALL: &[u8] = b"{\"op\":\"call\",\"id\":1,\"body\":1}\n";

#[test]
fn a_client_that_takes_nothing_is_cut_at_the_write_timeout() {
    let limit = Duration::from_millis(500);
    beside(PATIENCE, limit, move |path| {
        let mut stream = greeted(path);
        let since = Instant::now();
        stream.write_all(CALL).unwrap();
        assert!(closed(&stream), "it is still served");
        assert!(since.elapsed() >= limit, "cut after {:?}", since.elapsed());
        // What came before the cut is not the whole answer.
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        assert!(rest.len() < RESULT, "all {} bytes came", rest.len());
        // Others were not touched.
        greeted(path);
    });
}

#[test]
fn one_that_has_just_come_is_not_cut_for_what_is_about_to_be_sent() {
    // Each is looked at every millisecond, in a pool that is older than the limit.
    beside(PATIENCE, Duration::from_millis(4), |path| {
        for round in 0..3000 {
            let mut client = BufReader::new(greeted(path));
            let mut status = String::new();
            let asked = client.get_mut().write_all(b"{\"op\":\"status\",\"id\":1}\n");
            asked.and_then(|()| client.read_line(&mut status)).unwrap();
            assert!(status.contains("\"ok\":true"), "cut in round {round}: {status:?}");
        }
    });
}

#[test]
fn a_client_that_reads_slowly_but_steadily_gets_all() {
    let limit = Duration::from_secs(3);
    beside(PATIENCE, limit, move |path| {
        let mut stream = greeted(path);
        let since = Instant::now();
        stream.write_all(CALL).unwrap();
        let (mut got, mut piece) = (0, vec![0; RESULT / 60]);
        while got < RESULT {
            let read = match stream.read(&mut piece) {
                // The process was stopped, and goes on.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.unwrap(),
            };
            assert!(read > 0, "cut after {got} bytes and {:?}", since.elapsed());
            got += read;
            std::thread::sleep(Duration::from_millis(110));
        }
        assert!(since.elapsed() > limit * 2, "too quick to show anything: {:?}", since.elapsed());
    });
}

#[test]
fn one_who_reads_many_large_answers_late_gets_all() {
    let calls = 20;
    beside(PATIENCE, PATIENCE, move |path| {
        let mut late = greeted(path);
        late.write_all(&CALL.repeat(calls)).unwrap();
        let mut other = BufReader::new(greeted(path));
        let (mut status, wanted) = (String::new(), format!("\"done\":{calls},"));
        while !status.contains(&wanted) {
            other.get_mut().write_all(b"{\"op\":\"status\",\"id\":1}\n").unwrap();
            status.clear();
            other.read_line(&mut status).unwrap();
        }
        let mut late = BufReader::new(late);
        for _ in 0..calls {
            let mut line = Vec::new();
            late.read_until(b'\n', &mut line).unwrap();
            assert!(line.len() > RESULT, "{} bytes", line.len());
        }
    });
}

#[test]
fn a_line_that_does_not_end_is_cut_at_the_line_timeout_and_an_idle_client_is_not() {
    let limit = Duration::from_millis(300);
    beside(limit, PATIENCE, move |path| {
        let idle = greeted(path);
        let mut slow = greeted(path);
        let since = Instant::now();
        slow.write_all(b"{\"op\":\"call\",").unwrap();
        let mut lines = BufReader::new(slow).lines();
        let refusal = lines.next().unwrap().unwrap();
        assert!(refusal.contains("bad_request") && refusal.contains("too long"), "{refusal}");
        assert!(lines.next().is_none(), "and the connection is closed");
        assert!(since.elapsed() >= limit, "cut after {:?}", since.elapsed());
        let mut idle = BufReader::new(idle);
        idle.get_mut().write_all(b"{\"op\":\"status\",\"id\":1}\n").unwrap();
        let mut status = String::new();
        idle.read_line(&mut status).unwrap();
        assert!(status.contains("\"status\""), "{status}");
    });
}

#[test]
fn one_whose_lines_end_may_send_for_longer_than_a_line_may_take() {
    let limit = Duration::from_secs(3);
    beside(limit, PATIENCE, move |path| {
        let mut stream = greeted(path);
        let since = Instant::now();
        // Each piece is the end of a line and the beginning of the next.
        stream.write_all(b"{\"op\":").unwrap();
        let mut sent = 0;
        while since.elapsed() < 2 * limit {
            std::thread::sleep(Duration::from_millis(20));
            stream.write_all(b"\"nothing\",\"id\":1}\n{\"op\":").expect("it is still read");
            sent += 1;
        }
        let mut replies = BufReader::new(stream).lines();
        for _ in 0..sent {
            let reply = replies.next().unwrap().unwrap();
            assert!(reply.contains("unknown_op"), "{reply}");
        }
    });
}

#[test]
fn of_many_lines_that_are_too_much_together_each_comes_to_its_end() {
    let line = [b"{\"op\":\"nothing\",\"id\":1,\"x\":\"", &[b'x'; 1 << 20][..], b"\"}\n"].concat();
    let change = |config: &mut PoolConfig| {
        config.max_unfinished_bytes = 1 << 20;
        // A line that is not read takes no time.
        config.line_timeout = Duration::from_secs(20);
    };
    beside_with(change, move |path| {
        let mut streams: Vec<_> = (0..8).map(|_| greeted(path)).collect();
        // All have come halfway when the first may end.
        for stream in &mut streams {
            stream.set_nonblocking(true).unwrap();
        }
        let mut sent = [0; 8];
        let since = Instant::now();
        while sent.iter().any(|sent| *sent < line.len()) {
            for (stream, sent) in streams.iter_mut().zip(&mut sent) {
                let rest = &line[*sent..];
                match stream.write(&rest[..rest.len().min(16 << 10)]) {
                    Ok(more) => *sent += more,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
                }
            }
            assert!(since.elapsed() < PATIENCE, "{sent:?} of {}", line.len());
            std::thread::yield_now();
        }
        for stream in streams {
            stream.set_nonblocking(false).unwrap();
            let reply = BufReader::new(stream).lines().next().unwrap().unwrap();
            assert!(reply.contains("unknown_op"), "{reply}");
        }
    });
}

#[test]
fn one_who_sends_line_after_line_does_not_keep_others_from_ending_theirs() {
    const HALF: usize = 6 << 10;
    let half = || "x".repeat(HALF);
    let begin = format!("{{\"op\":\"nothing\",\"id\":1,\"x\":\"{}", half());
    let end = format!("{}\"}}\n", half());
    let whole = format!("{begin}{end}");
    let change = |config: &mut PoolConfig| {
        config.max_unfinished_bytes = 5 * HALF + 1000;
        config.line_timeout = PATIENCE;
    };
    beside_with(change, move |path| {
        // The reply to the whole line says that the half behind it was read, too.
        let ask = |stream: &mut BufReader<UnixStream>, text: String| {
            stream.get_mut().write_all(text.as_bytes()).unwrap();
            let mut reply = String::new();
            stream.read_line(&mut reply).unwrap();
            assert!(reply.contains("unknown_op"), "{reply}");
        };
        let halfway = || {
            let mut stream = BufReader::new(greeted(path));
            ask(&mut stream, format!("{whole}{begin}"));
            stream
        };
        let _they_fill_it: Vec<_> = (0..5).map(|_| halfway()).collect();
        // It is over the limit, and may go on; the next one is paused.
        let mut streaming = halfway();
        let mut paused = halfway();
        paused.get_mut().write_all(end.as_bytes()).unwrap();
        for _ in 0..10 {
            ask(&mut streaming, format!("{end}{begin}"));
        }
        paused.get_mut().set_nonblocking(true).unwrap();
        let mut reply = String::new();
        paused.read_line(&mut reply).expect("its reply is there by now");
        assert!(reply.contains("unknown_op"), "{reply}");
    });
}

#[test]
fn one_body_alone_may_be_larger_than_all_may_be_together() {
    let change = |config: &mut PoolConfig| {
        (config.max_unfinished_bytes, config.max_bodies_bytes) = (1 << 20, 1 << 20);
    };
    beside_with(change, |path| {
        let mut stream = greeted(path);
        let body = "x".repeat(8 << 20);
        writeln!(stream, r#"{{"op":"call","id":1,"body":"{body}"}}"#).unwrap();
        let mut reply = Vec::new();
        BufReader::new(stream).read_until(b'\n', &mut reply).unwrap();
        assert!(reply.len() > RESULT, "{}", String::from_utf8_lossy(&reply));
    });
}
