//! The one place where benchmarks touch the exporter's inside: a refresh of many sensors, stage by stage.
//!
//! Each sensor has five variables, a name and a place, as in `benches/harness/corpus.py`; every refresh brings other
//! values and times than the one before.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use lightfi_exporter::{
    catalog::Catalog,
    collector::{Answers, Rehearsal},
    config,
    exposition::{Filter, Format, View, gzip},
    snapshot::Snapshot,
};

const VARIABLES: [&str; 5] = [
    "CO2ppm",
    "temperatureC",
    "relativeHumidity",
    "batteryLevelPct",
    "illuminanceArb",
];
const NOW: f64 = 1_716_301_234.0;
const FLOOR: usize = 100;

/// An exporter's refreshes, without network and clock.
pub struct Refreshes {
    rehearsal: Rehearsal,
    catalog: Catalog,
    ids: Vec<Arc<str>>,
    /// Two generations of replies, taken in turn.
    replies: [Vec<Vec<u8>>; 2],
    made: usize,
}

impl Refreshes {
    /// Of so many sensors, none of them read yet.
    pub fn of(sensors: usize) -> Self {
        let mut chance = fastrand::Rng::with_seed(sensors as u64);
        let ids: Vec<Arc<str>> = (0..sensors)
            .map(|n| format!("AQ2-{:07X}{n:05X}", chance.u32(0..1 << 28)).into())
            .collect();
        let listed = ids.iter().enumerate().map(|(n, id)| config::Sensor {
            id: id.to_string(),
            name: Some(format!("Room {}.{:02}", n / FLOOR, n % FLOOR)),
            location: Some(format!("HQ / Floor {}", n / FLOOR)),
            ..config::Sensor::default()
        });
        Self {
            rehearsal: Rehearsal::new(listed.collect()),
            catalog: Catalog::new(&BTreeMap::new(), Duration::ZERO, true),
            replies: [1, 2].map(|_| ids.iter().map(|id| reply(id, &mut chance)).collect()),
            ids,
            made: 0,
        }
    }

    /// The next replies, decoded.
    pub fn decode(&mut self) -> Answers {
        let replies = &self.replies[self.made % 2];
        self.made += 1;
        let replies = self.ids.iter().zip(replies.iter().map(Vec::as_slice));
        self.rehearsal.decode(replies, NOW)
    }

    /// The snapshot they make.
    pub fn build(&mut self, answers: Answers) -> Snapshot {
        self.rehearsal.close(answers, NOW)
    }

    /// The text of the format that Prometheus asks for.
    pub fn render(&self, snapshot: &Snapshot) -> Vec<u8> {
        let mut text = Vec::new();
        let view = View::new(snapshot, &self.catalog, NOW);
        view.render(Format::OpenMetrics, &Filter::default(), &mut text);
        text
    }

    /// The same, compressed.
    pub fn gzip(&self, text: &[u8]) -> gzip::Prefix {
        gzip::Prefix::new(text)
    }
}

/// As the API sends it.
fn reply(id: &str, chance: &mut fastrand::Rng) -> Vec<u8> {
    let time = NOW - 300.0 + f64::from(chance.u32(0..300_000)) / 1000.0;
    let item = |name: &&str| {
        let value = f64::from(chance.u32(100..16_000)) / 10.0;
        format!(r#"{{"var_name":"{name}","time":{time},"value":{value}}}"#)
    };
    let items: Vec<String> = VARIABLES.iter().map(item).collect();
    format!(
        r#"{{"data":[{}],"id":"{id}","name":null}}"#,
        items.join(",")
    )
    .into_bytes()
}
