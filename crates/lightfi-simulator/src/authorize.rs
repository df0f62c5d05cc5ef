//! The simulated login: the page a browser is sent to, what a person decides on it, and the codes that come of it.
//!
//! No HTTP here: `routes` hands in queries and forms and sends what comes back; `tokens` redeems the codes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use url::form_urlencoded::{self, Serializer};

use super::{
    chance::hash,
    tokens::{SCOPE, Tokens},
};

/// What the vendor registers for every client.
const USUAL_REDIRECT_URIS: [&str; 4] = [
    "http://localhost:3000",
    "http://localhost:3000/",
    "https://apiv2.lightfi.io/docs/redirect",
    "https://oauth.pstmn.io/v1/callback",
];

/// How long a code is good, in seconds.
const CODE_LIFE: f64 = 300.0;

/// What the form carries from the question to the decision.
const CARRIED: [&str; 7] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
];

/// What the browser is shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The login form.
    Page(String),
    /// An error page: where the redirect cannot be trusted, nothing is sent there.
    Refused(String),
    /// Back to the client, with a code or an error.
    Redirect(String),
}

/// Codes that nobody has redeemed yet.
pub(super) struct Codes {
    start: u64,
    given: Mutex<Given>,
}

#[derive(Default)]
struct Given {
    good: HashMap<String, Code>,
    count: u64,
}

struct Code {
    redirect_uri: String,
    challenge: Option<String>,
    end: f64,
}

/// What a client redeems.
#[derive(Debug, Clone, Copy)]
pub(super) struct Redemption<'a> {
    pub(super) code: &'a str,
    pub(super) redirect_uri: &'a str,
    pub(super) verifier: Option<&'a str>,
}

type Fields = HashMap<String, String>;

/// A browser comes with a client's question, the query of the authorization URL.
pub(super) fn ask(tokens: &Tokens, registered: &[String], query: &[u8]) -> Answer {
    let fields = fields(query);
    match check(tokens, registered, &fields) {
        Ok(()) => Answer::Page(form(&fields)),
        Err(answer) => answer,
    }
}

/// The form comes back.
pub(super) fn decide(tokens: &Tokens, registered: &[String], form: &[u8], now: f64) -> Answer {
    let fields = fields(form);
    // It came through the person's hands: nothing in it is believed.
    if let Err(answer) = check(tokens, registered, &fields) {
        return answer;
    }
    if fields.get("decision").map(String::as_str) != Some("login") {
        return back(
            &fields,
            &[
                ("error", "access_denied"),
                ("error_description", "The person has cancelled the login."),
            ],
        );
    }
    let code = tokens.codes.give(&fields, now);
    back(&fields, &[("code", &code)])
}

impl Codes {
    pub(super) fn new(start: u64) -> Self {
        Self {
            start,
            given: Mutex::default(),
        }
    }

    fn give(&self, fields: &Fields, now: f64) -> String {
        let mut given = self.given();
        given.good.retain(|_, code| now < code.end);
        given.count += 1;
        let part = |topic: u64| hash(self.start, &[34, given.count, topic]);
        let text = format!("code{:016x}{:016x}", part(1), part(2));
        let code = Code {
            redirect_uri: fields.get("redirect_uri").cloned().unwrap_or_default(),
            challenge: fields.get("code_challenge").cloned(),
            end: now + CODE_LIFE,
        };
        given.good.insert(text.clone(), code);
        text
    }

    /// Whether the code is good for this. It is spent either way.
    pub(super) fn redeem(&self, redemption: Redemption<'_>, now: f64) -> bool {
        let Some(code) = self.given().good.remove(redemption.code) else {
            return false;
        };
        let verified = match (&code.challenge, redemption.verifier) {
            (Some(challenge), Some(verifier)) => *challenge == challenge_of(verifier),
            (None, None) => true,
            _ => false,
        };
        verified && now < code.end && code.redirect_uri == redemption.redirect_uri
    }

    fn given(&self) -> MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fields(encoded: &[u8]) -> Fields {
    form_urlencoded::parse(encoded).into_owned().collect()
}

/// As the vendor's provider does it: what concerns client and redirect is told to the person, the rest to the client.
fn check(tokens: &Tokens, registered: &[String], fields: &Fields) -> Result<(), Answer> {
    let field = |name: &str| fields.get(name).map(String::as_str);
    if field("client_id") != Some(tokens.client.id.as_str()) {
        return Err(refused("invalid_client"));
    }
    let redirect_uri = field("redirect_uri").unwrap_or_default();
    let usual = USUAL_REDIRECT_URIS.contains(&redirect_uri);
    if !usual && !registered.iter().any(|known| known == redirect_uri) {
        return Err(refused("redirect_mismatch"));
    }
    let told = |error| Err(back(fields, &[("error", error)]));
    if field("response_type") != Some("code") {
        return told("unsupported_response_type");
    }
    if field("scope").is_some_and(|scope| scope.split(' ').any(|word| word != SCOPE)) {
        return told("invalid_scope");
    }
    match (field("code_challenge"), field("code_challenge_method")) {
        (None, None) | (Some(_), Some("S256")) => Ok(()),
        _ => told("invalid_request"),
    }
}

fn back(fields: &Fields, answer: &[(&str, &str)]) -> Answer {
    let redirect_uri = fields.get("redirect_uri").map_or("", String::as_str);
    let mut query = Serializer::new(String::new());
    query.extend_pairs(answer);
    if let Some(state) = fields.get("state") {
        query.append_pair("state", state);
    }
    let joint = if redirect_uri.contains('?') { '&' } else { '?' };
    Answer::Redirect(format!("{redirect_uri}{joint}{}", query.finish()))
}

fn refused(error: &str) -> Answer {
    Answer::Refused(page(
        "An error was encountered with the requested page",
        &format!("<p>{error}</p>"),
    ))
}

fn form(fields: &Fields) -> String {
    let mut inputs = String::new();
    for name in CARRIED {
        if let Some(value) = fields.get(name) {
            inputs.push_str(&format!(
                "<input type=\"hidden\" name=\"{name}\" value=\"{}\">\n",
                escaped(value)
            ));
        }
    }
    page(
        "Log in to the simulated LightFi cloud",
        &format!(
            "<p>An application asks for access to your sensors. No password is needed here.</p>\n\
             <form method=\"post\" action=\"/oauth2/authorize\">\n{inputs}\
             <button name=\"decision\" value=\"login\">Log in</button>\n\
             <button name=\"decision\" value=\"cancel\">Cancel</button>\n</form>"
        ),
    )
}

fn page(title: &str, content: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n</head>\n\
         <body>\n<h1>{title}</h1>\n{content}\n</body>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// S256.
fn challenge_of(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use std::time::Duration;

    use super::super::tokens::{Granted, Policy, Refused, Request, TokenFaults};
    use super::*;

    const NOW: f64 = 1_768_348_800.5;
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const REDIRECT: &str = "http://localhost:3000";

    fn tokens(login_gives_refresh_token: bool) -> Tokens {
        let policy = Policy {
            lifetime: Duration::from_secs(300),
            rotate: false,
            grace: Duration::from_secs(60),
            login_gives_refresh_token,
        };
        Tokens::new(1, policy).unwrap()
    }

    fn query(tokens: &Tokens, changes: &[(&str, &str)]) -> String {
        // The challenge is that of RFC 7636, appendix B.
        let mut fields = vec![
            ("response_type", "code"),
            ("client_id", &tokens.client.id),
            ("redirect_uri", REDIRECT),
            ("scope", SCOPE),
            ("state", "<\"state\"&>"),
            (
                "code_challenge",
                "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
            ),
            ("code_challenge_method", "S256"),
        ];
        fields.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        fields.extend(changes);
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish()
    }

    fn code(tokens: &Tokens) -> String {
        let form = query(tokens, &[("decision", "login")]);
        let Answer::Redirect(to) = decide(tokens, &[], form.as_bytes(), NOW) else {
            panic!("no redirect");
        };
        let (place, query) = to.split_once('?').unwrap();
        assert_eq!(place, REDIRECT);
        let fields = fields(query.as_bytes());
        assert_eq!(fields["state"], "<\"state\"&>");
        fields["code"].clone()
    }

    fn redeem(
        tokens: &Tokens,
        code: &str,
        (redirect_uri, verifier): (&str, Option<&str>),
        now: f64,
    ) -> Result<Granted, Refused> {
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("client_id", &tokens.client.id),
            ("client_secret", &tokens.client.secret),
            ("code", code),
            ("redirect_uri", redirect_uri),
        ];
        form.extend(verifier.map(|verifier| ("code_verifier", verifier)));
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let request = Request {
            form: form.as_bytes(),
            authorization: None,
        };
        tokens.grant(request, TokenFaults::default(), now)
    }

    const GOOD: (&str, Option<&str>) = (REDIRECT, Some(VERIFIER));

    #[test]
    fn a_login_gives_a_code_and_the_code_a_refresh_token_beside_the_old_one() {
        let tokens = tokens(true);
        let Answer::Page(page) = ask(&tokens, &[], query(&tokens, &[]).as_bytes()) else {
            panic!("no form");
        };
        assert!(page.contains("value=\"&lt;&quot;state&quot;&amp;&gt;\""));
        let old = tokens.newest_refresh_token();
        let granted = redeem(&tokens, &code(&tokens), GOOD, NOW + 299.0).unwrap();
        assert!(tokens.accepts(&granted.access_token, NOW + 300.0));
        let new = granted.refresh_token.unwrap();
        assert_ne!(new, old);
        assert_eq!(new, tokens.newest_refresh_token());
    }

    #[test]
    fn a_client_may_be_set_up_to_get_no_refresh_token() {
        let tokens = tokens(false);
        let granted = redeem(&tokens, &code(&tokens), GOOD, NOW).unwrap();
        assert_eq!(granted.refresh_token, None);
    }

    #[test]
    fn a_code_is_good_once_for_five_minutes_for_its_redirect_and_its_verifier() {
        let tokens = tokens(true);
        let invalid = |answer: Result<Granted, Refused>| {
            assert_eq!(answer.unwrap_err().error, "invalid_grant");
        };
        let used = code(&tokens);
        redeem(&tokens, &used, GOOD, NOW).unwrap();
        invalid(redeem(&tokens, &used, GOOD, NOW));
        invalid(redeem(&tokens, &code(&tokens), GOOD, NOW + 300.0));
        for wrong in [
            ("http://localhost:3000/", Some(VERIFIER)),
            (REDIRECT, Some("wrong")),
            (REDIRECT, None),
        ] {
            let code = code(&tokens);
            invalid(redeem(&tokens, &code, wrong, NOW));
            // An attempt spends it.
            invalid(redeem(&tokens, &code, GOOD, NOW));
        }
    }

    #[test]
    fn redirects_are_compared_letter_by_letter_and_a_strange_one_gets_nothing() {
        let tokens = tokens(true);
        let asked = |redirect: &str, registered: &[String]| {
            ask(
                &tokens,
                registered,
                query(&tokens, &[("redirect_uri", redirect)]).as_bytes(),
            )
        };
        for good in USUAL_REDIRECT_URIS {
            assert!(matches!(asked(good, &[]), Answer::Page(_)), "{good}");
        }
        let mine = ["http://127.0.0.1:5".to_owned()];
        assert!(matches!(asked(&mine[0], &mine), Answer::Page(_)));
        for strange in [
            "http://127.0.0.1:5/",
            "http://LOCALHOST:3000",
            "http://localhost:3000/x",
            "",
        ] {
            let Answer::Refused(page) = asked(strange, &mine) else {
                panic!("{strange} is taken");
            };
            assert!(page.contains("redirect_mismatch"), "{page}");
        }
    }

    #[test]
    fn what_else_is_wrong_is_told_to_the_client() {
        let tokens = tokens(true);
        let asked = |name: &str, value: &str| {
            ask(
                &tokens,
                &[],
                query(&tokens, &[(name, value), ("state", "s")]).as_bytes(),
            )
        };
        for (name, value, error) in [
            ("response_type", "token", "unsupported_response_type"),
            ("scope", "everything", "invalid_scope"),
            ("code_challenge_method", "plain", "invalid_request"),
        ] {
            let told = Answer::Redirect(format!("{REDIRECT}?error={error}&state=s"));
            assert_eq!(asked(name, value), told);
        }
        let Answer::Refused(page) = asked("client_id", "stranger") else {
            panic!("a stranger is taken");
        };
        assert!(page.contains("invalid_client"), "{page}");
    }

    #[test]
    fn cancelling_is_told_to_the_client() {
        let tokens = tokens(true);
        let form = query(&tokens, &[("decision", "cancel"), ("state", "s")]);
        let Answer::Redirect(to) = decide(&tokens, &[], form.as_bytes(), NOW) else {
            panic!("no redirect");
        };
        assert!(
            to.starts_with(&format!("{REDIRECT}?error=access_denied&")),
            "{to}"
        );
        assert!(to.ends_with("&state=s"), "{to}");
    }
}
