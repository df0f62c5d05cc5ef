//! A strict parser of both text formats, written from their specifications. It shares no code with the exporter.
//!
//! It is stricter than Prometheus: families must be whole, with HELP before TYPE, and nothing may occur twice.

use std::collections::{BTreeMap, BTreeSet};

use lightfi_exporter::exposition::Format;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Family {
    /// The name in HELP and TYPE.
    pub name: String,
    pub kind: String,
    pub help: String,
    pub unit: Option<String>,
    pub samples: Vec<Sample>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// Returns the families of a body in their order, or what is wrong with it.
pub(crate) fn parse(body: &str, format: Format) -> Result<Vec<Family>, String> {
    let mut lines = lines(body, format)?.into_iter().peekable();
    let mut families: Vec<Family> = Vec::new();
    while lines.peek().is_some() {
        families.push(family(&mut lines, format)?);
    }
    check_unique_names(&families, format)?;
    check_unique_series(&families)?;
    Ok(families)
}

fn lines(body: &str, format: Format) -> Result<Vec<&str>, String> {
    let text = match format {
        Format::Text => body,
        Format::OpenMetrics => body
            .strip_suffix("# EOF\n")
            .ok_or("does not end with # EOF")?,
    };
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let text = text
        .strip_suffix('\n')
        .ok_or("the last line does not end")?;
    Ok(text.split('\n').collect())
}

fn family<'a>(
    lines: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
    format: Format,
) -> Result<Family, String> {
    let mut metadata = BTreeMap::new();
    let mut name = None;
    while let Some(line) = lines.next_if(|line| line.starts_with('#')) {
        let mut words = line.splitn(4, ' ');
        let (Some("#"), Some(keyword), Some(of), Some(text)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(format!("incomplete metadata: {line}"));
        };
        let allowed = matches!(
            (keyword, format),
            ("HELP" | "TYPE", _) | ("UNIT", Format::OpenMetrics)
        );
        if !allowed || !is_metric_name(of) || *name.get_or_insert(of) != of {
            return Err(format!("unexpected metadata: {line}"));
        }
        if metadata.insert(keyword, text).is_some() {
            return Err(format!("duplicate metadata: {line}"));
        }
        if keyword == "HELP" && metadata.len() > 1 {
            return Err(format!("HELP is not first: {line}"));
        }
    }
    let name = name.ok_or_else(|| format!("no metadata before {:?}", lines.peek()))?;
    let kind = *metadata.get("TYPE").ok_or(format!("{name} has no TYPE"))?;
    let help = metadata.get("HELP").ok_or(format!("{name} has no HELP"))?;
    let quotes = format == Format::OpenMetrics;
    let family = Family {
        name: name.to_owned(),
        kind: kind.to_owned(),
        help: unescape_help(help, quotes).ok_or(format!("invalid escapes in HELP of {name}"))?,
        unit: metadata.get("UNIT").map(|unit| (*unit).to_owned()),
        samples: std::iter::from_fn(|| lines.next_if(|line| !line.starts_with('#')))
            .map(|line| sample(line).ok_or(format!("invalid sample: {line}")))
            .collect::<Result<_, _>>()?,
    };
    check(&family, format)?;
    Ok(family)
}

fn check(family: &Family, format: Format) -> Result<(), String> {
    let Family {
        name,
        kind,
        unit,
        samples,
        ..
    } = family;
    if samples.is_empty() {
        return Err(format!("{name} has no samples"));
    }
    if let Some(unit) = unit
        && (kind == "info" || !name.ends_with(&format!("_{unit}")))
    {
        return Err(format!("{unit} is not the unit of {name}"));
    }
    let suffixes: &[&str] = match (kind.as_str(), format) {
        ("gauge", _) | ("counter", Format::Text) => &[""],
        ("counter", Format::OpenMetrics) => &["_total"],
        ("info", Format::OpenMetrics) => &["_info"],
        ("histogram", _) => &["_bucket", "_sum", "_count"],
        _ => return Err(format!("unknown type {kind}")),
    };
    let wrong = samples.iter().find(|sample| {
        let suffix = sample.name.strip_prefix(name.as_str());
        suffix.is_none_or(|suffix| !suffixes.contains(&suffix))
    });
    if let Some(sample) = wrong {
        return Err(format!(
            "{} is not a sample of the {kind} {name}",
            sample.name
        ));
    }
    let total = name.ends_with("_total");
    if total != (kind == "counter" && format == Format::Text) {
        return Err(format!("{name} cannot be a {kind}"));
    }
    let bad = samples.iter().find(|sample| match kind.as_str() {
        "counter" => sample.value < 0.0 || sample.value.is_nan(),
        "info" => sample.value != 1.0,
        _ => false,
    });
    if let Some(Sample { name, value, .. }) = bad {
        return Err(format!("a {kind} cannot be {value}: {name}"));
    }
    if kind == "histogram" {
        check_histograms(family)?;
    }
    Ok(())
}

#[derive(Default)]
struct HistogramParts {
    /// Upper bounds and counts.
    buckets: Vec<(f64, f64)>,
    counts: Vec<f64>,
    sums: usize,
}

/// Checks that the buckets of each histogram are in order, and that the last one is `+Inf` and equals the count.
fn check_histograms(family: &Family) -> Result<(), String> {
    let mut histograms: BTreeMap<_, HistogramParts> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let le = labels.remove("le");
        let parts = histograms.entry(labels).or_default();
        match (sample.name.strip_prefix(&family.name), le) {
            (Some("_bucket"), Some(le)) => {
                if le != "+Inf" && !le.contains('.') {
                    return Err(format!("bucket {le} is not a float"));
                }
                let le = number(&le).ok_or(format!("bucket {le} is not a number"))?;
                parts.buckets.push((le, sample.value));
            }
            (Some("_count"), None) => parts.counts.push(sample.value),
            (Some("_sum"), None) => parts.sums += 1,
            _ => return Err(format!("not part of a histogram: {sample:?}")),
        }
    }
    for (labels, parts) in histograms {
        let rising = parts.buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
        let last = parts.buckets.last().map(|(le, count)| (*le, vec![*count]));
        if !rising || last != Some((f64::INFINITY, parts.counts)) || parts.sums != 1 {
            return Err(format!("invalid histogram: {} {labels:?}", family.name));
        }
    }
    Ok(())
}

/// Checks that no sample of one family could be mistaken for one of another. OpenMetrics forbids such names even if there is
/// no such sample.
fn check_unique_names(families: &[Family], format: Format) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for family in families {
        let suffixes: &[&str] = match (family.kind.as_str(), format) {
            ("counter", Format::OpenMetrics) => &["", "_total", "_created"],
            ("info", _) => &["", "_info"],
            ("histogram", _) => &["", "_bucket", "_sum", "_count", "_created"],
            _ => &[""],
        };
        for suffix in suffixes {
            if !names.insert(format!("{}{suffix}", family.name)) {
                return Err(format!("duplicate name {}{suffix}", family.name));
            }
        }
    }
    Ok(())
}

fn check_unique_series(families: &[Family]) -> Result<(), String> {
    let mut series = BTreeSet::new();
    for sample in families.iter().flat_map(|family| &family.samples) {
        // An empty label is the same as no label.
        let labels: Vec<_> = sample
            .labels
            .iter()
            .filter(|(_, v)| !v.is_empty())
            .collect();
        if !series.insert((&sample.name, labels)) {
            return Err(format!(
                "duplicate series: {} {:?}",
                sample.name, sample.labels
            ));
        }
    }
    Ok(())
}

/// Parses `name{label="value",…} number`, without timestamp and exemplar.
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if !is_label_name(label) || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('}')?;
                    break;
                }
            }
        }
    }
    let value = number(rest.strip_prefix(' ')?)?;
    let name = is_metric_name(name).then(|| name.to_owned())?;
    Some(Sample {
        name,
        labels,
        value,
    })
}

/// Returns the text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

fn unescape_help(text: &str, quotes: bool) -> Option<String> {
    let mut help = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => help.push(match chars.next()? {
                'n' => '\n',
                '\\' => '\\',
                '"' if quotes => '"',
                _ => return None,
            }),
            '"' if quotes => return None,
            c => help.push(c),
        }
    }
    Some(help)
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => return Some(f64::INFINITY),
        "-Inf" => return Some(f64::NEG_INFINITY),
        "NaN" => return Some(f64::NAN),
        _ => {}
    }
    // Rust parses more than the formats allow, such as "inf".
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e');
    let digits = text.strip_prefix('-').unwrap_or(text);
    let starts = digits.starts_with(|c: char| c.is_ascii_digit());
    (starts && text.chars().all(plain)).then(|| text.parse().ok())?
}

fn is_metric_name(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(rest)
}

fn is_label_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let rest = |c: char| first(c) || c.is_ascii_digit();
    name.starts_with(first) && name.chars().all(rest)
}

#[test]
fn the_parser_rejects_invalid_expositions() {
    let head = "# HELP a b\n# TYPE a gauge\n";
    for bad in [
        "a 1\n".to_owned(),
        head.to_owned(),
        format!("{head}a 1"),
        format!("{head}a 1\n\n"),
        format!("{head}a  1\n"),
        format!("{head}a 1 2\n"),
        format!("{head}a x\n"),
        format!("{head}a inf\n"),
        format!("{head}a{{}} 1\n"),
        format!("{head}a{{b=\"c\",}} 1\n"),
        format!("{head}a{{b=\"c\",b=\"c\"}} 1\n"),
        format!("{head}a{{b=\"\\c\"}} 1\n"),
        format!("{head}a{{b=\"c\"\"}} 1\n"),
        format!("{head}a 1\na 1\n"),
        format!("{head}a 1\na{{b=\"\"}} 1\n"),
        format!("{head}b 1\n"),
        format!("{head}a 1\n{head}a{{b=\"c\"}} 1\n"),
        format!("{head}a 1\n# EOF\n"),
        "# HELP a_total b\n# TYPE a_total gauge\na_total 1\n".to_owned(),
        "# HELP a b\n# TYPE a counter\na 1\n".to_owned(),
        "# HELP a b\\\"\n# TYPE a gauge\na 1\n".to_owned(),
    ] {
        assert!(parse(&bad, Format::Text).is_err(), "{bad}");
    }
    let eof = "# EOF\n";
    for bad in [
        format!("{head}a 1\n"),
        format!("{head}a 1\n{eof}{eof}"),
        format!("# HELP a \"b\"\n# TYPE a gauge\na 1\n{eof}"),
        format!("# HELP a b\n# TYPE a counter\na 1\n{eof}"),
        format!("# HELP a b\n# TYPE a counter\na_total -1\n{eof}"),
        format!("# HELP a b\n# TYPE a info\na_info 2\n{eof}"),
        format!("# HELP a b\n# TYPE a gauge\n# UNIT a seconds\na 1\n{eof}"),
        format!("{head}a 1\n# HELP a b\n# TYPE a info\na_info 1\n{eof}"),
        format!(
            "# HELP a b\n# TYPE a histogram\na_bucket{{le=\"1\"}} 1\na_bucket{{le=\"+Inf\"}} 1\na_sum 1\na_count 1\n{eof}"
        ),
        format!(
            "# HELP a b\n# TYPE a histogram\na_bucket{{le=\"+Inf\"}} 1\na_sum 1\na_count 2\n{eof}"
        ),
    ] {
        assert!(parse(&bad, Format::OpenMetrics).is_err(), "{bad}");
    }
    assert!(parse("", Format::Text).is_ok());
    assert!(parse(eof, Format::OpenMetrics).is_ok());
    assert!(parse(&format!("{head}a 1\n"), Format::Text).is_ok());
}
