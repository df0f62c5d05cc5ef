//! An access token and its lifetime. Pure: `request` makes it from a reply, `schedule` keeps it, `api` sends it.

use std::time::Duration;

use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::Value;

/// The lifetime of a token whose server states none or an invalid one.
const DEFAULT_LIFETIME: f64 = 5.0 * 60.0;

/// Ten years: no sum of times overflows below this, and LightFi's longest token lives a day.
const MAX_LIFETIME: f64 = 3650.0 * 24.0 * 3600.0;

/// An access token, ready to be sent. `Debug` does not show it.
#[derive(Debug)]
pub struct AccessToken {
    bearer: HeaderValue,
}

impl AccessToken {
    /// Returns `None` where the text cannot be sent in a header.
    pub(super) fn new(text: &str) -> Option<Self> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let mut bearer = HeaderValue::from_str(&format!("Bearer {text}")).ok()?;
        bearer.set_sensitive(true);
        Some(Self { bearer })
    }

    /// Returns the value of the header `Authorization`, marked as sensitive.
    pub fn bearer(&self) -> HeaderValue {
        self.bearer.clone()
    }
}

/// Returns how long a token lives from the moment it is received: the smaller of what the reply and the token's own
/// claims state. Only the difference of the claims counts, so that a wrong clock does no harm.
pub(super) fn lifetime(access_token: &str, expires_in: Option<f64>) -> Duration {
    let stated = [expires_in, claimed_lifetime(access_token)];
    let seconds = stated.into_iter().flatten().reduce(f64::min);
    let seconds = seconds.filter(|seconds| *seconds > 0.0);
    Duration::from_secs_f64(seconds.unwrap_or(DEFAULT_LIFETIME).min(MAX_LIFETIME))
}

/// Returns a number, which some servers write in quotes.
pub(super) fn lenient_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number: &f64| !number.is_nan())
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    exp: Value,
    #[serde(default)]
    iat: Value,
}

/// The signature is not verified: the API does that, and here the claims only decide when to ask for the next token.
fn claimed_lifetime(access_token: &str) -> Option<f64> {
    let claims: Claims = jsonwebtoken::dangerous::insecure_decode_claims(access_token).ok()?;
    Some(lenient_number(&claims.exp)? - lenient_number(&claims.iat)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    use serde_json::json;

    use super::*;

    fn jwt(claims: &Value) -> String {
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let [header, claims] = [r#"{"alg":"HS256"}"#, &claims.to_string()].map(encode);
        format!("{header}.{claims}.{}", encode("signature"))
    }

    #[test]
    fn the_smaller_of_expires_in_and_claims_is_the_lifetime() {
        let claims = |iat: Value, exp: Value| jwt(&json!({"iat": iat, "exp": exp}));
        let hour = claims(json!(1_000_000), json!(1_003_600));
        let opaque = || "opaque".to_owned();
        for (token, expires_in, expected) in [
            (hour.clone(), Some(14_400.0), 3600.0),
            (hour.clone(), Some(60.0), 60.0),
            (hour, None, 3600.0),
            (claims(json!("100"), json!("160")), None, 60.0),
            (opaque(), Some(0.25), 0.25),
            // Unknown, zero or negative.
            (opaque(), None, DEFAULT_LIFETIME),
            (opaque(), Some(0.0), DEFAULT_LIFETIME),
            (opaque(), Some(-5.0), DEFAULT_LIFETIME),
            (
                claims(json!(10), json!(10)),
                Some(14_400.0),
                DEFAULT_LIFETIME,
            ),
            (
                claims(json!(10), json!(5)),
                Some(14_400.0),
                DEFAULT_LIFETIME,
            ),
            // Too long.
            (opaque(), Some(1e300), MAX_LIFETIME),
            (opaque(), Some(f64::INFINITY), MAX_LIFETIME),
            (claims(json!(-1e300), json!(1e300)), None, MAX_LIFETIME),
        ] {
            let lifetime = lifetime(&token, expires_in).as_secs_f64();
            assert_eq!(lifetime, expected, "{token} {expires_in:?}");
        }
    }

    #[test]
    fn a_token_without_usable_claims_lives_as_long_as_expires_in_says() {
        let mut tokens = ["opaque", "a.b.c", "a.b", "", "..", "a.e30.c", "é.é.é"]
            .map(str::to_owned)
            .to_vec();
        for claims in [
            json!({"exp": 5}),
            json!({"iat": 5}),
            json!({"exp": "soon", "iat": []}),
        ] {
            tokens.push(jwt(&claims));
        }
        for token in tokens {
            let lifetime = lifetime(&token, Some(77.0));
            assert_eq!(lifetime, Duration::from_secs(77), "{token}");
        }
    }

    #[test]
    fn debug_output_does_not_show_the_token() {
        let token = AccessToken::new("eyJsecret").unwrap();
        assert_eq!(token.bearer(), "Bearer eyJsecret");
        let shown = format!("{token:?} {:?}", token.bearer());
        assert!(!shown.contains("eyJsecret"), "{shown}");
    }
}
