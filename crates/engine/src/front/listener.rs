//! Listeners: who may come in, and what a connection may ask for.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::rc::Rc;

use remuda_net::{ConnCtx, ListenerHandle};
use remuda_protocol::{Address, Code, Role, TlsFiles, encode};

use crate::error::PoolError;
use crate::front::bind::{self, Place};
use crate::front::rings::Door;
use crate::front::serving::Serving;
use crate::front::tls;
use crate::pool::Pool;
use crate::wire::Wire;

/// What a connection may do.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    /// It may reset and stop the pool.
    pub(crate) admin: bool,
    /// It must send this token.
    pub(crate) token: Option<Rc<str>>,
    /// Whose processes may call, besides the owner's and root's. `None`: anybody's.
    uids: Option<Rc<[u32]>>,
}

/// A listener to be opened.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Where.
    pub address: Address,
    /// Whether it is an admin listener if its address doesn't say.
    pub admin: bool,
    /// The token that callers must send.
    pub token: Option<String>,
    /// A TCP listener off loopback without a token is refused unless this is set.
    pub insecure: bool,
}

impl Listen {
    /// A listener at `address` that is no admin listener and needs no token.
    pub fn at(address: Address) -> Self {
        Self { address, admin: false, token: None, insecure: false }
    }

    /// Looks whether it may be opened, as far as that shows before it is: its token, its
    /// certificates, its group, and who could reach it.
    ///
    /// # Errors
    /// Those of [`Pool::listen`] that it finds.
    pub fn check(&self) -> Result<(), PoolError> {
        let gate = self.gate()?;
        match &self.address {
            Address::Tcp { host, port, .. } => {
                Place { scheme: "tcp", host, port: *port }.addresses(self.insecure).map(drop)
            }
            Address::Tls { host, port, files, .. } => {
                tls::server_config(files)?;
                let place = Place { scheme: "tls", host, port: *port };
                place.addresses(self.is_guarded(&gate, files)).map(drop)
            }
            Address::Shm { access, .. } if !access.allow_uids.is_empty() => {
                let source = io::Error::other(
                    "its directory is the owner's alone: leave allow_uids out, or listen at a \
                     unix: address",
                );
                Err(PoolError::Listen { address: self.address.to_string(), source })
            }
            Address::Shm { .. } => Ok(()),
            Address::Unix { path, access } => bind::group(path, access).map(drop),
        }
    }

    /// Whether a TLS listener may be reached from other machines.
    fn is_guarded(&self, gate: &Gate, files: &TlsFiles) -> bool {
        gate.token.is_some() || files.ca.is_some() || self.insecure
    }

    fn gate(&self) -> Result<Gate, PoolError> {
        let access = self.address.access();
        let token = match &access.token_file {
            Some(path) => Some(bind::read_token(path)?),
            None => self.token.clone(),
        };
        let is_unix = matches!(self.address, Address::Unix { .. });
        let opened = access.mode.is_some_and(|mode| mode & 0o066 != 0) || access.group.is_some();
        // A file's mode that lets others in says who may call; `allow_uids` says it more narrowly.
        let uids = match (is_unix, access.allow_uids.is_empty(), opened) {
            (false, _, _) | (true, true, true) => None,
            _ => Some(access.allow_uids.clone().into()),
        };
        Ok(Gate {
            admin: access.role.map_or(self.admin, |role| role == Role::Admin),
            token: token.map(Into::into),
            uids,
        })
    }
}

/// By which a listener is closed.
#[derive(Debug)]
enum Handle {
    Socket(ListenerHandle),
    Rings(Door),
}

impl From<ListenerHandle> for Handle {
    fn from(handle: ListenerHandle) -> Self {
        Self::Socket(handle)
    }
}

/// A listener that is open.
#[derive(Debug)]
pub(crate) struct Listening {
    handle: Handle,
    /// The file of a Unix socket, to be removed.
    file: Option<bind::SocketFile>,
    pub(crate) address: String,
}

impl Listening {
    /// Takes no more connections.
    pub(crate) fn close(&mut self) {
        match &self.handle {
            Handle::Socket(handle) => handle.close(),
            Handle::Rings(door) => door.close(),
        }
        self.file = None;
    }
}

impl Pool {
    /// Opens a listener, and returns its address as it came out: the port that was chosen, say.
    ///
    /// # Errors
    /// The address is in use, may not be used, or isn't safe to use as it is.
    pub fn listen(&self, listen: &Listen) -> Result<String, PoolError> {
        let gate = listen.gate()?;
        let pool = self.clone();
        let listening = match &listen.address {
            Address::Unix { path, access } => {
                let (listener, file) = bind::unix(path, access)?;
                let accept = move |conn| Serving::new(pool.clone(), conn, gate.clone());
                let handle = remuda_net::listen_unix(listener, accept)?;
                let address = format!("unix:{}", path.display());
                Listening { handle: handle.into(), file: Some(file), address }
            }
            Address::Tcp { host, port, .. } => {
                let listener = Place { scheme: "tcp", host, port: *port }.open(listen.insecure)?;
                let address = listener.local_addr().map_or_else(
                    |_| listen.address.to_string(),
                    |address| format!("tcp:{address}"),
                );
                let accept = move |conn| Serving::new(pool.clone(), conn, gate.clone());
                let handle = remuda_net::listen_tcp(listener, accept)?;
                Listening { handle: handle.into(), file: None, address }
            }
            Address::Tls { host, port, files, .. } => {
                let config = tls::server_config(files)?;
                let place = Place { scheme: "tls", host, port: *port };
                let listener = place.open(listen.is_guarded(&gate, files))?;
                let address = listener.local_addr().map_or_else(
                    |_| listen.address.to_string(),
                    |address| format!("tls:{address}"),
                );
                let accept = move |conn| Serving::new(pool.clone(), conn, gate.clone());
                let handle = remuda_net::listen_tls(listener, config, accept)?;
                Listening { handle: handle.into(), file: None, address }
            }
            Address::Shm { name, .. } => {
                listen.check()?;
                let door = Door::open(pool, name, gate)?;
                let address = format!("shm:{name}");
                Listening { handle: Handle::Rings(door), file: None, address }
            }
        };
        Ok(self.opened(listening))
    }

    /// Takes over a Unix listener that somebody else opened: systemd, say. Only processes of the
    /// owner and root may call there, whatever the mode of its file. Returns its address.
    ///
    /// # Errors
    /// The runtime refuses it.
    pub fn listen_on_unix(&self, listener: UnixListener, admin: bool) -> Result<String, PoolError> {
        let local = listener.local_addr().ok();
        let path = local.as_ref().and_then(|address| address.as_pathname());
        let address = path.map_or("unix:".to_owned(), |path| format!("unix:{}", path.display()));
        let gate = Gate { admin, token: None, uids: Some([].into()) };
        let pool = self.clone();
        let accept = move |conn| Serving::new(pool.clone(), conn, gate.clone());
        let handle = remuda_net::listen_unix(listener, accept)?;
        Ok(self.opened(Listening { handle: handle.into(), file: None, address }))
    }

    /// Takes over a TCP listener that somebody else opened. Off loopback it is refused unless
    /// it is said to be `insecure`: what it carries can be read. Returns its address.
    ///
    /// # Errors
    /// It isn't safe to use as it is, or the runtime refuses it.
    pub fn listen_on_tcp(
        &self,
        listener: TcpListener,
        token: Option<&str>,
        insecure: bool,
    ) -> Result<String, PoolError> {
        let local = listener.local_addr();
        let address = local.as_ref().map_or("tcp:".to_owned(), |address| format!("tcp:{address}"));
        let is_loopback = local.is_ok_and(|address| address.ip().is_loopback());
        if !is_loopback && !insecure {
            return Err(PoolError::Unguarded(address));
        }
        let gate = Gate { admin: false, token: token.map(Rc::from), uids: None };
        let pool = self.clone();
        let accept = move |conn| Serving::new(pool.clone(), conn, gate.clone());
        let handle = remuda_net::listen_tcp(listener, accept)?;
        Ok(self.opened(Listening { handle: handle.into(), file: None, address }))
    }

    fn opened(&self, listening: Listening) -> String {
        let address = listening.address.clone();
        self.0.core.borrow_mut().listeners.push(listening);
        address
    }

    /// Keeps so many descriptors for what the program does beside the pool: clients don't get them.
    pub fn keep_descriptors(&self, count: usize) {
        self.0.core.borrow_mut().kept_descriptors = count;
    }

    /// Closes the listeners: connections that are open stay.
    pub fn close_listeners(&self) {
        self.0.core.borrow_mut().listeners.iter_mut().for_each(Listening::close);
    }
}

/// Looks who it is before a byte is read. One who may not come in is told so, and closed.
pub(super) fn admits(pool: &Pool, conn: ConnCtx, gate: &Gate) -> bool {
    if !pool.0.core.borrow().has_room_for_client() {
        tracing::debug!("a client was refused: the other descriptors are for workers");
        conn.close();
        return false;
    }
    if let Some(uids) = &gate.uids {
        let own = rustix::process::geteuid().as_raw();
        let uid = conn.peer_cred().map(|cred| cred.uid);
        let may = uid.is_some_and(|uid| uid == own || uid == 0 || uids.contains(&uid));
        if !may {
            let message = match uid {
                Some(uid) => format!("user {uid} may not call this pool: allow it by allow_uids="),
                None => "it is not known who calls".to_owned(),
            };
            tracing::warn!("{message}");
            let mut reply = Vec::new();
            encode::error(&mut reply, None, Code::Unauthorized, &message);
            Wire::Socket(conn).send_or_cut(&reply);
            conn.close();
            return false;
        }
    }
    true
}
