//! The configuration that makes an exporter use the simulated cloud, as YAML.
//!
//! It is written as text, because the simulator does not know the exporter's configuration types.

use super::{
    building::{Building, Sensor},
    options::Listing,
    tokens::Tokens,
};

/// Returns a complete configuration for the cloud at `base_url`.
pub(super) fn config_yaml(
    listing: Listing,
    building: &Building,
    tokens: &Tokens,
    base_url: &str,
) -> String {
    let base = base_url.trim_end_matches('/');
    let refresh_token = tokens.newest_refresh_token();
    let connection = format!(
        "api:\n  url: \"{base}\"\noauth:\n  token_url: \"{base}/oauth2/token\"\n  \
         authorize_url: \"{base}/oauth2/authorize\"\n  client_id: \"{}\"\n  client_secret: \"{}\"\n  \
         refresh_token: \"{refresh_token}\"\n",
        tokens.client_id, tokens.client_secret,
    );
    let mut children = building.root().children.iter();
    // Recorded sensors are in no site or building.
    let is_flat = children.all(|child| building.locations[*child].children.is_empty());
    let sensors = match listing {
        Listing::Locations => "locations:\n  - id: base\n    recursive: true\n".to_owned(),
        Listing::Mixed if !is_flat => mixed(building),
        Listing::Mixed | Listing::Sensors => {
            let ids = building.sensors.iter().map(|sensor| &sensor.id);
            let entries: String = ids.map(|id| format!("  - \"{id}\"\n")).collect();
            format!("sensors:\n{entries}")
        }
    };
    connection + &sensors
}

/// Lists the sensors of the first building, and the other buildings of its site and the other sites as locations.
fn mixed(building: &Building) -> String {
    let children = |parent: usize| building.locations[parent].children.iter().copied();
    let site = children(0).next().unwrap_or_default();
    let floors = children(site).next().into_iter().flat_map(children);
    let listed: usize = floors
        .map(|floor| building.locations[floor].sensors.len())
        .sum();
    let (listed, found) = building.sensors.split_at(listed);
    let entries: String = listed
        .iter()
        .enumerate()
        .map(|(n, sensor)| entry(building, sensor, n, listed.len()))
        .collect();
    // One sensor of the next building is listed too, with a name of its own.
    let is_meeting_room = |name: &String| name.ends_with("Meeting room");
    let both = found
        .iter()
        .find(|sensor| sensor.name.as_ref().is_some_and(is_meeting_room))
        .map_or_else(String::new, |sensor| {
            format!(
                "  - id: \"{}\"\n    name: Boardroom\n    labels: {{asset: \"A-1002\"}}\n",
                sensor.id
            )
        });
    let locations: String = children(site)
        .skip(1)
        .chain(children(0).skip(1))
        .map(|index| {
            let location = &building.locations[index];
            format!(
                "  - id: \"{}\"\n    name: \"{}\"\n    recursive: true\n",
                location.id, location.name
            )
        })
        .collect();
    let none = if locations.is_empty() { " []" } else { "" };
    format!("sensors:\n{entries}{both}locations:{none}\n{locations}")
}

/// Lists one sensor, usually with its location, which the sensor route does not return.
fn entry(building: &Building, sensor: &Sensor, n: usize, count: usize) -> String {
    let id = &sensor.id;
    if n + 2 >= count {
        return format!("  - \"{id}\"\n");
    }
    let name = match n {
        1 => "    name: Front desk\n    labels: {asset: \"A-1001\"}\n",
        _ => "",
    };
    let path = building.path(sensor).unwrap_or_default();
    format!("  - id: \"{id}\"\n{name}    location: \"{path}\"\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::{Value, json};

    use super::*;
    use crate::{Options, Simulator};

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
