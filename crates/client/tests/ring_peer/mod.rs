//! A peer that speaks the protocol over rings, driven line by line.

use bytes::Bytes;
use remuda_shm::{Options, SpscFace, SpscListener};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd;

use crate::support::{HELLO, echo_line};

/// Small rings, so that everything has to wait for room.
const SLOTS: u32 = 16;
const SLOT_SIZE: u32 = 1000;

/// Listens under a name.
pub(crate) fn listen(name: &str) -> SpscListener {
    SpscListener::bind(name, Options::new(SLOTS, SLOT_SIZE).unwrap()).unwrap()
}

/// Waits until somebody connects.
async fn wait(listener: &SpscListener) {
    let listener = listener.as_fd().try_clone_to_owned().unwrap();
    let waiting = tokio::task::spawn_blocking(move || {
        // A test that failed doesn't wait for ever.
        let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
        poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&patience))
    });
    assert_eq!(waiting.await.unwrap(), Ok(1), "nobody connected");
}

/// One accepted connection.
pub(crate) struct RingPeer {
    face: SpscFace,
    arrived: Vec<u8>,
    looked: usize,
}

impl RingPeer {
    /// Accepts a connection and answers its handshake.
    pub(crate) async fn greet(listener: &SpscListener) -> RingPeer {
        let face = loop {
            match listener.accept().unwrap() {
                Some(face) => break face,
                None => wait(listener).await,
            }
        };
        let mut peer = RingPeer { face, arrived: Vec::new(), looked: 0 };
        assert!(peer.line().await.starts_with(r#"{"op":"handshake","version":"1""#));
        peer.bytes(format!("{HELLO}\n").as_bytes()).await;
        peer
    }

    /// The next line, which must come.
    pub(crate) async fn line(&mut self) -> String {
        self.next().await.expect("the client closed the connection")
    }

    /// The next line, or `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            let found = self.arrived[self.looked..].iter().position(|byte| *byte == b'\n');
            if let Some(at) = found {
                let rest = self.arrived.split_off(self.looked + at + 1);
                let mut line = std::mem::replace(&mut self.arrived, rest);
                line.pop();
                self.looked = 0;
                return Some(String::from_utf8(line).unwrap());
            }
            self.looked = self.arrived.len();
            let message = self.face.recv().await?;
            assert!((1..=SLOT_SIZE as usize).contains(&message.len()), "{} bytes", message.len());
            self.arrived.extend_from_slice(&message);
        }
    }

    /// Waits for a message that has no whole line.
    pub(crate) async fn some_of_a_line(&mut self) {
        assert!(!self.arrived.contains(&b'\n'));
        let message = self.face.recv().await.unwrap();
        assert!(!message.contains(&b'\n'));
        self.arrived.extend_from_slice(&message);
    }

    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        let mut messages: Vec<_> =
            bytes.chunks(SLOT_SIZE as usize).map(Bytes::copy_from_slice).collect();
        if bytes.is_empty() {
            messages.push(Bytes::new());
        }
        // A client that left already is for the test to notice.
        let _ = self.face.send_batch(&messages).await;
    }

    /// Answers a call with its own body.
    pub(crate) async fn echo(&mut self, line: &str) {
        let mut out = Vec::new();
        echo_line(line.as_bytes(), &mut out);
        self.bytes(&out).await;
    }

    /// Answers all calls with their own bodies, until the client leaves.
    pub(crate) async fn echo_all(mut self) {
        while let Some(line) = self.next().await {
            self.echo(&line).await;
        }
    }
}
