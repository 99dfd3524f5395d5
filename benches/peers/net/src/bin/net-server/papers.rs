//! A certificate for `localhost`, made when the server starts.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

/// The server's side of TLS; what the client is to trust is written to `path`.
pub fn server_config(path: Option<&Path>) -> Result<Arc<ServerConfig>, Box<dyn Error>> {
    let mut authority = rcgen::CertificateParams::new(Vec::new())?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "the rows' authority");
    let key = rcgen::KeyPair::generate()?;
    let trusted = authority.self_signed(&key)?;
    let issuer = rcgen::Issuer::new(authority, key);
    let own_key = rcgen::KeyPair::generate()?;
    let own = rcgen::CertificateParams::new(vec!["localhost".into()])?;
    let own = own.signed_by(&own_key, &issuer)?;
    let own_key = PrivateKeyDer::try_from(own_key.serialize_der())?;
    if let Some(path) = path {
        std::fs::write(path, trusted.der())?;
    }
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], own_key)?;
    Ok(Arc::new(config))
}
