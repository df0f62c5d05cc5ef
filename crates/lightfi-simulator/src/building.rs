//! The building: locations and sensors as the API describes them, and the rooms and devices behind them, derived from
//! seed and number of sensors. Nothing here depends on time: `world` makes the readings. All names are invented.

use std::{collections::HashMap, ops::Range};

use super::noise::{hash, uniform};

/// The model of a sensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Model {
    /// A gateway, perhaps with an energy meter.
    Gateway {
        meter: bool,
    },
    Sahara,
    Alpine,
    Hoth,
    X1,
    /// A people counter that the vendor's pages do not list; old firmware uses the old variable.
    Radar {
        old_firmware: bool,
    },
    /// A door contact, whose variables are all unknown to the exporter.
    Door,
}

impl Model {
    /// Returns the prefix of the id, the seconds between reports, and the end of the sensor's name.
    fn facts(self) -> (&'static str, f64, &'static str) {
        match self {
            Self::Gateway { .. } => ("LF", 60.0, " gateway"),
            Self::Sahara => ("LF5", 120.0, ""),
            Self::Alpine => ("AQ2", 180.0, ""),
            Self::Hoth => ("MS1", 300.0, " window"),
            Self::X1 => ("AMP", 180.0, " motion"),
            Self::Radar { .. } => ("HAL", 120.0, " counter"),
            Self::Door => ("DW1", 180.0, " door"),
        }
    }
}

/// The purpose of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RoomKind {
    Lobby,
    OpenPlan,
    Meeting,
    Focus,
    Canteen,
}

impl RoomKind {
    fn name_and_seats(self) -> (&'static str, u32) {
        match self {
            Self::Lobby => ("Lobby", 6),
            Self::OpenPlan => ("Open plan", 24),
            Self::Meeting => ("Meeting room", 10),
            Self::Focus => ("Focus room", 2),
            Self::Canteen => ("Canteen", 40),
        }
    }
}

/// The condition of a sensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Healthy,
    /// The humidity is null.
    NoHumidity,
    /// Some readings have no time.
    LosesTimes,
    /// Online, but without a reading for hours.
    Silent,
    Offline,
    Rebooting,
    Retired,
}

/// The conditions within each forty sensors. The first eight cover every variable and stay healthy.
fn condition(index: usize) -> Condition {
    match index % 40 {
        8 => Condition::NoHumidity,
        12 => Condition::LosesTimes,
        16 => Condition::Silent,
        25 => Condition::Rebooting,
        27 => Condition::Offline,
        38 => Condition::Retired,
        _ => Condition::Healthy,
    }
}

/// The number of sensors in a zone.
const ZONE: usize = 10;

/// The rooms of a zone, and its sensors with the room of each.
type Plan = ([RoomKind; 4], [(Model, usize); ZONE]);

#[rustfmt::skip]
const ENTRANCE: Plan = ([RoomKind::Lobby, RoomKind::Meeting, RoomKind::Canteen, RoomKind::OpenPlan], [
    (Model::Gateway { meter: true }, 0), (Model::Sahara, 0), (Model::Alpine, 1), (Model::Hoth, 0), (Model::X1, 0),
    (Model::Radar { old_firmware: false }, 1), (Model::Radar { old_firmware: true }, 2), (Model::Door, 0),
    (Model::Alpine, 2), (Model::Hoth, 2),
]);
#[rustfmt::skip]
const OFFICES: Plan = ([RoomKind::OpenPlan, RoomKind::Meeting, RoomKind::Focus, RoomKind::Meeting], [
    (Model::Gateway { meter: false }, 0), (Model::Sahara, 0), (Model::Alpine, 1), (Model::Hoth, 0), (Model::X1, 1),
    (Model::Radar { old_firmware: false }, 1), (Model::Alpine, 2), (Model::X1, 2), (Model::Hoth, 2), (Model::Alpine, 3),
]);

/// Every fifth zone has an entrance.
const ENTRANCE_EVERY: usize = 5;
const FLOORS_PER_BUILDING: usize = 8;
const BUILDINGS_PER_SITE: usize = 5;
/// A floor grows to a hundred sensors, the vendor's figure for real floors, before there are many buildings.
const ZONES_PER_FLOOR: usize = 10;

const ORGANISATION: &str = "Northlight Estates";
const SITES: [&str; 4] = [
    "Quayside Campus",
    "Hillcrest Park",
    "Riverside Yard",
    "Station Square",
];
const BUILDINGS: [&str; 5] = ["Gatehouse", "Harbour House", "Granary", "Foundry", "Mill"];

/// A room: what its sensors share.
#[derive(Debug, Clone)]
pub(super) struct Room {
    /// The seed of its noise.
    pub(super) seed: u64,
    pub(super) kind: RoomKind,
    pub(super) seats: u32,
    /// The share of the air that is replaced per second.
    pub(super) renewal: f64,
    /// The CO₂ above outdoors, in ppm, that one person causes in the long run.
    pub(super) ppm_per_person: f64,
}

/// The device behind a simulated sensor.
#[derive(Debug, Clone)]
pub(super) struct Device {
    pub(super) model: Model,
    pub(super) condition: Condition,
    /// The seed of its noise.
    pub(super) seed: u64,
    /// Seconds between reports, and the offset of the reports in that period.
    pub(super) period: f64,
    pub(super) phase: f64,
    /// The index of its room, and those of its zone.
    pub(super) room: usize,
    pub(super) zone: Range<usize>,
}

/// Rooms and devices; the devices are in the order of [`Building::sensors`].
#[derive(Debug, Default)]
pub(super) struct Equipment {
    pub(super) rooms: Vec<Room>,
    pub(super) devices: Vec<Device>,
}

/// A sensor as the API describes it, without its readings.
#[derive(Debug)]
pub(super) struct Sensor {
    pub(super) id: String,
    /// Absent for recorded sensors.
    pub(super) name: Option<String>,
    /// The index of its location.
    location: usize,
}

/// A node of organisation > site > building > floor.
#[derive(Debug)]
pub(super) struct Location {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) parent: Option<usize>,
    pub(super) children: Vec<usize>,
    pub(super) sensors: Vec<usize>,
}

/// All locations and sensors of the account.
#[derive(Debug)]
pub(super) struct Building {
    pub(super) sensors: Vec<Sensor>,
    /// The first is the root.
    pub(super) locations: Vec<Location>,
    sensor_by_id: HashMap<String, usize>,
    location_by_id: HashMap<String, usize>,
}

impl Building {
    /// Lays out sensors: a gatehouse of one floor first, then buildings of eight floors.
    pub(super) fn new(seed: u64, sensors: usize) -> (Self, Equipment) {
        let mut building = Self::empty();
        let mut equipment = Equipment::default();
        let zones = sensors.div_ceil(ZONE);
        let zones_per_floor = (zones / FLOORS_PER_BUILDING).clamp(1, ZONES_PER_FLOOR);
        for zone in 0..zones {
            let (number, floor, part) = match zone.checked_sub(1) {
                None => (0, 0, 0),
                Some(zone) => {
                    let floor = zone / zones_per_floor;
                    let number = 1 + floor / FLOORS_PER_BUILDING;
                    (number, floor % FLOORS_PER_BUILDING, zone % zones_per_floor)
                }
            };
            let site = numbered(&SITES, number / BUILDINGS_PER_SITE);
            let site = building.child(0, "site", &site);
            // The numbers of building names continue over the sites, so that no two are alike.
            let house = building.child(site, "building", &numbered(&BUILDINGS, number));
            let floor_name = match floor {
                0 => "Ground floor".to_owned(),
                _ => format!("Floor {floor}"),
            };
            let location = building.child(house, "floor", &floor_name);
            let (rooms, devices) = match zone % ENTRANCE_EVERY {
                0 => &ENTRANCE,
                _ => &OFFICES,
            };
            let devices = &devices[..ZONE.min(sensors - zone * ZONE)];
            for (model, room) in devices {
                // Such as `3.12 Meeting room motion`: the floor, the room's number on it, its kind, the device.
                let room_number = part * rooms.len() + room + 1;
                let (kind, _) = rooms[*room].name_and_seats();
                let (_, _, suffix) = model.facts();
                let name = match model {
                    Model::Gateway { .. } => format!("{floor}.{room_number:02}{suffix}"),
                    _ => format!("{floor}.{room_number:02} {kind}{suffix}"),
                };
                let id = id(seed, *model, building.sensors.len());
                building.add(id, Some(name), location);
            }
            equipment.add_zone(seed, rooms, devices);
        }
        (building, equipment)
    }

    /// Lays out recorded sensors: each in the location that was recorded with it, else in the organisation.
    pub(super) fn recorded<'a>(
        sensors: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Self {
        let mut building = Self::empty();
        let mut by_name = HashMap::new();
        for (id, location) in sensors {
            let location = location.map_or(0, |name| {
                *by_name
                    .entry(name)
                    .or_insert_with(|| building.push_location(Some(0), "location", name))
            });
            building.add(id.to_owned(), None, location);
        }
        building
    }

    /// Returns the index of a sensor.
    pub(super) fn sensor(&self, id: &str) -> Option<usize> {
        self.sensor_by_id.get(id).copied()
    }

    /// Returns a location by its id.
    pub(super) fn location(&self, id: &str) -> Option<&Location> {
        let index = self.location_by_id.get(id)?;
        Some(&self.locations[*index])
    }

    /// Returns the base location of the account.
    pub(super) fn root(&self) -> &Location {
        &self.locations[0]
    }

    /// Returns building and floor of a sensor, as a path.
    pub(super) fn path(&self, sensor: &Sensor) -> Option<String> {
        let floor = &self.locations[sensor.location];
        let house = &self.locations[floor.parent?];
        Some(format!("{} / {}", house.name, floor.name))
    }

    fn empty() -> Self {
        let mut building = Self {
            sensors: Vec::new(),
            locations: Vec::new(),
            sensor_by_id: HashMap::new(),
            location_by_id: HashMap::new(),
        };
        building.push_location(None, "organisation", ORGANISATION);
        building
    }

    fn push_location(&mut self, parent: Option<usize>, kind: &'static str, name: &str) -> usize {
        let index = self.locations.len();
        let id = (1000 + index).to_string();
        self.location_by_id.insert(id.clone(), index);
        self.locations.push(Location {
            id,
            name: name.to_owned(),
            kind,
            parent,
            children: Vec::new(),
            sensors: Vec::new(),
        });
        if let Some(parent) = parent {
            self.locations[parent].children.push(index);
        }
        index
    }

    /// Returns the child of that name, and adds it if it is missing. Zones come in order, so only the last child can
    /// be it.
    fn child(&mut self, parent: usize, kind: &'static str, name: &str) -> usize {
        let last = self.locations[parent].children.last().copied();
        last.filter(|index| self.locations[*index].name == name)
            .unwrap_or_else(|| self.push_location(Some(parent), kind, name))
    }

    fn add(&mut self, id: String, name: Option<String>, location: usize) {
        let index = self.sensors.len();
        self.sensor_by_id.insert(id.clone(), index);
        self.locations[location].sensors.push(index);
        self.sensors.push(Sensor { id, name, location });
    }
}

impl Equipment {
    fn add_zone(&mut self, seed: u64, rooms: &[RoomKind], devices: &[(Model, usize)]) {
        let first = self.rooms.len();
        for kind in rooms {
            let seed = hash(seed, &[1, self.rooms.len() as u64]);
            self.rooms.push(room(seed, *kind));
        }
        for (model, room) in devices {
            let index = self.devices.len();
            let seed = hash(seed, &[2, index as u64]);
            // Quarters of a second are exact in an f64. Battery sensors report on whole seconds.
            let steps_per_second = match model {
                Model::Gateway { .. } | Model::Sahara => 4.0,
                _ => 1.0,
            };
            let (_, period, _) = model.facts();
            self.devices.push(Device {
                model: *model,
                condition: condition(index),
                seed,
                period,
                phase: (uniform(seed, &[3]) * period * steps_per_second).floor() / steps_per_second,
                room: first + room,
                zone: first..first + rooms.len(),
            });
        }
    }
}

/// Returns `<prefix>-<12 hex digits>`. The low digits hold the index times an odd number, so that no two ids are equal.
fn id(seed: u64, model: Model, index: usize) -> String {
    let (prefix, ..) = model.facts();
    let high = hash(seed, &[3, index as u64]) >> 40;
    let low = hash(seed, &[4]).wrapping_add(index as u64 * 0x61C7) & 0xFF_FFFF;
    format!("{prefix}-{high:06X}{low:06X}")
}

fn numbered(names: &[&str], index: usize) -> String {
    let name = names[index % names.len()];
    match index / names.len() {
        0 => name.to_owned(),
        round => format!("{name} {}", round + 1),
    }
}

fn room(seed: u64, kind: RoomKind) -> Room {
    let (_, seats) = kind.name_and_seats();
    // Ten litres of fresh air per second and seat dilute a person's CO₂ to 520 ppm above outdoors. Few rooms get that
    // much, and some get a third.
    let stuffiness = 0.8 + 1.6 * uniform(seed, &[1]).powi(2);
    Room {
        seed,
        kind,
        seats,
        renewal: (1.5 + 2.5 * uniform(seed, &[2])) / 3600.0,
        ppm_per_person: 520.0 * stuffiness / f64::from(seats),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_a_prefix_and_twelve_hex_digits_and_are_unique() {
        let (building, _) = Building::new(42, 10_000);
        let ids: HashSet<&str> = building.sensors.iter().map(|s| s.id.as_str()).collect();
        assert_eq!(ids.len(), 10_000);
        for id in ids {
            let (prefix, mac) = id.split_once('-').unwrap();
            assert!(
                ["LF", "LF5", "AQ2", "MS1", "AMP", "HAL", "DW1"].contains(&prefix),
                "{id}"
            );
            let hex = |c: char| c.is_ascii_digit() || ('A'..='F').contains(&c);
            assert!(mac.len() == 12 && mac.chars().all(hex), "{id}");
        }
    }

    #[test]
    fn every_sensor_is_once_in_the_tree_and_names_are_unique_in_a_location() {
        for sensors in [1, 10, 11, 40, 400, 10_000] {
            let (building, equipment) = Building::new(1, sensors);
            assert_eq!(
                (building.sensors.len(), equipment.devices.len()),
                (sensors, sensors)
            );
            let mut seen: Vec<usize> = Vec::new();
            let mut names = HashSet::new();
            let mut rest = vec![0];
            while let Some(index) = rest.pop() {
                let location = &building.locations[index];
                rest.extend(&location.children);
                seen.extend(&location.sensors);
                for sensor in &location.sensors {
                    assert!(names.insert((index, &building.sensors[*sensor].name)));
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..sensors).collect::<Vec<_>>());
        }
    }

    #[test]
    fn forty_sensors_are_on_several_floors_of_two_buildings() {
        let (building, _) = Building::new(1, 40);
        let paths: Vec<_> = building
            .sensors
            .iter()
            .filter_map(|s| building.path(s))
            .collect();
        assert_eq!(paths[0], "Gatehouse / Ground floor");
        assert_eq!(paths[10], "Harbour House / Ground floor");
        assert_eq!(paths[39], "Harbour House / Floor 2");
        assert_eq!(
            building.sensors[2].name.as_deref(),
            Some("0.02 Meeting room")
        );
    }
}
