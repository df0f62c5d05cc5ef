//! TLS (`tls_server_config`): makes rustls' configuration from the section and the certificates that it names. Client certificates
//! are judged in `client_certificate`, with what `der` reads of them. Connections are accepted in `server`.

mod client_certificate;
mod der;

use std::sync::Arc;

use rustls::{
    ConfigBuilder, Error, ServerConfig, SupportedCipherSuite,
    crypto::{
        CryptoProvider, SupportedKxGroup,
        ring::{self, kx_group},
    },
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WantsServerCert,
    version::{TLS12, TLS13},
};

use self::client_certificate::{ClientAuth, ClientCertVerifier};
use crate::config_file::{Files, Pem, TlsSection, given};

/// The client authentication types of Go, and the former name of one. `None` asks for no certificate.
const CLIENT_AUTH_TYPES: [(&str, Option<ClientAuth>); 6] = [
    ("NoClientCert", None),
    ("RequestClientCert", client_auth(false, false)),
    ("RequireAnyClientCert", client_auth(true, false)),
    ("RequireClientCert", client_auth(true, false)),
    ("VerifyClientCertIfGiven", client_auth(false, true)),
    ("RequireAndVerifyClientCert", client_auth(true, true)),
];

const VERSIONS: [(&str, u8); 2] = [("TLS12", 12), ("TLS13", 13)];

const CURVES: [(&str, &dyn SupportedKxGroup); 3] = [
    ("X25519", kx_group::X25519),
    ("CurveP256", kx_group::SECP256R1),
    ("CurveP384", kx_group::SECP384R1),
];

/// HTTP/2 over TLS 1.2 requires one of these (RFC 9113, 9.2.2).
const HTTP2_SUITES: [&str; 2] = [
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
];

const fn client_auth(is_required: bool, is_verified: bool) -> Option<ClientAuth> {
    Some(ClientAuth {
        is_required,
        is_verified,
    })
}

/// Returns whether the section turns TLS on. As in Go, it does not without certificate, key, client CA and client authentication
/// type.
pub(crate) fn is_on(section: &TlsSection) -> bool {
    [
        &section.cert,
        &section.cert_file,
        &section.key,
        &section.key_file,
        &section.client_ca,
        &section.client_ca_file,
        &section.client_auth_type,
    ]
    .iter()
    .any(|text| given(text.as_ref()).is_some())
}

/// Makes the configuration for new connections, or returns the first problem.
pub(crate) fn server_config(
    section: &TlsSection,
    http2: bool,
    files: &Files,
) -> Result<ServerConfig, String> {
    let client_auth = match given(section.client_auth_type.as_ref()) {
        Some(name) => choose(
            &CLIENT_AUTH_TYPES,
            name,
            "client_auth_type: invalid ClientAuth",
        )?,
        None => None,
    };
    if section.client_allowed_sans.is_some() && !client_auth.is_some_and(|it| it.is_required) {
        return Err("tls_server_config.client_allowed_sans: client_allowed_sans requires client_auth_type to be one of \
            RequireAnyClientCert or RequireAndVerifyClientCert".to_owned());
    }
    let min = given(section.min_version.as_ref()).unwrap_or("TLS12");
    let min = choose(&VERSIONS, min, "min_version: unknown TLS version")?;
    let max = given(section.max_version.as_ref()).unwrap_or("TLS13");
    let max = choose(&VERSIONS, max, "max_version: unknown TLS version")?;
    let versions: &[_] = match (min, max) {
        (12, 12) => &[&TLS12],
        (12, _) => &[&TLS13, &TLS12],
        (_, 13) => &[&TLS13],
        _ => return Err("tls_server_config.min_version: no supported versions satisfy MinVersion and MaxVersion, \
            min_version is above max_version".to_owned()),
    };
    let provider = Arc::new(CryptoProvider {
        cipher_suites: cipher_suites(section, http2 && min == 12)?,
        kx_groups: curves(section)?,
        ..ring::default_provider()
    });
    let verifier = client_verifier(section, client_auth, files, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| format!("tls_server_config.cipher_suites: {error}"))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(Arc::new(verifier)),
        None => builder.with_no_client_auth(),
    };
    let mut config = add_certificate(builder, section, files)?;
    config.ignore_client_order = section.prefer_server_cipher_suites.unwrap_or(true);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.alpn_protocols.retain(|name| http2 || name != b"h2");
    Ok(config)
}

/// Returns the value of `name` in a table. A name that rustls does not support is as unknown as any other.
fn choose<T: Copy>(table: &[(impl AsRef<str>, T)], name: &str, what: &str) -> Result<T, String> {
    if let Some((_, value)) = table.iter().find(|(known, _)| known.as_ref() == name) {
        return Ok(*value);
    }
    let known: Vec<_> = table.iter().map(|(known, _)| known.as_ref()).collect();
    let known = known.join(", ");
    Err(format!(
        "tls_server_config.{what} {name:?}: it is not supported, use one of {known}"
    ))
}

/// Returns the listed cipher suites, or all if none are listed. As in Go, those of TLS 1.3 cannot be switched off.
fn cipher_suites(
    section: &TlsSection,
    requires_http2_suite: bool,
) -> Result<Vec<SupportedCipherSuite>, String> {
    let supported = ring::default_provider().cipher_suites;
    let listed = section.cipher_suites.as_deref().unwrap_or_default();
    if listed.is_empty() {
        return Ok(supported);
    }
    let is_listed = |required: &&str| listed.iter().any(|name| name == required);
    if requires_http2_suite && !HTTP2_SUITES.iter().any(is_listed) {
        let [rsa, ecdsa] = HTTP2_SUITES;
        return Err(format!(
            "tls_server_config.cipher_suites: http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 \
             cipher (need at least one of {rsa} or {ecdsa}): add it, or set http_server_config.http2 to false"
        ));
    }
    let name = |suite: &SupportedCipherSuite| {
        let name = format!("{:?}", suite.suite());
        name.replacen("TLS13_", "TLS_", 1)
    };
    let table: Vec<_> = supported
        .iter()
        .map(|suite| (name(suite), *suite))
        .collect();
    let is_tls13 = |suite: &SupportedCipherSuite| suite.tls13().is_some();
    let mut suites: Vec<_> = supported.iter().copied().filter(is_tls13).collect();
    for name in listed {
        let suite = choose(&table, name, "cipher_suites: unknown cipher")?;
        suites.extend(Some(suite).filter(|suite| !is_tls13(suite)));
    }
    Ok(suites)
}

/// Returns the listed curves in their order, or all if none are listed.
fn curves(section: &TlsSection) -> Result<Vec<&'static dyn SupportedKxGroup>, String> {
    let listed = section.curve_preferences.as_deref().unwrap_or_default();
    if listed.is_empty() {
        return Ok(ring::default_provider().kx_groups);
    }
    let curve = |name: &String| choose(&CURVES, name, "curve_preferences: unknown curve");
    listed.iter().map(curve).collect()
}

/// Adds the server's certificate and its key.
fn add_certificate(
    builder: ConfigBuilder<ServerConfig, WantsServerCert>,
    section: &TlsSection,
    files: &Files,
) -> Result<ServerConfig, String> {
    let missing = |key| format!("tls_server_config: missing one of {key} or {key}_file");
    let cert = files.pem("cert", section.cert.as_ref(), section.cert_file.as_ref())?;
    let cert = cert.ok_or_else(|| missing("cert"))?;
    let key = files.pem("key", section.key.as_ref(), section.key_file.as_ref())?;
    let key = key.ok_or_else(|| missing("key"))?;
    let wrong = |key: &str, message: &str| format!("{key}: failed to load X509KeyPair: {message}");
    let chain = certificates(&cert);
    if chain.is_empty() {
        let message = "failed to find any PEM data of a certificate";
        return Err(wrong(&cert.key, message));
    }
    let private_key = PrivateKeyDer::from_pem_slice(key.content).map_err(|_| {
        let message = "failed to find any PEM data of a private key without a passphrase";
        wrong(&key.key, message)
    })?;
    builder
        .with_single_cert(chain, private_key)
        .map_err(|error| {
            let keys = format!("{}, {}", cert.key, key.key);
            match error {
                Error::InconsistentKeys(_) => wrong(
                    &keys,
                    "private key does not match public key of the certificate",
                ),
                error => wrong(&keys, &error.to_string()),
            }
        })
}

/// Returns the certificates of a PEM text, or none if a part of it is malformed.
fn certificates(pem: &Pem<'_>) -> Vec<CertificateDer<'static>> {
    let certificates: Result<_, _> = CertificateDer::pem_slice_iter(pem.content).collect();
    certificates.unwrap_or_default()
}

/// Returns the verifier of client certificates, if they are asked for.
fn client_verifier(
    section: &TlsSection,
    client_auth: Option<ClientAuth>,
    files: &Files,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<ClientCertVerifier>, String> {
    let file = section.client_ca_file.as_ref();
    let pem = files.pem("client_ca", section.client_ca.as_ref(), file)?;
    let authorities = pem.as_ref().map(certificates);
    let key = pem.map_or("tls_server_config.client_ca_file".to_owned(), |pem| pem.key);
    let Some(client_auth) = client_auth else {
        return match authorities {
            None => Ok(None),
            Some(_) => Err(format!(
                "{key}: client CA's have been configured without a Client Auth Policy, set client_auth_type"
            )),
        };
    };
    let sans = section.client_allowed_sans.clone();
    let verifier = ClientCertVerifier::new(client_auth, authorities, sans, provider);
    verifier
        .map(Some)
        .map_err(|error| format!("{key}: {error}"))
}
