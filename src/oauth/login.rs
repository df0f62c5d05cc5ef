//! A person's login: the URL to send them to, what the redirect says when they come back, and the refresh token that
//! its code is good for. Authorization code with PKCE (S256) and a random state.
//!
//! How the redirect reaches this process — a browser, a terminal — is `cli/login`'s; where the refresh token goes is
//! `deposit`'s.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use oauth2::{
    AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, RedirectUrl, Scope, basic::BasicClient,
};
use reqwest::{Client, header::LOCATION};
use url::{Host, Url, form_urlencoded};

use super::{
    TokenError,
    credentials::read_credential,
    request::{Exchanged, TokenRequest},
    scrub::Scrubber,
};
use crate::{
    config::{Oauth, Secret},
    http::read_limited,
};

/// A first look at the authorization endpoint must not keep anybody waiting.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Ample for an error page.
const MAX_PAGE_BYTES: usize = 256 * 1024;

/// What servers call a client that is not set up for this login, in a redirect or on a page; no login of any person would
/// change it. Other errors may concern only who asks without a browser. What is about the redirect comes first, as it is
/// the most common, and pages say more than one of them.
const REFUSALS: [&str; 9] = [
    "redirect_mismatch",
    "redirect_uri",
    "redirect uri",
    "redirect url",
    "callback url",
    "unauthorized_client",
    "invalid_client",
    "unsupported_response_type",
    "invalid_scope",
];

/// Where the authorization server sends the browser back to. It is sent as it was given, letter by letter, as servers
/// compare it so.
#[derive(Debug, Clone)]
pub struct RedirectUri(RedirectUrl);

/// Why a text is no redirect URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// Nothing a browser can be sent to.
    #[error("is no http:// or https:// URL")]
    NoUrl,
    /// A password would be sent about.
    #[error("carries a user or a password")]
    UserInfo,
    /// OAuth forbids it, and the answer would be lost in it.
    #[error("carries a fragment (#)")]
    Fragment,
}

impl RedirectUri {
    /// Takes it as it is.
    pub fn parse(text: &str) -> Result<Self, RedirectError> {
        let uri = RedirectUrl::new(text.to_owned()).map_err(|_| RedirectError::NoUrl)?;
        let url = uri.url();
        // What `url` would quietly mend is not what the server has registered.
        let mended = text
            .chars()
            .any(|character| character.is_whitespace() || character.is_control());
        if mended || !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(RedirectError::NoUrl);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(RedirectError::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(RedirectError::Fragment);
        }
        Ok(Self(uri))
    }

    /// The path that the browser asks for.
    pub fn path(&self) -> &str {
        self.0.url().path()
    }

    /// Where this machine can wait for the browser; nowhere if it is not on loopback, or asks for TLS.
    pub fn loopback(&self) -> Vec<SocketAddr> {
        let url = self.0.url();
        let (v4, v6) = (
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        );
        let hosts = match url.host() {
            _ if url.scheme() != "http" => vec![],
            // Which of the two a browser tries first is its own business.
            Some(Host::Domain("localhost")) => vec![v4, v6],
            Some(Host::Ipv4(ip)) if ip.is_loopback() => vec![IpAddr::V4(ip)],
            Some(Host::Ipv6(ip)) if ip.is_loopback() => vec![IpAddr::V6(ip)],
            _ => vec![],
        };
        let port = url.port_or_known_default().filter(|port| *port != 0);
        hosts
            .into_iter()
            .zip(std::iter::repeat(port))
            .filter_map(|(host, port)| Some(SocketAddr::new(host, port?)))
            .collect()
    }
}

impl fmt::Display for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// A login under way.
pub struct Login {
    oauth: Oauth,
    client_id: Secret,
    client_secret: Option<Secret>,
    redirect_uri: RedirectUri,
    url: Url,
    state: CsrfToken,
    verifier: Secret,
    http: Client,
    scrubber: Scrubber,
}

/// What came back with the state of this login.
#[derive(Debug)]
pub enum Answer {
    /// The person has logged in.
    Code(Secret),
    /// They have not, or may not; safe to show.
    Refused(String),
}

/// What came back and is no answer to this login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stray {
    /// Neither a code nor an error.
    NoAnswer,
    /// Another login's, or nobody's.
    WrongState,
}

/// Why there is no refresh token. Every text in it is safe to show.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The client's credentials are not where they are looked for.
    #[error("no client credentials: {0}")]
    ClientMissing(String),
    /// The redirect URI is not registered.
    #[error(
        "this client may not redirect to {redirect_uri} (the authorization server answers {what}): name a registered URI with --redirect-uri, letter by letter, the slash at the end included"
    )]
    RedirectRefused {
        /// As it was sent.
        redirect_uri: String,
        /// What was seen.
        what: String,
    },
    /// The authorization server sent an error instead of a code.
    #[error("the login was refused: {0}")]
    Refused(String),
    /// The code was used before, is too old, or was given for something else.
    #[error(
        "the code of this login is not accepted, as it is good only once and for a few minutes: {0}; run `lightfi-exporter login` again"
    )]
    CodeRefused(String),
    /// Client id or secret are wrong.
    #[error(
        "the client id or secret is not accepted: {0}; mend oauth.client_id, oauth.client_secret or oauth.client_auth"
    )]
    ClientRefused(String),
    /// The client is not set up to get one.
    #[error(
        "the token endpoint gave no refresh token: ask LightFi support to allow refresh tokens for this client"
    )]
    NoRefreshToken,
    /// No sensible answer.
    #[error(
        "cannot redeem the code of this login: {what}: {remedy}, and run `lightfi-exporter login` again"
    )]
    Unavailable {
        /// What was seen.
        what: String,
        /// What a person can do.
        remedy: &'static str,
    },
}

impl Login {
    /// Begins one: reads the client's credentials and makes up the secrets of this login. Sends nothing.
    pub fn begin(
        oauth: &Oauth,
        redirect_uri: RedirectUri,
        http: Client,
    ) -> Result<Self, LoginError> {
        let client_id = read_credential("oauth.client_id_file", &oauth.client_id)
            .map_err(LoginError::ClientMissing)?;
        let client_secret = oauth
            .client_secret
            .as_ref()
            .map(|secret| read_credential("oauth.client_secret_file", secret))
            .transpose()
            .map_err(LoginError::ClientMissing)?;
        let (url, state, verifier) = authorization(oauth, &client_id, &redirect_uri);
        let scrubber = Scrubber::default();
        for secret in client_secret.iter().chain([&verifier]) {
            scrubber.learn(secret);
        }
        scrubber.learn(&Secret::new(state.secret()));
        Ok(Self {
            oauth: oauth.clone(),
            client_id,
            client_secret,
            redirect_uri,
            url,
            state,
            verifier,
            http,
            scrubber,
        })
    }

    /// Where to send the person.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Asks the authorization endpoint as a browser would, with a state of its own, so that a client that is not set up
    /// for this is told here: the server tells it to the browser only. An answer that is no clear refusal is none.
    pub async fn look_first(&self) -> Result<(), LoginError> {
        let (url, _, _) = authorization(&self.oauth, &self.client_id, &self.redirect_uri);
        let request = self.http.get(url.clone()).timeout(FIRST_LOOK);
        let Ok(response) = request.send().await else {
            return Ok(());
        };
        let status = response.status();
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|to| url.join(to.to_str().ok()?).ok());
        let what = match (status.as_u16(), location) {
            (300..=399, Some(to)) => value(to.query().unwrap_or_default(), "error"),
            (400, _) => {
                let page = read_limited(response, MAX_PAGE_BYTES)
                    .await
                    .unwrap_or_default();
                // A page may repeat the address it was asked for by, which says nothing.
                let page = String::from_utf8_lossy(&page)
                    .to_lowercase()
                    .replace("redirect_uri=", "");
                let named = REFUSALS.iter().find(|words| page.contains(*words));
                named.map(|words| format!("400, {words}"))
            }
            _ => None,
        };
        let Some(what) = what else {
            return Ok(());
        };
        let Some(refusal) = REFUSALS.iter().find(|words| what.contains(*words)) else {
            return Ok(());
        };
        let what = self.scrubber.excerpt(&what);
        Err(
            if refusal.contains("redirect") || refusal.contains("callback") {
                LoginError::RedirectRefused {
                    redirect_uri: self.redirect_uri.to_string(),
                    what,
                }
            } else if refusal.contains("client") {
                LoginError::ClientRefused(what)
            } else {
                LoginError::Refused(what)
            },
        )
    }

    /// What the query of a redirect says.
    pub fn answer(&self, query: &str) -> Result<Answer, Stray> {
        let (code, error) = (value(query, "code"), value(query, "error"));
        if code.is_none() && error.is_none() {
            return Err(Stray::NoAnswer);
        }
        if value(query, "state").as_deref() != Some(self.state.secret()) {
            return Err(Stray::WrongState);
        }
        let Some(error) = error else {
            let code = Secret::new(code.unwrap_or_default());
            self.scrubber.learn(&code);
            return Ok(Answer::Code(code));
        };
        let error = self.scrubber.excerpt(&error);
        Ok(Answer::Refused(match value(query, "error_description") {
            Some(description) => {
                format!("{error} ({})", self.scrubber.excerpt(&description))
            }
            None => error,
        }))
    }

    /// The refresh token that an answer is good for.
    pub async fn redeem(&self, answer: Answer) -> Result<Secret, LoginError> {
        let code = match answer {
            Answer::Code(code) => code,
            Answer::Refused(what) => return Err(LoginError::Refused(what)),
        };
        let request = TokenRequest {
            token_url: &self.oauth.token_url,
            client_auth: self.oauth.client_auth,
            client_id: &self.client_id,
            client_secret: self.client_secret.as_ref(),
            exchanged: Exchanged::Code {
                code: &code,
                redirect_uri: self.redirect_uri.0.as_str(),
                verifier: &self.verifier,
            },
        };
        let reply = request.send(&self.http, &self.scrubber).await;
        reply
            .map_err(|error| match error {
                TokenError::Unavailable { ref what, .. } => LoginError::Unavailable {
                    what: what.clone(),
                    remedy: error.remedy(),
                },
                TokenError::InvalidGrant(what) | TokenError::RefreshTokenMissing(what) => {
                    LoginError::CodeRefused(what)
                }
                TokenError::InvalidClient(what) | TokenError::ClientMissing(what) => {
                    LoginError::ClientRefused(what)
                }
            })?
            .refresh_token
            .ok_or(LoginError::NoRefreshToken)
    }
}

/// An authorization URL with a state and a challenge of its own; the challenge's verifier.
fn authorization(
    oauth: &Oauth,
    client_id: &Secret,
    redirect_uri: &RedirectUri,
) -> (Url, CsrfToken, Secret) {
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let (url, state) = BasicClient::new(ClientId::new(client_id.expose().to_owned()))
        .set_auth_uri(AuthUrl::from_url(oauth.authorize_url.clone()))
        .set_redirect_uri(redirect_uri.0.clone())
        .authorize_url(CsrfToken::new_random)
        .add_scope(Scope::new(oauth.scope.clone()))
        .set_pkce_challenge(challenge)
        .url();
    (url, state, Secret::new(verifier.secret()))
}

/// The first field of this name that is not empty.
fn value(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::{
        Router,
        http::{StatusCode, header::LOCATION},
        routing::get,
    };

    use super::*;
    use crate::config::{ClientAuth, Credential};

    fn oauth(authorize_url: &str) -> Oauth {
        Oauth {
            token_url: "http://127.0.0.1:1/token".parse().unwrap(),
            authorize_url: authorize_url.parse().unwrap(),
            scope: "a b".to_owned(),
            client_id: Credential::Inline(Secret::new("id")),
            client_secret: Some(Credential::Inline(Secret::new("s3cret"))),
            refresh_token: None,
            client_auth: ClientAuth::Body,
            expiry_margin: Duration::from_secs(60),
            token_store: None,
            allow_insecure: false,
        }
    }

    fn login(authorize_url: &str) -> Login {
        let redirect_uri = RedirectUri::parse("http://localhost:3000").unwrap();
        let http = crate::http::client_builder(rustls::RootCertStore::empty())
            .unwrap()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Login::begin(&oauth(authorize_url), redirect_uri, http).unwrap()
    }

    fn addresses(uri: &str) -> Vec<String> {
        let addresses = RedirectUri::parse(uri).unwrap().loopback();
        addresses.iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn a_redirect_uri_stays_as_it_was_written() {
        for text in [
            "http://localhost:3000",
            "http://localhost:3000/",
            "HTTP://LocalHost:3000/%7Ex?a=b",
        ] {
            assert_eq!(RedirectUri::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_redirect_uri_says_where_on_loopback_the_browser_comes_back() {
        assert_eq!(
            addresses("http://localhost:3000"),
            ["127.0.0.1:3000", "[::1]:3000"]
        );
        assert_eq!(addresses("http://127.0.0.2/x"), ["127.0.0.2:80"]);
        assert_eq!(addresses("http://[::1]:8"), ["[::1]:8"]);
        for nowhere in [
            "https://localhost:3000",
            "http://localhost:0",
            "http://localhost.example:3000",
            "http://192.0.2.1:3000",
            "http://[2001:db8::1]:3000",
            "https://apiv2.lightfi.io/docs/redirect",
        ] {
            assert!(addresses(nowhere).is_empty(), "{nowhere}");
        }
    }

    #[test]
    fn what_no_server_can_have_registered_is_no_redirect_uri() {
        let error = |text: &str| RedirectUri::parse(text).unwrap_err();
        for text in [
            "",
            "localhost:3000",
            "/x",
            "ftp://localhost",
            " http://localhost",
            "http://local\nhost",
        ] {
            assert_eq!(error(text), RedirectError::NoUrl, "{text:?}");
        }
        assert_eq!(error("http://localhost/#"), RedirectError::Fragment);
        assert_eq!(error("http://user@localhost/"), RedirectError::UserInfo);
    }

    #[test]
    fn the_authorize_urls_own_query_stays() {
        let login = login("https://login.example/authorize?tenant=7");
        let query: Vec<_> = login.url().query_pairs().collect();
        assert_eq!(query[0], ("tenant".into(), "7".into()));
        assert!(query.contains(&("scope".into(), "a b".into())));
        assert!(!login.url().as_str().contains("s3cret"));
    }

    #[test]
    fn only_this_logins_state_makes_an_answer() {
        let login = login("https://login.example/authorize");
        let state = login.state.secret();
        let stray = |query: &str| login.answer(query).unwrap_err();
        assert_eq!(stray(""), Stray::NoAnswer);
        assert_eq!(stray(&format!("code=&state={state}")), Stray::NoAnswer);
        assert_eq!(stray("code=abc"), Stray::WrongState);
        assert_eq!(stray("error=x&state=other"), Stray::WrongState);
        let answer = login.answer(&format!("state={state}&code=a%2Bb"));
        assert!(matches!(answer, Ok(Answer::Code(code)) if code.expose() == "a+b"));
        let answer = login.answer(&format!("code=abc&error=x&state={state}"));
        assert!(
            matches!(answer, Ok(Answer::Refused(what)) if what == "x"),
            "an error beside a code is an error"
        );
    }

    async fn first_look(
        status: u16,
        location: &'static str,
        page: &'static str,
    ) -> Result<(), LoginError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/authorize", listener.local_addr().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        let answer = get(async move || (status, [(LOCATION, location)], page));
        let router = Router::new().route("/authorize", answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        login(&url).look_first().await
    }

    #[tokio::test]
    async fn a_first_look_sees_a_redirect_that_is_not_registered() {
        for (status, location, page) in [
            (400, "", "<p>redirect_mismatch</p>"),
            (400, "", "Invalid parameter: redirect_uri"),
            (302, "/error?error=redirect_mismatch&client_id=id", ""),
        ] {
            let error = first_look(status, location, page).await.unwrap_err();
            assert!(
                matches!(error, LoginError::RedirectRefused { .. }),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_first_look_sees_a_client_that_is_not_set_up_for_this() {
        for (status, location, page) in [
            (400, "", "<p>invalid_client</p>"),
            (302, "http://localhost:3000?error=unauthorized_client", ""),
        ] {
            let error = first_look(status, location, page).await.unwrap_err();
            assert!(matches!(error, LoginError::ClientRefused(_)), "{error}");
        }
        let error = first_look(302, "http://localhost:3000?error=invalid_scope", "").await;
        assert_eq!(
            error.unwrap_err().to_string(),
            "the login was refused: invalid_scope"
        );
    }

    #[tokio::test]
    async fn a_first_look_that_sees_no_clear_refusal_stops_nobody() {
        for (status, location, page) in [
            (200, "", "the redirect_uri is on the login page"),
            (302, "/login?redirect_uri=http://localhost:3000", ""),
            (302, "http://localhost:3000?code=abc", ""),
            (302, "/login?error=login_required", ""),
            (400, "", "no cookies"),
            (
                400,
                "",
                "no cookies at /authorize?redirect_uri=http://localhost:3000",
            ),
            (403, "", "no robots: redirect_uri"),
            (503, "", ""),
        ] {
            first_look(status, location, page).await.unwrap();
        }
        // Nobody there: the browser may have another way.
        let login = login("http://127.0.0.1:1/authorize");
        login.look_first().await.unwrap();
    }
}
