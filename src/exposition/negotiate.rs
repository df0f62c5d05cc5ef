//! Which format and encoding a request wants, by its `Accept` and `Accept-Encoding` headers (RFC 9110, 12.5).
//!
//! Never "not acceptable": a scraper that asks for what we do not speak gets the text format as it is. Headers come as
//! bytes, each as often as it was sent; linear in their length.

use std::iter;

use super::{Encoding, Format};

/// A media type that we send.
struct Spoken {
    format: Format,
    kind: &'static [u8],
    subtype: &'static [u8],
    /// What `version` may say; it may also say nothing.
    versions: &'static [&'static [u8]],
}

/// Text first: so it is where nothing speaks for the other.
const SPOKEN: [Spoken; 2] = [
    Spoken {
        format: Format::Text,
        kind: b"text",
        subtype: b"plain",
        versions: &[b"0.0.4"],
    },
    // 0.0.1 is the draft that Prometheus also asks for; nothing we send differs in it.
    Spoken {
        format: Format::OpenMetrics,
        kind: b"application",
        subtype: b"openmetrics-text",
        versions: &[b"1.0.0", b"0.0.1"],
    },
];

/// The format for these values of `Accept`.
///
/// By the quality of the most precise range that covers a format. Between equals one that is named wins over one that
/// a wildcard covers, then the one named first, as the Prometheus client libraries do; then text.
pub fn format<'a>(accept: impl IntoIterator<Item = &'a [u8]>) -> Format {
    let mut bids = [None; SPOKEN.len()];
    let ranges = accept.into_iter().flat_map(|value| split(value, b','));
    for (position, range) in ranges.filter_map(MediaRange::parse).enumerate() {
        for (bid, spoken) in bids.iter_mut().zip(&SPOKEN) {
            let Some(precision) = range.precision(spoken) else {
                continue;
            };
            let new = Bid {
                precision,
                quality: range.quality,
                position,
            };
            if bid
                .is_none_or(|old: Bid| (new.precision, new.quality) > (old.precision, old.quality))
            {
                *bid = Some(new);
            }
        }
    }
    let mut best: Option<(Format, Bid)> = None;
    for (bid, spoken) in bids.into_iter().zip(&SPOKEN) {
        let Some(bid) = bid.filter(|bid| bid.quality > 0) else {
            continue;
        };
        if best.is_none_or(|(_, best)| bid.is_preferred_to(best)) {
            best = Some((spoken.format, bid));
        }
    }
    best.map_or(Format::Text, |(format, _)| format)
}

/// The encoding for these values of `Accept-Encoding`: gzip only for who asks for it at least as much as for none.
pub fn encoding<'a>(accept_encoding: impl IntoIterator<Item = &'a [u8]>) -> Encoding {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    let codings = accept_encoding
        .into_iter()
        .flat_map(|value| split(value, b','));
    for coding in codings {
        let mut parts = split(coding, b';');
        let name = parts.next().unwrap_or_default();
        let mut qualities = parts
            .filter_map(parameter)
            .filter(|(key, _)| key.eq_ignore_ascii_case(b"q"));
        let Some(quality) = thousandths(qualities.next().map(|(_, value)| value)) else {
            continue;
        };
        let slot = if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") {
            &mut gzip
        } else if name.eq_ignore_ascii_case(b"identity") {
            &mut identity
        } else if name == b"*" {
            &mut any
        } else {
            continue;
        };
        *slot = Some(slot.unwrap_or(0).max(quality));
    }
    // A wildcard covers gzip, but does not ask for it: it matters to who refuses the plain body.
    let wanted = match (gzip, identity) {
        (Some(gzip), identity) => gzip > 0 && gzip >= identity.unwrap_or(0),
        (None, Some(0)) => any.is_some_and(|any| any > 0),
        (None, _) => false,
    };
    if wanted {
        Encoding::Gzip
    } else {
        Encoding::Identity
    }
}

/// What speaks for a format.
#[derive(Clone, Copy)]
struct Bid {
    precision: Precision,
    quality: u16,
    position: usize,
}

impl Bid {
    fn is_preferred_to(self, other: Self) -> bool {
        let named = |bid: Self| bid.precision >= Precision::Named;
        let by_strength = (self.quality, named(self)).cmp(&(other.quality, named(other)));
        by_strength.then(other.position.cmp(&self.position)).is_gt()
    }
}

/// How precisely a range names a media type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    /// `*/*`
    Anything,
    /// `text/*`
    Kind,
    /// `text/plain`
    Named,
    /// `text/plain;version=0.0.4`
    Version,
}

struct MediaRange<'a> {
    kind: &'a [u8],
    subtype: &'a [u8],
    version: Option<&'a [u8]>,
    quality: u16,
}

impl<'a> MediaRange<'a> {
    /// `None` for what is no media range: it says nothing.
    fn parse(range: &'a [u8]) -> Option<Self> {
        let mut parts = split(range, b';');
        let name = parts.next()?;
        let slash = name.iter().position(|byte| *byte == b'/')?;
        let (mut version, mut quality) = (None, None);
        for (key, value) in parts.filter_map(parameter) {
            if key.eq_ignore_ascii_case(b"version") {
                version.get_or_insert(value);
            } else if key.eq_ignore_ascii_case(b"q") {
                quality.get_or_insert(value);
            }
        }
        Some(Self {
            kind: &name[..slash],
            subtype: &name[slash + 1..],
            version,
            quality: thousandths(quality)?,
        })
    }

    /// `None`: does not cover this type.
    fn precision(&self, spoken: &Spoken) -> Option<Precision> {
        if self.kind == b"*" && self.subtype == b"*" {
            return Some(Precision::Anything);
        }
        if !self.kind.eq_ignore_ascii_case(spoken.kind) {
            return None;
        }
        if self.subtype == b"*" {
            return Some(Precision::Kind);
        }
        if !self.subtype.eq_ignore_ascii_case(spoken.subtype) {
            return None;
        }
        match self.version {
            None => Some(Precision::Named),
            Some(version) => spoken
                .versions
                .contains(&version)
                .then_some(Precision::Version),
        }
    }
}

/// A quality; the highest where none is given, `None` where it cannot be read.
fn thousandths(quality: Option<&[u8]>) -> Option<u16> {
    let Some(text) = quality else {
        return Some(1000);
    };
    let quality: f64 = str::from_utf8(text).ok()?.parse().ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 1000
    (0.0..=1.0)
        .contains(&quality)
        .then(|| (quality * 1000.0).round() as u16)
}

/// The key of a parameter, and its value without quotes.
fn parameter(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = part.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (part[..equals].trim_ascii(), part[equals + 1..].trim_ascii());
    let unquoted = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""));
    Some((key, unquoted.unwrap_or(value)))
}

/// Splits at `separator` outside quotes; without the white space around the pieces.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    iter::from_fn(move || {
        let text = rest?;
        let piece = match end_of_piece(text, separator) {
            Some(end) => {
                rest = Some(&text[end + 1..]);
                &text[..end]
            }
            None => {
                rest = None;
                text
            }
        };
        Some(piece.trim_ascii())
    })
}

/// Where the first `separator` outside quotes is.
fn end_of_piece(text: &[u8], separator: u8) -> Option<usize> {
    // Scrapers quote nothing, and ask thousands of times.
    let first = text
        .iter()
        .position(|byte| *byte == separator || *byte == b'"')?;
    let (mut quoted, mut escaped) = (false, false);
    let end = text[first..].iter().position(|byte| {
        if escaped {
            escaped = false;
            return false;
        }
        match byte {
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte => return *byte == separator && !quoted,
        }
        false
    })?;
    Some(first + end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            // nothing said
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
            // versions nobody speaks here
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
            // the most precise range decides, wherever it stands
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
            assert_eq!(format([accept.as_bytes()]), expected, "{accept}");
        }
    }

    #[test]
    fn a_format_named_twice_counts_where_it_is_named_first() {
        let accept = "text/plain;q=0.5,application/openmetrics-text;q=0.5,text/plain;q=0.5";
        assert_eq!(format([accept.as_bytes()]), TEXT);
    }

    #[test]
    fn what_stands_in_quotes_separates_nothing() {
        for (accept, expected) in [
            (
                "text/plain;q=0.5;x=\",application/openmetrics-text,\"",
                TEXT,
            ),
            (
                r#"text/plain;q=0.5;x="\",application/openmetrics-text,""#,
                TEXT,
            ),
            // Outside quotes a backslash is nothing special.
            (r"x\,application/openmetrics-text", OM),
        ] {
            assert_eq!(format([accept.as_bytes()]), expected, "{accept}");
        }
    }

    #[test]
    fn a_header_sent_twice_counts_as_one() {
        assert_eq!(format([]), TEXT);
        assert_eq!(
            format([&b"text/plain;q=0.5"[..], b"application/openmetrics-text"]),
            OM
        );
        assert_eq!(encoding([&b"br"[..], b"gzip"]), Encoding::Gzip);
    }

    #[test]
    fn gzip_is_for_who_asks_for_it() {
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
            assert_eq!(encoding([accepted.as_bytes()]), expected, "{accepted}");
        }
        assert_eq!(encoding([]), Encoding::Identity);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(header in proptest::collection::vec(any::<u8>(), 0..200)) {
            format([&header[..]]);
            encoding([&header[..]]);
        }

        /// Such as are made of what matters to the reader.
        #[test]
        fn no_order_of_pieces_is_too_strange(header in "([,;=\"\\\\/* ]|q|0|1|\\.|text|plain|gzip|version){0,40}") {
            format([header.as_bytes()]);
            encoding([header.as_bytes()]);
        }
    }
}
