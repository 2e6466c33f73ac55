//! TLS to relays: whom to trust, and what went wrong in words that help.

use std::{io, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio_tungstenite::Connector;

/// Why there is no trusting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TrustError {
    /// The text has no certificate in it.
    #[error("there is no certificate in it: expected PEM, with -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    /// A certificate in it is none.
    #[error("a certificate in it cannot be read: {0}")]
    Unreadable(String),
    /// This program was built without what TLS needs.
    #[error("no TLS: {0}")]
    Unavailable(String),
}

/// The authorities whose certificates are believed.
#[derive(Debug, Clone)]
pub(crate) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Trusts Mozilla's authorities and those of these PEM texts.
    pub(crate) fn with(more: &[Vec<u8>]) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        for pem in more {
            let mut found = false;
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let unreadable =
                    |error: &dyn std::fmt::Display| TrustError::Unreadable(error.to_string());
                let certificate = certificate.map_err(|error| unreadable(&error))?;
                roots.add(certificate).map_err(|error| unreadable(&error))?;
                found = true;
            }
            if !found {
                return Err(TrustError::NoCertificate);
            }
        }
        // Named, because a program that embeds a peer may have several providers.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TrustError::Unavailable(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// For the opening of a WebSocket.
    pub(crate) fn connector(&self) -> Connector {
        Connector::Rustls(Arc::clone(&self.0))
    }
}

/// What is wrong, if it is TLS that failed, and what to do about it.
pub(crate) fn explain(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(wrong) => certificate(wrong),
        rustls::Error::InvalidMessage(_) => {
            "it does not speak TLS: is it ws:// and not wss://?".to_owned()
        }
        other => format!("TLS failed: {other}"),
    })
}

fn certificate(wrong: &CertificateError) -> String {
    const TRUST: &str = "trust that authority with --ca FILE (in a program: PeerBuilder::trust)";
    match wrong {
        CertificateError::UnknownIssuer => {
            format!("its certificate is signed by an authority that is not known here: {TRUST}")
        }
        CertificateError::BadSignature => format!(
            "its certificate is signed by another authority than the one of that name that is \
             known here, which may have been made anew: {TRUST}"
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is for another name: {wrong}")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("its certificate has expired, or this machine's clock is wrong: {wrong}")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("its certificate is not valid yet, or this machine's clock is wrong: {wrong}")
        }
        // What `openssl req -x509` makes unless told otherwise.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "its certificate is one to sign others with (CA:TRUE), not one for a server: make one \
             for the server, with CA:FALSE"
                .to_owned()
        }
        other => format!("its certificate is not good: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_said() {
        assert!(Trust::with(&[]).is_ok());
        let none = Trust::with(&[b"hello".to_vec()]);
        assert_eq!(none.unwrap_err(), TrustError::NoCertificate);
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let unreadable = Trust::with(&[broken.to_vec()]);
        assert!(matches!(unreadable, Err(TrustError::Unreadable(_))));
        let cut = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(Trust::with(&[cut.to_vec()]).is_err());
    }
}
