//! An exporter's collections without network and clock, and replies for them.

use std::{
    collections::BTreeMap,
    mem::take,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    api::{Item, LocationEntry, LocationReply, RequestError, SensorReply},
    collector::{
        CollectionPlan, CollectionRun, CollectionWindow, Reply, RequestFailure, SensorRegistry,
        Step,
    },
    config,
    snapshot::{Snapshot, UnixTime},
    stats::Reason,
};

pub(super) const NOW: UnixTime = 1_716_301_234.0;
pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn configured(id: &str) -> config::Sensor {
    config::Sensor {
        id: id.into(),
        ..config::Sensor::default()
    }
}

pub(super) fn root(id: &str, name: Option<&str>, recursive: bool) -> config::Location {
    config::Location {
        id: id.to_owned(),
        name: name.map(str::to_owned),
        recursive,
    }
}

pub(super) fn by_id(
    sensors: impl IntoIterator<Item = config::Sensor>,
) -> BTreeMap<Arc<str>, config::Sensor> {
    let sensors = sensors.into_iter();
    sensors.map(|sensor| (sensor.id.clone(), sensor)).collect()
}

/// CollectionPlan with recursive locations that the configuration does not name.
pub(super) fn plan(sensors: &[&str], locations: &[&str]) -> CollectionPlan {
    CollectionPlan {
        sensors: by_id(sensors.iter().map(|id| configured(id))),
        locations: locations.iter().map(|id| root(id, None, true)).collect(),
        max_concurrency: 8,
        interval: 60 * SECOND,
        max_series: 1000,
        reading_timestamps: false,
    }
}

pub(super) fn error(reason: Reason, retryable: bool) -> RequestError {
    RequestError {
        reason,
        message: "on purpose".to_owned(),
        retryable,
        no_token: false,
    }
}

pub(super) fn items(value: f64) -> Vec<Item> {
    vec![Item::Reading {
        var_name: "CO2ppm".to_owned(),
        time: NOW,
        value,
    }]
}

/// The reply to a sensor's own request.
pub(super) fn sensor(name: &str, value: f64) -> Reply {
    Reply::Sensor(SensorReply {
        name: Some(name.to_owned()),
        items: items(value),
    })
}

/// A sensor in a location's reply.
pub(super) fn inside(id: &str) -> LocationEntry {
    LocationEntry {
        id: id.to_owned(),
        name: None,
        parent: None,
        items: Some(items(700.0)),
    }
}

/// A child location in a location's reply.
pub(super) fn child(id: &str, name: &str) -> LocationEntry {
    LocationEntry {
        id: id.to_owned(),
        name: Some(name.to_owned()),
        parent: None,
        items: None,
    }
}

/// The same in the child location `parent`.
pub(super) fn nested(parent: &str, found: LocationEntry) -> LocationEntry {
    LocationEntry {
        parent: Some(parent.into()),
        ..found
    }
}

/// The reply of a location.
pub(super) fn location(
    name: &str,
    sensors: Vec<LocationEntry>,
    children: Vec<LocationEntry>,
) -> Reply {
    Reply::Location(LocationReply {
        id: None,
        name: Some(name.to_owned()),
        sensors,
        children,
    })
}

/// The reply of `GET /locations`.
pub(super) fn base(id: &str, sensors: Vec<LocationEntry>, children: Vec<LocationEntry>) -> Reply {
    Reply::Location(LocationReply {
        id: Some(id.to_owned()),
        name: Some("Account".to_owned()),
        sensors,
        children,
    })
}

/// Starts a collection of a minute that is not spread.
pub(super) fn start(
    plan: &CollectionPlan,
    registry: SensorRegistry,
    now: Instant,
) -> CollectionRun {
    let window = CollectionWindow {
        deadline: now + 54 * SECOND,
        spread: Duration::ZERO,
    };
    let rng = fastrand::Rng::with_seed(7);
    CollectionRun::start(Arc::new(plan.clone()), registry, now, window, rng)
}

/// Collections one after the other.
pub(super) struct Collections {
    pub(super) plan: CollectionPlan,
    pub(super) registry: SensorRegistry,
    pub(super) unix_now: UnixTime,
    /// Which of the requests in flight is answered next.
    pub(super) pick: usize,
    /// The requests of the last collection, in alphabetical order.
    pub(super) requested: Vec<String>,
    pub(super) failures: Vec<RequestFailure>,
}

impl Collections {
    pub(super) fn of(plan: CollectionPlan) -> Self {
        Self {
            plan,
            registry: SensorRegistry::default(),
            unix_now: NOW,
            pick: 0,
            requested: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Makes a collection in which `answer` knows the reply to each request by its name, such as `sensor A`, and the others
    /// fail.
    pub(super) fn collect(&mut self, answer: impl Fn(&str) -> Option<Reply>) -> Snapshot {
        let now = Instant::now();
        let mut run = start(&self.plan, take(&mut self.registry), now);
        self.requested.clear();
        let mut in_flight = Vec::new();
        loop {
            match run.next(now) {
                Step::Send(job) => {
                    self.requested.push(job.to_string());
                    in_flight.push(job);
                }
                Step::Wait(_) => {
                    let job = in_flight.remove(self.pick % in_flight.len());
                    let reply = answer(&job.to_string());
                    let result = reply.ok_or_else(|| error(Reason::Forbidden, false));
                    run.handle_result(&job, result, now, self.unix_now);
                }
                Step::Done => break,
            }
        }
        self.requested.sort();
        (self.registry, self.failures) = run.finish(now, self.unix_now);
        self.registry.snapshot()
    }

    /// The same with the replies in a list.
    pub(super) fn collect_from<const N: usize>(&mut self, replies: [(&str, Reply); N]) -> Snapshot {
        let replies = std::cell::RefCell::new(BTreeMap::from(replies));
        self.collect(|name| replies.borrow_mut().remove(name))
    }
}

/// The id of each sensor, whether its last read succeeded, and its values.
pub(super) fn values(snapshot: &Snapshot) -> Vec<(&str, Option<bool>, Vec<f64>)> {
    let sensors = snapshot.sensors.iter();
    sensors
        .map(|sensor| {
            let values = sensor.readings.iter().map(|reading| reading.value);
            (&*sensor.identity.id, sensor.read, values.collect())
        })
        .collect()
}

/// The id, the path and the location id of each sensor.
pub(super) fn places(snapshot: &Snapshot) -> Vec<(&str, Option<&str>, Option<&str>)> {
    let sensors = snapshot.sensors.iter();
    sensors
        .map(|sensor| {
            let identity = &sensor.identity;
            let path = identity.location.as_deref();
            (&*identity.id, path, identity.location_id.as_deref())
        })
        .collect()
}
