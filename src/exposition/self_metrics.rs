//! Renders the exporter's own metrics, which live in a registry of the `prometheus` crate. That crate cannot write
//! OpenMetrics, and its text encoder formats numbers differently from `writer`.

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::{
    Filter, Format,
    writer::{Type, Writer},
};
use crate::snapshot::push_label;

/// Renders the families that `filter` allows, and the end of the response where the format has one.
pub fn render_self_metrics(families: &[MetricFamily], format: Format, filter: &Filter) -> String {
    let mut text = String::new();
    let mut append = |chunk: &str| text.push_str(chunk);
    let mut writer = Writer::new(format, filter, &mut append);
    for family in families {
        render_family(&mut writer, family);
    }
    writer.end_of_response();
    writer.finish();
    text
}

fn render_family(writer: &mut Writer, family: &MetricFamily) {
    let name = family.name();
    let kind = match family.get_field_type() {
        MetricType::GAUGE if name.ends_with("_info") => Type::Info,
        MetricType::GAUGE => Type::Gauge,
        MetricType::COUNTER => Type::Counter,
        MetricType::HISTOGRAM => Type::Histogram,
        // The exporter has no metrics of these types.
        MetricType::SUMMARY | MetricType::UNTYPED => return,
    };
    let metrics = family.get_metric();
    if metrics.is_empty() || !writer.family(name, kind, family.help()) {
        return;
    }
    for metric in metrics {
        let labels = label_pairs(metric.get_label());
        match kind {
            Type::Gauge | Type::Info => {
                writer.sample(name, &labels, "", metric.get_gauge().get_value());
            }
            Type::Counter => writer.sample(name, &labels, "", metric.get_counter().get_value()),
            Type::Histogram => render_histogram(writer, name, &labels, metric),
        }
    }
}

fn render_histogram(writer: &mut Writer, name: &str, labels: &str, metric: &Metric) {
    let histogram = metric.get_histogram();
    let count = histogram.get_sample_count() as f64;
    let bucket_name = format!("{name}_bucket");
    for bucket in histogram.get_bucket() {
        let bound = bucket.upper_bound();
        // The crate has the infinite bucket only if it was asked for; it is written below in any case.
        if bound.is_finite() {
            // OpenMetrics wants `1.0`, not `1`. The text format gets the same, or the series would differ.
            let le = format!("le=\"{bound:?}\"");
            writer.sample(&bucket_name, labels, &le, bucket.cumulative_count() as f64);
        }
    }
    writer.sample(&bucket_name, labels, "le=\"+Inf\"", count);
    let sum = histogram.get_sample_sum();
    writer.sample(&format!("{name}_sum"), labels, "", sum);
    writer.sample(&format!("{name}_count"), labels, "", count);
}

fn label_pairs(pairs: &[LabelPair]) -> String {
    let mut text = String::new();
    for pair in pairs {
        push_label(&mut text, pair.name(), pair.value());
    }
    text
}
