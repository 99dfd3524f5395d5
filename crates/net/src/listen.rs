//! Listeners.

use std::future::Future;
use std::marker::PhantomData;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::conn::Kind;
use crate::ctx::ConnCtx;
use crate::error::{NetError, Result};
use crate::slots::Key;
use crate::state::{Listener, OnAccept};
use crate::{peer, runtime};

/// A listener of this thread's runtime. Dropping it leaves the listener as it is.
#[derive(Debug, Clone)]
pub struct ListenerHandle {
    key: Key,
    local: PhantomData<Rc<()>>,
}

impl ListenerHandle {
    /// Stops accepting and closes the socket. Connections that were accepted go on. A Unix
    /// socket's file stays: it belongs to whoever bound it.
    pub fn close(&self) {
        let handler = runtime::with(|core| core.io().borrow().on_accept(self.key));
        runtime::with_io(|state, driver| driver.unlisten(state, self.key));
        // It may own what uses the runtime as it is dropped, so nothing is borrowed here.
        drop(handler);
    }
}

/// Closes a connection when its task is over, in whatever way.
struct CloseWhenDone(ConnCtx);

impl Drop for CloseWhenDone {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The task of a connection that was accepted. The future comes first, in lines of memory of its
/// own: of many connections none is in the processor's cache when its task is polled. It is also
/// dropped first.
#[repr(C, align(64))]
struct Accepted<F, Fut> {
    future: Option<Fut>,
    f: Rc<F>,
    close: CloseWhenDone,
}

impl<F, Fut> Future for Accepted<F, Fut>
where
    F: Fn(ConnCtx) -> Fut,
    Fut: Future<Output = ()>,
{
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: the future alone is pinned with this. Once it is there, it is neither moved nor
        // replaced until it is dropped with this, whose fields alone have a drop of their own; and
        // this is no more `Unpin` than they are.
        unsafe {
            let Self { future, f, close } = self.get_unchecked_mut();
            let future = future.get_or_insert_with(|| f(close.0));
            Pin::new_unchecked(future).poll(cx)
        }
    }
}

pub(crate) fn on_accept<F, Fut>(f: F) -> OnAccept
where
    F: Fn(ConnCtx) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let f = Rc::new(f);
    Rc::new(move |conn| {
        let close = CloseWhenDone(conn);
        runtime::boxed(Accepted { future: None, f: Rc::clone(&f), close })
    })
}

pub(crate) fn listen(
    fd: OwnedFd,
    kind: Kind,
    on_accept: OnAccept,
    task_ends_with_conn: bool,
) -> Result<ListenerHandle> {
    let listener = Listener {
        fd,
        kind,
        on_accept,
        task_ends_with_conn,
        resting: false,
        armed: false,
        closing: false,
    };
    let key = runtime::with_io(|state, driver| {
        let key = state.listeners.insert(listener);
        match driver.listen(state, key) {
            Ok(()) => Ok(key),
            Err(error) => {
                state.listeners.remove(key);
                Err(error)
            }
        }
    });
    let key = key.unwrap_or(Err(NetError::NoRuntime))?;
    Ok(ListenerHandle { key, local: PhantomData })
}

/// Accepts connections and spawns the future that `f` makes of each. When that is done, its
/// connection is closed, after what it accepted for sending has gone out.
///
/// Out of descriptors, it rests until a connection is closed or `Config::accept_pause` is over.
/// Over `Config::max_connections`, connections are accepted and closed at once.
///
/// # Errors
/// If the listener can't be registered, or no runtime runs on this thread.
pub fn listen_unix<F, Fut>(listener: UnixListener, f: F) -> Result<ListenerHandle>
where
    F: Fn(ConnCtx) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    listen(unix_fd(listener)?, Kind::Unix, on_accept(f), false)
}

/// As [`listen_unix`], for TCP.
///
/// # Errors
/// As `listen_unix`.
pub fn listen_tcp<F, Fut>(listener: TcpListener, f: F) -> Result<ListenerHandle>
where
    F: Fn(ConnCtx) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    listen(tcp_fd(listener)?, Kind::Tcp, on_accept(f), false)
}

pub(crate) fn unix_fd(listener: UnixListener) -> Result<OwnedFd> {
    listener.set_nonblocking(true).map_err(NetError::io("setting a listener non-blocking"))?;
    Ok(listener.into())
}

pub(crate) fn tcp_fd(listener: TcpListener) -> Result<OwnedFd> {
    listener.set_nonblocking(true).map_err(NetError::io("setting a listener non-blocking"))?;
    // Connections inherit them, which saves calls for each.
    peer::set_tcp_options(&listener);
    Ok(listener.into())
}
