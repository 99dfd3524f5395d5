//! Names to addresses.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::error::{NetError, Result};
use crate::runtime::spawn_blocking;

/// The addresses of a host, as the system resolves it, on the executor for blocking work.
/// Dropping the future lets the look-up run on.
///
/// # Errors
/// [`NetError::Resolve`] if there is no such host, [`NetError::Blocking`] if the executor is full.
pub async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let name = host.to_owned();
    let look_up = move || (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
    let found: std::io::Result<Vec<SocketAddr>> = spawn_blocking(look_up).await?;
    found.map_err(|source| NetError::Resolve { name: host.to_owned(), source })
}
