//! Tests of `collect.max_series`: the limit holds, and a metric and the log say when it is reached.

use lightfi_simulator::{Listing, Options};

use crate::{
    cloud::Cloud,
    exporter::{Exporter, Scrape},
};

/// A cloud of 60 sensors whose locations are listed in the configuration.
async fn cloud() -> Cloud {
    Cloud::start(Options {
        sensors: 60,
        listing: Listing::Locations,
        ..Options::default()
    })
    .await
}

/// The number of series that belong to a sensor.
fn sensor_series(scrape: &Scrape) -> usize {
    let series = scrape.samples.keys();
    series.filter(|name| name.contains("sensor_id=")).count()
}

fn sensors_dropped(scrape: &Scrape) -> Option<f64> {
    scrape.value("lightfi_collect_sensors_dropped")
}

#[tokio::test]
async fn sensors_beyond_max_series_are_dropped_and_counted() {
    let cloud = cloud().await;
    let limited = "collect: {interval: 1s, stale_after: 0, max_series: 200}\n";
    for more in ["", "metrics: {reading_timestamps: true}\n"] {
        let exporter = Exporter::serve(&cloud.config(&format!("{limited}{more}")));
        let (start, end) = (
            "over collect.max_series",
            "all readings are within the limits again",
        );
        let logged = || {
            let log = exporter.output();
            [start, end].map(|line| log.matches(line).count())
        };
        let first = exporter.scrape().await;
        exporter.says(start).await;
        let series = sensor_series(&first);
        assert!((150..=200).contains(&series), "{series}");
        let known = first.value("lightfi_collect_sensors").unwrap();
        assert_eq!(sensors_dropped(&first), Some(60.0 - known));
        assert!(first.value("lightfi_collect_readings_dropped") > Some(100.0));
        assert_eq!(first.value("lightfi_up"), Some(1.0));

        let success = "lightfi_collect_last_success_timestamp_seconds";
        let is_next = |scrape: &Scrape| scrape.value(success) > first.value(success);
        let next = exporter.scrape_until("another collection", is_next).await;
        let info = "lightfi_sensor_info";
        assert_eq!(next.series_of(info), first.series_of(info), "other sensors");
        assert_eq!(logged(), [1, 0]);

        let unlimited = cloud.config("collect: {interval: 1s}\n");
        std::fs::write(exporter.file("lightfi-exporter.yaml"), unlimited).unwrap();
        exporter.signal("HUP");
        let all = |scrape: &Scrape| sensors_dropped(scrape) == Some(0.0);
        exporter.scrape_until("all sensors", all).await;
        exporter.says(end).await;
        assert_eq!(logged(), [1, 1]);
    }
}

#[tokio::test]
async fn a_reply_with_far_more_than_max_series_fails_as_too_large() {
    let cloud = cloud().await;
    let exporter = Exporter::serve(&cloud.config("collect: {max_series: 50}\n"));
    let scrape = exporter.scrape().await;
    assert!(scrape.value("lightfi_collect_locations_failed") > Some(0.0));
    assert!(sensor_series(&scrape) <= 50);
    exporter.says("reason=too_large").await;
    exporter.says("collect.max_series (50)").await;
}
