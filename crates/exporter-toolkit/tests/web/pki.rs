//! Generated certificates, and a TLS client that offers what a test wants. The tests of the exporter use them as well.

use std::{fs, path::PathBuf, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls::{
    CipherSuite, ClientConfig, NamedGroup, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Returns the bcrypt hash of a password. Tests that are not about time use the lowest cost, 4.
pub fn hash(password: &str, cost: u32) -> String {
    bcrypt::hash(password, cost).unwrap()
}

/// A directory of generated certificates: `ca`, `server`, and those of clients.
pub struct Pki {
    directory: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let ca = authority("the CA", |_| ());
        fs::write(directory.path().join("ca.crt"), ca.pem()).unwrap();
        let pki = Self { directory, ca };
        pki.issue(
            "server",
            &["localhost"],
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        pki
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// Writes `NAME.crt` and `NAME.key`, issued by the CA.
    pub fn issue(&self, name: &str, names: &[&str], purpose: ExtendedKeyUsagePurpose) {
        self.issue_with(name, |params| {
            params.subject_alt_names = names.iter().map(|name| san(name)).collect();
            params.extended_key_usages = vec![purpose];
        });
    }

    /// Issues a certificate with the parameters that `more` sets.
    pub fn issue_with(&self, name: &str, more: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        more(&mut params);
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        self.write(&format!("{name}.crt"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// Writes `NAME.crt` and `NAME.key`, a self-signed CA.
    pub fn self_signed(&self, name: &str) {
        self.self_signed_with(name, |_| ());
    }

    /// Writes a self-signed CA with the parameters that `more` sets.
    pub fn self_signed_with(&self, name: &str, more: impl FnOnce(&mut CertificateParams)) {
        let authority = authority(name, more);
        self.write(&format!("{name}.crt"), &authority.pem());
        self.write(&format!("{name}.key"), &authority.key().serialize_pem());
    }

    pub fn client(&self) -> Client {
        Client {
            roots: self.path("ca.crt"),
            ..Client::default()
        }
    }
}

fn authority(
    name: &str,
    more: impl FnOnce(&mut CertificateParams),
) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    more(&mut params);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn san(name: &str) -> SanType {
    if let Ok(ip) = name.parse() {
        SanType::IpAddress(ip)
    } else if name.contains("://") {
        SanType::URI(name.try_into().unwrap())
    } else if name.contains('@') {
        SanType::Rfc822Name(name.try_into().unwrap())
    } else {
        SanType::DnsName(name.try_into().unwrap())
    }
}

/// An HTTP/1.1 client with TLS.
#[derive(Default, Clone)]
pub struct Client {
    pub roots: PathBuf,
    /// The path of the client certificate without `.crt` and `.key`.
    pub certificate: Option<PathBuf>,
    /// The newest TLS version that is offered: 12 or 13.
    pub newest: Option<u16>,
    pub suites: Vec<CipherSuite>,
    pub curves: Vec<NamedGroup>,
    pub alpn: Vec<&'static str>,
}

pub struct Answer {
    pub head: String,
    pub body: String,
    pub suite: Option<CipherSuite>,
    pub alpn: Option<Vec<u8>>,
    pub certificate: Vec<u8>,
}

impl Client {
    pub fn with(&self, certificate: PathBuf) -> Self {
        Self {
            certificate: Some(certificate),
            ..self.clone()
        }
    }

    /// Connects to a server by its `HOST:PORT`.
    pub async fn connect(&self, server: &impl AsRef<str>) -> Result<TlsStream<TcpStream>, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.roots).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let mut provider = ring::default_provider();
        if !self.suites.is_empty() {
            let all = std::mem::take(&mut provider.cipher_suites);
            let find = |wanted: &CipherSuite| all.iter().find(|suite| suite.suite() == *wanted);
            provider.cipher_suites = self.suites.iter().filter_map(find).copied().collect();
        }
        if !self.curves.is_empty() {
            provider
                .kx_groups
                .retain(|group| self.curves.contains(&group.name()));
        }
        let versions: &[_] = match self.newest {
            Some(12) => &[&TLS12],
            Some(13) => &[&TLS13],
            _ => &[&TLS13, &TLS12],
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let chain = CertificateDer::pem_file_iter(path.with_extension("crt")).unwrap();
                let key = PrivateKeyDer::from_pem_file(path.with_extension("key")).unwrap();
                let chain = chain.map(Result::unwrap).collect();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = self
            .alpn
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let stream = TcpStream::connect(server.as_ref()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| error.to_string())
    }

    pub async fn get(
        &self,
        server: &impl AsRef<str>,
        path: &str,
        user: &str,
    ) -> Result<Answer, String> {
        let mut stream = self.connect(server).await?;
        let authorization = match user {
            "" => String::new(),
            user => login(user),
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}Connection: close\r\n\r\n"
        );
        let words = |error: std::io::Error| error.to_string();
        stream.write_all(request.as_bytes()).await.map_err(words)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(words)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no whole answer")?;
        let (_, session) = stream.get_ref();
        Ok(Answer {
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
            suite: session.negotiated_cipher_suite().map(|suite| suite.suite()),
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
            certificate: session.peer_certificates().unwrap()[0].to_vec(),
        })
    }

    /// Returns the status of the response, or the TLS error.
    pub async fn status(&self, server: &impl AsRef<str>, path: &str, user: &str) -> String {
        match self.get(server, path, user).await {
            Ok(answer) => answer.head[9..12].to_owned(),
            Err(error) => error,
        }
    }
}

/// Returns the header line of a user, written as `NAME:PASSWORD`.
pub fn login(user: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(user))
}
