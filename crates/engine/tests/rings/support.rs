//! A pool on a thread, and a client over rings that blocks.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use remuda_engine::keeper::{KeeperOptions, PidNamespace};
use remuda_engine::{Listen, LogSink, Pool, PoolConfig, PoolError, Remote, WorkerKind};
use remuda_net::Notifier;
use remuda_protocol::{Address, Framer};
use remuda_shm::{Options, SpscHandle};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::programs;

/// Far more than anything here takes, on the slowest machine.
pub const LONG: Duration = Duration::from_secs(60);

/// A name that no other test has.
pub fn name(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}-{what}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A pool of one worker, which is this binary as `program`.
pub fn config(program: &str) -> PoolConfig {
    let kind = WorkerKind::Process {
        program: std::env::current_exe().unwrap().into(),
        args: vec![programs::ARGUMENT.into(), program.into()],
        env: Vec::new(),
    };
    let mut config = PoolConfig::new(kind);
    config.dispatch.num_workers = 1;
    config.dispatch.max_queue_size = 100_000;
    config.keeper_options = KeeperOptions::default();
    // Workers then have the process numbers that the tests see.
    config.keeper_options.pid_namespace = PidNamespace::Never;
    config
}

/// What the pool's workers print, line by line.
pub fn listened(config: &mut PoolConfig) -> Receiver<String> {
    let (sender, lines) = channel();
    let sender = Mutex::new(sender);
    config.logs = LogSink::new(move |_, line| {
        // A test that has ended hears nothing more.
        let _ = sender.lock().unwrap().send(line.to_owned());
    });
    lines
}

/// A pool that runs on a thread of its own until this is dropped.
pub struct Running {
    pub remote: Remote,
    pub name: String,
    shut: Notifier,
    thread: Option<JoinHandle<Result<(), PoolError>>>,
}

impl Running {
    /// Starts it behind a listener in shared memory.
    pub fn start(config: PoolConfig) -> Self {
        Self::start_with(config, || {})
    }

    /// Starts one whose thread's allocations are counted.
    pub fn start_counted(config: PoolConfig) -> Self {
        Self::start_with(config, crate::counts::count_this_thread)
    }

    fn start_with(config: PoolConfig, first: fn()) -> Self {
        let (told, started) = channel();
        let shut = Notifier::new();
        let (name, shutting) = (name("pool"), shut.clone());
        let address: Address = format!("shm:{name}").parse().unwrap();
        let thread = std::thread::spawn(move || {
            first();
            let pool = async move {
                let pool = Pool::start(config)?;
                let listening = pool.listen(&Listen { admin: true, ..Listen::at(address) })?;
                pool.until(|pool| pool.ready() > 0).await;
                told.send((pool.remote(), listening)).unwrap();
                shutting.notified().await;
                pool.close_listeners();
                pool.shut_down();
                pool.drained().await
            };
            remuda_net::run_local(remuda_net::Config::default(), pool).unwrap()
        });
        let (remote, listening) = started.recv_timeout(LONG).expect("a pool that is ready");
        assert_eq!(listening, format!("shm:{name}"));
        Self { remote, name, shut, thread: Some(thread) }
    }

    /// Lets it finish what it has, and end.
    pub fn shut_down(&self) {
        self.shut.notify();
    }

    pub fn client(&self) -> Peer {
        let mut peer = Peer::connect(&self.name);
        peer.shake();
        peer
    }

    pub fn status(&self) -> serde_json::Value {
        block_on(self.remote.status()).unwrap()
    }

    /// The process of the only worker.
    pub fn worker(&self) -> u32 {
        // It may have shaken hands before the keeper told of its start.
        self.until("its process is known", |status| status["workers"][0]["pid"].is_u64());
        self.status()["workers"][0]["pid"].as_u64().unwrap() as u32
    }

    /// Asks for the status until it is as wanted. Each is an answer of the pool, so this goes on
    /// with the pool and not with the clock.
    pub fn until(&self, what: &str, is: impl Fn(&serde_json::Value) -> bool) {
        let begun = std::time::Instant::now();
        while !is(&self.status()) {
            assert!(begun.elapsed() < LONG, "never: {what}, but {}", self.status());
            std::thread::yield_now();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shut.notify();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap().unwrap();
        }
    }
}

/// A pool in a process of its own: says when it is ready, and runs for ever.
pub fn serve_until_killed(name: &str, worker: &str) -> ExitCode {
    let address: Address = format!("shm:{name}").parse().unwrap();
    let config = config(worker);
    let pool = async move {
        let pool = Pool::start(config).unwrap();
        pool.listen(&Listen { admin: true, ..Listen::at(address) }).unwrap();
        pool.until(|pool| pool.ready() > 0).await;
        println!("ready");
        std::io::stdout().flush().unwrap();
        pool.drained().await.unwrap();
    };
    let config =
        remuda_net::Config { spin: Duration::from_micros(50), ..remuda_net::Config::default() };
    remuda_net::run_local(config, pool).unwrap();
    ExitCode::SUCCESS
}

/// A client over rings that sends and receives lines.
pub struct Peer {
    pub sender: Option<remuda_shm::Sender>,
    pub receiver: remuda_shm::Receiver,
    framer: Framer,
    /// It never sleeps, so that nobody has to wake it.
    pub awake: bool,
}

impl Peer {
    pub fn connect(name: &str) -> Self {
        Self::try_connect(name).unwrap()
    }

    pub fn try_connect(name: &str) -> Result<Self, remuda_shm::ShmError> {
        let options = Options::default().touch(false).full_limit(LONG);
        let handle = SpscHandle::connect_in(&remuda_shm::runtime_dir(), name, &options)?;
        let (sender, receiver) = handle.into_split();
        Ok(Self { sender: Some(sender), receiver, framer: Framer::new(64 << 20), awake: false })
    }

    /// Sends bytes in messages of a slot.
    pub fn send(&mut self, text: &str) {
        let sender = self.sender.as_mut().unwrap();
        let parts: Vec<&[u8]> = text.as_bytes().chunks(sender.slot_size()).collect();
        sender.send_batch_blocking(&parts).unwrap();
    }

    /// The next line; none at the end.
    pub fn receive(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.framer.next_line().unwrap() {
                return Some(String::from_utf8(line.to_vec()).unwrap());
            }
            let message = if self.awake { self.watch()? } else { self.wait()? };
            let mut message = &message[..];
            while !message.is_empty() {
                let count = std::io::Read::read(&mut message, self.framer.spare()).unwrap();
                self.framer.filled(count);
            }
        }
    }

    fn wait(&mut self) -> Option<bytes::Bytes> {
        let message = self.receiver.recv_timeout(LONG).ok()?;
        Some(message.expect("the pool is silent"))
    }

    /// Waits without ever going to sleep over it.
    fn watch(&mut self) -> Option<bytes::Bytes> {
        let begun = std::time::Instant::now();
        loop {
            if let Some(message) = self.receiver.try_recv().ok()? {
                return Some(message);
            }
            assert!(begun.elapsed() < LONG, "the pool is silent");
            std::thread::yield_now();
        }
    }

    pub fn ask(&mut self, text: &str) -> String {
        self.send(text);
        self.send("\n");
        self.receive().expect("an answer")
    }

    pub fn shake(&mut self) {
        let hello = self.ask(r#"{"op":"handshake","version":"1"}"#);
        assert!(hello.contains(r#""ok":true"#), "{hello}");
    }

    pub fn call(&mut self, id: u64, body: &str) {
        self.send(&format!("{{\"op\":\"call\",\"id\":{id},\"body\":{body}}}\n"));
    }
}

/// The result of a call with that id.
pub fn result(id: u64, body: &str) -> String {
    format!(r#"{{"id":{id},"ok":true,"data":{{"kind":"result","body":{body}}}}}"#)
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

/// Waits until the descriptor is readable: a pidfd is once its process has ended.
pub fn wait(fd: &OwnedFd, patience: Duration) -> bool {
    let patience = Timespec::try_from(patience).unwrap();
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut fds, Some(&patience))).unwrap() > 0
}
