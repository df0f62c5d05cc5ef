//! Fixtures of the unit tests: a configuration, an HTTP client, and a token server.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Form, Router,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use reqwest::Client;
use serde_json::json;
use tokio::{net::TcpListener, time::sleep};
use url::Url;

use crate::{
    config::{Config, Credential, Flags, Oauth, Purpose, Secret, load_text},
    http::{Proxies, http_client},
};

pub(super) const CLIENT_SECRET: &str = "client-s3cret";
pub(super) const REFRESH_TOKEN: &str = "refresh-s3cret";

pub(super) fn inline(text: &str) -> Credential {
    Credential::Inline(Secret::new(text))
}

/// Returns a configuration with an inline refresh token and no token store.
pub(super) fn oauth() -> Oauth {
    Oauth {
        token_url: "http://127.0.0.1:1/token".parse().unwrap(),
        authorize_url: "https://login.example/authorize".parse().unwrap(),
        scope: "a b".to_owned(),
        client_id: inline("client-id"),
        client_secret: Some(inline(CLIENT_SECRET)),
        refresh_token: Some(inline(REFRESH_TOKEN)),
        ..loaded().oauth
    }
}

/// Returns a configuration with all defaults.
fn loaded() -> Config {
    let yaml = "oauth: {client_id: id, client_secret: secret}";
    let environment = std::iter::empty();
    let loaded = load_text("test", yaml, &Flags::default(), environment, Purpose::Login);
    loaded.unwrap().config
}

pub(super) fn client(timeout: Duration) -> Client {
    let mut api = loaded().api;
    api.timeout = timeout;
    http_client(&api, Proxies::None).unwrap()
}

/// A reply of the token server.
pub(super) struct Reply {
    status: u16,
    body: String,
    delay: Duration,
}

impl Reply {
    pub(super) fn text(status: u16, body: impl ToString) -> Self {
        Self {
            status,
            body: body.to_string(),
            delay: Duration::ZERO,
        }
    }

    pub(super) fn token(text: &str) -> Self {
        Self::text(200, json!({"access_token": text, "expires_in": 3600}))
    }

    pub(super) fn rotating(text: &str, refresh_token: &str) -> Self {
        let body =
            json!({"access_token": text, "expires_in": 3600, "refresh_token": refresh_token});
        Self::text(200, body)
    }

    pub(super) fn invalid_grant() -> Self {
        Self::text(400, json!({"error": "invalid_grant"}))
    }

    pub(super) fn after_ms(mut self, milliseconds: u64) -> Self {
        self.delay = Duration::from_millis(milliseconds);
        self
    }
}

/// A request that the server received.
#[derive(Clone)]
pub(super) struct Received {
    pub(super) form: BTreeMap<String, String>,
    pub(super) authorization: Option<String>,
}

/// A token server on loopback.
pub(super) struct Server {
    url: Url,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    /// Starts a server. `reply` gets the number of earlier requests, and the refresh token of this one.
    pub(super) async fn start(
        reply: impl Fn(usize, &str) -> Reply + Clone + Send + Sync + 'static,
    ) -> Self {
        let received = Arc::new(Mutex::new(Vec::new()));
        let requests = received.clone();
        let handler =
            async move |headers: HeaderMap, Form(form): Form<BTreeMap<String, String>>| {
                let token = form.get("refresh_token").cloned().unwrap_or_default();
                let authorization = headers.get("authorization");
                let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
                let reply = {
                    let mut requests = requests.lock().unwrap();
                    requests.push(Received {
                        form,
                        authorization,
                    });
                    reply(requests.len() - 1, &token)
                };
                sleep(reply.delay).await;
                (StatusCode::from_u16(reply.status).unwrap(), reply.body)
            };
        let router = Router::new().route("/oauth2/token", post(handler));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/oauth2/token", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            url: url.parse().unwrap(),
            received,
        }
    }

    /// Returns a configuration that uses this server.
    pub(super) fn oauth(&self) -> Oauth {
        Oauth {
            token_url: self.url.clone(),
            ..oauth()
        }
    }

    pub(super) fn requests(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Returns the refresh tokens that were sent.
    pub(super) fn refresh_tokens(&self) -> Vec<String> {
        let requests = self.requests();
        let tokens = requests.iter().map(|it| it.form["refresh_token"].clone());
        tokens.collect()
    }
}
