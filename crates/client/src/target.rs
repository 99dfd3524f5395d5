//! Where a link leads: one address, or the places where a pool is by default.

use std::env;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use remuda_protocol::{Address, AddressError};

/// The variable with the address to use when none is given.
const ADDRESS_VARIABLE: &str = "REMUDA_ADDR";

/// The variable with the token to send when none is given.
pub(crate) const TOKEN_VARIABLE: &str = "REMUDA_TOKEN";

/// The name of the default socket in its folder.
const SOCKET_DEFAULT: &str = "default.sock";

/// Addresses that stand for one peer: the first that connects is it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    candidates: Vec<Address>,
    is_default: bool,
}

impl Target {
    pub(crate) fn one(address: Address) -> Target {
        Target { candidates: vec![address], is_default: false }
    }

    /// `REMUDA_ADDR`, else the default socket of this user.
    pub(crate) fn by_default() -> Result<Target, AddressError> {
        if let Some(text) = env::var_os(ADDRESS_VARIABLE).filter(|text| !text.is_empty()) {
            return text.to_string_lossy().parse().map(Target::one);
        }
        let runtime = env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
        let runtime = runtime.map(|folder| PathBuf::from(folder).join("remuda"));
        let folders = runtime.into_iter().chain([own_folder()]);
        let candidates = folders.map(|folder| Address::unix(folder.join(SOCKET_DEFAULT))).collect();
        Ok(Target { candidates, is_default: true })
    }

    pub(crate) fn candidates(&self) -> &[Address] {
        &self.candidates
    }

    /// Whether these are the places of a pool that nobody named.
    pub(crate) const fn is_default(&self) -> bool {
        self.is_default
    }

    /// The name for people.
    pub(crate) fn label(&self) -> String {
        let names: Vec<String> = self.candidates.iter().map(Address::to_string).collect();
        names.join(" or ")
    }
}

fn own_folder() -> PathBuf {
    PathBuf::from(format!("/tmp/remuda-{}", own_uid()))
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// Refuses the socket in this user's folder in /tmp if the folder belongs to somebody else:
/// anybody can make one there, and would be handed the jobs.
pub(crate) fn check_owner(socket: &Path) -> io::Result<()> {
    let Some(folder) = socket.parent().filter(|folder| *folder == own_folder()) else {
        return Ok(());
    };
    check_folder(folder, own_uid())
}

fn check_folder(folder: &Path, uid: u32) -> io::Result<()> {
    let owner = std::fs::symlink_metadata(folder)?.uid();
    if owner == uid || owner == 0 {
        return Ok(());
    }
    let message = format!("its folder belongs to uid {owner}, who is not this user");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

#[cfg(test)]
mod tests {
    use super::{check_folder, own_uid};

    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_folder(folder.path(), own_uid()).is_ok());
        // Roots's folders are everybody's to trust, so take another owner for the test.
        if own_uid() == 0 {
            std::os::unix::fs::chown(folder.path(), Some(4242), None).unwrap();
            assert!(check_folder(folder.path(), own_uid()).is_err());
        } else {
            assert!(check_folder(folder.path(), own_uid() + 1).is_err());
        }
    }
}
