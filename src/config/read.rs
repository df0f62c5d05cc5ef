//! Gives the merged texts their types and checks them: from [`Layers`] to [`Config`], with every problem on the way.
//!
//! One function per section; a value that is wrong yields `None` and a problem, so that one run finds them all. Where
//! layers come from is known to `layers`, which names are allowed to `naming`.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use exporter_toolkit::ListenAddress;
use figment::value::Value;
use url::{Host, Url};

use super::{
    Api, ClientAuth, Collect, Config, Credential, Errors, Location, Log, LogFormat, Metrics, Mode,
    Oauth, Purpose, Secret, Sensor, Web, duration,
    layers::{Layers, Step, kind_for_display, unknown_key},
    naming,
    problem::{Problem, is_key_like, value_for_display},
};
use crate::catalog::{self, Override};

/// Below this the API would be asked without a pause.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// Above this it is a typing error.
const LONGEST_INTERVAL: Duration = Duration::from_secs(7 * 86_400);
/// Below this a token could end while a collection that uses it runs.
const SHORTEST_EXPIRY_MARGIN: Duration = Duration::from_secs(10);
/// More connections than this to one host are a typing error.
const MOST_CONCURRENCY: usize = 1024;

/// Routes of the server that are always there; the telemetry path must differ.
const ROUTES: &[&str] = &[
    "/",
    "/-/healthy",
    "/healthz",
    "/-/ready",
    "/readyz",
    "/-/reload",
    "/config",
];

const SENSOR_KEYS: &[&str] = &["id", "name", "location", "labels"];
const LOCATION_KEYS: &[&str] = &["id", "name", "recursive"];
const VARIABLE_KEYS: &[&str] = &["name", "help", "scale", "stale_after", "drop"];

/// Reads the whole configuration; the warnings are for the log.
pub(super) fn read(mut layers: Layers, purpose: Purpose) -> Result<(Config, Vec<String>), Errors> {
    let mut reader = Reader {
        problems: std::mem::take(&mut layers.problems),
        warnings: std::mem::take(&mut layers.warnings),
        layers: &layers,
    };
    let root = At {
        path: Vec::new(),
        value: Some(&layers.merged),
    };
    let api = reader.api(&root.key("api"));
    let oauth = reader.oauth(&root.key("oauth"), purpose);
    let collect = reader.collect(&root.key("collect"));
    let sensors = reader.list(&root.key("sensors"), Reader::sensor);
    let locations = reader.list(&root.key("locations"), Reader::location);
    reader.refuse_twice(&root.key("sensors"), &sensors, |sensor| &sensor.id);
    reader.refuse_twice(&root.key("locations"), &locations, |location| &location.id);
    let metrics = reader.metrics(&root.key("metrics"));
    let web = reader.web(&root.key("web"));
    let log = reader.log(&root.key("log"));
    let Reader {
        problems, warnings, ..
    } = reader;
    match (api, oauth, collect, metrics, web, log) {
        (Some(api), Some(oauth), Some(collect), Some(metrics), Some(web), Some(log))
            if problems.is_empty() =>
        {
            let config = Config {
                api,
                oauth,
                collect,
                sensors: sensors.into_iter().map(|(_, sensor)| sensor).collect(),
                locations: locations
                    .into_iter()
                    .map(|(_, location)| location)
                    .collect(),
                metrics,
                web,
                log,
            };
            Ok((config, warnings))
        }
        _ => Err(Errors::new(problems)),
    }
}

/// A place in the merged layers, and the value there.
struct At<'a> {
    path: Vec<Step>,
    value: Option<&'a Value>,
}

impl<'a> At<'a> {
    fn key(&self, key: &str) -> At<'a> {
        let value = self
            .value
            .and_then(|value| value.as_dict()?.get(key))
            .filter(|value| !matches!(value, Value::Empty(..)));
        self.below(Step::Key(key.to_owned()), value)
    }

    fn below(&self, step: Step, value: Option<&'a Value>) -> At<'a> {
        let mut path = self.path.clone();
        path.push(step);
        At { path, value }
    }

    /// `sensors[1].name`; a key that does not look like one is not shown.
    fn name(&self) -> String {
        let mut name = String::new();
        for step in &self.path {
            match step {
                Step::Index(index) => name.push_str(&format!("[{index}]")),
                Step::Key(key) => {
                    if !name.is_empty() {
                        name.push('.');
                    }
                    if is_key_like(key, self.is_secret()) {
                        name.push_str(key);
                    } else {
                        name.push_str(&value_for_display(key));
                    }
                }
            }
        }
        name
    }

    /// Values of `oauth` are never shown, wherever they stand and whatever they are.
    fn is_secret(&self) -> bool {
        matches!(self.path.first(), Some(Step::Key(key)) if key == "oauth")
    }

    /// A key of the same section, by its path.
    fn sibling_name(&self, key: &str) -> String {
        let section = &self.path[..self.path.len().saturating_sub(1)];
        At {
            path: section.to_vec(),
            value: None,
        }
        .key(key)
        .name()
    }
}

struct Reader<'a> {
    layers: &'a Layers,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn api(&mut self, at: &At<'_>) -> Option<Api> {
        let allow_insecure = self.boolean(&at.key("allow_insecure"));
        let url = self.url(&at.key("url"), allow_insecure, Query::Refused);
        let timeout = self.duration(&at.key("timeout"), |timeout| {
            (!timeout.is_zero())
                .then_some(())
                .ok_or_else(|| "must be longer than 0".to_owned())
        });
        let max_concurrency = self.parsed(&at.key("max_concurrency"), |text| {
            whole_number(text).and_then(|number| {
                (1..=MOST_CONCURRENCY)
                    .contains(&number)
                    .then_some(number)
                    .ok_or(format!("must be from 1 to {MOST_CONCURRENCY}"))
            })
        });
        let requests_per_second = self.parsed(&at.key("requests_per_second"), |text| {
            number(text).and_then(|rate| {
                (rate >= 0.0)
                    .then_some(rate)
                    .ok_or("must not be negative, 0 means no limit".to_owned())
            })
        });
        let max_response_bytes = self.parsed(&at.key("max_response_bytes"), |text| {
            whole_number(text).and_then(|bytes| {
                (bytes > 0)
                    .then_some(bytes)
                    .ok_or("must be at least 1".to_owned())
            })
        });
        let ca_file = self.path(&at.key("ca_file"));
        if let Some(Some(file)) = &ca_file {
            let problem = match fs::read(file) {
                Ok(bytes)
                    if String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE-----") =>
                {
                    None
                }
                Ok(_) => Some("holds no certificate in PEM form".to_owned()),
                Err(error) => Some(format!("cannot be read: {error}")),
            };
            if let Some(problem) = problem {
                let shown = value_for_display(&file.to_string_lossy());
                self.refuse(&at.key("ca_file"), format!("{shown} {problem}"));
            }
        }
        Some(Api {
            url: url?,
            timeout: timeout?,
            max_concurrency: max_concurrency?,
            requests_per_second: requests_per_second?,
            max_response_bytes: max_response_bytes?,
            allow_insecure: allow_insecure?,
            ca_file: ca_file?,
        })
    }

    fn oauth(&mut self, at: &At<'_>, purpose: Purpose) -> Option<Oauth> {
        let allow_insecure = self.boolean(&at.key("allow_insecure"));
        let token_url = self.url(&at.key("token_url"), allow_insecure, Query::Allowed);
        let authorize_url = self.url(&at.key("authorize_url"), allow_insecure, Query::Allowed);
        let scope = self.parsed(&at.key("scope"), |text| Ok(text.to_owned()));
        let client_id = self.credential(at, "client_id");
        let client_secret = self.credential(at, "client_secret");
        let refresh_token = self.credential(at, "refresh_token");
        let client_auth = self.word(
            &at.key("client_auth"),
            &[("body", ClientAuth::Body), ("basic", ClientAuth::Basic)],
        );
        let expiry_margin = self.duration(&at.key("expiry_margin"), |margin| {
            (margin >= SHORTEST_EXPIRY_MARGIN)
                .then_some(())
                .ok_or_else(|| {
                    format!(
                        "must be at least {}",
                        duration::format(SHORTEST_EXPIRY_MARGIN)
                    )
                })
        });
        let token_store = self.path(&at.key("token_store"));
        for (key, credential) in [("client_id", &client_id), ("client_secret", &client_secret)] {
            if let Some(None) = credential {
                let name = at.key(key).name();
                self.refuse(
                    at,
                    format!(
                        "{name} (or {name}_file) is missing: set what LightFi support gave you, in the file or as \
                         LIGHTFI_OAUTH__{}",
                        key.to_ascii_uppercase()
                    ),
                );
            }
        }
        if let (Purpose::Serve | Purpose::Discover, Some(None), Some(None)) =
            (purpose, &refresh_token, &token_store)
        {
            self.refuse(
                at,
                "oauth.refresh_token (or oauth.refresh_token_file, or oauth.token_store) is missing: get one with \
                 `lightfi-exporter login`"
                    .to_owned(),
            );
        }
        Some(Oauth {
            token_url: token_url?,
            authorize_url: authorize_url?,
            scope: scope?,
            client_id: client_id??,
            client_secret: client_secret?,
            refresh_token: refresh_token?,
            client_auth: client_auth?,
            expiry_margin: expiry_margin?,
            token_store: token_store?,
            allow_insecure: allow_insecure?,
        })
    }

    /// `<key>` or `<key>_file`.
    fn credential(&mut self, at: &At<'_>, key: &str) -> Option<Option<Credential>> {
        let inline = at.key(key);
        let file = at.key(&format!("{key}_file"));
        if let (Some(value), Some(other)) = (inline.value, file.value) {
            let message = format!(
                "{} and {} ({}) are both set, keep one",
                inline.name(),
                file.name(),
                self.layers.describe(&file.path, other.tag())
            );
            self.problems.push(
                self.layers
                    .problem(&inline.path, Some(value.tag()), message),
            );
            return None;
        }
        if inline.value.is_some() {
            return self
                .parsed(&inline, |text| match text {
                    "" => Err("is empty".to_owned()),
                    text => Ok(Secret::new(text)),
                })
                .map(|secret| Some(Credential::Inline(secret)));
        }
        self.path(&file).map(|path| path.map(Credential::File))
    }

    fn collect(&mut self, at: &At<'_>) -> Option<Collect> {
        let mode = self.word(
            &at.key("mode"),
            &[("interval", Mode::Interval), ("scrape", Mode::Scrape)],
        );
        let interval = self.duration(&at.key("interval"), |interval| {
            (SHORTEST_INTERVAL..=LONGEST_INTERVAL)
                .contains(&interval)
                .then_some(())
                .ok_or_else(|| {
                    format!(
                        "must be from {} to {}",
                        duration::format(SHORTEST_INTERVAL),
                        duration::format(LONGEST_INTERVAL)
                    )
                })
        });
        let stale_after = self.duration(&at.key("stale_after"), |_| Ok(()));
        let max_series = self.parsed(&at.key("max_series"), |text| {
            whole_number(text).and_then(|series| {
                (series > 0)
                    .then_some(series)
                    .ok_or("must be at least 1".to_owned())
            })
        });
        Some(Collect {
            mode: mode?,
            interval: interval?,
            stale_after: stale_after?,
            max_series: max_series?,
        })
    }

    /// The good items of a list, with where they stand.
    fn list<T>(
        &mut self,
        at: &At<'_>,
        mut read: impl FnMut(&mut Self, &At<'_>) -> Option<T>,
    ) -> Vec<(usize, T)> {
        let Some(value) = at.value else {
            return Vec::new();
        };
        let Value::Array(tag, items) = value else {
            self.refuse_kind(at, value, "a list");
            return Vec::new();
        };
        let items = self.layers.items(&at.path, (*tag, items)).enumerate();
        items
            .filter_map(|(index, item)| {
                let at = at.below(Step::Index(index), Some(&item));
                read(self, &at).map(|item| (index, item))
            })
            .collect()
    }

    fn refuse_twice<T>(&mut self, list: &At<'_>, items: &[(usize, T)], id: impl Fn(&T) -> &str) {
        let mut seen = HashMap::new();
        for (index, item) in items {
            if let Some(first) = seen.insert(id(item), *index) {
                let item_at = list.below(Step::Index(*index), list.value);
                self.refuse(
                    &item_at,
                    format!(
                        "{}: {:?} is listed twice, first as {}[{first}]",
                        item_at.name(),
                        id(item),
                        list.name()
                    ),
                );
            }
        }
    }

    fn sensor(&mut self, at: &At<'_>) -> Option<Sensor> {
        if let Some(Value::String(..)) = at.value {
            return self.parsed(at, id).map(|id| Sensor {
                id: id.into(),
                ..Sensor::default()
            });
        }
        if !self.object(at, SENSOR_KEYS, "a sensor's id or an object with one") {
            return None;
        }
        let id = self.required_id(at);
        let name = self.optional_text(&at.key("name"));
        let location = self.optional_text(&at.key("location"));
        let labels = self.labels(&at.key("labels"));
        Some(Sensor {
            id: id?.into(),
            name: name?.map(Arc::from),
            location: location?.map(Arc::from),
            labels: labels?,
        })
    }

    fn labels(&mut self, at: &At<'_>) -> Option<BTreeMap<String, String>> {
        let mut labels = BTreeMap::new();
        let Some(value) = at.value else {
            return Some(labels);
        };
        let Value::Dict(_, entries) = value else {
            self.refuse_kind(at, value, "label names with values");
            return None;
        };
        let mut good = true;
        for (name, value) in entries {
            let label = at.below(Step::Key(name.clone()), Some(value));
            if let Err(message) = naming::check_label(name) {
                let message = format!("{}: {} {message}", at.name(), value_for_display(name));
                self.refuse(&label, message);
                good = false;
                continue;
            }
            match self.parsed(&label, |text| Ok(text.to_owned())) {
                Some(text) => {
                    labels.insert(name.clone(), text);
                }
                None => good = false,
            }
        }
        good.then_some(labels)
    }

    fn location(&mut self, at: &At<'_>) -> Option<Location> {
        if let Some(Value::String(..)) = at.value {
            return self.parsed(at, id).map(|id| Location {
                id,
                name: None,
                recursive: true,
            });
        }
        if !self.object(at, LOCATION_KEYS, "a location's id or an object with one") {
            return None;
        }
        let id = self.required_id(at);
        let name = self.optional_text(&at.key("name"));
        let recursive = at.key("recursive");
        let recursive = match recursive.value {
            Some(_) => self.boolean(&recursive),
            None => Some(true),
        };
        Some(Location {
            id: id?,
            name: name?,
            recursive: recursive?,
        })
    }

    fn required_id(&mut self, at: &At<'_>) -> Option<String> {
        let id_at = at.key("id");
        if id_at.value.is_none() {
            self.refuse(at, format!("{} is missing", id_at.name()));
            return None;
        }
        self.parsed(&id_at, id)
    }

    /// Whether there is an object with no other keys than these; its unknown keys are problems.
    fn object(&mut self, at: &At<'_>, keys: &[&str], expected: &str) -> bool {
        let empty = Value::from("");
        let Some(Value::Dict(_, entries)) = at.value else {
            self.refuse_kind(at, at.value.unwrap_or(&empty), expected);
            return false;
        };
        let mut good = true;
        for (key, value) in entries {
            if !keys.contains(&key.as_str()) {
                let place = at.name();
                let known = keys.iter().map(|key| format!("{place}.{key}")).collect();
                self.refuse(
                    &at.below(Step::Key(key.clone()), Some(value)),
                    unknown_key(&place, key, known),
                );
                good = false;
            }
        }
        good
    }

    fn metrics(&mut self, at: &At<'_>) -> Option<Metrics> {
        let reading_timestamps = self.boolean(&at.key("reading_timestamps"));
        let variables = self.variables(&at.key("variables"));
        Some(Metrics {
            reading_timestamps: reading_timestamps?,
            variables: variables?,
        })
    }

    fn variables(&mut self, at: &At<'_>) -> Option<BTreeMap<String, Override>> {
        let mut variables = BTreeMap::new();
        let Some(Value::Dict(_, entries)) = at.value else {
            return match at.value {
                Some(value) => {
                    self.refuse_kind(at, value, "var_names with objects");
                    None
                }
                None => Some(variables),
            };
        };
        let mut good = true;
        let mut by_variable: HashMap<&str, &str> = HashMap::new();
        let mut by_metric: HashMap<String, &str> = HashMap::new();
        for (var_name, value) in entries {
            let entry = at.below(
                Step::Key(var_name.clone()),
                Some(value).filter(|value| !matches!(value, Value::Empty(..))),
            );
            if let Some(first) = by_variable.insert(catalog::canonical(var_name), var_name) {
                let message = format!("{} and {first} are one variable, keep one", entry.name());
                self.refuse(&entry, message);
                good = false;
            }
            if entry.value.is_none() {
                continue;
            }
            let Some(over) = self.variable(&entry, var_name) else {
                good = false;
                continue;
            };
            if let Some(name) = &over.name
                && let Some(first) = by_metric.insert(name.clone(), var_name)
            {
                let message = format!(
                    "{}: \"{name}\" is taken by {}, choose another",
                    entry.key("name").name(),
                    at.key(first).name()
                );
                self.refuse(&entry.key("name"), message);
                good = false;
            }
            variables.insert(var_name.clone(), over);
        }
        good.then_some(variables)
    }

    fn variable(&mut self, at: &At<'_>, var_name: &str) -> Option<Override> {
        if !self.object(at, VARIABLE_KEYS, "an object with keys such as name") {
            return None;
        }
        let is_set = |key: &str| at.key(key).value.is_some();
        let drop = match is_set("drop") {
            true => self.boolean(&at.key("drop")),
            false => Some(false),
        };
        if drop == Some(true) {
            let others = VARIABLE_KEYS.iter().filter(|key| **key != "drop");
            if let Some(other) = others.copied().find(|key| is_set(key)) {
                let message = format!(
                    "{} is set, but {} drops the variable, keep one",
                    at.key(other).name(),
                    at.key("drop").name()
                );
                self.refuse(&at.key(other), message);
                return None;
            }
        }
        if !catalog::has_row(catalog::canonical(var_name)) && !is_set("name") {
            let useless = ["help", "scale"].into_iter().find(|key| is_set(key));
            if let Some(key) = useless {
                let message = format!(
                    "{} needs {}: without one the variable stays in lightfi_reading, unconverted",
                    at.key(key).name(),
                    at.key("name").name()
                );
                self.refuse(&at.key(key), message);
                return None;
            }
        }
        let name = self.optional(&at.key("name"), |reader, at| {
            reader.parsed(at, |text| {
                naming::check_metric(text, var_name).map(|()| text.to_owned())
            })
        });
        let help = self.optional(&at.key("help"), |reader, at| {
            reader.parsed(at, |text| match text.trim() {
                "" => Err("is empty, say what the metric is".to_owned()),
                _ => Ok(text.to_owned()),
            })
        });
        // A counter that is not renamed stays one.
        let stays_counter = catalog::is_counter(catalog::canonical(var_name)) && !is_set("name");
        let scale = self.optional(&at.key("scale"), |reader, at| {
            reader.parsed(at, |text| match number(text)? {
                0.0 => Err("must not be 0, use drop: true to leave the variable out".to_owned()),
                scale if scale < 0.0 && stays_counter => Err(
                    "must not be negative for a counter, give it a name to export it as a gauge"
                        .to_owned(),
                ),
                scale => Ok(scale),
            })
        });
        let stale_after = self.optional(&at.key("stale_after"), |reader, at| {
            reader.duration(at, |_| Ok(()))
        });
        Some(Override {
            name: name?,
            help: help?,
            scale: scale?,
            stale_after: stale_after?,
            drop: drop?,
        })
    }

    fn web(&mut self, at: &At<'_>) -> Option<Web> {
        let addresses_at = at.key("listen_address");
        let before = self.problems.len();
        let addresses = self.list(&addresses_at, |reader, at| {
            reader.parsed(at, |text| {
                text.parse::<ListenAddress>().map(|_| text.to_owned())
            })
        });
        self.refuse_twice(&addresses_at, &addresses, |address: &String| address);
        if addresses.is_empty() && self.problems.len() == before {
            let message = format!(
                "{} is empty, list at least one address",
                addresses_at.name()
            );
            self.refuse(&addresses_at, message);
        }
        let telemetry_path = self.parsed(&at.key("telemetry_path"), telemetry_path);
        // The exporter toolkit's own default for this flag is an empty text.
        let config_file = self.optional_text(&at.key("config_file"));
        let max_requests = self.parsed(&at.key("max_requests"), whole_number);
        let enable_lifecycle = self.boolean(&at.key("enable_lifecycle"));
        Some(Web {
            listen_address: addresses.into_iter().map(|(_, address)| address).collect(),
            telemetry_path: telemetry_path?,
            config_file: config_file?.map(PathBuf::from),
            max_requests: max_requests?,
            enable_lifecycle: enable_lifecycle?,
        })
    }

    fn log(&mut self, at: &At<'_>) -> Option<Log> {
        let level = self.word(
            &at.key("level"),
            &[
                ("error", tracing::Level::ERROR),
                ("warn", tracing::Level::WARN),
                ("info", tracing::Level::INFO),
                ("debug", tracing::Level::DEBUG),
                ("trace", tracing::Level::TRACE),
            ],
        );
        let format = self.word(
            &at.key("format"),
            &[("logfmt", LogFormat::Logfmt), ("json", LogFormat::Json)],
        );
        Some(Log {
            level: level?,
            format: format?,
        })
    }

    /// `Some(None)` where nothing is set.
    fn optional<T>(
        &mut self,
        at: &At<'_>,
        read: impl FnOnce(&mut Self, &At<'_>) -> Option<T>,
    ) -> Option<Option<T>> {
        match at.value {
            Some(_) => read(self, at).map(Some),
            None => Some(None),
        }
    }

    /// An empty text counts as none.
    fn optional_text(&mut self, at: &At<'_>) -> Option<Option<String>> {
        let text = self.optional(at, |reader, at| {
            reader.parsed(at, |text| Ok(text.to_owned()))
        })?;
        Some(text.filter(|text| !text.is_empty()))
    }

    fn path(&mut self, at: &At<'_>) -> Option<Option<PathBuf>> {
        self.optional(at, |reader, at| {
            reader.parsed(at, |text| match text {
                "" => Err("is empty, name a file or leave the key out".to_owned()),
                text => Ok(PathBuf::from(text)),
            })
        })
    }

    fn boolean(&mut self, at: &At<'_>) -> Option<bool> {
        self.parsed(at, |text| match text.trim() {
            "true" | "True" | "TRUE" => Ok(true),
            "false" | "False" | "FALSE" => Ok(false),
            _ => Err("is neither true nor false".to_owned()),
        })
    }

    fn word<T: Copy>(&mut self, at: &At<'_>, words: &[(&str, T)]) -> Option<T> {
        self.parsed(at, |text| {
            let found = words.iter().find(|(word, _)| *word == text.trim());
            found.map(|(_, value)| *value).ok_or_else(|| {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                let (last, others) = words.split_last().unwrap_or((&"", &[]));
                format!(
                    "is none of the words allowed: {} or {last}",
                    others.join(", ")
                )
            })
        })
    }

    fn duration(
        &mut self,
        at: &At<'_>,
        check: impl FnOnce(Duration) -> Result<(), String>,
    ) -> Option<Duration> {
        self.parsed(at, |text| {
            let duration = duration::parse(text.trim()).map_err(str::to_owned)?;
            check(duration).map(|()| duration)
        })
    }

    fn url(&mut self, at: &At<'_>, allow_insecure: Option<bool>, query: Query) -> Option<Url> {
        let advice = at.sibling_name("allow_insecure");
        self.parsed_unseen(at, |text| {
            let url = Url::parse(text.trim())
                .map_err(|_| "is not a URL, write for example https://host/path".to_owned())?;
            if !matches!(url.scheme(), "https" | "http") {
                return Err("is neither an https:// nor an http:// URL".to_owned());
            }
            if !url.username().is_empty() || url.password().is_some() {
                return Err("carries a user name or password, take it out of the URL".to_owned());
            }
            if url.fragment().is_some() || (query == Query::Refused && url.query().is_some()) {
                return Err("carries a query or fragment, leave out what follows ? or #".to_owned());
            }
            if url.scheme() == "http" && !is_loopback(&url) && allow_insecure == Some(false) {
                return Err(format!(
                    "is plain http to another machine, use https or set {advice}: true"
                ));
            }
            Ok(url)
        })
    }

    /// A text as a value; the error completes a sentence that begins with the text.
    fn parsed<T>(
        &mut self,
        at: &At<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.parsed_shown(at, !at.is_secret(), parse)
    }

    /// The same for a text that is not to be shown.
    fn parsed_unseen<T>(
        &mut self,
        at: &At<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.parsed_shown(at, false, parse)
    }

    fn parsed_shown<T>(
        &mut self,
        at: &At<'_>,
        shown: bool,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = match at.value {
            Some(Value::String(_, text)) => text,
            Some(value) => {
                self.refuse_kind(at, value, "one value");
                return None;
            }
            None => {
                self.refuse(at, format!("{} has no value", at.name()));
                return None;
            }
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                let name = at.name();
                let message = match shown {
                    // An empty text says so itself.
                    true if !text.is_empty() => {
                        format!("{name}: {} {error}", value_for_display(text))
                    }
                    _ => format!("{name} {error}"),
                };
                self.refuse(at, message);
                None
            }
        }
    }

    fn refuse_kind(&mut self, at: &At<'_>, value: &Value, expected: &str) {
        let found = kind_for_display(value);
        self.refuse(
            at,
            format!("{}: found {found} instead of {expected}", at.name()),
        );
    }

    fn refuse(&mut self, at: &At<'_>, message: String) {
        let tag = at.value.map(Value::tag);
        self.problems
            .push(self.layers.problem(&at.path, tag, message));
    }
}

/// Whether a URL may carry a query.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Query {
    Allowed,
    Refused,
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn id(text: &str) -> Result<String, String> {
    let good = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && !matches!(text, "." | "..");
    good.then(|| text.to_owned())
        .ok_or_else(|| "is not an id, use letters, digits, \".\", \"_\" and \"-\"".to_owned())
}

/// Digits only, and no leading zero: YAML's elder and younger versions disagree on what `010` is.
fn whole_number(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    usize::from_str(text)
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| "is not a whole number".to_owned())
}

fn number(text: &str) -> Result<f64, String> {
    f64::from_str(text.trim())
        .ok()
        .filter(|number| number.is_finite())
        .ok_or_else(|| "is not a number".to_owned())
}

fn telemetry_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err("does not begin with \"/\"".to_owned());
    }
    let of_path = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    if !text.bytes().all(of_path)
        || text.contains("//")
        || text.split('/').any(|part| matches!(part, "." | ".."))
    {
        return Err("is not a plain path, write for example /metrics".to_owned());
    }
    if ROUTES.contains(&text) {
        return Err("is another route of the exporter, write for example /metrics".to_owned());
    }
    Ok(text.to_owned())
}
