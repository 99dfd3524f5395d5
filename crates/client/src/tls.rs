//! TLS over TCP, by rustls.

use std::io;
use std::path::Path;
use std::sync::Arc;

use remuda_protocol::TlsFiles;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What one connection needs: whom to trust, and the name that the certificate must have.
///
/// It is made anew for each connection, so that renewed certificates are seen.
pub(crate) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// Reads the files that the address names; without `ca=`, trusts what the system trusts.
    pub(crate) fn load(files: &TlsFiles, host: &str) -> Result<Tls, String> {
        let roots = match &files.ca {
            Some(file) => roots_of(file)?,
            None => roots_of_system()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = files.name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name)
            .map_err(|error| format!("{error}: give the server's name as name=HOST"))?;
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    }

    pub(crate) async fn wrap(self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name, stream).await
    }
}

fn roots_of(file: &Path) -> Result<RootCertStore, String> {
    let unread = |error: &dyn std::fmt::Display| {
        format!("its ca file {} can't be read: {error}", file.display())
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unread(&error))? {
        let certificate = certificate.map_err(|error| unread(&error))?;
        roots.add(certificate).map_err(|error| unread(&error))?;
    }
    if roots.is_empty() {
        return Err(format!("its ca file {} holds no certificate", file.display()));
    }
    Ok(roots)
}

fn roots_of_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(
            "this system has no trusted certificates: name the pool's by ca=FILE".to_owned()
        );
    }
    Ok(roots)
}
