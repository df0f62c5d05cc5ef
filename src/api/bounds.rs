//! How a text of a reply may be: without a secret that the server was sent, and no longer than this, so that no label and
//! no memory grows with what a server likes to send.
//!
//! A name is for people and is cut short; an id must be whole to be good for anything, so a longer one is malformed.
//! Secrets go first, as half of one would not be recognised.

use std::sync::Arc;

use super::model::{Found, Item, LocationReply, Malformed, SensorReply};

/// Of names, the ellipsis included. What people call rooms takes a quarter of it.
const MAX_NAME_CHARS: usize = 128;
/// Of ids and `var_name`s, in bytes. The vendor's have 16 and less.
const MAX_ID_BYTES: usize = 128;

/// A sensor's reply within bounds; `conceal` takes secrets out of a text.
pub(super) fn sensor(reply: SensorReply, conceal: impl Fn(String) -> String) -> SensorReply {
    SensorReply {
        name: reply.name.map(|name| cut(conceal(name))),
        items: items(reply.items, &conceal),
    }
}

/// A location's reply within bounds; `conceal` takes secrets out of a text.
pub(super) fn location(
    reply: LocationReply,
    conceal: impl Fn(String) -> String,
) -> Result<LocationReply, Malformed> {
    let name = |name: Option<String>| name.map(|name| cut(conceal(name)));
    let within = |found: Found| {
        Ok(Found {
            id: id(conceal(found.id))?,
            name: name(found.name),
            // As its own id is told.
            parent: found
                .parent
                .map(|parent| match conceal(parent.to_string()) {
                    same if *same == *parent => parent,
                    concealed => Arc::from(concealed),
                }),
            items: found.items.map(|all| items(all, &conceal)),
        })
    };
    let all_within = |all: Vec<Found>| all.into_iter().map(within).collect::<Result<_, _>>();
    Ok(LocationReply {
        id: reply.id.map(|own| id(conceal(own))).transpose()?,
        name: name(reply.name),
        sensors: all_within(reply.sensors)?,
        children: all_within(reply.children)?,
    })
}

fn id(id: String) -> Result<String, Malformed> {
    match id.len() {
        ..=MAX_ID_BYTES => Ok(id),
        bytes => Err(Malformed(format!(
            "an id of {bytes} bytes; no sensor or location has one over {MAX_ID_BYTES}"
        ))),
    }
}

fn items(items: Vec<Item>, conceal: impl Fn(String) -> String) -> Vec<Item> {
    let within = |item| match item {
        Item::Reading { var_name, .. } if var_name.len() > MAX_ID_BYTES => Item::Malformed,
        Item::Reading {
            var_name,
            time,
            value,
        } => Item::Reading {
            var_name: conceal(var_name),
            time,
            value,
        },
        item => item,
    };
    items.into_iter().map(within).collect()
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

    fn as_it_is(text: String) -> String {
        text
    }

    fn found(id: &str, name: &str) -> Found {
        Found {
            id: id.to_owned(),
            name: Some(name.to_owned()),
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
        let reply = location(reply, as_it_is).unwrap();
        let all = reply.sensors.iter().chain(&reply.children);
        let names = all.flat_map(|found| &found.name);
        let lengths: Vec<_> = names
            .chain(&reply.name)
            .map(|name| name.chars().count())
            .collect();
        assert_eq!(lengths, [128; 3]);
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
                assert_eq!(location(reply, as_it_is).is_err(), bytes > 128);
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
                sensor(SensorReply { name: None, items }, as_it_is).items,
                [expected, Item::Null]
            );
        }
    }

    #[test]
    fn secrets_go_from_wherever_the_reply_has_text() {
        let conceal = |text: String| text.replace("s3cret", "*");
        let reading = Item::Reading {
            var_name: "a s3cret".to_owned(),
            time: 0.0,
            value: 0.0,
        };
        let child = found("1 s3cret", "s3cret");
        let device = Found {
            parent: Some("1 s3cret".into()),
            items: Some(vec![reading.clone()]),
            ..found("A s3cret", &format!("{}s3cret", "x".repeat(124)))
        };
        let reply = LocationReply {
            id: Some("0 s3cret".to_owned()),
            name: Some("s3cret".to_owned()),
            sensors: vec![device],
            children: vec![child],
        };
        let all = format!("{:?}", location(reply, conceal).unwrap());
        assert!(!all.contains("s3"), "{all}");
        assert_eq!(all.matches('*').count(), 8, "{all}");
        let reply = SensorReply {
            name: Some("s3cret".to_owned()),
            items: vec![reading, Item::Null],
        };
        let all = format!("{:?}", sensor(reply, conceal));
        assert_eq!(
            (all.contains("s3"), all.matches('*').count()),
            (false, 2),
            "{all}"
        );
    }
}
