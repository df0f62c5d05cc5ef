//! One access token: the header it becomes and how long it lives. Pure; made by `source`, held by whoever sends it.

use std::time::Duration;

use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::Value;

/// What a token lives when its server does not say, or says nonsense.
const ASSUMED: Duration = Duration::from_secs(5 * 60);

/// No sum of times overflows below this; the vendor's longest token lives a day.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 3600);

/// A token as the API takes it. Two are the same token if their generation is the same.
pub struct AccessToken {
    bearer: HeaderValue,
    generation: u64,
}

impl AccessToken {
    pub(super) fn new(bearer: HeaderValue, generation: u64) -> Self {
        Self { bearer, generation }
    }

    /// The value of `Authorization`, marked sensitive.
    pub fn bearer(&self) -> HeaderValue {
        self.bearer.clone()
    }

    /// Which token of this process it is: the first is 1.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

impl std::fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccessToken({})", self.generation)
    }
}

/// The header that carries a token; `None` where its text cannot stand in one.
pub(super) fn bearer(access_token: &str) -> Option<HeaderValue> {
    if access_token.is_empty() || !access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut bearer = HeaderValue::from_str(&format!("Bearer {access_token}")).ok()?;
    bearer.set_sensitive(true);
    Some(bearer)
}

/// How long a token lives from the moment it is received: the smallest of what its reply and its own claims say. Only
/// the difference of the claims counts, so a server whose clock is wrong does no harm.
pub(super) fn lifetime(access_token: &str, expires_in: Option<f64>) -> Duration {
    [expires_in, claimed_lifetime(access_token)]
        .into_iter()
        .flatten()
        .map(plausible)
        .min()
        .unwrap_or(ASSUMED)
}

/// A number as servers write it, which some put in quotes.
pub(super) fn tolerant_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number: &f64| !number.is_nan())
}

/// The part of a JWT's claims that says how long it lives.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    exp: Value,
    #[serde(default)]
    iat: Value,
}

/// The signature is not verified: the API is the one to do that, and the claims decide no more here than when to ask anew.
fn claimed_lifetime(access_token: &str) -> Option<f64> {
    let claims: Claims = jsonwebtoken::dangerous::insecure_decode_claims(access_token).ok()?;
    Some(tolerant_number(&claims.exp)? - tolerant_number(&claims.iat)?)
}

fn plausible(seconds: f64) -> Duration {
    if seconds > 0.0 {
        Duration::try_from_secs_f64(seconds).map_or(LONGEST, |life| life.min(LONGEST))
    } else {
        ASSUMED
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn jwt(claims: &Value) -> String {
        use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
        let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        let claims = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
        format!(
            "{header}.{claims}.{}",
            BASE64_URL_SAFE_NO_PAD.encode("signature")
        )
    }

    fn seconds(access_token: &str, expires_in: Option<f64>) -> f64 {
        lifetime(access_token, expires_in).as_secs_f64()
    }

    #[test]
    fn the_smaller_of_reply_and_claims_counts() {
        let token = jwt(&json!({"iat": 1_000_000, "exp": 1_003_600}));
        assert_eq!(seconds(&token, Some(14_400.0)), 3600.0);
        assert_eq!(seconds(&token, Some(60.0)), 60.0);
        assert_eq!(seconds(&token, None), 3600.0);
    }

    #[test]
    fn a_server_clock_an_hour_off_changes_nothing() {
        for skew in [-3600, 0, 3600] {
            let now = 1_780_000_000 + skew;
            let token = jwt(&json!({"iat": now, "exp": now + 240}));
            assert_eq!(seconds(&token, Some(240.0)), 240.0);
        }
    }

    #[test]
    fn a_token_that_is_no_jwt_falls_back_to_the_reply() {
        for token in ["opaque", "a.b.c", "a.b", "", "..", "a.e30.c", "é.é.é"] {
            assert_eq!(seconds(token, Some(77.0)), 77.0, "{token}");
        }
        for claims in [
            json!({"exp": 5}),
            json!({"iat": 5}),
            json!({"exp": "soon", "iat": []}),
        ] {
            assert_eq!(seconds(&jwt(&claims), Some(77.0)), 77.0, "{claims}");
        }
    }

    #[test]
    fn unknown_zero_and_negative_lifetimes_are_five_minutes() {
        assert_eq!(seconds("opaque", None), 300.0);
        assert_eq!(seconds("opaque", Some(0.0)), 300.0);
        assert_eq!(seconds("opaque", Some(-5.0)), 300.0);
        assert_eq!(
            seconds(&jwt(&json!({"iat": 10, "exp": 10})), Some(14_400.0)),
            300.0
        );
        assert_eq!(
            seconds(&jwt(&json!({"iat": 10, "exp": 5})), Some(14_400.0)),
            300.0
        );
        assert_eq!(
            seconds(&jwt(&json!({"iat": 10, "exp": 70})), Some(0.0)),
            60.0
        );
    }

    #[test]
    fn mad_numbers_are_bounded() {
        assert_eq!(lifetime("opaque", Some(1e300)), LONGEST);
        assert_eq!(lifetime("opaque", Some(f64::INFINITY)), LONGEST);
        assert_eq!(
            lifetime(&jwt(&json!({"iat": -1e300, "exp": 1e300})), None),
            LONGEST
        );
        assert_eq!(seconds("opaque", Some(0.25)), 0.25);
    }

    #[test]
    fn numbers_may_be_quoted() {
        assert_eq!(tolerant_number(&json!("3600")), Some(3600.0));
        assert_eq!(tolerant_number(&json!(3600.5)), Some(3600.5));
        for value in [json!("soon"), json!("NaN"), json!(null), json!([1])] {
            assert_eq!(tolerant_number(&value), None, "{value}");
        }
        assert_eq!(
            seconds(&jwt(&json!({"iat": "100", "exp": "160"})), None),
            60.0
        );
    }

    #[test]
    fn text_that_cannot_stand_in_a_header_is_no_token() {
        for text in ["", "two words", "line\nbreak", "naïve"] {
            assert!(bearer(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn debug_shows_no_token() {
        let token = AccessToken::new(bearer("eyJsecret").unwrap(), 3);
        assert_eq!(token.bearer(), "Bearer eyJsecret");
        assert_eq!(
            format!("{token:?} {:?}", token.bearer()),
            "AccessToken(3) Sensitive"
        );
    }
}
