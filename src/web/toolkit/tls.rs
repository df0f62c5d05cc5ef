//! `file::Tls` and what the files it names hold, to what rustls serves with.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    client_certificate::ClientCertificates,
    file::{ClientAuth, Material, TLS13_SUITES, Tls, Version},
};

/// A larger file holds no certificates; a bundle of all public roots has a fifth of it.
const LARGEST_FILE: u64 = 1 << 20;

/// What is served with, and what it was made of.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) config: Arc<ServerConfig>,
    settings: Tls,
    contents: Contents,
}

/// What the named files hold, or why they cannot be read.
pub(super) type Contents = BTreeMap<PathBuf, Result<Vec<u8>, String>>;

/// Reads all files that `settings` names.
pub(super) fn contents(settings: &Tls) -> Contents {
    let materials = [&settings.certificate, &settings.key]
        .into_iter()
        .chain(&settings.client_ca);
    let files = materials.filter_map(|material| match material {
        Material::File(path) => Some(path.clone()),
        Material::Inline(_) => None,
    });
    files
        .map(|path| {
            let content = read_file(&path).map_err(|error| words(&error));
            (path, content)
        })
        .collect()
}

/// A file whole.
pub(super) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = File::open(path)?
        .take(LARGEST_FILE + 1)
        .read_to_end(&mut content)?;
    if read as u64 > LARGEST_FILE {
        let what = format!("larger than {LARGEST_FILE} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(content)
}

/// In the words that Go's tools use, and look for.
pub(super) fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
}

impl Serving {
    /// The error names the key, and never holds what a file holds.
    pub(super) fn new(settings: Tls, contents: Contents, http2: bool) -> Result<Self, String> {
        let config = server_config(&settings, &contents, http2)?;
        Ok(Self {
            config: Arc::new(config),
            settings,
            contents,
        })
    }

    /// Whether the same would be made of these.
    pub(super) fn is_of(&self, settings: &Tls, contents: &Contents) -> bool {
        self.settings == *settings && self.contents == *contents
    }
}

fn server_config(settings: &Tls, contents: &Contents, http2: bool) -> Result<ServerConfig, String> {
    let provider = Arc::new(provider(settings));
    let versions: Vec<&'static SupportedProtocolVersion> =
        [(Version::Tls13, &TLS13), (Version::Tls12, &TLS12)]
            .into_iter()
            .filter(|(version, _)| (settings.min_version..=settings.max_version).contains(version))
            .map(|(_, version)| version)
            .collect();
    let certified = certified_key(settings, contents, &provider)?;
    if let Some(authorities) = &settings.client_ca
        && settings.client_auth == ClientAuth::NoClientCert
    {
        // In Go's order: a file that cannot be read is told first.
        content(authorities, "client_ca", contents)?;
        return Err(
            "client CA's have been configured without a Client Auth Policy: set tls_server_config.client_auth_type"
                .to_owned(),
        );
    }
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(|error| format!("tls_server_config: {error}"))?;
    let builder = match settings.client_auth {
        ClientAuth::NoClientCert => builder.with_no_client_auth(),
        policy => {
            let authorities = authorities(settings, contents)?;
            let sans = settings.allowed_sans.clone();
            let verifier = ClientCertificates::new(policy, authorities, sans, &provider)?;
            builder.with_client_cert_verifier(Arc::new(verifier))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.ignore_client_order = settings.prefer_server_cipher_suites;
    config.alpn_protocols = if http2 {
        vec![b"h2".to_vec(), b"http/1.1".to_vec()]
    } else {
        vec![b"http/1.1".to_vec()]
    };
    Ok(config)
}

/// Suites and curves in the order they are listed in, the default ones where none are.
fn provider(settings: &Tls) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if !settings.cipher_suites.is_empty() {
        let all = std::mem::take(&mut provider.cipher_suites);
        let wanted = TLS13_SUITES.iter().chain(
            settings
                .cipher_suites
                .iter()
                .filter(|suite| !TLS13_SUITES.contains(suite)),
        );
        provider.cipher_suites = wanted
            .filter_map(|wanted| all.iter().find(|suite| suite.suite() == *wanted))
            .copied()
            .collect();
    }
    if !settings.curves.is_empty() {
        let all = std::mem::take(&mut provider.kx_groups);
        provider.kx_groups = settings
            .curves
            .iter()
            .filter_map(|wanted| all.iter().find(|group| group.name() == *wanted))
            .copied()
            .collect();
    }
    provider
}

fn certified_key(
    settings: &Tls,
    contents: &Contents,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, String> {
    let certificate = content(&settings.certificate, "cert", contents)?;
    let key = content(&settings.key, "key", contents)?;
    let wrong = |of: &Material, key: &str, what: &str| {
        Err(format!(
            "{}: failed to load X509KeyPair: {what}",
            origin(of, key)
        ))
    };
    let chain: Vec<_> = match CertificateDer::pem_slice_iter(certificate).collect() {
        Ok(chain) => chain,
        Err(_) => return wrong(&settings.certificate, "cert", "not valid PEM"),
    };
    let Some(leaf) = chain.first() else {
        return wrong(
            &settings.certificate,
            "cert",
            "failed to find any PEM data of a certificate",
        );
    };
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else {
        return wrong(
            &settings.certificate,
            "cert",
            "the first certificate cannot be parsed",
        );
    };
    let of_leaf = leaf.public_key().raw.to_vec();
    let Ok(key) = PrivateKeyDer::from_pem_slice(key) else {
        return wrong(
            &settings.key,
            "key",
            "failed to find any PEM data of a private key without a passphrase",
        );
    };
    let Ok(key) = provider.key_provider.load_private_key(key) else {
        return wrong(
            &settings.key,
            "key",
            "this kind of private key is not supported",
        );
    };
    let matches = key
        .public_key()
        .is_none_or(|public| public.as_ref() == of_leaf.as_slice());
    if !matches {
        return wrong(
            &settings.key,
            "key",
            "private key does not match public key of the certificate",
        );
    }
    Ok(CertifiedKey::new(chain, key))
}

/// The client CAs of the file, or `None` for the system's.
fn authorities(
    settings: &Tls,
    contents: &Contents,
) -> Result<Option<Vec<CertificateDer<'static>>>, String> {
    let Some(material) = &settings.client_ca else {
        return Ok(None);
    };
    let pem = content(material, "client_ca", contents)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.unwrap_or_default();
    // As in Go, what is no certificate in there does no harm as long as there is one.
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates.iter().cloned());
    if usable == 0 {
        let origin = origin(material, "client_ca");
        return Err(format!("{origin}: no certificate in PEM was found"));
    }
    Ok(Some(certificates))
}

fn content<'a>(
    material: &'a Material,
    key: &str,
    contents: &'a Contents,
) -> Result<&'a [u8], String> {
    match material {
        Material::Inline(text) => Ok(text.expose().as_bytes()),
        Material::File(path) => match contents.get(path) {
            Some(Ok(content)) => Ok(content),
            Some(Err(error)) => Err(format!(
                "tls_server_config.{key}_file: failed to read {}: {error}",
                path.display()
            )),
            None => Err(format!("tls_server_config.{key}_file: not read")),
        },
    }
}

/// Where it was written, for messages.
fn origin(material: &Material, key: &str) -> String {
    match material {
        Material::Inline(_) => format!("tls_server_config.{key}"),
        Material::File(path) => format!("tls_server_config.{key}_file ({})", path.display()),
    }
}
