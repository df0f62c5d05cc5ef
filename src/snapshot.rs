//! What one collection knows: immutable, raw, and complete.
//!
//! Readings are kept as the API gave them (`var_name`, time, value), so that a renamed sensor or an overridden variable
//! needs no fetch. Made by `collector`, read by `exposition` and `web`. Pure: no I/O, no clock.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Unix seconds with fraction, as the API gives them.
pub type UnixTime = f64;

/// One reading as the API gave it; `time` and `value` are finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// By its `catalog::canonical` name; shared between sensors.
    pub var_name: Arc<str>,
    /// When it was measured.
    pub time: UnixTime,
    /// In the vendor's unit.
    pub value: f64,
}

/// Why a reading is not shown: the `reason` of `lightfi_collect_readings_skipped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// Value or time is null or missing.
    Null,
    /// The item is not of the known shape, or the value cannot be (a meter below zero).
    Malformed,
    /// Not a finite number, as given or after conversion.
    NonFinite,
    /// More than an hour ahead of this machine's clock.
    Future,
    /// Of a counter: older than the reading held.
    Older,
}

impl Skip {
    /// The closed set, in the order of the exposition.
    pub const ALL: [Self; 5] = [
        Self::Null,
        Self::Malformed,
        Self::NonFinite,
        Self::Future,
        Self::Older,
    ];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Malformed => "malformed",
            Self::NonFinite => "non_finite",
            Self::Future => "future",
            Self::Older => "older",
        }
    }
}

/// How many readings were skipped, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped([u32; 5]);

impl Skipped {
    /// Counts one.
    pub fn count(&mut self, skip: Skip) {
        self.0[skip as usize] = self.0[skip as usize].saturating_add(1);
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_add(theirs);
        }
    }

    /// The count of one reason.
    pub fn of(&self, skip: Skip) -> u32 {
        self.0[skip as usize]
    }
}

/// Who a sensor is: what goes into labels.
#[derive(Debug, PartialEq)]
pub struct Identity {
    /// The API's id.
    pub id: Arc<str>,
    /// Configured or the API's; never empty.
    pub name: Option<Arc<str>>,
    /// Path such as `HQ / Floor 3`; never empty.
    pub location: Option<Arc<str>>,
    /// The API's id of the location it was found in.
    pub location_id: Option<Arc<str>>,
    /// Configured, for `lightfi_sensor_info` only.
    pub labels: BTreeMap<String, String>,
    info_labels: Box<str>,
}

impl Identity {
    /// Writes the labels' text. Empty texts count as absent, as Prometheus holds an empty label for none.
    pub fn new(
        id: Arc<str>,
        name: Option<Arc<str>>,
        location: Option<Arc<str>>,
        location_id: Option<Arc<str>>,
        labels: BTreeMap<String, String>,
    ) -> Self {
        let [name, location, location_id] =
            [name, location, location_id].map(|text| text.filter(|text| !text.is_empty()));
        let mut info = String::new();
        push_label(&mut info, "model", model(&id).unwrap_or_default());
        push_label(
            &mut info,
            "location_id",
            location_id.as_deref().unwrap_or_default(),
        );
        for (label, value) in &labels {
            push_label(&mut info, label, value);
        }
        Self {
            id,
            name,
            location,
            location_id,
            labels,
            info_labels: info.into(),
        }
    }

    /// What `lightfi_sensor_info` has beside the labels of every series: `model="…",location_id="…",desk="12"`; may be empty.
    pub fn info_labels(&self) -> &str {
        &self.info_labels
    }

    /// The marketing name such as `Alpine`, else the id's prefix.
    pub fn model(&self) -> Option<&str> {
        model(&self.id)
    }
}

/// Appends `label="value"`, with a comma where text stands before it; an empty value is left out.
pub fn push_label(text: &mut String, label: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(label);
    text.push_str("=\"");
    let mut rest = value;
    // Whole stretches at a time: there is seldom anything to escape.
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        let (plain, special) = rest.split_at(at);
        text.push_str(plain);
        text.push_str(match special.as_bytes()[0] {
            b'\n' => "\\n",
            b'"' => "\\\"",
            _ => "\\\\",
        });
        rest = &special[1..];
    }
    text.push_str(rest);
    text.push('"');
}

/// Facts from the vendor's "Sensor Overview".
fn model(id: &str) -> Option<&str> {
    let (prefix, _) = id.split_once('-')?;
    Some(match prefix {
        "LF" => "BASE",
        "LF5" => "Sahara",
        "AQ2" => "Alpine",
        "MS1" => "Hoth",
        "AMP" => "X1",
        other => other,
    })
    .filter(|model| !model.is_empty())
}

/// One sensor after a collection.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensor {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// At most one per variable, of the last successful read (a counter's may be older).
    pub readings: Arc<[Reading]>,
    /// Of the last successful read.
    pub skipped: Skipped,
    /// How the last read that covered it ended; `None` before the first one has.
    pub read: Option<bool>,
    /// When the last successful read ended.
    pub last_success: Option<UnixTime>,
}

/// How the last collection went.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Summary {
    /// It had a good token and at least one request succeeded, or it needed none.
    pub up: bool,
    /// Start to end.
    pub duration: Duration,
    /// When the last collection that was `up` ended.
    pub last_success: Option<UnixTime>,
    /// Whose last read failed.
    pub sensors_failed: usize,
    /// Whose last request failed.
    pub locations_failed: usize,
    /// Left out, so as not to make more series than allowed.
    pub sensors_dropped: usize,
    /// Left out for the same reason, or as too many of one sensor.
    pub readings_dropped: usize,
    /// The interval in force: as configured, or stretched to fit the rate limit.
    pub interval: Duration,
}

/// The labels of every series of each sensor, escaped once for as long as none of them changes. They stand in one text:
/// a body has them a dozen times over, and memory is read fastest in a row.
#[derive(Debug, Default, PartialEq)]
pub struct SeriesLabels {
    /// Whose they are.
    identities: Box<[Arc<Identity>]>,
    text: Box<str>,
    /// Where in `text` those of each sensor end.
    ends: Box<[usize]>,
}

impl SeriesLabels {
    /// Writes those of these sensors.
    fn of(sensors: &[Sensor]) -> Self {
        let mut text = String::new();
        let mut label = String::new();
        let mut ends = Vec::with_capacity(sensors.len());
        for Sensor { identity, .. } in sensors {
            let Identity {
                id, name, location, ..
            } = &**identity;
            label.clear();
            push_label(&mut label, "sensor_id", id);
            push_label(&mut label, "sensor", name.as_deref().unwrap_or(id));
            push_label(
                &mut label,
                "location",
                location.as_deref().unwrap_or_default(),
            );
            text.push_str(&label);
            ends.push(text.len());
        }
        Self {
            identities: sensors.iter().map(|s| s.identity.clone()).collect(),
            text: text.into(),
            ends: ends.into(),
        }
    }

    /// Whether they are those of these sensors, in this order.
    fn are_of(&self, sensors: &[Sensor]) -> bool {
        let same = |(mine, sensor): (&Arc<_>, &Sensor)| Arc::ptr_eq(mine, &sensor.identity);
        self.identities.len() == sensors.len() && self.identities.iter().zip(sensors).all(same)
    }

    /// `sensor_id="…",sensor="…",location="…"`, without braces, of the sensor at this index of the snapshot.
    pub fn at(&self, sensor: usize) -> &str {
        let start = sensor.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[sensor]]
    }

    /// Bytes of the text of all.
    pub fn size(&self) -> usize {
        self.text.len()
    }
}

/// Everything one scrape may show of the sensors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Known sensors, by id, each once.
    pub sensors: Vec<Sensor>,
    /// How the last collection went.
    pub summary: Summary,
    labels: Arc<SeriesLabels>,
}

impl Snapshot {
    /// Of these sensors, by id.
    pub fn new(sensors: Vec<Sensor>, summary: Summary) -> Self {
        Self::after(&Arc::default(), sensors, summary)
    }

    /// The same after another one that had these labels: where the sensors are still the same, so are they.
    pub fn after(labels: &Arc<SeriesLabels>, sensors: Vec<Sensor>, summary: Summary) -> Self {
        let labels = if labels.are_of(&sensors) {
            labels.clone()
        } else {
            SeriesLabels::of(&sensors).into()
        };
        Self {
            sensors,
            summary,
            labels,
        }
    }

    /// What tells the sensors' series apart.
    pub fn labels(&self) -> &Arc<SeriesLabels> {
        &self.labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: &str, name: &str, location: &str, location_id: &str) -> Identity {
        let [name, location, location_id] =
            [name, location, location_id].map(|text| Some(text.into()));
        Identity::new(id.into(), name, location, location_id, BTreeMap::new())
    }

    fn sensor(identity: Identity) -> Sensor {
        Sensor {
            identity: Arc::new(identity),
            readings: Arc::default(),
            skipped: Skipped::default(),
            read: None,
            last_success: None,
        }
    }

    #[test]
    fn a_label_is_escaped_as_both_formats_want_it() {
        for (value, escaped) in [
            ("plain", r#"l="plain""#),
            (r#"say "hi""#, r#"l="say \"hi\"""#),
            (r"back\slash\", r#"l="back\\slash\\""#),
            ("two\nlines", r#"l="two\nlines""#),
            (r"two\nlines", r#"l="two\\nlines""#),
            ("\"", r#"l="\"""#),
            ("a\r\t\0😀", "l=\"a\r\t\0😀\""),
            ("", ""),
        ] {
            let mut text = String::new();
            push_label(&mut text, "l", value);
            assert_eq!(text, escaped);
        }
    }

    #[test]
    fn labels_stand_between_commas_and_empty_ones_do_not_stand() {
        let mut text = String::new();
        for (label, value) in [("a", ""), ("b", "1"), ("c", ""), ("d", "2")] {
            push_label(&mut text, label, value);
        }
        assert_eq!(text, r#"b="1",d="2""#);
    }

    #[test]
    fn every_series_says_which_sensor_and_where() {
        let whole = sensor(identity("AQ2-1", "Boardroom", "HQ / Floor 3", "77"));
        let bare = sensor(identity("AQ2-2", "", "", ""));
        let snapshot = Snapshot::new(vec![whole, bare.clone()], Summary::default());
        assert_eq!(
            [0, 1].map(|index| snapshot.labels().at(index)),
            [
                r#"sensor_id="AQ2-1",sensor="Boardroom",location="HQ / Floor 3""#,
                r#"sensor_id="AQ2-2",sensor="AQ2-2""#
            ]
        );
        let bare = &bare.identity;
        assert_eq!(
            (&bare.name, &bare.location, &bare.location_id),
            (&None, &None, &None)
        );
    }

    #[test]
    fn labels_are_kept_while_the_sensors_are_the_same() {
        let [one, two] = ["AQ2-1", "AQ2-2"].map(|id| sensor(identity(id, "", "", "")));
        let of = |sensors: &[&Sensor], before: &Snapshot| {
            let sensors = sensors.iter().copied().cloned().collect();
            Snapshot::after(before.labels(), sensors, Summary::default())
        };
        let both = of(&[&one, &two], &Snapshot::default());
        let again = of(&[&one, &two], &both);
        assert!(Arc::ptr_eq(both.labels(), again.labels()));
        let renamed = sensor(identity("AQ2-2", "Boardroom", "", ""));
        for (others, last) in [
            (
                vec![&one, &renamed],
                r#"sensor_id="AQ2-2",sensor="Boardroom""#,
            ),
            (vec![&two, &one], r#"sensor_id="AQ2-1",sensor="AQ2-1""#),
            (vec![&one], r#"sensor_id="AQ2-1",sensor="AQ2-1""#),
        ] {
            let other = of(&others, &both);
            assert_eq!(other.labels().at(others.len() - 1), last);
        }
    }

    #[test]
    fn the_info_adds_what_belongs_nowhere_else() {
        let labels = BTreeMap::from([
            ("desk".to_owned(), "12".to_owned()),
            ("none".to_owned(), String::new()),
        ]);
        let some = |text: &str| Some(text.into());
        let whole = Identity::new("AQ2-1".into(), some("A"), some("HQ"), some("77"), labels);
        assert_eq!(
            whole.info_labels(),
            r#"model="Alpine",location_id="77",desk="12""#
        );
        assert_eq!(identity("nameless", "", "", "").info_labels(), "");
    }

    #[test]
    fn a_model_is_known_by_the_ids_prefix() {
        for (id, model) in [
            ("LF-0A1B2C3D4E5F", Some("BASE")),
            ("LF5-0A1B2C3D4E5F", Some("Sahara")),
            ("AQ2-FE753C0D7ADF", Some("Alpine")),
            ("MS1-FE753C0D7ADF", Some("Hoth")),
            ("AMP-FE753C0D7ADF", Some("X1")),
            ("HAL-FE753C0D7ADF", Some("HAL")),
            ("HAL-a-b", Some("HAL")),
            ("-FE753C0D7ADF", None),
            ("FE753C0D7ADF", None),
            ("", None),
        ] {
            assert_eq!(identity(id, "", "", "").model(), model, "{id}");
        }
    }

    #[test]
    fn skipped_readings_add_up_by_reason() {
        let mut one = Skipped::default();
        one.count(Skip::Null);
        one.count(Skip::Older);
        let mut sum = one;
        sum.count(Skip::Older);
        sum.add(&one);
        let counts = Skip::ALL.map(|skip| sum.of(skip));
        assert_eq!(counts, [2, 0, 0, 0, 3]);
    }

    #[test]
    fn reasons_are_the_words_of_the_contract() {
        let words = Skip::ALL.map(Skip::as_str);
        assert_eq!(
            words,
            ["null", "malformed", "non_finite", "future", "older"]
        );
    }
}
