//! Motion events of a room, by the vendor's formula: each event's count is
//! `round(last_count × min(1, 600 / max(t − last_t, 1)) + 1)`, and there is at most one in 10 s.
//!
//! The formula looks back without end, a pure function cannot. So days begin at 06:00 UTC, after rounds of the night
//! guard that are so far apart that whatever the count was, it has decayed: the first event of a day counts 1 by the
//! formula itself, and a day can be worked out alone. A test holds consecutive events against the formula.

use super::{
    building::{Room, Use},
    chance::{hash, unit},
    people::{SLOT, Week},
};

/// An event as the sensor reports it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Event {
    pub(super) time: f64,
    pub(super) count: f64,
}

const DAY: f64 = 86_400.0;
/// When a day begins, in seconds after midnight.
const MORNING: f64 = 6.0 * 3600.0;
/// Guards are at most this late.
const LATE: f64 = 300.0;
/// Seconds after 06:00 at which the guard looks into a room: at 01:00 and 03:30.
const ROUNDS: [f64; 2] = [19.0 * 3600.0, 21.5 * 3600.0];
/// The lobby: every 50 minutes from 00:20, so that its motion is never an hour old.
const LOBBY_ROUNDS: [f64; 7] = [
    66_000.0, 69_000.0, 72_000.0, 75_000.0, 78_000.0, 81_000.0, 84_000.0,
];
/// Few enough to decay at night.
const EVENTS_PER_SLOT: u64 = 6;
/// Events fall into this part of a slot, in seconds: its end is left free, so that no two events, of one slot or of
/// neighbours, are closer than 83 s. The vendor's limit is 10 s.
const EVENTFUL: f64 = 500.0;

/// The last event up to `now`.
pub(super) fn last_event(week: &Week, room: &Room, now: f64) -> Event {
    let day = ((now - MORNING) / DAY).floor();
    // Early in a day the last one may be yesterday's, whose night rounds are always there.
    within(week, room, day, now)
        .or_else(|| within(week, room, day - 1.0, now))
        .unwrap_or(Event {
            time: now,
            count: 1.0,
        })
}

fn within(week: &Week, room: &Room, day: f64, now: f64) -> Option<Event> {
    let start = day * DAY + MORNING;
    let (slots, rounds): (u32, &[f64]) = match room.purpose {
        Use::Lobby => (18 * 6, &LOBBY_ROUNDS),
        _ => (14 * 6, &ROUNDS),
    };
    let mut last = None;
    for n in 0..slots {
        let begin = start + f64::from(n) * SLOT;
        if begin > now {
            return last;
        }
        let slot = (begin / SLOT) as i64;
        let people = u64::from(week.people(room, slot));
        if people == 0 {
            continue;
        }
        let most = EVENTS_PER_SLOT.min(people + 1);
        let events = 1 + hash(room.key, &[20, slot as u64]) % most;
        let shift = unit(room.key, &[21, slot as u64]);
        for event in 0..events {
            let time = begin + ((event as f64 + shift) * EVENTFUL / events as f64).floor();
            if time > now {
                return last;
            }
            last = Some(next(last, time));
        }
    }
    for (n, after) in rounds.iter().enumerate() {
        let late = LATE * unit(room.key, &[22, day as u64, n as u64]);
        let time = start + after + late.floor();
        if time > now {
            return last;
        }
        last = Some(next(last, time));
    }
    last
}

fn next(last: Option<Event>, time: f64) -> Event {
    let carried = last.map_or(0.0, |last| {
        last.count * (600.0 / (time - last.time).max(1.0)).min(1.0)
    });
    Event {
        time,
        count: (carried + 1.0).round(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(purpose: Use, key: u64) -> Room {
        Room {
            key,
            purpose,
            seats: 20,
            renewal: 0.001,
            ppm_per_person: 50.0,
        }
    }

    #[test]
    fn consecutive_events_obey_the_vendors_formula_across_days_and_weekends() {
        let week = Week::new();
        for (purpose, key) in [
            (Use::Lobby, 1),
            (Use::OpenPlan, 2),
            (Use::Meeting, 3),
            (Use::Canteen, 4),
        ] {
            let room = room(purpose, key);
            let start = 1_760_000_000.0;
            let mut last = last_event(&week, &room, start);
            let (mut seen, mut most) = (0, 0.0_f64);
            // Less than the least time between events, so that none is missed.
            for step in 1..9 * 1728 {
                let now = start + f64::from(step) * 50.0;
                let event = last_event(&week, &room, now);
                assert!(event.time <= now);
                if event == last {
                    continue;
                }
                let gap = event.time - last.time;
                assert!(gap >= 83.0, "{gap}");
                let by_formula = (last.count * (600.0 / gap).min(1.0) + 1.0).round();
                assert_eq!(event.count, by_formula, "{purpose:?} after {gap} s");
                most = most.max(event.count);
                last = event;
                seen += 1;
            }
            assert!(seen > 100 && most > 10.0, "{seen} events, most {most}");
        }
    }

    #[test]
    fn the_lobby_is_never_quiet_for_an_hour() {
        let week = Week::new();
        let lobby = room(Use::Lobby, 9);
        for step in 0..7 * 288 {
            let now = 1_760_000_000.0 + f64::from(step) * 300.0;
            let age = now - last_event(&week, &lobby, now).time;
            assert!((0.0..3600.0).contains(&age), "{age}");
        }
    }
}
