//! The test table of the Go library: the error of each bad file, and the result of each client. Where rustls cannot do what Go
//! does, the error names it.

use std::time::Duration;

use exporter_toolkit::WebConfig;
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

const NO_FILE: &str = "no such file";
const NO_CERT: &str = "missing one of cert or cert_file";
const NO_KEY: &str = "missing one of key or key_file";
const NO_POLICY: &str = "client CA's have been configured without a Client Auth Policy";
const BAD_VALUE: &str = "invalid value for";

/// `tls_server_config` with the server's certificate and these keys.
fn tls(more: &str) -> String {
    format!("tls_server_config: {{cert_file: server.crt, key_file: server.key{more}}}")
}

#[test]
fn bad_files_are_refused_in_the_words_of_go() {
    let pki = Pki::new();
    let section = |keys: &str| format!("tls_server_config: {{{keys}}}");
    let header = |header: &str| format!("http_server_config: {{headers: {{{header}}}}}");
    for (what, text, words) in [
        ("no structure", "nonsense".to_owned(), "yaml"),
        ("an unknown key", "tls_serve_config: {}".to_owned(), "yaml"),
        (
            "cert_file empty",
            section("cert_file: '', key_file: server.key"),
            NO_CERT,
        ),
        (
            "cert empty",
            section("cert: '', key_file: server.key"),
            NO_CERT,
        ),
        (
            "key_file empty",
            section("cert_file: server.crt, key_file: ''"),
            NO_KEY,
        ),
        (
            "key empty",
            section("cert_file: server.crt, key: ''"),
            NO_KEY,
        ),
        (
            "both empty",
            section("cert_file: '', key_file: '', client_auth_type: RequireAnyClientCert"),
            NO_CERT,
        ),
        (
            "cert_file absent",
            section("cert_file: absent, key_file: server.key"),
            NO_FILE,
        ),
        (
            "key_file absent",
            section("cert_file: server.crt, key_file: absent"),
            NO_FILE,
        ),
        (
            "both absent",
            section("cert_file: absent, key_file: absent"),
            NO_FILE,
        ),
        (
            "a CA without a policy",
            tls(", client_ca_file: /dev/null"),
            NO_POLICY,
        ),
        (
            "a CA without a policy, inline",
            tls(", client_ca: x"),
            NO_POLICY,
        ),
        (
            "an absent CA without a policy",
            tls(", client_ca_file: absent"),
            NO_FILE,
        ),
        (
            "an absent CA",
            tls(", client_auth_type: RequireAndVerifyClientCert, client_ca_file: absent"),
            NO_FILE,
        ),
        (
            "a policy that is none",
            tls(", client_auth_type: Sometimes"),
            "invalid ClientAuth",
        ),
        (
            "names without a policy",
            tls(", client_allowed_sans: [a]"),
            "client_allowed_sans requires client_auth_type",
        ),
        (
            "a password in clear",
            format!("{}\nbasic_auth_users: {{john: HUNTER2}}", tls("")),
            "hashedSecret too short to be a bcrypted password",
        ),
        (
            "an invented cipher",
            tls(", cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA2048]"),
            "unknown cipher",
        ),
        (
            "an invented curve",
            tls(", curve_preferences: [CurveP257]"),
            "unknown curve",
        ),
        (
            "an invented version",
            tls(", min_version: TLS111"),
            "unknown TLS version",
        ),
        (
            "versions crossed",
            tls(", min_version: TLS13, max_version: TLS12"),
            "no supported versions satisfy MinVersion and MaxVersion",
        ),
        (
            "no cipher of HTTP/2",
            tls(", max_version: TLS12, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]"),
            "TLSConfig.CipherSuites is missing an HTTP/2-required",
        ),
        (
            "no cipher of HTTP/2, none of rustls",
            tls(", max_version: TLS12, cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]"),
            "TLSConfig.CipherSuites is missing an HTTP/2-required",
        ),
        (
            "X-Content-Type-Options",
            header("X-Content-Type-Options: sniff"),
            BAD_VALUE,
        ),
        (
            "X-Frame-Options",
            header("X-Frame-Options: maybe"),
            BAD_VALUE,
        ),
        (
            "another header",
            header("Content-Type: text/html"),
            "HTTP header \"Content-Type\" can not be configured",
        ),
        // Good in Go, not done by rustls.
        (
            "a cipher with CBC",
            tls(
                ", cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]",
            ),
            "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA is not supported",
        ),
        (
            "a cipher without forward secrecy",
            tls(
                ", cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_RSA_WITH_AES_256_GCM_SHA384]",
            ),
            "TLS_RSA_WITH_AES_256_GCM_SHA384 is not supported",
        ),
        (
            "P-521",
            tls(", min_version: TLS13, curve_preferences: [CurveP521]"),
            "CurveP521 is not supported",
        ),
        (
            "an old version",
            tls(", min_version: TLS10"),
            "TLS10 is not supported",
        ),
    ] {
        let file = pki.write("web.yml", &text);
        let error = match WebConfig::load(Some(&file)) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(words), "{what}: {error}");
        assert!(!error.contains("HUNTER2"), "{what}: {error}");
    }
    let absent = WebConfig::load(Some(&pki.path("absent.yml")));
    assert!(absent.unwrap_err().to_string().contains(NO_FILE));
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
