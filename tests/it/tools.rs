//! The real tools that read what the exporter writes. `tests/install-tools.sh` installs them.

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    io::{self, Write as _},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// Python with the packages that the checks need.
pub const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.tools/venv/bin/python");

/// Drives Chromium.
pub const PLAYWRIGHT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/.tools/node/node_modules/playwright-core/package.json"
);

/// Returns whether every program or file is installed. Without one of them the calling test has to skip its check; one line on
/// standard error says so. `make test` sets `REQUIRE_TEST_TOOLS`, and then a missing program is a failure.
pub fn has(programs: &[&str]) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_installed =
        |program: &&&str| env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let Some(missing) = programs.iter().find(|program| !is_installed(program)) else {
        return true;
    };
    assert!(
        env::var_os("REQUIRE_TEST_TOOLS").is_none(),
        "{missing} is not installed; `make tools` installs it"
    );
    // Unlike eprintln!, this is shown for tests that pass.
    let _ = writeln!(
        io::stderr(),
        "skipped a check: {missing} is not installed; `make tools` installs it"
    );
    false
}

/// Returns what the tool wrote on both streams, and whether it found no fault.
fn feed(mut command: Command, input: &str) -> (bool, String) {
    let name = format!("{:?}", command.get_program());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name} cannot be run ({error}): `make tools` installs it"));
    child
        .stdin
        .take()
        .expect("standard input is piped")
        .write_all(input.as_bytes())
        .expect("the tool reads");
    let output = child.wait_with_output().expect("the tool ends");
    let said = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    (output.status.success(), said)
}

/// `promtool check metrics` has nothing to say about a text body.
pub fn promtool_accepts(body: &str) {
    if !has(&["promtool"]) {
        return;
    }
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    let (content, said) = feed(promtool, body);
    assert!(content && said.is_empty(), "promtool says: {said}");
}

/// Returns the number of samples that the strict parser of `prometheus_client` reads in an OpenMetrics body; `None`
/// where it is not installed.
pub fn openmetrics_samples(body: &str) -> Option<usize> {
    if !has(&[PYTHON]) {
        return None;
    }
    const PARSE: &str = "import sys\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as families\n\
        print(sum(len(family.samples) for family in families(sys.stdin.read())))";
    let mut python = Command::new(PYTHON);
    python.args(["-c", PARSE]).env("PYTHONIOENCODING", "utf-8");
    let (content, said) = feed(python, body);
    assert!(content, "the parser refuses it: {said}");
    Some(said.trim().parse().expect("a number of samples"))
}

/// How long a server that was just started may take before it answers.
const START: Duration = Duration::from_secs(15);

/// A real scraper of one target, and what it stored.
pub struct Scraper {
    child: Child,
    url: String,
    directory: TempDir,
}

/// One stored series with some of its samples.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Without what scraping adds; the name is `__name__`.
    pub labels: Labels,
    /// When, in milliseconds of Unix time, and what.
    pub samples: Vec<(i64, f64)>,
}

pub type Labels = BTreeMap<String, String>;

/// Returns the builder of an HTTP client. reqwest comes without a cryptography provider, so this installs one for the
/// test process; a second installation fails, which is fine.
pub fn client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

/// A port of loopback that nobody has at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let address = listener.local_addr();
    address.expect("a bound listener has an address").port()
}

impl Scraper {
    /// Prometheus, which asks for OpenMetrics. It looks at `target` (`host:port`) every `interval`, first some 5 s from
    /// now.
    pub async fn prometheus(target: &str, interval: &str) -> Self {
        Self::prometheus_with(target, interval, "").await
    }

    /// The same, with `more` keys of its scrape job, as in `, scheme: https`.
    pub async fn prometheus_with(target: &str, interval: &str, more: &str) -> Self {
        let flags = |directory: &Path, address: &str| {
            vec![
                format!("--config.file={}", directory.join(SCRAPE).display()),
                format!("--storage.tsdb.path={}", directory.join("data").display()),
                format!("--web.listen-address={address}"),
                "--log.level=warn".to_owned(),
            ]
        };
        Self::start("prometheus", flags, "/-/ready", target, interval, more).await
    }

    /// VictoriaMetrics, which asks for the text format.
    pub async fn victoria_metrics(target: &str, interval: &str) -> Self {
        let flags = |directory: &Path, address: &str| {
            vec![
                format!("-promscrape.config={}", directory.join(SCRAPE).display()),
                format!("-storageDataPath={}", directory.join("data").display()),
                format!("-httpListenAddr={address}"),
                // What is stored is shown at once.
                "-search.latencyOffset=0s".to_owned(),
                "-loggerLevel=WARN".to_owned(),
            ]
        };
        Self::start("victoria-metrics", flags, "/health", target, interval, "").await
    }

    async fn start(
        program: &str,
        flags: impl Fn(&Path, &str) -> Vec<String>,
        ready: &str,
        target: &str,
        interval: &str,
        more: &str,
    ) -> Self {
        let start = Instant::now();
        loop {
            let directory = TempDir::new().expect("a temporary directory");
            let config = format!(
                "global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}\n\
                 scrape_configs: [{{job_name: lightfi, static_configs: [{{targets: [\"{target}\"]}}]{more}}}]\n"
            );
            std::fs::write(directory.path().join(SCRAPE), config).expect("it is written");
            // Neither program can be handed a socket: between here and its start somebody may take the port.
            let address = format!("127.0.0.1:{}", free_port());
            let log = File::create(directory.path().join(LOG)).expect("it is made");
            let child = Command::new(program)
                .args(flags(directory.path(), &address))
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a second handle"))
                .stderr(log)
                .spawn()
                .unwrap_or_else(|error| {
                    panic!("{program} cannot be run ({error}): `make tools` installs it")
                });
            let mut scraper = Self {
                child,
                url: format!("http://{address}"),
                directory,
            };
            while scraper.child.try_wait().expect("it can be asked").is_none() {
                if scraper.try_get(ready, "").await.is_some_and(|(ok, _)| ok) {
                    return scraper;
                }
                assert!(start.elapsed() < START, "{program}: {}", scraper.log());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert!(start.elapsed() < START, "{program}: {}", scraper.log());
        }
    }

    /// What it has said so far: warnings and worse.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join(LOG)).expect("it is there")
    }

    /// The answer of a route of its own.
    pub async fn get(&self, path: &str) -> String {
        let (ok, body) = self.try_get(path, "").await.expect("it answers");
        assert!(ok, "{path}: {body}");
        body
    }

    /// What a query gives at this moment.
    pub async fn query(&self, query: &str) -> Vec<Stored> {
        let (ok, body) = self
            .try_get("/api/v1/query", query)
            .await
            .expect("it answers");
        assert!(ok, "{query}: {body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        let result = body["data"]["result"].as_array().expect("a list");
        result.iter().map(Stored::read).collect()
    }

    /// The one value of a query that gives one.
    pub async fn value(&self, query: &str) -> Option<f64> {
        match self.query(query).await.as_slice() {
            [] => None,
            [one] => Some(one.samples[0].1),
            more => panic!("{query} gives {more:?}"),
        }
    }

    async fn try_get(&self, path: &str, query: &str) -> Option<(bool, String)> {
        let client = client().no_proxy().build();
        let request = client.expect("a client").get(format!("{}{path}", self.url));
        let response = request.query(&[("query", query)]).send().await.ok()?;
        Some((response.status().is_success(), response.text().await.ok()?))
    }
}

const SCRAPE: &str = "scrape.yml";
const LOG: &str = "log";

impl Drop for Scraper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Stored {
    fn read(series: &Value) -> Self {
        let labels = series["metric"].as_object().expect("labels").iter();
        let labels = labels
            .filter(|(name, _)| *name != "instance" && *name != "job")
            .map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()));
        let sample = |sample: &Value| {
            let seconds = sample[0].as_f64().expect("a time");
            let value = sample[1].as_str().expect("a value").parse();
            ((seconds * 1000.0).round() as i64, value.expect("a number"))
        };
        Self {
            labels: labels.collect(),
            // An instant query gives one value, a range several.
            samples: match series["values"].as_array() {
                Some(values) => values.iter().map(sample).collect(),
                None => vec![sample(&series["value"])],
            },
        }
    }
}
