//! Connections: accepted up to a limit, served one request after the other, and ended in order.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::http::call::Calls;

/// The most bytes of a request's head.
const HEAD_LIMIT: usize = 64 << 10;
/// How long accepting pauses when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long answers may take to go out when the pool has ended.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(5);

/// A listener, and what is behind it.
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) behind: Behind,
    pub(super) traffic: Arc<Traffic>,
}

/// Who answers.
pub(super) enum Behind {
    Calls(Arc<Calls>),
    Admin(Router),
}

/// What passes through a door.
#[derive(Debug)]
pub(super) struct Traffic {
    pub(super) name: &'static str,
    limit: usize,
    places: Arc<Semaphore>,
    open: AtomicUsize,
    responses: Mutex<BTreeMap<u16, u64>>,
}

impl Traffic {
    pub(super) fn new(name: &'static str, limit: usize) -> Self {
        let places = Arc::new(Semaphore::new(limit));
        Self { name, limit, places, open: AtomicUsize::new(0), responses: Mutex::default() }
    }

    /// How many connections there may be.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Counts a response.
    pub(super) fn answered(&self, status: StatusCode) {
        let mut responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
        *responses.entry(status.as_u16()).or_default() += 1;
    }

    /// How many connections are open.
    pub(super) fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many responses there were, by status.
    pub(super) fn responses(&self) -> BTreeMap<u16, u64> {
        self.responses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves all doors until it is to stop; then what is being answered is answered. A request's head
/// may take `head_timeout` to arrive, and a connection may be idle for so long.
pub(super) async fn serve(doors: Vec<Door>, head_timeout: Duration, stop: watch::Receiver<bool>) {
    let traffics: Vec<Arc<Traffic>> = doors.iter().map(|door| door.traffic.clone()).collect();
    let accepting: Vec<_> = doors
        .into_iter()
        .map(|door| tokio::spawn(accept(door, head_timeout, stop.clone())))
        .collect();
    for task in accepting {
        if let Err(error) = task.await {
            tracing::error!("an HTTP listener ended: {error}");
        }
    }
    let all_closed = async {
        for traffic in traffics {
            // All places are free again once the last connection is closed.
            let _ = traffic.places.acquire_many(traffic.limit as u32).await;
        }
    };
    if tokio::time::timeout(STOP_GRACE, all_closed).await.is_err() {
        tracing::warn!("HTTP clients that took no answer were cut");
    }
}

async fn accept(door: Door, head_timeout: Duration, mut stop: watch::Receiver<bool>) {
    let listener = match tokio::net::TcpListener::from_std(door.listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!("the HTTP listener can't be served: {error}");
            return;
        }
    };
    let stopped = stop.clone();
    let each = async {
        loop {
            let Ok(place) = door.traffic.places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let open = Open::new(door.traffic.clone(), place);
                    let stop = stopped.clone();
                    match &door.behind {
                        Behind::Calls(calls) => {
                            let service = calling(calls.clone());
                            tokio::spawn(connection(stream, service, head_timeout, open, stop));
                        }
                        Behind::Admin(router) => {
                            let service = TowerToHyperService::new(router.clone());
                            tokio::spawn(connection(stream, service, head_timeout, open, stop));
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!("no HTTP connection could be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = each => {}
        () = told(&mut stop) => {}
    }
}

/// Waits until all is to stop.
async fn told(stop: &mut watch::Receiver<bool>) {
    // One who can't tell any more is gone, and that means the same.
    drop(stop.wait_for(|stop| *stop).await);
}

/// A connection's place, until it is closed.
struct Open {
    traffic: Arc<Traffic>,
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn new(traffic: Arc<Traffic>, place: OwnedSemaphorePermit) -> Self {
        traffic.open.fetch_add(1, Ordering::Relaxed);
        Self { traffic, _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.traffic.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The service of a calling connection.
fn calling(
    calls: Arc<Calls>,
) -> impl Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
{
    service_fn(move |request| {
        let calls = calls.clone();
        async move { Ok(calls.answer(request).await) }
    })
}

/// Serves a connection. When its client leaves, the request that is being answered is dropped, and
/// its job with it.
async fn connection<S, B>(
    stream: TcpStream,
    service: S,
    head_timeout: Duration,
    open: Open,
    mut stop: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body<Error: std::error::Error + Send + Sync> + 'static,
{
    // An answer is small: it is sent at once, or later than need be.
    let _ = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_buf_size(HEAD_LIMIT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = told(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!("an HTTP connection ended: {error}");
    }
    drop(open);
}
