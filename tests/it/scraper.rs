//! Prometheus and VictoriaMetrics as scrapers of one exporter, and the series that they store.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::tools::{client, free_port};

/// Long enough for a start on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const CONFIG: &str = "scrape.yml";
const LOG: &str = "log";

/// A running scraper.
pub struct Scraper {
    child: Child,
    url: String,
    directory: TempDir,
}

/// One stored series with some of its samples.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Without `job` and `instance`; the name is `__name__`.
    pub labels: Labels,
    /// Unix time in milliseconds, and value.
    pub samples: Vec<(i64, f64)>,
}

pub type Labels = BTreeMap<String, String>;

impl Scraper {
    /// Starts a Prometheus, which asks for OpenMetrics. It scrapes `target` (`HOST:PORT`) every `interval` as job `lightfi`.
    pub async fn prometheus(target: &str, interval: &str) -> Self {
        Self::prometheus_with(target, interval, "", &[]).await
    }

    /// Starts a Prometheus with `more` keys of its scrape job, as in `, scheme: https`, and rule files of the repository.
    pub async fn prometheus_with(target: &str, interval: &str, more: &str, rules: &[&str]) -> Self {
        let flags = |directory: &Path, address: &str| {
            vec![
                format!("--config.file={}", directory.join(CONFIG).display()),
                format!("--storage.tsdb.path={}", directory.join("data").display()),
                format!("--web.listen-address={address}"),
                "--log.level=warn".to_owned(),
            ]
        };
        let root = env!("CARGO_MANIFEST_DIR");
        let rules = rules.iter().map(|rule| format!("{root}/{rule}"));
        let rules: Vec<_> = rules.collect();
        let config = scrape_config(target, interval, more).replacen(
            "global: {",
            &format!("global: {{evaluation_interval: {interval}, "),
            1,
        ) + &format!("rule_files: {rules:?}\n");
        Self::start("prometheus", flags, "/-/ready", &config).await
    }

    /// Starts a VictoriaMetrics, which asks for the text format.
    pub async fn victoria_metrics(target: &str, interval: &str) -> Self {
        let flags = |directory: &Path, address: &str| {
            vec![
                format!("-promscrape.config={}", directory.join(CONFIG).display()),
                format!("-storageDataPath={}", directory.join("data").display()),
                format!("-httpListenAddr={address}"),
                // Stored samples can be queried at once.
                "-search.latencyOffset=0s".to_owned(),
                "-loggerLevel=WARN".to_owned(),
            ]
        };
        let config = scrape_config(target, interval, "");
        Self::start("victoria-metrics", flags, "/health", &config).await
    }

    async fn start(
        program: &str,
        flags: impl Fn(&Path, &str) -> Vec<String>,
        ready: &str,
        config: &str,
    ) -> Self {
        let start = Instant::now();
        loop {
            let directory = TempDir::new().expect("a temporary directory");
            fs::write(directory.path().join(CONFIG), config).expect("the file is written");
            // Neither program accepts a socket: another process may take the port before it starts.
            let address = format!("127.0.0.1:{}", free_port());
            let log = File::create(directory.path().join(LOG)).expect("the log is created");
            let child = Command::new(program)
                .args(flags(directory.path(), &address))
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a second handle"))
                .stderr(log)
                .spawn()
                .unwrap_or_else(|error| panic!("{program} cannot be run ({error})"));
            let mut scraper = Self {
                child,
                url: format!("http://{address}"),
                directory,
            };
            while scraper.child.try_wait().expect("a child").is_none() {
                let reply = scraper.try_get(ready, &[]).await;
                if reply.is_some_and(|(is_ok, _)| is_ok) {
                    return scraper;
                }
                assert!(
                    start.elapsed() < START_TIMEOUT,
                    "{program}: {}",
                    scraper.log()
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert!(
                start.elapsed() < START_TIMEOUT,
                "{program}: {}",
                scraper.log()
            );
        }
    }

    /// Returns its log so far: warnings and errors.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join(LOG)).expect("the log exists")
    }

    /// Returns the response of one of its own routes.
    pub async fn get(&self, path: &str) -> String {
        let (is_ok, body) = self.try_get(path, &[]).await.expect("it answers");
        assert!(is_ok, "{path}: {body}");
        body
    }

    /// Returns the series of an instant query.
    pub async fn query(&self, query: &str) -> Vec<Stored> {
        let series = self.try_query(query).await;
        series.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Returns the series of an instant query, or why it is refused.
    pub async fn try_query(&self, query: &str) -> Result<Vec<Stored>, String> {
        self.series("/api/v1/query", &[("query", query)]).await
    }

    /// Returns the series of a query over the last minute, or why it is refused.
    pub async fn try_query_range(&self, query: &str) -> Result<Vec<Stored>, String> {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
        let (start, end) = (now.as_secs() - 60, now.as_secs());
        let (start, end) = (start.to_string(), end.to_string());
        let query = [
            ("query", query),
            ("start", &start),
            ("end", &end),
            ("step", "2"),
        ];
        self.series("/api/v1/query_range", &query).await
    }

    async fn series(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<Stored>, String> {
        let (is_ok, body) = self.try_get(path, query).await.expect("it answers");
        if !is_ok {
            return Err(body);
        }
        let body: Value = serde_json::from_str(&body).expect("JSON");
        let result = body["data"]["result"].as_array().expect("a list");
        Ok(result.iter().map(Stored::read).collect())
    }

    /// Returns the value of a query that gives at most one.
    pub async fn value(&self, query: &str) -> Option<f64> {
        match self.query(query).await.as_slice() {
            [] => None,
            [one] => Some(one.samples[0].1),
            more => panic!("{query} gives {more:?}"),
        }
    }

    async fn try_get(&self, path: &str, query: &[(&str, &str)]) -> Option<(bool, String)> {
        let client = client().no_proxy().build();
        let request = client.expect("a client").get(format!("{}{path}", self.url));
        let response = request.query(query).send().await.ok()?;
        Some((response.status().is_success(), response.text().await.ok()?))
    }
}

fn scrape_config(target: &str, interval: &str, more: &str) -> String {
    format!(
        "global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}\n\
         scrape_configs: [{{job_name: lightfi, static_configs: [{{targets: [\"{target}\"]}}]{more}}}]\n"
    )
}

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
