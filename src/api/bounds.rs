//! How long a text of a reply may be, so that no label and no memory grows with what a server likes to send.
//!
//! A name is for people and is cut short; an id must be whole to be good for anything, so a longer one is malformed.

use super::model::{Found, Item, LocationReply, Malformed, SensorReply};

/// Of names, the ellipsis included. What people call rooms takes a quarter of it.
const MAX_NAME_CHARS: usize = 128;
/// Of ids and `var_name`s, in bytes. The vendor's have 16 and less.
const MAX_ID_BYTES: usize = 128;

/// A sensor's reply within bounds.
pub(super) fn sensor(reply: SensorReply) -> SensorReply {
    SensorReply {
        name: reply.name.map(cut),
        items: reply.items.into_iter().map(item).collect(),
    }
}

/// A location's reply within bounds.
pub(super) fn location(reply: LocationReply) -> Result<LocationReply, Malformed> {
    let found = reply.sensors.iter().chain(&reply.children);
    let own = reply.id.iter();
    let longest = found
        .map(|found| &found.id)
        .chain(own)
        .map(String::len)
        .max();
    if let Some(bytes) = longest.filter(|bytes| *bytes > MAX_ID_BYTES) {
        return Err(Malformed(format!(
            "an id of {bytes} bytes; no sensor or location has one over {MAX_ID_BYTES}"
        )));
    }
    let within = |all: Vec<Found>| {
        let within = |found: Found| Found {
            name: found.name.map(cut),
            path: found.path.into_iter().map(cut).collect(),
            items: found
                .items
                .map(|items| items.into_iter().map(item).collect()),
            ..found
        };
        all.into_iter().map(within).collect()
    };
    Ok(LocationReply {
        id: reply.id,
        name: reply.name.map(cut),
        sensors: within(reply.sensors),
        children: within(reply.children),
    })
}

fn item(item: Item) -> Item {
    match &item {
        Item::Reading { var_name, .. } if var_name.len() > MAX_ID_BYTES => Item::Malformed,
        _ => item,
    }
}

/// At the last character that leaves room for an ellipsis.
fn cut(mut name: String) -> String {
    if name.chars().nth(MAX_NAME_CHARS).is_some() {
        let kept = name.char_indices().nth(MAX_NAME_CHARS - 1);
        name.truncate(kept.map_or(0, |(at, _)| at));
        name.push('…');
        name.shrink_to_fit();
    }
    name
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn found(id: &str, name: &str) -> Found {
        Found {
            id: id.to_owned(),
            name: Some(name.to_owned()),
            path: vec![name.to_owned()],
            parent: None,
            items: None,
        }
    }

    #[test]
    fn a_long_name_is_cut_between_characters_and_says_so() {
        let whole = "é".repeat(128);
        for (name, expected) in [
            ("Lab".to_owned(), "Lab".to_owned()),
            (whole.clone(), whole),
            ("é".repeat(129), format!("{}…", "é".repeat(127))),
            ("😀".repeat(100_000), format!("{}…", "😀".repeat(127))),
        ] {
            assert_eq!(cut(name), expected);
        }
        let reply = LocationReply {
            name: Some("x".repeat(1000)),
            sensors: vec![found("A", &"x".repeat(1000))],
            children: vec![found("1", &"x".repeat(1000))],
            id: None,
        };
        let reply = location(reply).unwrap();
        let all = reply.sensors.iter().chain(&reply.children);
        let names = all.flat_map(|found| found.name.iter().chain(&found.path));
        let lengths: Vec<_> = names
            .chain(&reply.name)
            .map(|name| name.chars().count())
            .collect();
        assert_eq!(lengths, [128; 5]);
    }

    #[test]
    fn a_long_id_makes_a_reply_malformed_and_a_long_variable_only_itself() {
        for bytes in [128, 129] {
            let id = "x".repeat(bytes);
            for reply in [
                LocationReply {
                    sensors: vec![found(&id, "")],
                    ..LocationReply::default()
                },
                LocationReply {
                    children: vec![found(&id, "")],
                    ..LocationReply::default()
                },
                LocationReply {
                    id: Some(id.clone()),
                    ..LocationReply::default()
                },
            ] {
                assert_eq!(location(reply).is_err(), bytes > 128);
            }
            let reading = Item::Reading {
                var_name: id,
                time: 0.0,
                value: 0.0,
            };
            let items = vec![reading.clone(), Item::Null];
            let expected = if bytes > 128 {
                Item::Malformed
            } else {
                reading
            };
            assert_eq!(
                sensor(SensorReply { name: None, items }).items,
                [expected, Item::Null]
            );
        }
    }
}
