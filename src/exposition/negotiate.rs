//! Picks the format and the encoding that a request prefers, from its `Accept` and `Accept-Encoding` headers (RFC 9110,
//! section 12.5). The answer is never "not acceptable": a client that accepts nothing we have gets plain text.

use std::cmp::Reverse;

use super::{Encoding, Format};

/// A media type that we can send.
struct Supported {
    media_type: &'static str,
    /// The range with a wildcard that covers it.
    wildcard: &'static str,
    versions: &'static [&'static str],
}

const TEXT: Supported = Supported {
    media_type: "text/plain",
    wildcard: "text/*",
    versions: &["0.0.4"],
};

/// 0.0.1 is a draft that old versions of Prometheus ask for; what we send is the same in it.
const OPENMETRICS: Supported = Supported {
    media_type: "application/openmetrics-text",
    wildcard: "application/*",
    versions: &["1.0.0", "0.0.1"],
};

/// Returns the preferred format for these values of `Accept`.
///
/// The most precise range that covers a format decides its quality. If both formats have the same quality, a format that
/// is named wins over one that only a wildcard covers, then the one that is named first, then the text format.
pub fn format<'a>(accept: impl IntoIterator<Item = &'a str>) -> Format {
    let entries = entries(accept);
    let preference = |supported: &Supported| {
        let covering = entries.iter().enumerate().filter_map(|(position, entry)| {
            Some((
                entry.precision(supported)?,
                entry.quality,
                Reverse(position),
            ))
        });
        let (precision, quality, position) = covering.max()?;
        (quality > 0).then_some((quality, precision >= Precision::MediaType, position))
    };
    if preference(&OPENMETRICS) > preference(&TEXT) {
        Format::OpenMetrics
    } else {
        Format::Text
    }
}

/// Returns the preferred encoding for these values of `Accept-Encoding`.
pub fn encoding<'a>(accept_encoding: impl IntoIterator<Item = &'a str>) -> Encoding {
    let entries = entries(accept_encoding);
    let quality = |name: &str| {
        let named = entries.iter().filter(|e| e.name.eq_ignore_ascii_case(name));
        named.map(|entry| entry.quality).max()
    };
    let gzip = quality("gzip").max(quality("x-gzip"));
    let use_gzip = match (gzip, quality("identity")) {
        (Some(gzip), identity) => gzip > 0 && gzip >= identity.unwrap_or(0),
        // A wildcard does not ask for gzip, but allows it when plain text is refused.
        (None, Some(0)) => quality("*") > Some(0),
        (None, _) => false,
    };
    if use_gzip {
        Encoding::Gzip
    } else {
        Encoding::Identity
    }
}

/// One entry of `Accept` or `Accept-Encoding`.
struct AcceptEntry<'a> {
    name: &'a str,
    version: Option<&'a str>,
    /// In thousandths.
    quality: u16,
}

/// How precisely an entry names a media type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    /// `*/*`
    Anything,
    /// `text/*`
    Wildcard,
    /// `text/plain`
    MediaType,
    /// `text/plain;version=0.0.4`
    Version,
}

/// Parses all values of a header; entries with a malformed quality are ignored.
fn entries<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<AcceptEntry<'a>> {
    let values = values.into_iter();
    values
        .flat_map(|value| split(value, ','))
        .filter_map(AcceptEntry::parse)
        .collect()
}

impl<'a> AcceptEntry<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = split(text, ';');
        let name = parts.next()?;
        let parameter = |wanted: &str| {
            parts.clone().find_map(|part| {
                let (key, value) = part.split_once('=')?;
                let matches = key.trim().eq_ignore_ascii_case(wanted);
                matches.then(|| value.trim().trim_matches('"'))
            })
        };
        let quality = match parameter("q") {
            None => 1.0,
            Some(text) => text.parse().ok().filter(|q| (0.0..=1.0).contains(q))?,
        };
        Some(Self {
            name,
            version: parameter("version"),
            quality: (quality * 1000.0_f64).round() as u16,
        })
    }

    /// Returns how precisely this entry names the media type, `None` if it does not cover it.
    fn precision(&self, supported: &Supported) -> Option<Precision> {
        let is = |name: &str| self.name.eq_ignore_ascii_case(name);
        if is("*/*") {
            Some(Precision::Anything)
        } else if is(supported.wildcard) {
            Some(Precision::Wildcard)
        } else if !is(supported.media_type) {
            None
        } else {
            match self.version {
                None => Some(Precision::MediaType),
                Some(version) => {
                    let known = supported.versions.contains(&version);
                    known.then_some(Precision::Version)
                }
            }
        }
    }
}

/// Splits at a separator that is not inside a quoted string, and trims the parts.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> + Clone {
    let (mut quoted, mut escaped) = (false, false);
    let is_separator = move |c: char| {
        let was_escaped = std::mem::take(&mut escaped);
        match c {
            _ if was_escaped => {}
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return c == separator && !quoted,
        }
        false
    };
    text.split(is_separator).map(str::trim)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Encoding, Format, encoding, format};

    const TEXT: Format = Format::Text;
    const OM: Format = Format::OpenMetrics;

    #[test]
    fn the_format_is_the_one_the_scraper_prefers() {
        for (accept, expected) in [
            // Prometheus 2.42
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OM,
            ),
            // Prometheus 2.5 to 2.41
            (
                "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OM,
            ),
            // Prometheus 3
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OM,
            ),
            // Prometheus 3 with native histograms
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OM,
            ),
            // Prometheus 3 told to ask for text first
            (
                "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;q=0.4,*/*;q=0.2",
                TEXT,
            ),
            // VictoriaMetrics, vmagent
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", TEXT),
            // Telegraf
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
                TEXT,
            ),
            // curl, wget
            ("*/*", TEXT),
            // Firefox, Chromium
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                TEXT,
            ),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
                TEXT,
            ),
            // empty
            ("", TEXT),
            (",, ,", TEXT),
            // named
            ("application/openmetrics-text", OM),
            (
                "Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8",
                OM,
            ),
            ("application/openmetrics-text; version=\"1.0.0\"", OM),
            ("text/plain", TEXT),
            // unsupported versions
            ("application/openmetrics-text;version=2.0.0", TEXT),
            (
                "application/openmetrics-text;version=2.0.0,text/plain;q=0.1",
                TEXT,
            ),
            ("text/plain;version=1.0.0", TEXT),
            (
                "text/plain;version=1.0.0,application/openmetrics-text;version=1.0.0;q=0.1",
                OM,
            ),
            // qualities
            ("application/openmetrics-text;q=0.3,text/plain;q=0.4", TEXT),
            ("application/openmetrics-text;q=0.4,text/plain;q=0.3", OM),
            ("text/plain;q=0.3,application/openmetrics-text;q=0.4", OM),
            ("application/openmetrics-text;q=0", TEXT),
            ("application/openmetrics-text;q=0.0,*/*", TEXT),
            ("text/plain;q=0,*/*;q=0.1", OM),
            ("application/openmetrics-text;q=0,text/plain;q=0", TEXT),
            ("*/*;q=0", TEXT),
            // ties: named before a wildcard, then the first
            ("application/openmetrics-text,text/plain", OM),
            ("text/plain,application/openmetrics-text", TEXT),
            ("application/openmetrics-text,text/plain;version=0.0.4", OM),
            ("*/*,application/openmetrics-text", OM),
            ("text/*,application/openmetrics-text", OM),
            // wildcards
            ("application/*", OM),
            ("application/*;q=0.5,text/*;q=0.6", TEXT),
            ("application/*;q=0,*/*", TEXT),
            // the most precise range decides, whatever the order
            ("application/openmetrics-text;q=0.1,*/*;q=0.9", TEXT),
            (
                "application/openmetrics-text;version=1.0.0;q=0.9,application/openmetrics-text;q=0.1,text/plain;q=0.5",
                OM,
            ),
            // not media ranges, not qualities
            ("application/openmetrics-text;q=high", TEXT),
            ("application/openmetrics-text;q=2", TEXT),
            ("application/openmetrics-text;q=-1", TEXT),
            ("application/openmetrics-text;q=NaN", TEXT),
            ("application/openmetrics-text;q=", TEXT),
            ("openmetrics", TEXT),
            ("*", TEXT),
            (
                "a/b;c=\"application/openmetrics-text,\\\",application/openmetrics-text\"",
                TEXT,
            ),
            ("a/b;c=\",\";q=0.1,application/openmetrics-text", OM),
        ] {
            assert_eq!(format([accept]), expected, "{accept}");
        }
    }

    #[test]
    fn the_first_mention_of_a_format_decides_its_position() {
        let accept = "text/plain;q=0.5,application/openmetrics-text;q=0.5,text/plain;q=0.5";
        assert_eq!(format([accept]), TEXT);
    }

    #[test]
    fn separators_in_quotes_do_not_separate() {
        for (accept, expected) in [
            (
                "text/plain;q=0.5;x=\",application/openmetrics-text,\"",
                TEXT,
            ),
            (
                r#"text/plain;q=0.5;x="\",application/openmetrics-text,""#,
                TEXT,
            ),
            // Outside quotes a backslash is an ordinary character.
            (r"x\,application/openmetrics-text", OM),
        ] {
            assert_eq!(format([accept]), expected, "{accept}");
        }
    }

    #[test]
    fn a_repeated_header_is_one_list() {
        assert_eq!(format([]), TEXT);
        assert_eq!(
            format(["text/plain;q=0.5", "application/openmetrics-text"]),
            OM
        );
        assert_eq!(encoding(["br", "gzip"]), Encoding::Gzip);
    }

    #[test]
    fn gzip_is_sent_only_to_clients_that_ask_for_it() {
        for (accepted, gzip) in [
            // Prometheus, VictoriaMetrics
            ("gzip", true),
            // curl --compressed
            ("deflate, gzip, br, zstd", true),
            // browsers
            ("gzip, deflate, br", true),
            ("GZIP", true),
            ("x-gzip", true),
            ("gzip;q=0.001", true),
            ("gzip;q=1.0, identity; q=0.5, *;q=0", true),
            ("gzip, identity", true),
            (",gzip", true),
            ("\"x\"\\, gzip", true),
            ("identity;q=0, *", true),
            ("", false),
            ("br", false),
            ("identity", false),
            ("*", false),
            ("gzip;q=0", false),
            ("gzip ; q=0.000", false),
            ("gzip;q=0, *", false),
            ("gzip;q=0.5, identity", false),
            ("*;q=0", false),
            ("identity;q=0", false),
            ("identity;q=0, *;q=0", false),
            ("gzip;q=x", false),
            ("gzipped", false),
            ("\"x, gzip, y\"", false),
        ] {
            let expected = if gzip {
                Encoding::Gzip
            } else {
                Encoding::Identity
            };
            assert_eq!(encoding([accepted]), expected, "{accepted}");
        }
        assert_eq!(encoding([]), Encoding::Identity);
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(header in "([,;=\"\\\\/* ]|q|0|1|\\.|text|plain|gzip|version){0,40}") {
            format([header.as_str()]);
            encoding([header.as_str()]);
        }
    }
}
