//! Writing an address so that it reads back as itself.

use std::fmt;

use super::{Access, Address, Role, TlsFiles};

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix { path, access } => {
                write!(f, "unix:{}", path.display())?;
                write_access(f, access)
            }
            Address::Tcp { host, port, access } => {
                write_host_port(f, "tcp", host, *port)?;
                write_access(f, access)
            }
            Address::Tls { host, port, access, files } => {
                write_host_port(f, "tls", host, *port)?;
                write_access(f, access)?;
                write_files(f, files)
            }
            Address::Shm { name, access } => {
                write!(f, "shm:{name}")?;
                write_access(f, access)
            }
        }
    }
}

fn write_host_port(f: &mut fmt::Formatter<'_>, scheme: &str, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') {
        write!(f, "{scheme}:[{host}]:{port}")
    } else {
        write!(f, "{scheme}:{host}:{port}")
    }
}

fn write_access(f: &mut fmt::Formatter<'_>, access: &Access) -> fmt::Result {
    if let Some(mode) = access.mode {
        write!(f, ",mode={mode:04o}")?;
    }
    if let Some(group) = &access.group {
        write!(f, ",group={group}")?;
    }
    let mut separator = ",allow_uids=";
    for uid in &access.allow_uids {
        write!(f, "{separator}{uid}")?;
        separator = "+";
    }
    match access.role {
        None => {}
        Some(Role::Call) => f.write_str(",role=call")?,
        Some(Role::Admin) => f.write_str(",role=admin")?,
    }
    if let Some(path) = &access.token_file {
        write!(f, ",token_file={}", path.display())?;
    }
    Ok(())
}

fn write_files(f: &mut fmt::Formatter<'_>, files: &TlsFiles) -> fmt::Result {
    for (name, path) in [("cert", &files.cert), ("key", &files.key), ("ca", &files.ca)] {
        if let Some(path) = path {
            write!(f, ",{name}={}", path.display())?;
        }
    }
    if let Some(name) = &files.name {
        write!(f, ",name={name}")?;
    }
    Ok(())
}
