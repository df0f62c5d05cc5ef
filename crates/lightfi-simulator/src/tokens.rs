//! The simulated token endpoint and the check of the tokens it gave: OAuth2 as the vendor's identity provider does it.
//!
//! No HTTP here: `routes` hands in the form, the `Authorization` header and the time. Time is the cloud's own clock,
//! in Unix seconds, which may be wrong on purpose. `authorize` gives the codes that are redeemed here.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError, RwLock},
    time::Duration,
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::{
    authorize::{Codes, Redemption},
    chance::hash,
};

/// The scope that the vendor's clients ask for.
pub(super) const SCOPE: &str = "aws.cognito.signin.user.admin";

/// How long a token is good that the fault `token-expires` cuts short.
const SHORT_LIFE: f64 = 2.0;

/// How tokens are given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub(super) lifetime: Duration,
    pub(super) rotate: bool,
    /// How long a rotated refresh token stays good.
    pub(super) grace: Duration,
    /// Whether a login gives a refresh token.
    pub(super) login_gives_refresh_token: bool,
}

/// What an exporter must be configured with.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) id: String,
    pub(super) secret: String,
}

/// A token request as it came in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// The body, `application/x-www-form-urlencoded`.
    pub(super) form: &'a [u8],
    /// The header.
    pub(super) authorization: Option<&'a str>,
}

/// Which faults are on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TokenFaults {
    pub(super) revoked: bool,
    pub(super) expires: bool,
}

/// The body of a good answer.
#[derive(Debug, Serialize)]
pub(super) struct Granted {
    pub(super) access_token: String,
    pub(super) expires_in: u64,
    pub(super) token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<String>,
}

/// The body of a refusal, which goes with status 400.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Refused {
    pub(super) error: &'static str,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iss: &'a str,
    client_id: &'a str,
    token_use: &'a str,
    scope: &'a str,
    auth_time: u64,
    iat: u64,
    exp: u64,
    jti: String,
    username: &'a str,
}

#[derive(Deserialize)]
struct Expiry {
    exp: f64,
}

/// A token that was given.
struct Access {
    /// What its claims say.
    claimed_end: f64,
    /// When it is refused.
    end: f64,
}

/// The identity provider.
pub(super) struct Tokens {
    pub(super) client: Client,
    /// What people have logged in for and no client has redeemed yet.
    pub(super) codes: Codes,
    policy: Policy,
    basic: String,
    seed: u64,
    /// Signs access tokens (HS256).
    key: hmac::Key,
    /// Differs from start to start, so that no token is given twice.
    start: u64,
    refresh: Mutex<Refresh>,
    /// Tokens that are known to be good: a signature is checked once, not with every request.
    access: RwLock<HashMap<Box<str>, Access>>,
}

/// Refresh tokens that are good, and until when where they have been rotated away.
struct Refresh {
    good: HashMap<String, Option<f64>>,
    newest: String,
    issued: u64,
    granted: u64,
}

impl Tokens {
    /// Makes a signing key; client and first refresh token follow from the seed, so that a restart accepts them again.
    pub(super) fn new(seed: u64, policy: Policy) -> Result<Self, ring::error::Unspecified> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())?;
        let client = Client {
            id: format!("simulated{:016x}", hash(seed, &[30])),
            secret: format!("secret{:016x}{:016x}", hash(seed, &[31]), hash(seed, &[32])),
        };
        let newest = refresh_token(seed, 0);
        let start = RandomState::new().hash_one(seed);
        Ok(Self {
            codes: Codes::new(start),
            basic: BASE64_STANDARD.encode(format!("{}:{}", client.id, client.secret)),
            client,
            policy,
            seed,
            key,
            start,
            refresh: Mutex::new(Refresh {
                good: HashMap::from([(newest.clone(), None)]),
                newest,
                issued: 0,
                granted: 0,
            }),
            access: RwLock::new(HashMap::new()),
        })
    }

    /// Answers a token request.
    pub(super) fn grant(
        &self,
        request: Request<'_>,
        faults: TokenFaults,
        now: f64,
    ) -> Result<Granted, Refused> {
        let form: HashMap<_, _> = url::form_urlencoded::parse(request.form).collect();
        let field = |name: &str| form.get(name).map(|value| value.as_ref());
        if !self.is_client(
            request.authorization,
            field("client_id"),
            field("client_secret"),
        ) {
            return Err(Refused {
                error: "invalid_client",
            });
        }
        match (field("grant_type"), field("refresh_token")) {
            (Some("refresh_token"), Some(_)) if faults.revoked => Err(Refused {
                error: "invalid_grant",
            }),
            (Some("refresh_token"), Some(token)) => {
                let (rotated, number) = self.refresh(token, now)?;
                let mut granted = self.issue(number, faults, now)?;
                granted.refresh_token = rotated;
                Ok(granted)
            }
            (Some("authorization_code"), _) => {
                let (Some(code), Some(redirect_uri)) = (field("code"), field("redirect_uri"))
                else {
                    return Err(Refused {
                        error: "invalid_request",
                    });
                };
                let redemption = Redemption {
                    code,
                    redirect_uri,
                    verifier: field("code_verifier"),
                };
                if !self.codes.redeem(redemption, now) {
                    return Err(Refused {
                        error: "invalid_grant",
                    });
                }
                let (number, refresh_token) = self.log_in();
                let mut granted = self.issue(number, faults, now)?;
                granted.refresh_token = refresh_token;
                Ok(granted)
            }
            (Some("refresh_token"), None) | (None, _) => Err(Refused {
                error: "invalid_request",
            }),
            (Some(_), _) => Err(Refused {
                error: "unsupported_grant_type",
            }),
        }
    }

    /// Whether the API takes this access token.
    pub(super) fn accepts(&self, token: &str, now: f64) -> bool {
        let known = self.access.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(access) = known.get(token) {
            return now < access.end;
        }
        drop(known);
        // Not among the known: a token given so long ago that it was forgotten, or somebody else's.
        self.verified_expiry(token).is_some_and(|exp| now < exp)
    }

    /// Returns a JSON Web Token with these claims, signed with HS256.
    fn sign(&self, claims: &Claims<'_>) -> Result<String, serde_json::Error> {
        let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let claims = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims)?);
        let message = format!("{header}.{claims}");
        let signature =
            BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, message.as_bytes()).as_ref());
        Ok(format!("{message}.{signature}"))
    }

    /// Returns the `exp` claim of a token that this cloud signed.
    fn verified_expiry(&self, token: &str) -> Option<f64> {
        let (message, signature) = token.rsplit_once('.')?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.key, message.as_bytes(), &signature).ok()?;
        let (_, claims) = message.split_once('.')?;
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
        Some(serde_json::from_slice::<Expiry>(&claims).ok()?.exp)
    }

    /// The refresh token that was given last.
    pub(super) fn newest_refresh_token(&self) -> String {
        self.lock_refresh().newest.clone()
    }

    /// As if a person had logged in anew after the old login ended: all refresh tokens end, and there is a new one.
    pub(super) fn replace_refresh_token(&self) -> String {
        let mut refresh = self.lock_refresh();
        refresh.good.clear();
        self.mint(&mut refresh)
    }

    fn is_client(
        &self,
        authorization: Option<&str>,
        id: Option<&str>,
        secret: Option<&str>,
    ) -> bool {
        match authorization.and_then(|header| header.split_once(' ')) {
            // What is in the form besides must not contradict it.
            Some((scheme, given)) if scheme.eq_ignore_ascii_case("basic") => {
                given.trim() == self.basic && id.is_none_or(|id| id == self.client.id)
            }
            _ => id == Some(self.client.id.as_str()) && secret == Some(self.client.secret.as_str()),
        }
    }

    /// Uses a refresh token: a new one where tokens rotate, and the number of this grant.
    fn refresh(&self, token: &str, now: f64) -> Result<(Option<String>, u64), Refused> {
        let mut refresh = self.lock_refresh();
        refresh
            .good
            .retain(|_, end| end.is_none_or(|end| now < end));
        let end = refresh.good.get(token).copied().ok_or(Refused {
            error: "invalid_grant",
        })?;
        refresh.granted += 1;
        let number = refresh.granted;
        if !self.policy.rotate {
            return Ok((None, number));
        }
        // The grace counts from the first rotation; using the old token again does not prolong it.
        let grace = end.unwrap_or(now + self.policy.grace.as_secs_f64());
        refresh.good.insert(token.to_owned(), Some(grace));
        Ok((Some(self.mint(&mut refresh)), number))
    }

    /// The number of this grant, and a refresh token beside those that are good already.
    fn log_in(&self) -> (u64, Option<String>) {
        let mut refresh = self.lock_refresh();
        refresh.granted += 1;
        let token = self
            .policy
            .login_gives_refresh_token
            .then(|| self.mint(&mut refresh));
        (refresh.granted, token)
    }

    fn mint(&self, refresh: &mut Refresh) -> String {
        refresh.issued += 1;
        // Not from the seed alone: what an earlier run gave must not be good again.
        refresh.newest = refresh_token(self.seed ^ self.start, refresh.issued);
        refresh.good.insert(refresh.newest.clone(), None);
        refresh.newest.clone()
    }

    fn issue(&self, number: u64, faults: TokenFaults, now: f64) -> Result<Granted, Refused> {
        // Claims are whole seconds.
        let lifetime = self.policy.lifetime.as_secs().max(1);
        let iat = now.max(0.0) as u64;
        let exp = iat + lifetime;
        let claims = Claims {
            sub: "simulated-account",
            iss: "simulated-identity-provider",
            client_id: &self.client.id,
            token_use: "access",
            scope: SCOPE,
            auth_time: iat,
            iat,
            exp,
            jti: format!("{:016x}-{number}", self.start),
            username: "simulated-account",
        };
        let access_token = self.sign(&claims).map_err(|_| Refused {
            error: "server_error",
        })?;
        let claimed_end = exp as f64;
        let end = match faults.expires {
            true => claimed_end.min(now + SHORT_LIFE),
            false => claimed_end,
        };
        let mut known = self.access.write().unwrap_or_else(PoisonError::into_inner);
        // One that was cut short must stay known until its claims have ended too.
        known.retain(|_, access| now < access.claimed_end);
        known.insert(access_token.as_str().into(), Access { claimed_end, end });
        Ok(Granted {
            access_token,
            expires_in: lifetime,
            token_type: "Bearer",
            refresh_token: None,
        })
    }

    fn lock_refresh(&self) -> std::sync::MutexGuard<'_, Refresh> {
        self.refresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refresh_token(seed: u64, number: u64) -> String {
    let part = |topic: u64| hash(seed, &[33, number, topic]);
    format!("refresh{:016x}{:016x}{:016x}", part(1), part(2), part(3))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const NOW: f64 = 1_768_348_800.5;

    fn tokens(rotate: bool) -> Tokens {
        let policy = Policy {
            lifetime: Duration::from_secs(300),
            rotate,
            grace: Duration::from_secs(60),
            login_gives_refresh_token: true,
        };
        Tokens::new(1, policy).unwrap()
    }

    fn grant(tokens: &Tokens, refresh_token: &str, now: f64) -> Result<Granted, Refused> {
        let Client { id, secret } = &tokens.client;
        let form = format!(
            "grant_type=refresh_token&client_id={id}&client_secret={secret}&refresh_token={refresh_token}"
        );
        ask(tokens, &form, None, now)
    }

    fn ask(
        tokens: &Tokens,
        form: &str,
        authorization: Option<&str>,
        now: f64,
    ) -> Result<Granted, Refused> {
        let form = form.as_bytes();
        tokens.grant(
            Request {
                form,
                authorization,
            },
            TokenFaults::default(),
            now,
        )
    }

    fn error(answer: Result<Granted, Refused>) -> &'static str {
        answer.unwrap_err().error
    }

    #[test]
    fn a_token_is_good_until_its_end_and_tells_it() {
        let tokens = tokens(false);
        let first = grant(&tokens, &tokens.newest_refresh_token(), NOW).unwrap();
        assert_eq!(
            (first.expires_in, first.token_type, first.refresh_token),
            (300, "Bearer", None)
        );
        assert!(tokens.accepts(&first.access_token, NOW + 299.4));
        assert!(!tokens.accepts(&first.access_token, NOW + 299.5));
        let claims =
            jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(&first.access_token)
                .unwrap()
                .claims;
        assert_eq!(
            (claims["iat"].as_u64(), claims["exp"].as_u64()),
            (Some(1_768_348_800), Some(1_768_349_100))
        );
        let second = grant(&tokens, &tokens.newest_refresh_token(), NOW).unwrap();
        assert_ne!(first.access_token, second.access_token);
    }

    #[test]
    fn only_our_own_signature_is_accepted() {
        let (ours, theirs) = (tokens(false), tokens(false));
        let foreign = grant(&theirs, &theirs.newest_refresh_token(), NOW)
            .unwrap()
            .access_token;
        assert!(theirs.accepts(&foreign, NOW) && !ours.accepts(&foreign, NOW));
        // One that was forgotten is still known by its signature.
        let own = grant(&ours, &ours.newest_refresh_token(), NOW)
            .unwrap()
            .access_token;
        ours.access.write().unwrap().clear();
        assert!(ours.accepts(&own, NOW) && !ours.accepts(&own, NOW + 300.0));
        let (signed, _) = own.rsplit_once('.').unwrap();
        assert!(!ours.accepts(&format!("{signed}."), NOW));
        assert!(!ours.accepts("", NOW) && !ours.accepts("opaque", NOW));
    }

    #[test]
    fn the_client_shows_who_it_is_in_the_body_or_by_basic() {
        let tokens = tokens(false);
        let refresh = tokens.newest_refresh_token();
        let form = format!("grant_type=refresh_token&refresh_token={refresh}");
        let Client { id, secret } = tokens.client.clone();
        let basic = |id: &str, secret: &str| {
            format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}")))
        };
        assert!(ask(&tokens, &form, Some(&basic(&id, &secret)), NOW).is_ok());
        for header in [
            None,
            Some(basic(&id, "wrong")),
            Some(basic("wrong", &secret)),
            Some("Basic".to_owned()),
        ] {
            assert_eq!(
                error(ask(&tokens, &form, header.as_deref(), NOW)),
                "invalid_client",
                "{header:?}"
            );
        }
        let in_body =
            |id: &str, secret: &str| format!("{form}&client_id={id}&client_secret={secret}");
        assert!(ask(&tokens, &in_body(&id, &secret), None, NOW).is_ok());
        assert_eq!(
            error(ask(&tokens, &in_body(&id, "wrong"), None, NOW)),
            "invalid_client"
        );
        assert_eq!(
            error(ask(&tokens, &in_body("wrong", &secret), None, NOW)),
            "invalid_client"
        );
    }

    #[test]
    fn what_is_no_good_refresh_is_refused_by_its_name() {
        let tokens = tokens(false);
        assert_eq!(error(grant(&tokens, "wrong", NOW)), "invalid_grant");
        let Client { id, secret } = &tokens.client;
        let client = format!("client_id={id}&client_secret={secret}");
        let refused = |rest: &str| error(ask(&tokens, &format!("{client}{rest}"), None, NOW));
        assert_eq!(refused(""), "invalid_request");
        assert_eq!(refused("&grant_type=refresh_token"), "invalid_request");
        assert_eq!(refused("&grant_type=password"), "unsupported_grant_type");
    }

    #[test]
    fn a_rotated_refresh_token_is_good_for_its_grace_and_no_longer() {
        let tokens = tokens(true);
        let first = tokens.newest_refresh_token();
        let second = grant(&tokens, &first, NOW).unwrap().refresh_token.unwrap();
        assert_ne!(first, second);
        let third = grant(&tokens, &first, NOW + 59.0)
            .unwrap()
            .refresh_token
            .unwrap();
        assert_ne!(second, third);
        assert_eq!(error(grant(&tokens, &first, NOW + 60.0)), "invalid_grant");
        assert!(grant(&tokens, &second, NOW + 4000.0).is_ok());
        assert!(grant(&tokens, &third, NOW + 4000.0).is_ok());
    }

    #[test]
    fn without_rotation_the_refresh_token_stays() {
        let tokens = tokens(false);
        let refresh = tokens.newest_refresh_token();
        for day in 0..3650 {
            assert!(grant(&tokens, &refresh, NOW + f64::from(day) * 86_400.0).is_ok());
        }
        // Tokens that have ended are forgotten.
        assert_eq!(tokens.access.read().unwrap().len(), 1);
    }

    #[test]
    fn a_new_login_ends_the_old_one() {
        let tokens = tokens(false);
        let old = tokens.newest_refresh_token();
        let new = tokens.replace_refresh_token();
        assert_eq!(error(grant(&tokens, &old, NOW)), "invalid_grant");
        assert!(grant(&tokens, &new, NOW).is_ok());
        assert_eq!(tokens.newest_refresh_token(), new);
    }

    #[test]
    fn faults_revoke_the_login_or_cut_tokens_short() {
        let tokens = tokens(false);
        let Client { id, secret } = &tokens.client;
        let refresh = tokens.newest_refresh_token();
        let form = format!(
            "grant_type=refresh_token&refresh_token={refresh}&client_id={id}&client_secret={secret}"
        );
        let request = Request {
            form: form.as_bytes(),
            authorization: None,
        };
        let revoked = TokenFaults {
            revoked: true,
            expires: false,
        };
        assert_eq!(error(tokens.grant(request, revoked, NOW)), "invalid_grant");
        let expires = TokenFaults {
            revoked: false,
            expires: true,
        };
        let short = tokens.grant(request, expires, NOW).unwrap();
        assert_eq!(short.expires_in, 300);
        assert!(tokens.accepts(&short.access_token, NOW + 1.9));
        assert!(!tokens.accepts(&short.access_token, NOW + 2.0));
        // Further grants do not make it good again.
        tokens
            .grant(request, TokenFaults::default(), NOW + 100.0)
            .unwrap();
        assert!(!tokens.accepts(&short.access_token, NOW + 100.0));
    }
}
