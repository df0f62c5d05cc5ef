//! Fixtures of the unit tests: a configuration, an HTTP client, and a token server that replies by a script.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Response},
    routing::post,
};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::sleep};
use url::{Url, form_urlencoded};

use crate::{
    config::{ClientAuth, Credential, Flags, Oauth, Purpose, Secret, load_text},
    http::{Proxies, http_client},
};

pub(super) const CLIENT_SECRET: &str = "client-s3cret";
pub(super) const REFRESH_TOKEN: &str = "refresh-s3cret";
pub(super) const ACCESS_TOKEN: &str = "access-s3cret";

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
        client_auth: ClientAuth::Body,
        expiry_margin: Duration::from_secs(60),
        token_store: None,
        allow_insecure: false,
    }
}

pub(super) fn client(timeout: Duration) -> Client {
    let yaml = "oauth: {client_id: id, client_secret: secret}";
    let environment = std::iter::empty();
    let loaded = load_text("test", yaml, &Flags::default(), environment, Purpose::Login);
    let mut api = loaded.unwrap().config.api;
    api.timeout = timeout;
    http_client(&api, Proxies::None).unwrap()
}

/// One scripted reply.
#[derive(Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    header: Option<(&'static str, &'static str)>,
    body: Vec<u8>,
    delay: Duration,
}

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, body.to_string())
    }

    pub(super) fn text(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            header: None,
            body: body.into(),
            delay: Duration::ZERO,
        }
    }

    pub(super) fn token(text: &str) -> Self {
        Self::json(200, &json!({"access_token": text, "expires_in": 3600}))
    }

    pub(super) fn rotating(text: &str, refresh_token: &str) -> Self {
        let body =
            json!({"access_token": text, "expires_in": 3600, "refresh_token": refresh_token});
        Self::json(200, &body)
    }

    pub(super) fn error(code: &str) -> Self {
        Self::json(400, &json!({"error": code}))
    }

    pub(super) fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
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
#[derive(Clone)]
pub(super) struct Server {
    url: Url,
    script: Arc<Mutex<Script>>,
}

struct Script {
    /// Sent one after the other; the last one is repeated.
    replies: VecDeque<Reply>,
    by_refresh_token: BTreeMap<&'static str, Reply>,
    received: Vec<Received>,
}

impl Server {
    pub(super) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
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

    pub(super) fn for_refresh_token(self, token: &'static str, reply: Reply) -> Self {
        let mut script = self.script.lock().unwrap();
        script.by_refresh_token.insert(token, reply);
        drop(script);
        self
    }

    /// Returns a configuration that uses this server.
    pub(super) fn oauth(&self) -> Oauth {
        Oauth {
            token_url: self.url.clone(),
            ..oauth()
        }
    }

    pub(super) fn requests(&self) -> Vec<Received> {
        self.script.lock().unwrap().received.clone()
    }

    /// Returns the refresh tokens that were sent.
    pub(super) fn refresh_tokens(&self) -> Vec<String> {
        let requests = self.requests();
        let tokens = requests.iter().map(|it| it.form["refresh_token"].clone());
        tokens.collect()
    }
}

async fn reply(State(server): State<Server>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let form: BTreeMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
    let authorization = headers.get("authorization");
    let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
    let reply = {
        let script = &mut *server.script.lock().unwrap();
        let refresh_token = form.get("refresh_token").map(String::as_str);
        let reply = refresh_token.and_then(|token| script.by_refresh_token.get(token));
        let reply = reply
            .cloned()
            .unwrap_or_else(|| match script.replies.len() {
                1 => script.replies[0].clone(),
                _ => script.replies.pop_front().unwrap(),
            });
        script.received.push(Received {
            form,
            authorization,
        });
        reply
    };
    sleep(reply.delay).await;
    let mut response = Response::builder().status(reply.status);
    if let Some((name, value)) = reply.header {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).unwrap()
}
