//! Verifies client certificates by the client authentication types of Go and the list of allowed names.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, UnixTime},
    server::{WebPkiClientVerifier, danger},
};

use super::der;

/// A client authentication type of Go that asks for a certificate.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAuth {
    pub(super) is_required: bool,
    pub(super) is_verified: bool,
}

/// Requests client certificates and verifies them.
#[derive(Debug)]
pub(super) struct ClientCertVerifier {
    client_auth: ClientAuth,
    /// Verifies chains, for the types that do.
    chains: Option<Arc<dyn danger::ClientCertVerifier>>,
    /// The certificates of the client CA file. A client may present one of them as its own.
    authorities: Vec<CertificateDer<'static>>,
    allowed_sans: Option<Vec<String>>,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier {
    /// Without `authorities` the system's root certificates are used, as in Go.
    pub(super) fn new(
        client_auth: ClientAuth,
        authorities: Option<Vec<CertificateDer<'static>>>,
        allowed_sans: Option<Vec<String>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let hints = match &authorities {
            // As in Go, one usable certificate is enough.
            Some(authorities) => {
                roots.add_parsable_certificates(authorities.iter().cloned());
                roots.subjects()
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                Vec::new()
            }
        };
        if roots.is_empty() && (client_auth.is_verified || authorities.is_some()) {
            return Err("no certificate in PEM was found".to_owned());
        }
        let chains = client_auth.is_verified.then(|| {
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()
        });
        Ok(Self {
            client_auth,
            chains: chains.transpose().map_err(|error| error.to_string())?,
            authorities: authorities.unwrap_or_default(),
            allowed_sans,
            hints,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    fn verify_chain(
        &self,
        chains: &dyn danger::ClientCertVerifier,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let error = match chains.verify_client_cert(certificate, intermediates, now) {
            Ok(_) => return Ok(()),
            // rustls refuses a CA certificate that a client presents with an error of its own. Go's error is the other.
            Err(Error::InvalidCertificate(CertificateError::Other(_))) => {
                CertificateError::UnknownIssuer.into()
            }
            Err(error) => error,
        };
        // Go accepts a listed certificate as its own chain. Its validity period has been checked at this point.
        let is_unknown = error == CertificateError::UnknownIssuer.into();
        if !is_unknown || !self.authorities.iter().any(|listed| listed == certificate) {
            return Err(error);
        }
        match der::allows_client_auth(certificate) {
            Some(true) => Ok(()),
            Some(false) => Err(CertificateError::InvalidPurpose.into()),
            None => Err(CertificateError::BadEncoding.into()),
        }
    }
}

impl danger::ClientCertVerifier for ClientCertVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.client_auth.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<danger::ClientCertVerified, Error> {
        if let Some(chains) = &self.chains {
            self.verify_chain(chains.as_ref(), end_entity, intermediates, now)?;
        }
        if let Some(allowed) = &self.allowed_sans {
            let names = der::subject_alternative_names(end_entity);
            let names = names.ok_or(CertificateError::BadEncoding)?;
            if !names.iter().any(|name| allowed.contains(name)) {
                // As in Go, the alert is "bad certificate".
                return Err(CertificateError::NotValidForName.into());
            }
        }
        Ok(danger::ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
