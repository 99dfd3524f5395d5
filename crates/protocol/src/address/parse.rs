//! Reading an address.

use std::path::PathBuf;
use std::str::FromStr;

use super::{Access, Address, AddressError, Role, TlsFiles};

/// The longest path that a Unix socket can have on Linux, in bytes.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// The longest name of a place in shared memory, in bytes.
const SHM_NAME_BYTES_MAX: usize = 64;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let (place, options) = text.split_once(',').unwrap_or((text, ""));
        match place.split_once(':') {
            Some(("unix", path)) => unix(text, path, options),
            Some(("tcp", place)) => tcp(text, place, options),
            Some(("tls", place)) => tls(text, place, options),
            Some(("shm", name)) => shm(name, options),
            // `http://host` has a slash too, but is no path.
            Some((scheme, _)) if !scheme.contains('/') => {
                Err(AddressError::Scheme { text: text.to_owned() })
            }
            _ if place.contains('/') => unix(text, place, options),
            _ => Err(AddressError::Scheme { text: text.to_owned() }),
        }
    }
}

fn unix(text: &str, path: &str, options: &str) -> Result<Address, AddressError> {
    if path.is_empty() {
        return Err(AddressError::NoPath { text: text.to_owned() });
    }
    if path.contains('\0') {
        return Err(AddressError::PathWithNul { path: path.into() });
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(AddressError::PathTooLong { path: path.into(), length: path.len() });
    }
    let mut options = Options::read("unix", options)?;
    let access = Access {
        mode: options.mode()?,
        group: options.text("group", "the name or the number of a group")?,
        allow_uids: options.uids()?,
        role: options.role()?,
        token_file: None,
    };
    options.finish("mode, group, allow_uids, role")?;
    Ok(Address::Unix { path: path.into(), access })
}

fn tcp(text: &str, place: &str, options: &str) -> Result<Address, AddressError> {
    let (host, port) = host_port("tcp", text, place)?;
    let mut options = Options::read("tcp", options)?;
    let access = options.network_access()?;
    options.finish("role, token_file")?;
    Ok(Address::Tcp { host, port, access })
}

fn tls(text: &str, place: &str, options: &str) -> Result<Address, AddressError> {
    let (host, port) = host_port("tls", text, place)?;
    let mut options = Options::read("tls", options)?;
    let access = options.network_access()?;
    let files = TlsFiles {
        cert: options.path("cert")?,
        key: options.path("key")?,
        ca: options.path("ca")?,
        name: options.text("name", "the name in the server's certificate")?,
    };
    options.finish("role, token_file, cert, key, ca, name")?;
    Ok(Address::Tls { host, port, access, files })
}

fn shm(name: &str, options: &str) -> Result<Address, AddressError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let is_hidden = name.is_empty() || name.starts_with('.');
    if is_hidden || name.len() > SHM_NAME_BYTES_MAX || !name.bytes().all(fits) {
        return Err(AddressError::ShmName { name: name.to_owned() });
    }
    let mut options = Options::read("shm", options)?;
    let access = Access { allow_uids: options.uids()?, role: options.role()?, ..Access::default() };
    options.finish("allow_uids, role")?;
    Ok(Address::Shm { name: name.to_owned(), access })
}

fn host_port(scheme: &'static str, text: &str, place: &str) -> Result<(String, u16), AddressError> {
    let wrong = || AddressError::HostPort { text: text.to_owned(), scheme };
    let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
    let port = decimal(port).and_then(|port| u16::try_from(port).ok()).ok_or_else(wrong)?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']').filter(|host| host.contains(':')),
        None => Some(host).filter(|host| !host.contains(':')),
    };
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%' | '*');
    let host = host.filter(|host| !host.is_empty() && host.chars().all(fits)).ok_or_else(wrong)?;
    Ok((host.to_owned(), port))
}

/// Digits alone: `parse` would take a plus sign too.
fn decimal(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The options of an address, taken out one by one.
struct Options<'a> {
    scheme: &'static str,
    left: Vec<(&'a str, &'a str)>,
}

impl<'a> Options<'a> {
    fn read(scheme: &'static str, text: &'a str) -> Result<Options<'a>, AddressError> {
        let mut left: Vec<(&str, &str)> = Vec::new();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if left.iter().any(|(other, _)| *other == name) {
                return Err(AddressError::OptionTwice { option: name.to_owned() });
            }
            left.push((name, value));
        }
        Ok(Options { scheme, left })
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        let at = self.left.iter().position(|(other, _)| *other == name)?;
        Some(self.left.swap_remove(at).1)
    }

    /// Takes an option and reads it; `None` from `read` is an error that says what is expected.
    fn option<T>(
        &mut self,
        option: &'static str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, AddressError> {
        let Some(value) = self.take(option) else { return Ok(None) };
        let wrong = || AddressError::OptionValue { option, value: value.to_owned(), expected };
        read(value).map(Some).ok_or_else(wrong)
    }

    fn text(
        &mut self,
        option: &'static str,
        expected: &'static str,
    ) -> Result<Option<String>, AddressError> {
        self.option(option, expected, |value| (!value.is_empty()).then(|| value.to_owned()))
    }

    fn path(&mut self, option: &'static str) -> Result<Option<PathBuf>, AddressError> {
        Ok(self.text(option, "the path of a file")?.map(PathBuf::from))
    }

    fn mode(&mut self) -> Result<Option<u32>, AddressError> {
        self.option("mode", "octal permissions such as 0660", |value| {
            let octal = value.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
            let mode = u32::from_str_radix(value, 8).ok()?;
            (octal && mode <= 0o777).then_some(mode)
        })
    }

    fn uids(&mut self) -> Result<Vec<u32>, AddressError> {
        let expected = "numbers of users joined by +, such as 1000+1001";
        let uids = self.option("allow_uids", expected, |value| {
            value.split('+').map(|uid| if uid.is_empty() { None } else { decimal(uid) }).collect()
        })?;
        Ok(uids.unwrap_or_default())
    }

    fn role(&mut self) -> Result<Option<Role>, AddressError> {
        self.option("role", "call or admin", |value| match value {
            "call" => Some(Role::Call),
            "admin" => Some(Role::Admin),
            _ => None,
        })
    }

    fn network_access(&mut self) -> Result<Access, AddressError> {
        Ok(Access { role: self.role()?, token_file: self.path("token_file")?, ..Access::default() })
    }

    /// Refuses what nobody took.
    fn finish(self, known: &'static str) -> Result<(), AddressError> {
        match self.left.first() {
            None => Ok(()),
            Some((option, _)) => Err(AddressError::UnknownOption {
                option: (*option).to_owned(),
                scheme: self.scheme,
                known,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, AddressError};

    fn error(text: &str) -> AddressError {
        text.parse::<Address>().unwrap_err()
    }

    #[test]
    fn every_scheme_reads_and_writes_itself() {
        for text in [
            "unix:/run/x.sock",
            "unix:x.sock",
            "unix:/run/x.sock,mode=0660,group=web,allow_uids=1000+1001,role=admin",
            "tcp:127.0.0.1:7000",
            "tcp:[::1]:0,role=call,token_file=/etc/token",
            "tls:example.org:7443,cert=/c.pem,key=/k.pem,ca=/ca.pem,name=pool",
            "shm:prices.eu-1,allow_uids=7",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn a_path_with_a_slash_needs_no_scheme() {
        for path in ["/run/x.sock", "./x.sock", "a/b:c.sock"] {
            assert_eq!(path.parse(), Ok(Address::unix(path)));
        }
        assert_eq!("./x.sock,mode=600".parse::<Address>().unwrap().access().mode, Some(0o600));
    }

    #[test]
    fn what_is_no_address_is_told_what_to_write() {
        for text in ["", "x.sock", "http://host/x", "localhost:7000", "ftp:x", ","] {
            let error = error(text);
            assert!(matches!(error, AddressError::Scheme { .. }), "{text}: {error:?}");
            assert!(error.to_string().contains("unix:/path"));
        }
    }

    #[test]
    fn a_host_and_a_port_are_both_needed() {
        for text in [
            "tcp:",
            "tcp:host",
            "tcp::7000",
            "tcp:host:",
            "tcp:host:65536",
            "tcp:host:+1",
            "tcp:::1:7000",
            "tcp:[::1]",
            "tcp:[host]:1",
            "tcp:a b:1",
            "tls:/x:1",
        ] {
            assert!(matches!(error(text), AddressError::HostPort { .. }), "{text}");
        }
    }

    #[test]
    fn paths_that_no_socket_can_have_are_refused() {
        assert!(matches!(error("unix:"), AddressError::NoPath { .. }));
        assert!(matches!(error("unix:/a\0b"), AddressError::PathWithNul { .. }));
        let longest = format!("unix:/{}", "x".repeat(106));
        assert!(longest.parse::<Address>().is_ok());
        let error = error(&format!("{longest}x"));
        assert!(matches!(error, AddressError::PathTooLong { length: 108, .. }));
    }

    #[test]
    fn names_in_shared_memory_stay_in_their_folder() {
        for name in ["", "..", ".", ".a", "a/b", "a b", "é", &"x".repeat(65)] {
            let error = error(&format!("shm:{name}"));
            assert!(matches!(error, AddressError::ShmName { .. }), "{name}: {error:?}");
        }
    }

    #[test]
    fn options_are_checked_by_name_number_and_value() {
        for (text, expected) in [
            ("unix:/x,mod=1", "unknown option \"mod\": unix: takes mode, group"),
            ("tcp:h:1,mode=0600", "tcp: takes role, token_file"),
            ("unix:/x,mode=1777", "must be octal permissions"),
            ("unix:/x,mode=+77", "must be octal permissions"),
            ("unix:/x,mode=", "must be octal permissions"),
            ("unix:/x,allow_uids=1+", "joined by +"),
            ("unix:/x,allow_uids=root", "joined by +"),
            ("unix:/x,role=owner", "must be call or admin"),
            ("unix:/x,group=", "must be the name"),
            ("unix:/x,role=call,role=admin", "option role twice"),
        ] {
            let message = error(text).to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
