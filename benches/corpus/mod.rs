//! The one place where benchmarks touch the exporter's inside: a refresh of many sensors, stage by stage.
//!
//! Each sensor has five variables, a name and a place, as in `benches/harness/corpus.py`; every refresh brings other
//! values and times than the one before.

use std::{
    collections::BTreeMap,
    mem::take,
    sync::Arc,
    time::{Duration, Instant},
};

use lightfi_exporter::{
    api::{SensorReply, decode_sensor},
    catalog::Catalog,
    collector::{CollectionPlan, CollectionRun, Job, Reply, Schedule, SensorRegistry, Step},
    config::{self, Mode},
    exposition::{Filter, Format, View},
    snapshot::Snapshot,
};

/// Decoded replies, in the order of the sensors.
pub type Answers = Vec<SensorReply>;

const VARIABLES: [&str; 5] = [
    "CO2ppm",
    "temperatureC",
    "relativeHumidity",
    "batteryLevelPct",
    "illuminanceArb",
];
const NOW: f64 = 1_716_301_234.0;
const FLOOR: usize = 100;
/// Of no matter: nothing waits.
const INTERVAL: Duration = Duration::from_secs(3600);

/// An exporter's refreshes, without network and clock.
pub struct Refreshes {
    plan: Arc<CollectionPlan>,
    registry: SensorRegistry,
    catalog: Arc<Catalog>,
    ids: Vec<Arc<str>>,
    /// Two generations of replies, taken in turn.
    replies: [Vec<Vec<u8>>; 2],
    made: usize,
}

impl Refreshes {
    /// Of so many sensors, none of them read yet.
    pub fn of(sensors: usize) -> Self {
        let mut chance = fastrand::Rng::with_seed(sensors as u64);
        let mut ids: Vec<Arc<str>> = (0..sensors)
            .map(|n| format!("AQ2-{:07X}{n:05X}", chance.u32(0..1 << 28)).into())
            .collect();
        // In this order they are asked for.
        ids.sort();
        let listed = ids.iter().enumerate().map(|(n, id)| config::Sensor {
            id: id.clone(),
            name: Some(format!("Room {}.{:02}", n / FLOOR, n % FLOOR).into()),
            location: Some(format!("HQ / Floor {}", n / FLOOR).into()),
            ..config::Sensor::default()
        });
        Self {
            plan: Arc::new(CollectionPlan {
                sensors: listed.map(|it| (it.id.clone(), it)).collect(),
                locations: [].into(),
                max_concurrency: usize::MAX,
                interval: INTERVAL,
                max_series: usize::MAX,
                reading_timestamps: true,
            }),
            registry: SensorRegistry::new(INTERVAL),
            catalog: Catalog::new(&BTreeMap::new(), Duration::ZERO, true).into(),
            replies: [1, 2].map(|_| ids.iter().map(|id| reply(id, &mut chance)).collect()),
            ids,
            made: 0,
        }
    }

    /// The next replies, decoded.
    pub fn decode(&mut self) -> Answers {
        let replies = &self.replies[self.made % 2];
        self.made += 1;
        let decoded = replies.iter().map(|body| decode_sensor(body, &|text| text));
        decoded.map(|reply| reply.expect("well-formed")).collect()
    }

    /// The snapshot they make, by the steps of a collection.
    pub fn build(&mut self, answers: Answers) -> Arc<Snapshot> {
        let now = Instant::now();
        let window = Schedule::new(Mode::Interval, INTERVAL).start_collection(now, 0.5);
        let rng = fastrand::Rng::with_seed(1);
        let registry = take(&mut self.registry);
        let mut run = CollectionRun::start(self.plan.clone(), registry, now, window, rng);
        for (reply, id) in answers.into_iter().zip(&self.ids) {
            let Step::Send(job) = run.next(now) else {
                unreachable!("all may be asked for at once")
            };
            assert_eq!(job, Job::Sensor(id.clone()));
            run.handle_result(&job, Ok(Reply::Sensor(reply)), now, NOW);
        }
        (self.registry, _) = run.finish(now, NOW);
        self.registry.snapshot().into()
    }

    /// The text of the format that Prometheus asks for; `each` is given it chunk by chunk.
    pub fn render(&self, snapshot: &Arc<Snapshot>, mut each: impl FnMut(&str)) {
        let view = View::new(snapshot.clone(), self.catalog.clone(), NOW);
        view.render(Format::OpenMetrics, &Filter::default(), &mut each);
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
