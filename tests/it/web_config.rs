//! `--web.config.file` on the real binary: what the exporter-toolkit's users know of it, with real TLS clients and
//! certificates made here, and a real Prometheus.

use std::{
    fs,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use crate::{
    exporter::{Exporter, Scrape, command, run},
    tls::{Client, Pki},
    tools::Scraper,
};

/// A user's entry, up to the hash.
const DAVE: &str = "dave: ";

/// Most tests are not about time, and take the least cost.
fn hash(password: &str, cost: u32) -> String {
    bcrypt::hash(password, cost).expect("bcrypt takes it")
}

#[test]
fn a_bad_file_ends_check_and_serve_with_2_before_a_port_is_bound() {
    let bad = "crates/exporter-toolkit/tests/config-files/bad-users.yml";
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
async fn tls_is_served_in_the_versions_and_protocols_asked_for() {
    let pki = Pki::new();
    let exporter = pki.serve("", "");
    let client = pki.client();
    let tls12 = Client {
        newest: Some(12),
        ..pki.client()
    };
    assert_eq!(client.status(&exporter, "/metrics", "").await, "200");
    assert_eq!(tls12.status(&exporter, "/metrics", "").await, "200");

    // HTTP/2 where the client asks for it, with the limits of HTTP/1.
    let url = exporter
        .url
        .replace("http://127.0.0.1", "https://localhost");
    let curl = |url: String, header: &str| {
        let output = std::process::Command::new("curl")
            .args(["--silent", "--http2", "--noproxy", "*", "--output", "-"])
            .args(["--write-out", "version %{http_version} status %{http_code}"])
            .arg("--cacert")
            .arg(pki.path("ca.crt"))
            .args(["--header", header, &url])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let answer = curl(format!("{url}/metrics"), "X-Small: x");
    assert!(answer.ends_with("version 2 status 200"), "{answer}");
    assert!(answer.contains("lightfi_up 1"));
    let answer = curl(format!("{url}/metrics?{}", "x".repeat(9000)), "X-Small: x");
    assert!(answer.ends_with("status 414"), "{answer}");
    let large = format!("X-Large: {}", "x".repeat(70_000));
    let answer = curl(format!("{url}/metrics"), &large);
    assert!(answer.ends_with("status 431"), "{answer}");

    // Who does not know the CA does not come in, and hears nothing.
    pki.self_signed("stranger");
    let stranger = Client {
        roots: pki.path("stranger.crt"),
        ..Client::default()
    };
    let refused = stranger.status(&exporter, "/metrics", "").await;
    assert!(refused.contains("invalid peer certificate"), "{refused}");

    // Who speaks HTTP is told.
    let plain = exporter.get("/metrics").await;
    assert_eq!(plain.status(), 400);
    assert_eq!(
        plain.text().await.unwrap(),
        "Client sent an HTTP request to an HTTPS server.\n"
    );

    let exporter = pki.serve(", min_version: TLS13", "http_server_config: {http2: false}");
    let refused = tls12.status(&exporter, "/metrics", "").await;
    assert!(refused.contains("ProtocolVersion"), "{refused}");
    let both = Client {
        alpn: vec!["h2", "http/1.1"],
        ..pki.client()
    };
    let answer = both.get(&exporter, "/metrics", "").await.unwrap();
    assert_eq!(answer.alpn.as_deref(), Some(b"http/1.1".as_slice()));
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

/// Over plain HTTP, which the toolkit allows too.
fn serve_plain(text: &str) -> (Exporter, TempDir) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("web.yml");
    fs::write(&file, text).unwrap();
    let flag = format!("--web.config.file={}", file.display());
    (Exporter::demo(&["--sensors=2", &flag]), directory)
}

async fn ask(exporter: &Exporter, path: &str, login: Option<(&str, &str)>) -> reqwest::Response {
    let client = crate::tools::client().no_proxy().build().unwrap();
    let mut request = client.get(format!("{}{path}", exporter.url));
    if let Some((user, password)) = login {
        request = request.basic_auth(user, Some(password));
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn users_come_in_with_their_password_and_probes_without() {
    let (dave, carol) = (hash("secret", 4), hash("a:b ü", 4));
    let (exporter, _directory) = serve_plain(&format!(
        "basic_auth_users: {{{DAVE}{dave}, carol: {}}}\nhttp_server_config: {{headers: {{X-XSS-Protection: 1}}}}",
        carol.replace("$2b$", "$2y$")
    ));
    for _ in 0..2 {
        // The second time from memory, with the same result.
        for (login, status) in [
            (None, 401),
            (Some(("dave", "secret")), 200),
            (Some(("carol", "a:b ü")), 200),
            (Some(("dave", "a:b ü")), 401),
            (Some(("dave", "")), 401),
            (Some(("", "")), 401),
            (Some(("Dave", "secret")), 401),
            (Some(("nobody", "secret")), 401),
            // What joining the parts plainly would confuse.
            (Some(("dav", "esecret")), 401),
        ] {
            for path in ["/metrics", "/", "/config", "/absent"] {
                let answer = ask(&exporter, path, login).await;
                let expected = if path == "/absent" && status == 200 {
                    404
                } else {
                    status
                };
                assert_eq!(answer.status(), expected, "{login:?} {path}");
                assert_eq!(answer.headers()["x-xss-protection"], "1");
                if status == 401 {
                    assert_eq!(answer.headers()["www-authenticate"], "Basic");
                    assert_eq!(answer.text().await.unwrap(), "Unauthorized\n");
                }
            }
        }
    }
    for path in ["/-/healthy", "/healthz", "/-/ready", "/readyz"] {
        assert_eq!(ask(&exporter, path, None).await.status(), 200, "{path}");
    }
    for hidden in [
        "/-/healthy/",
        "//metrics",
        "/healthz/../metrics",
        "/%2d/healthy",
    ] {
        let answer = ask(&exporter, hidden, None).await;
        assert_eq!(answer.status(), 401, "{hidden}");
    }
    assert!(!exporter.output().contains("secret"));
}

#[tokio::test]
async fn an_unknown_user_costs_what_a_known_one_does_and_delays_no_scrape() {
    let (exporter, _directory) = serve_plain(&format!(
        "basic_auth_users: {{{DAVE}{}}}",
        hash("secret", 10)
    ));
    assert_eq!(
        ask(&exporter, "/metrics", Some(("dave", "secret")))
            .await
            .status(),
        200
    );
    // The quickest of several, in turns, so that what else the machine does falls on both alike.
    let (mut known, mut unknown) = (Duration::MAX, Duration::MAX);
    for attempt in 0..8 {
        for (user, quickest) in [("dave", &mut known), ("nobody", &mut unknown)] {
            let start = Instant::now();
            let password = format!("wrong {attempt}");
            let answer = ask(&exporter, "/metrics", Some((user, &password))).await;
            assert_eq!(answer.status(), 401);
            *quickest = start.elapsed().min(*quickest);
        }
    }
    assert!(
        unknown > known / 2 && known > unknown / 2,
        "known {known:?}, unknown {unknown:?}"
    );

    // A crowd of guessers holds up neither who is known nor the probes.
    let crowd: Vec<String> = (0..30).map(|guess| format!("guess {guess}")).collect();
    let start = Instant::now();
    let guessing = async {
        let guesses = crowd
            .iter()
            .map(|guess| ask(&exporter, "/metrics", Some(("dave", guess))));
        let guesses = futures_util::future::join_all(guesses).await;
        (guesses, start.elapsed())
    };
    let scraping = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(
            ask(&exporter, "/metrics", Some(("dave", "secret")))
                .await
                .status(),
            200
        );
        assert_eq!(ask(&exporter, "/readyz", None).await.status(), 200);
        start.elapsed()
    };
    let ((guesses, all), took) = tokio::join!(guessing, scraping);
    // On a busy machine the last of them are told to come again.
    let turned_away = [401, 503];
    assert!(
        guesses
            .iter()
            .all(|answer| turned_away.contains(&answer.status().as_u16()))
    );
    assert!(took < all / 2, "{took:?} beside guesses that took {all:?}");
}

#[tokio::test]
async fn the_rate_limit_comes_before_users_and_leaves_probes_alone() {
    let (exporter, _directory) = serve_plain(&format!(
        "rate_limit: {{interval: 1h, burst: 3}}\nbasic_auth_users: {{{DAVE}{}}}\n\
         http_server_config: {{headers: {{X-Frame-Options: deny}}}}",
        hash("secret", 4)
    ));
    for _ in 0..10 {
        // Ready or not yet.
        let status = ask(&exporter, "/readyz", None).await.status();
        assert!(matches!(status.as_u16(), 200 | 503), "{status}");
    }
    for _ in 0..3 {
        assert_eq!(ask(&exporter, "/metrics", None).await.status(), 401);
    }
    let refused = ask(&exporter, "/metrics", Some(("dave", "secret"))).await;
    assert_eq!(refused.status(), 429);
    assert!(!refused.headers().contains_key("x-frame-options"));
    assert_eq!(refused.text().await.unwrap(), "Too Many Requests\n");
    assert_eq!(ask(&exporter, "/-/healthy", None).await.status(), 200);
}

#[tokio::test]
async fn headers_are_on_every_answer_and_the_status_page_keeps_its_own() {
    let (exporter, _directory) = serve_plain(
        "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    X-Content-Type-Options: nosniff\n    \
         X-XSS-Protection: 1\n    Strict-Transport-Security: max-age=31536000; includeSubDomains\n    \
         Content-Security-Policy: default-src 'self' *.example.net\n",
    );
    for path in ["/metrics", "/healthz", "/absent"] {
        let answer = ask(&exporter, path, None).await;
        for (name, value) in [
            ("x-frame-options", "deny"),
            ("x-content-type-options", "nosniff"),
            ("x-xss-protection", "1"),
            (
                "strict-transport-security",
                "max-age=31536000; includeSubDomains",
            ),
            (
                "content-security-policy",
                "default-src 'self' *.example.net",
            ),
        ] {
            let values: Vec<_> = answer.headers().get_all(name).iter().collect();
            assert_eq!(values, [value], "{path} {name}");
        }
    }
    let page = ask(&exporter, "/", None).await;
    let policies: Vec<_> = page
        .headers()
        .get_all("content-security-policy")
        .iter()
        .collect();
    assert_eq!(policies.len(), 1);
    assert!(!policies[0].to_str().unwrap().contains("example.net"));
}

/// Kubernetes' way to change a volume: the files behind a link, which is renamed over.
struct Volume {
    pki: Pki,
    generation: u32,
}

impl Volume {
    fn new() -> Self {
        let pki = Pki::new();
        Self { pki, generation: 0 }
    }

    /// `web.yml`, certificate and key at once.
    fn swap(&mut self, text: &str) {
        self.generation += 1;
        let pki = &self.pki;
        pki.issue(
            "server",
            &["localhost"],
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        let data = format!("..{}", self.generation);
        fs::create_dir(pki.path(&data)).unwrap();
        for file in ["server.crt", "server.key"] {
            fs::copy(pki.path(file), pki.path(&data).join(file)).unwrap();
        }
        fs::write(pki.path(&data).join("web.yml"), text).unwrap();
        symlink(&data, pki.path("..new")).unwrap();
        fs::rename(pki.path("..new"), pki.path("..data")).unwrap();
    }
}

async fn until(words: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "not within 5 s: {words}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn changes_are_taken_up_and_bad_ones_leave_the_last_good_in_use() {
    const SUCCESSFUL: &str = "lightfi_exporter_web_config_last_reload_successful";
    let users = |users: &str| {
        format!(
            "tls_server_config: {{cert_file: server.crt, key_file: server.key}}\nbasic_auth_users: {{{users}}}\n"
        )
    };
    let (dave, carol) = (
        format!("{DAVE}{}", hash("secret", 4)),
        format!("carol: {}", hash("geheim", 4)),
    );
    let mut volume = Volume::new();
    volume.swap(&users(&dave));
    symlink("..data", volume.pki.path("mounted")).unwrap();
    let file = volume.pki.path("mounted").join("web.yml");
    let exporter = Exporter::demo(&[
        "--sensors=2",
        &format!("--web.config.file={}", file.display()),
    ]);
    let client = volume.pki.client();
    let scrape = async |user: &str| {
        let answer = client.get(&exporter, "/metrics", user).await.unwrap();
        Scrape::parse(answer.body.replace('\r', ""))
    };
    let first = client
        .get(&exporter, "/metrics", "dave:secret")
        .await
        .unwrap();
    assert!(first.head.starts_with("http/1.1 200"), "{}", first.head);
    let mut open = client.connect(&exporter).await.unwrap();

    // Certificate, key and users in one step.
    volume.swap(&users(&carol));
    until("carol comes in", async || {
        client.status(&exporter, "/metrics", "carol:geheim").await == "200"
    })
    .await;
    let second = client
        .get(&exporter, "/metrics", "dave:secret")
        .await
        .unwrap();
    assert!(second.head.starts_with("http/1.1 401"), "dave is gone");
    assert!(second.certificate != first.certificate);
    let ended = tokio::time::timeout(Duration::from_secs(5), open.read(&mut [0; 1])).await;
    assert!(
        matches!(ended, Ok(Ok(0) | Err(_))),
        "a connection of the old certificate ends"
    );
    assert_eq!(scrape("carol:geheim").await.value(SUCCESSFUL), Some(1.0));

    // Bad: told once, the last good stays.
    volume.swap("basic_auth_users: {dave: HUNTER2}");
    until("the metric tells", async || {
        scrape("carol:geheim").await.value(SUCCESSFUL) == Some(0.0)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let told = exporter
        .output()
        .matches("web configuration reload failed")
        .count();
    assert_eq!(told, 1, "{}", exporter.output());
    assert!(!exporter.output().contains("HUNTER2"));

    // Good again; what takes a restart is told and stays.
    volume.swap(&format!(
        "{}http_server_config: {{http2: false}}\nrate_limit: {{interval: 1h, burst: 1}}\n",
        users(&carol)
    ));
    until("the metric tells", async || {
        scrape("carol:geheim").await.value(SUCCESSFUL) == Some(1.0)
    })
    .await;
    for key in ["http_server_config.http2", "rate_limit"] {
        let words = format!("{key} has changed: it takes effect after a restart");
        exporter.says(&words).await;
    }

    // A key that is not the certificate's, in place; then the file removed.
    let key = file.with_file_name("server.key");
    let good = fs::read(&key).unwrap();
    fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    until("a wrong key is told", async || {
        exporter
            .output()
            .contains("private key does not match public key")
    })
    .await;
    fs::write(&key, good).unwrap();
    until("the metric tells", async || {
        scrape("carol:geheim").await.value(SUCCESSFUL) == Some(1.0)
    })
    .await;
    fs::remove_file(volume.pki.path("..data")).unwrap();
    until("a removed file is told", async || {
        scrape("carol:geheim").await.value(SUCCESSFUL) == Some(0.0)
    })
    .await;
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
        &format!("basic_auth_users: {{{DAVE}{}}}", hash("secret", 10)),
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
    let prometheus = Scraper::prometheus_with(&target, "1s", &more).await;
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
