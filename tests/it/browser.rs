//! The status page in a real browser, driven by `tests/browser.mjs`.

use std::process::Command;

use lightfi_simulator::{Listing, Options};

use crate::{cloud::Cloud, exporter::Exporter};

/// Names and locations with markup, and words that are wider than a phone.
const HOSTILE: [(&str, &str); 6] = [
    (
        "<script>window.ran = 1</script>",
        "</script><script>window.ran = 2</script>",
    ),
    (
        "\"><img src=x onerror='window.ran = 3'>",
        "' autofocus onfocus='window.ran = 4",
    ),
    (
        "</option></select><iframe srcdoc='<script>parent.ran = 5</script>'>",
        "<svg onload='window.ran = 6'>",
    ),
    (
        "javascript:window.ran = 7",
        "https://elsewhere.example/x.css",
    ),
    (
        "\u{202e}right to left\u{2066}",
        "{{ 7 * 7 }} ${window.ran = 8}",
    ),
    (
        "LongerThanAPhoneIsWideAndWithoutAnyPlaceToBreakItAnywhereInTheMiddleOfItsHundredAndEightyLettersOrSoWhichIsMoreThanAnybodyWouldCallARoomAndYetNothingKeepsThemFromIt",
        "AndSoIsItsLocationWhichAlsoDoesNotEndBeforeTheRightEdgeOfAnyPhoneThatWasEverMadeOrWillBeMadeAndIsOfferedAsAChoiceInTheFilterAboveTheTableWhereItMustNotHideItsNeighbours",
    ),
];

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is JSON, and JSON is YAML")
}

// The simulated cloud must answer while this thread waits for the browser.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_accessible_and_no_name_can_inject_anything() {
    if !crate::tools::has(&["node", "chromium", crate::tools::PLAYWRIGHT]) {
        return;
    }
    let demo = Exporter::demo(&[]);
    let cloud = Cloud::start(Options {
        sensors: 10,
        listing: Listing::Sensors,
        ..Options::default()
    })
    .await;
    let config = cloud.config("");
    let (head, _) = config.split_once("sensors:").expect("it lists sensors");
    let sensors: String = HOSTILE
        .iter()
        .zip(cloud.simulator.sensors())
        .map(|((name, location), id)| {
            let (name, location) = (quoted(name), quoted(location));
            format!("  - {{id: {id}, name: {name}, location: {location}}}\n")
        })
        .collect();
    let hostile = Exporter::serve(&format!("{head}sensors:\n{sensors}"));
    let silent = Cloud::start(Options::default()).await;
    let config = silent.config("");
    drop(silent);
    let broken = Exporter::serve(&config);
    for exporter in [&demo, &hostile, &broken] {
        exporter.scrape().await;
    }

    let root = env!("CARGO_MANIFEST_DIR");
    let output = Command::new("node")
        .arg(format!("{root}/tests/browser.mjs"))
        .args([
            format!("demo={}/", demo.url),
            format!("hostile={}/", hostile.url),
            format!("broken={}/", broken.url),
        ])
        .output()
        .unwrap_or_else(|error| panic!("node cannot be run ({error}): `make tools` installs it"));
    let [out, err] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("0 errors"), "no summary: {out}{err}");
}
