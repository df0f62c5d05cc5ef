//! TLS: makes rustls' configuration from the settings and the certificates that they name. Client certificates are judged in
//! `client_certificate`, with what `der` reads of them. Connections are accepted in `server`.

mod client_certificate;
mod der;

use std::sync::Arc;

use rustls::{
    Error, InconsistentKeys, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};

use self::client_certificate::ClientCertVerifier;
use crate::{
    config::{ClientAuth, Pem, TlsSettings},
    snapshot::Snapshot,
};

/// The key that is wrong, and what is wrong with it; never a part of a file's content.
pub(crate) type TlsProblem = (String, String);

/// Makes the configuration for new connections.
pub(crate) fn server_config(
    settings: &TlsSettings,
    snapshot: &Snapshot,
    http2: bool,
) -> Result<ServerConfig, TlsProblem> {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: settings.cipher_suites.clone(),
        kx_groups: settings.curves.clone(),
        ..ring::default_provider()
    });
    let certified_key = certified_key(settings, snapshot, &provider)?;
    if let (Some(pem), ClientAuth::NoClientCert) = (&settings.client_ca, settings.client_auth) {
        // As in Go, a file that cannot be read is reported first.
        content(pem, snapshot)?;
        return Err((
            name(pem),
            "client CA's have been configured without a Client Auth Policy, set client_auth_type"
                .to_owned(),
        ));
    }
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&settings.versions)
        .map_err(|error| ("tls_server_config".to_owned(), error.to_string()))?;
    let builder = match settings.client_auth {
        ClientAuth::NoClientCert => builder.with_no_client_auth(),
        client_auth => {
            let sans = settings.allowed_sans.clone();
            let client_ca = settings.client_ca.as_ref();
            let authorities = client_ca.map(|pem| client_ca_certificates(pem, snapshot));
            let authorities = authorities.transpose()?;
            let verifier = ClientCertVerifier::new(client_auth, authorities, sans, &provider);
            let verifier = verifier
                .map_err(|message| ("tls_server_config.client_ca_file".to_owned(), message))?;
            builder.with_client_cert_verifier(Arc::new(verifier))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key)));
    config.ignore_client_order = settings.prefer_server_cipher_suites;
    let protocols: &[&[u8]] = if http2 {
        &[b"h2", b"http/1.1"]
    } else {
        &[b"http/1.1"]
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

fn certified_key(
    settings: &TlsSettings,
    snapshot: &Snapshot,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsProblem> {
    let failed =
        |pem: &Pem, message: &str| (name(pem), format!("failed to load X509KeyPair: {message}"));
    let wrong_certificate = |message| failed(&settings.certificate, message);
    let wrong_key = |message| failed(&settings.key, message);
    let certificate = content(&settings.certificate, snapshot)?;
    let key = content(&settings.key, snapshot)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong_certificate("not valid PEM"))?;
    if chain.is_empty() {
        return Err(wrong_certificate(
            "failed to find any PEM data of a certificate",
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
        wrong_key("failed to find any PEM data of a private key without a passphrase")
    })?;
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|_| wrong_key("this kind of private key is not supported"))?;
    let certified_key = CertifiedKey::new(chain, key);
    match certified_key.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified_key),
        Err(Error::InconsistentKeys(_)) => Err(wrong_key(
            "private key does not match public key of the certificate",
        )),
        Err(_) => Err(wrong_certificate("the first certificate cannot be parsed")),
    }
}

fn client_ca_certificates(
    pem: &Pem,
    snapshot: &Snapshot,
) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(content(pem, snapshot)?).collect();
    let certificates = certificates.unwrap_or_default();
    // As in Go, one usable certificate is enough.
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates.iter().cloned());
    if usable == 0 {
        return Err((name(pem), "no certificate in PEM was found".to_owned()));
    }
    Ok(certificates)
}

fn content<'a>(pem: &'a Pem, snapshot: &'a Snapshot) -> Result<&'a [u8], TlsProblem> {
    match pem {
        Pem::Inline { text, .. } => Ok(text.as_bytes()),
        Pem::File { key, path } => snapshot.content(path).map_err(|error| {
            let message = format!("failed to read {}: {error}", path.display());
            (key.clone(), message)
        }),
    }
}

/// Returns the key and the file that a PEM text comes from.
fn name(pem: &Pem) -> String {
    match pem {
        Pem::Inline { key, .. } => key.clone(),
        Pem::File { key, path } => format!("{key} ({})", path.display()),
    }
}
