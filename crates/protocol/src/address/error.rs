//! What can be wrong with an address, and what to write instead.

use std::path::PathBuf;

/// Why a text is no [`Address`](crate::Address).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// No scheme that is known, and no slash.
    #[error(
        "{text:?} is no address: write unix:/path, tcp:host:port, tls:host:port or shm:name, or a path with a slash"
    )]
    Scheme {
        /// What was given.
        text: String,
    },
    /// The path of the Unix socket is missing.
    #[error("{text:?} has no path: write unix:/run/name.sock")]
    NoPath {
        /// What was given.
        text: String,
    },
    /// Linux has no room for the path.
    #[error("the path {path:?} has {length} bytes, and a Unix socket takes 107: use a shorter one")]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// The path has a byte that no socket can have.
    #[error("the path {path:?} has a NUL byte: take it out")]
    PathWithNul {
        /// The path.
        path: PathBuf,
    },
    /// The host or the port is missing or wrong.
    #[error(
        "{text:?} has no host, or no port of at most 65535: write {scheme}:127.0.0.1:7000, with an IPv6 address in brackets"
    )]
    HostPort {
        /// What was given.
        text: String,
        /// The scheme.
        scheme: &'static str,
    },
    /// The name of the place in shared memory is wrong.
    #[error(
        "{name:?} is no name for shared memory: use 1 to 64 letters, digits, dots, underscores and hyphens, and no dot at its beginning"
    )]
    ShmName {
        /// What was given.
        name: String,
    },
    /// An option that the scheme doesn't have.
    #[error("the address has the unknown option {option:?}: {scheme}: takes {known}")]
    UnknownOption {
        /// What was given.
        option: String,
        /// The scheme.
        scheme: &'static str,
        /// What the scheme takes.
        known: &'static str,
    },
    /// An option's value is wrong.
    #[error("the address has {option}={value:?}, which must be {expected}")]
    OptionValue {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// An option is there twice.
    #[error("the address has the option {option} twice: leave one out")]
    OptionTwice {
        /// The option.
        option: String,
    },
}
