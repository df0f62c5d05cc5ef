//! The source with a token server on loopback, in real time.

#![allow(clippy::unwrap_used)]

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::{
    config::{ClientAuth, Credential, Secret},
    oauth::{
        store::TokenStore,
        test_fixtures::{CLIENT_SECRET, REFRESH_TOKEN, Reply, Server, client, inline},
    },
};

/// Longer than the interval at which files are read again.
const TWO_FILE_CHECKS: Duration = Duration::from_millis(2500);

async fn source_of(oauth: &Oauth) -> Arc<TokenSource> {
    let http = client(Duration::from_millis(500));
    let stats = Arc::new(Stats::new(0.0));
    TokenSource::new(oauth, http, stats).await.unwrap()
}

/// Returns a source whose background loop runs as long as the test.
async fn running(oauth: &Oauth) -> Arc<TokenSource> {
    let source = source_of(oauth).await;
    tokio::spawn(Arc::clone(&source).run(CancellationToken::new()));
    source
}

async fn bearer(source: &Arc<TokenSource>) -> String {
    let bearer = source.token().await.unwrap().bearer();
    bearer.to_str().unwrap().to_owned()
}

/// Waits at most 10 s.
async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), event).await.unwrap()
}

async fn until(mut condition: impl FnMut() -> bool) {
    soon(async {
        while !condition() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn two_hundred_callers_share_one_request_even_if_the_first_gives_up() {
    let server = Server::start(|_, _| Reply::token("a").after_ms(150)).await;
    let source = source_of(&server.oauth()).await;
    let first = timeout(Duration::from_millis(30), source.token()).await;
    assert!(first.is_err());
    let callers = (0..200).map(|_| bearer(&source));
    for bearer in futures_util::future::join_all(callers).await {
        assert_eq!(bearer, "Bearer a");
    }
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn the_form_has_the_client_s_credentials_and_with_basic_the_header_has_them() {
    let server = Server::start(|_, _| Reply::token("a")).await;
    let mut oauth = server.oauth();
    source_of(&oauth).await.token().await.unwrap();
    oauth.client_auth = ClientAuth::Basic;
    oauth.client_secret = Some(inline("a:b c+ü"));
    source_of(&oauth).await.token().await.unwrap();

    let [body, basic] = server.requests().try_into().ok().unwrap();
    let grant = [
        ("grant_type", "refresh_token"),
        ("refresh_token", REFRESH_TOKEN),
    ];
    let client = [("client_id", "client-id"), ("client_secret", CLIENT_SECRET)];
    let form = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect()
    };
    assert_eq!(body.form, form(&[grant, client].concat()));
    assert_eq!(body.authorization, None);
    assert_eq!(basic.form, form(&grant));
    // The decoded text is client-id:a%3Ab+c%2B%C3%BC
    let encoded = "Basic Y2xpZW50LWlkOmElM0FiK2MlMkIlQzMlQkM=";
    assert_eq!(basic.authorization.as_deref(), Some(encoded));
}

/// The header contains the base64 of the form-encoded secret, which differs from the base64 of the secret.
#[tokio::test]
async fn a_server_that_repeats_the_basic_credentials_reveals_nothing() {
    // The decoded text is client-id:a%3Ab+c%2B%C3%BC
    let basic = "Y2xpZW50LWlkOmElM0FiK2MlMkIlQzMlQkM=";
    let error = json!({"error": "invalid_request", "error_description": basic});
    let server = Server::start(move |_, _| Reply::text(400, &error)).await;
    let oauth = Oauth {
        client_secret: Some(inline("a:b c+\u{fc}")),
        client_auth: ClientAuth::Basic,
        ..server.oauth()
    };
    let error = source_of(&oauth).await.token().await.unwrap_err();
    let shown = error.to_string();
    assert!(shown.contains("invalid_request"), "{shown}");
    assert!(!shown.contains(&basic[13..]), "{shown}");
}

#[tokio::test]
async fn only_the_caller_whose_token_was_rejected_waits_for_the_next_one() {
    let server = Server::start(|earlier, _| match earlier {
        0 => Reply::token("first"),
        _ => Reply::token("second").after_ms(100),
    })
    .await;
    let source = source_of(&server.oauth()).await;
    let recovered = source.recovered();
    let first = source.token().await.unwrap();
    let (next, meanwhile) = tokio::join!(source.replace(&first), async {
        until(|| server.requests().len() == 2).await;
        bearer(&source).await
    });
    assert_eq!(next.unwrap().bearer(), "Bearer second");
    assert_eq!(meanwhile, "Bearer first");
    let late = source.replace(&first).await.unwrap();
    assert_eq!(late.bearer(), "Bearer second", "it was replaced before");
    assert_eq!(server.requests().len(), 2);
    assert!(!recovered.has_changed().unwrap(), "nothing had failed");
}

#[tokio::test]
async fn each_failure_of_the_transport_has_its_reason() {
    let too_long = 64 * 1024 + 1;
    for (status, length, delay, reason) in [
        (200, too_long, 0, Reason::TooLarge),
        (500, too_long, 0, Reason::ServerError),
        (200, 0, 2000, Reason::Timeout),
    ] {
        let reply = move |_, _: &str| Reply::text(status, " ".repeat(length)).after_ms(delay);
        let server = Server::start(reply).await;
        let source = source_of(&server.oauth()).await;
        let error = source.token().await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
    }
}

#[tokio::test]
async fn each_refused_refresh_token_is_sent_once_and_a_new_one_is_picked_up() {
    let directory = TempDir::new().unwrap();
    let [store, file] = ["store.json", "token"].map(|name| directory.path().join(name));
    TokenStore::create(&store, &Secret::new("login"), None, 1.0).unwrap();
    fs::write(&file, "configured").unwrap();
    let server = Server::start(|_, refresh_token| match refresh_token {
        "new" => Reply::token("a"),
        _ => Reply::invalid_grant(),
    })
    .await;
    let mut oauth = server.oauth();
    oauth.refresh_token = Some(Credential::File(file.clone()));
    oauth.token_store = Some(store);
    let source = running(&oauth).await;
    let mut recovered = source.recovered();
    let error = source.token().await.unwrap_err();
    assert!(matches!(error, TokenError::InvalidGrant(_)));
    assert_eq!(source.stats.refresh_token_valid.get(), 0.0);
    // The file is written again, but with the same token.
    fs::write(&file, "configured\n").unwrap();
    sleep(TWO_FILE_CHECKS).await;
    assert_eq!(server.refresh_tokens(), ["login", "configured"]);

    fs::write(&file, " new \n").unwrap();
    soon(recovered.changed()).await.unwrap();
    assert!(source.token().await.is_ok());
    assert_eq!(source.stats.refresh_token_valid.get(), 1.0);
    assert_eq!(server.refresh_tokens().last().unwrap(), "new");
}

#[tokio::test]
async fn without_a_refresh_token_no_request_is_sent_until_one_appears() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("token");
    let server = Server::start(|_, _| Reply::token("a")).await;
    let mut oauth = server.oauth();
    oauth.refresh_token = Some(Credential::File(file.clone()));
    let source = running(&oauth).await;
    let error = source.token().await.unwrap_err();
    assert!(matches!(error, TokenError::RefreshTokenMissing(_)));
    let text = error.to_string();
    assert!(text.contains("oauth.refresh_token_file") && text.contains(file.to_str().unwrap()));
    assert_eq!(source.stats.refresh_token_valid.get(), 0.0);
    fs::write(&file, "\n").unwrap();
    sleep(TWO_FILE_CHECKS).await;
    assert_eq!(server.requests().len(), 0);
    fs::write(&file, "new").unwrap();
    until(|| source.status().access_token_valid).await;
    assert_eq!(server.refresh_tokens(), ["new"]);
    assert_eq!(source.stats.refresh_token_valid.get(), 1.0);
}

#[tokio::test]
async fn a_rotated_token_is_stored_before_the_access_token_is_used_and_survives_a_restart() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.json");
    let store = TokenStore::create(&path, &Secret::new("login"), None, 1.5).unwrap();
    let server = Server::start(|_, refresh_token| match refresh_token {
        "login" => Reply::rotating("a1", "r1"),
        _ => Reply::rotating("a2", "r2"),
    })
    .await;
    let mut oauth = server.oauth();
    oauth.refresh_token = None;
    oauth.token_store = Some(path);
    for (access_token, rotated) in [("Bearer a1", "r1"), ("Bearer a2", "r2")] {
        let source = source_of(&oauth).await;
        assert_eq!(bearer(&source).await, access_token);
        let stored = store.read().unwrap().unwrap();
        assert_eq!(stored.refresh_token.expose(), rotated);
        assert_eq!(source.status().refresh_token_obtained_at, Some(1.5));
    }
}

#[tokio::test]
async fn a_token_stored_by_another_process_during_the_request_is_tried() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.json");
    TokenStore::create(&path, &Secret::new("login"), None, 1.0).unwrap();
    let server = Server::start(|_, refresh_token| match refresh_token {
        "login" => Reply::invalid_grant().after_ms(200),
        _ => Reply::token("a"),
    })
    .await;
    let mut oauth = server.oauth();
    oauth.refresh_token = None;
    oauth.token_store = Some(path.clone());
    let source = source_of(&oauth).await;
    let (token, ()) = tokio::join!(source.token(), async {
        until(|| server.requests().len() == 1).await;
        TokenStore::create(&path, &Secret::new("rotated"), None, 1.0).unwrap();
    });
    assert!(token.is_ok(), "the caller does not notice the refusal");
    assert_eq!(server.refresh_tokens(), ["login", "rotated"]);
    assert_eq!(source.stats.refresh_token_valid.get(), 1.0);
}

#[tokio::test]
async fn no_secret_appears_in_errors_status_or_debug_output() {
    // client-id:client-s3cret
    let basic = "Y2xpZW50LWlkOmNsaWVudC1zM2NyZXQ=";
    let description = format!(
        "bad \u{1b}[31m{CLIENT_SECRET} {REFRESH_TOKEN} and {basic}\n{}",
        "x".repeat(500)
    );
    let error = json!({"error": "invalid_grant", "error_description": description});
    let server = Server::start(move |_, _| Reply::text(400, &error)).await;
    let source = source_of(&server.oauth()).await;
    let error = source.token().await.unwrap_err();
    let shown = format!("{error} {error:?} {:?}", source.status());
    assert!(shown.contains("bad"), "{shown}");
    // The end of the base64 text encodes the secret.
    for secret in ["s3cret", &basic[18..]] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(!error.to_string().contains(char::is_control));
    assert!(error.to_string().len() < 400);
}

#[tokio::test]
async fn requests_after_a_reload_use_its_http_client() {
    let server = Server::start(|_, _| Reply::token("a").after_ms(400)).await;
    let oauth = server.oauth();
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
    let server = Server::start(|_, _| Reply::token("a").after_ms(300)).await;
    let mut oauth = server.oauth();
    let mut source = source_of(&oauth).await;
    let start = std::time::Instant::now();
    for reload in 0..50 {
        let shutdown = CancellationToken::new();
        tokio::spawn(Arc::clone(&source).run(shutdown.clone()));
        let caller = source.clone();
        tokio::spawn(async move { caller.token().await.is_ok() });
        sleep(Duration::from_millis(10)).await;
        if reload < 49 {
            shutdown.cancel();
            oauth.scope = format!("scope {reload}");
            let http = client(Duration::from_secs(5));
            source = source.rebuild_with(&oauth, http).await.unwrap();
        }
    }
    assert_eq!(bearer(&source).await, "Bearer a");
    // The first request and that of the last reload, unless this machine takes seconds for the reloads.
    let most = 1 + start.elapsed().as_secs();
    assert!((2..=most).contains(&(server.requests().len() as u64)));
    assert!(start.elapsed() >= Duration::from_millis(300 + 1000 + 300));
}

#[tokio::test]
async fn after_shutdown_callers_get_an_error_and_no_request_is_sent() {
    let server = Server::start(|_, _| Reply::token("a")).await;
    let source = source_of(&server.oauth()).await;
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    soon(source.clone().run(shutdown)).await;
    let error = soon(source.token()).await.unwrap_err();
    assert!(error.to_string().contains("shut down"), "{error}");
    assert_eq!(server.requests().len(), 0);
}
