//! The bodies of the API's replies, decoded by shape.
//!
//! Only the sensor route's body is documented, and by an example; the location routes' are inferred. So nothing here
//! relies on the place of a thing: JSON is walked, and what looks like a sensor or a child location is one. Text is
//! looked at where it stands in the body; no tree of values is built.

use std::{borrow::Cow, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Deeper nesting is no building's: deeper parts are not looked at.
const MAX_DEPTH: usize = 32;
/// Sensors and child locations in one reply: more would take many times its length in memory.
const MAX_FOUND: usize = 100_000;
/// So do entries of arrays and objects that are shorter than this on average; those of readings and sensors are not.
const MIN_ENTRY_BYTES: usize = 10;
/// That many may be.
const SHORT_ENTRIES: usize = 100_000;
/// How many top-level keys an error names. One that is longer is not shown at all: half a secret would not be recognised
/// as one.
const SHOWN_KEYS: usize = 12;
const SHOWN_KEY_CHARS: usize = 40;

/// One element of a `data` array. Numbers may be infinite: JSON has no bound, and what to do is not decided here.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A reading with a time and a value.
    Reading {
        /// As the API spells it.
        var_name: String,
        /// Unix seconds.
        time: f64,
        /// In the vendor's unit.
        value: f64,
    },
    /// Value or time is null or missing.
    Null,
    /// Not of the known shape.
    Malformed,
}

/// Body of `GET /sensors/{id}`.
#[derive(Debug, PartialEq)]
pub struct SensorReply {
    /// For display, where the API sends one.
    pub name: Option<String>,
    /// Elements of `data`; none where it is null or missing.
    pub items: Vec<Item>,
}

/// Body of `GET /locations/{id}/` and `GET /locations`.
#[derive(Debug, Default, PartialEq)]
pub struct LocationReply {
    /// The location's own id.
    pub id: Option<String>,
    /// The location's own name.
    pub name: Option<String>,
    /// Every sensor in the body, at any depth.
    pub sensors: Vec<Found>,
    /// Every child location in the body, at any depth; `items` is empty.
    pub children: Vec<Found>,
}

/// A sensor or child location in a [`LocationReply`].
#[derive(Debug, PartialEq)]
pub struct Found {
    /// The API's id.
    pub id: String,
    /// The API's name.
    pub name: Option<String>,
    /// Id of the child location it stands under; `None` directly in the reply's own location.
    pub parent: Option<Arc<str>>,
    /// Of a sensor: elements of `data`, or `None` where `data` is not of the known shape.
    pub items: Option<Vec<Item>>,
}

/// A body that is not of the known shape: what was seen instead, cut short; never a value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(super) String);

/// An element of `data` as the API sends them, as far as is known.
struct PlainItem<'a> {
    var_name: Cow<'a, str>,
    time: Option<f64>,
    value: Option<f64>,
}

/// A finite number, or `None` for null.
struct Number(Option<f64>);

/// The body of `GET /sensors/{id}` as the API sends it, as far as is known.
#[derive(Deserialize)]
struct PlainSensor<'a> {
    name: Option<String>,
    #[serde(borrow)]
    data: Option<Vec<PlainItem<'a>>>,
}

/// Decodes the body of `GET /sensors/{id}`: an object whose `data` is an array, null or missing.
pub fn sensor(body: &[u8]) -> Result<SensorReply, Malformed> {
    // All but always it is what is known, and read in one go. Whatever else it is, is found out below.
    if body.trim_ascii_start().starts_with(b"{")
        && let Ok(PlainSensor { name, data }) = serde_json::from_slice(body)
    {
        let items = data.unwrap_or_default();
        return Ok(SensorReply {
            name,
            items: items.into_iter().map(Item::from).collect(),
        });
    }
    let fields = Fields::of(parse(body)?)
        .ok_or_else(|| Malformed("the reply is no JSON object".to_owned()))?;
    match fields.data().items() {
        Some(items) => Ok(SensorReply {
            name: fields.name(),
            items,
        }),
        None => Err(Malformed(format!(
            "`data` is no array; top-level keys: {}",
            fields.shown_keys()
        ))),
    }
}

/// Decodes the body of a location route. An error unless a sensor or child location is recognised, or at least the key
/// that would hold some.
pub(super) fn location(body: &[u8]) -> Result<LocationReply, Malformed> {
    let root = parse(body)?;
    let mut walk = Walk::default();
    if let Some(fields) = own_object(root) {
        walk.reply.id = fields.location_id();
        walk.reply.name = fields.name();
    }
    walk.visit(root, Place::Elsewhere, None, 0);
    if walk.found() > MAX_FOUND {
        return Err(Malformed(format!(
            "more than {MAX_FOUND} sensors and child locations"
        )));
    }
    if walk.recognised || !walk.reply.sensors.is_empty() || !walk.reply.children.is_empty() {
        return Ok(walk.reply);
    }
    let keys = Fields::of(root).map_or("none, it is no object".to_owned(), |fields| {
        fields.shown_keys()
    });
    Err(Malformed(format!(
        "no sensor and no child location recognised; top-level keys: {keys}"
    )))
}

/// Decodes the body of `GET /locations`: the base location's properties, in which an id is enough.
pub fn base_location(body: &[u8]) -> Result<LocationReply, Malformed> {
    location(body).or_else(|malformed| {
        let fields = parse(body)
            .ok()
            .and_then(own_object)
            .ok_or_else(|| malformed.clone())?;
        let id = fields.location_id().ok_or(malformed)?;
        Ok(LocationReply {
            id: Some(id),
            name: fields.name(),
            ..LocationReply::default()
        })
    })
}

/// The routes that `GET /openapi.json` lists for GET, with the names of their parameters taken out: `/sensors/{}`.
pub fn openapi(body: &[u8]) -> Result<Vec<String>, Malformed> {
    let document = Fields::of(parse(body)?);
    let paths = document.and_then(|fields| Fields::of(fields.get("paths")?));
    let paths = paths.ok_or_else(|| Malformed("the document has no `paths`".to_owned()))?;
    let with_get = paths
        .0
        .iter()
        .filter(|(_, path)| Fields::of(path).is_some_and(|path| path.get("get").is_some()));
    Ok(with_get
        .map(|(path, _)| without_parameter_names(path))
        .collect())
}

fn without_parameter_names(path: &str) -> String {
    let mut inside = false;
    let kept = path.chars().filter(|c| {
        inside = (inside || *c == '{') && *c != '}';
        !inside || *c == '{'
    });
    kept.collect()
}

/// The object that describes the location itself: the body, or its only element; not one that is a sensor.
fn own_object(root: &RawValue) -> Option<Fields<'_>> {
    let own = Fields::of(root).or_else(|| match elements(root)?.as_slice() {
        [only] => Fields::of(only),
        _ => None,
    })?;
    (!own.data().has_readings() || own.holds_places()).then_some(own)
}

fn parse(body: &[u8]) -> Result<&RawValue, Malformed> {
    let entries = body.iter().filter(|byte| **byte == b',').count();
    if entries > SHORT_ENTRIES + body.len() / MIN_ENTRY_BYTES {
        return Err(Malformed(format!(
            "{entries} entries in {} bytes: too short to be readings",
            body.len()
        )));
    }
    serde_json::from_slice(body).map_err(|error| {
        let what = if error.is_eof() {
            "the JSON ends early"
        } else {
            "the reply is no JSON"
        };
        Malformed(format!(
            "{what} (line {} column {})",
            error.line(),
            error.column()
        ))
    })
}

/// Where an object stands, which tells what it may be.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// In the array or object under `sensors`.
    Sensors,
    /// Under its id in an object under `sensors`.
    SensorUnder(&'a str),
    /// In the array or object under `locations`, `children` or `sub_locations`.
    Children,
    /// Under its id in such an object.
    ChildUnder(&'a str),
    /// In an object that holds nothing but objects, so that the key may be an id.
    Under(&'a str),
    Elsewhere,
}

impl<'a> Place<'a> {
    fn under(key: &str) -> Self {
        match key {
            "sensors" => Self::Sensors,
            "locations" | "children" | "sub_locations" => Self::Children,
            _ => Self::Elsewhere,
        }
    }

    /// The key that may be an id.
    fn key(self) -> Option<&'a str> {
        match self {
            Self::SensorUnder(key) | Self::ChildUnder(key) | Self::Under(key) => Some(key),
            _ => None,
        }
        .filter(|key| !key.is_empty())
    }
}

#[derive(Default)]
struct Walk {
    reply: LocationReply,
    recognised: bool,
}

impl Walk {
    fn found(&self) -> usize {
        self.reply.sensors.len() + self.reply.children.len()
    }

    /// `inside` is the id of the child location we are in.
    fn visit(
        &mut self,
        value: &RawValue,
        place: Place<'_>,
        inside: Option<&Arc<str>>,
        depth: usize,
    ) {
        if depth > MAX_DEPTH || self.found() > MAX_FOUND {
            return;
        }
        if let Some(elements) = elements(value) {
            for element in elements {
                self.visit(element, place, inside, depth + 1);
            }
        } else if let Some(fields) = Fields::of(value) {
            self.visit_object(&fields, place, inside, depth);
        }
    }

    fn visit_object(
        &mut self,
        fields: &Fields<'_>,
        place: Place<'_>,
        inside: Option<&Arc<str>>,
        depth: usize,
    ) {
        let in_sensors = matches!(place, Place::Sensors | Place::SensorUnder(_));
        let in_children = matches!(place, Place::Children | Place::ChildUnder(_));
        let sensor_id = fields
            .sensor_id()
            .or_else(|| place.key().map(str::to_owned));
        let data = fields.data();
        let is_sensor =
            data.has_readings() || (in_sensors && (fields.has_id() || place.key().is_some()));
        let mut child: Option<Arc<str>> = None;
        if let (true, Some(id)) = (is_sensor, sensor_id) {
            self.reply.sensors.push(Found {
                id,
                name: fields.name(),
                parent: inside.cloned(),
                items: data.items(),
            });
        } else if in_children {
            let key = || {
                place
                    .key()
                    .map(str::to_owned)
                    .filter(|key| is_asked_for(key))
            };
            let id = fields.location_id().or_else(key);
            if let (Some(id), true) = (id, fields.may_be_named()) {
                child = Some(id.as_str().into());
                self.reply.children.push(Found {
                    id,
                    name: fields.name(),
                    parent: inside.cloned(),
                    items: None,
                });
            }
        }
        // An object under `sensors` or `children` that is neither holds them by id.
        let holds_by_id = !is_sensor && child.is_none() && place.key().is_none();
        let holds_only_objects = !is_sensor && fields.0.iter().all(|(_, raw)| is_object(raw));
        for (key, value) in &fields.0 {
            if is_sensor && key == "data" {
                continue;
            }
            let below = match (Place::under(key), place) {
                (Place::Elsewhere, Place::Sensors) if holds_by_id => Place::SensorUnder(key),
                (Place::Elsewhere, Place::Children) if holds_by_id => Place::ChildUnder(key),
                (Place::Elsewhere, _) if holds_only_objects => Place::Under(key),
                (below, _) => below,
            };
            let holds = matches!(value.get().as_bytes().first(), Some(b'[' | b'{' | b'n'));
            self.recognised |= holds && !matches!(Place::under(key), Place::Elsewhere);
            self.visit(value, below, child.as_ref().or(inside), depth + 1);
        }
    }
}

/// An object's fields in their order.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    fn of(value: &'a RawValue) -> Option<Self> {
        if !is_object(value) {
            return None;
        }
        serde_json::from_str(value.get()).ok()
    }

    /// The last one of that name, as JSON readers agree to.
    fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .rev()
            .find(|(name, _)| name == key)
            .map(|(_, value)| *value)
    }

    /// A text or a number as text; empty counts as none.
    fn text(&self, key: &str) -> Option<String> {
        let raw = self.get(key)?.get();
        match raw.as_bytes().first()? {
            b'"' => string(raw).filter(|text| !text.is_empty()),
            b'-' | b'0'..=b'9' => Some(raw.to_owned()),
            _ => None,
        }
    }

    fn name(&self) -> Option<String> {
        self.get("name").and_then(|raw| string(raw.get()))
    }

    /// Whether there is a name, be it that none is told.
    fn may_be_named(&self) -> bool {
        let name = self.get("name").map(RawValue::get);
        name.is_some_and(|raw| raw == "null" || raw.starts_with('"'))
    }

    fn location_id(&self) -> Option<String> {
        let id = self.text("id").or_else(|| self.text("location_id"));
        id.filter(|id| is_asked_for(id))
    }

    /// Whether a key stands here that would hold sensors or child locations.
    fn holds_places(&self) -> bool {
        let mut keys = self.0.iter().map(|(key, _)| Place::under(key));
        keys.any(|place| !matches!(place, Place::Elsewhere))
    }

    fn has_id(&self) -> bool {
        self.sensor_id().is_some()
    }

    /// Where both keys are there, the one that is a text is the sensor's: the other is some table's number.
    fn sensor_id(&self) -> Option<String> {
        let is_text = |key: &&str| self.get(key).is_some_and(|raw| raw.get().starts_with('"'));
        let keys = ["sensor_id", "id"];
        keys.iter()
            .copied()
            .find(is_text)
            .and_then(|key| self.text(key))
            .or_else(|| keys.iter().find_map(|key| self.text(key)))
    }

    fn data(&self) -> Data<'a> {
        let Some(data) = self.get("data").filter(|data| data.get() != "null") else {
            return Data::Plain(Vec::new());
        };
        match serde_json::from_str(data.get()) {
            Ok(items) => Data::Plain(items),
            Err(_) => elements(data).map_or(Data::Unknown, Data::Odd),
        }
    }

    fn shown_keys(&self) -> String {
        let clean = |key: &str| -> String {
            match key.chars().nth(SHOWN_KEY_CHARS) {
                Some(_) => "a long one".to_owned(),
                None => key.chars().filter(|c| !c.is_control()).collect(),
            }
        };
        let mut keys: Vec<String> = self
            .0
            .iter()
            .take(SHOWN_KEYS)
            .map(|(key, _)| clean(key))
            .collect();
        if self.0.len() > SHOWN_KEYS {
            keys.push("…".to_owned());
        }
        if keys.is_empty() {
            "none".to_owned()
        } else {
            keys.join(", ")
        }
    }
}

/// What stands under `data`.
enum Data<'a> {
    /// Items of the known shape; none where it is null or missing.
    Plain(Vec<PlainItem<'a>>),
    /// Some that are not.
    Odd(Vec<&'a RawValue>),
    /// No array.
    Unknown,
}

impl Data<'_> {
    /// Whether an element has a `var_name`: the one sure mark of a sensor.
    fn has_readings(&self) -> bool {
        match self {
            Self::Plain(items) => !items.is_empty(),
            Self::Odd(elements) => elements.iter().any(|element| {
                Fields::of(element).is_some_and(|item| item.get("var_name").is_some())
            }),
            Self::Unknown => false,
        }
    }

    /// `None` where it is no array.
    fn items(self) -> Option<Vec<Item>> {
        match self {
            Self::Plain(items) => Some(items.into_iter().map(Item::from).collect()),
            Self::Odd(elements) => Some(elements.into_iter().map(item).collect()),
            Self::Unknown => None,
        }
    }
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

/// In a URL nothing and these two would name another route; line feeds and the like are left out of one.
fn is_asked_for(id: &str) -> bool {
    let left_out = |c: char| matches!(c, '\t' | '\n' | '\r');
    !matches!(&*id.replace(left_out, ""), "" | "." | "..")
}

fn item(element: &RawValue) -> Item {
    let fields = Fields::of(element);
    let plain = fields.as_ref().and_then(|fields| {
        Some(PlainItem {
            var_name: string(fields.get("var_name")?.get())?.into(),
            time: number(fields.get("time")).ok()?,
            value: number(fields.get("value")).ok()?,
        })
    });
    plain.map_or(Item::Malformed, Item::from)
}

impl From<PlainItem<'_>> for Item {
    fn from(item: PlainItem<'_>) -> Self {
        match (item.time, item.value) {
            _ if item.var_name.is_empty() => Self::Malformed,
            (Some(time), Some(value)) => Self::Reading {
                var_name: item.var_name.into_owned(),
                time,
                value,
            },
            _ => Self::Null,
        }
    }
}

/// `Ok(None)` for null and missing, `Err` for what is no number. A number too large for a double is infinite.
fn number(raw: Option<&RawValue>) -> Result<Option<f64>, ()> {
    match raw.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| ()),
    }
}

fn string(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    struct Elements;
    impl<'de> Visitor<'de> for Elements {
        type Value = Vec<&'de RawValue>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = seq.next_element()? {
                elements.push(element);
            }
            Ok(elements)
        }
    }
    if !value.get().starts_with('[') {
        return None;
    }
    serde_json::Deserializer::from_str(value.get())
        .deserialize_seq(Elements)
        .ok()
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                // A key that is no text, as half a surrogate pair is none, is nobody's key and keeps the others.
                while let Some(key) = map.next_key::<&RawValue>()? {
                    fields.push((key_text(key.get()), map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for PlainItem<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not derived: that would take an array for an object.
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = PlainItem<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut var_name, mut time, mut value) = (None, None, None);
                while let Some(Key(key)) = map.next_key()? {
                    match &*key {
                        "var_name" => {
                            let Key(name) = map.next_value()?;
                            var_name = Some(name);
                        }
                        "time" => Number(time) = map.next_value()?,
                        "value" => Number(value) = map.next_value()?,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(PlainItem {
                    var_name: var_name.ok_or_else(|| A::Error::missing_field("var_name"))?,
                    time,
                    value,
                })
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrNull;
        impl Visitor<'_> for NumberOrNull {
            type Value = Number;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number or null")
            }
            fn visit_f64<E>(self, number: f64) -> Result<Number, E> {
                Ok(Number(Some(number)))
            }
            #[allow(clippy::cast_precision_loss)] // to the nearest, as the text would be read
            fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
                Ok(Number(Some(number as f64)))
            }
            #[allow(clippy::cast_precision_loss)]
            fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
                Ok(Number(Some(number as f64)))
            }
            fn visit_unit<E>(self) -> Result<Number, E> {
                Ok(Number(None))
            }
        }
        deserializer.deserialize_any(NumberOrNull)
    }
}

/// What the JSON text `key` says; the JSON itself where that is no text.
fn key_text(key: &str) -> Cow<'_, str> {
    match key.get(1..key.len() - 1) {
        Some(inner) if !inner.contains('\\') => Cow::Borrowed(inner),
        _ => serde_json::from_str(key).map_or(Cow::Borrowed(key), |Key(text)| text),
    }
}

/// A key, borrowed where it holds no escape.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading(var_name: &str, time: f64, value: f64) -> Item {
        Item::Reading {
            var_name: var_name.to_owned(),
            time,
            value,
        }
    }

    #[test]
    fn the_vendors_example_is_understood() {
        let body = br#"{"data": [{"var_name": "CO2ppm", "time": 1716301234.5, "value": 612.0},
                                 {"var_name": "temperatureC", "time": 1716301234, "value": 21.4}], "name": "Boardroom", "id": 7}"#;
        let reply = sensor(body).unwrap();
        assert_eq!(reply.name.as_deref(), Some("Boardroom"));
        let expected = [
            reading("CO2ppm", 1716301234.5, 612.0),
            reading("temperatureC", 1716301234.0, 21.4),
        ];
        assert_eq!(reply.items, expected);
    }

    #[test]
    fn no_data_is_no_readings_and_no_error() {
        for body in ["{}", r#"{"data":null}"#, r#"{"data":[]}"#, r#"{"name":5}"#] {
            assert_eq!(
                sensor(body.as_bytes()),
                Ok(SensorReply {
                    name: None,
                    items: vec![]
                }),
                "{body}"
            );
        }
    }

    #[test]
    fn a_body_of_another_shape_is_refused_with_what_was_seen() {
        let cases = [
            ("", "the JSON ends early (line 1 column 0)"),
            ("<html>", "the reply is no JSON (line 1 column 1)"),
            (
                r#"{"data":[{"var_name":"a","time":1,"value":NaN}]}"#,
                "the reply is no JSON (line 1 column 43)",
            ),
            ("[]", "the reply is no JSON object"),
            (
                r#"{"data":{},"x":1}"#,
                "`data` is no array; top-level keys: data, x",
            ),
            (
                r#"{"data":"text"}"#,
                "`data` is no array; top-level keys: data",
            ),
        ];
        for (body, message) in cases {
            assert_eq!(
                sensor(body.as_bytes()).unwrap_err().to_string(),
                message,
                "{body}"
            );
        }
    }

    #[test]
    fn an_item_that_is_no_reading_does_not_touch_the_others() {
        let cases = [
            (r#"{"var_name":"a","time":null,"value":1}"#, Item::Null),
            (r#"{"var_name":"a","value":1}"#, Item::Null),
            (r#"{"var_name":"a","time":1,"value":null}"#, Item::Null),
            (
                r#"{"var_name":"a","time":1,"value":"21.5"}"#,
                Item::Malformed,
            ),
            (
                r#"{"var_name":"a","time":true,"value":null}"#,
                Item::Malformed,
            ),
            (r#"{"var_name":7,"time":1,"value":1}"#, Item::Malformed),
            (r#"{"time":1,"value":1}"#, Item::Malformed),
            (r#"["a",1,1]"#, Item::Malformed),
            ("7", Item::Malformed),
            ("null", Item::Malformed),
        ];
        for (bad, expected) in cases {
            let body = format!(r#"{{"data":[{bad},{{"var_name":"b","time":1,"value":2}}]}}"#);
            let items = sensor(body.as_bytes()).unwrap().items;
            assert_eq!(items, [expected, reading("b", 1.0, 2.0)], "{bad}");
        }
    }

    #[test]
    fn a_number_beyond_a_double_is_infinite_and_no_error() {
        let body = br#"{"data":[{"var_name":"a","time":1,"value":1e999}]}"#;
        assert_eq!(
            sensor(body).unwrap().items,
            [reading("a", 1.0, f64::INFINITY)]
        );
    }

    #[test]
    fn a_floor_with_sensors_and_child_locations_is_recognised() {
        let body = br#"{"id": 12, "name": "Floor 3", "sensors": [
                {"id": "AQ2-1", "name": "East", "data": [{"var_name":"CO2ppm","time":1,"value":2}]},
                {"sensor_id": "MS1-2", "data": null}],
            "children": [{"id": "13", "name": "Wing", "sensors": {"LF5-3": {"name": "Lab", "data": []}},
                "sub_locations": [{"id": "14", "name": "Room", "sensors": [{"id":"AMP-4"}]}]}]}"#;
        let reply = location(body).unwrap();
        assert_eq!(
            (reply.id.as_deref(), reply.name.as_deref()),
            (Some("12"), Some("Floor 3"))
        );
        let seen: Vec<_> = reply
            .sensors
            .iter()
            .map(|s| (s.id.as_str(), s.parent.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                ("AQ2-1", None),
                ("MS1-2", None),
                ("LF5-3", Some("13")),
                ("AMP-4", Some("14")),
            ]
        );
        assert_eq!(
            reply.sensors[0].items.as_deref(),
            Some([reading("CO2ppm", 1.0, 2.0)].as_slice())
        );
        let children: Vec<_> = reply
            .children
            .iter()
            .map(|c| (c.id.as_str(), c.parent.as_deref()))
            .collect();
        assert_eq!(children, [("13", None), ("14", Some("13"))]);
    }

    #[test]
    fn sensors_are_found_wherever_they_stand() {
        let data = r#""data":[{"var_name":"x","time":1,"value":1}]"#;
        let bodies = [
            format!(r#"[{{"id":"A",{data}}}]"#),
            format!(r#"{{"result":{{"items":[{{"sensor_id":"A",{data}}}]}}}}"#),
            format!(r#"{{"data":[{{"id":"A",{data}}}]}}"#),
            format!(r#"{{"sensors":{{"A":{{{data}}}}}}}"#),
            format!(r#"{{"locations":{{"9":{{"name":"F","sensors":[{{"id":"A",{data}}}]}}}}}}"#),
            format!(r#"{{"sensors":[{{"id":17,"sensor_id":"A",{data}}}]}}"#),
            format!(r#"{{"A":{{"name":"Desk",{data}}}}}"#),
            format!(r#"{{"id":1,"data":{{"A":{{{data}}}}}}}"#),
        ];
        for body in bodies {
            let ids: Vec<_> = location(body.as_bytes())
                .unwrap()
                .sensors
                .into_iter()
                .map(|s| s.id)
                .collect();
            assert_eq!(ids, ["A"], "{body}");
        }
    }

    #[test]
    fn a_sensor_that_is_the_whole_reply_is_not_taken_for_the_location() {
        let sensor = r#"{"id":"A","name":"Desk","data":[{"var_name":"x","time":1,"value":1}]}"#;
        for body in [format!("[{sensor}]"), sensor.to_owned()] {
            for decode in [location, base_location] {
                let reply = decode(body.as_bytes()).unwrap();
                assert_eq!((reply.id, reply.name), (None, None), "{body}");
                assert_eq!(reply.sensors.len(), 1, "{body}");
            }
        }
    }

    #[test]
    fn a_key_that_is_no_text_takes_nothing_along() {
        let data = r#""data":[{"var_name":"x","\ud800":0,"time":1,"value":1}]"#;
        let body =
            format!(r#"{{"\ud800":1,"sensors":[{{"\ud800":1,"id":"A",{data}}}],"e\u0061":[]}}"#);
        let reply = location(body.as_bytes()).unwrap();
        let items = reply.sensors[0].items.as_deref();
        assert_eq!(items, Some([reading("x", 1.0, 1.0)].as_slice()));
        let reply = sensor(format!(r#"{{"\ud800":1,{data}}}"#).as_bytes());
        assert_eq!(reply.unwrap().items, [reading("x", 1.0, 1.0)]);
    }

    #[test]
    fn what_would_take_many_times_its_length_is_refused() {
        let of = |head: &str, entry: &str, count: usize, tail: &str| {
            let entries = vec![entry; count].join(",");
            format!("{head}{entries}{tail}").into_bytes()
        };
        for entry in ["0", "{}", "null"] {
            let body = of(r#"{"data":["#, entry, 1_000_000, "]}");
            assert!(
                sensor(&body).unwrap_err().0.contains("too short"),
                "{entry}"
            );
            let body = of(r#"{"sensors":["#, entry, 1_000_000, "]}");
            assert!(
                location(&body).unwrap_err().0.contains("too short"),
                "{entry}"
            );
        }
        let body = of(r#"{"data":["#, "0", 90_000, "]}");
        assert_eq!(sensor(&body).unwrap().items.len(), 90_000);
        let body = of(r#"{"sensors":["#, r#"{"id":"a"}"#, 100_001, "]}");
        assert!(location(&body).unwrap_err().0.contains("more than 100000"));
        let body = of(r#"{"sensors":["#, r#"{"id":"a"}"#, 100_000, "]}");
        assert_eq!(location(&body).unwrap().sensors.len(), 100_000);
    }

    #[test]
    fn an_empty_key_is_no_id() {
        let data = r#""data":[{"var_name":"x","time":1,"value":1}]"#;
        for body in [
            format!(r#"{{"sensors":{{"":{{{data}}},"A":{{{data}}}}}}}"#),
            format!(r#"{{"sensors":[],"":[{{{data}}}],"A":{{"id":"A",{data}}}}}"#),
        ] {
            let ids: Vec<_> = (location(body.as_bytes()).unwrap().sensors.into_iter())
                .map(|sensor| sensor.id)
                .collect();
            assert_eq!(ids, ["A"], "{body}");
        }
        let body = br#"{"children":{"":{"name":"Nowhere"},"9":{"name":"Floor"}}}"#;
        let ids: Vec<_> = (location(body).unwrap().children.into_iter())
            .map(|child| child.id)
            .collect();
        assert_eq!(ids, ["9"]);
    }

    #[test]
    fn a_child_without_a_name_is_one_and_one_whose_id_names_another_route_is_none() {
        let children = |body: &[u8]| -> Vec<_> {
            location(body)
                .unwrap()
                .children
                .into_iter()
                .map(|c| (c.id, c.name))
                .collect()
        };
        let body = br#"{"children":[{"id":1,"name":null},{"id":"..","name":"Up"},{"id":".","name":"Here"}]}"#;
        assert_eq!(children(body), [("1".to_owned(), None)]);
        assert_eq!(children(br#"{"children":{"..":{"name":"Up"}}}"#), []);
        assert_eq!(
            base_location(br#"{"id":"..","children":[]}"#).unwrap().id,
            None
        );
    }

    #[test]
    fn a_sensor_whose_data_cannot_be_placed_is_known_but_unread() {
        let reply = location(br#"{"sensors":[{"id":"A","data":"gone"}]}"#).unwrap();
        assert_eq!(reply.sensors[0].items, None);
    }

    #[test]
    fn recognised_but_empty_is_no_error_and_unrecognised_is_never_an_empty_success() {
        for body in [
            r#"{"sensors":[]}"#,
            r#"{"children":null}"#,
            r#"{"x":{"sub_locations":{}}}"#,
        ] {
            assert_eq!(
                location(body.as_bytes()),
                Ok(LocationReply::default()),
                "{body}"
            );
        }
        let error = location(br#"{"detail":"x","sensors":3}"#)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "no sensor and no child location recognised; top-level keys: detail, sensors"
        );
        assert!(location(b"[]").is_err());
    }

    #[test]
    fn a_key_too_long_to_show_is_not_cut() {
        let body = format!(r#"{{"detail":1,"{}":2}}"#, "s3cret".repeat(7));
        let error = location(body.as_bytes()).unwrap_err().to_string();
        assert!(error.ends_with("keys: detail, a long one"), "{error}");
    }

    #[test]
    fn the_base_location_needs_only_its_id() {
        let base = base_location(br#"{"id": 1, "name": "HQ"}"#).unwrap();
        assert_eq!(
            (base.id.as_deref(), base.name.as_deref()),
            (Some("1"), Some("HQ"))
        );
        assert!(base_location(br#"{"name": "HQ"}"#).is_err());
    }

    #[test]
    fn the_apis_own_document_lists_its_routes() {
        let body = br#"{"openapi": "3.1.0", "paths": {"/sensors/{sensor_id}": {"get": {}}, "/locations": {"get": {}, "post": {}},
            "/locations/{location_id}/": {"get": {}}, "/things/{a}/{b}/x": {"delete": {}}}}"#;
        assert_eq!(
            openapi(body).unwrap(),
            ["/sensors/{}", "/locations", "/locations/{}/"]
        );
        assert!(openapi(b"{}").is_err());
        assert!(openapi(b"<html>").is_err());
    }

    #[test]
    fn nesting_without_end_is_survived() {
        let body = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(location(body.as_bytes()).is_err());
        let body = format!("{}1{}", r#"{"children":"#.repeat(5_000), "}".repeat(5_000));
        assert_eq!(location(body.as_bytes()), Ok(LocationReply::default()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (sensor(&body), location(&body), base_location(&body));
        }

        #[test]
        fn any_json_like_text_is_decoded_or_refused(body in r#"[\[\]{}:,"a-z0-9 .-]{0,80}"#) {
            let _ = (sensor(body.as_bytes()), location(body.as_bytes()), base_location(body.as_bytes()));
        }
    }
}
