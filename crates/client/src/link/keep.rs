//! The connector that keeps a link: it dials, carries, and waits before it dials again.

use std::io;
use std::sync::Arc;

use remuda_reconnect::{ConnResult, Connector, Retry, RunResult, TokioSleep};

use super::{Link, traffic};
use crate::ConnectError;
use crate::dial::{Connection, dial};
use crate::target::Target;

/// Keeps one link up, for as long as [`run`](remuda_reconnect::run) drives it.
pub(crate) struct Keeper {
    link: Arc<Link>,
    target: Target,
    token: Option<String>,
    max_body_bytes: usize,
    retry: Retry<TokioSleep>,
}

impl Keeper {
    pub(crate) fn new(
        link: Arc<Link>,
        target: Target,
        token: Option<String>,
        max_body_bytes: usize,
        retry: Retry<TokioSleep>,
    ) -> Keeper {
        Keeper { link, target, token, max_body_bytes, retry }
    }
}

impl Connector for Keeper {
    type ConnType = Connection;
    type Error = ConnectError;

    async fn connect(&mut self) -> ConnResult<Connection, ConnectError> {
        self.retry.connecting();
        match dial(&self.target, self.token.as_deref(), self.max_body_bytes).await {
            Ok(connection) => {
                self.retry.connected();
                ConnResult::Connected(connection)
            }
            Err(error) => {
                self.retry.failed(&error);
                let may_pass = error.may_pass();
                self.link.failed(error.clone(), !may_pass);
                if may_pass { ConnResult::Reconnect } else { ConnResult::Exit(Err(error)) }
            }
        }
    }

    async fn run(&mut self, connection: Connection) -> RunResult<ConnectError> {
        let Connection { mut stream, mut framer, offer } = connection;
        self.link.up(offer, stream.direct());
        let (reader, writer) = (&mut stream.reader, &mut stream.writer);
        let because = traffic::carry(&self.link, reader, writer, &mut framer).await;
        self.retry.failed(&because);
        let error = io::Error::new(io::ErrorKind::ConnectionAborted, &*because);
        self.link.down(&because, ConnectError::io(self.link.label(), error));
        RunResult::Reconnect
    }

    async fn retry_delay(&mut self) -> RunResult<ConnectError> {
        match self.retry.delay().await {
            Ok(()) => RunResult::Reconnect,
            Err(source) => {
                let address = self.link.label().to_string();
                let error = ConnectError::GaveUp { address, source };
                self.link.failed(error.clone(), true);
                RunResult::Exit(Err(error))
            }
        }
    }

    fn name(&self) -> Option<&str> {
        Some(self.link.label())
    }
}

/// Dropped with the link still kept, its runtime has ended or its client is gone: nobody may be
/// left waiting.
impl Drop for Keeper {
    fn drop(&mut self) {
        if self.link.over().is_none() {
            self.link.failed(ConnectError::RuntimeEnded, true);
            let error = ConnectError::RuntimeEnded;
            self.link.down(&Arc::from(error.to_string()), error);
        }
    }
}
