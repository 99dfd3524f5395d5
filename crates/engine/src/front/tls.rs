//! The keys and certificates of a `tls:` listener.

use std::path::Path;
use std::sync::Arc;

use remuda_protocol::TlsFiles;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::error::PoolError;

fn failed(what: impl std::fmt::Display) -> PoolError {
    PoolError::Tls(what.to_string())
}

/// What a listener shows its clients, and what it demands of them.
pub(crate) fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, PoolError> {
    let (Some(cert), Some(key)) = (&files.cert, &files.key) else {
        return Err(failed(
            "a tls: listener needs cert=PATH and key=PATH (or --tls-cert, --tls-key)",
        ));
    };
    let chain = certificates(cert)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        pem::Error::NoItemsFound => failed(format!("there is no private key in {}", key.display())),
        error => failed(format!("cannot read the key in {}: {error}", key.display())),
    })?;
    let builder = ServerConfig::builder();
    let builder = match &files.ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca)? {
                roots.add(certificate).map_err(|e| failed(format!("{}: {e}", ca.display())))?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
            builder.with_client_cert_verifier(verifier.build().map_err(failed)?)
        }
    };
    builder.with_single_cert(chain, key).map(Arc::new).map_err(failed)
}

/// The certificates in a PEM file, of which there must be one at least.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PoolError> {
    let wrong = |error| failed(format!("cannot read certificates in {}: {error}", path.display()));
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(wrong)?
        .collect::<Result<_, _>>()
        .map_err(wrong)?;
    if chain.is_empty() {
        return Err(failed(format!("there is no certificate in {}", path.display())));
    }
    Ok(chain)
}
