//! A login by a person: OAuth's authorization code with PKCE (S256) and a random state (RFC 6749, RFC 7636).
//!
//! The authorize URL, the parsing of the redirect and the exchange of the code for a refresh token belong here. How the
//! redirect reaches this process is the concern of `cli/login`, where the token goes that of `destination`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::Client;
use ring::{
    digest::{SHA256, digest},
    rand::{self, SystemRandom},
};
use url::{Host, Url, form_urlencoded};

use super::{TokenError, credentials::ClientCredentials, redact::Redactor, request::request_token};
use crate::config::{Oauth, Secret};

/// The URI that the authorization server sends the browser back to. It is sent exactly as given, as servers compare it
/// byte by byte.
#[derive(Debug, Clone)]
pub struct RedirectUri {
    text: String,
    url: Url,
}

impl RedirectUri {
    /// Checks the text and keeps it unchanged.
    pub fn parse(text: &str) -> Result<Self, LoginError> {
        // `Url` removes such characters, but servers compare the text.
        let is_cleaned = text.contains(|c: char| c.is_whitespace() || c.is_control());
        match Url::parse(text) {
            Ok(url)
                if !is_cleaned
                    && matches!(url.scheme(), "http" | "https")
                    && url.username().is_empty()
                    && url.password().is_none()
                    && url.fragment().is_none() =>
            {
                let text = text.to_owned();
                Ok(Self { text, url })
            }
            _ => Err(LoginError::RedirectUri),
        }
    }

    /// Returns the path that the browser will request.
    pub fn path(&self) -> &str {
        self.url.path()
    }

    /// Returns the loopback addresses at which the browser may arrive; none if the URI is not plain HTTP on loopback.
    pub fn loopback_addresses(&self) -> Vec<SocketAddr> {
        let ips = match self.url.host() {
            _ if self.url.scheme() != "http" => vec![],
            // Some browsers try IPv4 first, others IPv6.
            Some(Host::Domain("localhost")) => {
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            }
            Some(Host::Ipv4(ip)) => vec![IpAddr::V4(ip)],
            Some(Host::Ipv6(ip)) => vec![IpAddr::V6(ip)],
            _ => vec![],
        };
        let port = self.url.port_or_known_default().unwrap_or(0);
        ips.into_iter()
            .filter(|ip| ip.is_loopback() && port != 0)
            .map(|ip| SocketAddr::new(ip, port))
            .collect()
    }
}

impl fmt::Display for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One login.
pub struct Login {
    oauth: Oauth,
    client: ClientCredentials,
    redirect_uri: RedirectUri,
    state: Secret,
    verifier: Secret,
    http: Client,
    redactor: Redactor,
}

/// The authorization server's answer to a login.
#[derive(Debug)]
pub enum Callback {
    /// The authorization code.
    Code(Secret),
    /// An error, redacted.
    Refused(String),
}

/// Why a query is not the answer to this login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// It contains neither a code nor an error.
    #[error("this address contains no authorization code")]
    Incomplete,
    /// It answers another login, or is forged.
    #[error("this address belongs to another login")]
    WrongState,
}

/// Why a login failed. No message contains a secret.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// No server can have registered the redirect URI. It is not shown, because it may contain a password.
    #[error(
        "--redirect-uri must be an http:// or https:// URL without user, password or fragment (#)"
    )]
    RedirectUri,
    /// The authorization server answered with an error instead of a code.
    #[error("the authorization server refused the login: {0}")]
    Refused(String),
    /// The code was used before, has expired, or belongs to another login.
    #[error(
        "the authorization code is not accepted ({0}); a code can be used only once and expires within minutes: run `lightfi-exporter login` again"
    )]
    CodeRejected(String),
    /// The client's credentials cannot be read, or the token request failed for another reason.
    #[error("{0}: {hint}; then run `lightfi-exporter login` again", hint = .0.remedy())]
    TokenRequest(#[from] TokenError),
    /// The server answered without a refresh token.
    #[error(
        "the token endpoint sent no refresh token: ask LightFi support to allow refresh tokens for this client"
    )]
    NoRefreshToken,
}

impl Login {
    /// Reads the client's credentials and generates the state and the code verifier. Sends nothing.
    pub fn new(oauth: &Oauth, redirect_uri: RedirectUri, http: Client) -> Result<Self, LoginError> {
        let client = ClientCredentials::read(oauth)?;
        let (state, verifier) = (random_text(), random_text());
        let redactor = Redactor::default();
        for secret in client.secret.iter().chain([&state, &verifier]) {
            redactor.register_secret(secret);
        }
        Ok(Self {
            oauth: oauth.clone(),
            client,
            redirect_uri,
            state,
            verifier,
            http,
            redactor,
        })
    }

    /// Returns the URI that the browser is sent back to.
    pub fn redirect_uri(&self) -> &RedirectUri {
        &self.redirect_uri
    }

    /// Returns the URL at which a person logs in.
    pub fn url(&self) -> Url {
        let hash = digest(&SHA256, self.verifier.expose().as_bytes());
        let mut url = self.oauth.authorize_url.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", self.client.id.expose())
            .append_pair("redirect_uri", &self.redirect_uri.text)
            .append_pair("scope", &self.oauth.scope)
            .append_pair("state", self.state.expose())
            .append_pair("code_challenge", &BASE64_URL_SAFE_NO_PAD.encode(hash))
            .append_pair("code_challenge_method", "S256");
        url
    }

    /// Parses the query of the URL that the browser was sent back to.
    pub fn parse_callback(&self, query: &str) -> Result<Callback, CallbackError> {
        let callback = match (parameter(query, "error"), parameter(query, "code")) {
            (Some(error), _) => {
                let description = parameter(query, "error_description");
                let error = self.redactor.error_text(&error, description.as_deref());
                Callback::Refused(error)
            }
            (None, Some(code)) => Callback::Code(Secret::new(code)),
            (None, None) => return Err(CallbackError::Incomplete),
        };
        match parameter(query, "state") {
            Some(state) if state == self.state.expose() => Ok(callback),
            _ => Err(CallbackError::WrongState),
        }
    }

    /// Exchanges the authorization code for a refresh token.
    pub async fn exchange_code(&self, callback: Callback) -> Result<Secret, LoginError> {
        let code = match callback {
            Callback::Code(code) => code,
            Callback::Refused(error) => return Err(LoginError::Refused(error)),
        };
        self.redactor.register_secret(&code);
        let grant = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", &self.redirect_uri.text),
            ("code_verifier", self.verifier.expose()),
        ];
        let (http, redactor) = (&self.http, &self.redactor);
        match request_token(http, &self.oauth, &self.client, &grant, redactor).await {
            Ok(reply) => reply.refresh_token.ok_or(LoginError::NoRefreshToken),
            Err(TokenError::InvalidGrant(what)) => Err(LoginError::CodeRejected(what)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns 256 random bits as 43 characters that need no encoding, as RFC 7636 recommends for the code verifier.
fn random_text() -> Secret {
    let bytes = rand::generate::<[u8; 32]>(&SystemRandom::new());
    let bytes = bytes.expect("the operating system provides random numbers");
    Secret::new(BASE64_URL_SAFE_NO_PAD.encode(bytes.expose()))
}

/// Returns the first parameter of this name that is not empty.
fn parameter(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::oauth::test_fixtures::{CLIENT_SECRET, Reply, Server, client, oauth};

    fn login(authorize_url: &str) -> Login {
        let oauth = Oauth {
            authorize_url: authorize_url.parse().unwrap(),
            ..oauth()
        };
        let redirect_uri = RedirectUri::parse("http://localhost:3000").unwrap();
        Login::new(&oauth, redirect_uri, client(Duration::from_secs(1))).unwrap()
    }

    #[test]
    fn a_redirect_uri_is_kept_as_given_and_on_loopback_has_addresses_to_listen_on() {
        for (text, expected) in [
            (
                "http://localhost:3000",
                &["127.0.0.1:3000", "[::1]:3000"][..],
            ),
            ("HTTP://127.0.0.2/%7Ex?a=b", &["127.0.0.2:80"]),
            ("http://[::1]:8", &["[::1]:8"]),
            ("https://localhost:3000", &[]),
            ("http://localhost:0", &[]),
            ("http://localhost.example:3000", &[]),
            ("http://192.0.2.1:3000", &[]),
            ("http://[2001:db8::1]:3000", &[]),
            ("https://apiv2.lightfi.io/docs/redirect", &[]),
        ] {
            let uri = RedirectUri::parse(text).unwrap();
            assert_eq!(uri.to_string(), text);
            let addresses = uri.loopback_addresses();
            let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
            assert_eq!(addresses, expected, "{text}");
        }
    }

    #[test]
    fn a_text_that_no_server_can_have_registered_is_not_a_redirect_uri() {
        for text in [
            "",
            "localhost:3000",
            "http://",
            "ftp://localhost",
            " http://localhost",
            "http://local\nhost",
            "http://localhost/#",
            "http://user@localhost/",
            "http://:password@localhost/",
        ] {
            assert!(RedirectUri::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_authorize_url_keeps_its_query_and_contains_the_hash_of_the_verifier() {
        let login = login("https://login.example/authorize?tenant=7");
        let url = login.url();
        let query: Vec<_> = url.query_pairs().collect();
        assert_eq!(query[0], ("tenant".into(), "7".into()));
        assert!(query.contains(&("scope".into(), "a b".into())));
        let hash = digest(&SHA256, login.verifier.expose().as_bytes());
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(hash);
        assert!(query.contains(&("code_challenge".into(), challenge.into())));
        for secret in [CLIENT_SECRET, login.verifier.expose()] {
            assert!(!url.as_str().contains(secret));
        }
    }

    #[test]
    fn a_callback_must_have_the_state_of_this_login() {
        let login = login("https://login.example/authorize");
        let state = login.state.expose();
        let error = |query: &str| login.parse_callback(query).unwrap_err();
        assert_eq!(error(""), CallbackError::Incomplete);
        assert_eq!(
            error(&format!("code=&state={state}")),
            CallbackError::Incomplete
        );
        assert_eq!(error("code=abc"), CallbackError::WrongState);
        assert_eq!(error("error=x&state=other"), CallbackError::WrongState);
        let callback = login.parse_callback(&format!("state={state}&code=a%2Bb"));
        assert!(matches!(callback, Ok(Callback::Code(code)) if code.expose() == "a+b"));
        let callback = login.parse_callback(&format!("code=abc&error=x&state={state}"));
        assert!(
            matches!(callback, Ok(Callback::Refused(error)) if error == "x"),
            "a code next to an error is ignored"
        );
    }

    #[tokio::test]
    async fn a_refused_code_is_reported_without_the_secrets_that_the_server_repeats() {
        let mut login = login("https://login.example/authorize");
        let (state, verifier) = (login.state.expose(), login.verifier.expose());
        let callback = login.parse_callback(&format!("code=c0de&state={state}"));
        let reply = json!({
            "error": "invalid_grant",
            "error_description": format!("c0de {state} {verifier} {CLIENT_SECRET}"),
        });
        let server = Server::start(move |_, _| Reply::text(400, &reply)).await;
        login.oauth.token_url = server.oauth().token_url;
        let error = login.exchange_code(callback.unwrap()).await.unwrap_err();
        let error = error.to_string();
        for expected in [
            "invalid_grant (<secret> <secret> <secret> <secret>)",
            "only once",
            "run `lightfi-exporter login` again",
        ] {
            assert!(error.contains(expected), "{error}");
        }
    }
}
