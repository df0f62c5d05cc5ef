//! The simulated authorization endpoint: the page that a browser opens, and what the person decides on it.
//!
//! No HTTP here: `routes` hands in queries and forms and sends the result; `tokens` redeems the codes.

use std::collections::BTreeMap;

use url::form_urlencoded::{self, Serializer};

use super::tokens::{SCOPE, Tokens};

/// The redirect URIs that the vendor registers for every client.
const USUAL_REDIRECT_URIS: [&str; 4] = [
    "http://localhost:3000",
    "http://localhost:3000/",
    "https://apiv2.lightfi.io/docs/redirect",
    "https://oauth.pstmn.io/v1/callback",
];

/// The response to the browser.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LoginResponse {
    /// The login form.
    Form(String),
    /// An error page, where the redirect URI cannot be trusted.
    Error(String),
    /// A redirect to the client, with a code or an error.
    Redirect(String),
}

type Fields = BTreeMap<String, String>;

/// Shows the login form for the query of an authorization URL.
pub(super) fn show(tokens: &Tokens, allowed: &[String], query: &[u8]) -> LoginResponse {
    let fields = parse(query);
    match check(tokens, allowed, &fields) {
        Ok(()) => LoginResponse::Form(form(&fields)),
        Err(response) => response,
    }
}

/// Takes the submitted form.
pub(super) fn submit(tokens: &Tokens, allowed: &[String], form: &[u8], now: f64) -> LoginResponse {
    let fields = parse(form);
    if let Err(response) = check(tokens, allowed, &fields) {
        return response;
    }
    if field(&fields, "decision") != Some("login") {
        return redirect(
            &fields,
            &[
                ("error", "access_denied"),
                ("error_description", "The person has cancelled the login."),
            ],
        );
    }
    let redirect_uri = field(&fields, "redirect_uri").unwrap_or_default();
    let challenge = field(&fields, "code_challenge");
    let code = tokens.issue_code(redirect_uri, challenge, now);
    redirect(&fields, &[("code", &code)])
}

fn parse(encoded: &[u8]) -> Fields {
    form_urlencoded::parse(encoded).into_owned().collect()
}

fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.get(name).map(String::as_str)
}

/// Checks a request as the vendor's provider does: errors about client and redirect URI are shown, others are sent to the client.
fn check(tokens: &Tokens, allowed: &[String], fields: &Fields) -> Result<(), LoginResponse> {
    let field = |name| field(fields, name);
    if field("client_id") != Some(&tokens.client_id) {
        return Err(error_page("invalid_client"));
    }
    let redirect_uri = field("redirect_uri").unwrap_or_default();
    let is_usual = USUAL_REDIRECT_URIS.contains(&redirect_uri);
    if !is_usual && !allowed.iter().any(|uri| uri == redirect_uri) {
        return Err(error_page("redirect_mismatch"));
    }
    if field("response_type") != Some("code") {
        return Err(redirect(fields, &[("error", "unsupported_response_type")]));
    }
    if field("scope").is_some_and(|scope| scope.split(' ').any(|word| word != SCOPE)) {
        return Err(redirect(fields, &[("error", "invalid_scope")]));
    }
    match (field("code_challenge"), field("code_challenge_method")) {
        (None, None) | (Some(_), Some("S256")) => Ok(()),
        _ => Err(redirect(fields, &[("error", "invalid_request")])),
    }
}

fn redirect(fields: &Fields, answer: &[(&str, &str)]) -> LoginResponse {
    let redirect_uri = field(fields, "redirect_uri").unwrap_or_default();
    let mut query = Serializer::new(String::new());
    query.extend_pairs(answer);
    if let Some(state) = fields.get("state") {
        query.append_pair("state", state);
    }
    let separator = if redirect_uri.contains('?') { '&' } else { '?' };
    LoginResponse::Redirect(format!("{redirect_uri}{separator}{}", query.finish()))
}

fn error_page(error: &str) -> LoginResponse {
    LoginResponse::Error(page("Login failed", &format!("<p>{error}</p>")))
}

/// The form carries the fields of the query.
fn form(fields: &Fields) -> String {
    let inputs: String = fields
        .iter()
        .map(|(name, value)| {
            let (name, value) = (escape(name), escape(value));
            format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">\n")
        })
        .collect();
    page(
        "Log in to the simulated LightFi cloud",
        &format!(
            "<p>An application requests access to your sensors. No password is needed here.</p>\n\
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

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    const NOW: f64 = 1_768_348_800.5;
    const REDIRECT: &str = "http://localhost:3000";

    /// The fields of a good request, with changes.
    fn query(tokens: &Tokens, changes: &[(&str, &str)]) -> String {
        let mut fields = BTreeMap::from([
            ("response_type", "code"),
            ("client_id", &tokens.client_id),
            ("redirect_uri", REDIRECT),
            ("scope", SCOPE),
            ("state", "<\"state\"&>"),
            ("code_challenge", "challenge"),
            ("code_challenge_method", "S256"),
        ]);
        fields.extend(changes.iter().copied());
        let mut query = Serializer::new(String::new());
        query.extend_pairs(fields).finish()
    }

    #[test]
    fn redirect_uris_are_compared_exactly_and_nothing_is_sent_to_an_unknown_one() {
        let tokens = Tokens::new(&Options::default());
        let allowed = ["http://127.0.0.1:5".to_owned()];
        let show = |uri: &str| {
            let query = query(&tokens, &[("redirect_uri", uri)]);
            show(&tokens, &allowed, query.as_bytes())
        };
        for good in USUAL_REDIRECT_URIS.into_iter().chain([&*allowed[0]]) {
            assert!(matches!(show(good), LoginResponse::Form(_)), "{good}");
        }
        for unknown in ["http://127.0.0.1:5/", "http://LOCALHOST:3000", ""] {
            assert_eq!(show(unknown), error_page("redirect_mismatch"), "{unknown}");
        }
    }

    #[test]
    fn other_errors_are_sent_to_the_client() {
        let tokens = Tokens::new(&Options::default());
        for (name, value, error) in [
            ("response_type", "token", "unsupported_response_type"),
            ("scope", "everything", "invalid_scope"),
            ("code_challenge_method", "plain", "invalid_request"),
        ] {
            let form = query(&tokens, &[(name, value), ("state", "s")]);
            let sent = LoginResponse::Redirect(format!("{REDIRECT}?error={error}&state=s"));
            assert_eq!(submit(&tokens, &[], form.as_bytes(), NOW), sent);
        }
        let form = query(&tokens, &[("client_id", "stranger")]);
        let refused = submit(&tokens, &[], form.as_bytes(), NOW);
        assert_eq!(refused, error_page("invalid_client"));
    }
}
