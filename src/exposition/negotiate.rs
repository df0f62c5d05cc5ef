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

/// Parses all values of a header; entries with a malformed quality are ignored. No scraper sends a quoted text that contains
/// a separator, so such a text is split like any other.
fn entries<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<AcceptEntry<'a>> {
    let values = values.into_iter();
    values
        .flat_map(|value| value.split(','))
        .filter_map(AcceptEntry::parse)
        .collect()
}

impl<'a> AcceptEntry<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Encoding, Format, encoding, format};

    const TEXT: Format = Format::Text;
    const OM: Format = Format::OpenMetrics;

    const PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7";

    fn assert_formats(cases: &[(&str, Format)]) {
        for (accept, expected) in cases {
            assert_eq!(format([*accept]), *expected, "{accept}");
        }
    }

    #[test]
    fn each_scraper_and_browser_gets_the_format_that_it_prefers() {
        let native_histograms = format!(
            "{PROTOBUF},application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
        let telegraf = format!("{PROTOBUF},text/plain;version=0.0.4;q=0.3,*/*;q=0.1");
        assert_formats(&[
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
            (&native_histograms, OM),
            // Prometheus 3 configured to ask for text first
            (
                "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;q=0.4,*/*;q=0.2",
                TEXT,
            ),
            // VictoriaMetrics, vmagent
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", TEXT),
            (&telegraf, TEXT),
            // curl, wget
            ("*/*", TEXT),
            // Firefox, Chromium
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
                TEXT,
            ),
        ]);
    }

    #[test]
    fn versions_qualities_and_the_most_precise_range_decide() {
        assert_formats(&[
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
                "text/plain;version=1.0.0,application/openmetrics-text;version=1.0.0;q=0.1",
                OM,
            ),
            // qualities
            ("application/openmetrics-text;q=0.3,text/plain;q=0.4", TEXT),
            ("text/plain;q=0.3,application/openmetrics-text;q=0.4", OM),
            ("application/openmetrics-text;q=0.0,*/*", TEXT),
            ("text/plain;q=0,*/*;q=0.1", OM),
            ("application/openmetrics-text;q=0,text/plain;q=0", TEXT),
            ("*/*;q=0", TEXT),
            // the most precise range decides, whatever the order
            ("application/openmetrics-text;q=0.1,*/*;q=0.9", TEXT),
            (
                "application/openmetrics-text;version=1.0.0;q=0.9,application/openmetrics-text;q=0.1,text/plain;q=0.5",
                OM,
            ),
        ]);
    }

    #[test]
    fn between_equal_qualities_a_named_format_wins_then_the_first() {
        assert_formats(&[
            ("application/openmetrics-text,text/plain", OM),
            ("text/plain,application/openmetrics-text", TEXT),
            (
                "text/plain;q=0.5,application/openmetrics-text;q=0.5,text/plain;q=0.5",
                TEXT,
            ),
            ("application/openmetrics-text,text/plain;version=0.0.4", OM),
            ("*/*,application/openmetrics-text", OM),
            ("text/*,application/openmetrics-text", OM),
            ("application/*", OM),
            ("application/*;q=0.5,text/*;q=0.6", TEXT),
            ("application/*;q=0,*/*", TEXT),
        ]);
    }

    #[test]
    fn a_malformed_header_gets_text() {
        for accept in ["", ",, ,", "openmetrics", "*"] {
            assert_eq!(format([accept]), TEXT, "{accept}");
        }
        for quality in ["high", "2", "-1", "NaN", ""] {
            let accept = format!("application/openmetrics-text;q={quality}");
            assert_eq!(format([&*accept]), TEXT, "{accept}");
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
        for accepted in [
            // Prometheus, curl --compressed, browsers
            "gzip",
            "deflate, gzip, br, zstd",
            "gzip, deflate, br",
            "GZIP",
            "x-gzip",
            "gzip;q=0.001",
            "gzip;q=1.0, identity; q=0.5, *;q=0",
            "gzip, identity",
            "identity;q=0, *",
        ] {
            assert_eq!(encoding([accepted]), Encoding::Gzip, "{accepted}");
        }
        for accepted in [
            "",
            "br",
            "identity",
            "*",
            "gzip ; q=0.000",
            "gzip;q=0, *",
            "gzip;q=0.5, identity",
            "*;q=0",
            "identity;q=0, *;q=0",
            "gzip;q=x",
            "gzipped",
        ] {
            assert_eq!(encoding([accepted]), Encoding::Identity, "{accepted}");
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
