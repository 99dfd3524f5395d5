//! The application's side of a pair.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::net::sockopt::socket_peercred;
use rustix::process::getuid;

use crate::error::ShmError;
use crate::geometry::Geometry;
use crate::linux::life::Life;
use crate::linux::link::{Link, Side};
use crate::linux::memory::{self, SharedRing};
use crate::linux::name::{Place, runtime_dir};
use crate::linux::offer::{OFFER_DESCRIPTORS, Offer};
use crate::linux::options::Options;
use crate::linux::pass::recv_offer;
use crate::linux::receiver::Receiver;
use crate::linux::sender::Sender;
use crate::linux::surface::sends_and_receives;
use crate::linux::turn::Turn;
use crate::ring::{Consumer, Producer};

/// The application's side of a pair of rings.
///
/// [`connect`](Self::connect) with the name that the engine gave to
/// [`SpscFace::create`](crate::SpscFace::create). What is sent goes through the ring a2e, what is
/// received comes through e2a. The side is `Send + Sync`, and its calls take `&self`: each
/// direction serves one caller at a time. [`into_split`](Self::into_split) gives halves that need
/// no such turns.
///
/// When the engine drops its side, or its process ends in any way, `recv` gives what was sent
/// before and then `None`, and `send` gives [`ShmError::Closed`], within milliseconds and without
/// a cancellation token.
#[derive(Debug)]
pub struct SpscHandle {
    sender: Turn<Sender>,
    receiver: Turn<Receiver>,
    geometry: Geometry,
    life: Arc<Life>,
}

sends_and_receives!(SpscHandle);

/// Both halves of one side, over memory that was just mapped.
pub(crate) fn halves(
    outgoing: SharedRing,
    incoming: SharedRing,
    side: &Side,
) -> (Sender, Receiver) {
    // SAFETY: the memory was mapped for this side alone, which has one sender and one receiver.
    let (outgoing, incoming) = unsafe { (Producer::new(outgoing), Consumer::new(incoming)) };
    let sender = Sender { ring: outgoing, link: Link::new(side.clone()), unrung: false };
    (sender, Receiver::new(incoming, Link::new(side.clone())))
}

impl SpscHandle {
    /// Connects to the engine that created `name`, in [`runtime_dir`]. Waits at most
    /// [`OFFER_TIMEOUT`](crate::OFFER_TIMEOUT) for a place in its queue, and as long for its answer.
    ///
    /// # Errors
    ///
    /// [`ShmError::NotFound`] when no engine waits under the name (any more);
    /// [`ShmError::Refused`], [`ShmError::WrongUser`], [`ShmError::UnsafeDirectory`],
    /// [`ShmError::InvalidName`], [`ShmError::BadOffer`], [`ShmError::System`].
    pub fn connect(name: &str) -> Result<Self, ShmError> {
        Self::connect_in(&runtime_dir(), name, &Options::default())
    }

    /// Like [`connect`](Self::connect), with another directory, and with what `options` say about
    /// waiting; the shape of the rings is the engine's to choose.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_in(directory: &Path, name: &str, options: &Options) -> Result<Self, ShmError> {
        let socket = Place::new(directory, name)?.connect()?;
        let peer = socket_peercred(&socket).map_err(ShmError::system("look who listens"))?;
        if peer.uid != getuid() {
            let (peer, own) = (peer.uid.as_raw(), getuid().as_raw());
            return Err(ShmError::WrongUser { peer, own });
        }
        Self::over(socket, options)
    }

    /// Takes the pair that the engine hands over on a connected Unix stream socket with
    /// [`SpscFace::over`](crate::SpscFace::over). Exactly one message is read from the socket,
    /// which is the caller's again afterwards.
    ///
    /// # Errors
    ///
    /// [`ShmError::Refused`], [`ShmError::BadOffer`], [`ShmError::System`].
    pub fn over(socket: impl AsFd, options: &Options) -> Result<Self, ShmError> {
        let (offer, descriptors) = recv_offer(socket.as_fd())?;
        Self::accept(offer, descriptors, options)
    }

    fn accept(
        offer: Offer,
        mut descriptors: Vec<OwnedFd>,
        options: &Options,
    ) -> Result<Self, ShmError> {
        let geometry = match offer {
            Offer::Pair(geometry) => geometry,
            Offer::Refused(reason) => return Err(ShmError::Refused { reason }),
        };
        let wrong = ShmError::BadOffer("it has not the four descriptors that it should have");
        if descriptors.len() != OFFER_DESCRIPTORS {
            return Err(wrong);
        }
        let memory = descriptors.remove(0);
        let side = Side::from_offer(descriptors, options.waiting).ok_or(wrong)?;
        // The engine has touched the pages; here they are only mapped.
        let [outgoing, incoming] = memory::map(&memory, geometry, options.touch)?;
        let (sender, receiver) = halves(outgoing, incoming, &side);
        Ok(Self {
            sender: Turn::new(sender),
            receiver: Turn::new(receiver),
            geometry,
            life: side.life,
        })
    }

    /// The two halves, for owners that need no turns.
    pub fn into_split(self) -> (Sender, Receiver) {
        (self.sender.into_inner(), self.receiver.into_inner())
    }
}
