//! The spelling of the two formats: lines, escapes, numbers. What goes into them is `view`'s and `own`'s business.
//!
//! This is the hot path of a refresh: labels come escaped, everything is appended to one buffer, nothing goes through
//! `core::fmt`.

use super::{Filter, Format};

/// What a family is, as far as we have any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Gauge,
    Counter,
    /// A gauge in the text format.
    Info,
    Histogram,
}

/// Endings of names that are units: OpenMetrics says them in a line of their own.
const UNITS: &[&str] = &[
    "amperes", "bytes", "celsius", "grams", "hertz", "joules", "kelvin", "meters", "metres",
    "pascals", "ppb", "ppm", "ratio", "seconds", "ugm3", "volts", "watts",
];

/// Appends families to a buffer.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    format: Format,
    filter: &'a Filter,
    /// [`Writer::entries`] stops at this length.
    full: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, format: Format, filter: &'a Filter) -> Self {
        Self {
            out,
            format,
            filter,
            full: usize::MAX,
        }
    }

    /// Full once the buffer is so long.
    pub(super) fn until(self, full: usize) -> Self {
        Self { full, ..self }
    }

    /// Begins the family of this name in the text format; its samples must follow. False: the filter keeps it out.
    #[must_use]
    pub(super) fn family(&mut self, name: &str, kind: Type, help: &str) -> bool {
        if !self.filter.allows(name) {
            return false;
        }
        let (name, kind, unit) = match self.format {
            Format::Text => (name, text_type(kind), None),
            Format::OpenMetrics => openmetrics_type(name, kind),
        };
        self.metadata("# HELP ", name);
        escape_help(self.out, help, self.format);
        self.out.push(b'\n');
        self.metadata("# TYPE ", name);
        self.push(kind);
        self.out.push(b'\n');
        if let Some(unit) = unit {
            self.metadata("# UNIT ", name);
            self.push(unit);
            self.out.push(b'\n');
        }
        true
    }

    /// One line. `labels` and `more` are label pairs already spelt; either may be empty.
    #[inline]
    pub(super) fn sample(&mut self, name: &str, labels: &str, more: &str, value: f64) {
        /// Of the longest number, and what stands between the parts.
        const ROOM: usize = 32;
        self.out
            .reserve(name.len() + labels.len() + more.len() + ROOM);
        self.push(name);
        if !(labels.is_empty() && more.is_empty()) {
            self.out.push(b'{');
            self.push(labels);
            if !labels.is_empty() && !more.is_empty() {
                self.out.push(b',');
            }
            self.push(more);
            self.out.push(b'}');
        }
        self.out.push(b' ');
        push_number(self.out, value);
        self.out.push(b'\n');
    }

    /// Has each entry from `from` on written, with its index, until the buffer is full, one at least. Yields the entry to
    /// go on from; 0 = all are written.
    pub(super) fn entries<T>(
        &mut self,
        entries: &[T],
        from: usize,
        mut write: impl FnMut(&mut Self, usize, &T),
    ) -> usize {
        for (at, entry) in entries.iter().enumerate().skip(from) {
            write(self, at, entry);
            if self.out.len() >= self.full && at + 1 < entries.len() {
                return at + 1;
            }
        }
        0
    }

    /// Ends the body, where the format has an end.
    pub(super) fn end(&mut self) {
        if self.format == Format::OpenMetrics {
            self.push("# EOF\n");
        }
    }

    fn metadata(&mut self, keyword: &str, name: &str) {
        self.push(keyword);
        self.push(name);
        self.out.push(b' ');
    }

    fn push(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }
}

fn text_type(kind: Type) -> &'static str {
    match kind {
        Type::Gauge | Type::Info => "gauge",
        Type::Counter => "counter",
        Type::Histogram => "histogram",
    }
}

/// Name, type and unit of the family in OpenMetrics, where `_total` and `_info` belong to the samples alone.
fn openmetrics_type(name: &str, kind: Type) -> (&str, &'static str, Option<&'static str>) {
    let (family, kind) = match kind {
        Type::Gauge => (name, "gauge"),
        Type::Histogram => (name, "histogram"),
        Type::Counter => (name.strip_suffix("_total").unwrap_or(name), "counter"),
        // An info has no unit, whatever it is called.
        Type::Info => return (name.strip_suffix("_info").unwrap_or(name), "info", None),
    };
    let unit = family
        .rsplit_once('_')
        .and_then(|(_, last)| UNITS.iter().copied().find(|unit| *unit == last));
    (family, kind, unit)
}

fn escape_help(out: &mut Vec<u8>, help: &str, format: Format) {
    for byte in help.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            // In the text format a backslash before a quote would be read as a backslash.
            b'"' if format == Format::OpenMetrics => out.extend_from_slice(b"\\\""),
            byte => out.push(byte),
        }
    }
}

/// A text that reads back as the same number; integers as such, others with as few digits as that takes.
pub(super) fn push_number(out: &mut Vec<u8>, value: f64) {
    #[allow(clippy::cast_possible_truncation)] // saturates, and is compared with what it came from
    let whole = value as i64;
    #[allow(clippy::cast_precision_loss)] // exact where it is used
    if whole as f64 == value {
        out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
    } else if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: f64) -> String {
        let mut out = Vec::new();
        push_number(&mut out, value);
        String::from_utf8(out).expect("ASCII")
    }

    fn family(format: Format, name: &str, kind: Type, help: &str) -> String {
        let mut out = Vec::new();
        let filter = Filter::default();
        assert!(Writer::new(&mut out, format, &filter).family(name, kind, help));
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn numbers_read_back_as_they_were() {
        for (value, text) in [
            (0.0, "0"),
            (21.0, "21"),
            (-1.0, "-1"),
            (21.4, "21.4"),
            (0.57, "0.57"),
            (1_716_301_234.5, "1716301234.5"),
            (1_716_301_234.0, "1716301234"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (1e18, "1000000000000000000"),
            (-9_223_372_036_854_775_808.0, "-9223372036854775808"),
            (1e19, "1e+19"),
            (1e300, "1e+300"),
            (-1.5e-9, "-1.5e-9"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(value), text);
            let back: f64 = text.parse().expect("a number");
            assert!(back == value || back.is_nan() && value.is_nan(), "{text}");
        }
    }

    #[test]
    fn the_text_format_names_a_family_as_its_samples() {
        assert_eq!(
            family(
                Format::Text,
                "a_joules_total",
                Type::Counter,
                "say \"a\\b\"\nc"
            ),
            "# HELP a_joules_total say \"a\\\\b\"\\nc\n# TYPE a_joules_total counter\n"
        );
        assert_eq!(
            family(Format::Text, "a_info", Type::Info, "A"),
            "# HELP a_info A\n# TYPE a_info gauge\n"
        );
    }

    #[test]
    fn openmetrics_strips_total_and_info_and_says_the_unit() {
        assert_eq!(
            family(
                Format::OpenMetrics,
                "a_joules_total",
                Type::Counter,
                "say \"a\\b\"\nc"
            ),
            "# HELP a_joules say \\\"a\\\\b\\\"\\nc\n# TYPE a_joules counter\n# UNIT a_joules joules\n"
        );
        assert_eq!(
            family(Format::OpenMetrics, "a_seconds_info", Type::Info, "A"),
            "# HELP a_seconds A\n# TYPE a_seconds info\n"
        );
        assert_eq!(
            family(Format::OpenMetrics, "seconds", Type::Gauge, "A"),
            "# HELP seconds A\n# TYPE seconds gauge\n"
        );
    }

    #[test]
    fn a_sample_has_braces_only_around_labels() {
        let mut out = Vec::new();
        let filter = Filter::default();
        let mut writer = Writer::new(&mut out, Format::Text, &filter);
        writer.sample("a", "", "", 1.0);
        writer.sample("a", "b=\"c\"", "", 1.0);
        writer.sample("a", "", "d=\"e\"", 1.0);
        writer.sample("a", "b=\"c\"", "d=\"e\"", 1.5);
        assert_eq!(
            out,
            b"a 1\na{b=\"c\"} 1\na{d=\"e\"} 1\na{b=\"c\",d=\"e\"} 1.5\n"
        );
    }
}
