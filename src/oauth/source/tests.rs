//! The source against a token server on loopback that answers as it is told. Real time: each test stays short.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::Path,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State as Extract,
    http::{HeaderMap, Response},
    routing::post,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::{
    config::{Api, ClientAuth, Credential},
    heard::Log,
    http::{Proxies, http_client},
    oauth::store::Store,
};

const SECRETS: [&str; 3] = ["client-s3cret", "refresh-s3cret", "access-s3cret"];

/// One scripted answer.
#[derive(Clone)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    after: Duration,
}

impl Answer {
    fn json(status: u16, body: &Value) -> Self {
        Self::text(status, body.to_string())
    }

    fn text(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            after: Duration::ZERO,
        }
    }

    fn token(text: &str, expires_in: impl Into<Value>) -> Self {
        let expires_in: Value = expires_in.into();
        Self::json(
            200,
            &json!({"access_token": text, "expires_in": expires_in, "token_type": "Bearer"}),
        )
    }

    fn rotating(text: &str, refresh_token: &str) -> Self {
        Self::json(
            200,
            &json!({"access_token": text, "expires_in": 3600, "refresh_token": refresh_token}),
        )
    }

    fn error(code: &str) -> Self {
        Self::json(400, &json!({"error": code}))
    }

    fn with(mut self, header: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((header, value.into()));
        self
    }

    fn after(mut self, wait: Duration) -> Self {
        self.after = wait;
        self
    }
}

/// What the server was asked.
#[derive(Clone)]
struct Asked {
    at: Instant,
    form: BTreeMap<String, String>,
    authorization: Option<String>,
}

impl Asked {
    fn refresh_token(&self) -> &str {
        &self.form["refresh_token"]
    }
}

#[derive(Clone)]
struct Server {
    url: url::Url,
    script: Arc<Mutex<Script>>,
}

/// Answers in turn; the last one stays.
struct Script {
    answers: VecDeque<Answer>,
    by_refresh_token: BTreeMap<String, Answer>,
    asked: Vec<Asked>,
}

impl Server {
    async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/oauth2/token", listener.local_addr().unwrap());
        let server = Self {
            url: url.parse().unwrap(),
            script: Arc::new(Mutex::new(Script {
                answers: answers.into_iter().collect(),
                by_refresh_token: BTreeMap::new(),
                asked: Vec::new(),
            })),
        };
        let router = Router::new()
            .route("/oauth2/token", post(answer))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn then(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().unwrap().answers = answers.into_iter().collect();
    }

    fn for_refresh_token(self, token: &str, answer: Answer) -> Self {
        let mut script = self.script.lock().unwrap();
        script.by_refresh_token.insert(token.to_owned(), answer);
        drop(script);
        self
    }

    fn asked(&self) -> Vec<Asked> {
        self.script.lock().unwrap().asked.clone()
    }

    fn asked_with(&self) -> Vec<String> {
        self.asked()
            .iter()
            .map(|asked| asked.refresh_token().to_owned())
            .collect()
    }
}

async fn answer(
    Extract(server): Extract<Server>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let answer = {
        let mut script = server.script.lock().unwrap();
        let own = script.by_refresh_token.get(&form["refresh_token"]).cloned();
        script.asked.push(Asked {
            at: Instant::now(),
            authorization: headers
                .get("authorization")
                .map(|value| value.to_str().unwrap().to_owned()),
            form,
        });
        own.unwrap_or_else(|| match script.answers.len() {
            1 => script.answers[0].clone(),
            _ => script.answers.pop_front().unwrap(),
        })
    };
    time::sleep(answer.after).await;
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    response.body(Body::from(answer.body)).unwrap()
}

fn oauth(server: &Server) -> Oauth {
    Oauth {
        token_url: server.url.clone(),
        authorize_url: server.url.clone(),
        scope: "aws.cognito.signin.user.admin".to_owned(),
        client_id: Credential::Inline(Secret::new("client-id")),
        client_secret: Some(Credential::Inline(Secret::new(SECRETS[0]))),
        refresh_token: Some(Credential::Inline(Secret::new(SECRETS[1]))),
        client_auth: ClientAuth::Body,
        expiry_margin: Duration::from_secs(60),
        token_store: None,
        allow_insecure: false,
    }
}

fn client(timeout: Duration) -> Client {
    http_client(
        &Api {
            url: "http://127.0.0.1".parse().unwrap(),
            timeout,
            max_concurrency: 8,
            requests_per_second: 0.0,
            max_response_bytes: 1024,
            allow_insecure: false,
            ca_file: None,
        },
        Proxies::None,
    )
    .unwrap()
}

async fn source_of(oauth: &Oauth) -> Arc<TokenSource> {
    TokenSource::new(
        oauth,
        client(Duration::from_millis(500)),
        Arc::new(Stats::new(0.0)),
    )
    .await
    .unwrap()
}

/// A source whose background loop runs as long as the test.
async fn running(oauth: &Oauth) -> Arc<TokenSource> {
    let source = source_of(oauth).await;
    tokio::spawn(Arc::clone(&source).run(CancellationToken::new()));
    source
}

async fn bearer(source: &Arc<TokenSource>) -> String {
    let bearer = source.token().await.unwrap().bearer();
    bearer.to_str().unwrap().to_owned()
}

async fn failure(answer: Answer) -> TokenError {
    let server = Server::start([answer]).await;
    source_of(&oauth(&server)).await.token().await.unwrap_err()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < Duration::from_secs(6),
            "{what} never came true"
        );
        time::sleep(Duration::from_millis(20)).await;
    }
}

fn in_file(directory: &TempDir, name: &str, text: &str) -> Credential {
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    Credential::File(path)
}

fn path_of(credential: &Credential) -> &Path {
    match credential {
        Credential::File(path) => path,
        Credential::Inline(_) => panic!("not in a file"),
    }
}

/// (requests, failures of this reason)
fn counted(source: &TokenSource, reason: Reason) -> (f64, f64) {
    let families = source.stats.gather();
    let sum = |name: &str, reason: Option<&str>| {
        families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(|family| family.get_metric())
            .filter(|metric| {
                reason.is_none_or(|reason| {
                    metric
                        .get_label()
                        .iter()
                        .any(|label| label.value() == reason)
                })
            })
            .map(|metric| metric.get_counter().get_value())
            .sum()
    };
    (
        sum("lightfi_exporter_token_refreshes_total", None),
        sum(
            "lightfi_exporter_token_refresh_failures_total",
            Some(reason.as_str()),
        ),
    )
}

#[tokio::test]
async fn two_hundred_callers_share_one_request() {
    let server =
        Server::start([Answer::token(SECRETS[2], 3600).after(Duration::from_millis(100))]).await;
    let source = source_of(&oauth(&server)).await;
    let callers: Vec<_> = (0..200)
        .map(|_| {
            let source = Arc::clone(&source);
            tokio::spawn(async move { bearer(&source).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), format!("Bearer {}", SECRETS[2]));
    }
    assert_eq!(server.asked().len(), 1);
    assert_eq!(counted(&source, Reason::Other), (1.0, 0.0));
}

#[tokio::test]
async fn a_caller_that_gives_up_takes_nobodys_token_away() {
    let server =
        Server::start([Answer::token(SECRETS[2], 3600).after(Duration::from_millis(150))]).await;
    let source = source_of(&oauth(&server)).await;
    let impatient = time::timeout(Duration::from_millis(30), source.token()).await;
    assert!(impatient.is_err());
    assert!(source.token().await.is_ok());
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn the_form_is_what_the_vendor_shows_in_both_styles() {
    let server = Server::start([Answer::token(SECRETS[2], 3600)]).await;
    let mut oauth = oauth(&server);
    source_of(&oauth).await.token().await.unwrap();
    oauth.client_auth = ClientAuth::Basic;
    oauth.client_secret = Some(Credential::Inline(Secret::new("a:b c+ü")));
    source_of(&oauth).await.token().await.unwrap();

    let [body, basic] = server.asked().try_into().ok().unwrap();
    let form = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    assert_eq!(
        body.form,
        form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", SECRETS[1]),
            ("client_id", "client-id"),
            ("client_secret", SECRETS[0]),
        ])
    );
    assert_eq!(body.authorization, None);
    assert_eq!(
        basic.form,
        form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", SECRETS[1]),
        ])
    );
    // client-id:a%3Ab+c%2B%C3%BC
    assert_eq!(
        basic.authorization.as_deref(),
        Some("Basic Y2xpZW50LWlkOmElM0FiK2MlMkIlQzMlQkM=")
    );
}

#[tokio::test]
async fn only_the_token_that_failed_is_rejected() {
    let log = Log::default();
    let _guard = log.start();
    let server = Server::start([Answer::token("first", 3600), Answer::token("second", 3600)]).await;
    let source = source_of(&oauth(&server)).await;
    let first = source.token().await.unwrap();
    assert_eq!(log.lines().len(), 1, "{}", log.text());
    source.reject(&first).await;
    let second = source.token().await.unwrap();
    assert_eq!(second.bearer(), "Bearer second");
    source.reject(&first).await;
    assert_eq!(bearer(&source).await, "Bearer second");
    assert_eq!(server.asked().len(), 2);
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "only the first is told: {lines:#?}");
    assert!(lines[0].contains("access token received"), "{lines:#?}");
}

#[tokio::test]
async fn repeated_rejections_ask_once_a_second_at_most() {
    let server = Server::start([Answer::token(SECRETS[2], 3600)]).await;
    let source = running(&oauth(&server)).await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        let token = source.token().await.unwrap();
        source.reject(&token).await;
    }
    let asked = server.asked();
    assert!((2..=4).contains(&asked.len()), "{}", asked.len());
    for pair in asked.windows(2) {
        assert!(pair[1].at - pair[0].at >= Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_short_token_is_renewed_in_the_background_before_it_ends() {
    let server = Server::start([Answer::token(SECRETS[2], 2)]).await;
    let source = running(&oauth(&server)).await;
    source.token().await.unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2600) {
        let asked_at = Instant::now();
        source.token().await.unwrap();
        assert!(
            asked_at.elapsed() < Duration::from_millis(200),
            "a caller waited"
        );
        time::sleep(Duration::from_millis(10)).await;
    }
    let asked = server.asked();
    assert!((3..=4).contains(&asked.len()), "{}", asked.len());
}

#[tokio::test]
async fn a_failing_renewal_leaves_the_living_token_in_use() {
    let server = Server::start([Answer::token(SECRETS[2], 2), Answer::text(500, "<html>")]).await;
    let source = running(&oauth(&server)).await;
    source.token().await.unwrap();
    eventually("a renewal fails", || server.asked().len() == 2).await;
    assert!(source.token().await.is_ok());
    eventually("the token ends", || !source.status().access_token_valid).await;
    assert_eq!(
        source.token().await.unwrap_err().reason(),
        Reason::ServerError
    );
}

#[tokio::test]
async fn each_failure_has_its_reason() {
    let html = "<html>nothing to see</html>";
    for (answer, reason) in [
        (Answer::text(500, html), Reason::ServerError),
        (
            Answer::error("invalid_grant").with("x", "y"),
            Reason::InvalidGrant,
        ),
        (Answer::error("invalid_client"), Reason::InvalidClient),
        (Answer::error("unauthorized_client"), Reason::InvalidClient),
        (
            Answer::json(401, &json!({"error": "invalid_client"})),
            Reason::InvalidClient,
        ),
        (
            Answer::json(503, &json!({"error": "invalid_grant"})),
            Reason::ServerError,
        ),
        (Answer::error("invalid_request"), Reason::ClientError),
        (Answer::text(400, html), Reason::ClientError),
        (Answer::text(401, html), Reason::Unauthorized),
        (Answer::text(403, html), Reason::Forbidden),
        (Answer::text(404, html), Reason::NotFound),
        (Answer::text(429, html), Reason::RateLimited),
        (
            Answer::text(302, "").with("location", "https://elsewhere.example/"),
            Reason::Redirect,
        ),
        (Answer::text(200, html), Reason::Malformed),
        (Answer::json(200, &json!([])), Reason::Malformed),
        (
            Answer::json(200, &json!({"expires_in": 5})),
            Reason::Malformed,
        ),
        (
            Answer::json(200, &json!({"access_token": 5})),
            Reason::Malformed,
        ),
        (Answer::token("", 5), Reason::Malformed),
        (Answer::token("two\nlines", 5), Reason::Malformed),
        (
            Answer::text(200, "gzip?").with("content-encoding", "gzip"),
            Reason::Malformed,
        ),
        (
            Answer::text(200, vec![b' '; 1024 * 1024 + 1]),
            Reason::TooLarge,
        ),
        (
            Answer::token("late", 5).after(Duration::from_secs(2)),
            Reason::Timeout,
        ),
    ] {
        let what = format!("{} {:?}", answer.status, answer.headers);
        assert_eq!(failure(answer).await.reason(), reason, "{what}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_a_matter_of_connecting() {
    let server = Server::start([]).await;
    let mut oauth = oauth(&server);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    oauth
        .token_url
        .set_port(Some(free.local_addr().unwrap().port()))
        .unwrap();
    drop(free);
    let source = source_of(&oauth).await;
    let error = source.token().await.unwrap_err();
    assert_eq!(error.reason(), Reason::Connect);
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(counted(&source, Reason::Connect), (1.0, 1.0));
}

#[tokio::test]
async fn during_backoff_callers_hear_of_the_last_failure_at_once() {
    let server = Server::start([Answer::text(503, "")]).await;
    let source = source_of(&oauth(&server)).await;
    let first = source.token().await.unwrap_err();
    for _ in 0..50 {
        assert_eq!(source.token().await.unwrap_err(), first);
    }
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn retry_after_is_respected_whatever_files_do() {
    let directory = TempDir::new().unwrap();
    let server = Server::start([
        Answer::text(429, "").with("retry-after", "3600"),
        Answer::token("x", 5),
    ])
    .await;
    let mut oauth = oauth(&server);
    let file = in_file(&directory, "refresh", "one");
    oauth.refresh_token = Some(file.clone());
    let source = running(&oauth).await;
    assert_eq!(
        source.token().await.unwrap_err(),
        TokenError::Unavailable {
            reason: Reason::RateLimited,
            what: "the token endpoint answered 429".to_owned(),
            retry_after: Some(Duration::from_secs(3600)),
        }
    );
    fs::write(path_of(&file), "two").unwrap();
    time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_dead_endpoint_that_comes_back_is_noticed_and_told() {
    let server = Server::start([Answer::text(503, ""), Answer::token(SECRETS[2], 3600)]).await;
    let source = running(&oauth(&server)).await;
    let mut recovered = source.recovered();
    source.token().await.unwrap_err();
    assert!(source.status().last_error.is_some());
    time::timeout(Duration::from_secs(3), recovered.changed())
        .await
        .unwrap()
        .unwrap();
    assert!(source.token().await.is_ok());
    let status = source.status();
    assert_eq!(status.last_error, None);
    assert!(status.access_token_valid);
    let now = unix_now();
    let lives_for = status.access_token_expires_at.unwrap() - now;
    assert!((lives_for - 3600.0).abs() < 5.0, "{lives_for}");
}

#[tokio::test]
async fn a_first_token_without_trouble_is_no_recovery() {
    let server = Server::start([Answer::token(SECRETS[2], 3600)]).await;
    let source = running(&oauth(&server)).await;
    let recovered = source.recovered();
    source.token().await.unwrap();
    assert!(!recovered.has_changed().unwrap());
}

#[tokio::test]
async fn a_refused_refresh_token_is_asked_with_once_and_a_new_one_is_taken_up() {
    let directory = TempDir::new().unwrap();
    let server = Server::start([Answer::error("invalid_grant")])
        .await
        .for_refresh_token("new", Answer::token(SECRETS[2], 3600));
    let mut oauth = oauth(&server);
    let file = in_file(&directory, "refresh", "old\n");
    oauth.refresh_token = Some(file.clone());
    let source = running(&oauth).await;
    let mut recovered = source.recovered();
    assert!(matches!(
        source.token().await.unwrap_err(),
        TokenError::InvalidGrant(_)
    ));
    assert_eq!(source.stats.refresh_token_valid.get(), 0.0);
    // Touched, but the same token.
    fs::write(path_of(&file), "old").unwrap();
    time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(server.asked().len(), 1);

    fs::write(path_of(&file), " new \n").unwrap();
    time::timeout(Duration::from_secs(5), recovered.changed())
        .await
        .unwrap()
        .unwrap();
    assert!(source.token().await.is_ok());
    assert_eq!(source.stats.refresh_token_valid.get(), 1.0);
    assert_eq!(server.asked_with(), ["old", "new"]);
}

#[tokio::test]
async fn two_refused_refresh_tokens_are_asked_with_once_each() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.json");
    let server = Server::start([Answer::error("invalid_grant")]).await;
    let mut oauth = oauth(&server);
    oauth.token_store = Some(path.clone());
    Store::create(path, &Secret::new("of a login"), None, 1.0).unwrap();
    let source = running(&oauth).await;
    assert_eq!(source.status().refresh_token_obtained_at, Some(1.0));
    eventually("both are refused", || server.asked().len() == 2).await;
    time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(server.asked_with(), ["of a login", SECRETS[1]]);
}

#[tokio::test]
async fn requests_after_a_reload_go_through_its_client() {
    let late = Answer::token(SECRETS[2], 3600).after(Duration::from_millis(400));
    let oauth = oauth(&Server::start([late]).await);
    let source = source_of(&oauth).await;
    for timeout in [10_000, 50] {
        let http = client(Duration::from_millis(timeout));
        let next = source.successor(&oauth, http).await.unwrap();
        assert!(Arc::ptr_eq(&next, &source));
    }
    let error = source.token().await.unwrap_err();
    assert_eq!(error.reason(), Reason::Timeout);
}

#[tokio::test]
async fn another_margin_keeps_the_token() {
    let server = Server::start([Answer::token(SECRETS[2], 3600)]).await;
    let mut oauth = oauth(&server);
    let source = source_of(&oauth).await;
    source.token().await.unwrap();
    oauth.expiry_margin += Duration::from_secs(1);
    let http = client(Duration::from_millis(500));
    let next = source.successor(&oauth, http).await.unwrap();
    assert_eq!(bearer(&next).await, format!("Bearer {}", SECRETS[2]));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn sources_of_many_reloads_ask_one_at_a_time_and_once_a_second() {
    let slow = Answer::token("a", 3600).after(Duration::from_millis(300));
    let server = Server::start([slow.clone(), slow]).await;
    let mut oauth = oauth(&server);
    let mut source = source_of(&oauth).await;
    let mut callers = Vec::new();
    let begun = Instant::now();
    for reload in 0..50 {
        let end = CancellationToken::new();
        tokio::spawn(Arc::clone(&source).run(end.clone()));
        let caller = source.clone();
        callers.push(tokio::spawn(async move { bearer(&caller).await }));
        time::sleep(Duration::from_millis(10)).await;
        if reload < 49 {
            end.cancel();
            oauth.scope = format!("of reload {reload}");
            let http = client(Duration::from_secs(5));
            source = source.successor(&oauth, http).await.unwrap();
        }
    }
    assert_eq!(bearer(&source).await, "Bearer a");
    // The request that was under way and that of the last, unless this machine takes seconds over the reloads.
    let most = 1 + begun.elapsed().as_secs();
    assert!((2..=most).contains(&(server.asked().len() as u64)));
    assert!(begun.elapsed() >= Duration::from_millis(300 + 1000 + 300));
    callers.iter().for_each(|caller| caller.abort());
}

#[tokio::test]
async fn a_request_whose_task_dies_does_not_keep_others_waiting() {
    let source = source_of(&oauth(&Server::start([Answer::token("a1", 3600)]).await)).await;
    let task = Arc::clone(&source);
    let died = tokio::spawn(async move {
        let _under_way = UnderWay(&task);
        assert_eq!(task.state().policy.demand(Duration::ZERO), Demand::Start);
        panic!("a mistake of ours");
    });
    assert!(died.await.unwrap_err().is_panic());
    let token = time::timeout(Duration::from_secs(10), source.token()).await;
    assert_eq!(token.unwrap().unwrap().bearer(), "Bearer a1");
}

#[tokio::test]
async fn a_secret_that_kubernetes_swaps_is_noticed() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (version, token) in [("..1", "old"), ("..2", "new")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("token"), token).unwrap();
    }
    std::os::unix::fs::symlink("..1", at("..data")).unwrap();
    std::os::unix::fs::symlink("..data/token", at("token")).unwrap();
    let server = Server::start([Answer::error("invalid_grant")])
        .await
        .for_refresh_token("new", Answer::token(SECRETS[2], 3600));
    let mut oauth = oauth(&server);
    oauth.refresh_token = Some(Credential::File(at("token")));
    let source = running(&oauth).await;
    source.token().await.unwrap_err();

    std::os::unix::fs::symlink("..2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    eventually("the new secret is in use", || {
        source.status().access_token_valid
    })
    .await;
}

#[tokio::test]
async fn a_refused_client_leaves_the_refresh_token_valid_and_waits_for_its_file() {
    let directory = TempDir::new().unwrap();
    let server = Server::start([Answer::error("invalid_client")]).await;
    let mut oauth = oauth(&server);
    let file = in_file(&directory, "secret", "wrong");
    oauth.client_secret = Some(file.clone());
    let source = running(&oauth).await;
    assert_eq!(
        source.token().await.unwrap_err().reason(),
        Reason::InvalidClient
    );
    assert_eq!(source.stats.refresh_token_valid.get(), 1.0);
    server.then([Answer::token(SECRETS[2], 3600)]);
    time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(server.asked().len(), 1);
    fs::write(path_of(&file), "right").unwrap();
    eventually("the new secret is in use", || {
        source.status().access_token_valid
    })
    .await;
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn without_a_refresh_token_nothing_is_asked_until_one_appears() {
    let directory = TempDir::new().unwrap();
    let server = Server::start([Answer::token(SECRETS[2], 3600)]).await;
    let mut oauth = oauth(&server);
    let path = directory.path().join("refresh");
    oauth.refresh_token = Some(Credential::File(path.clone()));
    let source = running(&oauth).await;
    assert_eq!(source.stats.refresh_token_valid.get(), 0.0);
    let error = source.token().await.unwrap_err();
    assert!(matches!(error, TokenError::RefreshTokenMissing(_)));
    assert!(error.to_string().contains("oauth.refresh_token_file"));
    assert!(error.to_string().contains(path.to_str().unwrap()));
    fs::write(&path, "\n").unwrap();
    time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(server.asked().len(), 0);
    assert_eq!(counted(&source, Reason::InvalidGrant), (0.0, 0.0));
    fs::write(&path, "there").unwrap();
    eventually("it is in use", || source.status().access_token_valid).await;
    assert_eq!(server.asked_with(), ["there"]);
    assert_eq!(source.stats.refresh_token_valid.get(), 1.0);
}

#[tokio::test]
async fn a_rotated_token_is_stored_before_the_access_token_is_used_and_survives_a_restart() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.json");
    Store::create(&path, &Secret::new("login"), None, 1_700_000_000.0).unwrap();
    let server = Server::start([Answer::error("invalid_grant")])
        .await
        .for_refresh_token("login", Answer::rotating("a1", "r1"))
        .for_refresh_token("r1", Answer::rotating("a2", "r2"));
    let mut oauth = oauth(&server);
    oauth.refresh_token = None;
    oauth.token_store = Some(path.clone());
    let stored = || {
        let record = Store::open(&path).unwrap().read().unwrap().unwrap();
        record.refresh_token.expose().to_owned()
    };

    let source = source_of(&oauth).await;
    assert_eq!(source.stats.refresh_token_obtained.get(), 1_700_000_000.0);
    assert_eq!(bearer(&source).await, "Bearer a1");
    assert_eq!(stored(), "r1");
    let restarted = source_of(&oauth).await;
    assert_eq!(bearer(&restarted).await, "Bearer a2");
    assert_eq!(stored(), "r2");
    assert_eq!(
        restarted.stats.refresh_token_obtained.get(),
        1_700_000_000.0
    );
}

#[tokio::test]
async fn the_store_wins_until_another_token_is_configured() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.json");
    let server = Server::start([Answer::token("plain", 3600)])
        .await
        .for_refresh_token("seed", Answer::rotating("a1", "r1"));
    let mut oauth = oauth(&server);
    oauth.token_store = Some(path);
    for configured in ["seed", "seed", "other"] {
        oauth.refresh_token = Some(Credential::Inline(Secret::new(configured)));
        source_of(&oauth).await.token().await.unwrap();
    }
    assert_eq!(server.asked_with(), ["seed", "r1", "other"]);
}

#[tokio::test]
async fn without_a_store_a_rotated_token_stays_in_memory() {
    let server = Server::start([Answer::error("invalid_grant")])
        .await
        .for_refresh_token(SECRETS[1], Answer::rotating("a1", "r1"))
        .for_refresh_token("r1", Answer::rotating("a2", "r2"));
    let source = source_of(&oauth(&server)).await;
    let first = source.token().await.unwrap();
    source.reject(&first).await;
    assert_eq!(bearer(&source).await, "Bearer a2");
}

#[tokio::test]
async fn a_token_that_another_process_stored_meanwhile_is_tried() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.json");
    Store::create(&path, &Secret::new("login"), None, 1.0).unwrap();
    let server = Server::start([Answer::token("plain", 3600)])
        .await
        .for_refresh_token(
            "login",
            Answer::error("invalid_grant").after(Duration::from_millis(200)),
        );
    let mut oauth = oauth(&server);
    oauth.refresh_token = None;
    oauth.token_store = Some(path.clone());
    let source = source_of(&oauth).await;
    let waiting = tokio::spawn({
        let source = Arc::clone(&source);
        async move { source.token().await }
    });
    eventually("the old one is asked with", || server.asked().len() == 1).await;
    Store::create(&path, &Secret::new("rotated elsewhere"), None, 1.0).unwrap();
    assert!(
        waiting.await.unwrap().is_ok(),
        "its caller never hears of it"
    );
    assert_eq!(server.asked_with(), ["login", "rotated elsewhere"]);
    assert_eq!(source.stats.refresh_token_valid.get(), 1.0);
}

#[tokio::test]
async fn a_store_that_fails_at_rotation_costs_nothing_and_is_written_later() {
    let directory = TempDir::new().unwrap();
    let volume = directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let server = Server::start([Answer::error("invalid_grant")])
        .await
        .for_refresh_token(SECRETS[1], Answer::rotating("a1", "r1"))
        .for_refresh_token("r1", Answer::token("a2", 3600));
    let mut oauth = oauth(&server);
    oauth.token_store = Some(volume.join("store.json"));
    let source = running_after(&oauth, || fs::remove_dir(&volume).unwrap()).await;
    let first = source.token().await.unwrap();
    assert_eq!(first.bearer(), "Bearer a1");
    source.reject(&first).await;
    assert_eq!(bearer(&source).await, "Bearer a2");
    fs::create_dir(&volume).unwrap();
    let store = volume.join("store.json");
    eventually("it is written", || store.exists()).await;
    let record = Store::open(&store).unwrap().read().unwrap().unwrap();
    assert_eq!(record.refresh_token.expose(), "r1");
}

async fn running_after(oauth: &Oauth, meanwhile: impl FnOnce()) -> Arc<TokenSource> {
    let source = source_of(oauth).await;
    meanwhile();
    tokio::spawn(Arc::clone(&source).run(CancellationToken::new()));
    source
}

#[tokio::test]
async fn what_cannot_work_is_told_at_the_start() {
    let directory = TempDir::new().unwrap();
    let server = Server::start([]).await;
    let stats = || Arc::new(Stats::new(0.0));
    let http = client(Duration::from_secs(1));
    let mut oauth = oauth(&server);
    oauth.refresh_token = None;
    let error = TokenSource::new(&oauth, http.clone(), stats()).await;
    assert!(matches!(error, Err(StartError::NoRefreshToken)));

    let Credential::File(broken) = in_file(&directory, "broken", "{") else {
        panic!("not in a file");
    };
    oauth.token_store = Some(broken.clone());
    let error = TokenSource::new(&oauth, http, stats()).await.err().unwrap();
    assert!(error.to_string().contains(broken.to_str().unwrap()));
    assert_eq!(fs::read_to_string(broken).unwrap(), "{");
}

#[tokio::test]
async fn no_secret_shows_in_errors_status_or_debug() {
    for client_auth in [ClientAuth::Body, ClientAuth::Basic] {
        let leak = format!(
            "bad \u{1b}[31m{} {} and {}\n{}",
            SECRETS[0],
            SECRETS[1],
            "Y2xpZW50LWlkOmNsaWVudC1zM2NyZXQ=",
            "x".repeat(500)
        );
        let server = Server::start([Answer::json(
            400,
            &json!({"error": "invalid_grant", "error_description": leak}),
        )])
        .await;
        let mut oauth = oauth(&server);
        oauth.client_auth = client_auth;
        let source = source_of(&oauth).await;
        let error = source.token().await.unwrap_err();
        let shown = format!("{error} {error:?} {:?}", source.status());
        assert!(shown.contains("bad"), "{shown}");
        for secret in SECRETS {
            assert!(!shown.contains(secret), "{shown}");
        }
        if client_auth == ClientAuth::Basic {
            assert!(!shown.contains("Y2xpZW50"), "{shown}");
        }
        assert!(!error.to_string().contains(char::is_control));
        assert!(error.to_string().len() < 400);
    }
    let server = Server::start([Answer::token(SECRETS[2], 3600)]).await;
    let source = source_of(&oauth(&server)).await;
    let token = source.token().await.unwrap();
    assert!(!format!("{token:?} {:?}", token.bearer()).contains(SECRETS[2]));
    assert_eq!(source.scrub(SECRETS[2]), "<secret>");
    assert_eq!(source.conceal(format!("of {}", SECRETS[2])), "of <secret>");
}

#[tokio::test]
async fn shutdown_waits_for_the_answer_that_may_bring_a_rotated_token() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.json");
    let server =
        Server::start([Answer::rotating("a1", "r1").after(Duration::from_millis(300))]).await;
    let mut oauth = oauth(&server);
    oauth.token_store = Some(path.clone());
    let source = source_of(&oauth).await;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(source.run(shutdown.clone()));
    eventually("a request is under way", || server.asked().len() == 1).await;
    shutdown.cancel();
    running.await.unwrap();
    let record = Store::open(path).unwrap().read().unwrap().unwrap();
    assert_eq!(record.refresh_token.expose(), "r1");
}

#[tokio::test]
async fn trouble_is_one_line_when_it_starts_and_one_when_it_ends_and_no_level_shows_a_secret() {
    let log = Log::default();
    let _guard = log.start();
    let leak = json!({
        "error": "temporarily_unavailable",
        "error_description": format!("{} {}", SECRETS[0], SECRETS[1]),
    });
    let server = Server::start([
        Answer::json(503, &leak),
        Answer::json(503, &leak),
        Answer::rotating(SECRETS[2], "rotated-s3cret"),
    ])
    .await;
    let mut oauth = oauth(&server);
    oauth.client_auth = ClientAuth::Basic;
    let source = running(&oauth).await;
    let mut recovered = source.recovered();
    source.token().await.unwrap_err();
    assert_eq!(log.lines().len(), 1, "{}", log.text());
    time::timeout(Duration::from_secs(5), recovered.changed())
        .await
        .unwrap()
        .unwrap();

    let lines = log.lines();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(lines[0].contains("WARN") && lines[0].contains("server_error"));
    assert!(lines[0].contains("advice"), "{}", lines[0]);
    assert!(lines[1].contains("no oauth.token_store"), "{}", lines[1]);
    assert!(lines[2].contains("INFO") && lines[2].contains("again"));
    for secret in SECRETS.iter().chain(&["rotated-s3cret", "Y2xpZW50"]) {
        assert!(!log.text().contains(secret), "{}", log.text());
    }
    assert!(log.text().contains("TRACE"), "nothing was listened to");
}

#[tokio::test]
async fn a_store_that_breaks_later_is_told_once_and_the_token_in_memory_stands_in_for_it() {
    let log = Log::default();
    let _guard = log.start();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.json");
    let server = Server::start([Answer::token("a1", 3600)]).await;
    let mut oauth = oauth(&server);
    oauth.refresh_token = None;
    oauth.token_store = Some(path.clone());
    Store::create(&path, &Secret::new("kept"), None, 1.0).unwrap();
    let whole = fs::read(&path).unwrap();
    let source = source_of(&oauth).await;
    for times in 1..3 {
        for contents in ["broken".as_bytes(), "broken".as_bytes(), &whole] {
            fs::write(&path, contents).unwrap();
            let credentials = source.vault.read().unwrap();
            assert_eq!(credentials.best.refresh_token.expose(), "kept");
            let lines = log.lines();
            assert_eq!(lines.len(), times, "{lines:#?}");
            assert!(
                lines[0].contains("cannot use the token store"),
                "{lines:#?}"
            );
        }
    }
}

#[tokio::test]
async fn shutdown_waits_for_nothing_where_no_request_is_under_way() {
    let log = Log::default();
    let _guard = log.start();
    let server = Server::start([Answer::token("a1", 3600)]).await;
    let source = source_of(&oauth(&server)).await;
    source.token().await.unwrap();
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    source.run(shutdown).await;
    let text = log.text();
    assert!(!text.contains("without the answer"), "{text}");
}
