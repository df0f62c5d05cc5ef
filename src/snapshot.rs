//! The result of one collection: immutable and replaced whole.
//!
//! Belongs here: the sensors with their readings, as the API sent them (`var_name`, time, value), and how the collection
//! went. Readings are not converted, so that a renamed sensor or an overridden variable needs no request. Does not belong
//! here: I/O, clocks, and decisions on what is shown. `collector` makes snapshots; `exposition`, `web` and `cli` read them.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

/// Unix seconds with fraction, as the API sends them.
pub type UnixTime = f64;

/// Everything one scrape may show of the sensors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The known sensors, ordered by id, each once.
    pub sensors: Vec<Sensor>,
    /// How the last collection went.
    pub summary: Summary,
}

/// One sensor after a collection.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensor {
    /// The sensor's id, name, location and labels.
    pub identity: Arc<Identity>,
    /// The readings of the last successful read, at most one per variable. A counter's reading may be older.
    pub readings: Arc<[Reading]>,
    /// The skipped readings of the last successful read.
    pub skipped: SkippedReadings,
    /// Whether the last read that covered the sensor succeeded; `None` before the first one has ended.
    pub read: Option<bool>,
    /// When the last successful read ended.
    pub last_success: Option<UnixTime>,
}

/// How the last collection went.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Summary {
    /// The collection had a good token and at least one request succeeded, or it needed none.
    pub up: bool,
    /// The time from its start to its end.
    pub duration: Duration,
    /// When the last collection that was `up` ended.
    pub last_success: Option<UnixTime>,
    /// The number of sensors whose last read failed.
    pub sensors_failed: usize,
    /// The number of locations whose last request failed.
    pub locations_failed: usize,
    /// The number of sensors left out because of `collect.max_series`.
    pub sensors_dropped: usize,
    /// The number of readings left out because of `collect.max_series`, or because their sensor has too many variables.
    pub readings_dropped: usize,
    /// The effective interval: as configured, or longer where the rate limit requires it.
    pub interval: Duration,
}

/// One reading as the API sent it; `time` and `value` are finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The `catalog::canonical` name of the variable.
    pub var_name: Cow<'static, str>,
    /// When it was measured.
    pub time: UnixTime,
    /// The value in the vendor's unit.
    pub value: f64,
}

/// Why a reading is not shown: the label `reason` of `lightfi_collect_readings_skipped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// The value or the time is null or missing.
    Null,
    /// The item is not of the known shape, or the value is impossible (a negative meter reading).
    Malformed,
    /// The value is not a finite number, as sent or after conversion.
    NonFinite,
    /// The time is more than an hour ahead of this machine's clock.
    Future,
    /// A counter's reading is older than the one already held.
    Older,
}

impl SkipReason {
    /// All reasons, in the order of the exposition.
    pub const ALL: [Self; 5] = [
        Self::Null,
        Self::Malformed,
        Self::NonFinite,
        Self::Future,
        Self::Older,
    ];

    /// Returns the label value.
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

/// The number of skipped readings by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SkippedReadings([u32; SkipReason::ALL.len()]);

impl SkippedReadings {
    /// Counts one skipped reading.
    pub fn count(&mut self, reason: SkipReason) {
        self.0[reason as usize] = self.0[reason as usize].saturating_add(1);
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
    }

    /// Returns the count of one reason.
    pub fn of(&self, reason: SkipReason) -> u32 {
        self.0[reason as usize]
    }
}

/// The labels that identify a sensor. Their texts are escaped once, here, and not in every scrape.
#[derive(Debug, PartialEq)]
pub struct Identity {
    /// The API's id.
    pub id: Arc<str>,
    /// The configured name, else the API's; never empty.
    pub name: Option<Arc<str>>,
    /// A path such as `HQ / Floor 3`; never empty.
    pub location: Option<Arc<str>>,
    /// The API's id of the location in which the sensor was found; never empty.
    pub location_id: Option<Arc<str>>,
    /// The configured labels, for `lightfi_sensor_info` only.
    pub labels: BTreeMap<String, String>,
    series_labels: Box<str>,
    info_labels: Box<str>,
}

impl Identity {
    /// Builds the label texts. An empty text counts as absent, because Prometheus treats an empty label as none.
    pub fn new(
        id: Arc<str>,
        name: Option<Arc<str>>,
        location: Option<Arc<str>>,
        location_id: Option<Arc<str>>,
        labels: BTreeMap<String, String>,
    ) -> Self {
        let [name, location, location_id] =
            [name, location, location_id].map(|text| text.filter(|text| !text.is_empty()));
        let mut series_labels = String::new();
        push_label(&mut series_labels, "sensor_id", &id);
        push_label(&mut series_labels, "sensor", name.as_ref().unwrap_or(&id));
        push_label(
            &mut series_labels,
            "location",
            location.as_deref().unwrap_or_default(),
        );
        let mut info_labels = String::new();
        push_label(&mut info_labels, "model", model(&id).unwrap_or_default());
        push_label(
            &mut info_labels,
            "location_id",
            location_id.as_deref().unwrap_or_default(),
        );
        for (label, value) in &labels {
            push_label(&mut info_labels, label, value);
        }
        Self {
            id,
            name,
            location,
            location_id,
            labels,
            series_labels: series_labels.into(),
            info_labels: info_labels.into(),
        }
    }

    /// Returns the labels of every series of the sensor, without braces: `sensor_id="…",sensor="…",location="…"`.
    pub fn series_labels(&self) -> &str {
        &self.series_labels
    }

    /// Returns the further labels of `lightfi_sensor_info`: `model="…",location_id="…",desk="12"`; may be empty.
    pub fn info_labels(&self) -> &str {
        &self.info_labels
    }

    /// Returns the marketing name such as `Alpine`, else the id's prefix.
    pub fn model(&self) -> Option<&str> {
        model(&self.id)
    }
}

/// Maps the id's prefix to the model, as in the vendor's "Sensor Overview".
fn model(id: &str) -> Option<&str> {
    let (prefix, _) = id.split_once('-')?;
    match prefix {
        "" => None,
        "LF" => Some("BASE"),
        "LF5" => Some("Sahara"),
        "AQ2" => Some("Alpine"),
        "MS1" => Some("Hoth"),
        "AMP" => Some("X1"),
        other => Some(other),
    }
}

/// Appends `label="value"`, after a comma if `text` is not empty. Omits a label whose value is empty.
pub fn push_label(text: &mut String, label: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(label);
    text.push_str("=\"");
    for character in value.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            plain => text.push(plain),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: &str, name: &str, location: &str, location_id: &str) -> Identity {
        let [name, location, location_id] =
            [name, location, location_id].map(|text| Some(text.into()));
        let labels = [("desk", "12"), ("empty", "")];
        let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned()));
        Identity::new(id.into(), name, location, location_id, labels.into())
    }

    #[test]
    fn label_values_are_escaped_and_empty_labels_omitted() {
        for (value, expected) in [
            ("plain", r#"a="1",l="plain""#),
            (r#"say "hi""#, r#"a="1",l="say \"hi\"""#),
            (r"back\slash\", r#"a="1",l="back\\slash\\""#),
            ("two\nlines", r#"a="1",l="two\nlines""#),
            (r"two\nlines", r#"a="1",l="two\\nlines""#),
            ("a\r\t\0😀", "a=\"1\",l=\"a\r\t\0😀\""),
            ("", r#"a="1""#),
        ] {
            let mut text = String::new();
            push_label(&mut text, "a", "1");
            push_label(&mut text, "l", value);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn series_labels_name_the_sensor_and_its_location_and_info_labels_the_rest() {
        let full = identity("AQ2-1", "Boardroom", "HQ / Floor 3", "77");
        assert_eq!(
            full.series_labels(),
            r#"sensor_id="AQ2-1",sensor="Boardroom",location="HQ / Floor 3""#
        );
        assert_eq!(
            full.info_labels(),
            r#"model="Alpine",location_id="77",desk="12""#
        );
        let unnamed = identity("unknown", "", "", "");
        assert_eq!(
            unnamed.series_labels(),
            r#"sensor_id="unknown",sensor="unknown""#
        );
        assert_eq!(unnamed.info_labels(), r#"desk="12""#);
        assert_eq!(
            (&unnamed.name, &unnamed.location, &unnamed.location_id),
            (&None, &None, &None)
        );
    }

    #[test]
    fn the_prefix_of_the_id_names_the_model() {
        for (id, model) in [
            ("LF-0A1B2C3D4E5F", Some("BASE")),
            ("LF5-0A1B2C3D4E5F", Some("Sahara")),
            ("AQ2-FE753C0D7ADF", Some("Alpine")),
            ("MS1-FE753C0D7ADF", Some("Hoth")),
            ("AMP-FE753C0D7ADF", Some("X1")),
            ("HAL-a-b", Some("HAL")),
            ("-FE753C0D7ADF", None),
            ("FE753C0D7ADF", None),
            ("", None),
        ] {
            assert_eq!(identity(id, "", "", "").model(), model, "{id}");
        }
    }
}
