//! The merging of the layers, and the secrecy of credentials. Bad files and their messages are in `tests/config`.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::iter;

use exporter_toolkit::WebFlags;
use proptest::prelude::*;

use super::*;
use crate::catalog::Override;

/// A configuration with all required keys.
const GOOD: &str = "oauth: {client_id: i, client_secret: s, refresh_token: t}\nsensors: [A]\n";

fn environment(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    pairs.into_iter()
}

fn with_environment(pairs: &[(&str, &str)]) -> Result<Loaded, Errors> {
    load_text(
        "file.yaml",
        GOOD,
        &Flags::default(),
        environment(pairs),
        Purpose::Serve,
    )
}

fn load_yaml(text: &str) -> Result<Loaded, Errors> {
    load_text(
        "file.yaml",
        text,
        &Flags::default(),
        iter::empty(),
        Purpose::Serve,
    )
}

fn inline(credential: Option<&Credential>) -> &str {
    match credential {
        Some(Credential::Inline(secret)) => secret.expose(),
        other => panic!("{other:?}"),
    }
}

fn ids(config: &Config) -> Vec<&str> {
    config.sensors.iter().map(|sensor| &*sensor.id).collect()
}

#[test]
fn defaults_are_those_of_the_contract() {
    let Loaded { config, warnings } = load_yaml(GOOD).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.web.listen_address, [format!(":{DEFAULT_PORT}")]);
    assert_eq!(config.api.url.as_str(), "https://apiv2.lightfi.io/");
    assert_eq!(config.api.timeout, Duration::from_secs(10));
    assert_eq!(config.api.max_concurrency, 8);
    assert_eq!(config.api.max_response_bytes, 16 << 20);
    assert_eq!(config.oauth.expiry_margin, Duration::from_secs(60));
    assert_eq!(config.oauth.client_auth, ClientAuth::Body);
    assert_eq!(config.collect.mode, Mode::Interval);
    assert_eq!(config.collect.interval, Duration::from_secs(60));
    assert_eq!(config.collect.stale_after, Duration::from_secs(3600));
    assert_eq!(config.collect.max_series, 4_000_000);
    assert_eq!(config.web.telemetry_path, "/metrics");
    assert_eq!(config.web.max_requests, 40);
    assert_eq!(config.log.level, tracing::Level::INFO);
    assert_eq!(config.log.format, LogFormat::Logfmt);
}

#[test]
fn a_key_that_is_null_or_empty_keeps_its_default() {
    let text = format!(
        "{GOOD}api:\ncollect: {{interval: ~, mode:}}\nmetrics:\n  variables:\n  # PM10: {{}}\n"
    );
    let config = load_yaml(&text).unwrap().config;
    assert_eq!(config.collect.interval, Duration::from_secs(60));
    assert_eq!(config.api.timeout, Duration::from_secs(10));
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let text = format!(
        "{GOOD}web: {{max_requests: 1, telemetry_path: /file, listen_address: [':1']}}\nlog: {{level: warn}}\n"
    );
    let variables = [
        ("LIGHTFI_WEB__MAX_REQUESTS", "2"),
        ("LIGHTFI_WEB__TELEMETRY_PATH", "/environment"),
        ("LIGHTFI_WEB__LISTEN_ADDRESS", ":2, [::1]:2"),
    ];
    let flags = Flags {
        web: WebFlags {
            max_requests: Some(3),
            listen_address: vec![":3".parse().unwrap(), ":4".parse().unwrap()],
            config_file: Some("web.yaml".into()),
            ..WebFlags::default()
        },
        enable_lifecycle: true,
        log_format: Some("json".to_owned()),
        ..Flags::default()
    };
    let load = |flags: &Flags, variables: &[_]| {
        load_text("f", &text, flags, environment(variables), Purpose::Serve)
            .unwrap()
            .config
    };
    let of_file = load(&Flags::default(), &[]);
    assert_eq!(
        (
            of_file.web.max_requests,
            of_file.web.telemetry_path.as_str()
        ),
        (1, "/file")
    );
    let of_environment = load(&Flags::default(), &variables);
    assert_eq!(of_environment.web.max_requests, 2);
    assert_eq!(of_environment.web.telemetry_path, "/environment");
    assert_eq!(of_environment.web.listen_address, [":2", "[::1]:2"]);
    let of_flags = load(&flags, &variables);
    assert_eq!(of_flags.web.max_requests, 3);
    assert_eq!(of_flags.web.telemetry_path, "/environment");
    assert_eq!(of_flags.web.listen_address, [":3", ":4"]);
    assert_eq!(of_flags.web.config_file, Some("web.yaml".into()));
    assert!(of_flags.web.enable_lifecycle && !of_environment.web.enable_lifecycle);
    assert_eq!(
        (of_flags.log.level, of_flags.log.format),
        (tracing::Level::WARN, LogFormat::Json)
    );
}

#[test]
fn a_problem_names_the_layer_it_came_from() {
    let flags = Flags {
        web: WebFlags {
            telemetry_path: Some("x".to_owned()),
            ..WebFlags::default()
        },
        log_level: Some("loud".to_owned()),
        ..Flags::default()
    };
    let variables = [
        ("LIGHTFI_COLLECT__INTERVAL", "soon"),
        ("LIGHTFI_SENSORS", "A,B/C"),
        ("LIGHTFI_LOCATIONS", "[1, 2"),
    ];
    let errors = load_text(
        "f.yaml",
        GOOD,
        &flags,
        environment(&variables),
        Purpose::Serve,
    )
    .unwrap_err();
    let errors = errors.to_string();
    for part in [
        "environment LIGHTFI_LOCATIONS: not valid YAML: ",
        "environment LIGHTFI_COLLECT__INTERVAL: collect.interval: \"soon\" is not a duration",
        "environment LIGHTFI_SENSORS: sensors[1]: \"B/C\" is not an id",
        "--web.telemetry-path: web.telemetry_path: \"x\" does not begin with",
        "--log.level: log.level: \"loud\" is not one of",
    ] {
        assert!(
            errors.lines().any(|line| line.starts_with(part)),
            "{part}\n{errors}"
        );
    }
    assert_eq!(errors.lines().count(), 5, "{errors}");
}

#[test]
fn texts_are_kept_unchanged_in_file_and_environment() {
    for text in [
        "00123", "1e10", "true", "[x", "-", "{a", "#x", "'q'", "a, b",
    ] {
        let config = with_environment(&[
            ("LIGHTFI_OAUTH__CLIENT_ID", text),
            ("LIGHTFI_OAUTH__CLIENT_SECRET", &format!("  {text} ")),
        ])
        .unwrap()
        .config;
        assert_eq!(inline(Some(&config.oauth.client_id)), text);
        assert_eq!(
            inline(config.oauth.client_secret.as_ref()),
            format!("  {text} ")
        );
        let quoted = serde_json::to_string(text).unwrap();
        let yaml =
            format!("oauth: {{client_id: {quoted}, client_secret: \"  x\", refresh_token: t}}");
        let config = load_yaml(&yaml).unwrap().config;
        assert_eq!(inline(Some(&config.oauth.client_id)), text);
        assert_eq!(inline(config.oauth.client_secret.as_ref()), "  x");
    }
    for text in [
        "00123",
        "1e10",
        "0x1F",
        "true",
        "1_000",
        "+5",
        "2024-01-01",
        "no",
        ".5",
        "1:30",
    ] {
        let yaml = format!(
            "oauth: {{client_id: {text}, client_secret: {text}, refresh_token: t}}\n\
             sensors: [{{id: 007, name: {text}, labels: {{x: {text}}}}}]"
        );
        let config = load_yaml(&yaml).unwrap().config;
        assert_eq!(inline(Some(&config.oauth.client_id)), text);
        assert_eq!(inline(config.oauth.client_secret.as_ref()), text);
        assert_eq!(&*config.sensors[0].id, "007");
        assert_eq!(config.sensors[0].name.as_deref(), Some(text));
        assert_eq!(config.sensors[0].labels["x"], text);
    }
}

#[test]
fn the_environment_lists_sensors_by_commas_or_in_brackets() {
    for (text, expected) in [
        ("B", vec!["B"]),
        (" B, 007 ,,C,", vec!["B", "007", "C"]),
        ("[B, 007]", vec!["B", "007"]),
        (" [\"B\", {id: C, name: \"Board, room\"}]", vec!["B", "C"]),
        ("[]", vec![]),
        ("", vec!["A"]),
    ] {
        let loaded = with_environment(&[("LIGHTFI_SENSORS", text)]).unwrap();
        assert_eq!(ids(&loaded.config), expected, "{text:?}");
    }
}

#[test]
fn an_ipv6_address_in_brackets_is_not_a_list() {
    for (text, expected) in [
        ("[::1]:2", vec!["[::1]:2"]),
        ("[::1]:2, :3", vec!["[::1]:2", ":3"]),
        ("[\"[::1]:2\"]", vec!["[::1]:2"]),
    ] {
        let loaded = with_environment(&[("LIGHTFI_WEB__LISTEN_ADDRESS", text)]).unwrap();
        assert_eq!(loaded.config.web.listen_address, expected, "{text:?}");
    }
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let loaded = with_environment(&[
        ("LIGHTFI_OAUTH__CLIENT_SECRET_FILE", ""),
        ("LIGHTFI_API__URL", ""),
    ])
    .unwrap();
    assert_eq!(inline(loaded.config.oauth.client_secret.as_ref()), "s");
}

#[test]
fn unknown_environment_variables_cause_warnings_only() {
    let loaded = with_environment(&[
        ("LIGHTFI_EXPORTER_PORT", "tcp://10.0.0.1:10420"),
        ("LIGHTFI_EXPORTER_SERVICE_HOST", "10.0.0.1"),
        ("LIGHTFI_OAUTH_CLIENT_SECRET", "MARKER"),
        ("LIGHTFI_METRICS__VARIABLES", "{}"),
        ("LIGHTFI_METRICS__VARIABLES__PM10__NAME", "x"),
        ("LIGHTFI_API", "x"),
        ("LIGHTFIX", "x"),
        ("OTHER", "x"),
    ])
    .unwrap();
    assert_eq!(
        loaded.warnings,
        [
            "environment LIGHTFI_METRICS__VARIABLES is ignored: metrics.variables can be set in the file only",
            "environment LIGHTFI_METRICS__VARIABLES__PM10__NAME is ignored: metrics.variables can be set in the file \
             only",
            "environment LIGHTFI_OAUTH_CLIENT_SECRET is ignored: unknown name, did you mean \
             LIGHTFI_OAUTH__CLIENT_SECRET",
            "environment: unknown names are ignored: LIGHTFI_API, LIGHTFI_EXPORTER_PORT, \
             LIGHTFI_EXPORTER_SERVICE_HOST",
        ]
    );
}

#[test]
fn both_forms_of_a_credential_are_refused_also_across_layers() {
    let errors = with_environment(&[("LIGHTFI_OAUTH__CLIENT_SECRET_FILE", "/x")]).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "file.yaml:1: oauth.client_secret and oauth.client_secret_file (environment \
         LIGHTFI_OAUTH__CLIENT_SECRET_FILE) are both set, keep one"
    );
}

#[test]
fn a_login_needs_neither_token_nor_sensors() {
    let text = "oauth: {client_id: i, client_secret_file: absent}";
    let load = |purpose| load_text("f.yaml", text, &Flags::default(), iter::empty(), purpose);
    assert_eq!(load(Purpose::Login).unwrap().warnings, Vec::<String>::new());
    assert!(
        load(Purpose::Serve)
            .unwrap_err()
            .to_string()
            .contains("lightfi-exporter login")
    );
}

#[test]
fn a_token_store_alone_is_enough_to_serve() {
    let text = "oauth: {client_id: i, client_secret: s, token_store: store.json}\nsensors: [A]";
    let config = load_yaml(text).unwrap().config;
    assert!(config.oauth.refresh_token.is_none());
    assert_eq!(config.oauth.token_store, Some("store.json".into()));
}

/// The directory of this crate holds no `lightfi-exporter.yaml`.
#[test]
fn without_a_file_the_environment_must_name_sensors() {
    let credentials = [
        ("LIGHTFI_OAUTH__CLIENT_ID", "i"),
        ("LIGHTFI_OAUTH__CLIENT_SECRET", "s"),
        ("LIGHTFI_OAUTH__REFRESH_TOKEN", "t"),
    ];
    let load = |more: &[_]| {
        let variables = [&credentials[..], more].concat();
        super::load(&Flags::default(), environment(&variables), Purpose::Serve)
    };
    let error = load(&[]).unwrap_err().to_string();
    for part in [
        DEFAULT_FILE,
        "--config.file",
        "LIGHTFI_SENSORS",
        "lightfi-exporter demo",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(
        ids(&load(&[("LIGHTFI_SENSORS", "A")]).unwrap().config),
        ["A"]
    );
    assert_eq!(
        load(&[("LIGHTFI_LOCATIONS", "base")])
            .unwrap()
            .config
            .locations[0]
            .id,
        "base"
    );
    let error = load(&[("LIGHTFI_SENSORS", "[A")]).unwrap_err().to_string();
    assert!(
        error.starts_with("environment LIGHTFI_SENSORS: "),
        "{error}"
    );
}

#[test]
fn the_interval_is_extended_to_fit_the_request_rate() {
    let interval = |rate: &str, sensors: usize| {
        let sensors: Vec<String> = (0..sensors).map(|n| format!("S{n}")).collect();
        let text = format!(
            "oauth: {{client_id: i, client_secret: s, refresh_token: t}}\napi: {{requests_per_second: {rate}}}\n\
             sensors: [{}]\nlocations: [base]\n",
            sensors.join(", ")
        );
        load_yaml(&text)
            .unwrap()
            .config
            .effective_interval()
            .as_secs_f64()
    };
    assert_eq!(interval("0", 999), 60.0);
    assert_eq!(interval("10", 99), 60.0);
    assert!((interval("1", 99) - 110.0).abs() < 1e-6);
    assert_eq!(
        interval("1e-300", 1),
        LONGEST_EFFECTIVE_INTERVAL.as_secs_f64()
    );
}

#[test]
fn settings_that_need_a_restart_are_kept_and_reported() {
    let before = load_yaml(GOOD).unwrap().config;
    let web =
        "web: {listen_address: [':1'], telemetry_path: /t}\nlog: {format: json, level: debug}\n";
    let mut after = load_yaml(&format!("{GOOD}{web}")).unwrap().config;
    let kept = after.retain_restart_only_settings(&before);
    assert_eq!(kept.len(), 2, "{kept:?}");
    for (sentence, key) in kept.iter().zip(["web.listen_address", "log.format"]) {
        let words = format!("{key} has changed: restart to apply it");
        assert_eq!(*sentence, words);
    }
    assert_eq!(after.web.listen_address, before.web.listen_address);
    assert_eq!(after.log.format, before.log.format);
    assert_eq!(after.web.telemetry_path, "/t");
    assert_eq!(after.log.level, tracing::Level::DEBUG);
    assert!(after.retain_restart_only_settings(&before).is_empty());
}

/// The YAML library's default limits allow about 22,700 sensors. `make bench` loads 100,000.
#[test]
fn thirty_thousand_sensors_are_read() {
    let mut text = GOOD.replace("[A]", "").to_owned();
    for n in 0..30_000 {
        text.push_str(&format!(
            "  - id: AQ2-{n:012}\n    name: Room {n}\n    location: HQ / Floor {}\n    labels: {{desk: {n}}}\n",
            n % 10
        ));
    }
    assert_eq!(load_yaml(&text).unwrap().config.sensors.len(), 30_000);
}

/// Looks like a number, so that errors of number parsers are tested too.
const MARKER: &str = "918273645";

/// Every way to put a secret where it does not belong, or to break the YAML around it.
fn shapes() -> Vec<String> {
    [
        "M",
        "'M'",
        "\"M\"",
        "[M]",
        "[[M, M]]",
        "{M: M}",
        "{M: 1, M: 2}",
        "{a: {b: M}}",
        "{a: M, a: M}",
        "!M x",
        "!!int M",
        "!!binary M",
        "*M",
        "&M x",
        "&a M",
        "M: M",
        "@M",
        "`M",
        "%M",
        "|\n    M\n  M",
        "\"M",
        "'M",
        "[M",
        "{M",
        "https://u:M@h",
        "http://u:M@h",
        "u:M@h",
        "https://h/?M",
        "http://M/",
        "M M",
        "M\n   M",
        "-M",
        "? M",
        "M:M",
        "\"\\xM\"",
        "M\u{0}M",
        "\tM",
        "Mh",
        "Ms",
        "-1.M",
        "\"M\" M",
        "<<",
        "{<<: M}",
    ]
    .iter()
    .map(|shape| shape.replace('M', MARKER))
    .collect()
}

const OAUTH_KEYS: &[&str] = &[
    "token_url",
    "authorize_url",
    "scope",
    "client_id",
    "client_id_file",
    "client_secret",
    "client_secret_file",
    "refresh_token",
    "refresh_token_file",
    "client_auth",
    "expiry_margin",
    "token_store",
    "allow_insecure",
    "unknown",
];

#[test]
fn the_keys_of_the_secrecy_test_are_all_of_oauth() {
    let loaded = to_yaml(&load_yaml(GOOD).unwrap().config);
    let yaml: serde_json::Value = serde_saphyr::from_str(&loaded).unwrap();
    for key in yaml["oauth"].as_object().unwrap().keys() {
        assert!(OAUTH_KEYS.contains(&key.as_str()), "{key}");
    }
}

#[test]
fn no_error_or_warning_quotes_a_value_of_oauth() {
    let hidden = |what: &str, result: Result<Loaded, Errors>| {
        let shown = match &result {
            Ok(loaded) => loaded.warnings.join("\n"),
            Err(errors) => format!("{errors}\n{errors:?}"),
        };
        assert!(!shown.contains(MARKER), "{what}\n{shown}");
        result
    };
    let mut accepted = 0;
    for shape in shapes() {
        for key in OAUTH_KEYS {
            for text in [
                format!("oauth:\n  {key}: {shape}\n"),
                format!("oauth:\n  client_id: x\n  {key}:{shape}\n  scope: y\n"),
                format!("oauth: {{{key}: {shape}, scope: y}}\n"),
                format!("oauth:\n  - {key}: {shape}\n"),
                format!("oauth: {shape}\n"),
            ] {
                hidden(&text, load_yaml(&text)).ok();
            }
            let name = format!("LIGHTFI_OAUTH__{}", key.to_ascii_uppercase());
            hidden(&name, with_environment(&[(&name, &shape)])).ok();
        }
        let credentials = [
            ("LIGHTFI_OAUTH__CLIENT_ID", shape.as_str()),
            ("LIGHTFI_OAUTH__CLIENT_SECRET", &shape),
            ("LIGHTFI_OAUTH__REFRESH_TOKEN", &shape),
        ];
        let loaded = hidden("environment", with_environment(&credentials)).unwrap();
        assert_eq!(inline(loaded.config.oauth.refresh_token.as_ref()), shape);
        let shown = format!("{loaded:?}\n{}", to_yaml(&loaded.config));
        assert!(!shown.contains(MARKER), "{shown}");
        accepted += 1;
    }
    assert_eq!(accepted, shapes().len());
}

#[test]
fn no_error_quotes_the_password_of_a_url_wherever_it_was_put() {
    for url in [
        "https://u:918273645@h",
        "http://u:918273645@h:x",
        "u:918273645@h",
        "ftp://918273645@h/",
    ] {
        for text in [
            format!("{GOOD}api: {{url: '{url}'}}"),
            format!("{GOOD}api: {{timeout: '{url}'}}"),
            format!("{GOOD}api: {{ca_file: '{url}'}}"),
            format!("{GOOD}web: {{listen_address: ['{url}'], telemetry_path: '{url}'}}"),
            format!("{GOOD}collect: {{mode: '{url}', interval: '{url}'}}"),
            format!("{GOOD}metrics: {{variables: {{x: {{name: '{url}', scale: '{url}'}}}}}}"),
            format!("{GOOD}locations: ['{url}', {{id: '{url}'}}]"),
            format!("{GOOD}locations: [{{id: A, '{url}': 1}}]"),
            format!("{GOOD}'{url}': 1\n'{url}x': 1"),
        ] {
            let error = load_yaml(&text).unwrap_err().to_string();
            assert!(!error.contains(MARKER), "{error}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_configuration_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = load_yaml(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_yaml_like_text_is_a_configuration_or_an_error(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "oauth:", "api:", "sensors:", "locations:", "metrics:", "variables:", "web:", "listen_address:", "id:",
                "labels:", "interval:", "collect:", "stale_after:", "\n", "\n  ", "\n    ", "- ", " ", "[", "]", "{", "}",
                ",", "A", "1", "0", "10s", "null", "~", "'", "\"", "|", ">", "&a", "*a", "!!str", "!x", "---", "...", "?",
                ": ", "#", "\t", "<<", "%YAML 1.2", "\u{feff}", "\r\n", "é", "\u{2028}",
            ]),
            0..40,
        )
    ) {
        let _ = load_yaml(&words.concat());
        let _ = with_environment(&[("LIGHTFI_SENSORS", &words.concat()), ("LIGHTFI_LOCATIONS", &format!("[{}", words.concat()))]);
    }

    #[test]
    fn any_secret_of_the_environment_is_kept_unchanged(secret in "[^\0]{1,40}") {
        let loaded = with_environment(&[("LIGHTFI_OAUTH__CLIENT_SECRET", &secret)]).unwrap();
        prop_assert_eq!(inline(loaded.config.oauth.client_secret.as_ref()), secret);
    }

    #[test]
    fn the_shown_configuration_can_be_read_again(
        name in ".*", path in ".*", label in ".*", help in ".*[a-z].*", var_name in ".+", scale in any::<f64>(),
    ) {
        let scale = if scale.is_finite() && scale != 0.0 { scale } else { 1.0 };
        let mut config = load_yaml(GOOD).unwrap().config;
        config.sensors = [Sensor {
            id: "A".into(),
            name: Some(name.into()).filter(|name: &Arc<str>| !name.is_empty()),
            location: Some(path.into()).filter(|path: &Arc<str>| !path.is_empty()),
            labels: [("x".to_owned(), label)].into(),
        }]
        .into();
        let over = Override { name: Some("alpha".to_owned()), help: Some(help), scale: Some(scale.abs()), ..Override::default() };
        config.metrics.variables.insert(var_name, over);
        let again = load_yaml(&to_yaml(&config)).map_err(|errors| TestCaseError::fail(format!("{errors}\n{}", to_yaml(&config))))?.config;
        prop_assert_eq!(&again.sensors[0].name, &config.sensors[0].name);
        prop_assert_eq!(&again.sensors[0].location, &config.sensors[0].location);
        prop_assert_eq!(&again.sensors[0].labels, &config.sensors[0].labels);
        prop_assert_eq!(&again.metrics.variables, &config.metrics.variables);
    }
}

#[test]
fn a_section_of_the_wrong_kind_is_refused_although_the_environment_sets_its_keys() {
    let text = format!("{GOOD}log: text\n");
    let variables = environment(&[
        ("LIGHTFI_LOG__LEVEL", "info"),
        ("LIGHTFI_LOG__FORMAT", "json"),
    ]);
    let loaded = load_text("test", &text, &Flags::default(), variables, Purpose::Serve);
    let errors = loaded.unwrap_err().to_string();
    assert_eq!(errors, "test:3: log: found text instead of keys");
}
