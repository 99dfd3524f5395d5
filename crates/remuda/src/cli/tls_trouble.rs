//! What to do where TLS comes to nothing: rustls says what is wrong with a session, and not that.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// What to do about an error of a session, if it is one, and if that is known.
pub(crate) fn advice(error: &io::Error) -> Option<&'static str> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidMessage(_) => "it speaks no TLS: say tcp: if it is a listener without",
        Error::InvalidCertificate(certificate) => of_certificate(certificate)?,
        Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::BadCertificate,
        ) => "it asks its callers for a certificate: add cert=FILE,key=FILE to the address",
        _ => return None,
    })
}

fn of_certificate(certificate: &CertificateError) -> Option<&'static str> {
    Some(match certificate {
        // The latter two where somebody else of the signer's name is trusted.
        CertificateError::UnknownIssuer
        | CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "nobody who is trusted here has signed it: add ca=FILE to the address, for whom to trust"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name: add name=HOST to the address"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it is out of date: give the listener a fresh one"
        }
        // It has no name of its own in rustls.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "it is an authority's, and no server's: make one with basicConstraints=CA:FALSE \
             (`openssl req -x509` makes an authority's unless it is told)"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_of_a_session_have_advice() {
        assert_eq!(advice(&io::ErrorKind::NotFound.into()), None);
        let of = |error| advice(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(of(Error::DecryptError), None);
        let issuer = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert!(of(issuer).is_some_and(|advice| advice.contains("ca=FILE")));
    }
}
