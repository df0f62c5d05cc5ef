//! `--web.config.file` of the exporter as a whole, with real TLS clients and a real Prometheus. What the library does with the
//! file is tested in `crates/exporter-toolkit`.

use std::{
    fs,
    time::{Duration, Instant},
};

use rcgen::ExtendedKeyUsagePurpose;
use tempfile::TempDir;

use crate::{
    exporter::{Exporter, command, run},
    scraper::Scraper,
    tls::{Pki, hash},
};

#[test]
fn a_bad_file_ends_check_and_serve_with_2_before_a_port_is_bound() {
    let bad = "crates/exporter-toolkit/tests/config-files/bad-user-password.yml";
    for arguments in [
        ["check", "--web.config.file", bad].as_slice(),
        &[
            "demo",
            "--web.listen-address=127.0.0.1:0",
            "--web.config.file",
            bad,
        ],
        &[
            "check",
            "--web.config.file=crates/exporter-toolkit/tests/config-files/absent.yml",
        ],
    ] {
        let output = run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(
            error.contains("user \"john\"") || error.contains("no such file"),
            "{error}"
        );
        assert!(
            !error.contains("HUNTER2") && !error.contains("listening"),
            "{error}"
        );
    }
    let good = run(&[
        "check",
        "--web.config.file=crates/exporter-toolkit/tests/config-files/good-headers.yml",
    ]);
    assert_eq!(good.status.code(), Some(0));
}

#[tokio::test]
async fn without_a_client_ca_the_systems_roots_count() {
    let pki = Pki::new();
    pki.issue("client", &["client"], ExtendedKeyUsagePurpose::ClientAuth);
    pki.self_signed("stranger");
    let policy = "client_auth_type: RequireAndVerifyClientCert";
    let text =
        format!("tls_server_config: {{cert_file: server.crt, key_file: server.key, {policy}}}");
    let file = pki.write("web.yml", &text);
    let mut command = command();
    command
        .args([
            "demo",
            "--web.listen-address=127.0.0.1:0",
            "--web.config.file",
        ])
        .arg(file)
        .env("SSL_CERT_FILE", pki.path("ca.crt"));
    let exporter = Exporter::spawn(command, TempDir::new().unwrap());
    let client = |name| pki.client().with(pki.path(name));
    assert_eq!(
        client("client").status(&exporter, "/metrics", "").await,
        "200"
    );
    let refused = client("stranger").status(&exporter, "/metrics", "").await;
    assert!(refused.contains("UnknownCA"), "{refused}");
}

#[tokio::test]
async fn the_exporter_uses_users_headers_and_changes_of_the_file() {
    const SUCCESSFUL: &str = "lightfi_exporter_web_config_last_reload_successful";
    const HEADERS: &str =
        "http_server_config: {headers: {Content-Security-Policy: default-src *.example.net}}";
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("web.yml");
    fs::write(&file, HEADERS).unwrap();
    let flag = format!("--web.config.file={}", file.display());
    let exporter = Exporter::demo(&["--sensors=2", &flag]);
    assert_eq!(exporter.scrape().await.value(SUCCESSFUL), Some(1.0));
    for (path, is_configured) in [("/metrics", true), ("/absent", true), ("/", false)] {
        let response = exporter.get(path).await;
        let policies = response.headers().get_all("content-security-policy");
        let policies: Vec<_> = policies.iter().map(|it| it.to_str().unwrap()).collect();
        assert_eq!(policies.len(), 1, "{path}");
        assert_eq!(policies[0].contains("example.net"), is_configured, "{path}");
    }

    fs::write(&file, "basic_auth_users: {dave: HUNTER2}").unwrap();
    exporter.says("web configuration reload failed").await;
    assert_eq!(exporter.scrape().await.value(SUCCESSFUL), Some(0.0));
    assert!(!exporter.output().contains("HUNTER2"));

    let dave = hash("secret", 4);
    fs::write(&file, format!("basic_auth_users: {{dave: {dave}}}")).unwrap();
    exporter.says("web configuration reloaded").await;
    for path in ["/metrics", "/", "/config", "/absent"] {
        assert_eq!(exporter.get(path).await.status(), 401, "{path}");
    }
    for path in ["/-/healthy", "/healthz", "/-/ready", "/readyz"] {
        assert_eq!(exporter.get(path).await.status(), 200, "{path}");
    }
    let client = crate::tools::client().no_proxy().build().unwrap();
    let request = client.get(format!("{}/metrics", exporter.url));
    let request = request.basic_auth("dave", Some("secret"));
    let metrics = request.send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(&format!("{SUCCESSFUL} 1")));
    assert!(!exporter.output().contains("secret"));
}

#[tokio::test]
async fn prometheus_scrapes_over_tls_with_a_certificate_and_a_user() {
    if !crate::tools::has(&["prometheus"]) {
        return;
    }
    let pki = Pki::new();
    pki.issue(
        "prometheus",
        &["prometheus.example.org"],
        ExtendedKeyUsagePurpose::ClientAuth,
    );
    let exporter = pki.serve(
        ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt, \
         client_allowed_sans: [prometheus.example.org]",
        &format!("basic_auth_users: {{dave: {}}}", hash("secret", 10)),
    );
    let of = |name: &str| pki.path(name).display().to_string();
    let more = format!(
        ", scheme: https, tls_config: {{ca_file: {}, cert_file: {}, key_file: {}}}, \
         basic_auth: {{username: dave, password: secret}}",
        of("ca.crt"),
        of("prometheus.crt"),
        of("prometheus.key")
    );
    let target = exporter.url.replace("http://127.0.0.1", "localhost");
    let prometheus = Scraper::prometheus_with(&target, "1s", &more, &[]).await;
    let start = Instant::now();
    while prometheus.value("up").await != Some(1.0) {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{}",
            prometheus.log()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(prometheus.value("lightfi_up").await, Some(1.0));
}
