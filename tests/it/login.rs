//! `login` end to end: the real binary, the simulated cloud's authorize endpoint, and an HTTP client instead of a browser.
//! The tests have several threads, because the cloud must answer while a test waits for the binary.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lightfi_simulator::Options;
use reqwest::{Client, Response, Url, header::LOCATION, redirect};
use tempfile::TempDir;

use crate::{
    cloud::Cloud,
    exporter::{Exporter, command},
};

/// Enough for a debug binary on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A simulated cloud, and a directory with a configuration for it that contains no refresh token.
struct Fixture {
    cloud: Cloud,
    directory: TempDir,
    port: u16,
}

/// A running `login`, whose output goes to files.
struct Login {
    child: Child,
    stdin: Option<ChildStdin>,
    output: TempDir,
}

/// The result of an ended `login`.
struct LoginResult {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let port = free_port();
        let uris = ["localhost", "127.0.0.1"].iter().flat_map(|host| {
            ["", "/", "/back/here"].map(|end| format!("http://{host}:{port}{end}"))
        });
        let cloud = Cloud::start(Options {
            sensors: 10,
            redirect_uris: uris.collect(),
            ..options
        })
        .await;
        Self {
            cloud,
            directory: TempDir::new().unwrap(),
            port,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn redirect(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// Writes the cloud's configuration, with the lines `oauth` instead of the refresh token.
    fn configure(&self, oauth: &str) {
        let text = self.cloud.config_without_token(&format!("{oauth}\n"), "");
        fs::write(self.path("config.yaml"), text).unwrap();
    }

    fn configure_store(&self) -> PathBuf {
        let store = self.path("token.json");
        self.configure(&format!("  token_store: {}", store.display()));
        store
    }

    fn secret(&self) -> String {
        self.cloud.value("client_secret")
    }

    fn refresh_token(&self) -> String {
        self.cloud.value("refresh_token")
    }

    fn spawn(&self, flags: &[&str]) -> Login {
        self.spawn_at(&self.redirect(), flags)
    }

    fn spawn_at(&self, redirect_uri: &str, flags: &[&str]) -> Login {
        let mut login = self.command();
        login
            .args(["--no-browser", "--redirect-uri"])
            .arg(redirect_uri)
            .args(flags);
        Login::spawn(login)
    }

    fn command(&self) -> Command {
        let mut login = command();
        login
            .arg("login")
            .arg("--config.file")
            .arg(self.path("config.yaml"))
            .arg("--log.level=trace")
            .current_dir(self.directory.path());
        login
    }

    /// Runs `login` with these flags, logs in, and checks that it succeeds without showing a secret.
    async fn log_in(&self, flags: &[&str]) -> LoginResult {
        let login = self.spawn(flags);
        let address = press("login", &login.url()).await;
        let page = open(&address).await;
        assert_eq!(page.status(), 200);
        let page = page.text().await.unwrap();
        assert!(page.starts_with("Logged in. "), "{page}");
        let result = login.result();
        assert_eq!(result.code, Some(0), "{}", result.stderr);
        let mut shown = page + &result.stderr;
        if !flags.contains(&"--print") {
            shown += &result.stdout;
        }
        let code = query(&address)["code"].clone();
        for secret in [self.refresh_token(), self.secret(), code] {
            assert!(!shown.contains(&secret), "{shown}");
        }
        result
    }

    fn edit_config(&self, from: &str, to: &str) {
        let file = self.path("config.yaml");
        let config = fs::read_to_string(&file).unwrap();
        fs::write(&file, config.replace(from, to)).unwrap();
    }

    fn assert_holds_bare_token(&self, file: &Path) {
        let text = fs::read_to_string(file).unwrap();
        assert_eq!(text, format!("{}\n", self.refresh_token()));
        assert_eq!(mode(file), 0o600);
    }
}

impl Login {
    fn spawn(mut command: Command) -> Self {
        let output = TempDir::new().unwrap();
        let stream = |name| File::create(output.path().join(name)).unwrap();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(stream("stdout"))
            .stderr(stream("stderr"))
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take(),
            child,
            output,
        }
    }

    fn output(&self, stream: &str) -> String {
        fs::read_to_string(self.output.path().join(stream)).unwrap()
    }

    /// Waits for a whole line with this text.
    fn line_with(&self, text: &str) -> String {
        wait_until(text, || {
            let output = self.output("stdout") + &self.output("stderr");
            let mut lines = output.split_inclusive('\n');
            let line = lines.find(|line| line.contains(text) && line.ends_with('\n'));
            line.map(|line| line.trim().to_owned())
        })
    }

    /// Returns the address that it prints.
    fn url(&self) -> Url {
        self.line_with("/oauth2/authorize?").parse().unwrap()
    }

    fn paste(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Waits for its end.
    fn result(mut self) -> LoginResult {
        let status = wait_until("exit", || self.child.try_wait().unwrap());
        LoginResult {
            code: status.code(),
            stdout: self.output("stdout"),
            stderr: self.output("stderr"),
        }
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < deadline, "timeout: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns a port below the range for automatic ports, so that no other process takes it before `login` binds it.
fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = 20_000 + (start + TRIED.fetch_add(1, Ordering::Relaxed)) % 12_000;
        // Without IPv6 the error is another one.
        let taken = |address: &str| {
            std::net::TcpListener::bind((address, port))
                .is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
        };
        if !taken("127.0.0.1") && !taken("::1") {
            return port;
        }
    }
}

fn client() -> Client {
    crate::tools::client()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .build()
        .unwrap()
}

async fn open(url: &str) -> Response {
    client().get(url).send().await.unwrap()
}

/// Opens the login page and presses a button. Returns the address that the browser is sent to.
async fn press(button: &str, url: &Url) -> String {
    let page = open(url.as_str()).await;
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    let attribute = |tag: &str, name: &str| {
        let (_, rest) = tag.split_once(&format!("{name}=\"")).unwrap();
        let value = rest.split_once('"').unwrap().0;
        value.replace("&quot;", "\"").replace("&amp;", "&")
    };
    let mut fields: BTreeMap<String, String> = page
        .lines()
        .filter(|line| line.starts_with("<input"))
        .map(|tag| (attribute(tag, "name"), attribute(tag, "value")))
        .collect();
    fields.insert("decision".to_owned(), button.to_owned());
    let action = page.lines().find(|line| line.starts_with("<form")).unwrap();
    let action = url.join(&attribute(action, "action")).unwrap();
    let answer = client().post(action).form(&fields).send().await.unwrap();
    assert_eq!(answer.status(), 302);
    answer.headers()[LOCATION].to_str().unwrap().to_owned()
}

fn query(url: &str) -> BTreeMap<String, String> {
    let url: Url = url.parse().unwrap();
    url.query_pairs().into_owned().collect()
}

fn read_json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_fills_the_token_store_and_an_exporter_collects_with_it() {
    for client_auth in ["body", "basic"] {
        let fixture = Fixture::new().await;
        let store = fixture.path("token.json");
        fixture.configure(&format!(
            "  token_store: {}\n  client_auth: {client_auth}",
            store.display()
        ));
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let result = fixture.log_in(&[]).await;
        assert!(
            result.stdout.contains("within 10 seconds"),
            "{}",
            result.stdout
        );
        assert_eq!(mode(&store), 0o600);
        let stored = read_json(&store);
        assert_eq!(stored["refresh_token"], fixture.refresh_token());
        assert!(stored["obtained_at"].as_f64().unwrap() >= before.as_secs_f64());

        let config = fs::read_to_string(fixture.path("config.yaml")).unwrap();
        let exporter = Exporter::serve(&config);
        let scrape = exporter.scrape().await;
        let up = scrape.value("lightfi_up");
        assert_eq!(up, Some(1.0), "{}", exporter.output());
        let obtained = "lightfi_exporter_refresh_token_obtained_timestamp_seconds";
        assert_eq!(scrape.value(obtained), stored["obtained_at"].as_f64());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_asks_for_a_code_with_pkce_a_state_and_the_exact_redirect_uri() {
    let fixture = Fixture::new().await;
    fixture.configure_store();
    let mut random_values = BTreeSet::new();
    for end in ["", "/back/here"] {
        let redirect = format!("{}{end}", fixture.redirect());
        let login = fixture.spawn_at(&redirect, &[]);
        let url = login.url();
        let parameters = query(url.as_str());
        assert_eq!(parameters["redirect_uri"], redirect);
        assert_eq!(parameters["response_type"], "code");
        assert_eq!(parameters["scope"], "aws.cognito.signin.user.admin");
        assert_eq!(parameters["code_challenge_method"], "S256");
        assert_eq!(parameters["code_challenge"].len(), 43);
        assert!(parameters["state"].len() >= 22);
        login.line_with("--redirect-uri");
        let page = open(&press("login", &url).await).await;
        assert_eq!(page.status(), 200);
        let result = login.result();
        assert_eq!(result.code, Some(0), "{}", result.stderr);
        random_values.insert(parameters["state"].clone());
        random_values.insert(parameters["code_challenge"].clone());
    }
    assert_eq!(random_values.len(), 4, "each value is used only once");
}

#[tokio::test(flavor = "multi_thread")]
async fn localhost_listens_on_ipv4_and_ipv6_and_an_address_only_on_itself() {
    let fixture = Fixture::new().await;
    fixture.configure_store();
    let is_free = |address: &str| std::net::TcpListener::bind((address, fixture.port)).is_ok();
    let has_ipv6 = is_free("::1");
    let login = fixture.spawn(&[]);
    login.url();
    assert!(!is_free("127.0.0.1"));
    assert!(!has_ipv6 || !is_free("::1"));
    drop(login);
    let login = fixture.spawn_at(&format!("http://127.0.0.1:{}", fixture.port), &[]);
    login.url();
    assert!(!is_free("127.0.0.1"));
    assert!(!has_ipv6 || is_free("::1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn out_names_a_file_for_the_bare_token_that_only_its_owner_can_read() {
    let fixture = Fixture::new().await;
    fixture.configure("");
    let out = fixture.path("refresh-token");
    fs::write(&out, "old").unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o644)).unwrap();
    let result = fixture.log_in(&["--out", out.to_str().unwrap()]).await;
    fixture.assert_holds_bare_token(&out);
    assert!(
        result.stdout.contains("oauth.refresh_token_file"),
        "{}",
        result.stdout
    );
    let files = fs::read_dir(fixture.directory.path()).unwrap();
    assert_eq!(files.count(), 2, "the configuration and the token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_exporter_uses_a_new_login_within_10_seconds() {
    let fixture = Fixture::new().await;
    let (link, file) = (fixture.path("link"), fixture.path("file"));
    symlink("file", &link).unwrap();
    fixture.configure(&format!("  refresh_token_file: {}", link.display()));
    let config = fs::read_to_string(fixture.path("config.yaml")).unwrap();
    let exporter = Exporter::serve(&config);
    let scrape = exporter.scrape().await;
    assert_eq!(
        scrape.value("lightfi_exporter_refresh_token_valid"),
        Some(0.0)
    );
    fixture.log_in(&[]).await;
    let logged_in = Instant::now();
    exporter
        .scrape_until("a collection", |scrape| {
            scrape.value("lightfi_up") == Some(1.0)
        })
        .await;
    assert!(logged_in.elapsed() < Duration::from_secs(10));
    assert!(link.is_symlink());
    fixture.assert_holds_bare_token(&file);
}

#[tokio::test(flavor = "multi_thread")]
async fn out_may_name_the_token_store_which_then_wins_over_the_configured_token() {
    let fixture = Fixture::new().await;
    let store = fixture.path("token.json");
    let old = fixture.refresh_token();
    fixture.configure(&format!(
        "  token_store: {}\n  refresh_token: {old}",
        store.display()
    ));
    fixture.log_in(&["--out", "./token.json"]).await;
    let stored = read_json(&store);
    assert_eq!(stored["refresh_token"], fixture.refresh_token());
    assert_eq!(stored["seed_sha256"].as_str().unwrap().len(), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn print_writes_the_token_and_nothing_else_to_standard_output() {
    let fixture = Fixture::new().await;
    fixture.configure("");
    let result = fixture.log_in(&["--print"]).await;
    assert_eq!(result.stdout, format!("{}\n", fixture.refresh_token()));
    assert!(result.stderr.contains("Logged in."), "{}", result.stderr);
    // With a token store configured, the token goes there too.
    let store = fixture.configure_store();
    let result = fixture.log_in(&["--print"]).await;
    assert_eq!(result.stdout, format!("{}\n", fixture.refresh_token()));
    assert_eq!(read_json(&store)["refresh_token"], fixture.refresh_token());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubernetes_secret_is_written_or_printed() {
    let fixture = Fixture::new().await;
    let store = fixture.configure_store();
    let out = fixture.path("secret.yaml");
    let format = "--format=kubernetes-secret";
    let out_flags = [format, "--out", out.to_str().unwrap()];
    let result = fixture.log_in(&out_flags).await;
    let token = fixture.refresh_token();
    assert!(!result.stdout.contains(&token));
    assert_eq!(mode(&out), 0o600);
    let manifest = fs::read_to_string(&out).unwrap();
    let manifest: serde_json::Value = serde_saphyr::from_str(&manifest).unwrap();
    assert_eq!(manifest["apiVersion"], "v1");
    assert_eq!(manifest["kind"], "Secret");
    assert_eq!(manifest["stringData"]["refresh-token"], token);
    assert_eq!(manifest["metadata"].get("namespace"), None);

    let result = fixture.log_in(&[format, "--print"]).await;
    let manifest: serde_json::Value = serde_saphyr::from_str(&result.stdout).unwrap();
    assert_eq!(
        manifest["stringData"]["refresh-token"],
        fixture.refresh_token()
    );
    assert!(!store.exists(), "the Secret is for another machine");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_can_be_pasted_whatever_the_redirect_uri_is() {
    let fixture = Fixture::new().await;
    let store = fixture.configure_store();
    for redirect in [
        "https://oauth.pstmn.io/v1/callback",
        "http://localhost:3000/",
    ] {
        let mut login = fixture.spawn_at(redirect, &["--paste"]);
        let url = login.url();
        login.paste("");
        login.paste("what?");
        login.line_with("contains no authorization code");
        login.paste("https://oauth.pstmn.io/v1/callback?code=abc&state=wrong");
        login.line_with("another login");
        let address = press("login", &url).await;
        assert!(address.starts_with(redirect), "{address}");
        login.paste(&format!("  '{address}#'"));
        let result = login.result();
        assert_eq!(result.code, Some(0), "{}", result.stderr);
        assert_eq!(read_json(&store)["refresh_token"], fixture.refresh_token());
    }
    let mut login = fixture.spawn(&["--paste"]);
    login.url();
    login.stdin = None;
    let result = login.result();
    assert_eq!(result.code, Some(1));
    let text = "standard input ended";
    assert!(result.stderr.contains(text), "{}", result.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_is_started_without_secrets_and_may_fail() {
    let fixture = Fixture::new().await;
    fixture.configure_store();
    let opener = fixture.path("xdg-open");
    let script =
        "#!/bin/sh\necho \"$@\" >opened.tmp\nexport -p >>opened.tmp\n/bin/mv opened.tmp opened\n";
    for (script, opens) in [(script, true), ("#!/bin/sh\nexit 3\n", false)] {
        fs::write(&opener, script).unwrap();
        fs::set_permissions(&opener, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = fixture.command();
        command
            .arg("--redirect-uri")
            .arg(fixture.redirect())
            .env("PATH", fixture.directory.path())
            .env("LIGHTFI_OAUTH__CLIENT_SECRET", fixture.secret());
        let login = Login::spawn(command);
        let url = login.url();
        if opens {
            let path = fixture.path("opened");
            let opened = wait_until("xdg-open", || fs::read_to_string(&path).ok());
            assert_eq!(opened.lines().next(), Some(url.as_str()));
            assert!(!opened.contains("LIGHTFI_"), "{opened}");
        } else {
            login.line_with("--paste");
        }
        let page = open(&press("login", &url).await).await;
        assert_eq!(page.status(), 200);
        assert_eq!(login.result().code, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_do_not_belong_to_the_login_are_refused_and_it_goes_on() {
    let fixture = Fixture::new().await;
    fixture.configure_store();
    let mut login = fixture.spawn(&[]);
    let url = login.url();
    let base = fixture.redirect();
    let state = &query(url.as_str())["state"];
    for request in [
        "/?code=abc&state=wrong".to_owned(),
        "/?code=abc".to_owned(),
        "/?code=abc&state=".to_owned(),
        "/?error=access_denied&state=<script>".to_owned(),
        "/?error=access_denied".to_owned(),
        format!("/?state={state}"),
        "/".to_owned(),
    ] {
        let page = open(&format!("{base}{request}")).await;
        assert_eq!(page.status(), 400, "{request}");
        assert_eq!(page.headers()["content-type"], "text/plain; charset=utf-8");
        let page = page.text().await.unwrap();
        assert!(
            page.contains("Login not accepted") && !page.contains("script"),
            "{page}"
        );
    }
    for other_path in ["/favicon.ico", &format!("/other?code=abc&state={state}")] {
        let page = open(&format!("{base}{other_path}")).await;
        assert_eq!(page.status(), 404, "{other_path}");
    }
    let address = press("login", &url).await;
    for method in [reqwest::Method::HEAD, reqwest::Method::POST] {
        let answer = client().request(method, &address).send().await.unwrap();
        assert_eq!(answer.status(), 405);
    }
    assert!(login.child.try_wait().unwrap().is_none(), "it goes on");
    // An open connection that sends nothing does not keep the login from ending.
    let _idle = std::net::TcpStream::connect(("127.0.0.1", fixture.port)).unwrap();
    assert_eq!(open(&address).await.status(), 200);
    assert_eq!(login.result().code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_login_is_reported_in_the_browser_and_in_the_terminal() {
    let cancelled = "refused the login: access_denied (The person has cancelled the login.)";
    for (button, gives_token, secret, expected) in [
        ("cancel", true, None, cancelled),
        ("login", false, None, "sent no refresh token"),
        ("login", true, Some("wrong-secret"), "invalid_client"),
    ] {
        let fixture = Fixture::with(Options {
            login_gives_refresh_token: gives_token,
            ..Options::default()
        })
        .await;
        let store = fixture.configure_store();
        if let Some(secret) = secret {
            fixture.edit_config(&fixture.secret(), secret);
        }
        let login = fixture.spawn(&[]);
        let page = open(&press(button, &login.url()).await).await;
        assert_eq!(page.status(), 400);
        let page = page.text().await.unwrap();
        assert!(page.contains("Not logged in"), "{page}");
        let result = login.result();
        assert_eq!(result.code, Some(1));
        for text in [&page, &result.stderr] {
            assert!(text.contains(expected), "{text}");
            assert!(!text.contains("wrong-secret"), "{text}");
        }
        assert!(!store.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_from_the_redirect_is_plain_text_and_redacted() {
    let fixture = Fixture::new().await;
    fixture.configure_store();
    let login = fixture.spawn(&[]);
    let state = query(login.url().as_str())["state"].clone();
    let address = format!(
        "{}/?error=<script>&error_description=\"'%1b[31m%26{state}&state={state}",
        fixture.redirect()
    );
    let page = open(&address).await;
    assert_eq!(page.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    let page = page.text().await.unwrap();
    assert!(page.contains("<script> (\"'[31m&<secret>)"), "{page}");
    let result = login.result();
    assert_eq!(result.code, Some(1));
    assert!(!result.stderr.contains('\u{1b}') && !result.stderr.contains(&state));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_reported_with_the_alternatives() {
    let fixture = Fixture::new().await;
    fixture.configure_store();
    let _listener = std::net::TcpListener::bind(("127.0.0.1", fixture.port)).unwrap();
    let result = fixture.spawn(&[]).result();
    assert_eq!((result.code, result.stdout.as_str()), (Some(1), ""));
    let address = format!("127.0.0.1:{}", fixture.port);
    for text in [&address, "--redirect-uri", "--paste"] {
        assert!(result.stderr.contains(text), "{}", result.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_usage_or_configuration_error_is_found_before_the_address_is_shown() {
    let fixture = Fixture::new().await;
    let is_refused = |login: Login, texts: &[&str]| {
        let result = login.result();
        assert_eq!((result.code, result.stdout.as_str()), (Some(2), ""));
        for text in texts {
            let count = result.stderr.matches(text).count();
            assert_eq!(count, 1, "{text}: {}", result.stderr);
        }
    };
    let manifest = "--format=kubernetes-secret";
    fixture.configure("");
    for (flags, texts) in [
        (&[][..], &["oauth.token_store", "--out"][..]),
        (&[manifest], &["--out"]),
        (&["--out", "missing/token"], &["cannot write missing/token"]),
        (&["--out", "/dev/null"], &["/dev/null: not a regular file"]),
        (&["--out", "new/"], &["cannot write new/: not a file path"]),
    ] {
        is_refused(fixture.spawn(flags), texts);
    }
    let store = fixture.configure_store();
    let texts = &["oauth.token_store", "--out"];
    is_refused(fixture.spawn(&[manifest]), texts);
    is_refused(fixture.spawn(&[manifest, "--out=token.json"]), texts);
    fs::write(&store, "{").unwrap();
    let texts = &[store.to_str().unwrap(), "move it away"];
    is_refused(fixture.spawn(&[]), texts);
    assert_eq!(fs::read_to_string(&store).unwrap(), "{");
    fixture.configure("  token_store: missing/token.json");
    is_refused(fixture.spawn(&[]), &["cannot write missing/token.json"]);

    fixture.configure("");
    for (redirect_uri, text) in [
        ("https://apiv2.lightfi.io/docs/redirect", "add --paste"),
        ("http://localhost:0", "add --paste"),
        ("http://user:pass@localhost:3000", "without user"),
        ("localhost:3000", "must be an http://"),
    ] {
        is_refused(fixture.spawn_at(redirect_uri, &["--print"]), &[text]);
    }
}
