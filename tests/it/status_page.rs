//! The HTML of the status page.

use lightfi_simulator::{Listing, Options};

use crate::{cloud::Cloud, exporter::Exporter};

async fn page(exporter: &Exporter, query: &str) -> String {
    let response = exporter.get(&format!("/{query}")).await;
    assert_eq!(response.status(), 200);
    let policy = response.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    response.text().await.unwrap()
}

fn rows(page: &str) -> usize {
    page.matches("<th scope=\"row\">").count()
}

#[tokio::test]
async fn the_page_shows_the_state_and_lists_problems_first() {
    let demo = Exporter::demo(&[]);
    demo.scrape().await;
    let all = page(&demo, "").await;
    for words in [
        "Signed in",
        "All 40 sensors read",
        "1 to 40 of 40",
        "°C",
        "ppm",
        "Boardroom",
        "href=\"metrics\"",
    ] {
        assert!(all.contains(words), "no {words:?} in\n{all}");
    }
    assert_eq!(rows(&all), 40);
    let last_problem = all.rfind("<tr class=\"bad\">").unwrap();
    let first_good = all.find("<tr>\n<th scope=\"row\">").unwrap();
    assert!(last_problem < first_good);
    let problems = page(&demo, "?problems=1").await;
    assert_eq!(
        rows(&problems),
        problems.matches("<tr class=\"bad\">").count()
    );
    let found = page(&demo, "?q=boardroom").await;
    assert_eq!(rows(&found), 1);
    let floor = page(&demo, "?location=Harbour+House+%2F+Floor+1").await;
    assert!((1..40).contains(&rows(&floor)));
    assert!(
        page(&demo, "?q=unknown")
            .await
            .contains("No sensor matches.")
    );
}

#[tokio::test]
async fn names_with_markup_are_escaped() {
    let cloud = Cloud::start(Options {
        sensors: 10,
        listing: Listing::Sensors,
        ..Options::default()
    })
    .await;
    let id = cloud.simulator.sensors()[0].clone();
    let config = cloud.config("");
    let (head, _) = config.split_once("sensors:").unwrap();
    let exporter = Exporter::serve(&format!(
        "{head}sensors:\n  - id: {id}\n    name: \"<script>alert(1)</script>\"\n    location: \"\\\"><img src=x onerror=alert(2)>\"\n"
    ));
    exporter.scrape().await;
    for query in [
        "",
        "?q=%22%3E%3Cscript%3Ealert(3)%3C/script%3E",
        "?location=%22%3E%3Cb%3E",
    ] {
        let page = page(&exporter, query).await;
        for tag in ["<script>alert", "<img", "<b>"] {
            assert!(!page.contains(tag), "{query}: {tag} in\n{page}");
        }
    }
}

#[tokio::test]
async fn ten_thousand_sensors_are_split_into_small_pages() {
    let demo = Exporter::demo(&["--sensors=10000"]);
    demo.scrape().await;
    let first = page(&demo, "").await;
    assert!(first.len() < 500_000, "{} bytes", first.len());
    assert_eq!(rows(&first), 100);
    assert!(
        first.contains("Page 1 of 100") && first.contains("rel=\"next\""),
        "paging"
    );
    let last = page(&demo, "?page=100").await;
    assert_eq!(rows(&last), 100);
    assert_eq!(rows(&page(&demo, "?page=99999999999999999999").await), 100);
    assert!(!last.contains("rel=\"next\""));
}
