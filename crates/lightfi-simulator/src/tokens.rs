//! The simulated token endpoint and the check of the tokens that it issued: OAuth 2 as the vendor's identity provider
//! implements it.
//!
//! No HTTP here: `routes` hands in the form, the `Authorization` header and the time of the cloud's clock.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde::Serialize;
use serde_json::json;

use super::{authorization_codes::AuthorizationCodes, noise::hash, options::Options};

/// The scope that the vendor's clients request.
pub(super) const SCOPE: &str = "aws.cognito.signin.user.admin";

/// The real lifetime of an access token under the fault `token-expires`, in seconds.
const SHORT_LIFETIME: f64 = 2.0;

/// The identity provider.
pub(super) struct Tokens {
    pub(super) client_id: String,
    pub(super) client_secret: String,
    options: Options,
    /// Differs from process to process, so that no token is issued twice.
    start: u64,
    issued: Mutex<Issued>,
}

/// Every token that is valid, with its end; a refresh token that was not rotated has none.
struct Issued {
    access: HashMap<String, f64>,
    refresh: HashMap<String, f64>,
    newest_refresh: String,
    codes: AuthorizationCodes,
    count: u64,
}

/// The body of a successful token response.
#[derive(Debug, Serialize)]
pub(super) struct TokenResponse {
    pub(super) access_token: String,
    pub(super) expires_in: u64,
    pub(super) token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<String>,
}

impl Tokens {
    /// The client and the first refresh token follow from the seed, so a restarted cloud accepts them again.
    pub(super) fn new(options: &Options) -> Self {
        let seed = options.seed;
        let start = RandomState::new().hash_one(seed);
        let first = refresh_token(seed, 0);
        Self {
            client_id: format!("simulated{:016x}", hash(seed, &[30])),
            client_secret: format!("secret{:016x}{:016x}", hash(seed, &[31]), hash(seed, &[32])),
            options: options.clone(),
            start,
            issued: Mutex::new(Issued {
                access: HashMap::new(),
                refresh: HashMap::from([(first.clone(), f64::INFINITY)]),
                newest_refresh: first,
                codes: AuthorizationCodes::default(),
                count: 0,
            }),
        }
    }

    /// Answers a token request. The error is the OAuth error code.
    pub(super) fn respond(
        &self,
        form: &[u8],
        authorization: Option<&str>,
        short_lived: bool,
        now: f64,
    ) -> Result<TokenResponse, &'static str> {
        let form: HashMap<_, _> = url::form_urlencoded::parse(form).collect();
        let field = |name: &str| form.get(name).map(AsRef::as_ref);
        if !self.is_client(authorization, field("client_id"), field("client_secret")) {
            return Err("invalid_client");
        }
        let mut issued = self.lock();
        let refresh_token = match field("grant_type") {
            Some("refresh_token") => {
                let token = field("refresh_token").ok_or("invalid_request")?;
                self.use_refresh_token(&mut issued, token, now)?
            }
            Some("authorization_code") => {
                let code = field("code").ok_or("invalid_request")?;
                let redirect_uri = field("redirect_uri").ok_or("invalid_request")?;
                let verifier = field("code_verifier");
                if !issued.codes.redeem(code, redirect_uri, verifier, now) {
                    return Err("invalid_grant");
                }
                let gives_one = self.options.login_gives_refresh_token;
                gives_one.then(|| self.issue_refresh_token(&mut issued))
            }
            Some(_) => return Err("unsupported_grant_type"),
            None => return Err("invalid_request"),
        };
        // Claims are whole seconds.
        let lifetime = self.options.token_lifetime.as_secs().max(1);
        issued.count += 1;
        let (access_token, claimed_end) = self.jwt(issued.count, lifetime, now);
        let end = match short_lived {
            true => claimed_end.min(now + SHORT_LIFETIME),
            false => claimed_end,
        };
        issued.access.retain(|_, end| now < *end);
        issued.access.insert(access_token.clone(), end);
        Ok(TokenResponse {
            access_token,
            expires_in: lifetime,
            token_type: "Bearer",
            refresh_token,
        })
    }

    /// Issues an authorization code for this redirect URI and PKCE challenge.
    pub(super) fn issue_code(
        &self,
        redirect_uri: &str,
        challenge: Option<&str>,
        now: f64,
    ) -> String {
        let mut issued = self.lock();
        issued.count += 1;
        let part = |topic: u64| hash(self.start, &[34, issued.count, topic]);
        let code = format!("code{:016x}{:016x}", part(1), part(2));
        issued.codes.add(&code, redirect_uri, challenge, now);
        code
    }

    /// Returns whether an access token is valid.
    pub(super) fn accepts(&self, access_token: &str, now: f64) -> bool {
        let issued = self.lock();
        issued
            .access
            .get(access_token)
            .is_some_and(|end| now < *end)
    }

    /// Returns the refresh token that was issued last.
    pub(super) fn newest_refresh_token(&self) -> String {
        self.lock().newest_refresh.clone()
    }

    /// Revokes all refresh tokens and issues a new one.
    pub(super) fn replace_refresh_token(&self) -> String {
        let mut issued = self.lock();
        issued.refresh.clear();
        self.issue_refresh_token(&mut issued)
    }

    fn is_client(
        &self,
        authorization: Option<&str>,
        id: Option<&str>,
        secret: Option<&str>,
    ) -> bool {
        match authorization.and_then(|header| header.split_once(' ')) {
            // A client id in the form must not contradict the header.
            Some((scheme, credentials)) if scheme.eq_ignore_ascii_case("basic") => {
                let expected =
                    BASE64_STANDARD.encode(format!("{}:{}", self.client_id, self.client_secret));
                credentials.trim() == expected && id.is_none_or(|id| id == self.client_id)
            }
            _ => id == Some(&*self.client_id) && secret == Some(&*self.client_secret),
        }
    }

    /// Returns the new refresh token if tokens rotate.
    fn use_refresh_token(
        &self,
        issued: &mut Issued,
        token: &str,
        now: f64,
    ) -> Result<Option<String>, &'static str> {
        issued.refresh.retain(|_, end| now < *end);
        let end = issued.refresh.get_mut(token).ok_or("invalid_grant")?;
        if !self.options.rotate_refresh_tokens {
            return Ok(None);
        }
        // The grace counts from the first rotation; using the old token again does not extend it.
        *end = end.min(now + self.options.rotation_grace.as_secs_f64());
        Ok(Some(self.issue_refresh_token(issued)))
    }

    fn issue_refresh_token(&self, issued: &mut Issued) -> String {
        issued.count += 1;
        // Not from the seed alone: a token of an earlier process must not be valid again.
        let token = refresh_token(self.options.seed ^ self.start, issued.count);
        issued.refresh.insert(token.clone(), f64::INFINITY);
        issued.newest_refresh.clone_from(&token);
        token
    }

    /// Returns a JSON Web Token and its `exp`. The signature is random: it would be made with a secret key, so clients cannot check
    /// it.
    fn jwt(&self, number: u64, lifetime: u64, now: f64) -> (String, f64) {
        let issued_at = now.max(0.0) as u64;
        let claims = json!({
            "sub": "simulated-account",
            "iss": "simulated-identity-provider",
            "client_id": self.client_id,
            "token_use": "access",
            "scope": SCOPE,
            "auth_time": issued_at,
            "iat": issued_at,
            "exp": issued_at + lifetime,
            "jti": format!("{:016x}-{number}", self.start),
            "username": "simulated-account",
        });
        let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let claims = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
        let signature: Vec<u8> = (0..4)
            .flat_map(|part| hash(self.start, &[35, number, part]).to_be_bytes())
            .collect();
        let signature = BASE64_URL_SAFE_NO_PAD.encode(signature);
        (
            format!("{header}.{claims}.{signature}"),
            (issued_at + lifetime) as f64,
        )
    }

    fn lock(&self) -> MutexGuard<'_, Issued> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refresh_token(seed: u64, number: u64) -> String {
    let part = |topic: u64| hash(seed, &[33, number, topic]);
    format!("refresh{:016x}{:016x}{:016x}", part(1), part(2), part(3))
}

#[cfg(test)]
mod tests;
