//! Recorded readings from file to Prometheus, through `simulate --replay` and the exporter. Prometheus must store the file
//! row by row: every row with its time and value, as long as it was current, and nothing else.
//!
//! The file is a made-up morning of three sensors: each has its own interval, some values repeat, some rows have no value,
//! some are missing, and a meter is reset.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use crate::{
    exporter::{self, Exporter},
    scraper::{Labels, Scraper},
    scrapers::metric_of,
    tools,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/morning.csv");

/// Rows are a minute apart, so each is current for 1.5 s.
const SPEED: f64 = 40.0;

/// The longest time until Prometheus has a row: several collections and scrapes, but less than a row is current.
const MAX_LAG: f64 = 1.4;

/// The series of readings.
const READINGS: &str = "{__name__=~\"lightfi_.+\",\
     __name__!~\"lightfi_(up|collect_.+|exporter_.+|sensor_.+|reading_timestamp_.+)\"}";

/// The sensor id and the variable.
type Key = (String, String);

/// Seconds since the file's first row, and the value; ordered by time.
type Rows = Vec<(f64, Option<f64>)>;

#[tokio::test]
async fn prometheus_stores_a_recording_row_by_row() {
    if !crate::tools::has(&["prometheus"]) {
        return;
    }
    let file = recording();
    // Prometheus takes seconds to start, so it starts before the exporter.
    let target = format!("127.0.0.1:{}", tools::free_port());
    let prometheus = Scraper::prometheus(&target, "250ms").await;
    scrape_failed(&prometheus).await;
    let cloud = Simulate::replay(FILE, SPEED);
    let config = format!(
        "{}collect: {{interval: 300ms}}\nmetrics: {{reading_timestamps: true}}\n",
        cloud.config
    );
    let exporter = Exporter::serve_with(&config, &[&format!("--web.listen-address={target}")]);
    let last = file.values().flatten().map(|(offset, _)| *offset);
    let length = last.fold(0.0, f64::max) / SPEED;
    tokio::time::sleep(Duration::from_secs_f64(length + MAX_LAG)).await;
    drop(exporter);
    scrape_failed(&prometheus).await; // Nothing is stored during the queries.

    let stored = Recording::stored_by(&prometheus, &file).await;
    let mut rows = 0;
    for (key, of_file) in &file {
        let seen = stored.rows(key, of_file);
        let with_a_value: Vec<_> = (0..of_file.len())
            .filter(|row| of_file[*row].1.is_some())
            .collect();
        let mut once = seen.values().copied().collect::<Vec<_>>();
        once.dedup();
        assert_eq!(once, with_a_value, "{key:?}: the stored rows");
        rows += once.len();
        stored.check_scrapes(key, of_file, &seen);
    }
    assert!(rows > 100, "only {rows} rows were compared");
    assert_eq!(prometheus.log(), "", "Prometheus logs no warning");
}

/// Waits until the last scrape failed.
async fn scrape_failed(prometheus: &Scraper) {
    let start = Instant::now();
    while prometheus.value("up").await != Some(0.0) {
        assert!(start.elapsed() < Duration::from_secs(20), "no such scrape");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Reads the file without the code of the simulator.
fn recording() -> BTreeMap<Key, Rows> {
    let text = std::fs::read_to_string(FILE).expect("it can be read");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("time,sensor_id,var_name,value"));
    let mut file: BTreeMap<Key, Rows> = BTreeMap::new();
    for line in lines {
        let [time, sensor, var_name, value] = line
            .split(',')
            .collect::<Vec<_>>()
            .try_into()
            .expect("four fields");
        // All rows are of one day.
        let clock = time.split(['T', 'Z']).nth(1).expect("a time of day");
        let seconds = clock.split(':').fold(0.0, |sum, part| {
            60.0 * sum + part.parse::<f64>().expect("a number")
        });
        let value = (!value.is_empty()).then(|| value.parse().expect("a number"));
        let key = (sensor.to_owned(), var_name.to_owned());
        file.entry(key).or_default().push((seconds, value));
    }
    let first = file.values().map(|rows| rows[0].0);
    let first = first.fold(f64::INFINITY, f64::min);
    for (offset, _) in file.values_mut().flatten() {
        *offset -= first;
    }
    file
}

/// The series that Prometheus stored.
struct Recording {
    /// Time and value of the readings by the time of the scrape in Unix milliseconds.
    readings: BTreeMap<Key, BTreeMap<i64, (f64, f64)>>,
    /// The times of the successful scrapes, from the first with readings.
    scrapes: Vec<i64>,
    /// The Unix time of the first row.
    start: f64,
}

impl Recording {
    async fn stored_by(prometheus: &Scraper, file: &BTreeMap<Key, Rows>) -> Self {
        let mut times: BTreeMap<Key, BTreeMap<i64, f64>> = BTreeMap::new();
        for series in prometheus
            .query("lightfi_reading_timestamp_seconds[5m]")
            .await
        {
            let key = ["sensor_id", "var_name"].map(|label| series.labels[label].clone());
            times.insert(key.into(), series.samples.into_iter().collect());
        }
        assert!(times.keys().eq(file.keys()), "{:?}", times.keys());
        let start = times
            .values()
            .flat_map(BTreeMap::values)
            .copied()
            .fold(f64::INFINITY, f64::min);

        let mut of_sensors = BTreeMap::new();
        for series in prometheus.query(&format!("{READINGS}[5m]")).await {
            of_sensors.insert(series.labels, series.samples);
        }
        let mut readings = BTreeMap::new();
        for (key, times) in times {
            let values = of_sensors.remove(&labels(&key)).unwrap_or_else(|| {
                panic!("{:?} is not among {:?}", labels(&key), of_sensors.keys())
            });
            let values: BTreeMap<_, _> = values.into_iter().collect();
            assert!(
                values.keys().eq(times.keys()),
                "{key:?}: each with its time"
            );
            let both = values.into_iter().zip(times.into_values());
            let both = both.map(|((moment, value), time)| (moment, (time, value)));
            readings.insert(key, both.collect::<BTreeMap<_, _>>());
        }
        assert!(of_sensors.is_empty(), "no row has {:?}", of_sensors.keys());

        let first = readings.values().filter_map(|of| of.keys().next()).min();
        let first = *first.expect("there are readings");
        let up = prometheus.query("up[5m]").await.swap_remove(0).samples;
        let answered = up
            .into_iter()
            .filter(|(moment, up)| *up == 1.0 && *moment >= first);
        Self {
            readings,
            scrapes: answered.map(|(moment, _)| moment).collect(),
            start,
        }
    }

    /// Returns the row of the file that each sample shows. Every sample must be one, with its value.
    fn rows(&self, key: &Key, file: &Rows) -> BTreeMap<i64, usize> {
        let row = |(moment, (time, value)): (&i64, &(f64, f64))| {
            let offset = (time - self.start) * SPEED;
            let row = file.iter().position(|(of, _)| (of - offset).abs() < 0.01);
            let row = row.unwrap_or_else(|| panic!("{key:?}: no row of {offset} s"));
            let recorded = file[row].1.map(|value| metric_of(&key.1, value).1);
            assert_eq!(Some(*value), recorded, "{key:?} at {offset} s");
            (*moment, row)
        };
        self.readings[key].iter().map(row).collect()
    }

    /// Checks that every scrape has the row that is current or was shortly before, and no sample for a row without a value.
    fn check_scrapes(&self, key: &Key, file: &Rows, seen: &BTreeMap<i64, usize>) {
        let came = |moment: f64| {
            let offset = (moment - self.start) * SPEED;
            file.partition_point(|(of, _)| *of <= offset)
        };
        let held = |came: usize| came.checked_sub(1).filter(|row| file[*row].1.is_some());
        for moment in &self.scrapes {
            let now = *moment as f64 / 1000.0;
            let seen = seen.get(moment).copied();
            assert!(
                (came(now - MAX_LAG)..=came(now)).any(|came| seen == held(came)),
                "{key:?} {} s after the start: row {seen:?}",
                now - self.start
            );
        }
    }
}

/// Returns the labels of a recorded sensor, which has no name and no location.
fn labels((sensor, var_name): &Key) -> Labels {
    let metric = metric_of(var_name, 0.0).0;
    let mut labels = Labels::from(
        [
            ("__name__", metric),
            ("sensor_id", sensor),
            ("sensor", sensor),
        ]
        .map(|(label, value)| (label.to_owned(), value.to_owned())),
    );
    if metric == "lightfi_reading" {
        labels.insert("var_name".to_owned(), var_name.clone());
    }
    labels
}

/// A running `simulate`.
struct Simulate {
    child: Child,
    /// The configuration that it printed.
    config: String,
}

impl Simulate {
    fn replay(file: &str, speed: f64) -> Self {
        let mut child = exporter::command()
            .args(["simulate", "--replay", file, "--speed", &speed.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("standard output is piped");
        let mut simulate = Self {
            child,
            config: String::new(),
        };
        for line in BufReader::new(stdout).lines() {
            let line = line.expect("it is text");
            if line == "# ready" {
                return simulate;
            }
            simulate.config += &line;
            simulate.config.push('\n');
        }
        panic!("simulate ended before it was ready: {}", simulate.config);
    }
}

impl Drop for Simulate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
