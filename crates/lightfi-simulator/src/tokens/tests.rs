#![allow(clippy::unwrap_used, reason = "tests")]
use std::time::Duration;

use super::*;

const NOW: f64 = 1_768_348_800.5;

fn tokens(rotate_refresh_tokens: bool) -> Tokens {
    Tokens::new(&Options {
        token_lifetime: Duration::from_secs(300),
        rotate_refresh_tokens,
        ..Options::default()
    })
}

fn refresh(tokens: &Tokens, refresh_token: &str, now: f64) -> Result<TokenResponse, &'static str> {
    let form = format!(
        "grant_type=refresh_token&client_id={}&client_secret={}&refresh_token={refresh_token}",
        tokens.client_id, tokens.client_secret
    );
    tokens.respond(form.as_bytes(), None, false, now)
}

#[test]
fn an_access_token_is_valid_until_the_end_it_claims() {
    let tokens = tokens(false);
    let first = refresh(&tokens, &tokens.newest_refresh_token(), NOW).unwrap();
    assert_eq!(
        (first.expires_in, first.token_type, first.refresh_token),
        (300, "Bearer", None)
    );
    assert!(tokens.accepts(&first.access_token, NOW + 299.4));
    assert!(!tokens.accepts(&first.access_token, NOW + 299.5));
    let token = jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(&first.access_token);
    let claims = token.unwrap().claims;
    assert_eq!(
        (claims["iat"].as_u64(), claims["exp"].as_u64()),
        (Some(1_768_348_800), Some(1_768_349_100))
    );
    let second = refresh(&tokens, &tokens.newest_refresh_token(), NOW).unwrap();
    assert_ne!(first.access_token, second.access_token);
    for foreign in ["", "opaque", &format!("{}x", first.access_token)] {
        assert!(!tokens.accepts(foreign, NOW), "{foreign}");
    }
}

#[test]
fn the_client_authenticates_in_the_form_or_by_basic() {
    let tokens = tokens(false);
    let refresh_token = tokens.newest_refresh_token();
    let form = format!("grant_type=refresh_token&refresh_token={refresh_token}");
    let (id, secret) = (&*tokens.client_id, &*tokens.client_secret);
    for (given_id, given_secret) in [(id, secret), (id, "wrong"), ("wrong", secret)] {
        let credentials = BASE64_STANDARD.encode(format!("{given_id}:{given_secret}"));
        let basic = format!("Basic {credentials}");
        let in_form = format!("{form}&client_id={given_id}&client_secret={given_secret}");
        for response in [
            tokens.respond(form.as_bytes(), Some(&basic), false, NOW),
            tokens.respond(in_form.as_bytes(), None, false, NOW),
        ] {
            match (given_id, given_secret) == (id, secret) {
                true => assert!(response.is_ok()),
                false => assert_eq!(response.unwrap_err(), "invalid_client"),
            }
        }
    }
    let nothing = tokens.respond(form.as_bytes(), None, false, NOW);
    assert_eq!(nothing.unwrap_err(), "invalid_client");
}

#[test]
fn a_wrong_request_is_refused_with_its_error_code() {
    let tokens = tokens(false);
    let client = format!(
        "client_id={}&client_secret={}",
        tokens.client_id, tokens.client_secret
    );
    for (rest, error) in [
        ("", "invalid_request"),
        ("&grant_type=refresh_token", "invalid_request"),
        ("&grant_type=refresh_token&refresh_token=x", "invalid_grant"),
        ("&grant_type=authorization_code&code=x", "invalid_request"),
        ("&grant_type=password", "unsupported_grant_type"),
    ] {
        let form = format!("{client}{rest}");
        let response = tokens.respond(form.as_bytes(), None, false, NOW);
        assert_eq!(response.unwrap_err(), error, "{rest}");
    }
}

#[test]
fn a_rotated_refresh_token_is_valid_for_its_grace_and_no_longer() {
    let tokens = tokens(true);
    let first = tokens.newest_refresh_token();
    let rotate = |token: &str, now: f64| refresh(&tokens, token, now).map(|r| r.refresh_token);
    let second = rotate(&first, NOW).unwrap().unwrap();
    let third = rotate(&first, NOW + 59.0).unwrap().unwrap();
    assert!(first != second && second != third);
    assert_eq!(rotate(&first, NOW + 60.0), Err("invalid_grant"));
    assert!(rotate(&second, NOW + 4000.0).is_ok());
    assert!(rotate(&third, NOW + 4000.0).is_ok());
}

#[test]
fn without_rotation_the_refresh_token_stays_valid() {
    let tokens = tokens(false);
    let refresh_token = tokens.newest_refresh_token();
    for day in 0..3650 {
        assert!(refresh(&tokens, &refresh_token, NOW + f64::from(day) * 86_400.0).is_ok());
    }
    assert_eq!(tokens.lock().access.len(), 1, "expired tokens are removed");
}

#[test]
fn a_short_lived_token_is_refused_before_the_end_it_claims() {
    let tokens = tokens(false);
    let form = format!(
        "grant_type=refresh_token&client_id={}&client_secret={}&refresh_token={}",
        tokens.client_id,
        tokens.client_secret,
        tokens.newest_refresh_token()
    );
    let short = tokens.respond(form.as_bytes(), None, true, NOW).unwrap();
    assert_eq!(short.expires_in, 300);
    assert!(tokens.accepts(&short.access_token, NOW + 1.9));
    assert!(!tokens.accepts(&short.access_token, NOW + 2.0));
}
