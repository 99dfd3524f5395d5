//! A client's connection, from when it is accepted until it is gone.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use remuda_net::{CloseReason, ConnCtx, Either, ParseResult, Reading};

use crate::core::HandingOut;
use crate::front::ClientKey;
use crate::front::client::Client;
use crate::front::listener::{Gate, admits};
use crate::pool::Pool;
use crate::wire::Wire;

/// What is done where a client is not just read. It gives the client that is to be read from then
/// on, or none: the connection is over.
type Otherwise = Pin<Box<dyn Future<Output = Option<ClientKey>>>>;

/// Serves a socket. Of many connections none is in the processor's cache when its next call comes:
/// so this is no `async` block, but one line of memory.
pub(crate) struct Serving {
    pool: Pool,
    /// Nobody's until it is let in.
    client: ClientKey,
    reading: Reading,
    otherwise: Option<Otherwise>,
    /// It was read, and those whose turn was before are read, too, until what all sent is handed out.
    hands_out: bool,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Serving>() <= 64);

impl Serving {
    pub(super) fn new(pool: Pool, conn: ConnCtx, gate: Gate) -> Self {
        let client = ClientKey::NOBODY;
        let let_in = let_in(pool.clone(), conn, gate);
        let otherwise: Option<Otherwise> = Some(Box::pin(let_in));
        Self { pool, client, reading: conn.reading(), otherwise, hands_out: false }
    }

    /// Reads as long as the client is to be read. Gives whether nothing more can be.
    #[inline]
    fn read(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let Self { pool, client, reading, hands_out, .. } = self;
        if std::mem::take(hands_out) {
            hand_out(pool);
            if !is_read_on(pool, *client) {
                return Poll::Ready(false);
            }
        }
        let mut is_due = false;
        let read = |bytes: &[u8]| read(pool, *client, bytes, &mut is_due);
        let used = ready!(reading.poll_with_data(context, read));
        if used > 0 && is_due {
            await_handing_out(pool);
            *hands_out = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(used == 0)
    }
}

impl Future for Serving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            if let Some(otherwise) = &mut this.otherwise {
                let Some(client) = ready!(otherwise.as_mut().poll(context)) else {
                    return Poll::Ready(());
                };
                this.client = client;
                this.otherwise = None;
            }
            let is_over = ready!(this.read(context));
            let wire = Wire::Socket(this.reading.conn());
            this.otherwise = Some(Box::pin(rest(this.pool.clone(), wire, this.client, is_over)));
        }
    }
}

/// Serves a connection over rings.
pub(super) async fn serve_rings(pool: Pool, wire: Wire, gate: Gate) {
    let client = enter(&pool, &wire, gate);
    loop {
        let mut is_due = false;
        let mut read = |bytes: &[u8]| match read(&pool, client, bytes, &mut is_due) {
            ControlFlow::Continue(parsed) | ControlFlow::Break(parsed) => parsed,
        };
        let used = wire.with_data(&mut read).await;
        if is_due {
            await_handing_out(&pool);
            remuda_net::yield_now().await;
            hand_out(&pool);
        }
        let goes_on = used > 0 && is_read_on(&pool, client);
        if !goes_on && rest(pool.clone(), wire.clone(), client, used == 0).await.is_none() {
            return;
        }
    }
}

async fn let_in(pool: Pool, conn: ConnCtx, gate: Gate) -> Option<ClientKey> {
    admits(&pool, conn, &gate).then(|| enter(&pool, &Wire::Socket(conn), gate))
}

fn enter(pool: &Pool, wire: &Wire, gate: Gate) -> ClientKey {
    let core = &mut *pool.0.core.borrow_mut();
    core.counters.connections += 1;
    core.clients.insert(Client::new(wire.clone(), gate, &core.config))
}

/// Reads what a client sent, and tells whether it is to be read on at once.
#[inline]
fn read(
    pool: &Pool,
    client: ClientKey,
    bytes: &[u8],
    is_due: &mut bool,
) -> ControlFlow<ParseResult, ParseResult> {
    let core = &mut *pool.0.core.borrow_mut();
    let parsed = core.read_client(client, bytes);
    *is_due |= core.handing_out == HandingOut::Due;
    let is_read_on = core.clients.of(client).is_some_and(|client| client.is_read_on());
    if *is_due || !is_read_on { ControlFlow::Break(parsed) } else { ControlFlow::Continue(parsed) }
}

/// What all clients sent whose turn is before is handed out, too.
fn await_handing_out(pool: &Pool) {
    pool.0.core.borrow_mut().handing_out = HandingOut::Awaited;
}

fn hand_out(pool: &Pool) {
    let core = &mut *pool.0.core.borrow_mut();
    if core.handing_out == HandingOut::Awaited {
        core.carry_out(&[]);
    }
}

#[inline]
fn is_read_on(pool: &Pool, client: ClientKey) -> bool {
    pool.0.core.borrow_mut().clients.of(client).is_some_and(|client| client.is_read_on())
}

/// The client is held back, or about to go; `is_over`: nothing more can be read.
async fn rest(pool: Pool, wire: Wire, client: ClientKey, is_over: bool) -> Option<ClientKey> {
    let held_back = match pool.0.core.borrow_mut().clients.of(client) {
        Some(client) if !client.closing && !is_over => client.held_back(),
        _ => None,
    };
    if let Some(released) = held_back
        && let Either::Second(()) = remuda_net::select(wire.peer_gone(), released.notified()).await
    {
        return Some(client);
    }
    // One that only closed its sending half still waits for its answers.
    if wire.closed_by() == Some(CloseReason::Eof) {
        let answered = std::future::poll_fn(|context| {
            pool.0.core.borrow_mut().poll_answered(client, context.waker())
        });
        if let Either::First(()) = remuda_net::select(wire.peer_gone(), answered).await {
            tracing::debug!("a client left without waiting for its answers");
        }
    }
    wire.close();
    pool.0.core.borrow_mut().client_gone(client);
    None
}
