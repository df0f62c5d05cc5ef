//! The authorization codes that a login gives and a token request redeems once (RFC 6749 with PKCE, RFC 7636).

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// The lifetime of a code, in seconds.
const LIFETIME: f64 = 300.0;

/// The codes that have not been redeemed yet.
#[derive(Default)]
pub(super) struct AuthorizationCodes(HashMap<String, Code>);

struct Code {
    redirect_uri: String,
    challenge: Option<String>,
    expires_at: f64,
}

impl AuthorizationCodes {
    /// Makes `code` valid for this redirect URI and PKCE challenge.
    pub(super) fn add(
        &mut self,
        code: &str,
        redirect_uri: &str,
        challenge: Option<&str>,
        now: f64,
    ) {
        self.0.retain(|_, code| now < code.expires_at);
        let properties = Code {
            redirect_uri: redirect_uri.to_owned(),
            challenge: challenge.map(str::to_owned),
            expires_at: now + LIFETIME,
        };
        self.0.insert(code.to_owned(), properties);
    }

    /// Returns whether the code is valid for this redirect URI and verifier. A code can be tried only once.
    pub(super) fn redeem(
        &mut self,
        code: &str,
        redirect_uri: &str,
        verifier: Option<&str>,
        now: f64,
    ) -> bool {
        self.0.remove(code).is_some_and(|code| {
            now < code.expires_at
                && code.redirect_uri == redirect_uri
                && code.challenge == verifier.map(s256)
        })
    }
}

fn s256(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_valid_once_for_five_minutes_for_its_redirect_and_verifier() {
        // The pair of RFC 7636, appendix B.
        let verifier = Some("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        let challenge = Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        let mut codes = AuthorizationCodes::default();
        let mut redeem = |redirect_uri, verifier, now| {
            codes.add("code", "http://a", challenge, 0.0);
            let first = codes.redeem("code", redirect_uri, verifier, now);
            // Also a failed attempt uses the code up.
            assert!(!codes.redeem("code", "http://a", verifier, 0.0));
            first
        };
        assert!(redeem("http://a", verifier, 299.0));
        assert!(!redeem("http://a", verifier, 300.0));
        assert!(!redeem("http://a/", verifier, 0.0));
        assert!(!redeem("http://a", Some("wrong"), 0.0));
        assert!(!redeem("http://a", None, 0.0));
    }
}
