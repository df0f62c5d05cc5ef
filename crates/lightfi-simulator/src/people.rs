//! How many people are in a room at a time, by a working week. All times are UTC.
//!
//! Pure. `climate`, `motion` and `world` turn people into air, light, motion and radio devices.

use super::{
    building::{Room, RoomKind},
    noise::uniform,
};

/// The number of people changes every ten minutes: the length of a slot in seconds.
pub(super) const SLOT: f64 = 600.0;
const SLOTS_PER_DAY: i64 = 144;
pub(super) const SLOTS_PER_WEEK: usize = 7 * 144;
/// The first Monday in slots since 1970-01-01, a Thursday.
const FIRST_MONDAY: i64 = 4 * SLOTS_PER_DAY;

/// The share of the staff in the building by hour of a working day; linear in between.
const PRESENCE: [(f64, f64); 12] = [
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

/// The share of the canteen's seats that are taken, by hour.
const MEALS: [(f64, f64); 10] = [
    (0.0, 0.0),
    (7.5, 0.0),
    (8.5, 0.2),
    (9.5, 0.06),
    (11.5, 0.08),
    (12.5, 0.9),
    (13.75, 0.1),
    (17.0, 0.04),
    (19.0, 0.0),
    (24.0, 0.0),
];

/// The share of a full working day, Monday to Sunday.
const WEEKDAYS: [f64; 7] = [0.9, 1.0, 1.0, 0.95, 0.7, 0.04, 0.02];

/// Returns the slot of a time.
pub(super) fn slot(time: f64) -> i64 {
    (time / SLOT).floor() as i64
}

/// The week as tables by slot.
#[derive(Debug)]
pub(super) struct Week {
    presence: Vec<f64>,
    meals: Vec<f64>,
    /// The sum of `presence` over the slots before this one; one entry more than slots.
    cumulative: Vec<f64>,
}

impl Week {
    pub(super) fn new() -> Self {
        let presence = by_slot(&PRESENCE);
        let mut cumulative = vec![0.0];
        let mut sum = 0.0;
        for share in &presence {
            sum += share;
            cumulative.push(sum);
        }
        Self {
            presence,
            meals: by_slot(&MEALS),
            cumulative,
        }
    }

    /// Returns the share of the staff that is in the building.
    pub(super) fn presence(&self, slot: i64) -> f64 {
        self.presence[slot_of_week(slot)]
    }

    /// Returns the seconds of full presence between the first Monday of 1970 and `time`.
    pub(super) fn worked(&self, time: f64) -> f64 {
        let slots = time / SLOT;
        let whole = slots.floor() as i64;
        let weeks = (whole - FIRST_MONDAY).div_euclid(SLOTS_PER_WEEK as i64);
        let within = slot_of_week(whole);
        let part = (slots - slots.floor()) * self.presence[within];
        SLOT * (weeks as f64 * self.cumulative[SLOTS_PER_WEEK] + self.cumulative[within] + part)
    }

    /// Returns how many people are in a room.
    pub(super) fn people(&self, room: &Room, slot: i64) -> u32 {
        let present = self.presence(slot);
        let seats = f64::from(room.seats);
        let random = |topic: u64, slots: i64| {
            let block = (slot + (room.seed % 6) as i64).div_euclid(slots);
            uniform(room.seed, &[topic, block as u64])
        };
        let count = match room.kind {
            // The desk is always staffed.
            RoomKind::Lobby => 1.0 + (present * seats * random(1, 1)).round(),
            // Meetings and coffee: slow and fast changes.
            RoomKind::OpenPlan => {
                (present * seats * (0.7 + 0.2 * random(1, 6) + 0.1 * random(2, 1))).round()
            }
            // Booked by the hour, by a group of any size.
            RoomKind::Meeting if random(1, 6) < 0.7 * present => {
                2.0 + (random(2, 6) * (seats - 1.0)).floor()
            }
            RoomKind::Focus if random(1, 3) < 0.65 * present => {
                1.0 + (random(2, 3) * seats).floor()
            }
            RoomKind::Meeting | RoomKind::Focus => 0.0,
            RoomKind::Canteen => {
                (self.meals[slot_of_week(slot)] * seats * (0.7 + 0.3 * random(1, 1))).round()
            }
        };
        count.min(seats) as u32
    }
}

fn slot_of_week(slot: i64) -> usize {
    (slot - FIRST_MONDAY).rem_euclid(SLOTS_PER_WEEK as i64) as usize
}

fn by_slot(curve: &[(f64, f64)]) -> Vec<f64> {
    let share = |slot: usize| {
        let hour = (slot as i64 % SLOTS_PER_DAY) as f64 / 6.0;
        WEEKDAYS[slot / SLOTS_PER_DAY as usize] * interpolate(curve, hour)
    };
    (0..SLOTS_PER_WEEK).map(share).collect()
}

/// Returns the value of a curve that starts at hour 0 and ends at hour 24.
fn interpolate(curve: &[(f64, f64)], hour: f64) -> f64 {
    let after = curve.partition_point(|(at, _)| *at <= hour);
    let ((h0, v0), (h1, v1)) = (curve[after - 1], curve[after]);
    v0 + (v1 - v0) * (hour - h0) / (h1 - h0)
}
