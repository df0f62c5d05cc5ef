//! The motion events of a room: at most one in ten minutes while people are there. The count follows the vendor's formula,
//! `round(last_count × min(1, 600 / max(t − last_t, 1)) + 1)`, from one hour before the event: a pure function cannot look
//! back without limit.

use super::{
    building::Room,
    noise::uniform,
    people::{SLOT, SLOTS_PER_WEEK, Week, slot},
};

/// An event as the sensor reports it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Event {
    pub(super) time: f64,
    pub(super) count: f64,
}

/// The slots before an event that its count depends on.
const COUNTED_SLOTS: i64 = 6;

/// Returns the last event up to `now`. Every room is used within a week.
pub(super) fn last_event(week: &Week, room: &Room, now: f64) -> Event {
    let current = slot(now);
    let has_event = |slot: &i64| week.people(room, *slot) > 0 && event_time(room, *slot) <= now;
    let last = (current - SLOTS_PER_WEEK as i64..=current)
        .rev()
        .find(has_event)
        .unwrap_or(current);
    let first = Event {
        time: event_time(room, last - COUNTED_SLOTS),
        count: 0.0,
    };
    (last - COUNTED_SLOTS..=last)
        .filter(has_event)
        .fold(first, |event, slot| next(event, event_time(room, slot)))
}

/// Returns the time of the event in a slot. The end of a slot is left free, so that events are at least 83 s apart.
fn event_time(room: &Room, slot: i64) -> f64 {
    let offset = uniform(room.seed, &[21, slot as u64]) * (SLOT - 83.0);
    slot as f64 * SLOT + offset.floor()
}

fn next(last: Event, time: f64) -> Event {
    let decay = (600.0 / (time - last.time).max(1.0)).min(1.0);
    Event {
        time,
        count: (last.count * decay + 1.0).round(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::building::RoomKind;

    #[test]
    fn events_are_apart_and_the_lobby_always_has_one_within_an_hour() {
        let week = Week::new();
        for kind in [RoomKind::Lobby, RoomKind::OpenPlan, RoomKind::Meeting] {
            let room = Room {
                seed: 3,
                kind,
                seats: 20,
                renewal: 0.001,
                ppm_per_person: 50.0,
            };
            let start = 1_760_000_000.0;
            let mut last = last_event(&week, &room, start);
            let mut events = 0;
            for step in 1..7 * 1728 {
                let now = start + f64::from(step) * 50.0;
                let event = last_event(&week, &room, now);
                assert!(
                    event.time <= now && (1.0..=7.0).contains(&event.count),
                    "{event:?}"
                );
                assert!(kind != RoomKind::Lobby || now - event.time < 3600.0);
                let gap = event.time - last.time;
                assert!(event == last || gap >= 83.0, "{gap}");
                events += usize::from(event != last);
                last = event;
            }
            assert!(events > 100, "{events} events");
        }
    }
}
