//! The calling side of TLS: whom the pool trusts when it attaches to a `tls:` address.

use std::path::Path;
use std::sync::Arc;

use remuda_protocol::TlsFiles;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// Reads the files that a `tls:` address names: whom to trust (`ca=`, else whom the system trusts),
/// and the certificate to show (`cert=` and `key=`), if any.
///
/// # Errors
/// A sentence that says which file is wrong, and what is wrong with it.
pub fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, String> {
    let roots = match &files.ca {
        Some(file) => roots_of(file)?,
        None => roots_of_system()?,
    };
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let config = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unread(key, &error))?;
            builder
                .with_client_auth_cert(certificates(cert)?, key)
                .map_err(|error| error.to_string())?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err("give both cert=PATH and key=PATH, or neither".to_owned()),
    };
    Ok(Arc::new(config))
}

/// The name that the peer's certificate must have: `name=`, else the host.
///
/// # Errors
/// A sentence that says why it can be no server's name.
pub fn server_name<'a>(files: &'a TlsFiles, host: &'a str) -> Result<&'a str, String> {
    let name = files.name.as_deref().unwrap_or(host);
    ServerName::try_from(name)
        .map_err(|error| format!("{name:?} is no server's name ({error}): give name=HOST"))?;
    Ok(name)
}

fn unread(file: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{} can't be read: {error}", file.display())
}

/// The certificates in a PEM file, of which there must be one at least.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unread(file, &error))?;
    if chain.is_empty() {
        return Err(format!("there is no certificate in {}", file.display()));
    }
    Ok(chain)
}

fn roots_of(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| unread(file, &error))?;
    }
    Ok(roots)
}

fn roots_of_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this system has no trusted certificates: name the pool's by ca=FILE".into());
    }
    Ok(roots)
}
