//! Who stands where: locations and sensors, and the rooms and devices behind them, laid out once from (seed, number of
//! sensors). Nothing here depends on time: `world` gives the readings. All names are invented.

use std::{collections::HashMap, ops::Range};

use super::chance::{hash, unit};

/// A sensor's kind; the id's prefix tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Model {
    /// `LF`: gateway; the flag says whether an energy meter hangs on it.
    Gateway { meter: bool },
    /// `LF5`
    Sahara,
    /// `AQ2`
    Alpine,
    /// `MS1`
    Hoth,
    /// `AMP`
    X1,
    /// `HAL`: a people counter that the vendor's pages do not list; old firmware uses the old variable.
    Radar { old_firmware: bool },
    /// `DW1`: a door contact, all of whose variables are unknown ones.
    Door,
}

impl Model {
    fn prefix(self) -> &'static str {
        match self {
            Self::Gateway { .. } => "LF",
            Self::Sahara => "LF5",
            Self::Alpine => "AQ2",
            Self::Hoth => "MS1",
            Self::X1 => "AMP",
            Self::Radar { .. } => "HAL",
            Self::Door => "DW1",
        }
    }

    /// Seconds between reports: what hangs on the mains reports more often.
    fn period(self) -> f64 {
        match self {
            Self::Gateway { .. } => 60.0,
            Self::Sahara | Self::Radar { .. } => 120.0,
            Self::Alpine | Self::X1 | Self::Door => 180.0,
            Self::Hoth => 300.0,
        }
    }

    /// What tells a second device in a room from the first.
    fn suffix(self) -> &'static str {
        match self {
            Self::Gateway { .. } => " gateway",
            Self::X1 => " motion",
            Self::Radar { .. } => " counter",
            Self::Door => " door",
            Self::Hoth => " window",
            Self::Sahara | Self::Alpine => "",
        }
    }
}

/// What a room is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Lobby,
    OpenPlan,
    Meeting,
    Focus,
    Canteen,
}

impl Use {
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

/// What is wrong with a sensor, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Healthy,
    /// Its humidity element is broken: the value is null.
    NoHumidity,
    /// Now and then a reading comes without a time.
    LosesTimes,
    /// Online, but no reading has come for hours.
    Silent,
    Offline,
    Rebooting,
    Retired,
}

/// Which of each forty sensors is how. The first eight cover every variable and are left in health.
const CONDITIONS: [(usize, Condition); 6] = [
    (8, Condition::NoHumidity),
    (12, Condition::LosesTimes),
    (16, Condition::Silent),
    (25, Condition::Rebooting),
    (27, Condition::Offline),
    (38, Condition::Retired),
];

/// Sensors of one zone, each with the room of the zone it stands in.
const ZONE: usize = 10;
type Plan = ([Use; 4], [(Model, usize); ZONE]);
#[rustfmt::skip]
const ENTRANCE: Plan = ([Use::Lobby, Use::Meeting, Use::Canteen, Use::OpenPlan], [
    (Model::Gateway { meter: true }, 0), (Model::Sahara, 0), (Model::Alpine, 1), (Model::Hoth, 0), (Model::X1, 0),
    (Model::Radar { old_firmware: false }, 1), (Model::Radar { old_firmware: true }, 2), (Model::Door, 0),
    (Model::Alpine, 2), (Model::Hoth, 2),
]);
#[rustfmt::skip]
const OFFICES: Plan = ([Use::OpenPlan, Use::Meeting, Use::Focus, Use::Meeting], [
    (Model::Gateway { meter: false }, 0), (Model::Sahara, 0), (Model::Alpine, 1), (Model::Hoth, 0), (Model::X1, 1),
    (Model::Radar { old_firmware: false }, 1), (Model::Alpine, 2), (Model::X1, 2), (Model::Hoth, 2), (Model::Alpine, 3),
]);
/// Every fifth zone has an entrance.
const ENTRANCE_EVERY: usize = 5;
const FLOORS_PER_BUILDING: usize = 8;
const BUILDINGS_PER_SITE: usize = 5;
/// A floor grows to a hundred sensors, as the vendor says of real ones, before there are many buildings.
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
    /// Its own chance.
    pub(super) key: u64,
    pub(super) purpose: Use,
    pub(super) seats: u32,
    /// Share of the air renewed per second.
    pub(super) renewal: f64,
    /// CO₂ above outdoors, in ppm, that one person would in the end cause.
    pub(super) ppm_per_person: f64,
}

/// What stands behind a simulated sensor.
#[derive(Debug, Clone)]
pub(super) struct Device {
    pub(super) model: Model,
    pub(super) condition: Condition,
    /// Its own chance.
    pub(super) key: u64,
    /// Seconds between reports, and where in that time its report falls.
    pub(super) period: f64,
    pub(super) phase: f64,
    /// Index of its room, and those of its zone.
    pub(super) room: usize,
    pub(super) zone: Range<usize>,
}

/// Rooms and devices; the devices are in the order of [`Building::sensors`].
#[derive(Debug, Default)]
pub(super) struct Equipment {
    pub(super) rooms: Vec<Room>,
    pub(super) devices: Vec<Device>,
}

/// What the API tells of a sensor besides its readings.
#[derive(Debug)]
pub(super) struct Sensor {
    pub(super) id: String,
    /// Absent for recorded sensors.
    pub(super) name: Option<String>,
    /// Index of its location.
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

/// Every place and every sensor that the account may see.
#[derive(Debug)]
pub(super) struct Building {
    pub(super) sensors: Vec<Sensor>,
    /// The first is the root.
    pub(super) locations: Vec<Location>,
    sensor_by_id: HashMap<String, usize>,
    location_by_id: HashMap<String, usize>,
}

impl Building {
    /// Lays out `sensors` sensors: a gatehouse of one floor first, then buildings of eight floors.
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
            // Building names go on counting through the sites, so that no two are alike.
            let house = building.child(site, "building", &numbered(&BUILDINGS, number));
            let floor_name = match floor {
                0 => "Ground floor".to_owned(),
                _ => format!("Floor {floor}"),
            };
            let location = building.child(house, "floor", &floor_name);
            let (uses, plan) = match zone % ENTRANCE_EVERY {
                0 => &ENTRANCE,
                _ => &OFFICES,
            };
            let plan = &plan[..ZONE.min(sensors - zone * ZONE)];
            for (n, name) in names(uses, plan, floor, part).into_iter().enumerate() {
                let id = id(seed, plan[n].0, zone * ZONE + n);
                building.add(id, Some(name), location);
            }
            equipment.furnish(seed, uses, plan);
        }
        (building, equipment)
    }

    /// Recorded sensors: each in the location of the name recorded with it, else in the organisation itself.
    pub(super) fn recorded<'a>(
        sensors: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Self {
        let mut building = Self::empty();
        let mut by_name = HashMap::new();
        for (id, location) in sensors {
            let location = location.map_or(0, |name| {
                *by_name
                    .entry(name)
                    .or_insert_with(|| building.push_location(Some(0), "location", name.to_owned()))
            });
            building.add(id.to_owned(), None, location);
        }
        building
    }

    /// Index of a sensor.
    pub(super) fn sensor(&self, id: &str) -> Option<usize> {
        self.sensor_by_id.get(id).copied()
    }

    /// A location by its id.
    pub(super) fn location(&self, id: &str) -> Option<&Location> {
        self.location_by_id
            .get(id)
            .map(|index| &self.locations[*index])
    }

    /// The root: what the account may see.
    pub(super) fn root(&self) -> &Location {
        &self.locations[0]
    }

    /// Building and floor of a sensor, as a path; `None` for one that stands in no building.
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
        building.push_location(None, "organisation", ORGANISATION.to_owned());
        building
    }

    fn push_location(&mut self, parent: Option<usize>, kind: &'static str, name: String) -> usize {
        let index = self.locations.len();
        let id = (1000 + index).to_string();
        self.location_by_id.insert(id.clone(), index);
        self.locations.push(Location {
            id,
            name,
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

    /// The child of that name, made where it is missing. Zones come in order, so only the last child can be it.
    fn child(&mut self, parent: usize, kind: &'static str, name: &str) -> usize {
        let last = self.locations[parent].children.last().copied();
        last.filter(|index| self.locations[*index].name == name)
            .unwrap_or_else(|| self.push_location(Some(parent), kind, name.to_owned()))
    }

    fn add(&mut self, id: String, name: Option<String>, location: usize) {
        let index = self.sensors.len();
        self.sensor_by_id.insert(id.clone(), index);
        self.locations[location].sensors.push(index);
        self.sensors.push(Sensor { id, name, location });
    }
}

impl Equipment {
    fn furnish(&mut self, seed: u64, uses: &[Use], plan: &[(Model, usize)]) {
        let first = self.rooms.len();
        for purpose in uses {
            let key = hash(seed, &[1, self.rooms.len() as u64]);
            self.rooms.push(room(key, *purpose));
        }
        for (model, room) in plan {
            let index = self.devices.len();
            let key = hash(seed, &[2, index as u64]);
            // Whole quarters of a second are exact in an f64. Battery sensors report on whole seconds.
            let steps_per_second = match model {
                Model::Gateway { .. } | Model::Sahara => 4.0,
                _ => 1.0,
            };
            let period = model.period();
            self.devices.push(Device {
                model: *model,
                condition: CONDITIONS
                    .iter()
                    .find(|(at, _)| *at == index % 40)
                    .map_or(Condition::Healthy, |(_, condition)| *condition),
                key,
                period,
                phase: (unit(key, &[3]) * period * steps_per_second).floor() / steps_per_second,
                room: first + room,
                zone: first..first + uses.len(),
            });
        }
    }
}

/// `<prefix>-<12 hex digits>`; the index is in the low digits (times an odd number, so that no two ids are alike).
fn id(seed: u64, model: Model, index: usize) -> String {
    let maker = hash(seed, &[3, index as u64]) >> 40;
    let number = hash(seed, &[4]).wrapping_add(index as u64 * 0x61C7) & 0xFF_FFFF;
    format!("{}-{maker:06X}{number:06X}", model.prefix())
}

/// Such as `3.12 Meeting room motion`: floor, number of the room on it, what the room is, which device.
fn names(uses: &[Use], plan: &[(Model, usize)], floor: usize, part: usize) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (model, room) in plan {
        let number = part * uses.len() + room + 1;
        let (purpose, _) = uses[*room].name_and_seats();
        names.push(match model {
            Model::Gateway { .. } => format!("{floor}.{number:02} gateway"),
            _ => format!("{floor}.{number:02} {purpose}{}", model.suffix()),
        });
    }
    names
}

fn numbered(names: &[&str], index: usize) -> String {
    let name = names[index % names.len()];
    match index / names.len() {
        0 => name.to_owned(),
        round => format!("{name} {}", round + 1),
    }
}

fn room(key: u64, purpose: Use) -> Room {
    let (_, seats) = purpose.name_and_seats();
    // Ten litres of fresh air per second and seat dilute a person's CO₂ to 520 ppm above outdoors; few rooms get all
    // of that, and some get a third.
    let stuffiness = 0.8 + 1.6 * unit(key, &[1]).powi(2);
    Room {
        key,
        purpose,
        seats,
        renewal: (1.5 + 2.5 * unit(key, &[2])) / 3600.0,
        ppm_per_person: 520.0 * stuffiness / f64::from(seats),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_a_prefix_and_twelve_hex_digits_and_differ() {
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
    fn every_sensor_hangs_once_in_the_tree_under_a_name_of_its_own() {
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
    fn forty_sensors_stand_on_several_floors_of_two_buildings() {
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
