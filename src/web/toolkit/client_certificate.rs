//! Which client certificates are let in: Go's five policies, and the list of allowed names.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::file::ClientAuth;

/// Asks for certificates and judges them.
pub(super) struct ClientCertificates {
    policy: ClientAuth,
    /// For the policies that verify.
    chains: Option<Arc<dyn ClientCertVerifier>>,
    /// The CAs of the file: one of them may also be a client itself.
    listed: Vec<CertificateDer<'static>>,
    allowed_sans: Option<Vec<String>>,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for ClientCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificates")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl ClientCertificates {
    /// `authorities` are those of the file; without them a policy that verifies takes the system's, as in Go.
    pub(super) fn new(
        policy: ClientAuth,
        authorities: Option<Vec<CertificateDer<'static>>>,
        allowed_sans: Option<Vec<String>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let verifies = matches!(
            policy,
            ClientAuth::VerifyClientCertIfGiven | ClientAuth::RequireAndVerifyClientCert
        );
        let mut roots = RootCertStore::empty();
        let mut hints = Vec::new();
        match &authorities {
            Some(listed) => {
                roots.add_parsable_certificates(listed.iter().cloned());
                hints = roots.subjects();
            }
            None if verifies => {
                let system = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(system.certs);
                if roots.is_empty() {
                    return Err(
                        "tls_server_config: no root certificates were found on this system, set client_ca_file"
                            .to_owned(),
                    );
                }
            }
            None => {}
        }
        let chains = if verifies {
            let builder =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            let chains = builder.build();
            Some(chains.map_err(|error| format!("tls_server_config.client_ca_file: {error}"))?)
        } else {
            None
        };
        Ok(Self {
            policy,
            chains,
            listed: authorities.unwrap_or_default(),
            allowed_sans,
            hints,
            algorithms: provider.signature_verification_algorithms,
        })
    }
}

impl ClientCertVerifier for ClientCertificates {
    fn client_auth_mandatory(&self) -> bool {
        matches!(
            self.policy,
            ClientAuth::RequireAnyClientCert | ClientAuth::RequireAndVerifyClientCert
        )
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(chains) = &self.chains {
            // Go takes a certificate that is itself listed as its own chain; the path builder would call it an authority
            // used as a client.
            if self.listed.iter().any(|listed| listed == end_entity) {
                is_client_now(end_entity, now)?;
            } else {
                chains
                    .verify_client_cert(end_entity, intermediates, now)
                    .map_err(in_words_of_go)?;
            }
        }
        if let Some(allowed) = &self.allowed_sans
            && !names(end_entity)?.iter().any(|name| allowed.contains(name))
        {
            // The alert is "bad certificate", which is Go's.
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ClientCertVerified::assertion())
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

/// The path builder has no word of its own for an authority that comes as a client; Go's is that nobody known issued it.
fn in_words_of_go(error: Error) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::Other(_)) => {
            CertificateError::UnknownIssuer.into()
        }
        error => error,
    }
}

/// In its time, and for clients if it says for whom it is.
fn is_client_now(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let certificate = parse(certificate)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    let usage = certificate
        .extended_key_usage()
        .map_err(|_| CertificateError::BadEncoding)?;
    if usage.is_some_and(|usage| !usage.value.client_auth && !usage.value.any) {
        return Err(CertificateError::InvalidPurpose.into());
    }
    Ok(())
}

/// Its alternative names, as Go writes them.
fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, Error> {
    let certificate = parse(certificate)?;
    let Some(names) = certificate
        .subject_alternative_name()
        .map_err(|_| CertificateError::BadEncoding)?
    else {
        return Ok(Vec::new());
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        GeneralName::IPAddress(bytes) => {
            let v4 = |bytes: [u8; 4]| Ipv4Addr::from(bytes).to_string();
            let v6 = |bytes: [u8; 16]| Ipv6Addr::from(bytes).to_canonical().to_string();
            let v4 = <[u8; 4]>::try_from(*bytes).map(v4);
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(v6)).ok()
        }
        _ => None,
    };
    Ok(names.value.general_names.iter().filter_map(name).collect())
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    X509Certificate::from_der(certificate)
        .map(|(_, certificate)| certificate)
        .map_err(|_| CertificateError::BadEncoding.into())
}
