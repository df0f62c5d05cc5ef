//! Every scrape is compared with a small model, written from the contract, series by series: no value past its limit, no
//! mixture of two collections, no sensor that has left, no counter that went back.
//!
//! Thousands of random sequences of events run in virtual time: time passes, readings change, faults start and end, reloads
//! and scrapes come. All of the exporter but its sockets and its clock takes part: the order of the requests, the replies, the
//! snapshot and the text, which a separate parser reads.

mod model;
mod world;

use std::{
    collections::{BTreeMap, VecDeque},
    mem::take,
    sync::Arc,
    time::{Duration, Instant},
};

use lightfi_exporter::{
    catalog::{Catalog, Override},
    collector::{CollectionPlan, CollectionRun, Job, Schedule, SensorRegistry, Step},
    config::{self, Mode},
    exposition::{Filter, Format, View, render_self_metrics},
    snapshot::{Snapshot, UnixTime},
};
use proptest::prelude::*;

use self::{
    model::{Model, Setup},
    world::{Device, Fault, LOCATIONS, Reported, SENSORS, VARIABLES, World},
};
use crate::exposition::parser;

const SEQUENCES: u32 = 2000;
const THREADS: u32 = 2;
/// Unix time at which each sequence begins.
const BEGIN: UnixTime = 1_700_000_000.0;

#[derive(Debug, Clone)]
enum Event {
    Pass(Duration),
    /// A sensor reports a variable, measured so many seconds ago.
    Measure(&'static str, &'static str, Sort, i32),
    /// A sensor no longer has a variable.
    Forget(&'static str, &'static str),
    Move(&'static str, Option<&'static str>),
    /// Whether the sensor's own route answers 404.
    Gone(&'static str, bool),
    Rename(&'static str, &'static str),
    Inline(&'static str, bool),
    Fault(String, Option<Fault>),
    /// All faults end.
    Repair,
    Reload(Setup),
    Scrape,
    /// Scrapes at the last moment at which the published text is valid, and at the next one.
    ScrapeAtExpiry,
}

#[derive(Debug, Clone, Copy)]
enum Sort {
    Good,
    Twice,
    Null,
    Malformed,
}

fn one<T: Clone + std::fmt::Debug + 'static>(
    values: impl Into<Vec<T>>,
) -> impl Strategy<Value = T> + Clone {
    prop::sample::select(values.into())
}

fn location_ids() -> Vec<&'static str> {
    LOCATIONS.iter().map(|location| location.id).collect()
}

fn event() -> impl Strategy<Value = Event> {
    let sort = prop_oneof![
        8 => Just(Sort::Good),
        2 => Just(Sort::Twice),
        1 => Just(Sort::Null),
        1 => Just(Sort::Malformed),
    ];
    let old = 14 * 86_400 - 100;
    let ages = one([0, 0, 1, 30, 400, 3000, 3590, 86_300, old, -3500, -5000]);
    let pass = one([0.0, 0.5, 3.0, 20.0, 70.0, 150.0, 400.0, 2400.0]);
    let jobs = SENSORS
        .map(|id| format!("sensor {id}"))
        .into_iter()
        .chain(
            location_ids()
                .into_iter()
                .map(|id| format!("location {id}")),
        )
        .chain(["the base location".to_owned()])
        .collect::<Vec<_>>();
    let fault = one([
        None,
        Some(Fault::Error),
        Some(Fault::Refused),
        Some(Fault::Timeout),
        Some(Fault::Hang),
        Some(Fault::Garbled),
    ]);
    let names = one(["", "East", "West", "Desk 1"]);
    let location = prop_oneof![1 => Just(None), 4 => one(location_ids()).prop_map(Some)];
    prop_oneof![
        12 => (pass, 1.0..1.5).prop_map(|(pass, more)| Event::Pass(Duration::from_secs_f64(pass * more))),
        10 => (one(SENSORS), one(VARIABLES), sort, ages).prop_map(|(id, name, sort, age)| Event::Measure(id, name, sort, age)),
        1 => (one(SENSORS), one(VARIABLES)).prop_map(|(id, name)| Event::Forget(id, name)),
        3 => (one(SENSORS), location).prop_map(|(id, location)| Event::Move(id, location)),
        1 => (one(SENSORS), any::<bool>()).prop_map(|(id, gone)| Event::Gone(id, gone)),
        1 => (one(SENSORS), names).prop_map(|(id, name)| Event::Rename(id, name)),
        1 => (one(location_ids()), any::<bool>()).prop_map(|(id, inline)| Event::Inline(id, inline)),
        5 => (one(jobs), fault).prop_map(|(job, fault)| Event::Fault(job, fault)),
        1 => Just(Event::Repair),
        2 => setup().prop_map(Event::Reload),
        10 => Just(Event::Scrape),
        3 => Just(Event::ScrapeAtExpiry),
    ]
}

fn setup() -> impl Strategy<Value = Setup> {
    let name = one([None, None, Some("Boardroom")]);
    let listed = prop::collection::vec((any::<bool>(), name), SENSORS.len());
    let mut locations = location_ids();
    locations.push("base");
    let roots = prop::sample::subsequence(locations, 0..4).prop_shuffle();
    let recursive = prop::collection::vec(prop::bool::weighted(0.8), 4);
    let pace = (one([1, 2, 8]), one([90, 600]));
    let limits = (one([0, 60, 600, 3600]), one([1_000_000, 1_000_000, 70]));
    let flags = (any::<bool>(), prop::bool::weighted(0.2));
    (listed, roots, recursive, pace, limits, flags).prop_map(
        |(listed, roots, recursive, (slots, interval), (stale_after, max_series), flags)| Setup {
            listed: SENSORS
                .into_iter()
                .zip(listed)
                .filter(|(_, (listed, _))| *listed)
                .map(|(id, (_, name))| (id, name))
                .collect(),
            roots: roots.into_iter().zip(recursive).collect(),
            slots,
            interval,
            stale_after,
            reading_timestamps: flags.0,
            drop_battery: flags.1,
            max_series,
        },
    )
}

impl Setup {
    fn plan(&self) -> CollectionPlan {
        let sensor = |(id, name): &(&str, Option<&str>)| {
            let sensor = config::Sensor {
                id: (*id).into(),
                name: name.map(Arc::from),
                ..config::Sensor::default()
            };
            (sensor.id.clone(), sensor)
        };
        let location = |(id, recursive): &(&str, bool)| config::Location {
            id: (*id).to_owned(),
            name: None,
            recursive: *recursive,
        };
        CollectionPlan {
            sensors: self.listed.iter().map(sensor).collect(),
            locations: self.roots.iter().map(location).collect(),
            max_concurrency: self.slots,
            interval: Duration::from_secs(self.interval),
            max_series: self.max_series,
            reading_timestamps: self.reading_timestamps,
        }
    }

    fn catalog(&self) -> Catalog {
        let drop = Override {
            drop: true,
            ..Override::default()
        };
        let battery = self
            .drop_battery
            .then(|| ("batteryLevelPct".to_owned(), drop));
        Catalog::new(
            &battery.into_iter().collect(),
            Duration::from_secs(self.stale_after),
            self.reading_timestamps,
        )
    }
}

/// The response to scrapes, by the publisher's rule: it is valid until a reading becomes stale.
struct Published {
    snapshot: Arc<Snapshot>,
    catalog: Arc<Catalog>,
    made_at: UnixTime,
}

impl Published {
    fn body(&self, now: UnixTime, format: Format) -> String {
        let mut view = self.view(self.made_at);
        if now > view.valid_until {
            view = self.view(now);
        }
        let all = Filter::default();
        let mut body = String::new();
        view.render(format, &all, &mut |chunk| body.push_str(chunk));
        body + &render_self_metrics(&[], format, &all)
    }

    fn valid_until(&self) -> UnixTime {
        self.view(self.made_at).valid_until
    }

    fn view(&self, now: UnixTime) -> View {
        View::new(self.snapshot.clone(), self.catalog.clone(), now)
    }
}

/// One sequence of events of an exporter.
struct Sequence {
    /// The machine's clock at the begin; never read again.
    origin: Instant,
    now: Duration,
    rng: fastrand::Rng,
    world: World,
    setup: Setup,
    model: Model,
    published: Published,
    /// The number of measurements so far, from which each gets a value and a time of its own.
    measurements: u32,
    scrapes: u32,
}

impl Sequence {
    fn new(setup: Setup, snapshot: Snapshot, seed: u64) -> Self {
        let device = || Device {
            location: Some("3"),
            ..Device::default()
        };
        Self {
            origin: Instant::now(),
            now: Duration::ZERO,
            rng: fastrand::Rng::with_seed(seed),
            world: World {
                devices: SENSORS.map(|id| (id, device())).into(),
                ..World::default()
            },
            published: Published {
                snapshot: snapshot.into(),
                catalog: setup.catalog().into(),
                made_at: BEGIN,
            },
            setup,
            model: Model::default(),
            measurements: 0,
            scrapes: 0,
        }
    }

    fn run(setup: Setup, events: Vec<Event>, seed: u64) -> Result<(), TestCaseError> {
        let mut events = with_times(events);
        let mut plan = Arc::new(setup.plan());
        let mut registry = SensorRegistry::new(plan.interval);
        let mut sequence = Self::new(setup, registry.snapshot(), seed);
        sequence.check(BEGIN)?;
        let mut schedule = Schedule::new(Mode::Interval, plan.interval);
        loop {
            let start = schedule
                .next_start(sequence.instant())
                .expect("interval mode always has a next start");
            let start = start - sequence.origin;
            let mut reload = None;
            while reload.is_none()
                && let Some((at, event)) = events.pop_front_before(start)
            {
                sequence.now = sequence.now.max(at);
                reload = sequence.apply(event)?;
            }
            if reload.is_none() {
                if events.0.is_empty() {
                    return Ok(());
                }
                sequence.now = sequence.now.max(start);
                reload = sequence.collect(&plan, &mut registry, &mut schedule, &mut events)?;
            }
            if let Some(setup) = reload {
                plan = setup.plan().into();
                registry.reconfigure(&plan);
                schedule = Schedule::new(Mode::Interval, plan.interval);
                sequence.model.reconfigured(&setup);
                sequence.setup = setup;
                sequence.publish(registry.snapshot());
                sequence.check(sequence.unix())?;
            }
        }
    }

    /// Makes one collection, with the events in it. Returns the configuration of the reload that cancels it, if there is one.
    fn collect(
        &mut self,
        plan: &Arc<CollectionPlan>,
        registry: &mut SensorRegistry,
        schedule: &mut Schedule,
        events: &mut Events,
    ) -> Result<Option<Setup>, TestCaseError> {
        let window = schedule.start_collection(self.instant(), self.rng.f64());
        let mut run = CollectionRun::start(
            plan.clone(),
            take(registry),
            self.instant(),
            window,
            self.rng.fork(),
        );
        let mut in_flight: Vec<(Duration, Job, Option<Fault>)> = Vec::new();
        loop {
            let wake = match run.next(self.instant()) {
                Step::Send(job) => {
                    let fault = self.world.fault(&job);
                    in_flight.push((self.now + self.takes(fault), job, fault));
                    prop_assert!(in_flight.len() <= plan.max_concurrency);
                    continue;
                }
                Step::Wait(until) => until - self.origin,
                Step::Done => break,
            };
            in_flight.sort_by_key(|(at, ..)| *at);
            let answer = in_flight.first().map_or(Duration::MAX, |(at, ..)| *at);
            if let Some((at, event)) = events.pop_front_before(wake.min(answer)) {
                self.now = self.now.max(at);
                let reload = self.apply(event)?;
                if reload.is_some() {
                    *registry = run.cancel();
                    return Ok(reload);
                }
            } else if answer <= wake {
                self.now = self.now.max(answer);
                let (_, job, fault) = in_flight.remove(0);
                let result = self.world.answer(&job, fault);
                if let Ok(reply) = self.world.answer(&job, fault) {
                    self.model.answered(job.clone(), reply, self.unix());
                }
                run.handle_result(&job, result, self.instant(), self.unix());
            } else {
                self.now = self.now.max(wake);
            }
        }
        (*registry, _) = run.finish(self.instant(), self.unix());
        self.model.collected(&self.setup, self.unix());
        self.publish(registry.snapshot());
        self.check(self.unix())?;
        Ok(None)
    }

    fn takes(&mut self, fault: Option<Fault>) -> Duration {
        match fault {
            Some(Fault::Hang) => Duration::from_secs(1_000_000),
            Some(Fault::Timeout) => Duration::from_secs(10),
            _ => Duration::from_secs_f64(self.rng.f64().powi(3) * 8.0),
        }
    }

    /// Returns the new configuration if the event is a reload.
    fn apply(&mut self, event: Event) -> Result<Option<Setup>, TestCaseError> {
        let unix = self.unix();
        let world = &mut self.world;
        match event {
            Event::Pass(_) => {}
            Event::Measure(id, var_name, sort, age) => {
                self.measurements += 1;
                let measured = f64::from(self.measurements);
                let time = (unix - f64::from(age)).floor() + measured / 8192.0;
                let value = match var_name {
                    "onlineStatus" => [1.0, 0.0, -1.0, -2.0, 7.0][self.measurements as usize % 5],
                    _ => measured,
                };
                let item = match sort {
                    Sort::Good => Reported::Reading { time, value },
                    Sort::Twice => Reported::Twice { time, value },
                    Sort::Null => Reported::Null,
                    Sort::Malformed => Reported::Malformed,
                };
                world.device(id).reported.insert(var_name, item);
            }
            Event::Forget(id, var_name) => drop(world.device(id).reported.remove(var_name)),
            Event::Move(id, location) => world.device(id).location = location,
            Event::Gone(id, gone) => world.device(id).gone = gone,
            Event::Rename(id, name) => world.device(id).name = name.to_owned(),
            Event::Inline(id, inline) => drop(world.inline.insert(id, inline)),
            Event::Fault(job, Some(fault)) => drop(world.faults.insert(job, fault)),
            Event::Fault(job, None) => drop(world.faults.remove(&job)),
            Event::Repair => world.faults.clear(),
            Event::Reload(setup) => return Ok(Some(setup)),
            Event::Scrape => self.check(unix)?,
            Event::ScrapeAtExpiry => {
                let last = self.published.valid_until();
                if last.is_finite() {
                    self.check(last.max(unix))?;
                    self.check(last.next_up().max(unix))?;
                }
            }
        }
        Ok(None)
    }

    fn publish(&mut self, snapshot: Snapshot) {
        self.published = Published {
            snapshot: snapshot.into(),
            catalog: self.setup.catalog().into(),
            made_at: self.unix(),
        };
    }

    /// A scrape at `now`.
    fn check(&mut self, now: UnixTime) -> Result<(), TestCaseError> {
        self.scrapes += 1;
        let format = Format::ALL[self.scrapes as usize % 2];
        let body = self.published.body(now, format);
        let families = parser::parse(&body, format).map_err(TestCaseError::fail)?;
        let samples = families.into_iter().flat_map(|family| family.samples);
        let mut seen: BTreeMap<String, f64> = samples
            .map(|sample| (format!("{}{:?}", sample.name, sample.labels), sample.value))
            .collect();
        seen.remove("lightfi_collect_duration_seconds{}");
        let must = self.model.shown(&self.setup, now);
        let not_in = |a: &BTreeMap<String, f64>, b: &BTreeMap<String, f64>| -> Vec<String> {
            let missing = a
                .iter()
                .filter(|(series, value)| b.get(*series) != Some(*value));
            missing
                .map(|(series, value)| format!("{series} {value}"))
                .collect()
        };
        let (wrong, missing) = (not_in(&seen, &must), not_in(&must, &seen));
        let at = now - BEGIN;
        prop_assert!(
            wrong.is_empty() && missing.is_empty(),
            "after {at} s it shows {wrong:#?}\nand should show {missing:#?}\nunder {:?}",
            self.setup
        );
        Ok(())
    }

    fn instant(&self) -> Instant {
        self.origin + self.now
    }

    fn unix(&self) -> UnixTime {
        BEGIN + self.now.as_secs_f64()
    }
}

/// The events to come, with their times.
struct Events(VecDeque<(Duration, Event)>);

impl Events {
    fn pop_front_before(&mut self, end: Duration) -> Option<(Duration, Event)> {
        self.0.pop_front_if(|(at, _)| *at < end)
    }
}

fn with_times(events: Vec<Event>) -> Events {
    let mut now = Duration::ZERO;
    let timed = events.into_iter().map(|event| {
        if let Event::Pass(time) = event {
            now += time;
        }
        (now, event)
    });
    Events(timed.collect())
}

#[test]
fn every_scrape_shows_exactly_the_series_of_the_model() {
    // A minute of work, shared.
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(run_sequences);
        }
    });
}

fn run_sequences() {
    let config = ProptestConfig {
        cases: SEQUENCES / THREADS,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    };
    let sequences = (setup(), prop::collection::vec(event(), 1..60), any::<u64>());
    proptest!(config, |((setup, events, seed) in sequences)| Sequence::run(setup, events, seed)?);
}
