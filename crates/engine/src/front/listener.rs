//! Listeners: who may come in, and what a connection may ask for.

use std::rc::Rc;

use remuda_net::{ConnCtx, ListenerHandle};
use remuda_protocol::{Address, Code, Role, encode};

use crate::error::PoolError;
use crate::front::{bind, client};
use crate::pool::Pool;

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

/// A listener that is open.
#[derive(Debug)]
pub(crate) struct Listening {
    handle: ListenerHandle,
    /// The file of a Unix socket, to be removed.
    file: Option<bind::SocketFile>,
    pub(crate) address: String,
}

impl Listening {
    /// Takes no more connections.
    pub(crate) fn close(&mut self) {
        self.handle.close();
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
                let accept = move |conn| admit(pool.clone(), conn, gate.clone());
                let handle = remuda_net::listen_unix(listener, accept)?;
                let address = format!("unix:{}", path.display());
                Listening { handle, file: Some(file), address }
            }
            Address::Tcp { host, port, .. } => {
                let listener = bind::tcp(host, *port, gate.token.is_some() || listen.insecure)?;
                let address = listener.local_addr().map_or_else(
                    |_| listen.address.to_string(),
                    |address| format!("tcp:{address}"),
                );
                let accept = move |conn| admit(pool.clone(), conn, gate.clone());
                let handle = remuda_net::listen_tcp(listener, accept)?;
                Listening { handle, file: None, address }
            }
            address => return Err(PoolError::Unsupported(address.to_string())),
        };
        let address = listening.address.clone();
        self.0.core.borrow_mut().listeners.push(listening);
        Ok(address)
    }

    /// Takes over a Unix or TCP listener that somebody else opened: systemd, say.
    ///
    /// # Errors
    /// The runtime refuses it.
    pub fn listen_on(
        &self,
        listener: std::os::unix::net::UnixListener,
        admin: bool,
    ) -> Result<(), PoolError> {
        let gate = Gate { admin, token: None, uids: Some([].into()) };
        let pool = self.clone();
        let accept = move |conn| admit(pool.clone(), conn, gate.clone());
        let handle = remuda_net::listen_unix(listener, accept)?;
        let address = "inherited".to_owned();
        self.0.core.borrow_mut().listeners.push(Listening { handle, file: None, address });
        Ok(())
    }

    /// Closes the listeners: connections that are open stay.
    pub fn close_listeners(&self) {
        self.0.core.borrow_mut().listeners.iter_mut().for_each(Listening::close);
    }
}

/// Looks who it is before a byte is read.
async fn admit(pool: Pool, conn: ConnCtx, gate: Gate) {
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
            super::send_or_cut(conn, &reply);
            conn.close();
            return;
        }
    }
    client::serve(pool, conn, gate).await;
}
