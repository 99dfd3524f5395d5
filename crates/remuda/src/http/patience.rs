//! How long HTTP waits for what a client has to send.

use std::time::Duration;

/// The time limits of the HTTP listeners.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// How long a request's head may take to arrive, and a connection may be idle: 60 s.
    pub(crate) head: Duration,
    /// How long a job's body may take to arrive: 30 s.
    pub(crate) body: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: Duration::from_secs(60), body: Duration::from_secs(30) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::mpsc;

    use remuda_engine::{Pool, PoolConfig, Remote, ThreadHandler, WorkerKind};
    use remuda_net::Notifier;

    use super::*;
    use crate::http::{Http, HttpOptions};

    /// How long the test waits for what the listeners should do within a quarter of a second.
    const LONG: Duration = Duration::from_secs(60);

    /// Runs `test` with a pool whose only worker gives each body back.
    fn with_pool(test: impl FnOnce(Remote)) {
        let (told, started) = mpsc::channel();
        let stop = Notifier::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let pool = async move {
                let echo =
                    ThreadHandler::new(|body: remuda_protocol::Raw<'_>, out: &mut Vec<u8>| {
                        out.extend_from_slice(body.as_bytes());
                        Ok::<(), String>(())
                    });
                let mut config = PoolConfig::new(WorkerKind::Threads(echo));
                config.dispatch.num_workers = 1;
                let pool = Pool::start(config).unwrap();
                told.send(pool.remote()).unwrap();
                stopped.notified().await;
                pool.shut_down();
                pool.drained().await.unwrap();
            };
            remuda_net::run_local(remuda_net::Config::default(), pool).unwrap();
        });
        test(started.recv_timeout(LONG).unwrap());
        stop.notify();
        thread.join().unwrap();
    }

    /// What is answered to `sent`, until the connection is closed.
    fn answer(address: &str, sent: &str) -> String {
        let mut stream = TcpStream::connect(address.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(sent.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_body_that_does_not_come_is_408_and_a_head_that_does_not_ends_the_connection() {
        with_pool(|remote| {
            let short = Duration::from_millis(250);
            let options = |head, body| HttpOptions {
                calls: Some("127.0.0.1:0".parse().unwrap()),
                patience: Patience { head, body },
                ..HttpOptions::default()
            };
            let call = "POST /call HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                        connection: close\r\ncontent-length: 6\r\n\r\n";
            let http = Http::start(&options(LONG, short), remote.clone()).unwrap().unwrap();
            let answered = answer(&http.addresses[0], &format!("{call}\"ha"));
            assert!(answered.starts_with("HTTP/1.1 408"), "{answered}");
            assert!(
                answered.contains("bad_request") && answered.contains("too long"),
                "{answered}"
            );

            let http = Http::start(&options(short, LONG), remote).unwrap().unwrap();
            let answered = answer(&http.addresses[0], "POST /call HTTP/1.1\r\nhost:");
            assert!(answered.is_empty() || answered.starts_with("HTTP/1.1 408"), "{answered}");
            // One whose head is there has all the time that bodies have.
            let mut whole = call.to_owned();
            whole.push_str("\"half\"");
            let answered = answer(&http.addresses[0], &whole);
            assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
        });
    }
}
