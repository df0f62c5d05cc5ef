//! Air and light in rooms, by weather, hour and people. Pure; used by `world`.

use std::f64::consts::TAU;

use super::{
    building::Room,
    noise::{smooth, uniform},
    people::{SLOT, Week, slot},
};

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

/// How fast people warm a room, per second: a time constant of an hour and a half.
const WARMING: f64 = 0.67 / HOUR;

/// The weather, which is the same for all buildings, and the week of the people in them.
#[derive(Debug)]
pub(super) struct Climate {
    seed: u64,
    pub(super) week: Week,
}

/// The effect of people on the air of a room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Air {
    /// CO₂ above outdoors, in ppm.
    ppm: f64,
    /// How full the room has been, from 0 to 1.
    pub(super) load: f64,
}

impl Climate {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            week: Week::new(),
        }
    }

    /// Returns the air of a room. In each slot both figures approach their equilibrium exponentially. People more than
    /// eight hours ago no longer matter (e⁻¹² at the slowest renewal).
    pub(super) fn air(&self, room: &Room, at: f64) -> Air {
        const SLOTS: i64 = 48;
        let renewal = (-room.renewal * SLOT).exp();
        let warming = (-WARMING * SLOT).exp();
        let step = |air: Air, slot: i64, renewal: f64, warming: f64| {
            let people = f64::from(self.week.people(room, slot));
            let equilibrium = room.ppm_per_person * people;
            let full = people / f64::from(room.seats);
            Air {
                ppm: equilibrium + (air.ppm - equilibrium) * renewal,
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

    /// Returns CO₂ in ppm.
    pub(super) fn co2(&self, air: Air, at: f64) -> f64 {
        424.0 + 8.0 * smooth(self.seed, 10, at / (6.0 * HOUR)) + air.ppm
    }

    /// Returns °C in a room.
    pub(super) fn temperature(&self, room: &Room, air: Air, at: f64) -> f64 {
        let side = 1.2 * (uniform(room.seed, &[5]) - 0.5);
        20.9 + side
            + 0.6 * daily(at, 15.0)
            + 0.05 * (self.outdoors(at) - 11.0)
            + 1.8 * air.load
            + 0.15 * smooth(room.seed, 13, at / HOUR)
    }

    /// Returns relative humidity in a room, in %: the moisture of outdoor air and of people in warm air.
    pub(super) fn humidity(&self, room: &Room, air: Air, at: f64) -> f64 {
        let outdoors = self.outdoors(at);
        let moisture = (0.76 + 0.08 * smooth(self.seed, 14, at / (8.0 * HOUR)))
            * saturation(outdoors)
            + 1.8 * air.load
            + 1.0;
        (100.0 * moisture / saturation(self.temperature(room, air, at))).clamp(15.0, 85.0)
    }

    /// Returns °C outdoors, by season, hour and weather.
    fn outdoors(&self, at: f64) -> f64 {
        11.0 - 7.0 * (TAU * (at / DAY - 20.0) / 365.25).cos()
            + 3.5 * daily(at, 15.0)
            + 3.0 * smooth(self.seed, 15, at / (2.0 * DAY))
    }

    /// Returns the pressure in mbar, which is the same everywhere.
    pub(super) fn pressure(&self, at: f64) -> f64 {
        1013.0
            + 14.0 * smooth(self.seed, 16, at / (1.5 * DAY))
            + smooth(self.seed, 17, at / (4.0 * HOUR))
    }

    /// Returns the light of the sun, by hour, season and clouds, and of lamps while or shortly after people are there.
    pub(super) fn light(&self, room: &Room, at: f64) -> f64 {
        let season = -(TAU * (at / DAY - 355.0) / 365.25).cos();
        let sun = (daily(at, 12.5) + 0.25 * season + 0.05).max(0.0) / 1.3;
        let clear = 0.6 + 0.4 * smooth(self.seed, 18, at / HOUR);
        let window = 250.0 + 500.0 * uniform(room.seed, &[6]);
        let slot = slot(at);
        let used = self.week.people(room, slot) + self.week.people(room, slot - 1) > 0;
        sun * clear * window + if used { 180.0 } else { 2.0 }
    }

    /// Returns PM2.5, which comes from outdoors for hours, and a little from people.
    pub(super) fn dust(&self, air: Air, at: f64) -> f64 {
        7.0 + 5.0 * smooth(self.seed, 11, at / (3.0 * HOUR)) + 4.0 * air.load
    }

    /// Returns volatile organic compounds in ppb, which come with people.
    pub(super) fn voc(&self, room: &Room, air: Air, at: f64) -> f64 {
        110.0 + 420.0 * air.load + 40.0 * smooth(room.seed, 12, at / HOUR)
    }
}

/// Returns 1 at `peak` o'clock and −1 twelve hours later.
fn daily(at: f64, peak: f64) -> f64 {
    (TAU * (at / DAY - peak / 24.0)).cos()
}

/// Returns the pressure of saturated water vapour in hPa (Magnus).
fn saturation(celsius: f64) -> f64 {
    6.112 * (17.62 * celsius / (243.12 + celsius)).exp()
}
