//! What a connection of the load goes by: a socket, or rings that the runtime looks at by itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use remuda_engine::{tls_client_config, tls_server_name};
use remuda_net::{ConnCtx, Either, NetError, ParseResult, ReadyFd, Source, SourceHandle};
use remuda_protocol::{Address, Connecting, ENVELOPE_BYTES_MAX, LineScan, Offer};
use remuda_shm::{Receiver, Sender};

use crate::cli::address;
use crate::cli::connection::{CONNECT_TIMEOUT, Connection, ConnectionError, Stream, token};

/// The most slots that are filled before they are shown to the pool.
const RUN_MAX: usize = 32;
/// About how many bytes are taken out of a ring before they are looked at.
const READ_BYTES: usize = 64 << 10;
/// So often rings are read in a row before others get their turn.
const READS_IN_A_ROW: u32 = 8;
/// What an emptied buffer may keep of its memory.
const KEEP_BYTES: usize = 256 << 10;

/// A connection on which hands were shaken.
#[derive(Clone)]
pub(super) enum Wire {
    Socket(ConnCtx),
    Rings(Rc<Rings>),
}

/// Reaches the pool at `to`, or where pools are by default.
pub(super) async fn open(to: Option<&str>) -> Result<(Wire, Offer), ConnectionError> {
    let address = address::to_call(to).map_err(ConnectionError::Address)?;
    if matches!(address, Address::Tls { .. }) {
        // Where that fails, the way of the other commands tells more of it.
        return match open_tls(&address).await {
            Err(error) => Err(Connection::open(to, None).err().unwrap_or(error)),
            opened => opened,
        };
    }
    let connection = Connection::open(to, None)?;
    let offer = connection.offer.clone();
    let adopted = match connection.into_stream() {
        Stream::Unix(stream) => remuda_net::adopt_unix(stream).map(Wire::Socket),
        Stream::Tcp(stream) => remuda_net::adopt_tcp(stream).map(Wire::Socket),
        Stream::Shm(rings) => {
            let (sender, receiver) = rings.into_split();
            Rings::new(sender, receiver).map(|rings| Wire::Rings(Rc::new(rings)))
        }
        // Such an address went another way above.
        Stream::Tls(_) => Err(NetError::Tls("the session is the command's own".into())),
    };
    Ok((adopted.map_err(|error| failed(&address, error))?, offer))
}

fn failed(address: &Address, error: NetError) -> ConnectionError {
    ConnectionError::Io { address: address.to_string(), source: std::io::Error::other(error) }
}

/// Connects on the runtime, which has its own TLS, and shakes hands there.
async fn open_tls(address: &Address) -> Result<(Wire, Offer), ConnectionError> {
    let Address::Tls { host, port, files, .. } = address else {
        return Err(ConnectionError::Closed);
    };
    let wrong = |error| ConnectionError::Address(format!("{address}: {error}"));
    let config = tls_client_config(files).map_err(wrong)?;
    let name = tls_server_name(files, host).map_err(wrong)?;
    let connected = async {
        let mut last = NetError::PeerGone(std::io::ErrorKind::AddrNotAvailable);
        for address in remuda_net::resolve(host, *port).await? {
            let dialing =
                remuda_net::connect_tls_with(address, &config, name, Some(CONNECT_TIMEOUT))?;
            match dialing.await {
                Ok(conn) => return Ok(conn),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    let conn = connected
        .await
        .map_err(|error| ConnectionError::NoPool { tried: format!("{address} ({error})") })?;
    let greeted = remuda_net::timeout(CONNECT_TIMEOUT, greet(conn, address)).await;
    let offer = greeted.unwrap_or_else(|_| {
        let source = std::io::ErrorKind::TimedOut.into();
        Err(ConnectionError::Io { address: address.to_string(), source })
    })?;
    Ok((Wire::Socket(conn), offer))
}

async fn greet(conn: ConnCtx, address: &Address) -> Result<Offer, ConnectionError> {
    let mut first = Vec::new();
    let connecting = Connecting::start(token(address)?.as_deref(), &mut first);
    conn.send_nowait(&first).map_err(|error| failed(address, error))?;
    let mut scan = LineScan::new(ENVELOPE_BYTES_MAX);
    let mut line = Vec::new();
    let read = conn.with_data(|bytes| match scan.next(bytes) {
        Ok(Some(end)) => {
            line.extend_from_slice(&bytes[..end]);
            ParseResult::Consumed(end + 1)
        }
        Ok(None) => ParseResult::NeedMore,
        Err(_) => ParseResult::Consumed(bytes.len()),
    });
    let name = || address.to_string();
    if read.await == 0 {
        return Err(ConnectionError::Unmet { address: name() });
    }
    connecting
        .answer(&line)
        .map_err(|source| ConnectionError::Handshake { address: name(), source })
}

impl Wire {
    /// Sends, or keeps what there is no room for. A connection that takes nothing more is seen to
    /// end by who reads it.
    pub(super) fn send(&self, bytes: &[u8]) {
        match self {
            Self::Socket(conn) => {
                let _ = conn.send_nowait(bytes);
            }
            Self::Rings(rings) => rings.send(bytes),
        }
    }

    /// Waits for bytes, and has `f` say how many of them are whole lines, until the end, or until
    /// it says nothing: then the connection is closed.
    pub(super) async fn read(&self, mut f: impl FnMut(&[u8]) -> Option<usize>) {
        match self {
            Self::Socket(conn) => {
                let is_wrong = Cell::new(false);
                let mut parse = |bytes: &[u8]| match f(bytes) {
                    Some(0) => ParseResult::NeedMore,
                    Some(used) => ParseResult::Consumed(used),
                    None => {
                        is_wrong.set(true);
                        ParseResult::Consumed(bytes.len())
                    }
                };
                while conn.with_data(&mut parse).await > 0 && !is_wrong.get() {}
                conn.close();
            }
            Self::Rings(rings) => rings.read(f).await,
        }
    }
}

/// A pair of rings.
pub(super) struct Rings {
    ends: Rc<Ends>,
    handle: SourceHandle,
    /// Readable once the pool is gone.
    life: ReadyFd,
}

/// What the runtime looks at.
struct Ends {
    sender: RefCell<Sender>,
    receiver: RefCell<Receiver>,
    unsent: RefCell<Vec<u8>>,
    /// The runtime has asked for the doorbell, as far as it knows.
    parked: Cell<bool>,
}

impl Rings {
    fn new(sender: Sender, receiver: Receiver) -> remuda_net::Result<Self> {
        let ends = Rc::new(Ends {
            sender: RefCell::new(sender),
            receiver: RefCell::new(receiver),
            unsent: RefCell::default(),
            parked: Cell::new(false),
        });
        let handle = remuda_net::watch_source(ends.clone(), &*ends.receiver.borrow())?;
        let life = ReadyFd::readable(&ends.receiver.borrow().peer_socket())?;
        Ok(Self { ends, handle, life })
    }

    fn send(&self, bytes: &[u8]) {
        let mut unsent = self.ends.unsent.borrow_mut();
        let rest = match unsent.is_empty() {
            true => put(&mut self.ends.sender.borrow_mut(), bytes),
            false => bytes,
        };
        unsent.extend_from_slice(rest);
        drop(unsent);
        if self.ends.parked.get() {
            // The runtime asked for the doorbell before there was anything that waits for room.
            while self.ends.awaits_room_in_vain() {
                self.flush();
            }
        }
    }

    fn flush(&self) {
        let mut unsent = self.ends.unsent.borrow_mut();
        if unsent.is_empty() {
            return;
        }
        let left = put(&mut self.ends.sender.borrow_mut(), &unsent).len();
        let sent = unsent.len() - left;
        unsent.drain(..sent);
        if left == 0 && unsent.capacity() > KEEP_BYTES {
            *unsent = Vec::new();
        }
    }

    async fn read(&self, mut f: impl FnMut(&[u8]) -> Option<usize>) {
        let mut received = Vec::new();
        let mut gone = false;
        let mut reads = 0;
        loop {
            self.flush();
            let taken = self.ends.receiver.borrow_mut().try_recv_stream(&mut received, READ_BYTES);
            match taken {
                Ok(0) if gone => return,
                Ok(0) => {
                    reads = 0;
                    let ready = remuda_net::select(self.handle.ready(), self.life.ready()).await;
                    gone = matches!(ready, Either::Second(_));
                    continue;
                }
                Ok(_) => {}
                Err(_) => return,
            }
            let Some(used) = f(&received) else { return };
            received.drain(..used);
            if received.is_empty() && received.capacity() > KEEP_BYTES {
                received = Vec::new();
            }
            reads += 1;
            if reads % READS_IN_A_ROW == 0 {
                remuda_net::yield_now().await;
            }
        }
    }
}

impl Ends {
    /// Asks for the doorbell if something waits for room; true if there is some.
    fn awaits_room_in_vain(&self) -> bool {
        // An error shows when the ring is used.
        !self.unsent.borrow().is_empty() && self.sender.borrow_mut().park().unwrap_or(true)
    }
}

impl Source for Ends {
    fn is_ready(&self) -> bool {
        self.receiver.borrow().sees_message()
            || !self.unsent.borrow().is_empty() && self.sender.borrow().sees_room()
    }

    fn park(&self) -> bool {
        self.parked.set(true);
        self.receiver.borrow_mut().park().unwrap_or(true) | self.awaits_room_in_vain()
    }

    fn unpark(&self) {
        self.parked.set(false);
        self.receiver.borrow_mut().unpark();
        self.sender.borrow_mut().unpark();
    }
}

/// Puts into the ring what there is room for, and gives the rest. What the pool will never take is
/// as good as sent: its calls are counted as lost.
fn put<'b>(sender: &mut Sender, bytes: &'b [u8]) -> &'b [u8] {
    let slot_size = sender.slot_size();
    let mut left = bytes;
    while !left.is_empty() {
        let mut run = [&left[..0]; RUN_MAX];
        let mut count = 0;
        for (place, message) in run.iter_mut().zip(left.chunks(slot_size)) {
            *place = message;
            count += 1;
        }
        let Ok(sent) = sender.try_send_batch(&run[..count]) else { return &[] };
        left = &left[run[..sent].iter().map(|message| message.len()).sum()..];
        if sent < count {
            break;
        }
    }
    left
}
