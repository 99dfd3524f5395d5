//! What is compared with what.

/// Which program serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    RemudaUring,
    RemudaMio,
    Bare,
    Ringline,
    Tokio,
}

impl Server {
    pub fn name(self) -> &'static str {
        match self {
            Self::RemudaUring => "remuda-uring",
            Self::RemudaMio => "remuda-mio",
            Self::Bare => "bare",
            Self::Ringline => "ringline",
            Self::Tokio => "tokio",
        }
    }

    /// As `net-server` has it.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::RemudaUring => &["remuda-net", "--backend", "io_uring"],
            Self::RemudaMio => &["remuda-net", "--backend", "mio"],
            Self::Bare => &["bare"],
            Self::Ringline => &["ringline"],
            Self::Tokio => &["tokio"],
        }
    }
}

/// What is to be reached of a measure, by the interval of its ratio.
#[derive(Debug, Clone, Copy)]
pub struct Aim {
    pub measure: &'static str,
    pub ours: Server,
    pub peer: Server,
    pub bound: Bound,
}

#[derive(Debug, Clone, Copy)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

pub struct Row {
    pub name: &'static str,
    pub what: &'static str,
    pub mode: &'static str,
    pub unix: bool,
    pub connections: usize,
    pub depth: usize,
    pub bytes: usize,
    /// Bytes of a receive buffer of those that are told how large it is to be.
    pub buffer: usize,
    /// Buffers in the rings of the bare loop and of ringline.
    pub buffers: usize,
    pub idle: bool,
}

impl Row {
    pub fn servers(&self) -> Vec<Server> {
        use Server::{Bare, RemudaMio, RemudaUring, Ringline, Tokio};
        let all = [RemudaUring, RemudaMio, Bare, Ringline, Tokio];
        // The bare loop knows no TLS.
        all.into_iter().filter(|server| self.mode != "tls" || *server != Server::Bare).collect()
    }

    pub fn aims(&self) -> Vec<Aim> {
        let (ours, tokio) = (Server::RemudaUring, Server::Tokio);
        let aim = |measure, peer, bound| Aim { measure, ours, peer, bound };
        if self.idle {
            return vec![aim("bytes_each", tokio, Bound::AtMost(0.5))];
        }
        let mut aims = vec![
            aim("cpu_us", tokio, Bound::AtMost(1.0)),
            aim("cpu_us", Server::Ringline, Bound::AtMost(1.0)),
        ];
        if self.mode != "tls" {
            aims.push(aim("cpu_us", Server::Bare, Bound::AtMost(1.05)));
        }
        if self.bytes >= 64 << 10 && self.mode != "tls" || self.mode == "proxy" {
            aims.push(aim("per_second", tokio, Bound::AtLeast(1.25)));
        }
        aims
    }
}

const ECHO: Row = Row {
    name: "",
    what: "",
    mode: "echo",
    unix: false,
    connections: 1,
    depth: 1,
    bytes: 64,
    buffer: 4 << 10,
    buffers: 256,
    idle: false,
};

/// Where 64 KiB messages are, everybody's buffers hold one whole.
const LARGE: Row = Row { connections: 16, bytes: 64 << 10, buffer: 64 << 10, buffers: 32, ..ECHO };

pub fn rows() -> Vec<Row> {
    vec![
        Row { name: "tcp-1x1", what: "echo of 64 B on TCP, 1 connection", ..ECHO },
        Row {
            name: "tcp-64x1",
            what: "echo of 64 B on TCP, 64 connections, 1 in flight each",
            connections: 64,
            ..ECHO
        },
        Row {
            name: "tcp-16x16",
            what: "echo of 64 B on TCP, 16 connections, 16 in flight each",
            connections: 16,
            depth: 16,
            ..ECHO
        },
        Row {
            name: "tcp-4k",
            what: "echo of 4 KiB on TCP, 16 connections, 1 in flight each",
            connections: 16,
            bytes: 4 << 10,
            ..ECHO
        },
        Row {
            name: "tcp-64k",
            what: "echo of 64 KiB on TCP, 16 connections, 1 in flight each",
            ..LARGE
        },
        Row {
            name: "tcp-64k-8k",
            what: "echo of 64 KiB on TCP, 16 connections, 1 in flight each; all but remuda-net with \
                   buffers of 8 KiB, as tokio's copy has",
            buffer: 8 << 10,
            buffers: 256,
            ..LARGE
        },
        Row { name: "unix-1x1", what: "echo of 64 B on a Unix socket", unix: true, ..ECHO },
        Row {
            name: "unix-64x1",
            what: "echo of 64 B on Unix sockets, 64 connections, 1 in flight each",
            unix: true,
            connections: 64,
            ..ECHO
        },
        Row {
            name: "unix-16x16",
            what: "echo of 64 B on Unix sockets, 16 connections, 16 in flight each",
            unix: true,
            connections: 16,
            depth: 16,
            ..ECHO
        },
        Row {
            name: "unix-64k",
            what: "echo of 64 KiB on Unix sockets, 16 connections, 1 in flight each",
            unix: true,
            ..LARGE
        },
        Row {
            name: "proxy-64x1",
            what: "forwarding of 64 B and its answer on TCP, 64 connections, 1 in flight each",
            mode: "proxy",
            connections: 64,
            ..ECHO
        },
        Row {
            name: "proxy-64k",
            what: "forwarding of 64 KiB and its answer on TCP, 16 connections, 1 in flight each; \
                   tokio with buffers of 64 KiB",
            mode: "proxy",
            ..LARGE
        },
        Row {
            name: "proxy-64k-8k",
            what: "forwarding of 64 KiB and its answer on TCP, 16 connections, 1 in flight each; all \
                   but remuda-net with buffers of 8 KiB, as tokio's copy has",
            mode: "proxy",
            buffer: 8 << 10,
            buffers: 256,
            ..LARGE
        },
        Row {
            name: "tls-64x1",
            what: "echo of 64 B with TLS, 64 connections, 1 in flight each",
            mode: "tls",
            connections: 64,
            ..ECHO
        },
        Row {
            name: "tls-64k",
            what: "echo of 64 KiB with TLS, 16 connections, 1 in flight each",
            mode: "tls",
            ..LARGE
        },
        Row {
            name: "idle",
            what: "memory of the whole server with 10,000 idle connections, a connection",
            connections: 10_000,
            idle: true,
            ..ECHO
        },
    ]
}
