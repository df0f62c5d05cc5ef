//! The values of a web configuration file, checked and converted as far as that is possible without other files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::{HeaderName, HeaderValue};
use rustls::{
    NamedGroup, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{SupportedKxGroup, ring},
    version::{TLS12, TLS13},
};

use super::{
    duration,
    file::{ConfigFile, HttpSection, RateLimitSection, TlsSection},
};
use crate::error::{ConfigError, Problems};

/// What a web configuration file says.
#[derive(Default)]
pub(crate) struct Settings {
    /// `None` for plain HTTP.
    pub(crate) tls: Option<TlsSettings>,
    pub(crate) http2: bool,
    /// Headers of responses that do not set them themselves.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// User names and their bcrypt hashes; empty for no authentication.
    pub(crate) users: BTreeMap<String, String>,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) warnings: Vec<String>,
}

/// The section `tls_server_config`.
pub(crate) struct TlsSettings {
    pub(crate) certificate: Pem,
    pub(crate) key: Pem,
    pub(crate) client_ca: Option<Pem>,
    pub(crate) client_auth: ClientAuth,
    /// `None` allows every name, an empty list allows none.
    pub(crate) allowed_sans: Option<Vec<String>>,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
    pub(crate) cipher_suites: Vec<SupportedCipherSuite>,
    pub(crate) curves: Vec<&'static dyn SupportedKxGroup>,
    pub(crate) prefer_server_cipher_suites: bool,
}

/// PEM text, with the key that it belongs to.
pub(crate) enum Pem {
    Inline { key: String, text: String },
    File { key: String, path: PathBuf },
}

/// The client authentication types of Go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    NoClientCert,
    RequestClientCert,
    RequireAnyClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

/// A token bucket: one request per interval, and up to `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RateLimit {
    pub(crate) interval: Duration,
    pub(crate) burst: u32,
}

impl ClientAuth {
    pub(crate) fn requires_certificate(self) -> bool {
        matches!(
            self,
            Self::RequireAnyClientCert | Self::RequireAndVerifyClientCert
        )
    }

    pub(crate) fn verifies_certificate(self) -> bool {
        matches!(
            self,
            Self::VerifyClientCertIfGiven | Self::RequireAndVerifyClientCert
        )
    }
}

/// Cipher suites of Go that rustls does not have: those without forward secrecy and those with CBC.
const UNSUPPORTED_SUITES: [&str; 12] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
];

/// HTTP/2 over TLS 1.2 requires one of these (RFC 9113, 9.2.2).
const HTTP2_SUITES: [&str; 2] = [
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
];

const CURVES: [(&str, NamedGroup); 3] = [
    ("X25519", NamedGroup::X25519),
    ("CurveP256", NamedGroup::secp256r1),
    ("CurveP384", NamedGroup::secp384r1),
];

/// The headers that can be set, with their allowed values; none means any value.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

/// The length from which Go takes a text for a bcrypt hash.
const MIN_HASH_BYTES: usize = 59;

/// Checks and converts the values of the file `path`.
pub(super) fn validate(path: &Path, file: ConfigFile) -> Result<Settings, ConfigError> {
    let mut problems = Problems::new(path);
    let mut warnings = Vec::new();
    let HttpSection { http2, headers } = file.http_server_config.unwrap_or_default();
    let http2 = http2.unwrap_or(true);
    let tls = file.tls_server_config.and_then(|section| {
        if is_without_tls(&section) {
            warnings.push(
                "tls_server_config: no certificate and no key are set, TLS is off".to_owned(),
            );
            return None;
        }
        validate_tls(&mut problems, path, section, http2)
    });
    let rate_limit = validate_rate_limit(&mut problems, file.rate_limit.unwrap_or_default());
    if rate_limit.is_some_and(|limit| limit.burst == 0) {
        warnings.push(
            "rate_limit.burst is 0: every request is answered with 429, set it to 1 or more"
                .to_owned(),
        );
    }
    let settings = Settings {
        tls,
        http2,
        headers: validate_headers(&mut problems, headers.unwrap_or_default()),
        users: validate_users(&mut problems, file.basic_auth_users.unwrap_or_default()),
        rate_limit,
        warnings,
    };
    problems.or(settings)
}

/// As in Go, a section without certificate, key, client CA and client authentication type does not turn TLS on.
fn is_without_tls(section: &TlsSection) -> bool {
    [
        &section.cert,
        &section.cert_file,
        &section.key,
        &section.key_file,
        &section.client_ca,
        &section.client_ca_file,
        &section.client_auth_type,
    ]
    .iter()
    .all(|value| value.as_deref().unwrap_or_default().is_empty())
}

fn validate_tls(
    problems: &mut Problems<'_>,
    path: &Path,
    section: TlsSection,
    http2: bool,
) -> Option<TlsSettings> {
    let directory = path.parent().unwrap_or(Path::new(""));
    let client_auth = client_auth(problems, section.client_auth_type.as_deref());
    if section.client_allowed_sans.is_some() && !client_auth.requires_certificate() {
        problems.add(
            "tls_server_config.client_allowed_sans",
            "client_allowed_sans requires client_auth_type to be one of RequireAnyClientCert or RequireAndVerifyClientCert",
        );
    }
    let (min, max) = (
        section.min_version.as_deref(),
        section.max_version.as_deref(),
    );
    let allows_tls12 = version(problems, "tls_server_config.min_version", min, "TLS12") == "TLS12";
    let allows_tls13 = version(problems, "tls_server_config.max_version", max, "TLS13") == "TLS13";
    let versions = [(&TLS13, allows_tls13), (&TLS12, allows_tls12)];
    let versions = versions.iter().filter(|(_, allowed)| *allowed);
    let versions: Vec<_> = versions.map(|(version, _)| *version).collect();
    if versions.is_empty() {
        problems.add(
            "tls_server_config.min_version",
            "no supported versions satisfy MinVersion and MaxVersion, min_version is above max_version",
        );
    }
    let listed_suites = section.cipher_suites.unwrap_or_default();
    let requires_suite = http2 && allows_tls12;
    let certificate = pem(directory, "cert", section.cert, section.cert_file);
    let key = pem(directory, "key", section.key, section.key_file);
    if let Some(missing) = match (&certificate, &key) {
        (None, _) => Some("cert"),
        (_, None) => Some("key"),
        _ => None,
    } {
        let message = format!("missing one of {missing} or {missing}_file");
        problems.add("tls_server_config", message);
    }
    Some(TlsSettings {
        client_ca: pem(
            directory,
            "client_ca",
            section.client_ca,
            section.client_ca_file,
        ),
        client_auth,
        allowed_sans: section.client_allowed_sans,
        cipher_suites: cipher_suites(problems, &listed_suites, requires_suite, allows_tls13),
        versions,
        curves: curves(problems, &section.curve_preferences.unwrap_or_default()),
        prefer_server_cipher_suites: section.prefer_server_cipher_suites.unwrap_or(true),
        certificate: certificate?,
        key: key?,
    })
}

/// Returns the PEM text of `key`. As in Go, the file wins over the inline text.
fn pem(directory: &Path, key: &str, inline: Option<String>, file: Option<String>) -> Option<Pem> {
    let key = format!("tls_server_config.{key}");
    if let Some(file) = file.filter(|file| !file.is_empty()) {
        let path = directory.join(file);
        return Some(Pem::File {
            key: key + "_file",
            path,
        });
    }
    let text = inline.filter(|text| !text.is_empty())?;
    Some(Pem::Inline { key, text })
}

fn client_auth(problems: &mut Problems<'_>, word: Option<&str>) -> ClientAuth {
    match word.unwrap_or_default() {
        "" | "NoClientCert" => ClientAuth::NoClientCert,
        "RequestClientCert" => ClientAuth::RequestClientCert,
        // The second is the toolkit's former name.
        "RequireAnyClientCert" | "RequireClientCert" => ClientAuth::RequireAnyClientCert,
        "VerifyClientCertIfGiven" => ClientAuth::VerifyClientCertIfGiven,
        "RequireAndVerifyClientCert" => ClientAuth::RequireAndVerifyClientCert,
        word => {
            problems.add(
                "tls_server_config.client_auth_type",
                format!(
                    "invalid ClientAuth {word:?}, expected one of NoClientCert, RequestClientCert, RequireAnyClientCert, \
                     VerifyClientCertIfGiven, RequireAndVerifyClientCert"
                ),
            );
            ClientAuth::NoClientCert
        }
    }
}

/// Returns `TLS12` or `TLS13`.
fn version(
    problems: &mut Problems<'_>,
    key: &str,
    word: Option<&str>,
    default: &'static str,
) -> &'static str {
    match word.unwrap_or_default() {
        "" => return default,
        "TLS12" => return "TLS12",
        "TLS13" => return "TLS13",
        word @ ("TLS10" | "TLS11") => problems.add(
            key,
            format!("{word} is not supported because it is not secure, use TLS12 or TLS13"),
        ),
        word => problems.add(
            key,
            format!("unknown TLS version {word:?}, expected TLS12 or TLS13"),
        ),
    }
    default
}

/// Returns the listed cipher suites, or all if none are listed. As in Go, those of TLS 1.3 cannot be switched off.
fn cipher_suites(
    problems: &mut Problems<'_>,
    listed: &[String],
    requires_http2_suite: bool,
    allows_tls13: bool,
) -> Vec<SupportedCipherSuite> {
    const KEY: &str = "tls_server_config.cipher_suites";
    let supported = ring::default_provider().cipher_suites;
    if listed.is_empty() {
        return supported;
    }
    let is_tls13 = |suite: &SupportedCipherSuite| suite.tls13().is_some();
    let mut suites: Vec<_> = supported.iter().copied().filter(is_tls13).collect();
    for name in listed {
        let is_named = |suite: &SupportedCipherSuite| {
            let rustls_name = format!("{:?}", suite.suite());
            rustls_name.replacen("TLS13_", "TLS_", 1) == *name
        };
        match supported.iter().copied().find(is_named) {
            Some(suite) if is_tls13(&suite) => {}
            Some(suite) => suites.push(suite),
            None if UNSUPPORTED_SUITES.contains(&name.as_str()) => problems.add(
                KEY,
                format!("{name} is not supported because it uses CBC or has no forward secrecy, remove it"),
            ),
            None => problems.add(
                KEY,
                format!("unknown cipher {name:?}, expected names such as {}", HTTP2_SUITES[0]),
            ),
        }
    }
    let is_listed = |required: &&str| listed.iter().any(|name| name == required);
    if requires_http2_suite && !HTTP2_SUITES.iter().any(is_listed) {
        let [rsa, ecdsa] = HTTP2_SUITES;
        problems.add(
            KEY,
            format!(
                "http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 cipher (need at least one of \
                 {rsa} or {ecdsa}): add it, or set http_server_config.http2 to false"
            ),
        );
    }
    if !allows_tls13 && suites.iter().all(is_tls13) {
        problems.add(
            KEY,
            "no cipher suite of TLS 1.2 is listed, and max_version allows nothing newer",
        );
    }
    suites
}

/// Returns the listed curves in their order, or all if none are listed.
fn curves(problems: &mut Problems<'_>, listed: &[String]) -> Vec<&'static dyn SupportedKxGroup> {
    const KEY: &str = "tls_server_config.curve_preferences";
    let supported = ring::default_provider().kx_groups;
    if listed.is_empty() {
        return supported;
    }
    let mut curves = Vec::new();
    for name in listed {
        let group = CURVES.iter().find(|(known, _)| known == name);
        let group = group.and_then(|(_, group)| supported.iter().find(|it| it.name() == *group));
        let expected = "X25519, CurveP256 or CurveP384";
        match group {
            Some(group) => curves.push(*group),
            None if name == "CurveP521" || name == "X25519MLKEM768" => {
                problems.add(KEY, format!("{name} is not supported, use {expected}"));
            }
            None => problems.add(KEY, format!("unknown curve {name:?}, expected {expected}")),
        }
    }
    curves
}

fn validate_headers(
    problems: &mut Problems<'_>,
    headers: BTreeMap<String, Option<String>>,
) -> Vec<(HeaderName, HeaderValue)> {
    const KEY: &str = "http_server_config.headers";
    let mut valid = Vec::new();
    for (name, value) in headers {
        let value = value.unwrap_or_default();
        let Some((name, allowed)) = HEADERS.iter().find(|(known, _)| *known == name) else {
            let known = HEADERS.map(|(name, _)| name).join(", ");
            let message = format!("HTTP header {name:?} can not be configured, only {known} can");
            problems.add(KEY, message);
            continue;
        };
        if value.is_empty() {
            continue;
        }
        if !allowed.is_empty() && !allowed.contains(&value.as_str()) {
            let message = format!("invalid value for {name}. Expected one of: {allowed:?}");
            problems.add(KEY, message);
            continue;
        }
        match (HeaderName::try_from(*name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => valid.push((name, value)),
            _ => problems.add(
                KEY,
                format!("invalid value for {name}: a header is one line of text"),
            ),
        }
    }
    valid
}

fn validate_users(
    problems: &mut Problems<'_>,
    users: BTreeMap<String, Option<String>>,
) -> BTreeMap<String, String> {
    const KEY: &str = "basic_auth_users";
    let mut valid = BTreeMap::new();
    for (name, hash) in users {
        let hash = hash.unwrap_or_default();
        // A colon may separate a name from a password that were written without a space, so the name is not shown.
        if name.is_empty() || name.contains(':') {
            problems.add(KEY, "a user name is empty or contains a \":\"");
            continue;
        }
        let wrong = match hash.parse::<bcrypt::HashParts>() {
            _ if hash.len() < MIN_HASH_BYTES => "hashedSecret too short to be a bcrypted password",
            Ok(parts) if (4..=31).contains(&parts.get_cost()) => {
                valid.insert(name, hash);
                continue;
            }
            Ok(_) => "the cost of the bcrypt hash is not between 4 and 31",
            Err(_) => "the value is not a bcrypt hash",
        };
        let create = "create one with `htpasswd -nBC 10 \"\" | tr -d ':\\n'`";
        problems.add(KEY, format!("user {name:?}: {wrong}; {create}"));
    }
    valid
}

fn validate_rate_limit(
    problems: &mut Problems<'_>,
    section: RateLimitSection,
) -> Option<RateLimit> {
    let present = |value: Option<String>| value.filter(|value| !value.is_empty());
    let interval =
        present(section.interval).map_or(Some(Duration::ZERO), |it| duration::parse(&it));
    let burst = present(section.burst).map_or(Some(0), |burst| burst.parse().ok());
    if interval.is_none() {
        problems.add(
            "rate_limit.interval",
            "invalid value, expected a duration such as 100ms or 1s, or 0 for no limit",
        );
    }
    if burst.is_none() {
        problems.add("rate_limit.burst", "invalid value, expected a whole number");
    }
    let interval = interval.filter(|interval| !interval.is_zero())?;
    let burst = burst?;
    Some(RateLimit { interval, burst })
}
