//! One token request: the form that is sent and what the reply means. `source` and `login` decide when to send it.
//!
//! Replies are read leniently, because servers differ. Of a body only `error` and `error_description` are passed on,
//! redacted and shortened.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Client, header::ACCEPT};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use url::form_urlencoded;

use super::{
    TokenError,
    credentials::ClientCredentials,
    redact::Redactor,
    token::{AccessToken, lenient_number, lifetime},
};
use crate::{
    config::{ClientAuth, Oauth, Secret},
    http::{describe, read_limited, reason_of, retry_after},
    stats::Reason,
};

/// A reply has a few KiB. The redactor keeps the last secrets in memory, so long ones would use a lot of it.
const MAX_REPLY_BYTES: usize = 64 * 1024;

/// A successful reply.
pub struct TokenResponse {
    /// The access token.
    pub access_token: AccessToken,
    /// How long it lives from the moment of the reply.
    pub lifetime: Duration,
    /// After a refresh, present only if the server rotates refresh tokens.
    pub(super) refresh_token: Option<Secret>,
}

/// The fields of a reply, successful or not, that are read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Reply {
    #[serde(deserialize_with = "lenient_text")]
    access_token: Option<String>,
    expires_in: Value,
    #[serde(deserialize_with = "lenient_text")]
    refresh_token: Option<String>,
    #[serde(deserialize_with = "lenient_text")]
    error: Option<String>,
    #[serde(deserialize_with = "lenient_text")]
    error_description: Option<String>,
}

/// Reads a text that is not empty; anything else counts as absent.
fn lenient_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    })
}

/// Sends a token request and reads the reply. `grant` contains the grant type and its parameters (RFC 6749, 1.3); `http`
/// follows no redirect and has a timeout.
pub(super) async fn request_token(
    http: &Client,
    oauth: &Oauth,
    client: &ClientCredentials,
    grant: &[(&str, &str)],
    redactor: &Redactor,
) -> Result<TokenResponse, TokenError> {
    let mut form = grant.to_vec();
    let mut request = http
        .post(oauth.token_url.clone())
        .header(ACCEPT, "application/json");
    match oauth.client_auth {
        ClientAuth::Body => {
            form.push(("client_id", client.id.expose()));
            if let Some(secret) = &client.secret {
                form.push(("client_secret", secret.expose()));
            }
        }
        // RFC 6749, 2.3.1: both parts are form-encoded before they are joined.
        ClientAuth::Basic => {
            let id = form_encoded(&client.id);
            let secret = client.secret.as_ref().map(form_encoded).unwrap_or_default();
            // A server may repeat the header, and the form-encoded secret has another base64 than the secret itself.
            let credentials = BASE64_STANDARD.encode(format!("{id}:{secret}"));
            redactor.register_secret(&Secret::new(credentials));
            request = request.basic_auth(id, Some(secret));
        }
    }
    let response = request.form(&form).send().await.map_err(|error| {
        let reason = reason_of(&error);
        let what = format!("no reply from the token endpoint: {}", describe(error));
        TokenError::unavailable(reason, what)
    })?;
    let status = response.status();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let body = read_limited(response, MAX_REPLY_BYTES).await;
    if let Err(error) = &body
        && status.is_success()
    {
        let what = format!("cannot read the reply of the token endpoint: {error}");
        return Err(TokenError::unavailable(error.reason(), what));
    }
    // Without a body, the status alone shows that the request failed.
    let body = body.unwrap_or_default();
    parse_token_response(status.as_u16(), retry_after, &body, redactor)
}

fn form_encoded(secret: &Secret) -> String {
    form_urlencoded::byte_serialize(secret.expose().as_bytes()).collect()
}

/// Returns what a reply means. Pure; accepts any bytes.
pub fn parse_token_response(
    status: u16,
    retry_after: Option<Duration>,
    body: &[u8],
    redactor: &Redactor,
) -> Result<TokenResponse, TokenError> {
    // A body of another form is read as one without fields.
    let reply: Reply = serde_json::from_slice(body).unwrap_or_default();
    // A 401 or 403 without an OAuth error may come from a proxy: it is retried, and the credentials do not count as refused.
    let is_refusal = matches!(
        reply.error.as_deref(),
        Some("invalid_grant" | "invalid_client" | "unauthorized_client")
    );
    let reason = match Reason::of_status(status) {
        Some(reason) => reason,
        // Some servers refuse with status 200.
        None if is_refusal => Reason::ClientError,
        None => return parse_success(reply, redactor),
    };
    let what = format!("the token endpoint answered {status}");
    let what = with_error(what, &reply, redactor);
    // A server that fails or limits requests does not judge the credentials.
    let judges_credentials = !matches!(
        reason,
        Reason::ServerError | Reason::RateLimited | Reason::Redirect
    );
    Err(match reply.error.as_deref() {
        Some("invalid_grant") if judges_credentials => TokenError::InvalidGrant(what),
        Some("invalid_client" | "unauthorized_client") if judges_credentials => {
            TokenError::InvalidClient(what)
        }
        _ => TokenError::Unavailable {
            reason,
            what,
            retry_after,
        },
    })
}

fn parse_success(reply: Reply, redactor: &Redactor) -> Result<TokenResponse, TokenError> {
    let malformed = |what| TokenError::unavailable(Reason::Malformed, what);
    let Some(token) = &reply.access_token else {
        let what = "the response of the token endpoint is not a JSON object with an access_token";
        return Err(malformed(with_error(what.to_owned(), &reply, redactor)));
    };
    redactor.register_secret(&Secret::new(token));
    let Some(access_token) = AccessToken::new(token) else {
        let what = "the access_token of the token endpoint cannot be sent in a header";
        return Err(malformed(what.to_owned()));
    };
    Ok(TokenResponse {
        access_token,
        lifetime: lifetime(token, lenient_number(&reply.expires_in)),
        refresh_token: reply.refresh_token.map(Secret::new),
    })
}

/// Appends the error of the reply, safe to show.
fn with_error(what: String, reply: &Reply, redactor: &Redactor) -> String {
    match &reply.error {
        Some(error) => {
            let error = redactor.error_text(error, reply.error_description.as_deref());
            format!("{what}: {error}")
        }
        None => what,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
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
    fn a_field_of_the_wrong_type_counts_as_absent() {
        let refused = json!({"error": "invalid_grant", "error_description": ["gone"]});
        assert!(matches!(error(400, &refused), TokenError::InvalidGrant(_)));
        assert!(parse(200, &json!({"access_token": "t", "error": 0})).is_ok());
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
            "no access token: the response of the token endpoint is not a JSON object with an access_token: slow_down"
        );
    }

    #[test]
    fn each_failed_reply_has_its_reason() {
        let no_error = json!({});
        let [grant, client, unauthorized, other] = [
            "invalid_grant",
            "invalid_client",
            "unauthorized_client",
            "invalid_request",
        ]
        .map(|code| json!({"error": code}));
        for (status, body, reason) in [
            (200, &grant, Reason::InvalidGrant),
            (400, &grant, Reason::InvalidGrant),
            (401, &client, Reason::InvalidClient),
            (403, &unauthorized, Reason::InvalidClient),
            // A server that fails does not judge the credentials.
            (503, &grant, Reason::ServerError),
            (429, &client, Reason::RateLimited),
            (400, &other, Reason::ClientError),
            (401, &no_error, Reason::Unauthorized),
            (403, &no_error, Reason::Forbidden),
            (404, &no_error, Reason::NotFound),
            (200, &no_error, Reason::Malformed),
            (200, &json!([]), Reason::Malformed),
            (200, &json!({"access_token": 5}), Reason::Malformed),
            (200, &json!({"access_token": ""}), Reason::Malformed),
            (
                200,
                &json!({"access_token": "two\nlines"}),
                Reason::Malformed,
            ),
        ] {
            assert_eq!(error(status, body).reason(), reason, "{status} {body}");
        }
    }
}
