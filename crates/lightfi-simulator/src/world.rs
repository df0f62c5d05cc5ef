//! What every sensor reports at any moment: a pure function of (seed, time), so that a test can ask what a value should
//! be and a dashboard can be drawn of any day.
//!
//! Physics is kept to what a person would look for: people come and go by a working week, CO₂ follows them by mass
//! balance, warmth and moisture follow CO₂'s causes more slowly, light follows sun and presence, batteries sink, energy
//! only grows, motion follows the vendor's formula. No reading is of the future. Who stands where is `building`'s.

use std::borrow::Cow;

use super::{
    building::{Building, Condition, Device, Equipment, Model, Room},
    chance::unit,
    climate::Climate,
    item::Item,
    motion,
    people::{Week, slot},
};

/// The simulated building as it stands at any time.
#[derive(Debug)]
pub struct World {
    pub(super) building: Building,
    equipment: Equipment,
    climate: Climate,
}

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

impl World {
    /// Builds it with that many sensors.
    pub fn new(seed: u64, sensors: usize) -> Self {
        let (building, equipment) = Building::new(seed, sensors);
        Self {
            building,
            equipment,
            climate: Climate::new(seed),
        }
    }

    /// How many sensors there are.
    pub fn len(&self) -> usize {
        self.equipment.devices.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the cloud holds of a sensor (by index, below [`World::len`]) at `now`, in Unix seconds.
    pub fn readings(&self, sensor: usize, now: f64) -> Vec<Item> {
        let device = &self.equipment.devices[sensor];
        let room = &self.equipment.rooms[device.room];
        let at = last_report(device, now);
        let mut items = Items {
            items: Vec::with_capacity(9),
            at,
        };
        match device.model {
            Model::Gateway { meter } => self.gateway(&mut items, device, meter),
            Model::Sahara => self.sahara(&mut items, device, room),
            Model::Alpine => {
                let air = self.climate.air(room, at);
                items.push(
                    "CO2ppm",
                    (self.climate.co2(air, at) + co2_noise(device, at)).round(),
                );
                items.push(
                    "temperatureC",
                    round(self.climate.temperature(room, air, at), 10.0),
                );
                items.push(
                    "relativeHumidity",
                    round(self.climate.humidity(room, air, at), 10.0),
                );
                items.battery(device);
            }
            Model::Hoth => {
                let air = self.climate.air(room, at);
                items.push(
                    "temperatureC",
                    round(self.climate.temperature(room, air, at), 10.0),
                );
                items.push(
                    "relativeHumidity",
                    round(self.climate.humidity(room, air, at), 2.0),
                );
                items.push("illuminanceArb", self.climate.light(room, at).round());
                items.battery(device);
            }
            Model::X1 => {
                // An event is sent when it happens, not with the next report.
                let until = match device.condition {
                    Condition::Healthy => now,
                    _ => at,
                };
                let event = motion::last_event(&self.climate.week, room, until);
                items.push_at("motionEvent", event.time, event.count);
                items.battery(device);
            }
            Model::Radar { old_firmware } => {
                let name = match old_firmware {
                    true => "irSignatures",
                    false => "occSignatures",
                };
                let people = self.climate.week.people(room, slot(at));
                items.push(name, f64::from(people));
            }
            Model::Door => {
                let busy = self.climate.week.presence(slot(at));
                let open = unit(device.key, &[5, (at / device.period) as u64]) < 0.3 * busy;
                items.push("contactOpen", f64::from(u8::from(open)));
                items.push("batterymV", (2600.0 + 4.0 * battery(device, at)).round());
                items.battery(device);
            }
        }
        items.status(device, now);
        items.spoil(device);
        items.items
    }

    fn gateway(&self, items: &mut Items, device: &Device, meter: bool) {
        let at = items.at;
        let slot = slot(at);
        let people: u32 = device
            .zone
            .clone()
            .map(|room| self.climate.week.people(&self.equipment.rooms[room], slot))
            .sum();
        let jitter = |topic: u64| unit(device.key, &[topic, (at / device.period) as u64]);
        let people = f64::from(people);
        // Nearly everybody carries a phone on Wi-Fi; headphones and watches show on BLE, and some things never leave.
        items.push(
            "clientsWiFi",
            (1.2 * people + 3.0 + 2.0 * jitter(5)).floor(),
        );
        items.push("clientsBLE", (0.8 * people + 6.0 + 3.0 * jitter(6)).floor());
        items.push("BACnetReads", (9.0 + 3.0 * jitter(7)).floor());
        if meter {
            items.push("energyInkWh", energy(&self.climate.week, device, at));
        }
    }

    fn sahara(&self, items: &mut Items, device: &Device, room: &Room) {
        let at = items.at;
        let air = self.climate.air(room, at);
        let noise = |topic: u64| unit(device.key, &[topic, (at / device.period) as u64]);
        let dust = self.climate.dust(air, at) + noise(5);
        let voc = self.climate.voc(room, air, at) + 10.0 * noise(6);
        items.push(
            "CO2ppm",
            round(self.climate.co2(air, at) + co2_noise(device, at), 10.0),
        );
        items.push(
            "temperatureC",
            round(self.climate.temperature(room, air, at), 100.0),
        );
        items.push(
            "relativeHumidity",
            round(self.climate.humidity(room, air, at), 100.0),
        );
        items.push("particulateMatter", round(dust, 10.0));
        items.push("VOCppb", voc.round());
        items.push("PM1", round(0.6 * dust, 10.0));
        items.push("PM10", round(1.6 * dust + noise(7), 10.0));
        items.push("NOX", (1.0 + 2.0 * air.load + noise(8)).floor());
        items.push("pressuremBar", round(self.climate.pressure(at), 10.0));
    }
}

/// The readings of one sensor as they are gathered; `at` is when it last reported.
struct Items {
    items: Vec<Item>,
    at: f64,
}

impl Items {
    fn push(&mut self, var_name: &'static str, value: f64) {
        self.push_at(var_name, self.at, value);
    }

    fn push_at(&mut self, var_name: &'static str, time: f64, value: f64) {
        self.items.push(Item {
            var_name: Cow::Borrowed(var_name),
            time: Some(time),
            value: Some(value),
        });
    }

    /// Measured every six hours only: a battery tells nothing in between.
    fn battery(&mut self, device: &Device) {
        let at = last_multiple(self.at, 6.0 * HOUR, device.phase);
        self.push_at("batteryLevelPct", at, battery(device, at).round());
    }

    /// The cloud's verdict, which comes some time after the last report of a sensor that falls silent.
    fn status(&mut self, device: &Device, now: f64) {
        let (value, time) = match device.condition {
            Condition::Healthy | Condition::NoHumidity | Condition::LosesTimes => (1.0, self.at),
            Condition::Silent => (1.0, last_multiple(now, device.period, device.phase)),
            Condition::Offline => (0.0, self.at + 15.0 * MINUTE),
            Condition::Rebooting => (-1.0, self.at + MINUTE),
            Condition::Retired => (-2.0, self.at + 15.0 * MINUTE),
        };
        self.push_at("onlineStatus", time, value);
    }

    fn spoil(&mut self, device: &Device) {
        let report = (self.at / device.period) as u64;
        let item = |items: &mut Self, name: &str, spoil: fn(&mut Item)| {
            items
                .items
                .iter_mut()
                .filter(|item| item.var_name == name)
                .for_each(spoil);
        };
        match device.condition {
            Condition::NoHumidity => item(self, "relativeHumidity", |item| item.value = None),
            Condition::LosesTimes if report.is_multiple_of(6) => {
                item(self, "temperatureC", |item| item.time = None);
            }
            _ => {}
        }
    }
}

/// When a sensor last reported. What is out of order has not for a while, but not for ever: the age runs between
/// bounds, so that at any moment each kind of silence is there.
fn last_report(device: &Device, now: f64) -> f64 {
    let (least_age, period) = match device.condition {
        Condition::Healthy | Condition::NoHumidity | Condition::LosesTimes => (0.0, device.period),
        Condition::Rebooting => (5.0 * MINUTE, 20.0 * MINUTE),
        Condition::Silent => (2.0 * HOUR, DAY),
        Condition::Offline => (26.0 * HOUR, 7.0 * DAY),
        Condition::Retired => (30.0 * DAY, 365.0 * DAY),
    };
    last_multiple(now - least_age, period, device.phase)
}

/// The last moment up to `now` that is `phase` after a multiple of `period`.
fn last_multiple(now: f64, period: f64, phase: f64) -> f64 {
    (((now - phase) / period).floor() * period + phase).min(now)
}

/// In ppm; another one with each report.
fn co2_noise(device: &Device, at: f64) -> f64 {
    6.0 * (unit(device.key, &[4, (at / device.period) as u64]) - 0.5)
}

/// Sinks from 100 % to 8 % in three to five years; then somebody replaces it.
fn battery(device: &Device, at: f64) -> f64 {
    let life = (3.0 + 2.0 * unit(device.key, &[8])) * 365.0 * DAY;
    let age = (at + unit(device.key, &[9]) * life).rem_euclid(life);
    100.0 - 92.0 * age / life
}

/// The meter was set to zero on 2020-01-01: a base load night and day, and what people at work cause.
fn energy(week: &Week, device: &Device, at: f64) -> f64 {
    const INSTALLED: f64 = 1_577_836_800.0;
    let kilowatts = 3.0 + 2.0 * unit(device.key, &[10]);
    let hours = (at - INSTALLED).max(0.0) / HOUR;
    let worked = (week.worked(at) - week.worked(INSTALLED)).max(0.0) / HOUR;
    ((kilowatts * hours + 14.0 * worked) * 100.0).floor() / 100.0
}

/// To one part in `parts`; division last, so that the text is short.
fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Everything the vendor lists, the old name of one, and what no page lists.
    const VARIABLES: [&str; 21] = [
        "BACnetReads",
        "CO2ppm",
        "NOX",
        "PM1",
        "PM10",
        "VOCppb",
        "batteryLevelPct",
        "batterymV",
        "clientsBLE",
        "clientsWiFi",
        "contactOpen",
        "energyInkWh",
        "illuminanceArb",
        "irSignatures",
        "motionEvent",
        "occSignatures",
        "onlineStatus",
        "particulateMatter",
        "pressuremBar",
        "relativeHumidity",
        "temperatureC",
    ];

    /// Moments from 2024 to 2034, at any hour of any day.
    fn moments(count: u64) -> impl Iterator<Item = f64> {
        (0..count).map(|n| 1_704_067_200.0 + 315_360_000.0 * unit(99, &[n]))
    }

    fn value(items: &[Item], name: &str) -> Option<f64> {
        let mut found = items.iter().filter(|item| item.var_name == name);
        found.next()?.value
    }

    /// A working day, 2026-01-14, a Wednesday.
    const WEDNESDAY: f64 = 1_768_348_800.0;

    #[test]
    fn the_same_seed_and_time_give_the_same_readings() {
        let (a, b, other) = (World::new(7, 40), World::new(7, 40), World::new(8, 40));
        let mut differ = 0;
        for now in moments(20) {
            for sensor in 0..40 {
                assert_eq!(a.readings(sensor, now), b.readings(sensor, now));
                differ += usize::from(a.readings(sensor, now) != other.readings(sensor, now));
            }
        }
        assert!(differ > 700, "{differ}");
        assert_ne!(a.building.sensors[0].id, other.building.sensors[0].id);
    }

    #[test]
    fn every_variable_is_fresh_somewhere_at_any_time_with_ten_sensors_or_forty() {
        for sensors in [8, 10, 40] {
            let world = World::new(3, sensors);
            for now in moments(60) {
                let mut fresh = BTreeSet::new();
                for item in (0..sensors).flat_map(|sensor| world.readings(sensor, now)) {
                    let limit = match &*item.var_name {
                        "batteryLevelPct" => 14.0 * DAY,
                        _ => HOUR,
                    };
                    if item.value.is_some() && item.time.is_some_and(|time| now - time < limit) {
                        fresh.insert(item.var_name);
                    }
                }
                assert!(
                    fresh.iter().eq(VARIABLES.iter()),
                    "{sensors} sensors at {now}: {fresh:?}"
                );
            }
        }
    }

    #[test]
    fn no_reading_is_of_the_future_and_few_have_no_time() {
        let world = World::new(5, 80);
        let (mut timed, mut untimed) = (0, 0);
        for now in moments(200) {
            for item in (0..80).flat_map(|sensor| world.readings(sensor, now)) {
                match item.time {
                    Some(time) => {
                        assert!(time <= now && time > now - 400.0 * DAY, "{item:?} at {now}");
                        timed += 1;
                    }
                    None => untimed += 1,
                }
            }
        }
        assert!(untimed > 0 && untimed * 100 < timed, "{untimed} of {timed}");
    }

    #[test]
    fn at_any_time_some_of_forty_sensors_are_out_of_order_and_most_are_well() {
        let world = World::new(1, 40);
        for now in moments(200) {
            let mut states = BTreeMap::new();
            let (mut silent, mut long_silent, mut nulls, mut well) = (0, 0, 0, 0);
            for sensor in 0..40 {
                let items = world.readings(sensor, now);
                let state = value(&items, "onlineStatus").unwrap();
                *states.entry(state as i64).or_insert(0) += 1;
                let null = items.iter().any(|item| item.value.is_none());
                nulls += usize::from(null);
                // A room without motion is well, and so is a battery asked four times a day.
                let measured = items.iter().filter(|item| {
                    !matches!(
                        &*item.var_name,
                        "onlineStatus" | "motionEvent" | "batteryLevelPct"
                    )
                });
                let newest = measured
                    .filter_map(|item| item.time)
                    .fold(f64::NAN, f64::max);
                let age = now - newest;
                silent += usize::from(age > HOUR && state == 1.0);
                long_silent += usize::from(age > DAY);
                let late = age > 600.0;
                well += usize::from(state == 1.0 && !null && !late);
            }
            assert_eq!(
                states.keys().copied().collect::<Vec<_>>(),
                [-2, -1, 0, 1],
                "at {now}"
            );
            assert!(silent >= 1 && long_silent >= 1 && nulls >= 1, "at {now}");
            assert!(well >= 32, "{well} at {now}");
        }
    }

    #[test]
    fn values_stay_within_what_the_sensors_can_measure() {
        let world = World::new(11, 200);
        let bounds: BTreeMap<&str, (f64, f64)> = BTreeMap::from([
            ("CO2ppm", (400.0, 5000.0)),
            ("temperatureC", (14.0, 32.0)),
            ("relativeHumidity", (10.0, 90.0)),
            ("batteryLevelPct", (8.0, 100.0)),
            ("illuminanceArb", (0.0, 1500.0)),
            ("particulateMatter", (0.0, 100.0)),
            ("pressuremBar", (960.0, 1060.0)),
            ("clientsWiFi", (0.0, 200.0)),
            ("occSignatures", (0.0, 40.0)),
            ("irSignatures", (0.0, 40.0)),
            ("VOCppb", (0.0, 2000.0)),
        ]);
        for now in moments(200) {
            for item in (0..200).flat_map(|sensor| world.readings(sensor, now)) {
                let (Some((least, most)), Some(value)) = (bounds.get(&*item.var_name), item.value)
                else {
                    continue;
                };
                assert!((*least..=*most).contains(&value), "{item:?} at {now}");
            }
        }
    }

    #[test]
    fn co2_rises_with_a_working_morning_and_has_gone_by_night() {
        let world = World::new(1, 40);
        let mean = |now: f64| {
            let values: Vec<f64> = (0..40)
                .filter_map(|sensor| value(&world.readings(sensor, now), "CO2ppm"))
                .collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        let (night, morning) = (mean(WEDNESDAY + 4.0 * HOUR), mean(WEDNESDAY + 11.5 * HOUR));
        assert!((405.0..520.0).contains(&night), "{night}");
        assert!(morning > night + 150.0, "{night} to {morning}");
        let sunday = mean(WEDNESDAY - 3.0 * DAY + 11.5 * HOUR);
        assert!(sunday < night + 60.0, "{sunday}");
    }

    #[test]
    fn co2_makes_no_jumps() {
        let world = World::new(1, 40);
        // The Alpine of the meeting room: at most ten people come into it at once.
        let co2 = |now: f64| value(&world.readings(2, now), "CO2ppm").unwrap();
        for step in 0..480 {
            let now = WEDNESDAY + f64::from(step) * 180.0;
            assert!(
                (co2(now + 180.0) - co2(now)).abs() < 250.0,
                "at step {step}"
            );
        }
    }

    #[test]
    fn energy_only_grows_and_faster_by_day() {
        let world = World::new(1, 40);
        let energy = |now: f64| value(&world.readings(0, now), "energyInkWh").unwrap();
        let start = WEDNESDAY - 10.0 * DAY;
        let mut last = energy(start);
        for step in 0..40_000 {
            let next = energy(start + f64::from(step) * 61.0);
            assert!(next >= last, "{last} then {next}");
            last = next;
        }
        let used =
            |from: f64, to: f64| energy(WEDNESDAY + to * HOUR) - energy(WEDNESDAY + from * HOUR);
        assert!(used(10.0, 12.0) > 2.0 * used(2.0, 4.0) && used(2.0, 4.0) > 0.0);
    }

    #[test]
    fn batteries_sink_slowly_until_they_are_replaced() {
        let world = World::new(1, 10);
        let level =
            |day: f64| value(&world.readings(2, WEDNESDAY + day * DAY), "batteryLevelPct").unwrap();
        let mut replaced = 0;
        for day in 0..3650 {
            let change = level(f64::from(day) + 1.0) - level(f64::from(day));
            match change {
                change if change > 80.0 => replaced += 1,
                change => assert!((-1.0..=0.0).contains(&change), "{change} on day {day}"),
            }
        }
        assert!((1..=4).contains(&replaced), "{replaced}");
    }

    #[test]
    fn a_reading_stands_until_the_next_report() {
        let world = World::new(1, 40);
        for sensor in 0..40 {
            let first = world.readings(sensor, WEDNESDAY);
            let mut changes = 0;
            let mut last = first;
            for second in 1..600 {
                let next = world.readings(sensor, WEDNESDAY + f64::from(second));
                changes += usize::from(next != last);
                last = next;
            }
            assert!(
                changes <= 11,
                "sensor {sensor}: {changes} changes in ten minutes"
            );
        }
    }
}
