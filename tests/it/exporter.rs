//! Runs the real binary: the fixture of most integration tests.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::tls::Pki;

/// Long enough for a debug binary on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lightfi-exporter"));
    command.env_clear().envs(coverage());
    command
}

/// Returns the only variable that a child inherits: where to write coverage, if it is measured.
pub fn coverage() -> Option<(&'static str, OsString)> {
    let key = "LLVM_PROFILE_FILE";
    Some((key, env::var_os(key)?))
}

/// Runs the binary until it exits.
pub fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().unwrap()
}

pub struct Exporter {
    child: Child,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    output: Arc<Mutex<Vec<String>>>,
    /// Contains the configuration file.
    directory: TempDir,
}

/// The samples of one scrape, by series.
#[derive(Debug, Clone, PartialEq)]
pub struct Scrape {
    pub body: String,
    pub samples: BTreeMap<String, f64>,
}

impl Exporter {
    /// Starts the exporter with this configuration on a free port, and waits until it listens.
    pub fn serve(config: &str) -> Self {
        Self::serve_with(config, &[])
    }

    pub fn serve_with(config: &str, flags: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("lightfi-exporter.yaml");
        std::fs::write(&file, config).unwrap();
        let mut command = command();
        command
            .arg("--config.file")
            .arg(file)
            .arg("--web.listen-address=127.0.0.1:0")
            .args(flags);
        Self::spawn(command, directory)
    }

    pub fn demo(flags: &[&str]) -> Self {
        let mut command = command();
        command
            .args(["demo", "--web.listen-address=127.0.0.1:0"])
            .args(flags);
        Self::spawn(command, TempDir::new().unwrap())
    }

    pub fn spawn(mut command: Command, directory: TempDir) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Arc::new(Mutex::new(Vec::new()));
        let streams: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for stream in streams {
            let output = output.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    output.lock().unwrap().push(line);
                }
            });
        }
        let mut exporter = Self {
            child,
            url: String::new(),
            output,
            directory,
        };
        let start = Instant::now();
        while exporter.url.is_empty() {
            let output = exporter.output();
            let line = output.lines().find(|line| line.contains("listening"));
            // In logfmt and JSON the address follows its key.
            let listening = line
                .and_then(|line| line.split("address").nth(1))
                .map(|rest| {
                    rest.trim_matches(|c: char| "=:\"".contains(c))
                        .split(|c: char| " \",".contains(c))
                        .next()
                });
            let listening = listening.flatten().map(str::to_owned);
            if let Some(address) = listening {
                exporter.url = format!("http://{}", address);
            }
            let ended = exporter.child.try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < TIMEOUT,
                "the exporter does not listen:\n{}",
                exporter.output()
            );
            thread::sleep(Duration::from_millis(5));
        }
        exporter
    }

    /// Returns the path of a file in the directory of the configuration, `lightfi-exporter.yaml`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns all output so far, of both streams.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().join("\n")
    }

    /// Waits until the output contains these words, and returns the output.
    pub async fn says(&self, words: &str) -> String {
        self.says_times(words, 1).await
    }

    /// Waits until the output contains these words so many times. A line may come after the metric of the same event.
    pub async fn says_times(&self, words: &str, times: usize) -> String {
        let start = Instant::now();
        loop {
            let output = self.output();
            if output.matches(words).count() >= times {
                return output;
            }
            assert!(
                start.elapsed() < TIMEOUT,
                "{words:?} does not occur {times} times in:\n{output}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Returns a request for a path.
    pub fn request(&self, path: &str) -> reqwest::RequestBuilder {
        let client = crate::tools::client().no_proxy().build();
        client.unwrap().get(format!("{}{path}", self.url))
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.request(path).send().await.unwrap()
    }

    pub async fn scrape(&self) -> Scrape {
        let response = self.get("/metrics").await;
        assert_eq!(response.status(), 200);
        Scrape::parse(response.text().await.unwrap())
    }

    /// Scrapes until a condition holds, which `words` describe.
    pub async fn scrape_until(&self, words: &str, wanted: impl Fn(&Scrape) -> bool) -> Scrape {
        let start = Instant::now();
        loop {
            let scrape = self.scrape().await;
            if wanted(&scrape) {
                return scrape;
            }
            assert!(
                start.elapsed() < TIMEOUT,
                "timed out waiting for {words:?}:\n{}\n{}",
                scrape.body,
                self.output()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    /// Waits until the process exits, and returns its exit code.
    pub fn wait(&mut self, timeout: Duration) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < timeout {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl AsRef<str> for Exporter {
    /// Returns `HOST:PORT`.
    fn as_ref(&self) -> &str {
        self.url.trim_start_matches("http://")
    }
}

impl Pki {
    /// Serves with these keys of `tls_server_config` and `more` of a web configuration.
    pub fn serve(&self, tls: &str, more: &str) -> Exporter {
        let text = format!(
            "tls_server_config: {{cert_file: server.crt, key_file: server.key{tls}}}\n{more}"
        );
        let file = self.write("web.yml", &text);
        let flag = format!("--web.config.file={}", file.display());
        Exporter::demo(&["--sensors=2", &flag])
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Scrape {
    pub fn parse(body: String) -> Self {
        let samples = body
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap();
                (series.to_owned(), value.parse().unwrap())
            });
        let samples: Vec<_> = samples.collect();
        let series = samples.len();
        let samples: BTreeMap<_, _> = samples.into_iter().collect();
        assert_eq!(samples.len(), series, "duplicate series in\n{body}");
        Self { body, samples }
    }

    /// Returns the value of a series, named as in the text format.
    pub fn value(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// Returns the series of a metric.
    pub fn series_of(&self, metric: &str) -> BTreeMap<&str, f64> {
        let of = |series: &str| {
            series
                .strip_prefix(metric)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        };
        self.samples
            .iter()
            .filter(|(series, _)| of(series))
            .map(|(series, value)| (series.as_str(), *value))
            .collect()
    }

    pub fn sum(&self, metric: &str) -> f64 {
        self.series_of(metric).values().sum()
    }

    /// Returns the names of the families in the TYPE lines.
    pub fn families(&self) -> Vec<&str> {
        self.body
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect()
    }
}
