//! What an API can make of the exporter has a limit, and where it is met a metric and the log say so.

use lightfi_simulator::{Listing, Options};

use crate::{
    cloud::Cloud,
    exporter::{Exporter, Scrape},
};

async fn cloud() -> Cloud {
    Cloud::start(Options {
        sensors: 60,
        listing: Listing::Locations,
        ..Options::default()
    })
    .await
}

/// All that belongs to a sensor, by name and labels.
fn of_sensors(scrape: &Scrape) -> Vec<&String> {
    let series = scrape.samples.keys();
    series
        .filter(|series| series.contains("sensor_id="))
        .collect()
}

#[tokio::test]
async fn series_stay_within_their_limit_and_a_metric_says_that_it_was_met() {
    let cloud = cloud().await;
    let limited = "collect: {interval: 1s, stale_after: 0, max_series: 200}\n";
    for more in ["", "metrics: {reading_timestamps: true}\n"] {
        let exporter = Exporter::serve(&cloud.config(&format!("{limited}{more}")));
        let first = exporter.scrape().await;
        let told = || {
            let log = exporter.output();
            ["raise collect.max_series", "nothing is left out"]
                .map(|line| log.matches(line).count())
        };
        exporter.says("raise collect.max_series").await;
        assert_eq!(told(), [1, 0]);
        let series = of_sensors(&first);
        assert!((150..=200).contains(&series.len()), "{}", series.len());
        let dropped = |scrape: &Scrape| scrape.value("lightfi_collect_sensors_dropped");
        let known = first.value("lightfi_collect_sensors").expect("it is there");
        assert_eq!(dropped(&first), Some(60.0 - known));
        assert!(first.value("lightfi_collect_readings_dropped") > Some(100.0));
        assert_eq!(first.value("lightfi_up"), Some(1.0));

        let ended = "lightfi_collect_last_success_timestamp_seconds";
        let again = exporter.scrape_until("another collection", |scrape| {
            scrape.value(ended) > first.value(ended)
        });
        let again = again.await;
        let infos = |scrape: &Scrape| {
            let infos = scrape.series_of("lightfi_sensor_info").into_keys();
            infos.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(infos(&again), infos(&first), "the same ones stay");
        assert_eq!(told(), [1, 0], "{}", exporter.output());

        let ample = cloud.config("collect: {interval: 1s}\n");
        std::fs::write(exporter.file("lightfi-exporter.yaml"), ample).expect("written");
        exporter.signal("HUP");
        let all = exporter.scrape_until("room for all", |scrape| dropped(scrape) == Some(0.0));
        all.await;
        exporter.says("nothing is left out").await;
        assert_eq!(told(), [1, 1], "{}", exporter.output());
    }
}

#[tokio::test]
async fn replies_that_hold_far_more_than_may_be_shown_are_refused_by_name() {
    let cloud = cloud().await;
    let exporter = Exporter::serve(&cloud.config("collect: {max_series: 50}\n"));
    let scrape = exporter.scrape().await;
    assert!(scrape.value("lightfi_collect_locations_failed") > Some(0.0));
    assert!(of_sensors(&scrape).len() <= 50);
    exporter.says("reason=too_large").await;
    exporter.says("collect.max_series (50)").await;
}

#[tokio::test]
async fn without_a_limit_that_is_met_nothing_is_left_out() {
    let cloud = cloud().await;
    let exporter = Exporter::serve(&cloud.config(""));
    let scrape = exporter.scrape().await;
    assert_eq!(scrape.value("lightfi_collect_sensors"), Some(60.0));
    assert_eq!(scrape.value("lightfi_collect_sensors_dropped"), Some(0.0));
    assert_eq!(scrape.value("lightfi_collect_readings_dropped"), Some(0.0));
    let log = exporter.output();
    assert!(!log.contains("left out"), "{log}");
}
