//! Runs a test's body on a driver, and what the bodies share.

use std::future::Future;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use remuda_net::{Backend, Config, ConnCtx, ParseResult, adopt_unix};

/// Set in a child process where io_uring is denied: the tests leave the choice to the runtime.
pub(crate) const AUTO_ENV: &str = "REMUDA_NET_TEST_AUTO";

/// No test waits longer than this for something that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a test for each driver of each async function that is named.
macro_rules! on_both_drivers {
    ($($name:ident),* $(,)?) => {
        mod mio {
            $(#[test] fn $name() {
                crate::drivers::run(remuda_net::Backend::Mio, super::$name());
            })*
        }
        mod io_uring {
            $(#[test] fn $name() {
                crate::drivers::run(remuda_net::Backend::IoUring, super::$name());
            })*
        }
    };
}

/// The configuration that tests use on a driver.
pub(crate) fn config(backend: Backend) -> Config {
    let auto = std::env::var_os(AUTO_ENV).is_some();
    Config { backend: if auto { Backend::Auto } else { backend }, ..Config::default() }
}

/// The configuration of the driver that the caller's runtime runs on.
pub(crate) fn same_driver() -> Config {
    config(remuda_net::backend().unwrap())
}

pub(crate) fn run<T>(backend: Backend, body: impl Future<Output = T>) -> T {
    run_with(config(backend), body)
}

pub(crate) fn run_with<T>(config: Config, body: impl Future<Output = T>) -> T {
    remuda_net::run_local(config, async {
        remuda_net::timeout(PATIENCE, body).await.expect("the test came to a standstill")
    })
    .unwrap()
}

/// Runs a body with a configuration of its own, on a thread, on the caller's driver.
pub(crate) fn run_beside<T: Send + 'static, F>(
    config: Config,
    body: impl FnOnce() -> F + Send + 'static,
) -> T
where
    F: Future<Output = T>,
{
    std::thread::spawn(move || run_with(config, body())).join().unwrap()
}

/// Two connections that are each other's peer.
pub(crate) fn pair() -> (ConnCtx, ConnCtx) {
    let (left, right) = UnixStream::pair().unwrap();
    (adopt_unix(left).unwrap(), adopt_unix(right).unwrap())
}

/// A connection and its peer as a plain blocking socket.
pub(crate) fn half_pair() -> (ConnCtx, UnixStream) {
    let (left, right) = UnixStream::pair().unwrap();
    (adopt_unix(left).unwrap(), right)
}

/// Two TCP connections that are each other's peer.
pub(crate) fn tcp_pair() -> (ConnCtx, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let left = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (right, _) = listener.accept().unwrap();
    (remuda_net::adopt_tcp(left).unwrap(), right)
}

/// The next `count` bytes, exactly.
pub(crate) async fn take(conn: ConnCtx, count: usize) -> Vec<u8> {
    let mut taken = Vec::new();
    let consumed = conn.with_data(|data| {
        if data.len() < count {
            return ParseResult::NeedMore;
        }
        taken.extend_from_slice(&data[..count]);
        ParseResult::Consumed(count)
    });
    assert_eq!(consumed.await, count, "the stream ended before {count} bytes");
    taken
}

/// All that comes until the end of the stream.
pub(crate) async fn take_all(conn: ConnCtx) -> Vec<u8> {
    let mut taken = Vec::new();
    let mut keep = |data: &[u8]| {
        taken.extend_from_slice(data);
        ParseResult::Consumed(data.len())
    };
    while conn.with_data(&mut keep).await > 0 {}
    taken
}
