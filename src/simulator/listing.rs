//! The configuration that makes an exporter use the simulated cloud, as YAML.
//!
//! Written as text: the exporter's own configuration types stay out of the simulator.

use std::fmt::Write as _;

use super::{building::Building, tokens::Tokens};

/// How the configuration names the sensors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Listing {
    /// The first building's sensors one by one, the rest by whole buildings and sites.
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
    // Of a flat list there are no places to go by.
    let flat = building.root().children.is_empty();
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
    let others = |parent: usize| building.locations[parent].children.iter().skip(1);
    let locations: Vec<_> = site.into_iter().flat_map(others).chain(others(0)).collect();
    if !locations.is_empty() {
        text.push_str("locations:\n");
    }
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
