//! A cloud in virtual time: five sensors in a tree of locations. Requests are answered, fail or hang.

use std::{collections::BTreeMap, sync::Arc};

use lightfi_exporter::{
    api::{Item, LocationEntry, LocationReply, RequestError, SensorReply},
    collector::{Job, Reply},
    stats::Reason,
};

pub const SENSORS: [&str; 5] = ["AQ2-A", "AQ2-B", "LF5-C", "AMP-D", "E"];
pub const VARIABLES: [&str; 6] = [
    "temperatureC",
    "batteryLevelPct",
    "energyInkWh",
    "motionEvent",
    "onlineStatus",
    "PM10",
];

/// A location with its children: `1` is the account's base.
pub struct Location {
    pub id: &'static str,
    pub name: &'static str,
    pub children: &'static [&'static str],
}

#[rustfmt::skip]
pub const LOCATIONS: [Location; 5] = [
    Location { id: "1", name: "HQ", children: &["2", "3"] },
    Location { id: "2", name: "Floor 2", children: &[] },
    Location { id: "3", name: "Floor 3", children: &["10"] },
    Location { id: "10", name: "Lab", children: &[] },
    Location { id: "5", name: "Annexe", children: &[] },
];

pub fn location(id: &str) -> &'static Location {
    LOCATIONS
        .iter()
        .find(|location| location.id == id)
        .expect("only known locations are requested")
}

/// The way in which a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A temporary error.
    Error,
    /// A permanent error.
    Refused,
    /// No answer within the timeout.
    Timeout,
    /// No answer, and no timeout.
    Hang,
    /// The readings are not of the known shape.
    Garbled,
}

/// One element of a sensor's `data`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reported {
    Reading {
        time: f64,
        value: f64,
    },
    /// The same, and an older one after it.
    Twice {
        time: f64,
        value: f64,
    },
    Null,
    Malformed,
}

#[derive(Debug, Default)]
pub struct Device {
    pub name: String,
    /// The location that contains it.
    pub location: Option<&'static str>,
    /// Its own route does not know it.
    pub gone: bool,
    pub reported: BTreeMap<&'static str, Reported>,
}

#[derive(Debug, Default)]
pub struct World {
    pub devices: BTreeMap<&'static str, Device>,
    /// Locations whose reply holds their children's sensors too.
    pub inline: BTreeMap<&'static str, bool>,
    /// By the text of the job that they affect.
    pub faults: BTreeMap<String, Fault>,
}

impl World {
    pub fn device(&mut self, id: &str) -> &mut Device {
        self.devices
            .get_mut(id)
            .expect("all are there from the start")
    }

    pub fn fault(&self, job: &Job) -> Option<Fault> {
        self.faults.get(&job.to_string()).copied()
    }

    /// Returns the result of a request that ends now.
    pub fn answer(&self, job: &Job, fault: Option<Fault>) -> Result<Reply, RequestError> {
        let failure = |reason, retryable| {
            Err(RequestError {
                reason,
                message: "on purpose".to_owned(),
                retryable,
                no_token: false,
            })
        };
        match (job, fault) {
            (_, Some(Fault::Error)) => failure(Reason::ServerError, true),
            (_, Some(Fault::Refused)) => failure(Reason::Forbidden, false),
            (_, Some(Fault::Timeout | Fault::Hang)) => failure(Reason::Timeout, true),
            (Job::Sensor(_), Some(Fault::Garbled)) => failure(Reason::Malformed, false),
            (Job::Location(id), Some(Fault::Garbled)) if **id == *"base" => {
                failure(Reason::Malformed, false)
            }
            (Job::Sensor(id), None) => match &self.devices[&**id] {
                device if device.gone => failure(Reason::NotFound, false),
                device => Ok(Reply::Sensor(SensorReply {
                    name: Some(device.name.clone()),
                    items: items(device),
                })),
            },
            (Job::Location(id), None) if **id == *"base" => {
                Ok(Reply::Location(self.location_reply("1", false, true)))
            }
            (Job::Location(id), fault) => Ok(Reply::Location(self.location_reply(
                id,
                true,
                fault.is_none(),
            ))),
        }
    }

    fn location_reply(&self, id: &str, sensors: bool, good: bool) -> LocationReply {
        let here = location(id);
        let child = |id: &&str| LocationEntry {
            id: (*id).to_owned(),
            name: Some(location(id).name.to_owned()),
            parent: None,
            items: None,
        };
        let mut locations = vec![(here, None)];
        if self.inline.get(id) == Some(&true) {
            let below = here.children.iter();
            locations.extend(below.map(|id| (location(id), Some((*id).to_owned()))));
        }
        let mut found = Vec::new();
        for (location, parent) in locations.into_iter().filter(|_| sensors) {
            let inside = self
                .devices
                .iter()
                .filter(|(_, device)| device.location == Some(location.id));
            found.extend(inside.map(|(id, device)| LocationEntry {
                id: (*id).to_owned(),
                name: Some(device.name.clone()),
                parent: parent.as_deref().map(Arc::from),
                items: good.then(|| items(device)),
            }));
        }
        LocationReply {
            id: Some(id.to_owned()),
            name: Some(here.name.to_owned()),
            sensors: found,
            children: here.children.iter().map(child).collect(),
        }
    }
}

fn items(device: &Device) -> Vec<Item> {
    let item = |(var_name, reported): (&&'static str, &Reported)| {
        let reading = |time, value| Item::Reading {
            var_name: (*var_name).to_owned(),
            time,
            value,
        };
        match *reported {
            Reported::Reading { time, value } => vec![reading(time, value)],
            Reported::Twice { time, value } => {
                vec![reading(time, value), reading(time - 30.0, value + 0.25)]
            }
            Reported::Null => vec![Item::Null],
            Reported::Malformed => vec![Item::Malformed],
        }
    };
    device.reported.iter().flat_map(item).collect()
}
