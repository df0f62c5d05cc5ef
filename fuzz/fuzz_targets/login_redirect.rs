//! Any query as the one that a browser comes back with: an answer only with the state of the login, and then safe to show.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use lightfi_exporter::{
    config::{Config, Flags, Purpose, load_text},
    http::{Proxies, http_client},
    oauth::login::{Answer, Login, RedirectUri},
};

/// Stands in the input for the state, which nobody can guess.
const STATE: &str = "STATE";
const SECRET: &str = "Kq7/s3cret+of=ours";
/// Two fields of two hundred characters, and the brackets.
const LONGEST_REFUSAL: usize = 403;

/// Begins a login. What all of them have in common is made once.
static BEGIN: LazyLock<Box<dyn Fn() -> Login + Send + Sync>> = LazyLock::new(|| {
    let text = format!("oauth:\n  client_id: id\n  client_secret: {SECRET}\n");
    let nothing = std::iter::empty;
    let loaded = load_text("login", &text, &Flags::default(), nothing(), Purpose::Login);
    let Config { api, oauth, .. } = loaded.expect("it is good").config;
    let http = http_client(&api, Proxies::None).expect("it can be set up");
    let uri = RedirectUri::parse("http://localhost:3000").expect("it is one");
    Box::new(move || Login::begin(&oauth, uri.clone(), http.clone()).expect("it can begin"))
});

fuzz_target!(|query: &str| {
    let login = BEGIN();
    let mut pairs = login.url().query_pairs();
    let (_, state) = pairs.find(|(key, _)| key == "state").expect("it has one");
    assert!(login.answer(query).is_err(), "nobody knows the state");
    match login.answer(&query.replace(STATE, &state)) {
        Ok(Answer::Code(code)) => assert!(!code.expose().is_empty()),
        Ok(Answer::Refused(words)) => {
            assert!(words.chars().count() <= LONGEST_REFUSAL, "{words}");
            assert!(!words.contains(char::is_control), "{words:?}");
            for secret in [SECRET, &state] {
                assert!(!words.contains(secret), "{words}");
            }
        }
        Err(_) => {}
    }
});
