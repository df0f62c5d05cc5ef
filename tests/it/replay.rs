//! Recorded readings on their whole way: file, `simulate --replay`, exporter, a real Prometheus. What it stored is the
//! file, row by row: every row was seen with its time and its value, for as long as it held, and nothing else.
//!
//! The file is three sensors of a morning, made up: each at a pace of its own, with values that repeat, rows without a
//! value, rows that are missing, and a meter that was set to zero.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use crate::{
    exporter::{self, Exporter},
    scrapers::metric_of,
    tools::{self, Labels, Scraper},
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/morning.csv");

/// Recorded seconds in one: a sensor's rows are a minute apart, and each then holds for 1.5 s.
const SPEED: f64 = 40.0;

/// At the latest so long after a row came, Prometheus shall hold it: several collections and scrapes, but less than the
/// time for which a row holds.
const LAG: f64 = 1.4;

/// Everything but what the exporter says of itself, of its collections and of sensors at large.
const OF_READINGS: &str = "{__name__=~\"lightfi_.+\",\
     __name__!~\"lightfi_(up|collect_.+|exporter_.+|sensor_.+|reading_timestamp_.+)\"}";

/// Sensor and variable.
type Key = (String, String);

/// Seconds since the file's first row, and the value; in order of time.
type Rows = Vec<(f64, Option<f64>)>;

#[tokio::test]
async fn prometheus_stores_a_recording_row_by_row() {
    if !crate::tools::has(&["prometheus"]) {
        return;
    }
    let file = recording();
    // Prometheus takes seconds to begin, so it looks for the exporter before there is one.
    let target = format!("127.0.0.1:{}", tools::free_port());
    let prometheus = Scraper::prometheus(&target, "250ms").await;
    found_nobody(&prometheus).await;
    let cloud = Simulate::replay(FILE, SPEED);
    let config = format!(
        "{}collect: {{interval: 300ms}}\nmetrics: {{reading_timestamps: true}}\n",
        cloud.config
    );
    let exporter = Exporter::serve_with(&config, &[&format!("--web.listen-address={target}")]);
    let last = file.values().flatten().map(|(offset, _)| *offset);
    let length = last.fold(0.0, f64::max) / SPEED;
    tokio::time::sleep(Duration::from_secs_f64(length + LAG)).await;
    drop(exporter);
    found_nobody(&prometheus).await; // nothing is stored any more while it is asked

    let stored = Recording::stored_by(&prometheus, &file).await;
    let mut rows = 0;
    for (key, of_file) in &file {
        let seen = stored.rows(key, of_file);
        let with_a_value: Vec<_> = (0..of_file.len())
            .filter(|row| of_file[*row].1.is_some())
            .collect();
        let mut once = seen.values().copied().collect::<Vec<_>>();
        once.dedup();
        assert_eq!(once, with_a_value, "{key:?}: rows of it in the order seen");
        rows += once.len();
        stored.holds_each_row_for_its_time(key, of_file, &seen);
    }
    assert!(rows > 100, "only {rows} rows were compared");
    assert_eq!(prometheus.log(), "", "it complains of nothing");
}

/// Waits until its last scrape found no exporter.
async fn found_nobody(prometheus: &Scraper) {
    let start = Instant::now();
    while prometheus.value("up").await != Some(0.0) {
        assert!(start.elapsed() < Duration::from_secs(20), "no such scrape");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The file, read by other means than the simulator's.
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
        // All of one day.
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

/// What Prometheus made of it.
struct Recording {
    /// By moment of the scrape, in milliseconds of Unix time: the reading's own time, and the value.
    readings: BTreeMap<Key, BTreeMap<i64, (f64, f64)>>,
    /// Scrapes that were answered, from the first that held readings.
    scrapes: Vec<i64>,
    /// Unix time of the first row.
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
        for series in prometheus.query(&format!("{OF_READINGS}[5m]")).await {
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

    /// Which row of the file each sample is. A sample that is none, or has another value, is a mistake.
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

    /// Every scrape has the row that held just then, or held until a moment ago; and nothing while a row without a
    /// value held.
    fn holds_each_row_for_its_time(&self, key: &Key, file: &Rows, seen: &BTreeMap<i64, usize>) {
        let came = |moment: f64| {
            let offset = (moment - self.start) * SPEED;
            file.partition_point(|(of, _)| *of <= offset)
        };
        // After so many rows.
        let held = |came: usize| came.checked_sub(1).filter(|row| file[*row].1.is_some());
        for moment in &self.scrapes {
            let now = *moment as f64 / 1000.0;
            let seen = seen.get(moment).copied();
            assert!(
                (came(now - LAG)..=came(now)).any(|came| seen == held(came)),
                "{key:?} {} s after the start: row {seen:?}",
                now - self.start
            );
        }
    }
}

/// A recorded sensor has no name and no place.
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

/// The real `simulate`.
struct Simulate {
    child: Child,
    /// What it printed.
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
        panic!("it ends before it is ready: {}", simulate.config);
    }
}

impl Drop for Simulate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
