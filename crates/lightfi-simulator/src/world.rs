//! The readings of every sensor at a time: a pure function of seed and time, so that a test can compute what a value should
//! be and a dashboard can be drawn of any day.
//!
//! The physics is what a person would look for: people come and go by a working week, CO₂ follows them by mass balance,
//! warmth and moisture follow more slowly, light follows sun and presence, batteries drain, energy only grows, motion
//! follows the vendor's formula. No reading is in the future. Where sensors are is in `building`.

use std::borrow::Cow;

use super::{
    building::{Building, Condition, Device, Equipment, Model, Room},
    climate::Climate,
    motion,
    noise::uniform,
    people::{Week, slot},
    reading::Reading,
};

/// The simulated building and what happens in it.
#[derive(Debug)]
pub(super) struct World {
    building: Building,
    equipment: Equipment,
    climate: Climate,
}

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

impl World {
    pub(super) fn new(seed: u64, sensors: usize) -> Self {
        let (building, equipment) = Building::new(seed, sensors);
        Self {
            building,
            equipment,
            climate: Climate::new(seed),
        }
    }

    pub(super) fn building(&self) -> &Building {
        &self.building
    }

    /// Returns the readings that the cloud has of a sensor at `now`.
    pub(super) fn readings(&self, sensor: usize, now: f64) -> Vec<Reading> {
        let device = &self.equipment.devices[sensor];
        let room = &self.equipment.rooms[device.room];
        let mut report = Report {
            device,
            at: last_report(device, now),
            readings: Vec::with_capacity(9),
        };
        match device.model {
            Model::Gateway { meter } => self.gateway(&mut report, meter),
            Model::Sahara => self.sahara(&mut report, room),
            Model::Alpine => self.alpine(&mut report, room),
            Model::Hoth => self.hoth(&mut report, room),
            Model::X1 => self.x1(&mut report, room, now),
            Model::Radar { old_firmware } => {
                let name = match old_firmware {
                    true => "irSignatures",
                    false => "occSignatures",
                };
                let people = self.climate.week.people(room, slot(report.at));
                report.push(name, f64::from(people));
            }
            Model::Door => self.door(&mut report),
        }
        report.push_status(now);
        report.apply_condition();
        report.readings
    }

    fn gateway(&self, report: &mut Report, meter: bool) {
        let week = &self.climate.week;
        let rooms = &self.equipment.rooms[report.device.zone.clone()];
        let people = rooms.iter().map(|room| week.people(room, slot(report.at)));
        let people = f64::from(people.sum::<u32>());
        // Nearly everybody has a phone on Wi-Fi; headphones and watches use BLE, and some devices never leave.
        let wifi = 1.2 * people + 3.0 + 2.0 * report.noise(5);
        let ble = 0.8 * people + 6.0 + 3.0 * report.noise(6);
        report.push("clientsWiFi", wifi.floor());
        report.push("clientsBLE", ble.floor());
        report.push("BACnetReads", (9.0 + 3.0 * report.noise(7)).floor());
        if meter {
            report.push("energyInkWh", energy(week, report.device, report.at));
        }
    }

    fn sahara(&self, report: &mut Report, room: &Room) {
        let (at, climate) = (report.at, &self.climate);
        let air = climate.air(room, at);
        let dust = climate.dust(air, at) + report.noise(5);
        let voc = climate.voc(room, air, at) + 10.0 * report.noise(6);
        let pm10 = 1.6 * dust + report.noise(7);
        let co2 = climate.co2(air, at) + report.co2_noise();
        let nox = 1.0 + 2.0 * air.load + report.noise(8);
        report.push("CO2ppm", round(co2, 10.0));
        report.push(
            "temperatureC",
            round(climate.temperature(room, air, at), 100.0),
        );
        report.push(
            "relativeHumidity",
            round(climate.humidity(room, air, at), 100.0),
        );
        report.push("particulateMatter", round(dust, 10.0));
        report.push("VOCppb", voc.round());
        report.push("PM1", round(0.6 * dust, 10.0));
        report.push("PM10", round(pm10, 10.0));
        report.push("NOX", nox.floor());
        report.push("pressuremBar", round(climate.pressure(at), 10.0));
    }

    fn alpine(&self, report: &mut Report, room: &Room) {
        let (at, climate) = (report.at, &self.climate);
        let air = climate.air(room, at);
        let co2 = climate.co2(air, at) + report.co2_noise();
        report.push("CO2ppm", co2.round());
        report.push(
            "temperatureC",
            round(climate.temperature(room, air, at), 10.0),
        );
        report.push(
            "relativeHumidity",
            round(climate.humidity(room, air, at), 10.0),
        );
        report.push_battery();
    }

    fn hoth(&self, report: &mut Report, room: &Room) {
        let (at, climate) = (report.at, &self.climate);
        let air = climate.air(room, at);
        report.push(
            "temperatureC",
            round(climate.temperature(room, air, at), 10.0),
        );
        report.push(
            "relativeHumidity",
            round(climate.humidity(room, air, at), 2.0),
        );
        report.push("illuminanceArb", climate.light(room, at).round());
        report.push_battery();
    }

    fn x1(&self, report: &mut Report, room: &Room, now: f64) {
        // An event is sent when it happens, not with the next report.
        let until = match report.device.condition {
            Condition::Healthy => now,
            _ => report.at,
        };
        let event = motion::last_event(&self.climate.week, room, until);
        report.push_at("motionEvent", event.time, event.count);
        report.push_battery();
    }

    fn door(&self, report: &mut Report) {
        let presence = self.climate.week.presence(slot(report.at));
        let is_open = report.noise(5) < 0.3 * presence;
        let millivolts = 2600.0 + 4.0 * battery(report.device, report.at);
        report.push("contactOpen", f64::from(u8::from(is_open)));
        report.push("batterymV", millivolts.round());
        report.push_battery();
    }
}

/// The readings of one sensor as they are collected.
struct Report<'a> {
    device: &'a Device,
    /// The time of the sensor's last report.
    at: f64,
    readings: Vec<Reading>,
}

impl Report<'_> {
    fn push(&mut self, var_name: &'static str, value: f64) {
        self.push_at(var_name, self.at, value);
    }

    fn push_at(&mut self, var_name: &'static str, time: f64, value: f64) {
        self.readings.push(Reading {
            var_name: Cow::Borrowed(var_name),
            time: Some(time),
            value: Some(value),
        });
    }

    /// A battery is measured only every six hours.
    fn push_battery(&mut self) {
        let at = last_multiple(self.at, 6.0 * HOUR, self.device.phase);
        self.push_at("batteryLevelPct", at, battery(self.device, at).round());
    }

    /// The cloud sets the status, some time after the last report of a sensor that stops reporting.
    fn push_status(&mut self, now: f64) {
        let device = self.device;
        let (value, time) = match device.condition {
            Condition::Healthy | Condition::NoHumidity | Condition::LosesTimes => (1.0, self.at),
            Condition::Silent => (1.0, last_multiple(now, device.period, device.phase)),
            Condition::Offline => (0.0, self.at + 15.0 * MINUTE),
            Condition::Rebooting => (-1.0, self.at + MINUTE),
            Condition::Retired => (-2.0, self.at + 15.0 * MINUTE),
        };
        self.push_at("onlineStatus", time, value);
    }

    fn apply_condition(&mut self) {
        let loses_time = self.number().is_multiple_of(6);
        for reading in &mut self.readings {
            match (self.device.condition, &*reading.var_name) {
                (Condition::NoHumidity, "relativeHumidity") => reading.value = None,
                (Condition::LosesTimes, "temperatureC") if loses_time => reading.time = None,
                _ => {}
            }
        }
    }

    fn number(&self) -> u64 {
        (self.at / self.device.period) as u64
    }

    /// Returns a number in `[0, 1)` that changes with each report.
    fn noise(&self, topic: u64) -> f64 {
        uniform(self.device.seed, &[topic, self.number()])
    }

    fn co2_noise(&self) -> f64 {
        6.0 * (self.noise(4) - 0.5)
    }
}

/// Returns when a sensor last reported. The age of a sensor that does not report stays within bounds, so that at any
/// moment every kind of silence exists.
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

/// Returns the last time up to `now` that is `phase` after a multiple of `period`.
fn last_multiple(now: f64, period: f64, phase: f64) -> f64 {
    (((now - phase) / period).floor() * period + phase).min(now)
}

/// Returns a level that falls from 100 % to 8 % in three to five years, until the battery is replaced.
fn battery(device: &Device, at: f64) -> f64 {
    let life = (3.0 + 2.0 * uniform(device.seed, &[8])) * 365.0 * DAY;
    let age = (at + uniform(device.seed, &[9]) * life).rem_euclid(life);
    100.0 - 92.0 * age / life
}

/// Returns kWh since 2020-01-01: a base load at all times, and the use by people at work.
fn energy(week: &Week, device: &Device, at: f64) -> f64 {
    const INSTALLED: f64 = 1_577_836_800.0;
    let kilowatts = 3.0 + 2.0 * uniform(device.seed, &[10]);
    let hours = (at - INSTALLED).max(0.0) / HOUR;
    let worked = (week.worked(at) - week.worked(INSTALLED)).max(0.0) / HOUR;
    ((kilowatts * hours + 14.0 * worked) * 100.0).floor() / 100.0
}

/// Rounds to one part in `parts`. The division comes last, so that the decimal text is short.
fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests;
