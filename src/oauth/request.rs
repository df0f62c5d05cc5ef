//! One token request: the form that is sent and what the reply means. `source` and `login` decide when to send it.
//!
//! Replies are read leniently, because servers differ. Of a body only `error` and `error_description` are passed on,
//! redacted and shortened.

use std::time::{Duration, SystemTime};

use reqwest::{
    Client, Response,
    header::{ACCEPT, AUTHORIZATION, HeaderValue},
};
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use super::{
    TokenError,
    redact::Redactor,
    token::{AccessToken, lenient_number, lifetime},
};
use crate::{
    config::{ClientAuth, Secret},
    http::{describe, read_limited, reason_of, retry_after},
    stats::Reason,
};

/// A reply has a few KiB. The redactor remembers tokens, so that longer ones would add up.
const MAX_REPLY_BYTES: usize = 64 * 1024;

/// Everything that a token request is made from.
pub(super) struct TokenRequest<'a> {
    pub(super) token_url: &'a Url,
    pub(super) client_auth: ClientAuth,
    pub(super) client_id: &'a Secret,
    pub(super) client_secret: Option<&'a Secret>,
    pub(super) grant_type: GrantType<'a>,
}

/// What is exchanged for an access token (RFC 6749, 1.3).
pub(super) enum GrantType<'a> {
    RefreshToken(&'a Secret),
    AuthorizationCode {
        code: &'a Secret,
        /// Exactly the one that the login was started with.
        redirect_uri: &'a str,
        verifier: &'a Secret,
    },
}

/// A successful reply.
pub struct TokenResponse {
    /// The access token.
    pub access_token: AccessToken,
    /// How long it lives from the moment of the reply.
    pub lifetime: Duration,
    /// After a refresh, present only if the server rotates refresh tokens.
    pub(super) refresh_token: Option<Secret>,
}

impl TokenRequest<'_> {
    /// Sends the request and reads the reply. `http` follows no redirect and has a timeout.
    pub(super) async fn send(
        &self,
        http: &Client,
        redactor: &Redactor,
    ) -> Result<TokenResponse, TokenError> {
        let mut form = self.grant_type.form();
        let mut request = http
            .post(self.token_url.clone())
            .header(ACCEPT, HeaderValue::from_static("application/json"));
        match self.client_auth {
            ClientAuth::Body => {
                form.push(("client_id", self.client_id.expose()));
                let secret = self.client_secret.map(Secret::expose);
                form.extend(secret.map(|secret| ("client_secret", secret)));
            }
            // RFC 6749, 2.3.1: both parts are form-encoded before they are joined.
            ClientAuth::Basic => {
                let secret = self.client_secret.map(form_encoded).unwrap_or_default();
                request = request.basic_auth(form_encoded(self.client_id), Some(secret));
            }
        }
        let request = request.form(&form).build().map_err(request_failed)?;
        let authorization = request.headers().get(AUTHORIZATION);
        if let Some((_, basic)) = authorization
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
        {
            redactor.register_secret(&Secret::new(basic));
        }
        let response = http.execute(request).await.map_err(request_failed)?;
        read_response(response, redactor).await
    }
}

impl<'a> GrantType<'a> {
    fn form(&self) -> Vec<(&'static str, &'a str)> {
        match self {
            Self::RefreshToken(token) => vec![
                ("grant_type", "refresh_token"),
                ("refresh_token", token.expose()),
            ],
            Self::AuthorizationCode {
                code,
                redirect_uri,
                verifier,
            } => vec![
                ("grant_type", "authorization_code"),
                ("code", code.expose()),
                ("redirect_uri", redirect_uri),
                ("code_verifier", verifier.expose()),
            ],
        }
    }
}

fn form_encoded(secret: &Secret) -> String {
    form_urlencoded::byte_serialize(secret.expose().as_bytes()).collect()
}

async fn read_response(
    response: Response,
    redactor: &Redactor,
) -> Result<TokenResponse, TokenError> {
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let body = match read_limited(response, MAX_REPLY_BYTES).await {
        Ok(body) => body,
        Err(error) if (200..300).contains(&status) => {
            let what = format!("cannot read the reply of the token endpoint: {error}");
            return Err(unavailable(error.reason(), what));
        }
        // The status alone says that the request failed.
        Err(_) => bytes::Bytes::new(),
    };
    parse_token_response(status, retry_after, &body, redactor)
}

/// Returns what a reply means. Pure; accepts any bytes.
pub fn parse_token_response(
    status: u16,
    retry_after: Option<Duration>,
    body: &[u8],
    redactor: &Redactor,
) -> Result<TokenResponse, TokenError> {
    // A body that is no JSON object is read as an empty one.
    let object: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let code = text(&object, "error").unwrap_or_default();
    let is_refusal = matches!(
        code,
        "invalid_grant" | "invalid_client" | "unauthorized_client"
    );
    let reason = match Reason::of_status(status) {
        Some(reason) => reason,
        // Some servers refuse with status 200.
        None if is_refusal => Reason::ClientError,
        None => return parse_success(&object, redactor),
    };
    let what = with_error_text(
        format!("the token endpoint answered {status}"),
        &object,
        redactor,
    );
    // A server that fails or limits requests does not judge the credentials.
    let judges = !matches!(
        reason,
        Reason::ServerError | Reason::RateLimited | Reason::Redirect
    );
    Err(match code {
        "invalid_grant" if judges => TokenError::InvalidGrant(what),
        _ if judges && is_refusal => TokenError::InvalidClient(what),
        _ => TokenError::Unavailable {
            reason,
            what,
            retry_after,
        },
    })
}

fn parse_success(
    object: &Map<String, Value>,
    redactor: &Redactor,
) -> Result<TokenResponse, TokenError> {
    let Some(token) = text(object, "access_token") else {
        let what = "the reply of the token endpoint is no JSON object with an access_token";
        let what = with_error_text(what.to_owned(), object, redactor);
        return Err(unavailable(Reason::Malformed, what));
    };
    redactor.register_secret(&Secret::new(token));
    let Some(access_token) = AccessToken::new(token) else {
        let what = "the access_token of the token endpoint cannot be sent in a header";
        return Err(unavailable(Reason::Malformed, what.to_owned()));
    };
    let expires_in = object.get("expires_in").and_then(lenient_number);
    Ok(TokenResponse {
        access_token,
        lifetime: lifetime(token, expires_in),
        refresh_token: text(object, "refresh_token").map(Secret::new),
    })
}

/// Appends `error` and `error_description`, safe to show.
fn with_error_text(what: String, object: &Map<String, Value>, redactor: &Redactor) -> String {
    let [error, description] =
        ["error", "error_description"].map(|key| text(object, key).map(|it| redactor.excerpt(it)));
    match (error, description) {
        (None, _) => what,
        (Some(error), None) => format!("{what}: {error}"),
        (Some(error), Some(description)) => format!("{what}: {error} ({description})"),
    }
}

/// Returns a field that holds a text that is not empty.
fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    let text = object.get(key)?.as_str()?;
    (!text.is_empty()).then_some(text)
}

fn request_failed(error: reqwest::Error) -> TokenError {
    let reason = reason_of(&error);
    let what = format!("no reply from the token endpoint: {}", describe(error));
    unavailable(reason, what)
}

fn unavailable(reason: Reason, what: String) -> TokenError {
    TokenError::Unavailable {
        reason,
        what,
        retry_after: None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(status: u16, body: &Value) -> Result<TokenResponse, TokenError> {
        let body = body.to_string();
        parse_token_response(status, None, body.as_bytes(), &Redactor::default())
    }

    fn error(status: u16, body: &Value) -> TokenError {
        parse(status, body).err().unwrap()
    }

    #[test]
    fn a_reply_with_odd_fields_is_accepted() {
        let body = json!({
            "access_token": "abc", "expires_in": "60", "refresh_token": "", "token_type": 5, "more": [],
        });
        let reply = parse(200, &body).ok().unwrap();
        assert_eq!(reply.access_token.bearer(), "Bearer abc");
        assert_eq!(reply.lifetime, Duration::from_secs(60));
        assert!(reply.refresh_token.is_none());
    }

    #[test]
    fn an_error_shows_nothing_of_the_body_but_error_and_error_description() {
        let body =
            json!({"error": "invalid_grant", "error_description": "expired", "token": "abc"});
        assert_eq!(
            error(400, &body).to_string(),
            "the refresh token is not accepted: the token endpoint answered 400: invalid_grant (expired)"
        );
        assert_eq!(
            error(400, &json!({"message": "abc"})).to_string(),
            "no access token: the token endpoint answered 400"
        );
        assert_eq!(
            error(200, &json!({"error": "slow_down"})).to_string(),
            "no access token: the reply of the token endpoint is no JSON object with an access_token: slow_down"
        );
    }

    #[test]
    fn a_refusal_counts_with_any_status_unless_the_server_itself_fails() {
        for status in [200, 400, 401, 403] {
            for (code, reason) in [
                ("invalid_grant", Reason::InvalidGrant),
                ("invalid_client", Reason::InvalidClient),
                ("unauthorized_client", Reason::InvalidClient),
            ] {
                let error = error(status, &json!({"error": code}));
                assert_eq!(error.reason(), reason, "{status} {code}");
            }
        }
        let failing = error(503, &json!({"error": "invalid_grant"}));
        assert_eq!(failing.reason(), Reason::ServerError);
    }

    proptest! {
        #[test]
        fn no_body_makes_the_parser_panic(
            status in 100_u16..1000,
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                r#"\{"(access_token|error|expires_in)": ?("[ -~]*"|[0-9eE.+-]*|\{\})\}"#
                    .prop_map(String::into_bytes),
            ],
        ) {
            let _ = parse_token_response(status, None, &body, &Redactor::default());
        }
    }
}
