//! Binding, the same for all servers.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use net::address::Address;
use socket2::{Domain, Socket, Type};

/// Connections that the kernel queues.
const BACKLOG: i32 = 4096;

pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Binds, and says where.
pub fn bind(address: &Address) -> io::Result<Listener> {
    match address {
        Address::Tcp(addr) => {
            let socket = Socket::new(Domain::for_address(*addr), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&(*addr).into())?;
            socket.listen(BACKLOG)?;
            // Connections inherit it.
            socket.set_tcp_nodelay(true)?;
            let listener = TcpListener::from(socket);
            println!("listening {}", Address::Tcp(listener.local_addr()?));
            Ok(Listener::Tcp(listener))
        }
        Address::Unix(path) => {
            let listener = UnixListener::bind(path)?;
            rustix::net::listen(&listener, BACKLOG)?;
            println!("listening {address}");
            Ok(Listener::Unix(listener))
        }
    }
}
