//! One token request: the form as it goes out, and what the answer means. `source` and `login` decide when to send it.
//!
//! Replies are read tolerantly (servers differ), and nothing of a body is passed on but the two fields OAuth has for
//! that, scrubbed and cut.

use std::time::{Duration, SystemTime};

use reqwest::{
    Client, Response,
    header::{ACCEPT, AUTHORIZATION, HeaderValue},
};
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use super::{
    TokenError,
    scrub::Scrubber,
    token::{bearer, lifetime, tolerant_number},
};
use crate::{
    config::{ClientAuth, Secret},
    http::{describe, read_limited, reason_of, retry_after},
    stats::Reason,
};

/// A token reply has a few KiB; this is ample, and no knob. Tokens are remembered, so that a longer one would add up.
const MAX_REPLY_BYTES: usize = 64 * 1024;

/// The verdict on a refresh token.
const INVALID_GRANT: &str = "invalid_grant";

/// The verdicts on a client.
const INVALID_CLIENT: &[&str] = &["invalid_client", "unauthorized_client"];

/// Everything that goes into the form.
pub(super) struct TokenRequest<'a> {
    pub(super) token_url: &'a Url,
    pub(super) client_auth: ClientAuth,
    pub(super) client_id: &'a Secret,
    pub(super) client_secret: Option<&'a Secret>,
    pub(super) exchanged: Exchanged<'a>,
}

/// What is given for an access token.
pub(super) enum Exchanged<'a> {
    RefreshToken(&'a Secret),
    /// Of a login; `redirect_uri` is the one that the login was begun with, letter by letter.
    Code {
        code: &'a Secret,
        redirect_uri: &'a str,
        verifier: &'a Secret,
    },
}

/// A good answer.
pub struct Reply {
    /// The value of `Authorization`, marked sensitive.
    pub bearer: HeaderValue,
    /// From the moment of the answer.
    pub lifetime: Duration,
    /// For a refresh token only from a server that rotates them.
    pub(super) refresh_token: Option<Secret>,
}

impl TokenRequest<'_> {
    /// Sends it and reads the answer. The client follows no redirect and has the time-out.
    pub(super) async fn send(
        &self,
        http: &Client,
        scrubber: &Scrubber,
    ) -> Result<Reply, TokenError> {
        let mut form = match &self.exchanged {
            Exchanged::RefreshToken(token) => vec![
                ("grant_type", "refresh_token"),
                ("refresh_token", token.expose()),
            ],
            Exchanged::Code {
                code,
                redirect_uri,
                verifier,
            } => vec![
                ("grant_type", "authorization_code"),
                ("code", code.expose()),
                ("redirect_uri", redirect_uri),
                ("code_verifier", verifier.expose()),
            ],
        };
        let mut request = http
            .post(self.token_url.clone())
            .header(ACCEPT, HeaderValue::from_static("application/json"));
        match self.client_auth {
            ClientAuth::Body => {
                form.push(("client_id", self.client_id.expose()));
                form.extend(
                    self.client_secret
                        .map(|secret| ("client_secret", secret.expose())),
                );
            }
            // RFC 6749 2.3.1: both parts are form-encoded before they are joined.
            ClientAuth::Basic => {
                request = request.basic_auth(
                    form_encoded(self.client_id),
                    Some(self.client_secret.map(form_encoded).unwrap_or_default()),
                );
            }
        }
        let request = request.form(&form).build().map_err(no_answer)?;
        if let Some(basic) = request.headers().get(AUTHORIZATION)
            && let Some((_, encoded)) = basic.to_str().unwrap_or_default().split_once(' ')
        {
            scrubber.learn(&Secret::new(encoded));
        }
        let response = http.execute(request).await.map_err(no_answer)?;
        read(response, scrubber).await
    }
}

async fn read(response: Response, scrubber: &Scrubber) -> Result<Reply, TokenError> {
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    // A broken or endless body does not change what a refusal's status says.
    let body = match (read_limited(response, MAX_REPLY_BYTES).await, status) {
        (Ok(body), _) => body,
        (Err(error), 200..=299) => {
            let what = format!("the token endpoint's answer cannot be read: {error}");
            return Err(unavailable(error.reason(), what));
        }
        (Err(_), _) => bytes::Bytes::new(),
    };
    understand(status, retry_after, &body, scrubber)
}

/// What an answer means. Pure; any bytes will do.
pub fn understand(
    status: u16,
    retry_after: Option<Duration>,
    body: &[u8],
    scrubber: &Scrubber,
) -> Result<Reply, TokenError> {
    let object = match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    };
    let code = object.as_ref().and_then(|object| text(object, "error"));
    let reason = match Reason::of_status(status) {
        Some(reason) => reason,
        // Some servers refuse with status 200.
        None if is_refusal(code) => Reason::ClientError,
        None => return good_reply(object.as_ref(), scrubber),
    };
    let what = match object.as_ref().and_then(|object| told(object, scrubber)) {
        Some(told) => format!("the token endpoint answered {status}: {told}"),
        None => format!("the token endpoint answered {status}"),
    };
    Err(match (reason, code) {
        // What a server says while it is failing or throttling is no verdict on the credentials.
        (Reason::ServerError | Reason::RateLimited | Reason::Redirect, _) => {
            TokenError::Unavailable {
                reason,
                what,
                retry_after,
            }
        }
        (_, Some(INVALID_GRANT)) => TokenError::InvalidGrant(what),
        (_, code) if is_refusal(code) => TokenError::InvalidClient(what),
        _ => TokenError::Unavailable {
            reason,
            what,
            retry_after,
        },
    })
}

/// Whether a person must mend the credentials.
fn is_refusal(code: Option<&str>) -> bool {
    code.is_some_and(|code| code == INVALID_GRANT || INVALID_CLIENT.contains(&code))
}

fn good_reply(
    object: Option<&Map<String, Value>>,
    scrubber: &Scrubber,
) -> Result<Reply, TokenError> {
    let malformed = |what: String| unavailable(Reason::Malformed, what);
    let Some(object) = object else {
        return Err(malformed(
            "the token endpoint answered something else than a JSON object".to_owned(),
        ));
    };
    let Some(access_token) = text(object, "access_token") else {
        return Err(malformed(match told(object, scrubber) {
            Some(told) => format!("the token endpoint's reply has no access_token: {told}"),
            None => "the token endpoint's reply has no access_token".to_owned(),
        }));
    };
    scrubber.learn(&Secret::new(access_token));
    let Some(bearer) = bearer(access_token) else {
        return Err(malformed(
            "the token endpoint's access_token cannot be sent in a header".to_owned(),
        ));
    };
    let expires_in = object.get("expires_in").and_then(tolerant_number);
    Ok(Reply {
        bearer,
        lifetime: lifetime(access_token, expires_in),
        refresh_token: text(object, "refresh_token").map(Secret::new),
    })
}

/// `error` and `error_description`, safe to show.
fn told(object: &Map<String, Value>, scrubber: &Scrubber) -> Option<String> {
    let code = text(object, "error")?;
    Some(match text(object, "error_description") {
        Some(description) => format!(
            "{} ({})",
            scrubber.excerpt(code),
            scrubber.excerpt(description)
        ),
        None => scrubber.excerpt(code),
    })
}

/// A field that holds a text that is not empty.
fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object
        .get(key)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

fn form_encoded(secret: &Secret) -> String {
    form_urlencoded::byte_serialize(secret.expose().as_bytes()).collect()
}

fn no_answer(error: reqwest::Error) -> TokenError {
    let reason = reason_of(&error);
    let what = format!("no answer from the token endpoint: {}", describe(error));
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

    fn error(status: u16, body: &Value) -> TokenError {
        understand(
            status,
            None,
            body.to_string().as_bytes(),
            &Scrubber::default(),
        )
        .err()
        .unwrap()
    }

    #[test]
    fn a_good_reply_may_be_sloppy() {
        let body = json!({
            "access_token": "abc", "expires_in": "60", "refresh_token": "", "token_type": 5, "more": [],
        });
        let reply = understand(200, None, body.to_string().as_bytes(), &Scrubber::default())
            .ok()
            .unwrap();
        assert_eq!(reply.bearer, "Bearer abc");
        assert_eq!(reply.lifetime, Duration::from_secs(60));
        assert!(reply.refresh_token.is_none());
    }

    #[test]
    fn an_error_shows_oauths_two_fields_and_nothing_else_of_the_body() {
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
            "no access token: the token endpoint's reply has no access_token: slow_down"
        );
    }

    #[test]
    fn a_refusal_counts_whatever_status_it_comes_with_unless_the_server_itself_fails() {
        for status in [200, 400, 401, 403] {
            let reason = |code| error(status, &json!({"error": code})).reason();
            assert_eq!(reason("invalid_grant"), Reason::InvalidGrant, "{status}");
            assert_eq!(reason("invalid_client"), Reason::InvalidClient, "{status}");
            assert_eq!(
                reason("unauthorized_client"),
                Reason::InvalidClient,
                "{status}"
            );
        }
        let failing = error(503, &json!({"error": "invalid_grant"}));
        assert_eq!(failing.reason(), Reason::ServerError);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            status in 100_u16..1000,
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                r#"\{"(access_token|error|expires_in)": ?("[ -~]*"|[0-9eE.+-]*|\{\})\}"#
                    .prop_map(String::into_bytes),
            ],
        ) {
            let _ = understand(status, None, &body, &Scrubber::default());
        }
    }
}
