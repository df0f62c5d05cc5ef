//! The text of the web configuration to [`Settings`]: keys, words and defaults are those of Prometheus' exporter-toolkit.
//!
//! Pure: reads no other file; what a file named here holds is looked at in `tls`. No error quotes a key or a hash.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::{HeaderName, HeaderValue};
use rustls::{CipherSuite, NamedGroup};

use crate::config::{
    Errors, Secret,
    problem::{Problem, is_key_like},
    yaml::{self, Kind, Node},
};

/// What the file says, checked as far as that goes without other files.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// `None` = plain HTTP.
    pub(super) tls: Option<Tls>,
    pub(super) http2: bool,
    /// For every answer that does not set them itself.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Names to bcrypt hashes; empty = everybody.
    pub(super) users: BTreeMap<String, Secret>,
    /// `None` = no limit.
    pub(super) rate_limit: Option<RateLimit>,
    /// What its writer should know.
    pub(super) warnings: Vec<String>,
}

/// `tls_server_config`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tls {
    pub(super) certificate: Material,
    pub(super) key: Material,
    pub(super) client_ca: Option<Material>,
    pub(super) client_auth: ClientAuth,
    /// `None` = any; an empty list allows nobody.
    pub(super) allowed_sans: Option<Vec<String>>,
    pub(super) min_version: Version,
    pub(super) max_version: Version,
    /// Of TLS 1.2, in order of preference; empty = the defaults.
    pub(super) cipher_suites: Vec<CipherSuite>,
    /// In order of preference; empty = the defaults.
    pub(super) curves: Vec<NamedGroup>,
    pub(super) prefer_server_cipher_suites: bool,
}

/// PEM text, here or in a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Material {
    Inline(Secret),
    File(PathBuf),
}

/// Go's policies, in its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientAuth {
    NoClientCert,
    RequestClientCert,
    RequireAnyClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

/// Those that rustls speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

/// A token bucket: one more request each interval, at most so many saved up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RateLimit {
    pub(super) interval: Duration,
    pub(super) burst: u32,
}

impl ClientAuth {
    const WORDS: [(&str, Self); 7] = [
        ("", Self::NoClientCert),
        ("NoClientCert", Self::NoClientCert),
        ("RequestClientCert", Self::RequestClientCert),
        ("RequireAnyClientCert", Self::RequireAnyClientCert),
        // The toolkit's former word.
        ("RequireClientCert", Self::RequireAnyClientCert),
        ("VerifyClientCertIfGiven", Self::VerifyClientCertIfGiven),
        (
            "RequireAndVerifyClientCert",
            Self::RequireAndVerifyClientCert,
        ),
    ];
}

/// The suites that Go lets choose, by its names.
const CIPHER_SUITES: [(&str, CipherSuite); 9] = [
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
];

/// Those that Go knows and rustls leaves out for good: no forward secrecy, or CBC.
const REFUSED_SUITES: [&str; 12] = [
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

/// As in Go they are always on where TLS 1.3 is; naming them changes nothing.
pub(super) const TLS13_SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// One of them must be there for HTTP/2 over TLS 1.2 (RFC 9113, 9.2.2).
const HTTP2_SUITES: [CipherSuite; 2] = [
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
];

const CURVES: [(&str, NamedGroup); 4] = [
    ("CurveP256", NamedGroup::secp256r1),
    ("CurveP384", NamedGroup::secp384r1),
    ("X25519", NamedGroup::X25519),
    ("X25519MLKEM768", NamedGroup::X25519MLKEM768),
];

/// The headers that may be set, and to what; nothing = to anything.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

/// A bcrypt hash has 60 characters; Go's own shortest is 59.
const SHORTEST_HASH: usize = 59;

/// Reads the file's text; `path` names it in errors, and relative paths in it begin at its directory.
pub(super) fn read(path: &Path, text: &str) -> Result<Settings, Errors> {
    let mut reader = Reader {
        origin: path.to_string_lossy().into_owned(),
        directory: path.parent().unwrap_or(Path::new("")),
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let node = match yaml::parse(text) {
        Ok(node) => node,
        Err(invalid) => {
            reader.problem(invalid.line, format!("yaml: {}", invalid.message));
            return Err(Errors::new(reader.problems));
        }
    };
    let settings = reader.settings(&node);
    if reader.problems.is_empty() {
        Ok(settings)
    } else {
        Err(Errors::new(reader.problems))
    }
}

struct Reader<'a> {
    origin: String,
    directory: &'a Path,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

/// The keys of one section that are there.
struct Section<'n> {
    path: &'static str,
    line: usize,
    values: BTreeMap<&'n str, &'n Node>,
}

impl Section<'_> {
    fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn line_of(&self, key: &str) -> usize {
        self.values.get(key).map_or(self.line, |node| node.line)
    }
}

impl Reader<'_> {
    fn problem(&mut self, line: usize, message: String) {
        self.problems.push(Problem {
            origin: self.origin.clone(),
            line: Some(line),
            message,
        });
    }

    fn settings(&mut self, node: &Node) -> Settings {
        let known = [
            "tls_server_config",
            "http_server_config",
            "basic_auth_users",
            "rate_limit",
        ];
        let root = self.section(node, "", &known);
        let http = self.child(&root, "http_server_config", &["http2", "headers"]);
        let http2 = self.boolean(&http, "http2", true);
        let headers = self.headers(&http);
        Settings {
            tls: self.tls(&root, http2),
            http2,
            headers,
            users: self.users(&root),
            rate_limit: self.rate_limit(&root),
            warnings: std::mem::take(&mut self.warnings),
        }
    }

    fn tls(&mut self, root: &Section<'_>, http2: bool) -> Option<Tls> {
        let known = [
            "cert",
            "key",
            "client_ca",
            "cert_file",
            "key_file",
            "client_auth_type",
            "client_ca_file",
            "cipher_suites",
            "curve_preferences",
            "min_version",
            "max_version",
            "prefer_server_cipher_suites",
            "client_allowed_sans",
        ];
        let section = self.child(root, "tls_server_config", &known);
        let certificate = self.material(&section, "cert", "cert_file");
        let key = self.material(&section, "key", "key_file");
        let client_ca = self.material(&section, "client_ca", "client_ca_file");
        let policy = self.text(&section, "client_auth_type");
        let client_auth = ClientAuth::WORDS.iter().find(|(word, _)| *word == policy);
        if client_auth.is_none() {
            let line = section.line_of("client_auth_type");
            let words = ClientAuth::WORDS.map(|(word, _)| word).join(", ");
            let words = words
                .trim_start_matches(", ")
                .replace("RequireClientCert, ", "");
            self.problem(
                line,
                format!("invalid ClientAuth (tls_server_config.client_auth_type), expected one of {words}"),
            );
        }
        let client_auth = client_auth.map_or(ClientAuth::NoClientCert, |(_, policy)| *policy);
        let minimum = self.version(&section, "min_version", Version::Tls12);
        let maximum = self.version(&section, "max_version", Version::Tls13);
        let (cipher_suites, any_suite_of_go) = self.cipher_suites(&section);
        let curves = self.curves(&section);
        let prefer_server_cipher_suites =
            self.boolean(&section, "prefer_server_cipher_suites", true);
        let allowed_sans = self.allowed_sans(&section);

        let nothing = certificate.is_none() && key.is_none() && client_ca.is_none();
        if nothing && policy.is_empty() {
            if !section.values.is_empty() {
                self.warnings.push(
                    "tls_server_config names no certificate and no key: TLS is off".to_owned(),
                );
            }
            return None;
        }
        let required = matches!(
            client_auth,
            ClientAuth::RequireAnyClientCert | ClientAuth::RequireAndVerifyClientCert
        );
        if allowed_sans.is_some() && !required {
            self.problem(
                section.line_of("client_allowed_sans"),
                "client_allowed_sans requires client_auth_type to be one of RequireAnyClientCert or RequireAndVerifyClientCert"
                    .to_owned(),
            );
        }
        if minimum > maximum {
            self.problem(
                section.line_of("min_version"),
                "tls_server_config.min_version is above max_version: no supported versions satisfy MinVersion and MaxVersion"
                    .to_owned(),
            );
        }
        if http2
            && minimum == Version::Tls12
            && any_suite_of_go
            && !HTTP2_SUITES
                .iter()
                .any(|suite| cipher_suites.contains(suite))
        {
            self.problem(
                section.line_of("cipher_suites"),
                "http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 cipher (need at least one of \
                 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 or TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256): add it, or set \
                 http_server_config.http2 to false"
                    .to_owned(),
            );
        }
        let of_tls12 = |suite: &CipherSuite| !TLS13_SUITES.contains(suite);
        if maximum == Version::Tls12
            && !cipher_suites.is_empty()
            && !cipher_suites.iter().any(of_tls12)
        {
            self.problem(
                section.line_of("cipher_suites"),
                "tls_server_config.cipher_suites holds no suite of TLS 1.2, and max_version allows nothing newer"
                    .to_owned(),
            );
        }
        for (value, key) in [(&certificate, "cert"), (&key, "key")] {
            if value.is_none() {
                self.problem(
                    section.line,
                    format!("missing one of {key} or {key}_file in tls_server_config"),
                );
                break;
            }
        }
        Some(Tls {
            certificate: certificate?,
            key: key?,
            client_ca,
            client_auth,
            allowed_sans,
            min_version: minimum,
            max_version: maximum,
            cipher_suites,
            curves,
            prefer_server_cipher_suites,
        })
    }

    /// The file wins over the text, as in the toolkit; a blank one is none.
    fn material(&mut self, section: &Section<'_>, inline: &str, file: &str) -> Option<Material> {
        let text = self.text(section, inline);
        let path = self.text(section, file);
        if !path.is_empty() {
            Some(Material::File(self.directory.join(path)))
        } else if !text.is_empty() {
            Some(Material::Inline(Secret::new(text)))
        } else {
            None
        }
    }

    fn version(&mut self, section: &Section<'_>, key: &str, default: Version) -> Version {
        let word = self.text(section, key);
        let name = section.name(key);
        let what = match word.as_str() {
            "" => return default,
            "TLS12" => return Version::Tls12,
            "TLS13" => return Version::Tls13,
            "TLS10" | "TLS11" => format!(
                "{name}: {word} is not supported, it is too old to be safe; use TLS12 or TLS13"
            ),
            _ => format!("{name}: unknown TLS version, expected TLS12 or TLS13"),
        };
        self.problem(section.line_of(key), what);
        default
    }

    /// Those of the list that are spoken, and whether it names any that Go speaks.
    fn cipher_suites(&mut self, section: &Section<'_>) -> (Vec<CipherSuite>, bool) {
        let mut suites = Vec::new();
        let mut refused = false;
        for (word, line) in self.list(section, "cipher_suites").unwrap_or_default() {
            if let Some((_, suite)) = CIPHER_SUITES.iter().find(|(name, _)| *name == word) {
                suites.push(*suite);
            } else if REFUSED_SUITES.contains(&word.as_str()) {
                refused = true;
                self.problem(
                    line,
                    format!(
                        "tls_server_config.cipher_suites: {word} is not supported, suites with CBC or without forward \
                         secrecy are not; remove it"
                    ),
                );
            } else {
                self.problem(
                    line,
                    "tls_server_config.cipher_suites: unknown cipher, expected names as Go has them".to_owned(),
                );
            }
        }
        let any_of_go = refused || !suites.is_empty();
        (suites, any_of_go)
    }

    fn curves(&mut self, section: &Section<'_>) -> Vec<NamedGroup> {
        let mut curves = Vec::new();
        for (word, line) in self.list(section, "curve_preferences").unwrap_or_default() {
            if let Some((_, curve)) = CURVES.iter().find(|(name, _)| *name == word) {
                curves.push(*curve);
            } else if word == "CurveP521" {
                self.problem(
                    line,
                    "tls_server_config.curve_preferences: CurveP521 is not supported, use X25519, CurveP256 or CurveP384"
                        .to_owned(),
                );
            } else {
                self.problem(
                    line,
                    "tls_server_config.curve_preferences: unknown curve, expected X25519, CurveP256 or CurveP384".to_owned(),
                );
            }
        }
        curves
    }

    fn allowed_sans(&mut self, section: &Section<'_>) -> Option<Vec<String>> {
        let sans = self.list(section, "client_allowed_sans")?;
        Some(sans.into_iter().map(|(name, _)| name).collect())
    }

    fn headers(&mut self, http: &Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for (name, text, line) in self.texts(http, "headers", "http_server_config.headers") {
            let Some((_, allowed)) = HEADERS.iter().find(|(known, _)| *known == name) else {
                let known = HEADERS.map(|(name, _)| name).join(", ");
                self.problem(
                    line,
                    format!("HTTP header {name:?} can not be configured, only {known} can"),
                );
                continue;
            };
            if text.is_empty() {
                continue;
            }
            if !allowed.is_empty() && !allowed.contains(&text.as_str()) {
                self.problem(
                    line,
                    format!("invalid value for {name}. Expected one of: {allowed:?}"),
                );
                continue;
            }
            match (HeaderName::try_from(&name), HeaderValue::try_from(&text)) {
                (Ok(name), Ok(value)) => headers.push((name, value)),
                _ => self.problem(
                    line,
                    format!("invalid value for {name}: a header is one line of plain text"),
                ),
            }
        }
        headers
    }

    fn users(&mut self, root: &Section<'_>) -> BTreeMap<String, Secret> {
        let mut users = BTreeMap::new();
        for (name, hash, line) in self.texts(root, "basic_auth_users", "basic_auth_users") {
            // What stands before a colon could be a name, what comes after it a hash.
            if name.is_empty() || name.contains(':') {
                self.problem(
                    line,
                    "basic_auth_users: a user's name is empty or has a \":\" in it, which basic authentication cannot tell"
                        .to_owned(),
                );
                continue;
            }
            let wrong = if hash.len() < SHORTEST_HASH {
                Some("hashedSecret too short to be a bcrypted password")
            } else {
                match hash.parse::<bcrypt::HashParts>() {
                    Ok(parts) if (4..=31).contains(&parts.get_cost()) => None,
                    Ok(_) => Some("the cost of the bcrypt hash is not from 4 to 31"),
                    Err(_) => Some("this is not a bcrypt hash"),
                }
            };
            match wrong {
                None => {
                    users.insert(name, Secret::new(hash));
                }
                Some(wrong) => self.problem(
                    line,
                    format!(
                        "basic_auth_users: user {name:?}: {wrong}; make one with `htpasswd -nBC 10 \"\" | tr -d ':\\n'`"
                    ),
                ),
            }
        }
        users
    }

    fn rate_limit(&mut self, root: &Section<'_>) -> Option<RateLimit> {
        let section = self.child(root, "rate_limit", &["interval", "burst"]);
        let interval = self.text(&section, "interval");
        let burst = self.text(&section, "burst");
        let interval = if interval.is_empty() {
            Duration::ZERO
        } else {
            duration(&interval).unwrap_or_else(|| {
                self.problem(
                    section.line_of("interval"),
                    "rate_limit.interval: invalid value, expected a duration such as 100ms or 1s, or 0"
                        .to_owned(),
                );
                Duration::ZERO
            })
        };
        let burst = if burst.is_empty() {
            0
        } else {
            burst.parse().unwrap_or_else(|_| {
                self.problem(
                    section.line_of("burst"),
                    "rate_limit.burst: invalid value, expected a whole number".to_owned(),
                );
                0
            })
        };
        if interval.is_zero() {
            return None;
        }
        if burst == 0 {
            self.warnings.push(
                "rate_limit.burst is 0: every request is answered with 429, set it to 1 or more"
                    .to_owned(),
            );
        }
        Some(RateLimit { interval, burst })
    }

    fn child<'n>(
        &mut self,
        parent: &Section<'n>,
        key: &'static str,
        known: &[&str],
    ) -> Section<'n> {
        match parent.values.get(key) {
            Some(node) => self.section(node, key, known),
            None => Section {
                path: key,
                line: parent.line,
                values: BTreeMap::new(),
            },
        }
    }

    /// The known keys of a map; every other is a problem.
    fn section<'n>(&mut self, node: &'n Node, path: &'static str, known: &[&str]) -> Section<'n> {
        let mut section = Section {
            path,
            line: node.line,
            values: BTreeMap::new(),
        };
        let entries = match &node.kind {
            Kind::Map(entries) => entries.as_slice(),
            Kind::Null => &[],
            Kind::Text(_) | Kind::List(_) => {
                let name = if path.is_empty() { "the file" } else { path };
                self.problem(
                    node.line,
                    format!("yaml: {name}: expected keys, one of {}", known.join(", ")),
                );
                &[]
            }
        };
        for (key, value) in entries {
            if known.contains(&key.text.as_str()) {
                section.values.insert(&key.text, value);
            } else if is_key_like(&key.text, false) {
                let likely = known
                    .iter()
                    .map(|known| (strsim::damerau_levenshtein(known, &key.text), known))
                    .filter(|(edits, _)| *edits <= MOST_EDITS)
                    .min();
                let advice = match likely {
                    Some((_, known)) => format!(", did you mean {known:?}"),
                    None => format!(", expected one of {}", known.join(", ")),
                };
                let name = section.name(&key.text);
                self.problem(key.line, format!("yaml: unknown key {name:?}{advice}"));
            } else {
                let known = known.join(", ");
                let what = format!("yaml: a key that is none, expected one of {known}");
                self.problem(key.line, what);
            }
        }
        section
    }

    /// One text; blank where there is none.
    fn text(&mut self, section: &Section<'_>, key: &str) -> String {
        match section.values.get(key).map(|node| (&node.kind, node.line)) {
            None | Some((Kind::Null, _)) => String::new(),
            Some((Kind::Text(text), _)) => text.clone(),
            Some((_, line)) => {
                let name = section.name(key);
                self.problem(line, format!("yaml: {name}: expected one value"));
                String::new()
            }
        }
    }

    /// YAML 1.1's words for truth, as in Go.
    fn boolean(&mut self, section: &Section<'_>, key: &str, default: bool) -> bool {
        let word = self.text(section, key);
        match word.to_ascii_lowercase().as_str() {
            "" => default,
            "true" | "yes" | "on" | "y" => true,
            "false" | "no" | "off" | "n" => false,
            _ => {
                let name = section.name(key);
                self.problem(
                    section.line_of(key),
                    format!("yaml: {name}: expected true or false"),
                );
                default
            }
        }
    }

    /// The texts of a list with their lines; `None` where there is no list.
    fn list(&mut self, section: &Section<'_>, key: &str) -> Option<Vec<(String, usize)>> {
        let node = section.values.get(key)?;
        let name = section.name(key);
        let items = match &node.kind {
            Kind::Null => return None,
            Kind::List(items) => items.as_slice(),
            _ => {
                self.problem(node.line, format!("yaml: {name}: expected a list"));
                return None;
            }
        };
        let mut texts = Vec::new();
        for item in items {
            match &item.kind {
                Kind::Text(text) => texts.push((text.clone(), item.line)),
                _ => self.problem(item.line, format!("yaml: {name}: expected a list of texts")),
            }
        }
        Some(texts)
    }

    /// The entries of a map of texts with their lines.
    fn texts(
        &mut self,
        section: &Section<'_>,
        key: &str,
        name: &str,
    ) -> Vec<(String, String, usize)> {
        let Some(node) = section.values.get(key) else {
            return Vec::new();
        };
        let entries = match &node.kind {
            Kind::Map(entries) => entries.as_slice(),
            Kind::Null => &[],
            _ => {
                self.problem(
                    node.line,
                    format!("yaml: {name}: expected names with values"),
                );
                &[]
            }
        };
        let mut texts = Vec::new();
        for (key, value) in entries {
            match &value.kind {
                Kind::Text(text) => texts.push((key.text.clone(), text.clone(), key.line)),
                Kind::Null => texts.push((key.text.clone(), String::new(), key.line)),
                _ => self.problem(key.line, format!("yaml: {name}: expected one value a name")),
            }
        }
        texts
    }
}

/// A mistyped key is this far from the right one at most.
const MOST_EDITS: usize = 3;

/// Go counts no further than some 292 years, and clocks end somewhere too.
const LONGEST: Duration = Duration::from_nanos(i64::MAX as u64);

/// Go's durations: numbers, with or without a fraction, each with a unit; or a bare 0.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() || text.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c))?);
        let end = after.find(is_number).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
        seconds += number.parse::<f64>().ok()? * size;
        rest = after;
    }
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| *duration <= LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("1s", 1000),
            ("1.5s", 1500),
            ("1h1m1s1ms", 3_661_001),
            ("+100ms", 100),
            (".5s", 500),
            ("2000us", 2),
            ("2000µs", 2),
        ] {
            assert_eq!(
                duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "1",
            "s",
            "-1s",
            "1d",
            "1 s",
            "1.2.3s",
            "1s1",
            "1e9h",
            "99999999999h",
        ] {
            assert_eq!(duration(text), None, "{text:?}");
        }
    }
}
