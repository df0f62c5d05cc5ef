//! TLS with real clients: versions, cipher suites, curves and client certificates.

use std::fs;

use axum::{body::Body, http::Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::CipherSuite;

use crate::pki::{Client, Pki};

#[tokio::test]
async fn tls_has_the_versions_and_protocols_that_are_configured() {
    let pki = Pki::new();
    let server = pki.serve("", "");
    let client = pki.client();
    let tls12 = Client {
        newest: Some(12),
        ..pki.client()
    };
    assert_eq!(client.status(&server, "/metrics", "").await, "200");
    assert_eq!(tls12.status(&server, "/metrics", "").await, "200");
    pki.self_signed("stranger");
    let stranger = Client {
        roots: pki.path("stranger.crt"),
        ..Client::default()
    };
    let refused = stranger.status(&server, "/metrics", "").await;
    assert!(refused.contains("invalid peer certificate"), "{refused}");
    let plain = server.get("/metrics", "").await;
    assert!(plain.starts_with("HTTP/1.0 400"), "{plain}");
    assert!(plain.ends_with("Client sent an HTTP request to an HTTPS server.\n"));

    let server = pki.serve(", min_version: TLS13", "http_server_config: {http2: false}");
    let refused = tls12.status(&server, "/metrics", "").await;
    assert!(refused.contains("ProtocolVersion"), "{refused}");
    let both = Client {
        alpn: vec!["h2", "http/1.1"],
        ..pki.client()
    };
    let answer = both.get(&server, "/metrics", "").await.unwrap();
    assert_eq!(answer.alpn.as_deref(), Some(b"http/1.1".as_slice()));
}

#[tokio::test]
async fn clients_that_ask_for_http2_get_it() {
    let pki = Pki::new();
    let server = pki.serve("", "");
    let client = Client {
        alpn: vec!["h2"],
        ..pki.client()
    };
    let stream = client.connect(&server).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let long = format!("/metrics?{}", "x".repeat(9000));
    for (path, status) in [("/metrics", 200), (&long, 414), ("/absent", 404)] {
        let request = Request::get(format!("https://localhost{path}"));
        let request = request.body(Body::empty()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status);
    }
}

#[tokio::test]
async fn the_order_of_cipher_suites_is_that_of_the_server_unless_configured() {
    const A: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    const B: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;
    let pki = Pki::new();
    let client = |suites: &[CipherSuite]| Client {
        newest: Some(12),
        suites: suites.to_vec(),
        ..pki.client()
    };
    let listed = ", max_version: TLS12, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, \
         TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]";
    let server_orders = pki.serve(listed, "");
    let answer = client(&[A, B])
        .get(&server_orders, "/healthz", "")
        .await
        .unwrap();
    assert_eq!(answer.suite, Some(B));

    let client_orders = pki.serve(&format!("{listed}, prefer_server_cipher_suites: false"), "");
    let answer = client(&[A, B])
        .get(&client_orders, "/healthz", "")
        .await
        .unwrap();
    assert_eq!(answer.suite, Some(A));
}

#[tokio::test]
async fn each_client_auth_type_accepts_the_certificates_that_go_accepts() {
    let pki = Pki::new();
    pki.issue("client", &["client"], ExtendedKeyUsagePurpose::ClientAuth);
    pki.issue(
        "wrong-purpose",
        &["client"],
        ExtendedKeyUsagePurpose::ServerAuth,
    );
    pki.self_signed("listed");
    pki.self_signed("stranger");
    let both =
        [pki.path("ca.crt"), pki.path("listed.crt")].map(|path| fs::read_to_string(path).unwrap());
    pki.write("clients.crt", &both.concat());
    let who = ["", "client", "listed", "stranger", "wrong-purpose"];
    let ok = "200";
    let (required, unknown, purpose) =
        ("CertificateRequired", "UnknownCA", "UnsupportedCertificate");
    for (policy, expected) in [
        ("NoClientCert", [ok, ok, ok, ok, ok]),
        ("RequestClientCert", [ok, ok, ok, ok, ok]),
        ("RequireAnyClientCert", [required, ok, ok, ok, ok]),
        ("RequireClientCert", [required, ok, ok, ok, ok]),
        ("VerifyClientCertIfGiven", [ok, ok, ok, unknown, purpose]),
        (
            "RequireAndVerifyClientCert",
            [required, ok, ok, unknown, purpose],
        ),
    ] {
        let authorities = if policy == "NoClientCert" {
            ""
        } else {
            ", client_ca_file: clients.crt"
        };
        let exporter = pki.serve(&format!(", client_auth_type: {policy}{authorities}"), "");
        for (who, expected) in who.iter().zip(expected) {
            let client = match *who {
                "" => pki.client(),
                who => pki.client().with(pki.path(who)),
            };
            let status = client.status(&exporter, "/healthz", "").await;
            assert!(status.contains(expected), "{policy}, {who:?}: {status}");
        }
    }
}

#[tokio::test]
async fn client_certificates_that_are_expired_not_yet_valid_or_for_servers_are_refused() {
    type Params = CertificateParams;
    let purpose = |params: &mut Params, purpose| params.extended_key_usages = vec![purpose];
    let expired = |params: &mut Params| params.not_after = date_time_ymd(2021, 1, 1);
    let early = |params: &mut Params| params.not_before = date_time_ymd(3000, 1, 1);
    let server = |params: &mut Params| purpose(params, ExtendedKeyUsagePurpose::ServerAuth);
    let client = |params: &mut Params| purpose(params, ExtendedKeyUsagePurpose::ClientAuth);
    let any = |params: &mut Params| purpose(params, ExtendedKeyUsagePurpose::Any);
    let pki = Pki::new();
    let mut clients = fs::read_to_string(pki.path("ca.crt")).unwrap();
    let mut cases = Vec::new();
    for (name, more, expected) in [
        ("expired", &expired as &dyn Fn(&mut Params), "Expired"),
        ("early", &early, "Expired"),
        ("server", &server, "UnsupportedCertificate"),
        ("client", &client, "200"),
    ] {
        let name = format!("issued-{name}");
        pki.issue_with(&name, more);
        cases.push((name, expected));
    }
    for (name, more, expected) in [
        ("expired", &expired as &dyn Fn(&mut Params), "Expired"),
        ("early", &early, "Expired"),
        ("server", &server, "UnsupportedCertificate"),
        ("client", &client, "200"),
        ("any", &any, "200"),
    ] {
        let name = format!("listed-{name}");
        pki.self_signed_with(&name, more);
        clients += &fs::read_to_string(pki.path(&format!("{name}.crt"))).unwrap();
        cases.push((name, expected));
    }
    pki.write("clients.crt", &clients);
    let policy = "client_auth_type: RequireAndVerifyClientCert, client_ca_file: clients.crt";
    let exporter = pki.serve(&format!(", {policy}"), "");
    for (name, expected) in cases {
        for newest in [12, 13] {
            let client = Client {
                newest: Some(newest),
                ..pki.client().with(pki.path(&name))
            };
            let status = client.status(&exporter, "/metrics", "").await;
            assert!(
                status.contains(expected),
                "{name}, TLS 1.{}: {status}",
                newest - 10
            );
        }
    }
}

#[tokio::test]
async fn an_allowed_name_of_any_kind_is_accepted() {
    let pki = Pki::new();
    let purpose = || ExtendedKeyUsagePurpose::ClientAuth;
    let names = [
        ("dns", "prometheus.example.org"),
        ("v4", "192.0.2.7"),
        ("v6", "2001:db8::7"),
        ("mail", "ops@example.org"),
        ("uri", "spiffe://example.org/prometheus"),
    ];
    for (file, name) in names {
        pki.issue(file, &["other.example.org", name], purpose());
    }
    pki.issue("other", &["other.example.org"], purpose());
    pki.issue("nameless", &[], purpose());
    let listed = names.map(|(_, name)| format!("\"{name}\"")).join(", ");
    let policy = "client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt";
    let exporter = pki.serve(&format!(", {policy}, client_allowed_sans: [{listed}]"), "");
    for (file, _) in names {
        let client = pki.client().with(pki.path(file));
        assert_eq!(
            client.status(&exporter, "/metrics", "").await,
            "200",
            "{file}"
        );
    }
    for file in ["other", "nameless"] {
        let client = pki.client().with(pki.path(file));
        let refused = client.status(&exporter, "/metrics", "").await;
        assert!(refused.contains("BadCertificate"), "{file}: {refused}");
    }
    let none_allowed = pki.serve(&format!(", {policy}, client_allowed_sans: []"), "");
    let client = pki.client().with(pki.path("dns"));
    let refused = client.status(&none_allowed, "/metrics", "").await;
    assert!(refused.contains("BadCertificate"), "{refused}");
}
