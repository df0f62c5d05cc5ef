//! What every sensor reports at any moment: a pure function of (seed, time), so that a test can ask what a value should
//! be and a dashboard can be drawn of any day.
//!
//! Physics is kept to what a person would look for: people come and go by a working week, CO₂ follows them by mass
//! balance, warmth and moisture follow CO₂'s causes more slowly, light follows sun and presence, batteries sink, energy
//! only grows, motion follows the vendor's formula. No reading is of the future. Who stands where is `building`'s.

use std::{borrow::Cow, f64::consts::TAU};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    building::{Building, Condition, Device, Equipment, Model, Room},
    chance::{unit, wander},
    motion,
    people::{SLOT, Week, slot},
};

/// One item of a sensor's `data`, as it goes over the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The variable.
    pub var_name: Cow<'static, str>,
    /// Unix seconds; the key is left out where there is none.
    pub time: Option<f64>,
    /// `null` where there is none.
    pub value: Option<f64>,
}

/// Variables whose whole numbers the cloud still writes with a point: `612.0`.
const FLOATS: [&str; 6] = [
    "CO2ppm",
    "energyInkWh",
    "illuminanceArb",
    "pressuremBar",
    "relativeHumidity",
    "temperatureC",
];

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("var_name", &self.var_name)?;
        if let Some(time) = self.time {
            map.serialize_entry(
                "time",
                &Number {
                    value: time,
                    point: false,
                },
            )?;
        }
        let point = FLOATS.contains(&&*self.var_name);
        map.serialize_entry("value", &self.value.map(|value| Number { value, point }))?;
        map.end()
    }
}

/// Whole numbers go as integers unless `point` asks for `.0`.
struct Number {
    value: f64,
    point: bool,
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Up to 2^53 an f64 holds every whole number, so nothing is lost by writing it as one. −0 keeps its point.
        let whole = self.value.fract() == 0.0 && self.value.abs() <= 9_007_199_254_740_992.0;
        if whole && !self.point && !(self.value == 0.0 && self.value.is_sign_negative()) {
            serializer.serialize_i64(self.value as i64)
        } else {
            serializer.serialize_f64(self.value)
        }
    }
}

/// The simulated building as it stands at any time.
#[derive(Debug)]
pub struct World {
    seed: u64,
    pub(super) building: Building,
    equipment: Equipment,
    week: Week,
}

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

impl World {
    /// Builds it with that many sensors.
    pub fn new(seed: u64, sensors: usize) -> Self {
        let (building, equipment) = Building::new(seed, sensors);
        Self {
            seed,
            building,
            equipment,
            week: Week::new(),
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
                let air = self.air(room, at);
                items.push("CO2ppm", self.co2(device, air, at).round());
                items.push("temperatureC", round(self.temperature(room, air, at), 10.0));
                items.push(
                    "relativeHumidity",
                    round(self.humidity(room, air, at), 10.0),
                );
                items.battery(device);
            }
            Model::Hoth => {
                let air = self.air(room, at);
                items.push("temperatureC", round(self.temperature(room, air, at), 10.0));
                items.push("relativeHumidity", round(self.humidity(room, air, at), 2.0));
                items.push("illuminanceArb", self.light(room, at).round());
                items.battery(device);
            }
            Model::X1 => {
                // An event is sent when it happens, not with the next report.
                let until = match device.condition {
                    Condition::Healthy => now,
                    _ => at,
                };
                let event = motion::last_event(&self.week, room, until);
                items.push_at("motionEvent", event.time, event.count);
                items.battery(device);
            }
            Model::Radar { old_firmware } => {
                let name = match old_firmware {
                    true => "irSignatures",
                    false => "occSignatures",
                };
                let people = self.week.people(room, slot(at));
                items.push(name, f64::from(people));
            }
            Model::Door => {
                let busy = self.week.presence(slot(at));
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
            .map(|room| self.week.people(&self.equipment.rooms[room], slot))
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
            items.push("energyInkWh", energy(&self.week, device, at));
        }
    }

    fn sahara(&self, items: &mut Items, device: &Device, room: &Room) {
        let at = items.at;
        let air = self.air(room, at);
        let noise = |topic: u64| unit(device.key, &[topic, (at / device.period) as u64]);
        // Dust comes from outdoors in spells of hours, and a little with people.
        let dust = 7.0 + 5.0 * wander(self.seed, 11, at / (3.0 * HOUR)) + 4.0 * air.load;
        let voc = 110.0 + 420.0 * air.load + 40.0 * wander(room.key, 12, at / HOUR);
        items.push("CO2ppm", round(self.co2(device, air, at), 10.0));
        items.push(
            "temperatureC",
            round(self.temperature(room, air, at), 100.0),
        );
        items.push(
            "relativeHumidity",
            round(self.humidity(room, air, at), 100.0),
        );
        items.push("particulateMatter", round(dust + noise(5), 10.0));
        items.push("VOCppb", (voc + 10.0 * noise(6)).round());
        items.push("PM1", round(0.6 * (dust + noise(5)), 10.0));
        items.push("PM10", round(1.6 * (dust + noise(5)) + noise(7), 10.0));
        items.push("NOX", (1.0 + 2.0 * air.load + noise(8)).floor());
        items.push("pressuremBar", round(self.pressure(at), 10.0));
    }

    /// CO₂ and warmth of a room's air: every ten minutes' people move both towards where they would settle, in closed
    /// form. Eight hours back the rest is forgotten (e⁻¹² at the slowest renewal).
    fn air(&self, room: &Room, at: f64) -> Air {
        const SLOTS: i64 = 48;
        let renewal = (-room.renewal * SLOT).exp();
        let warming = (-WARMING * SLOT).exp();
        let step = |air: Air, slot: i64, renewal: f64, warming: f64| {
            let people = f64::from(self.week.people(room, slot));
            let settled = room.ppm_per_person * people;
            let full = people / f64::from(room.seats);
            Air {
                ppm: settled + (air.ppm - settled) * renewal,
                load: full + (air.load - full) * warming,
            }
        };
        let now = slot(at);
        let empty = Air {
            ppm: 0.0,
            load: 0.0,
        };
        let air = (now - SLOTS..now).fold(empty, |air, slot| step(air, slot, renewal, warming));
        let rest = at - now as f64 * SLOT;
        let (renewal, warming) = ((-room.renewal * rest).exp(), (-WARMING * rest).exp());
        step(air, now, renewal, warming)
    }

    fn co2(&self, device: &Device, air: Air, at: f64) -> f64 {
        let outdoors = 424.0 + 8.0 * wander(self.seed, 10, at / (6.0 * HOUR));
        let noise = 6.0 * (unit(device.key, &[4, (at / device.period) as u64]) - 0.5);
        outdoors + air.ppm + noise
    }

    fn temperature(&self, room: &Room, air: Air, at: f64) -> f64 {
        let side = 1.2 * (unit(room.key, &[5]) - 0.5);
        20.9 + side
            + 0.6 * daily(at, 15.0)
            + 0.05 * (self.outdoors(at) - 11.0)
            + 1.8 * air.load
            + 0.15 * wander(room.key, 13, at / HOUR)
    }

    /// Outdoor moisture, and that of people, in indoor air.
    fn humidity(&self, room: &Room, air: Air, at: f64) -> f64 {
        let outdoors = self.outdoors(at);
        let moisture = (0.76 + 0.08 * wander(self.seed, 14, at / (8.0 * HOUR)))
            * saturation(outdoors)
            + 1.8 * air.load
            + 1.0;
        (100.0 * moisture / saturation(self.temperature(room, air, at))).clamp(15.0, 85.0)
    }

    fn outdoors(&self, at: f64) -> f64 {
        11.0 - 7.0 * (TAU * (at / DAY - 20.0) / 365.25).cos()
            + 3.5 * daily(at, 15.0)
            + 3.0 * wander(self.seed, 15, at / (2.0 * DAY))
    }

    fn pressure(&self, at: f64) -> f64 {
        1013.0
            + 14.0 * wander(self.seed, 16, at / (1.5 * DAY))
            + wander(self.seed, 17, at / (4.0 * HOUR))
    }

    /// Sun through the window, by hour, season and cloud; lamps where somebody is or has just been.
    fn light(&self, room: &Room, at: f64) -> f64 {
        let season = -(TAU * (at / DAY - 355.0) / 365.25).cos();
        let sun = (daily(at, 12.5) + 0.25 * season + 0.05).max(0.0) / 1.3;
        let clear = 0.6 + 0.4 * wander(self.seed, 18, at / HOUR);
        let window = 250.0 + 500.0 * unit(room.key, &[6]);
        let slot = slot(at);
        let used = self.week.people(room, slot) + self.week.people(room, slot - 1) > 0;
        sun * clear * window + if used { 180.0 } else { 2.0 }
    }
}

/// How fast a room warms with people, per second: a time constant of an hour and a half.
const WARMING: f64 = 0.67 / HOUR;

/// What people have done to a room's air.
#[derive(Debug, Clone, Copy)]
struct Air {
    /// CO₂ above outdoors.
    ppm: f64,
    /// 0: long empty, 1: long full.
    load: f64,
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

/// 1 at `peak` o'clock, −1 twelve hours later.
fn daily(at: f64, peak: f64) -> f64 {
    (TAU * (at / DAY - peak / 24.0)).cos()
}

/// Pressure of saturated water vapour in hPa (Magnus).
fn saturation(celsius: f64) -> f64 {
    6.112 * (17.62 * celsius / (243.12 + celsius)).exp()
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
