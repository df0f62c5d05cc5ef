//! The checks of each request: rate limit, user, size; and the configured headers.

use std::time::{Duration, Instant};

use crate::{
    pki::{hash, login},
    server::TestServer,
};

#[tokio::test]
async fn a_rate_limit_without_interval_admits_everything_and_one_without_burst_nothing() {
    let off = TestServer::plain("rate_limit: {interval: 0, burst: 0}");
    for _ in 0..10 {
        assert_eq!(off.status("/metrics", "").await, 200);
    }
    let shut = TestServer::plain("rate_limit: {interval: 1s, burst: 0}");
    let refused = shut.get("/metrics", "").await;
    assert!(refused.starts_with("HTTP/1.1 429") && refused.ends_with("Too Many Requests\n"));
    assert_eq!(shut.status("/healthz", "").await, 200);
}

#[tokio::test]
async fn the_rate_limit_comes_before_users_and_does_not_count_open_paths() {
    let server = TestServer::plain(&format!(
        "rate_limit: {{interval: 1h, burst: 3}}\nbasic_auth_users: {{dave: {}}}\n\
         http_server_config: {{headers: {{X-Frame-Options: deny}}}}",
        hash("secret", 4)
    ));
    for _ in 0..10 {
        assert_eq!(server.status("/healthz", "").await, 200);
    }
    for _ in 0..3 {
        assert_eq!(server.status("/metrics", "").await, 401);
    }
    let refused = server.get("/metrics", &login("dave:secret")).await;
    assert!(refused.starts_with("HTTP/1.1 429") && refused.ends_with("Too Many Requests\n"));
    assert!(!refused.contains("x-frame-options"));
}

#[tokio::test]
async fn configured_headers_are_on_every_response_unless_the_service_sets_them() {
    let server = TestServer::plain(
        "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    X-Content-Type-Options: nosniff\n    \
         X-XSS-Protection: 1\n    Strict-Transport-Security: max-age=31536000; includeSubDomains\n    \
         Content-Security-Policy: default-src 'self' *.example.net\n",
    );
    for path in ["/metrics", "/healthz", "/absent"] {
        let response = server.get(path, "").await;
        for header in [
            "x-frame-options: deny",
            "x-content-type-options: nosniff",
            "x-xss-protection: 1",
            "strict-transport-security: max-age=31536000; includeSubDomains",
            "content-security-policy: default-src 'self' *.example.net",
        ] {
            assert!(
                response.contains(&format!("\r\n{header}\r\n")),
                "{response}"
            );
        }
    }
    let page = server.get("/page", "").await;
    assert!(page.contains("x-frame-options: sameorigin") && !page.contains("deny"));
}

#[tokio::test]
async fn users_have_access_with_their_password_only() {
    let server = TestServer::plain(&format!(
        "basic_auth_users: {{dave: {}, carol: {}}}\nhttp_server_config: {{headers: {{X-XSS-Protection: 1}}}}",
        hash("secret", 4),
        hash("a:b ü", 4).replace("$2b$", "$2y$")
    ));
    // The second time from memory, with the same result.
    for _ in 0..2 {
        for (user, status) in [
            ("dave:secret", 200),
            ("carol:a:b ü", 200),
            ("dave:a:b ü", 401),
            ("dave:", 401),
            (":", 401),
            ("Dave:secret", 401),
            ("unknown:secret", 401),
            ("dav:esecret", 401),
        ] {
            assert_eq!(
                server.status("/metrics", &login(user)).await,
                status,
                "{user}"
            );
        }
    }
    let refused = server.get("/absent", "").await;
    assert!(refused.starts_with("HTTP/1.1 401") && refused.ends_with("\r\n\r\nUnauthorized\n"));
    assert!(refused.contains("www-authenticate: Basic\r\n"), "{refused}");
    assert!(refused.contains("x-xss-protection: 1\r\n"), "{refused}");
    assert_eq!(server.status("/healthz", "").await, 200);
    for path in [
        "/healthz/",
        "//metrics",
        "/healthz/../metrics",
        "/%68ealthz",
    ] {
        assert_eq!(server.status(path, "").await, 401, "{path}");
    }
}

#[tokio::test]
async fn an_unknown_user_costs_as_much_as_a_known_one() {
    let server = TestServer::plain(&format!(
        "basic_auth_users: {{dave: {}}}",
        hash("secret", 10)
    ));
    assert_eq!(server.status("/metrics", &login("dave:secret")).await, 200);
    // The quickest of several in turns, so that other load affects both alike.
    let (mut known, mut unknown) = (Duration::MAX, Duration::MAX);
    for attempt in 0..5 {
        for (user, quickest) in [("dave", &mut known), ("unknown", &mut unknown)] {
            let start = Instant::now();
            let user = login(&format!("{user}:wrong {attempt}"));
            assert_eq!(server.status("/metrics", &user).await, 401);
            *quickest = start.elapsed().min(*quickest);
        }
    }
    assert!(
        unknown > known / 2 && known > unknown / 2,
        "known {known:?}, unknown {unknown:?}"
    );
}

#[tokio::test]
async fn a_remembered_user_does_not_wait_for_the_guesses_of_others() {
    let hash = hash("secret", 10);
    let server = TestServer::plain(&format!("basic_auth_users: {{dave: {hash}}}"));
    assert_eq!(server.status("/metrics", &login("dave:secret")).await, 200);
    let guesses: Vec<_> = (0..12)
        .map(|guess| login(&format!("dave:{guess}")))
        .collect();
    let guessing = async {
        for guess in &guesses {
            assert_eq!(server.status("/metrics", guess).await, 401);
        }
    };
    let scraping = async {
        for _ in 0..4 {
            assert_eq!(server.status("/metrics", &login("dave:secret")).await, 200);
        }
    };
    tokio::pin!(guessing);
    tokio::select! {
        biased;
        () = &mut guessing => panic!("the guesses were checked first"),
        () = scraping => {}
    }
    guessing.await;
}

#[tokio::test]
async fn large_requests_are_refused() {
    let server = TestServer::plain("");
    let long = format!("/metrics?{}", "x".repeat(9000));
    assert_eq!(server.status(&long, "").await, 414);
    let headers = format!("X-Large: {}\r\n", "x".repeat(60_000));
    assert_eq!(server.status("/metrics", &headers).await, 200);
    let headers = format!("X-Large: {}\r\n", "x".repeat(64 * 1024));
    assert_eq!(server.status("/metrics", &headers).await, 431);
}
