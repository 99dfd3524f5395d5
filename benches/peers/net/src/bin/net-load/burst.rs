//! All connections of a burst, and the loop over them.

use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use crate::Options;
use crate::peer::{Memory, Peer};
use crate::upstream::Upstream;

/// A server that answers nothing for so long is given up.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
const EVENTS: usize = 1024;

pub struct Burst {
    epoll: OwnedFd,
    /// The connections to the server, then those that the proxy made.
    peers: Vec<Peer>,
    /// Which of them wait until more can be sent.
    blocked: Vec<bool>,
    connections: usize,
    depth: usize,
    bytes: usize,
    memory: Memory,
    events: Vec<epoll::Event>,
    /// In nanoseconds.
    pub latencies: Vec<u32>,
}

impl Burst {
    pub fn open(options: &Options) -> Result<Self, Box<dyn Error>> {
        let tls = options.certificate.as_deref().map(client_config).transpose()?;
        let upstream = options.upstream.as_ref().map(Upstream::bind).transpose()?;
        let (mut peers, mut behind) = (Vec::new(), Vec::new());
        for _ in 0..options.connections {
            let mut peer = Peer::connect(&options.to, tls.as_ref())?;
            peer.say(options.bytes)?;
            if let Some(upstream) = &upstream {
                let mut other = upstream.accept()?;
                other.hear(options.bytes)?;
                other.say(options.bytes)?;
                behind.push(other);
            }
            peer.hear(options.bytes)?;
            peers.push(peer);
        }
        peers.append(&mut behind);
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        for (index, peer) in peers.iter_mut().enumerate() {
            peer.go()?;
            epoll::add(&epoll, peer.fd(), EventData::new_u64(index as u64), EventFlags::IN)?;
        }
        Ok(Self {
            epoll,
            blocked: vec![false; peers.len()],
            peers,
            connections: options.connections,
            depth: options.depth,
            bytes: options.bytes,
            memory: Memory::new(options.bytes * options.depth),
            events: Vec::with_capacity(EVENTS),
            latencies: Vec::with_capacity(1 << 20),
        })
    }

    /// Keeps the connections busy for so long, and then waits for what is in flight.
    pub fn run(&mut self, time: Duration) -> Result<(), Box<dyn Error>> {
        let mut now = Instant::now();
        let until = now + time;
        for index in 0..self.connections {
            self.ask(index, self.depth, now)?;
        }
        let mut in_flight = self.connections * self.depth;
        while in_flight > 0 {
            self.events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&PATIENCE)) {
                Ok(0) => return Err("the server answered nothing for ten seconds".into()),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            now = Instant::now();
            for at in 0..self.events.len() {
                let index = self.events[at].data.u64() as usize;
                let whole = self.event(index, self.events[at].flags, now)?;
                if now < until {
                    self.ask(index, whole, now)?;
                } else {
                    in_flight -= whole;
                }
            }
        }
        Ok(())
    }

    /// Handles what came; returns how many of our own messages were answered.
    fn event(&mut self, index: usize, flags: EventFlags, now: Instant) -> io::Result<usize> {
        if flags.contains(EventFlags::OUT) {
            self.peers[index].flush(&self.memory)?;
            self.listen(index)?;
        }
        let count = self.peers[index].receive(&mut self.memory)?;
        if index >= self.connections {
            self.peers[index].send(count, &self.memory)?;
            self.listen(index)?;
            return Ok(0);
        }
        let peer = &mut self.peers[index];
        let whole = peer.whole(count, self.bytes);
        for sent in peer.in_flight.drain(..whole) {
            self.latencies.push((now - sent).as_nanos() as u32);
        }
        Ok(whole)
    }

    fn ask(&mut self, index: usize, count: usize, now: Instant) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        let peer = &mut self.peers[index];
        peer.in_flight.extend(std::iter::repeat_n(now, count));
        peer.send(count * self.bytes, &self.memory)?;
        self.listen(index)
    }

    /// Asks epoll for writability while there is something to write.
    fn listen(&mut self, index: usize) -> io::Result<()> {
        let peer = &self.peers[index];
        if self.blocked[index] != peer.is_blocked() {
            self.blocked[index] = peer.is_blocked();
            let also = if peer.is_blocked() { EventFlags::OUT } else { EventFlags::empty() };
            let data = EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, peer.fd(), data, EventFlags::IN | also)?;
        }
        Ok(())
    }
}

fn client_config(trusted: &std::path::Path) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(std::fs::read(trusted)?))?;
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}
