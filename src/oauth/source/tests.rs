//! The source with a scripted token server on loopback, in real time.

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
    config::{Api, ClientAuth, Credential, Secret},
    http::{Proxies, http_client},
    oauth::store::Store,
    test_logs::CapturedLogs,
};

const SECRETS: [&str; 3] = ["client-s3cret", "refresh-s3cret", "access-s3cret"];

/// One scripted reply.
#[derive(Clone)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    after: Duration,
}

impl Reply {
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

/// A request that the server received.
#[derive(Clone)]
struct Received {
    at: Instant,
    form: BTreeMap<String, String>,
    authorization: Option<String>,
}

impl Received {
    fn refresh_token(&self) -> &str {
        &self.form["refresh_token"]
    }
}

#[derive(Clone)]
struct Server {
    url: url::Url,
    script: Arc<Mutex<Script>>,
}

/// Replies are sent one after the other; the last one is repeated.
struct Script {
    replies: VecDeque<Reply>,
    by_refresh_token: BTreeMap<String, Reply>,
    received: Vec<Received>,
}

impl Server {
    async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/oauth2/token", listener.local_addr().unwrap());
        let server = Self {
            url: url.parse().unwrap(),
            script: Arc::new(Mutex::new(Script {
                replies: replies.into_iter().collect(),
                by_refresh_token: BTreeMap::new(),
                received: Vec::new(),
            })),
        };
        let router = Router::new()
            .route("/oauth2/token", post(reply))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn then(&self, replies: impl IntoIterator<Item = Reply>) {
        self.script.lock().unwrap().replies = replies.into_iter().collect();
    }

    fn for_refresh_token(self, token: &str, reply: Reply) -> Self {
        let mut script = self.script.lock().unwrap();
        script.by_refresh_token.insert(token.to_owned(), reply);
        drop(script);
        self
    }

    fn requests(&self) -> Vec<Received> {
        self.script.lock().unwrap().received.clone()
    }

    fn refresh_tokens(&self) -> Vec<String> {
        self.requests()
            .iter()
            .map(|request| request.refresh_token().to_owned())
            .collect()
    }
}

async fn reply(
    Extract(server): Extract<Server>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let reply = {
        let mut script = server.script.lock().unwrap();
        let own = script.by_refresh_token.get(&form["refresh_token"]).cloned();
        script.received.push(Received {
            at: Instant::now(),
            authorization: headers
                .get("authorization")
                .map(|value| value.to_str().unwrap().to_owned()),
            form,
        });
        own.unwrap_or_else(|| match script.replies.len() {
            1 => script.replies[0].clone(),
            _ => script.replies.pop_front().unwrap(),
        })
    };
    sleep(reply.after).await;
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    response.body(Body::from(reply.body)).unwrap()
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

async fn failure(reply: Reply) -> TokenError {
    let server = Server::start([reply]).await;
    source_of(&oauth(&server)).await.token().await.unwrap_err()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < Duration::from_secs(6),
            "{what} never came true"
        );
        sleep(Duration::from_millis(20)).await;
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
        Server::start([Reply::token(SECRETS[2], 3600).after(Duration::from_millis(100))]).await;
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
    assert_eq!(server.requests().len(), 1);
    assert_eq!(counted(&source, Reason::Other), (1.0, 0.0));
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_cancel_the_request() {
    let server =
        Server::start([Reply::token(SECRETS[2], 3600).after(Duration::from_millis(150))]).await;
    let source = source_of(&oauth(&server)).await;
    let impatient = timeout(Duration::from_millis(30), source.token()).await;
    assert!(impatient.is_err());
    assert!(source.token().await.is_ok());
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn the_request_form_matches_the_api_documentation_for_both_kinds_of_client_authentication() {
    let server = Server::start([Reply::token(SECRETS[2], 3600)]).await;
    let mut oauth = oauth(&server);
    source_of(&oauth).await.token().await.unwrap();
    oauth.client_auth = ClientAuth::Basic;
    oauth.client_secret = Some(Credential::Inline(Secret::new("a:b c+ü")));
    source_of(&oauth).await.token().await.unwrap();

    let [body, basic] = server.requests().try_into().ok().unwrap();
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
    let log = CapturedLogs::default();
    let _guard = log.start();
    let server = Server::start([Reply::token("first", 3600), Reply::token("second", 3600)]).await;
    let source = source_of(&oauth(&server)).await;
    let first = source.token().await.unwrap();
    assert_eq!(log.lines().len(), 1, "{}", log.text());
    source.reject(&first);
    let second = source.token().await.unwrap();
    assert_eq!(second.bearer(), "Bearer second");
    source.reject(&first);
    assert_eq!(bearer(&source).await, "Bearer second");
    assert_eq!(server.requests().len(), 2);
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "only the first is told: {lines:#?}");
    assert!(lines[0].contains("access token received"), "{lines:#?}");
}

#[tokio::test]
async fn repeated_rejections_cause_at_most_one_request_a_second() {
    let server = Server::start([Reply::token(SECRETS[2], 3600)]).await;
    let source = running(&oauth(&server)).await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        let token = source.token().await.unwrap();
        source.reject(&token);
    }
    let asked = server.requests();
    assert!((2..=4).contains(&asked.len()), "{}", asked.len());
    for pair in asked.windows(2) {
        assert!(pair[1].at - pair[0].at >= Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_short_token_is_renewed_in_the_background_before_it_ends() {
    let server = Server::start([Reply::token(SECRETS[2], 2)]).await;
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
        sleep(Duration::from_millis(10)).await;
    }
    let asked = server.requests();
    assert!((3..=4).contains(&asked.len()), "{}", asked.len());
}

#[tokio::test]
async fn a_failed_renewal_leaves_the_valid_token_in_use() {
    let server = Server::start([Reply::token(SECRETS[2], 2), Reply::text(500, "<html>")]).await;
    let source = running(&oauth(&server)).await;
    source.token().await.unwrap();
    eventually("a renewal fails", || server.requests().len() == 2).await;
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
    for (reply, reason) in [
        (Reply::text(500, html), Reason::ServerError),
        (
            Reply::error("invalid_grant").with("x", "y"),
            Reason::InvalidGrant,
        ),
        (Reply::error("invalid_client"), Reason::InvalidClient),
        (Reply::error("unauthorized_client"), Reason::InvalidClient),
        (
            Reply::json(401, &json!({"error": "invalid_client"})),
            Reason::InvalidClient,
        ),
        (
            Reply::json(503, &json!({"error": "invalid_grant"})),
            Reason::ServerError,
        ),
        (Reply::error("invalid_request"), Reason::ClientError),
        (Reply::text(400, html), Reason::ClientError),
        (Reply::text(401, html), Reason::Unauthorized),
        (Reply::text(403, html), Reason::Forbidden),
        (Reply::text(404, html), Reason::NotFound),
        (Reply::text(429, html), Reason::RateLimited),
        (
            Reply::text(302, "").with("location", "https://elsewhere.example/"),
            Reason::Redirect,
        ),
        (Reply::text(200, html), Reason::Malformed),
        (Reply::json(200, &json!([])), Reason::Malformed),
        (
            Reply::json(200, &json!({"expires_in": 5})),
            Reason::Malformed,
        ),
        (
            Reply::json(200, &json!({"access_token": 5})),
            Reason::Malformed,
        ),
        (Reply::token("", 5), Reason::Malformed),
        (Reply::token("two\nlines", 5), Reason::Malformed),
        (
            Reply::text(200, "gzip?").with("content-encoding", "gzip"),
            Reason::Malformed,
        ),
        (
            Reply::text(200, vec![b' '; 1024 * 1024 + 1]),
            Reason::TooLarge,
        ),
        (
            Reply::token("late", 5).after(Duration::from_secs(2)),
            Reason::Timeout,
        ),
    ] {
        let what = format!("{} {:?}", reply.status, reply.headers);
        assert_eq!(failure(reply).await.reason(), reason, "{what}");
    }
}

#[tokio::test]
async fn an_unreachable_endpoint_is_a_connect_failure() {
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
async fn recovery_of_the_endpoint_is_noticed_and_announced() {
    let server = Server::start([Reply::text(503, ""), Reply::token(SECRETS[2], 3600)]).await;
    let source = running(&oauth(&server)).await;
    let mut recovered = source.recovered();
    source.token().await.unwrap_err();
    assert!(source.status().last_error.is_some());
    timeout(Duration::from_secs(3), recovered.changed())
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
async fn a_first_token_without_a_failure_is_no_recovery() {
    let server = Server::start([Reply::token(SECRETS[2], 3600)]).await;
    let source = running(&oauth(&server)).await;
    let recovered = source.recovered();
    source.token().await.unwrap();
    assert!(!recovered.has_changed().unwrap());
}

#[tokio::test]
async fn a_refused_refresh_token_is_sent_once_and_a_new_one_is_picked_up() {
    let directory = TempDir::new().unwrap();
    let server = Server::start([Reply::error("invalid_grant")])
        .await
        .for_refresh_token("new", Reply::token(SECRETS[2], 3600));
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
    sleep(Duration::from_millis(1300)).await;
    assert_eq!(server.requests().len(), 1);

    fs::write(path_of(&file), " new \n").unwrap();
    timeout(Duration::from_secs(5), recovered.changed())
        .await
        .unwrap()
        .unwrap();
    assert!(source.token().await.is_ok());
    assert_eq!(source.stats.refresh_token_valid.get(), 1.0);
    assert_eq!(server.refresh_tokens(), ["old", "new"]);
}

#[tokio::test]
async fn two_refused_refresh_tokens_are_sent_once_each() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.json");
    let server = Server::start([Reply::error("invalid_grant")]).await;
    let mut oauth = oauth(&server);
    oauth.token_store = Some(path.clone());
    Store::create(path, &Secret::new("of a login"), None, 1.0).unwrap();
    let source = running(&oauth).await;
    assert_eq!(source.status().refresh_token_obtained_at, Some(1.0));
    eventually("both are refused", || server.requests().len() == 2).await;
    sleep(Duration::from_millis(2500)).await;
    assert_eq!(server.refresh_tokens(), ["of a login", SECRETS[1]]);
}

#[tokio::test]
async fn requests_after_a_reload_use_its_http_client() {
    let late = Reply::token(SECRETS[2], 3600).after(Duration::from_millis(400));
    let oauth = oauth(&Server::start([late]).await);
    let source = source_of(&oauth).await;
    for timeout in [10_000, 50] {
        let http = client(Duration::from_millis(timeout));
        let next = source.rebuild_with(&oauth, http).await.unwrap();
        assert!(Arc::ptr_eq(&next, &source));
    }
    let error = source.token().await.unwrap_err();
    assert_eq!(error.reason(), Reason::Timeout);
}

#[tokio::test]
async fn requests_stay_single_and_one_a_second_over_many_reloads() {
    let slow = Reply::token("a", 3600).after(Duration::from_millis(300));
    let server = Server::start([slow.clone(), slow]).await;
    let mut oauth = oauth(&server);
    let mut source = source_of(&oauth).await;
    let mut callers = Vec::new();
    let begun = Instant::now();
    for reload in 0..50 {
        let end = CancellationToken::new();
        tokio::spawn(Arc::clone(&source).run(end.clone()));
        let caller = source.clone();
        callers.push(tokio::spawn(async move { caller.token().await.is_ok() }));
        sleep(Duration::from_millis(10)).await;
        if reload < 49 {
            end.cancel();
            oauth.scope = format!("of reload {reload}");
            let http = client(Duration::from_secs(5));
            source = source.rebuild_with(&oauth, http).await.unwrap();
        }
    }
    assert_eq!(bearer(&source).await, "Bearer a");
    // The request that was under way and that of the last, unless this machine takes seconds over the reloads.
    let most = 1 + begun.elapsed().as_secs();
    assert!((2..=most).contains(&(server.requests().len() as u64)));
    assert!(begun.elapsed() >= Duration::from_millis(300 + 1000 + 300));
    callers.iter().for_each(|caller| caller.abort());
}

#[tokio::test]
async fn a_panic_during_a_request_does_not_block_the_next() {
    let source = source_of(&oauth(&Server::start([Reply::token("a1", 3600)]).await)).await;
    let task = Arc::clone(&source);
    let died = tokio::spawn(async move {
        let _guard = RefreshGuard(&task);
        assert!(task.schedule().start_if_due(Duration::ZERO));
        panic!("a bug");
    });
    assert!(died.await.unwrap_err().is_panic());
    let token = timeout(Duration::from_secs(10), source.token()).await;
    assert_eq!(token.unwrap().unwrap().bearer(), "Bearer a1");
}

#[tokio::test]
async fn a_refused_client_leaves_the_refresh_token_valid_and_waits_for_its_file() {
    let directory = TempDir::new().unwrap();
    let server = Server::start([Reply::error("invalid_client")]).await;
    let mut oauth = oauth(&server);
    let file = in_file(&directory, "secret", "wrong");
    oauth.client_secret = Some(file.clone());
    let source = running(&oauth).await;
    assert_eq!(
        source.token().await.unwrap_err().reason(),
        Reason::InvalidClient
    );
    assert_eq!(source.stats.refresh_token_valid.get(), 1.0);
    server.then([Reply::token(SECRETS[2], 3600)]);
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(server.requests().len(), 1);
    fs::write(path_of(&file), "right").unwrap();
    eventually("the new secret is in use", || {
        source.status().access_token_valid
    })
    .await;
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn without_a_refresh_token_no_request_is_sent_until_one_appears() {
    let directory = TempDir::new().unwrap();
    let server = Server::start([Reply::token(SECRETS[2], 3600)]).await;
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
    sleep(Duration::from_millis(1300)).await;
    assert_eq!(server.requests().len(), 0);
    assert_eq!(counted(&source, Reason::InvalidGrant), (0.0, 0.0));
    fs::write(&path, "there").unwrap();
    eventually("it is in use", || source.status().access_token_valid).await;
    assert_eq!(server.refresh_tokens(), ["there"]);
    assert_eq!(source.stats.refresh_token_valid.get(), 1.0);
}

#[tokio::test]
async fn a_rotated_token_is_stored_before_the_access_token_is_used_and_survives_a_restart() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.json");
    Store::create(&path, &Secret::new("login"), None, 1_700_000_000.0).unwrap();
    let server = Server::start([Reply::error("invalid_grant")])
        .await
        .for_refresh_token("login", Reply::rotating("a1", "r1"))
        .for_refresh_token("r1", Reply::rotating("a2", "r2"));
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
async fn a_token_stored_by_another_process_during_the_request_is_tried() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.json");
    Store::create(&path, &Secret::new("login"), None, 1.0).unwrap();
    let server = Server::start([Reply::token("plain", 3600)])
        .await
        .for_refresh_token(
            "login",
            Reply::error("invalid_grant").after(Duration::from_millis(200)),
        );
    let mut oauth = oauth(&server);
    oauth.refresh_token = None;
    oauth.token_store = Some(path.clone());
    let source = source_of(&oauth).await;
    let waiting = tokio::spawn({
        let source = Arc::clone(&source);
        async move { source.token().await }
    });
    eventually("the old one is asked with", || server.requests().len() == 1).await;
    Store::create(&path, &Secret::new("rotated elsewhere"), None, 1.0).unwrap();
    assert!(
        waiting.await.unwrap().is_ok(),
        "its caller never hears of it"
    );
    assert_eq!(server.refresh_tokens(), ["login", "rotated elsewhere"]);
    assert_eq!(source.stats.refresh_token_valid.get(), 1.0);
}

#[tokio::test]
async fn unusable_configurations_are_refused_at_the_start() {
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
async fn no_secret_appears_in_errors_status_or_debug_output() {
    for client_auth in [ClientAuth::Body, ClientAuth::Basic] {
        let leak = format!(
            "bad \u{1b}[31m{} {} and {}\n{}",
            SECRETS[0],
            SECRETS[1],
            "Y2xpZW50LWlkOmNsaWVudC1zM2NyZXQ=",
            "x".repeat(500)
        );
        let server = Server::start([Reply::json(
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
    let server = Server::start([Reply::token(SECRETS[2], 3600)]).await;
    let source = source_of(&oauth(&server)).await;
    let token = source.token().await.unwrap();
    assert!(!format!("{token:?} {:?}", token.bearer()).contains(SECRETS[2]));
    assert_eq!(source.redact(SECRETS[2]), "<secret>");
    assert_eq!(
        source.redact_name(format!("of {}", SECRETS[2])),
        "of <secret>"
    );
}

#[tokio::test]
async fn shutdown_waits_for_a_reply_that_may_contain_a_rotated_token() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.json");
    let server =
        Server::start([Reply::rotating("a1", "r1").after(Duration::from_millis(300))]).await;
    let mut oauth = oauth(&server);
    oauth.token_store = Some(path.clone());
    let source = source_of(&oauth).await;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(source.run(shutdown.clone()));
    eventually("a request is under way", || server.requests().len() == 1).await;
    shutdown.cancel();
    running.await.unwrap();
    let record = Store::open(path).unwrap().read().unwrap().unwrap();
    assert_eq!(record.refresh_token.expose(), "r1");
}

#[tokio::test]
async fn a_failure_is_logged_once_when_it_starts_and_once_when_it_ends_without_secrets() {
    let log = CapturedLogs::default();
    let _guard = log.start();
    let leak = json!({
        "error": "temporarily_unavailable",
        "error_description": format!("{} {}", SECRETS[0], SECRETS[1]),
    });
    let server = Server::start([
        Reply::json(503, &leak),
        Reply::json(503, &leak),
        Reply::rotating(SECRETS[2], "rotated-s3cret"),
    ])
    .await;
    let mut oauth = oauth(&server);
    oauth.client_auth = ClientAuth::Basic;
    let source = running(&oauth).await;
    let mut recovered = source.recovered();
    source.token().await.unwrap_err();
    assert_eq!(log.lines().len(), 1, "{}", log.text());
    timeout(Duration::from_secs(5), recovered.changed())
        .await
        .unwrap()
        .unwrap();

    let lines = log.lines();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].contains("WARN") && lines[0].contains("server_error"));
    assert!(lines[0].contains("advice"), "{}", lines[0]);
    assert!(lines[1].contains("INFO") && lines[1].contains("recovered"));
    for secret in SECRETS.iter().chain(&["rotated-s3cret", "Y2xpZW50"]) {
        assert!(!log.text().contains(secret), "{}", log.text());
    }
    assert!(log.text().contains("TRACE"), "nothing was listened to");
}

#[tokio::test]
async fn shutdown_does_not_wait_if_no_request_is_in_flight() {
    let log = CapturedLogs::default();
    let _guard = log.start();
    let server = Server::start([Reply::token("a1", 3600)]).await;
    let source = source_of(&oauth(&server)).await;
    source.token().await.unwrap();
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    source.run(shutdown).await;
    let text = log.text();
    assert!(!text.contains("in flight"), "{text}");
}
