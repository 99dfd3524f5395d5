//! The engine's side of a pair.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use crate::error::ShmError;
use crate::geometry::Geometry;
use crate::linux::bell::Bell;
use crate::linux::doorkeeper::Doorkeeper;
use crate::linux::handle::halves;
use crate::linux::life::{Life, life_pair};
use crate::linux::link::Side;
use crate::linux::memory;
use crate::linux::name::{Place, runtime_dir};
use crate::linux::offer::Offer;
use crate::linux::options::Options;
use crate::linux::pass::send_offer;
use crate::linux::receiver::Receiver;
use crate::linux::sender::Sender;
use crate::linux::surface::sends_and_receives;
use crate::linux::turn::Turn;

/// The engine's side of a pair of rings.
///
/// [`create`](Self::create) makes the pair and waits, on a thread of its own, for one application
/// to connect with [`SpscHandle::connect`](crate::SpscHandle::connect); the name is then free
/// again, and a second application finds nobody. What is sent goes through the ring e2a, what is
/// received comes through a2e; both can be used before the application is there.
///
/// When the application drops its side, or its process ends in any way, `recv` gives what was sent
/// before and then `None`, and `send` gives [`ShmError::Closed`], within milliseconds.
#[derive(Debug)]
pub struct SpscFace {
    sender: Turn<Sender>,
    receiver: Turn<Receiver>,
    geometry: Geometry,
    life: Arc<Life>,
    /// Gone with the face, so that nobody connects to a face that is no more.
    doorkeeper: Option<Doorkeeper>,
}

sends_and_receives!(SpscFace);

/// The application's part of a pair, until it is handed over: see [`SpscFace::pair`].
#[derive(Debug)]
pub struct PeerPart {
    geometry: Geometry,
    memory: OwnedFd,
    engine_bell: Arc<Bell>,
    application_bell: Arc<Bell>,
    life: OwnedFd,
}

impl PeerPart {
    /// Hands it over on a connected Unix stream socket, where
    /// [`SpscHandle::over`](crate::SpscHandle::over) takes it. One message is written, without
    /// blocking. The part is gone here afterwards, whether that worked or not.
    ///
    /// # Errors
    ///
    /// [`ShmError::System`].
    pub fn hand_over(self, socket: impl AsFd) -> Result<(), ShmError> {
        let descriptors = [
            self.memory.as_fd(),
            self.engine_bell.as_fd(),
            self.application_bell.as_fd(),
            self.life.as_fd(),
        ];
        send_offer(socket.as_fd(), Offer::Pair(self.geometry), &descriptors)
    }
}

impl SpscFace {
    /// Creates a pair under `name`, in [`runtime_dir`], with
    /// [`CAPACITY_DEFAULT`](crate::CAPACITY_DEFAULT) slots of
    /// [`SLOT_SIZE_DEFAULT`](crate::SLOT_SIZE_DEFAULT) bytes in each direction.
    ///
    /// # Errors
    ///
    /// [`ShmError::InvalidName`]; [`ShmError::NameTaken`] when a process still listens under the
    /// name after a second; [`ShmError::UnsafeDirectory`], [`ShmError::System`].
    pub fn create(name: &str) -> Result<Self, ShmError> {
        Self::create_in(&runtime_dir(), name, &Options::default())
    }

    /// Creates a pair of `capacity` slots of `slot_size` bytes in each direction.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create), and [`ShmError::Geometry`] when one of them is outside its
    /// limits.
    pub fn create_with(name: &str, capacity: u32, slot_size: u32) -> Result<Self, ShmError> {
        Self::create_in(&runtime_dir(), name, &Options::new(capacity, slot_size)?)
    }

    /// Creates a pair in another directory, which must have mode 0700 or not exist.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn create_in(directory: &Path, name: &str, options: &Options) -> Result<Self, ShmError> {
        let listening = Place::new(directory, name)?.listen()?;
        let (mut face, peer) = Self::pair(options)?;
        face.doorkeeper = Some(Doorkeeper::new(listening, peer)?);
        Ok(face)
    }

    /// Makes a pair and hands the application's part over on a connected Unix stream socket, where
    /// [`SpscHandle::over`](crate::SpscHandle::over) takes it. One message is written to the
    /// socket, without blocking; it is the caller's again afterwards, and is not what proves that
    /// the peer lives.
    ///
    /// # Errors
    ///
    /// [`ShmError::System`].
    pub fn over(socket: impl AsFd, options: &Options) -> Result<Self, ShmError> {
        let (face, peer) = Self::pair(options)?;
        peer.hand_over(socket)?;
        Ok(face)
    }

    /// Makes a pair whose other part is handed over later: for those who have to know that there
    /// is one before they say so.
    ///
    /// # Errors
    ///
    /// [`ShmError::System`].
    pub fn pair(options: &Options) -> Result<(Self, PeerPart), ShmError> {
        let geometry = options.geometry;
        let memory = memory::create(geometry)?;
        let [incoming, outgoing] = memory::map(&memory, geometry, options.touch)?;
        let (own_life, peer_life) = life_pair()?;
        let side = Side::new(Bell::new()?, Bell::new()?, own_life, options.waiting);
        let (sender, receiver) = halves(outgoing, incoming, &side);
        let peer = PeerPart {
            geometry,
            memory,
            engine_bell: Arc::clone(&side.own),
            application_bell: Arc::clone(&side.peer),
            life: peer_life,
        };
        let face = Self {
            sender: Turn::new(sender),
            receiver: Turn::new(receiver),
            geometry,
            life: side.life,
            doorkeeper: None,
        };
        Ok((face, peer))
    }

    /// The two halves, for owners that need no turns. An application that has not connected until
    /// then can't any more.
    pub fn into_split(self) -> (Sender, Receiver) {
        drop(self.doorkeeper);
        (self.sender.into_inner(), self.receiver.into_inner())
    }
}
