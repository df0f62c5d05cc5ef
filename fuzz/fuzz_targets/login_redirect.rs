//! Parses any query as the callback of a login. It is accepted only with the login's state, and an error in it is redacted.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use lightfi_exporter::{
    config::{Config, Flags, Purpose, load_text},
    http::{Proxies, http_client},
    oauth::login::{Callback, Login, RedirectUri},
};

/// Replaced by the state, which no input can guess.
const STATE: &str = "STATE";
const SECRET: &str = "Kq7/s3cret+of=ours";
/// Two parameters of 200 characters, a space and parentheses.
const MAX_ERROR_CHARS: usize = 403;

/// Creates a login. The configuration and the client are made once.
static NEW_LOGIN: LazyLock<Box<dyn Fn() -> Login + Send + Sync>> = LazyLock::new(|| {
    let text = format!("oauth:\n  client_id: id\n  client_secret: {SECRET}\n");
    let environment = std::iter::empty();
    let loaded = load_text(
        "login",
        &text,
        &Flags::default(),
        environment,
        Purpose::Login,
    );
    let Config { api, oauth, .. } = loaded.expect("the configuration is valid").config;
    let http = http_client(&api, Proxies::None).expect("the client can be built");
    let uri = RedirectUri::parse("http://localhost:3000").expect("the redirect URI is valid");
    Box::new(move || {
        Login::new(&oauth, uri.clone(), http.clone()).expect("the credentials are configured")
    })
});

fuzz_target!(|query: &str| {
    let login = NEW_LOGIN();
    let url = login.url();
    let mut pairs = url.query_pairs();
    let (_, state) = pairs
        .find(|(key, _)| key == "state")
        .expect("the URL has a state");
    assert!(login.parse_callback(query).is_err(), "wrong state");
    match login.parse_callback(&query.replace(STATE, &state)) {
        Ok(Callback::Code(code)) => assert!(!code.expose().is_empty()),
        Ok(Callback::Refused(error)) => {
            assert!(error.chars().count() <= MAX_ERROR_CHARS, "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
            for secret in [SECRET, &state] {
                assert!(!error.contains(secret), "{error}");
            }
        }
        Err(_) => {}
    }
});
