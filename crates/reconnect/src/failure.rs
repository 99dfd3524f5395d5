//! Which errors of a connection may pass, and which never will.

use std::io;

/// Why a connection couldn't be made, or ended, as far as it matters for trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// Nothing listens there: refused, or the Unix socket's file is missing or stale.
    Refused,
    /// The connection was made and then reset, aborted or cut.
    Aborted,
    /// No answer in time.
    TimedOut,
    /// No way there: host or network unreachable or down.
    Unreachable,
    /// The system lacks something for the moment: descriptors, ports, memory, or a full backlog.
    Exhausted,
    /// Trying again won't help: a malformed address, a lack of permission, and whatever is not
    /// known to pass.
    Fatal,
}

impl Failure {
    /// The kind of `error`, as `connect`, `read` and `write` of a TCP or Unix stream give it.
    pub fn of(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused | Kind::NotFound => Failure::Refused,
            Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::BrokenPipe
            | Kind::NotConnected
            | Kind::UnexpectedEof => Failure::Aborted,
            Kind::TimedOut => Failure::TimedOut,
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => {
                Failure::Unreachable
            }
            Kind::WouldBlock
            | Kind::Interrupted
            | Kind::OutOfMemory
            | Kind::ResourceBusy
            | Kind::AddrInUse
            | Kind::AddrNotAvailable => Failure::Exhausted,
            _ if lacks_descriptors(error) => Failure::Exhausted,
            _ => Failure::Fatal,
        }
    }

    /// Whether another attempt makes sense.
    pub fn may_pass(self) -> bool {
        self != Failure::Fatal
    }
}

/// std has no kind for these: ENFILE is 23, EMFILE is 24 and ENOBUFS is 105 on Linux.
fn lacks_descriptors(error: &io::Error) -> bool {
    let codes: &[i32] = if cfg!(target_os = "linux") { &[23, 24, 105] } else { &[23, 24] };
    cfg!(unix) && error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_are_told_apart() {
        // Numbers of Linux: ECONNREFUSED, ENOENT, ECONNABORTED, ECONNRESET, EPIPE, ETIMEDOUT,
        // EHOSTUNREACH, ENETUNREACH, EMFILE, EAGAIN, ENOBUFS, EACCES, EPERM, EINVAL.
        let table = [
            (111, Failure::Refused),
            (2, Failure::Refused),
            (103, Failure::Aborted),
            (104, Failure::Aborted),
            (32, Failure::Aborted),
            (110, Failure::TimedOut),
            (113, Failure::Unreachable),
            (101, Failure::Unreachable),
            (24, Failure::Exhausted),
            (11, Failure::Exhausted),
            (105, Failure::Exhausted),
            (13, Failure::Fatal),
            (1, Failure::Fatal),
            (22, Failure::Fatal),
        ];
        if cfg!(target_os = "linux") {
            for (code, failure) in table {
                assert_eq!(Failure::of(&io::Error::from_raw_os_error(code)), failure, "{code}");
                assert_eq!(failure.may_pass(), failure != Failure::Fatal);
            }
        }
    }
}
