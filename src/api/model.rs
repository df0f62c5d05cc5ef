//! Decodes the bodies of the API's replies, and limits what they may contain.
//!
//! Belongs here: the shapes of the replies, and the limits on their texts and entries. Does not belong here: requests
//! (`client`), and what becomes of the readings (`collector`). Called by `client`.
//!
//! Only the body of the sensor route is documented, and only by an example; the bodies of the location routes are inferred.
//! So one tolerant decoder walks the JSON and recognises sensors and child locations by their shape, wherever they are.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// JSON nested deeper than this is ignored.
const MAX_DEPTH: usize = 32;
/// Sensors and child locations in one reply.
const MAX_ENTRIES: usize = 100_000;
/// Values shorter than this on average are refused, because decoding them would take many times their length in memory.
/// Those of readings and sensors are longer.
const MIN_VALUE_BYTES: usize = 10;
/// This many short values are allowed in any body.
const MAX_SHORT_VALUES: usize = 100_000;
/// Longer names are cut. Names of rooms take a quarter of this.
const MAX_NAME_CHARS: usize = 128;
/// Longer ids and `var_name`s are malformed, because half of an id is useless. The vendor's have at most 16 bytes.
const MAX_ID_BYTES: usize = 128;
/// Keys that an error names.
const MAX_SHOWN_KEYS: usize = 12;
/// A longer key is not shown at all, because half of a secret could not be recognised and redacted.
const MAX_SHOWN_KEY_BYTES: usize = 40;

/// Takes secrets out of a text of the API. Applied before a text is cut.
pub(super) type Redact<'a> = &'a dyn Fn(String) -> String;

/// One element of a `data` array.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A reading with a time and a value. Both may be infinite, because numbers in JSON have no bound.
    Reading {
        /// The name of the variable, as the API spells it.
        var_name: String,
        /// Unix seconds.
        time: f64,
        /// The value in the vendor's unit.
        value: f64,
    },
    /// The value or the time is null or missing.
    Null,
    /// The element is not of the known shape.
    Malformed,
}

/// The body of `GET /sensors/{id}`.
#[derive(Debug, PartialEq)]
pub struct SensorReply {
    /// The sensor's name, if the API sends one.
    pub name: Option<String>,
    /// The elements of `data`; none if it is null or missing.
    pub items: Vec<Item>,
}

/// The body of `GET /locations/{id}/` and `GET /locations`.
#[derive(Debug, Default, PartialEq)]
pub struct LocationReply {
    /// The location's own id.
    pub id: Option<String>,
    /// The location's own name.
    pub name: Option<String>,
    /// Every sensor in the body, at any depth.
    pub sensors: Vec<LocationEntry>,
    /// Every child location in the body, at any depth.
    pub children: Vec<LocationEntry>,
}

/// A sensor or child location in a [`LocationReply`].
#[derive(Debug, PartialEq)]
pub struct LocationEntry {
    /// The API's id.
    pub id: String,
    /// The API's name.
    pub name: Option<String>,
    /// The id of the child location that contains it; `None` if the reply's own location does.
    pub parent: Option<Arc<str>>,
    /// The elements of a sensor's `data`; `None` if it is no array, and for a child location.
    pub items: Option<Vec<Item>>,
}

/// The body is not of the known shape. Says what was found instead, and never a value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

/// Decodes the body of `GET /sensors/{id}`: an object whose `data` is an array, null or missing.
pub fn decode_sensor(body: &[u8], redact: Redact<'_>) -> Result<SensorReply, Malformed> {
    let object = object(parse(body)?)
        .ok_or_else(|| Malformed("the reply is not a JSON object".to_owned()))?;
    let texts = Texts(redact);
    match texts.data(&object).0 {
        Some(items) => Ok(SensorReply {
            name: texts.name(&object),
            items,
        }),
        None => Err(Malformed(format!(
            "`data` is not an array; top-level keys: {}",
            shown_keys(&object)
        ))),
    }
}

/// Decodes the body of `GET /locations/{id}/`. Fails unless it contains a sensor, a child location, or a key that would hold
/// some.
pub(super) fn decode_location(body: &[u8], redact: Redact<'_>) -> Result<LocationReply, Malformed> {
    decode_location_or_id(body, redact, false)
}

/// Decodes the body of `GET /locations`: the properties of the base location, of which the id is enough.
pub fn decode_base_location(body: &[u8], redact: Redact<'_>) -> Result<LocationReply, Malformed> {
    decode_location_or_id(body, redact, true)
}

fn decode_location_or_id(
    body: &[u8],
    redact: Redact<'_>,
    id_is_enough: bool,
) -> Result<LocationReply, Malformed> {
    let root = parse(body)?;
    let texts = Texts(redact);
    let own = own_object(root, texts).unwrap_or_default();
    let mut walk = Walk {
        texts,
        reply: LocationReply {
            id: texts.location_id(&own),
            name: texts.name(&own),
            ..LocationReply::default()
        },
        recognised: false,
    };
    walk.visit(root, Position::default());
    let reply = walk.reply;
    let entries = || reply.sensors.iter().chain(&reply.children);
    if entries().count() > MAX_ENTRIES {
        return Err(Malformed(format!(
            "contains more than {MAX_ENTRIES} sensors and child locations"
        )));
    }
    let mut ids = entries().map(|entry| &entry.id).chain(&reply.id);
    if let Some(id) = ids.find(|id| id.len() > MAX_ID_BYTES) {
        return Err(Malformed(format!(
            "contains an id of {} bytes; at most {MAX_ID_BYTES} are allowed",
            id.len()
        )));
    }
    let has_id = id_is_enough && reply.id.is_some();
    if walk.recognised || has_id || entries().next().is_some() {
        return Ok(reply);
    }
    Err(Malformed(format!(
        "contains neither a sensor nor a child location; top-level keys: {}",
        shown_keys(&object(root).unwrap_or_default())
    )))
}

/// Returns the routes that `GET /openapi.json` lists for GET, without the names of their parameters: `/sensors/{}`.
pub fn decode_openapi(body: &[u8]) -> Result<Vec<String>, Malformed> {
    let document = object(parse(body)?).unwrap_or_default();
    let paths = document
        .get("paths")
        .and_then(|paths| object(paths))
        .ok_or_else(|| Malformed("the document has no `paths`".to_owned()))?;
    let has_get = |path| object(path).is_some_and(|methods| methods.contains_key("get"));
    let readable = paths.iter().filter(|(_, path)| has_get(path));
    let without_name = |segment| match segment {
        segment if str::starts_with(segment, '{') => "{}",
        segment => segment,
    };
    let routes = readable.map(|(path, _)| {
        let segments: Vec<_> = path.split('/').map(without_name).collect();
        segments.join("/")
    });
    Ok(routes.collect())
}

/// The fields of an object. Their values are read only when asked for: no tree of the whole body is built, and `parse` limits
/// the number of values.
type Object<'a> = BTreeMap<String, &'a RawValue>;

fn parse(body: &[u8]) -> Result<&RawValue, Malformed> {
    let values = body.iter().filter(|byte| **byte == b',').count();
    if values > MAX_SHORT_VALUES + body.len() / MIN_VALUE_BYTES {
        return Err(Malformed(format!(
            "{values} values in {} bytes: too many for a reply with readings",
            body.len()
        )));
    }
    // Errors of syntax contain no value.
    serde_json::from_slice(body).map_err(|error| Malformed(format!("invalid JSON: {error}")))
}

/// Returns `None` if the value is not an object.
fn object(value: &RawValue) -> Option<Object<'_>> {
    serde_json::from_str(value.get()).ok()
}

/// Returns `None` if the value is not an array.
fn array(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// Returns `None` if the value is not a text.
fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// Returns the object that describes the requested location itself: the body or its only element, unless that is a sensor.
fn own_object<'a>(root: &'a RawValue, texts: Texts<'_>) -> Option<Object<'a>> {
    let object = object(root).or_else(|| match array(root)?.as_slice() {
        [only] => object(only),
        _ => None,
    })?;
    let mut lists = object.keys().map(|key| List::named(key));
    let is_sensor = texts.data(&object).1 && lists.all(|list| list == List::Unknown);
    (!is_sensor).then_some(object)
}

/// The kind of list that contains a value, by the key of the list.
#[derive(Clone, Copy, Default, PartialEq)]
enum List {
    Sensors,
    Locations,
    #[default]
    Unknown,
}

impl List {
    fn named(key: &str) -> Self {
        match key {
            "sensors" => Self::Sensors,
            "locations" | "children" | "sub_locations" => Self::Locations,
            _ => Self::Unknown,
        }
    }
}

/// The position of a value in the body.
#[derive(Clone, Copy, Default)]
struct Position<'a> {
    list: List,
    /// The key of the value, if it may be an id.
    key: Option<&'a str>,
    /// The child location that contains the value.
    parent: Option<&'a Arc<str>>,
    depth: usize,
}

/// Collects the sensors and child locations of a body.
struct Walk<'r> {
    texts: Texts<'r>,
    reply: LocationReply,
    /// Whether a key was found that holds sensors or child locations.
    recognised: bool,
}

impl Walk<'_> {
    fn visit(&mut self, value: &RawValue, position: Position<'_>) {
        let entries = self.reply.sensors.len() + self.reply.children.len();
        if position.depth > MAX_DEPTH || entries > MAX_ENTRIES {
            return;
        }
        let below = Position {
            depth: position.depth + 1,
            ..position
        };
        if let Some(elements) = array(value) {
            for element in elements {
                self.visit(element, below);
            }
        } else if let Some(object) = object(value) {
            self.visit_object(&object, below);
        }
    }

    fn visit_object(&mut self, object: &Object<'_>, position: Position<'_>) {
        let texts = self.texts;
        let (items, has_readings) = texts.data(object);
        let key = position.key.map(|key| (texts.0)(key.to_owned()));
        let sensor_id = texts.sensor_id(object).or_else(|| key.clone());
        let is_sensor = has_readings || (position.list == List::Sensors && sensor_id.is_some());
        let mut child: Option<Arc<str>> = None;
        let entry = |id, items| LocationEntry {
            id,
            name: texts.name(object),
            parent: position.parent.cloned(),
            items,
        };
        if is_sensor {
            let sensor = sensor_id.map(|id| entry(id, items));
            self.reply.sensors.extend(sensor);
        } else if position.list == List::Locations && has_name(object) {
            let key = key.filter(|key| is_path_segment(key));
            let id = texts.location_id(object).or(key);
            child = id.as_deref().map(Arc::from);
            self.reply.children.extend(id.map(|id| entry(id, None)));
        }
        // Lists may also be objects that hold their entries by id.
        let is_list = !is_sensor && child.is_none() && position.key.is_none();
        let is_object = |value: &&RawValue| value.get().starts_with('{');
        let holds_only_objects = !is_sensor && object.values().all(is_object);
        for (key, value) in object {
            if is_sensor && key == "data" {
                continue;
            }
            let list = List::named(key);
            let (list, key) = match list {
                List::Unknown if is_list && position.list != List::Unknown => {
                    (position.list, Some(&**key))
                }
                List::Unknown if holds_only_objects => (list, Some(&**key)),
                _ => (list, None),
            };
            self.recognised |= key.is_none() && list != List::Unknown && may_hold_entries(value);
            let below = Position {
                list,
                key: key.filter(|key| !key.is_empty()),
                parent: child.as_ref().or(position.parent),
                depth: position.depth,
            };
            self.visit(value, below);
        }
    }
}

/// One element of `data`, before its values are read.
#[derive(Default, Deserialize)]
struct RawItem<'a> {
    /// Also present if it is null.
    #[serde(borrow, default, deserialize_with = "present")]
    var_name: Option<&'a RawValue>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads the texts of a body, and takes secrets out of each.
#[derive(Clone, Copy)]
struct Texts<'r>(Redact<'r>);

impl Texts<'_> {
    /// Returns the elements of `data` (none if it is null or missing, `None` if it is not an array), and whether one of them
    /// has a `var_name`, which is the one sure sign of a sensor.
    fn data(self, object: &Object<'_>) -> (Option<Vec<Item>>, bool) {
        let Some(data) = object.get("data").filter(|data| data.get() != "null") else {
            return (Some(Vec::new()), false);
        };
        let mut has_readings = false;
        let items = array(data).map(|elements| {
            let items = elements.into_iter().map(|element| {
                // serde would read an array as well.
                let is_object = element.get().starts_with('{');
                let item = is_object.then(|| serde_json::from_str::<RawItem<'_>>(element.get()));
                let item = item.and_then(Result::ok).unwrap_or_default();
                has_readings |= item.var_name.is_some();
                self.item(&item)
            });
            items.collect()
        });
        (items, has_readings)
    }

    fn item(self, item: &RawItem<'_>) -> Item {
        let var_name = item.var_name.and_then(text);
        let var_name = var_name.filter(|name| (1..=MAX_ID_BYTES).contains(&name.len()));
        // A number too large for a double is infinite.
        let number = |value: Option<&RawValue>| value.map(|it| it.get().parse()).transpose();
        let numbers = (number(item.time), number(item.value));
        match (var_name, numbers) {
            (Some(var_name), (Ok(Some(time)), Ok(Some(value)))) => Item::Reading {
                var_name: (self.0)(var_name),
                time,
                value,
            },
            (Some(_), (Ok(_), Ok(_))) => Item::Null,
            _ => Item::Malformed,
        }
    }

    fn name(self, object: &Object<'_>) -> Option<String> {
        let name = object.get("name").and_then(|name| text(name));
        name.map(self.0).map(cut)
    }

    /// Returns a text, or a number as text. An empty text counts as none.
    fn id(self, object: &Object<'_>, key: &str) -> Option<String> {
        let value = object.get(key)?;
        let id = match value.get().as_bytes().first()? {
            b'-' | b'0'..=b'9' => Some(value.get().to_owned()),
            _ => text(value),
        };
        id.filter(|id| !id.is_empty()).map(self.0)
    }

    fn location_id(self, object: &Object<'_>) -> Option<String> {
        let id = self.id(object, "id");
        let id = id.or_else(|| self.id(object, "location_id"));
        id.filter(|id| is_path_segment(id))
    }

    /// Of two ids, the text is the sensor's; a number is a key of the vendor's database.
    fn sensor_id(self, object: &Object<'_>) -> Option<String> {
        let is_text = |key: &&str| object.get(*key).is_some_and(|id| id.get().starts_with('"'));
        let keys = ["sensor_id", "id"];
        let texts = keys.into_iter().filter(is_text);
        texts.chain(keys).find_map(|key| self.id(object, key))
    }
}

/// Whether there is a name, even if it is null.
fn has_name(object: &Object<'_>) -> bool {
    let name = object.get("name").map(|name| name.get());
    name.is_some_and(|json| json == "null" || json.starts_with('"'))
}

fn shown_keys(object: &Object<'_>) -> String {
    let short = object.keys().filter(|key| key.len() <= MAX_SHOWN_KEY_BYTES);
    let shown = short.take(MAX_SHOWN_KEYS);
    let shown: Vec<_> = shown.map(|key| key.escape_debug().to_string()).collect();
    shown.join(", ")
}

/// Whether a value may hold sensors or locations: an array, an object or null.
fn may_hold_entries(value: &RawValue) -> bool {
    value.get().starts_with(['[', '{', 'n'])
}

/// Whether an id can be asked for: in a URL, an empty id and these two would name another route, and these characters are
/// left out.
fn is_path_segment(id: &str) -> bool {
    !matches!(&*id.replace(['\t', '\n', '\r'], ""), "" | "." | "..")
}

/// Cuts a long name at a character, and marks the cut with an ellipsis.
fn cut(mut name: String) -> String {
    if name.chars().nth(MAX_NAME_CHARS).is_some() {
        let end = name.char_indices().nth(MAX_NAME_CHARS - 1);
        name.truncate(end.map_or(0, |(at, _)| at));
        name.push('…');
        name.shrink_to_fit();
    }
    name
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
