//! `login` end to end: the real binary, the simulated cloud's authorize endpoint, and a client in a browser's place.
//! More than one thread, as the cloud must answer while a test waits for the binary.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    http::{HeaderMap, StatusCode},
    routing,
};
use base64::{Engine, prelude::BASE64_URL_SAFE};
use lightfi_simulator::Options;
use reqwest::{Client, Response, Url, header::LOCATION, redirect};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::{
    cloud::Cloud,
    exporter::{Exporter, command},
};

/// A debug binary on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cloud, a configuration for it without a refresh token, and a place to write to.
struct Stage {
    cloud: Cloud,
    directory: TempDir,
    port: u16,
}

/// `login` under way.
struct Login {
    child: Child,
    stdin: Option<ChildStdin>,
    /// What it wrote by the time it showed the address, and the rest once it has ended.
    stdout: String,
    lines: mpsc::Receiver<(bool, String)>,
    stderr: String,
}

/// How it ended.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Stage {
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

    /// As the cloud prints it, but with `oauth` in place of the refresh token.
    fn configure(&self, oauth: &str) {
        let config = self.cloud.config("");
        let lines = config.lines().map(|line| match line.trim_start() {
            rest if rest.starts_with("refresh_token:") => oauth,
            _ => line,
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        fs::write(self.path("config.yaml"), format!("{text}\n")).unwrap();
    }

    fn configure_store(&self) -> PathBuf {
        let store = self.path("token.json");
        self.configure(&format!("  token_store: {}", store.display()));
        store
    }

    fn secret(&self) -> String {
        let config = self.cloud.config("");
        let (_, rest) = config.split_once("client_secret: \"").unwrap();
        rest.split_once('"').unwrap().0.to_owned()
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
        Login::of(login)
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

    /// Logs in with these flags, the browser and all.
    async fn logged_in(&self, flags: &[&str]) -> Ended {
        let mut login = self.spawn(flags);
        let page = open(&press("login", &login.url()).await).await;
        assert_eq!(page.status(), 200);
        let page = page.text().await.unwrap();
        assert!(page.contains("<h1>Logged in</h1>"), "{page}");
        let ended = login.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended
    }

    /// What the cloud gave last.
    fn newest(&self) -> String {
        let config = self.cloud.config("");
        let (_, rest) = config.split_once("refresh_token: \"").unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    }
}

impl Login {
    fn of(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let streams: [(bool, Box<dyn Read + Send>); 2] = [
            (true, Box::new(child.stdout.take().unwrap())),
            (false, Box::new(child.stderr.take().unwrap())),
        ];
        for (is_stdout, stream) in streams {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = sender.send((is_stdout, line));
                }
            });
        }
        Self {
            stdin: child.stdin.take(),
            child,
            stdout: String::new(),
            stderr: String::new(),
            lines,
        }
    }

    fn read(&mut self, until: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        while let Ok((is_stdout, line)) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            let all = if is_stdout {
                &mut self.stdout
            } else {
                &mut self.stderr
            };
            all.push_str(&line);
            all.push('\n');
            if until(&line) {
                return Some(line);
            }
        }
        None
    }

    /// The address it shows.
    fn url(&mut self) -> Url {
        let line = self.read(|line| line.contains("/oauth2/authorize?"));
        let line = line.unwrap_or_else(|| panic!("no address:\n{}{}", self.stdout, self.stderr));
        line.trim().parse().unwrap()
    }

    fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn end(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        while self.is_running() {
            assert!(Instant::now() < deadline, "it goes on:\n{}", self.stderr);
            thread::sleep(Duration::from_millis(10));
        }
        self.read(|_| false);
        Ended {
            code: self.child.wait().unwrap().code(),
            stdout: std::mem::take(&mut self.stdout),
            stderr: std::mem::take(&mut self.stderr),
        }
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Below those that systems give out by themselves, so that it is still free when `login` binds it.
fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = 20_000 + (start + TRIED.fetch_add(1, Ordering::Relaxed)) % 12_000;
        // IPv6 may be missing, which is not the same as taken.
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

/// Opens the login page and presses a button on it: where the browser is sent.
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

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_fills_the_store_and_an_exporter_collects_with_it() {
    for client_auth in ["body", "basic"] {
        let stage = Stage::new().await;
        let store = stage.path("token.json");
        stage.configure(&format!(
            "  token_store: {}\n  client_auth: {client_auth}",
            store.display()
        ));
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let ended = stage.logged_in(&[]).await;
        assert!(
            ended.stdout.contains("within 10 seconds"),
            "{}",
            ended.stdout
        );
        assert_eq!(mode(&store), 0o600);
        let stored: serde_json::Value = serde_json::from_slice(&fs::read(&store).unwrap()).unwrap();
        assert_eq!(stored["refresh_token"], stage.newest());
        assert!(stored["obtained_at"].as_f64().unwrap() >= before.as_secs_f64());

        let config = fs::read_to_string(stage.path("config.yaml")).unwrap();
        let exporter = Exporter::serve(&config);
        let scrape = exporter.scrape().await;
        assert_eq!(
            scrape.value("lightfi_up"),
            Some(1.0),
            "{}",
            exporter.output()
        );
        let obtained = "lightfi_exporter_refresh_token_obtained_timestamp_seconds";
        assert_eq!(scrape.value(obtained), stored["obtained_at"].as_f64());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_url_asks_for_a_code_with_pkce_a_state_and_the_redirect_as_it_was_given() {
    let stage = Stage::new().await;
    stage.configure_store();
    let mut seen = Vec::new();
    for end in ["", "/", "/back/here"] {
        let redirect = format!("{}{end}", stage.redirect());
        let mut login = stage.spawn_at(&redirect, &[]);
        let url = login.url();
        let asked = query(url.as_str());
        assert_eq!(asked["redirect_uri"], redirect);
        assert_eq!(asked["response_type"], "code");
        assert_eq!(asked["scope"], "aws.cognito.signin.user.admin");
        assert_eq!(asked["code_challenge_method"], "S256");
        assert_eq!(asked["code_challenge"].len(), 43);
        assert!(asked["state"].len() >= 22);
        let page = open(&press("login", &url).await).await;
        assert_eq!(page.status(), 200);
        let ended = login.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        seen.extend([asked["state"].clone(), asked["code_challenge"].clone()]);
    }
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), all, "nothing is used twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn localhost_answers_on_both_families_and_a_numeric_address_on_its_own() {
    let stage = Stage::new().await;
    stage.configure_store();
    let is_free = |address: &str| std::net::TcpListener::bind((address, stage.port)).is_ok();
    let has_ipv6 = is_free("::1");
    let mut login = stage.spawn(&[]);
    login.url();
    assert!(!is_free("127.0.0.1"));
    assert!(!has_ipv6 || !is_free("::1"));
    drop(login);
    let mut login = stage.spawn_at(&format!("http://127.0.0.1:{}", stage.port), &[]);
    login.url();
    assert!(!is_free("127.0.0.1"));
    assert!(!has_ipv6 || is_free("::1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_goes_to_a_file_bare_and_for_its_owner_only() {
    let stage = Stage::new().await;
    stage.configure("");
    let out = stage.path("refresh-token");
    fs::write(&out, "old").unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o644)).unwrap();
    let ended = stage.logged_in(&["--out", out.to_str().unwrap()]).await;
    assert_eq!(
        fs::read_to_string(&out).unwrap(),
        format!("{}\n", stage.newest())
    );
    assert_eq!(mode(&out), 0o600);
    assert!(
        ended.stdout.contains("oauth.refresh_token_file"),
        "{}",
        ended.stdout
    );
    let names = fs::read_dir(stage.directory.path()).unwrap();
    assert_eq!(names.count(), 2, "the configuration and the token");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_goes_to_the_configured_file_through_a_link() {
    let stage = Stage::new().await;
    let (link, file) = (stage.path("link"), stage.path("file"));
    symlink("file", &link).unwrap();
    stage.configure(&format!("  refresh_token_file: {}", link.display()));
    stage.logged_in(&[]).await;
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("file"));
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        format!("{}\n", stage.newest())
    );
    assert_eq!(mode(&file), 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_that_waits_for_a_login_takes_it_up_by_itself() {
    let stage = Stage::new().await;
    let file = stage.path("refresh-token");
    stage.configure(&format!("  refresh_token_file: {}", file.display()));
    let config = fs::read_to_string(stage.path("config.yaml")).unwrap();
    let exporter = Exporter::serve(&config);
    let scrape = exporter.scrape().await;
    assert_eq!(
        scrape.value("lightfi_exporter_refresh_token_valid"),
        Some(0.0)
    );
    stage.logged_in(&[]).await;
    let done = Instant::now();
    exporter
        .scrape_until("a collection", |scrape| {
            scrape.value("lightfi_up") == Some(1.0)
        })
        .await;
    assert!(done.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_by_name_gets_the_stores_form_and_wins_over_the_token_configured_now() {
    let stage = Stage::new().await;
    let store = stage.path("token.json");
    let old = stage.newest();
    stage.configure(&format!(
        "  token_store: {}\n  refresh_token: {old}",
        store.display()
    ));
    // Another way to the same file.
    stage.logged_in(&["--out", "./token.json"]).await;
    let stored: serde_json::Value = serde_json::from_slice(&fs::read(&store).unwrap()).unwrap();
    assert_eq!(stored["refresh_token"], stage.newest());
    assert_eq!(stored["seed_sha256"].as_str().unwrap().len(), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn printing_shows_the_token_and_nothing_else_on_standard_output() {
    let stage = Stage::new().await;
    stage.configure("");
    let ended = stage.logged_in(&["--print"]).await;
    assert_eq!(ended.stdout, format!("{}\n", stage.newest()));
    assert!(ended.stderr.contains("Logged in."), "{}", ended.stderr);
    // With a place the token goes there too.
    let store = stage.configure_store();
    let ended = stage.logged_in(&["--print"]).await;
    assert_eq!(ended.stdout, format!("{}\n", stage.newest()));
    assert!(fs::read_to_string(store).unwrap().contains(&stage.newest()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubernetes_secret_is_written_or_printed() {
    let stage = Stage::new().await;
    let store = stage.configure_store();
    let out = stage.path("secret.yaml");
    let ended = stage
        .logged_in(&["--format=kubernetes-secret", "--out", out.to_str().unwrap()])
        .await;
    assert!(!ended.stdout.contains(&stage.newest()));
    assert_eq!(mode(&out), 0o600);
    let written = fs::read_to_string(&out).unwrap();
    let manifest: serde_json::Value = serde_saphyr::from_str(&written).unwrap();
    assert_eq!(manifest["apiVersion"], "v1");
    assert_eq!(manifest["kind"], "Secret");
    assert_eq!(manifest["stringData"]["refresh-token"], stage.newest());
    assert_eq!(manifest["metadata"].get("namespace"), None);

    let ended = stage
        .logged_in(&["--format=kubernetes-secret", "--print"])
        .await;
    let manifest: serde_json::Value = serde_saphyr::from_str(&ended.stdout).unwrap();
    assert_eq!(manifest["stringData"]["refresh-token"], stage.newest());
    assert!(!store.exists(), "it is meant for elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pasted_address_will_do_wherever_it_leads() {
    let stage = Stage::new().await;
    let store = stage.configure_store();
    for redirect in [
        "https://oauth.pstmn.io/v1/callback",
        "http://localhost:3000/",
    ] {
        let mut login = stage.spawn_at(redirect, &["--paste"]);
        let url = login.url();
        login.say("");
        login.say("what?");
        login.read(|line| line.contains("holds no code")).unwrap();
        login.say("https://oauth.pstmn.io/v1/callback?code=abc&state=wrong");
        login.read(|line| line.contains("another login")).unwrap();
        let to = press("login", &url).await;
        assert!(to.starts_with(redirect), "{to}");
        login.say(&format!("  {to}#"));
        let ended = login.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(
            fs::read_to_string(&store)
                .unwrap()
                .contains(&stage.newest())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_was_broken_into_lines_or_quoted_is_put_together() {
    let stage = Stage::new().await;
    stage.configure_store();
    for write in [
        |to: &str| format!("'{to}'"),
        |to: &str| format!("<{to}>"),
        |to: &str| format!("{}\n{}", &to[..30], &to[30..]),
        |to: &str| format!("  {}\n  {}", &to[..to.len() - 5], &to[to.len() - 5..]),
    ] {
        let mut login = stage.spawn(&["--paste"]);
        let to = press("login", &login.url()).await;
        login.say(&write(&to));
        let ended = login.end();
        assert_eq!(ended.code, Some(0), "{}\n{}", write(&to), ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_asked_to_open_the_address_and_gets_no_secret() {
    let stage = Stage::new().await;
    stage.configure_store();
    let opener = stage.path("xdg-open");
    let script =
        "#!/bin/sh\necho \"$@\" >opened.tmp\nexport -p >>opened.tmp\n/bin/mv opened.tmp opened\n";
    for (script, opens) in [(script, true), ("#!/bin/sh\nexit 3\n", false)] {
        fs::write(&opener, script).unwrap();
        fs::set_permissions(&opener, fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = stage.command();
        child
            .arg("--redirect-uri")
            .arg(stage.redirect())
            .env("PATH", stage.directory.path())
            .env("LIGHTFI_OAUTH__CLIENT_SECRET", stage.secret());
        let mut login = Login::of(child);
        let url = login.url();
        if opens {
            let opened = stage.path("opened");
            let deadline = Instant::now() + PATIENCE;
            while !opened.exists() {
                assert!(Instant::now() < deadline, "nothing was opened");
                thread::sleep(Duration::from_millis(10));
            }
            let opened = fs::read_to_string(opened).unwrap();
            assert_eq!(opened.lines().next(), Some(url.as_str()));
            assert!(!opened.contains("LIGHTFI_"), "{opened}");
        } else {
            login.read(|line| line.contains("--paste")).unwrap();
        }
        // However that went, the login goes on.
        let page = open(&press("login", &url).await).await;
        assert_eq!(page.status(), 200);
        assert_eq!(login.end().code, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_standard_input_ends_a_paste() {
    let stage = Stage::new().await;
    stage.configure_store();
    let mut login = stage.spawn(&["--paste"]);
    login.url();
    login.stdin = None;
    let ended = login.end();
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("standard input ended"),
        "{}",
        ended.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_no_further_and_the_login_goes_on() {
    let stage = Stage::new().await;
    stage.configure_store();
    let mut login = stage.spawn(&[]);
    let url = login.url();
    let base = stage.redirect();
    let state = &query(url.as_str())["state"];
    for stray in [
        "/?code=abc&state=wrong".to_owned(),
        "/?code=abc".to_owned(),
        "/?code=abc&state=".to_owned(),
        "/?error=access_denied&state=<script>".to_owned(),
        "/?error=access_denied".to_owned(),
        format!("/?state={state}"),
        "/".to_owned(),
    ] {
        let page = open(&format!("{base}{stray}")).await;
        assert_eq!(page.status(), 400, "{stray}");
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'"));
        let page = page.text().await.unwrap();
        assert!(
            page.contains("Not this login") && !page.contains("script"),
            "{page}"
        );
    }
    for elsewhere in ["/favicon.ico", &format!("/other?code=abc&state={state}")] {
        let page = open(&format!("{base}{elsewhere}")).await;
        assert_eq!(page.status(), 404, "{elsewhere}");
    }
    let to = press("login", &url).await;
    for method in [reqwest::Method::HEAD, reqwest::Method::POST] {
        let answer = client().request(method, &to).send().await.unwrap();
        assert_eq!(answer.status(), 405);
    }
    assert!(login.is_running());
    // A connection that asks for nothing holds up nothing.
    let _idle = std::net::TcpStream::connect(("127.0.0.1", stage.port)).unwrap();
    assert_eq!(open(&to).await.status(), 200);
    assert_eq!(login.end().code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_login_is_told_in_the_browser_and_on_the_terminal() {
    let stage = Stage::new().await;
    let store = stage.configure_store();
    let mut login = stage.spawn(&[]);
    let to = press("cancel", &login.url()).await;
    let page = open(&to).await;
    assert_eq!(page.status(), 400);
    let page = page.text().await.unwrap();
    assert!(
        page.contains("<h1>Not logged in</h1>") && page.contains("access_denied"),
        "{page}"
    );
    let ended = login.end();
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stderr
            .contains("the login was refused: access_denied (The person has cancelled the login.)"),
        "{}",
        ended.stderr
    );
    assert!(!store.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_the_redirect_are_shown_as_words() {
    let stage = Stage::new().await;
    stage.configure_store();
    let mut login = stage.spawn(&[]);
    let state = query(login.url().as_str())["state"].clone();
    let page = open(&format!(
        "{}/?error=<script>&error_description=\"'%1b[31m%26{state}&state={state}",
        stage.redirect()
    ))
    .await
    .text()
    .await
    .unwrap();
    assert!(
        page.contains("&lt;script&gt; (&quot;&#39;[31m&amp;&lt;secret&gt;)"),
        "{page}"
    );
    let ended = login.end();
    assert_eq!(ended.code, Some(1));
    assert!(!ended.stderr.contains('\u{1b}') && !ended.stderr.contains(&state));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_code_is_refused() {
    let stage = Stage::new().await;
    stage.configure_store();
    let mut login = stage.spawn(&[]);
    let to = press("login", &login.url()).await;
    // Somebody who has seen the redirect tries it; they lack the verifier, and the code is spent.
    let config = stage.cloud.config("");
    let (_, rest) = config.split_once("client_id: \"").unwrap();
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", rest.split_once('"').unwrap().0),
        ("client_secret", &stage.secret()),
        ("redirect_uri", &stage.redirect()),
        ("code", &query(&to)["code"]),
    ];
    let url = format!("{}/oauth2/token", stage.cloud.url);
    let stolen = client().post(url).form(&form).send().await.unwrap();
    assert_eq!(stolen.status(), 400);
    let page = open(&to).await;
    assert_eq!(page.status(), 400);
    let ended = login.end();
    assert_eq!(ended.code, Some(1));
    for words in ["good only once", "invalid_grant", "lightfi-exporter login"] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gets_no_refresh_token_is_told_so() {
    let stage = Stage::with(Options {
        login_gives_refresh_token: false,
        ..Options::default()
    })
    .await;
    let store = stage.configure_store();
    let mut login = stage.spawn(&[]);
    let page = open(&press("login", &login.url()).await).await;
    assert!(page.text().await.unwrap().contains("no refresh token"));
    let ended = login.end();
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("gave no refresh token"),
        "{}",
        ended.stderr
    );
    assert!(!store.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_client_secret_is_told_so() {
    let stage = Stage::new().await;
    stage.configure_store();
    let file = stage.path("config.yaml");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, config.replace(&stage.secret(), "wrong-secret")).unwrap();
    let mut login = stage.spawn(&[]);
    let page = open(&press("login", &login.url()).await).await;
    assert_eq!(page.status(), 400);
    let ended = login.end();
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("invalid_client"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("wrong-secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_that_is_not_registered_is_told_before_anybody_logs_in() {
    let stage = Stage::new().await;
    stage.configure_store();
    let redirect = format!("{}/strange", stage.redirect());
    let ended = stage.spawn_at(&redirect, &[]).end();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    for words in [redirect.as_str(), "--redirect-uri", "may not redirect"] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_the_ways_out() {
    let stage = Stage::new().await;
    stage.configure_store();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", stage.port)).unwrap();
    let ended = stage.spawn(&[]).end();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    let address = format!("127.0.0.1:{}", stage.port);
    for words in [address.as_str(), "--redirect-uri", "--paste"] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_found_before_the_address_is_shown() {
    let stage = Stage::new().await;
    let refused = |flags: &[&str], words: &[&str]| {
        let ended = stage.spawn(flags).end();
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(2), ""),
            "{flags:?}"
        );
        for words in words {
            assert_eq!(
                ended.stderr.matches(words).count(),
                1,
                "{flags:?}: {}",
                ended.stderr
            );
        }
    };
    stage.configure("");
    refused(&[], &["oauth.token_store", "--out"]);
    refused(&["--format=kubernetes-secret"], &["--out"]);
    refused(
        &["--out", "no/such/directory/token"],
        &["cannot write no/such/directory/token"],
    );
    refused(&["--out", "/dev/null"], &["/dev/null is no regular file"]);
    refused(&["--out", "new/"], &["cannot write new/: it names no file"]);
    let store = stage.configure_store();
    refused(
        &["--format=kubernetes-secret"],
        &["oauth.token_store", "--out"],
    );
    refused(
        &["--format=kubernetes-secret", "--out=token.json"],
        &["oauth.token_store", "--out"],
    );
    fs::write(&store, "{").unwrap();
    refused(&[], &[store.to_str().unwrap(), "move it away"]);
    assert_eq!(fs::read_to_string(&store).unwrap(), "{");
    stage.configure("  token_store: no/such/directory/token.json");
    refused(&[], &["cannot write no/such/directory/token.json"]);
    stage.configure_store();
    fs::remove_file(&store).unwrap();
    for (redirect, words) in [
        ("https://apiv2.lightfi.io/docs/redirect", "add --paste"),
        ("https://localhost:3000", "add --paste"),
        ("http://localhost:0", "add --paste"),
        ("http://localhost:3000/#x", "fragment"),
        ("http://user:pass@localhost:3000", "password"),
        ("http://localhost :3000", "no http"),
        ("localhost:3000", "no http"),
    ] {
        let ended = stage.spawn_at(redirect, &[]).end();
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(2), ""),
            "{redirect}"
        );
        assert!(ended.stderr.contains(words), "{redirect}: {}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_on_the_terminal_the_page_or_the_command_line() {
    let stage = Stage::new().await;
    stage.configure_store();
    let mut login = stage.spawn(&[]);
    let url = login.url();
    let arguments = fs::read(format!("/proc/{}/cmdline", login.child.id()));
    let to = press("login", &url).await;
    let page = open(&to).await.text().await.unwrap();
    let ended = login.end();
    assert_eq!(ended.code, Some(0));
    let state = query(&to)["state"].clone();
    let secrets = [stage.newest(), stage.secret(), query(&to)["code"].clone()];
    let arguments = String::from_utf8_lossy(&arguments.unwrap_or_default()).into_owned();
    for place in [&page, &ended.stdout, &ended.stderr, &arguments] {
        for secret in &secrets {
            assert!(!place.contains(secret), "{place}");
        }
    }
    assert!(!ended.stderr.contains(&state) && !page.contains(&state));
}

/// A token endpoint of another make, which refuses everything and repeats `repeat` of what it was sent; and every form
/// that it was sent.
async fn careless(
    status: u16,
    repeat: impl Fn(&HeaderMap, &str) -> String + Clone + Send + Sync + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let forms = sent.clone();
    let token = async move |headers: HeaderMap, form: String| {
        let words = repeat(&headers, &form);
        forms.lock().unwrap().push(form);
        let body = json!({"error": "invalid_request", "error_description": words});
        (StatusCode::from_u16(status).unwrap(), Json(body))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let routes = Router::new().route("/token", routing::post(token));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (url, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_repeats_what_it_was_sent_shows_no_secret() {
    type Repeat = fn(&HeaderMap, &str) -> String;
    // A part of the form at a time, as only the beginning of what is told is shown.
    let pick = |form: &str, name: &str| {
        let at = form.find(&format!("{name}=")).unwrap();
        form[at..].split('&').next().unwrap().to_owned()
    };
    let cases: [(u16, &str, &str, Repeat); 5] = [
        (400, "body", "code_verifier", |_, form| form.to_owned()),
        (401, "body", "client_secret", |_, form| form.to_owned()),
        (403, "body", "code", |_, form| form.to_owned()),
        (500, "body", "client_secret", |_, form| {
            BASE64_URL_SAFE.encode(form)
        }),
        (200, "basic", "", |headers, _| {
            headers["authorization"].to_str().unwrap().to_owned()
        }),
    ];
    for (status, client_auth, name, repeat) in cases {
        let stage = Stage::new().await;
        stage.configure(&format!("  client_auth: {client_auth}"));
        let (url, sent) = careless(status, move |headers, form| {
            repeat(headers, &pick(form, name))
        })
        .await;
        let file = stage.path("config.yaml");
        let config = fs::read_to_string(&file).unwrap();
        let token_url = format!("{}/oauth2/token", stage.cloud.url);
        fs::write(&file, config.replace(&token_url, &url)).unwrap();

        let mut login = stage.spawn(&["--print"]);
        let to = press("login", &login.url()).await;
        let page = open(&to).await.text().await.unwrap();
        let ended = login.end();
        assert_eq!(ended.code, Some(1));
        let form = sent.lock().unwrap().concat();
        let form = query(&format!("http://localhost/?{form}"));
        let verifier = form["code_verifier"].clone();
        assert!(verifier.len() >= 43, "{form:?}");
        for place in [&page, &ended.stdout, &ended.stderr] {
            for secret in [&stage.secret(), &verifier, &query(&to)["code"]] {
                assert!(!place.contains(secret), "{status}: {place}");
                let encoded = BASE64_URL_SAFE.encode(secret);
                assert!(!place.contains(&encoded[..16]), "{status}: {place}");
            }
        }
        for place in [
            &page.replace("&lt;", "<").replace("&gt;", ">"),
            &ended.stderr,
        ] {
            assert!(place.contains("<secret>"), "{status}: {place}");
        }
        for words in ["invalid_request", "lightfi-exporter login` again"] {
            assert!(ended.stderr.contains(words), "{}", ended.stderr);
        }
    }
}
