//! The configuration that makes an exporter use the simulated cloud, as YAML.
//!
//! Written as text: the exporter's own configuration types stay out of the simulator.

use std::fmt::Write as _;

use super::{
    building::{Building, Sensor},
    tokens::Tokens,
};

/// How the configuration names the sensors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Listing {
    /// The first building's sensors one by one, the rest by whole buildings and sites; one of the rest both ways.
    #[default]
    Mixed,
    /// Every sensor by its id.
    Sensors,
    /// The base location, with everything in it.
    Locations,
}

/// Writes it.
pub(super) fn yaml(
    listing: Listing,
    building: &Building,
    tokens: &Tokens,
    refresh_token: &str,
    base_url: &str,
) -> String {
    let base = base_url.trim_end_matches('/');
    let mut text = format!(
        "api:\n  url: {}\noauth:\n  token_url: {}\n  authorize_url: {}\n  client_id: {}\n  client_secret: {}\n  \
         refresh_token: {}\n",
        quoted(base),
        quoted(&format!("{base}/oauth2/token")),
        quoted(&format!("{base}/oauth2/authorize")),
        quoted(&tokens.client.id),
        quoted(&tokens.client.secret),
        quoted(refresh_token),
    );
    // Recorded sensors stand in no building to go by.
    let children = &building.root().children;
    let flat = children
        .iter()
        .all(|child| building.locations[*child].children.is_empty());
    match listing {
        Listing::Locations => text.push_str("locations:\n  - id: base\n    recursive: true\n"),
        Listing::Mixed if !flat => mixed(&mut text, building),
        Listing::Mixed | Listing::Sensors => {
            text.push_str("sensors:\n");
            for sensor in &building.sensors {
                let _ = writeln!(text, "  - {}", quoted(&sensor.id));
            }
        }
    }
    text
}

/// The first building one by one: most with the place that the sensor route does not tell, some bare. Then the other
/// buildings of its site, and the other sites, each as one location.
fn mixed(text: &mut String, building: &Building) {
    let first = |index: usize| building.locations[index].children.first().copied();
    let site = first(0);
    let house = site.and_then(first);
    let floors = house.map_or(&[][..], |house| &building.locations[house].children);
    let listed: Vec<usize> = floors
        .iter()
        .flat_map(|floor| &building.locations[*floor].sensors)
        .copied()
        .collect();
    text.push_str("sensors:\n");
    for (n, index) in listed.iter().enumerate() {
        let sensor = &building.sensors[*index];
        if n + 2 >= listed.len() {
            let _ = writeln!(text, "  - {}", quoted(&sensor.id));
            continue;
        }
        let _ = writeln!(text, "  - id: {}", quoted(&sensor.id));
        if n == 1 {
            text.push_str("    name: Front desk\n    labels: {asset: \"A-1001\"}\n");
        }
        if let Some(path) = building.path(sensor) {
            let _ = writeln!(text, "    location: {}", quoted(&path));
        }
    }
    // The first meeting room of the next building has its own name here, and is found by its building as well.
    let found = building.sensors.get(listed.len()..).unwrap_or_default();
    let meeting_room = |sensor: &&Sensor| {
        sensor
            .name
            .as_deref()
            .is_some_and(|name| name.ends_with("Meeting room"))
    };
    if let Some(sensor) = found.iter().find(meeting_room) {
        let id = quoted(&sensor.id);
        let _ = writeln!(
            text,
            "  - id: {id}\n    name: Boardroom\n    labels: {{asset: \"A-1002\"}}"
        );
    }
    let others = |parent: usize| building.locations[parent].children.iter().skip(1);
    let locations: Vec<_> = site.into_iter().flat_map(others).chain(others(0)).collect();
    text.push_str(match locations.is_empty() {
        true => "locations: []\n",
        false => "locations:\n",
    });
    for index in locations {
        let location = &building.locations[*index];
        let _ = writeln!(
            text,
            "  - id: {}\n    name: {}\n    recursive: true",
            quoted(&location.id),
            quoted(&location.name)
        );
    }
}

/// A JSON string is a YAML string too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::{Value, json};

    use super::super::{Options, Simulator};
    use super::*;

    fn listed(sensors: usize, listing: Listing) -> (Value, Vec<String>) {
        let options = Options {
            sensors,
            listing,
            ..Options::default()
        };
        let simulator = Simulator::new(options).unwrap();
        let yaml = simulator.config_yaml("http://127.0.0.1:1/");
        (serde_saphyr::from_str(&yaml).unwrap(), simulator.sensors())
    }

    fn ids(entries: &Value) -> Vec<String> {
        let entries = entries.as_array().unwrap().iter();
        let id = |entry: &Value| {
            entry
                .get("id")
                .unwrap_or(entry)
                .as_str()
                .unwrap()
                .to_owned()
        };
        entries.map(id).collect()
    }

    #[test]
    fn the_urls_are_those_of_the_simulator() {
        let (config, _) = listed(1, Listing::Mixed);
        assert_eq!(config["api"], json!({"url": "http://127.0.0.1:1"}));
        assert_eq!(
            config["oauth"]["token_url"],
            "http://127.0.0.1:1/oauth2/token"
        );
        assert_eq!(
            config["oauth"]["authorize_url"],
            "http://127.0.0.1:1/oauth2/authorize"
        );
        for key in ["client_id", "client_secret", "refresh_token"] {
            assert!(config["oauth"][key].as_str().unwrap().len() > 20, "{key}");
        }
    }

    #[test]
    fn sensors_and_locations_list_everything_in_one_way() {
        let (config, sensors) = listed(40, Listing::Sensors);
        assert_eq!(
            (ids(&config["sensors"]), config.get("locations")),
            (sensors, None)
        );
        let (config, _) = listed(40, Listing::Locations);
        assert_eq!(
            config["locations"],
            json!([{"id": "base", "recursive": true}])
        );
        assert_eq!(config.get("sensors"), None);
    }

    #[test]
    fn mixed_lists_the_first_building_and_finds_the_rest_but_for_one_that_is_both() {
        let (config, sensors) = listed(40, Listing::Mixed);
        let (first, rest) = sensors.split_at(10);
        assert_eq!(ids(&config["sensors"])[..10], *first);
        assert_eq!(ids(&config["sensors"])[10..], rest[2..3]);
        let entries = &config["sensors"];
        assert_eq!(entries[0]["location"], "Gatehouse / Ground floor");
        assert_eq!(entries[1]["name"], "Front desk");
        assert!(entries[8].is_string() && entries[9].is_string());
        assert_eq!(entries[10]["name"], "Boardroom");
        let house = json!([{"id": "1004", "name": "Harbour House", "recursive": true}]);
        assert_eq!(config["locations"], house);
        // More than a site: its other buildings, then the other sites.
        let (config, _) = listed(5000, Listing::Mixed);
        let names: Vec<_> = config["locations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| l["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "Harbour House",
                "Granary",
                "Foundry",
                "Mill",
                "Hillcrest Park"
            ]
        );
        // Less than a building: sensors only.
        let (config, sensors) = listed(7, Listing::Mixed);
        assert_eq!(
            (ids(&config["sensors"]), &config["locations"]),
            (sensors, &json!([]))
        );
    }
}
