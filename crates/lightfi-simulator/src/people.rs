//! Where people are: the working week, and how many are in a room in each ten minutes of it. All times are UTC.
//!
//! Pure. Used by `world`, which turns people into air, light, motion and radio devices.

use super::{
    building::{Room, Use},
    chance::unit,
};

/// People are counted anew every ten minutes, in seconds.
pub(super) const SLOT: f64 = 600.0;
const SLOTS_PER_DAY: i64 = 144;
const SLOTS_PER_WEEK: usize = 7 * 144;
/// 1970-01-01 was a Thursday: this many slots before the first Monday.
const FIRST_MONDAY: i64 = 4 * SLOTS_PER_DAY;

/// Share of the staff in the building by hour of a working day; straight lines in between.
const DAY: [(f64, f64); 12] = [
    (0.0, 0.0),
    (7.0, 0.0),
    (8.0, 0.2),
    (9.0, 0.8),
    (9.5, 0.95),
    (12.0, 0.92),
    (12.75, 0.5),
    (13.5, 0.88),
    (16.5, 0.85),
    (18.0, 0.2),
    (20.0, 0.0),
    (24.0, 0.0),
];

/// Share of the seats of a canteen taken, by hour.
const MEALS: [(f64, f64); 9] = [
    (0.0, 0.0),
    (7.5, 0.0),
    (8.5, 0.2),
    (9.5, 0.06),
    (11.5, 0.08),
    (12.5, 0.9),
    (13.75, 0.1),
    (17.0, 0.04),
    (19.0, 0.0),
];

/// Monday to Sunday: Fridays are thin, weekends nearly empty.
const DAYS: [f64; 7] = [0.9, 1.0, 1.0, 0.95, 0.7, 0.04, 0.02];

/// The ten-minute slot a moment lies in.
pub(super) fn slot(time: f64) -> i64 {
    (time / SLOT).floor() as i64
}

/// The week as tables, so that a reading costs no search.
#[derive(Debug)]
pub(super) struct Week {
    presence: Vec<f64>,
    meals: Vec<f64>,
    /// Sum of `presence` over the slots before this one; one entry more than slots.
    cumulative: Vec<f64>,
}

impl Week {
    /// Works the tables out.
    pub(super) fn new() -> Self {
        let by_slot = |curve: &[(f64, f64)]| -> Vec<f64> {
            (0..SLOTS_PER_WEEK)
                .map(|slot| {
                    let hour = (slot as i64 % SLOTS_PER_DAY) as f64 / 6.0;
                    DAYS[slot / SLOTS_PER_DAY as usize] * along(curve, hour)
                })
                .collect()
        };
        let presence = by_slot(&DAY);
        let cumulative = std::iter::once(0.0)
            .chain(presence.iter().scan(0.0, |sum, share| {
                *sum += share;
                Some(*sum)
            }))
            .collect();
        Self {
            presence,
            meals: by_slot(&MEALS),
            cumulative,
        }
    }

    /// Share of the staff in the building.
    pub(super) fn presence(&self, slot: i64) -> f64 {
        self.presence[slot_of_week(slot)]
    }

    /// Seconds of full presence between the first Monday of 1970 and `time`; grows with `time`.
    pub(super) fn worked(&self, time: f64) -> f64 {
        let slots = time / SLOT;
        let whole = slots.floor() as i64;
        let weeks = (whole - FIRST_MONDAY).div_euclid(SLOTS_PER_WEEK as i64);
        let within = slot_of_week(whole);
        let part = (slots - slots.floor()) * self.presence[within];
        SLOT * (weeks as f64 * self.cumulative[SLOTS_PER_WEEK] + self.cumulative[within] + part)
    }

    /// How many people are in a room.
    pub(super) fn people(&self, room: &Room, slot: i64) -> u32 {
        let present = self.presence(slot);
        let seats = f64::from(room.seats);
        let chance = |topic: u64, slots: i64| {
            let block = (slot + (room.key % 6) as i64).div_euclid(slots);
            unit(room.key, &[topic, block as u64])
        };
        let count = match room.purpose {
            // The desk is staffed round the clock.
            Use::Lobby => 1.0 + (present * seats * chance(1, 1)).round(),
            // Who is in sits there, but for meetings and coffee: slow and quick coming and going.
            Use::OpenPlan => {
                (present * seats * (0.7 + 0.2 * chance(1, 6) + 0.1 * chance(2, 1))).round()
            }
            // Booked by the hour; whoever booked it brings the number of people that they bring.
            Use::Meeting if chance(1, 6) < 0.7 * present => {
                2.0 + (chance(2, 6) * (seats - 1.0)).floor()
            }
            Use::Focus if chance(1, 3) < 0.65 * present => 1.0 + (chance(2, 3) * seats).floor(),
            Use::Meeting | Use::Focus => 0.0,
            Use::Canteen => {
                (self.meals[slot_of_week(slot)] * seats * (0.7 + 0.3 * chance(1, 1))).round()
            }
        };
        count.min(seats) as u32
    }
}

fn slot_of_week(slot: i64) -> usize {
    (slot - FIRST_MONDAY).rem_euclid(SLOTS_PER_WEEK as i64) as usize
}

fn along(curve: &[(f64, f64)], hour: f64) -> f64 {
    let after = curve.partition_point(|(at, _)| *at <= hour);
    match (
        after.checked_sub(1).map(|n| curve[n]),
        curve.get(after).copied(),
    ) {
        (Some((h0, v0)), Some((h1, v1))) => v0 + (v1 - v0) * (hour - h0) / (h1 - h0),
        (Some((_, value)), None) | (None, Some((_, value))) => value,
        (None, None) => 0.0,
    }
}
