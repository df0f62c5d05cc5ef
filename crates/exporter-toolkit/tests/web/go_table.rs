//! The clients in the test table of the Go library, with their results. Its bad files are in `config-files`.

use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose;
use rustls::{CipherSuite, NamedGroup};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    pki::{Client, Pki},
    server::{TestServer, serve},
};

/// `tls_server_config` with the server's certificate and these keys.
fn tls(more: &str) -> String {
    format!("tls_server_config: {{cert_file: server.crt, key_file: server.key{more}}}")
}

/// A client and its result: the status, or the TLS alert.
struct Case<'a> {
    what: &'a str,
    text: String,
    client: Client,
    expected: &'a str,
}

#[tokio::test]
async fn clients_are_accepted_and_refused_as_in_go() {
    use CipherSuite as Suite;
    const FIRST: Suite = Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    const SECOND: Suite = Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;
    const OTHER: Suite = Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
    let pki = Pki::new();
    pki.issue(
        "client",
        &["one", "test3"],
        ExtendedKeyUsagePurpose::ClientAuth,
    );
    pki.self_signed("itself");
    let inline = |name: &str| {
        let pem = std::fs::read_to_string(pki.path(name)).expect("it is there");
        pem.replace('\n', "\n    ")
    };
    let tls12 = |suites: &[Suite]| Client {
        newest: Some(12),
        suites: suites.to_vec(),
        ..pki.client()
    };
    let curve = |group| Client {
        curves: vec![group],
        ..pki.client()
    };
    let given = ", client_auth_type: VerifyClientCertIfGiven";
    let two = format!(
        "{given}, min_version: TLS12, max_version: TLS12, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]"
    );
    let all = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, \
        TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, \
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, \
        TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256";
    let sans = |sans: &str| {
        tls(&format!(
            ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt, client_allowed_sans: [{sans}]"
        ))
    };
    let cases = [
        Case {
            what: "TLS",
            text: tls(given),
            client: pki.client(),
            expected: "200",
        },
        Case {
            what: "certificate and key inline",
            text: format!(
                "tls_server_config:\n  cert: |\n    {}\n  key: |\n    {}\n",
                inline("server.crt"),
                inline("server.key")
            ),
            client: pki.client(),
            expected: "200",
        },
        Case {
            what: "all ciphers",
            text: tls(&format!("{given}, cipher_suites: [{all}]")),
            client: pki.client(),
            expected: "200",
        },
        Case {
            what: "a listed cipher",
            text: tls(&two),
            client: tls12(&[FIRST]),
            expected: "200",
        },
        Case {
            what: "no common cipher",
            text: tls(&two),
            client: tls12(&[OTHER]),
            expected: "HandshakeFailure",
        },
        Case {
            what: "both ciphers",
            text: tls(&two),
            client: tls12(&[FIRST, SECOND]),
            expected: "200",
        },
        Case {
            what: "all curves",
            text: tls(", curve_preferences: [CurveP256, CurveP384, X25519]"),
            client: curve(NamedGroup::X25519),
            expected: "200",
        },
        Case {
            what: "the curve",
            text: tls(", min_version: TLS13, curve_preferences: [CurveP384]"),
            client: curve(NamedGroup::secp384r1),
            expected: "200",
        },
        Case {
            what: "no common curve",
            text: tls(", min_version: TLS13, curve_preferences: [CurveP384]"),
            client: curve(NamedGroup::secp256r1),
            expected: "HandshakeFailure",
        },
        Case {
            what: "no cipher of HTTP/2, and no HTTP/2",
            text: format!(
                "{}\nhttp_server_config: {{http2: false}}",
                tls(
                    ", max_version: TLS12, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]"
                )
            ),
            client: pki.client(),
            expected: "200",
        },
        Case {
            what: "any certificate",
            text: tls(", client_auth_type: RequireAnyClientCert"),
            client: pki.client().with(pki.path("itself")),
            expected: "200",
        },
        Case {
            what: "a certificate that is its own CA",
            text: tls(", client_auth_type: RequireAndVerifyClientCert, client_ca_file: itself.crt"),
            client: pki.client().with(pki.path("itself")),
            expected: "200",
        },
        Case {
            what: "an allowed name",
            text: sans("two, test3"),
            client: pki.client().with(pki.path("client")),
            expected: "200",
        },
        Case {
            what: "no allowed name",
            text: sans("bad"),
            client: pki.client().with(pki.path("client")),
            expected: "BadCertificate",
        },
        Case {
            what: "a policy without a CA",
            text: tls(", client_auth_type: RequireAndVerifyClientCert"),
            client: pki.client(),
            expected: "CertificateRequired",
        },
    ];
    for Case {
        what,
        text,
        client,
        expected,
    } in cases
    {
        let server = serve(&pki, &text);
        let status = client.status(&server, "/metrics", "").await;
        assert!(status.contains(expected), "{what}: {status}");
    }
}

/// Returns the response to `bytes`, until the server closes the connection.
async fn answer(server: &TestServer, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.as_ref())
        .await
        .expect("it listens");
    stream.write_all(bytes).await.expect("it takes bytes");
    let mut answer = Vec::new();
    let whole = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    whole.expect("it closes").expect("a whole answer");
    answer
}

/// A ClientHello that offers TLS 1.1 at most.
fn hello_of_tls11() -> Vec<u8> {
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    // No session; TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA; no compression; no extensions.
    body.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let length = u8::try_from(body.len()).expect("it is short");
    let mut hello = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length];
    hello.extend(body);
    hello
}

#[tokio::test]
async fn clients_of_another_protocol_get_an_answer() {
    const FATAL_ALERT: [u8; 6] = [21, 3, 3, 0, 2, 2];
    let pki = Pki::new();
    let server = serve(&pki, &tls(""));
    let alert = answer(&server, &hello_of_tls11()).await;
    assert!(alert.starts_with(&FATAL_ALERT), "{alert:?}");

    // TLS where there is none: Go's client looks for these five bytes.
    let plain = serve(&pki, "");
    let told = answer(&plain, &hello_of_tls11()).await;
    assert!(told.starts_with(b"HTTP/"), "{told:?}");
}
