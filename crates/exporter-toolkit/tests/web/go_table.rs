//! The clients in the test table of the Go library, with their results. Its bad files are in `config-files`.

use std::{fs, time::Duration};

use rcgen::ExtendedKeyUsagePurpose;
use rustls::{CipherSuite, NamedGroup};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    pki::Pki,
    server::{TestServer, serve},
};

/// A client, as it differs from one that offers everything and has no certificate.
enum Offer {
    Everything,
    /// TLS 1.2 with these cipher suites.
    Suites(&'static [CipherSuite]),
    Curve(NamedGroup),
    Certificate(&'static str),
}

const AES_128: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
const AES_256: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;
const CHACHA: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;

const ALL_SUITES: &str = ", cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, \
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, \
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, \
    TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256]";
const TWO_SUITES: &str = ", max_version: TLS12, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, \
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]";
const ALL_CURVES: &str = ", curve_preferences: [CurveP256, CurveP384, X25519]";
const P384: &str = ", min_version: TLS13, curve_preferences: [CurveP384]";
const ANY_CERTIFICATE: &str = ", client_auth_type: RequireAnyClientCert";
const OWN_CA: &str = ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: own-ca.crt";
const TWO_NAMES: &str = ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt, client_allowed_sans: [two, test3]";
const BAD_NAME: &str = ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt, client_allowed_sans: [bad]";

/// The case, the keys of `tls_server_config` besides the server's certificate, the client, and the status or the TLS alert.
#[rustfmt::skip]
const CASES: [(&str, &str, Offer, &str); 13] = [
    ("TLS", ", client_auth_type: VerifyClientCertIfGiven", Offer::Everything, "200"),
    ("all ciphers", ALL_SUITES, Offer::Everything, "200"),
    ("a listed cipher", TWO_SUITES, Offer::Suites(&[AES_128]), "200"),
    ("both ciphers", TWO_SUITES, Offer::Suites(&[AES_128, AES_256]), "200"),
    ("no common cipher", TWO_SUITES, Offer::Suites(&[CHACHA]), "HandshakeFailure"),
    ("all curves", ALL_CURVES, Offer::Curve(NamedGroup::X25519), "200"),
    ("the curve", P384, Offer::Curve(NamedGroup::secp384r1), "200"),
    ("no common curve", P384, Offer::Curve(NamedGroup::secp256r1), "HandshakeFailure"),
    ("any certificate", ANY_CERTIFICATE, Offer::Certificate("own-ca"), "200"),
    ("a certificate that is its own CA", OWN_CA, Offer::Certificate("own-ca"), "200"),
    ("an allowed name", TWO_NAMES, Offer::Certificate("client"), "200"),
    ("no allowed name", BAD_NAME, Offer::Certificate("client"), "BadCertificate"),
    ("a policy without a CA", ", client_auth_type: RequireAndVerifyClientCert", Offer::Everything, "CertificateRequired"),
];

#[tokio::test]
async fn clients_are_accepted_and_refused_as_in_go() {
    let pki = Pki::new();
    let purpose = ExtendedKeyUsagePurpose::ClientAuth;
    pki.issue("client", &["one", "test3"], purpose);
    pki.self_signed("own-ca");
    for (case, tls, offer, expected) in CASES {
        let mut client = pki.client();
        match offer {
            Offer::Everything => {}
            Offer::Suites(suites) => {
                client.newest = Some(12);
                client.suites = suites.to_vec();
            }
            Offer::Curve(curve) => client.curves = vec![curve],
            Offer::Certificate(name) => client = client.with(pki.path(name)),
        }
        let server = pki.serve(tls, "");
        let status = client.status(&server, "/metrics", "").await;
        assert!(status.contains(expected), "{case}: {status}");
    }
}

#[tokio::test]
async fn the_certificate_may_be_inline_and_without_http2_no_cipher_is_required() {
    let pki = Pki::new();
    let inline = |name: &str| {
        let pem = fs::read_to_string(pki.path(name)).unwrap();
        pem.replace('\n', "\n    ")
    };
    let (certificate, key) = (inline("server.crt"), inline("server.key"));
    let inline = format!(
        "tls_server_config:\n  cert: |\n    {certificate}\n  key: |\n    {key}\n  max_version: TLS12\n  \
         cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\nhttp_server_config: {{http2: false}}\n"
    );
    let server = serve(&pki, &inline);
    let status = pki.client().status(&server, "/metrics", "").await;
    assert_eq!(status, "200");
}

/// Returns the response to `bytes`, until the server closes the connection.
async fn response(server: &TestServer, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.as_ref()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut response = Vec::new();
    let reading = stream.read_to_end(&mut response);
    timeout(Duration::from_secs(5), reading)
        .await
        .unwrap()
        .unwrap();
    response
}

/// A ClientHello that offers TLS 1.1 at most.
fn hello_of_tls11() -> Vec<u8> {
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    // No session; TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA; no compression; no extensions.
    body.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let length = u8::try_from(body.len()).unwrap();
    let mut hello = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length];
    hello.extend(body);
    hello
}

#[tokio::test]
async fn clients_of_another_protocol_get_a_response() {
    const FATAL_ALERT: [u8; 6] = [21, 3, 3, 0, 2, 2];
    let pki = Pki::new();
    let server = pki.serve("", "");
    let alert = response(&server, &hello_of_tls11()).await;
    assert!(alert.starts_with(&FATAL_ALERT), "{alert:?}");

    // A TLS client of a server without TLS: Go's client recognises the mistake by these five bytes.
    let plain = serve(&pki, "");
    let text = response(&plain, &hello_of_tls11()).await;
    assert!(text.starts_with(b"HTTP/"), "{text:?}");
}
