//! The tail of a body: the exporter's own metrics and those of its process, which live in a registry of the
//! `prometheus` crate. That crate has no OpenMetrics, and its text encoder spells numbers otherwise.

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::{
    Filter, Format,
    writer::{Type, Writer},
};
use crate::snapshot::push_label;

/// Appends the families that `filter` lets through, and ends the body.
pub fn render_own(families: &[MetricFamily], format: Format, filter: &Filter, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out, format, filter);
    for family in families {
        let name = family.name();
        let kind = match family.get_field_type() {
            MetricType::GAUGE if name.ends_with("_info") => Type::Info,
            MetricType::GAUGE => Type::Gauge,
            MetricType::COUNTER => Type::Counter,
            MetricType::HISTOGRAM => Type::Histogram,
            // The exporter has none.
            MetricType::SUMMARY | MetricType::UNTYPED => continue,
        };
        let metrics = family.get_metric();
        if metrics.is_empty() || !writer.family(name, kind, family.help()) {
            continue;
        }
        for metric in metrics {
            let labels = label_pairs(metric.get_label());
            match kind {
                Type::Gauge | Type::Info => {
                    writer.sample(name, &labels, "", metric.get_gauge().get_value())
                }
                Type::Counter => writer.sample(name, &labels, "", metric.get_counter().get_value()),
                Type::Histogram => render_histogram(&mut writer, name, &labels, metric),
            }
        }
    }
    writer.end();
}

#[allow(clippy::cast_precision_loss)] // nobody makes 2^53 requests
fn render_histogram(writer: &mut Writer, name: &str, labels: &str, metric: &Metric) {
    let histogram = metric.get_histogram();
    let count = histogram.get_sample_count() as f64;
    let bucket = format!("{name}_bucket");
    for of in histogram.get_bucket() {
        let bound = of.upper_bound();
        // The crate leaves the last bucket out, but for who asks for it: below it comes always, and once.
        if bound.is_finite() {
            let le = upper_bound(bound);
            writer.sample(&bucket, labels, &le, of.cumulative_count() as f64);
        }
    }
    writer.sample(&bucket, labels, "le=\"+Inf\"", count);
    writer.sample(
        &format!("{name}_sum"),
        labels,
        "",
        histogram.get_sample_sum(),
    );
    writer.sample(&format!("{name}_count"), labels, "", count);
}

/// As OpenMetrics wants floats in labels, with `.0`; in the text format too, or the two would be different series.
fn upper_bound(bound: f64) -> String {
    format!("le=\"{}\"", zmij::Buffer::new().format_finite(bound))
}

fn label_pairs(pairs: &[LabelPair]) -> String {
    let mut text = String::new();
    for pair in pairs {
        push_label(&mut text, pair.name(), pair.value());
    }
    text
}
