//! A real Prometheus that scrapes an exporter once a second with the shipped rules loaded.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use tempfile::TempDir;

/// Long enough for a start on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

pub struct Prometheus {
    child: Child,
    url: String,
    /// Contains configuration and data.
    _directory: TempDir,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes `target` (`http://HOST:PORT`) as the job `lightfi`, and waits for its first scrape.
    pub async fn scraping(target: &str, rules: &[&str]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let target = target.trim_start_matches("http://");
        let rules: Vec<_> = rules
            .iter()
            .map(|rule| format!("{}/{rule}", env!("CARGO_MANIFEST_DIR")))
            .collect();
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": rules,
            "scrape_configs": [{"job_name": "lightfi", "static_configs": [{"targets": [target]}]}],
        });
        let file = directory.path().join("prometheus.yml"); // JSON is YAML
        std::fs::write(&file, config.to_string()).expect("the configuration is written");
        let free = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let address = free.local_addr().expect("a bound listener has an address");
        drop(free);
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("prometheus cannot be run ({error}): `make tools` installs it")
            });
        let prometheus = Self {
            child,
            url: format!("http://{address}"),
            _directory: directory,
        };
        let start = Instant::now();
        while prometheus
            .instant("lightfi_up == 1")
            .await
            .is_none_or(|found| found.is_empty())
        {
            assert!(start.elapsed() < TIMEOUT, "it does not scrape the exporter");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        prometheus
    }

    async fn ask(&self, path: &str, query: &[(&str, String)]) -> Option<Value> {
        let client = crate::tools::client().no_proxy().build().expect("a client");
        let response = client
            .get(format!("{}{path}", self.url))
            .query(query)
            .send()
            .await;
        serde_json::from_str(&response.ok()?.text().await.ok()?).ok()
    }

    /// Returns the series of an instant query; `None` if there is no response or the query is refused.
    pub async fn instant(&self, query: &str) -> Option<Vec<Value>> {
        let reply = self
            .ask("/api/v1/query", &[("query", query.to_owned())])
            .await?;
        reply["data"]["result"].as_array().cloned()
    }

    /// Returns the series of a query over the last minute.
    pub async fn range(&self, query: &str) -> Option<Vec<Value>> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("it is after 1970")
            .as_secs();
        let query = [
            ("query", query.to_owned()),
            ("start", (now - 60).to_string()),
            ("end", now.to_string()),
            ("step", "2".to_owned()),
        ];
        let reply = self.ask("/api/v1/query_range", &query).await?;
        reply["data"]["result"].as_array().cloned()
    }

    /// Returns all loaded rules.
    pub async fn rules(&self) -> Vec<Value> {
        let reply = self
            .ask("/api/v1/rules", &[])
            .await
            .expect("Prometheus returns its rules");
        let groups = reply["data"]["groups"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        groups
            .iter()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
            .collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns whether any series has a number; a quotient without data is `NaN`.
pub fn has_numbers(series: &[Value]) -> bool {
    let number = |sample: &Value| sample[1].as_str().is_some_and(|value| value != "NaN");
    series.iter().any(|one| {
        let over_time = one["values"].as_array().into_iter().flatten();
        over_time.chain(one.get("value")).any(number)
    })
}

/// Returns the exporter's metrics in a query.
pub fn metrics_of(query: &str) -> Vec<&str> {
    query
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .filter(|word| word.starts_with("lightfi_") || word.starts_with("process_"))
        .collect()
}
