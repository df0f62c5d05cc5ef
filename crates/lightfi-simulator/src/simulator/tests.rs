#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use std::time::{Instant, UNIX_EPOCH};

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle};

use super::*;
use crate::Replay;

/// A simulator that is served on loopback, and a client with an access token.
struct Served {
    simulator: Simulator,
    base: String,
    client: Client,
    token: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn client() -> reqwest::ClientBuilder {
    // reqwest comes without a cryptography provider. A second installation fails, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy()
}

impl Served {
    async fn start(options: Options) -> Self {
        let simulator = Simulator::new(options).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(simulator.clone().serve(listener, async {
            let _ = stopped.await;
        }));
        let client = client().build().unwrap();
        let mut served = Self {
            simulator,
            base,
            client,
            token: String::new(),
            stop,
            task,
        };
        let (status, body) = json(served.token_request()).await;
        assert_eq!(status, 200, "{body}");
        served.token = body["access_token"].as_str().unwrap().to_owned();
        served
    }

    fn token_request(&self) -> RequestBuilder {
        let tokens = &self.simulator.0.tokens;
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", &tokens.client_id),
            ("client_secret", &tokens.client_secret),
            ("refresh_token", &tokens.newest_refresh_token()),
        ];
        self.client
            .post(format!("{}/oauth2/token", self.base))
            .form(&form)
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client
            .get(format!("{}{path}", self.base))
            .bearer_auth(&self.token)
    }

    fn sensor(&self, id: &str) -> RequestBuilder {
        self.get(&format!("/sensors/{id}?project=latest&project=value"))
    }

    async fn location(&self, id: &str) -> Value {
        let (status, body) = json(self.get(&format!("/locations/{id}/"))).await;
        assert_eq!((status, body["id"].as_str()), (200, Some(id)));
        body
    }

    /// The id of a location with sensors.
    fn floor(&self) -> String {
        self.simulator.0.building().locations[3].id.clone()
    }

    fn id(&self, index: usize) -> String {
        self.simulator.sensors().swap_remove(index)
    }

    fn switch(&self, fault: &str, on: bool) {
        self.simulator.set_fault(&fault.parse().unwrap(), on);
    }
}

async fn json(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn send(request: RequestBuilder) -> Response {
    request.send().await.unwrap()
}

fn sensor_ids(location: &Value) -> Vec<String> {
    let sensors = location["sensors"].as_array().unwrap().iter();
    sensors
        .map(|sensor| sensor["id"].as_str().unwrap().to_owned())
        .collect()
}

fn options(sensors: usize) -> Options {
    Options {
        sensors,
        ..Options::default()
    }
}

#[tokio::test]
async fn requests_without_a_valid_token_are_answered_401() {
    let cloud = Served::start(options(10)).await;
    let id = cloud.id(0);
    for path in [
        format!("/sensors/{id}"),
        "/locations".into(),
        "/locations/1000/".into(),
    ] {
        let url = format!("{}{path}", cloud.base);
        assert_eq!(send(cloud.client.get(&url)).await.status(), 401, "{path}");
        let stranger = cloud.client.get(&url).bearer_auth("stranger");
        let response = send(stranger).await;
        assert_eq!(response.status(), 401, "{path}");
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
    }
    assert_eq!(cloud.simulator.requests().unauthorized, 6);
}

#[tokio::test]
async fn faults_are_switched_over_http() {
    let cloud = Served::start(options(10)).await;
    let id = cloud.id(0);
    let url = |fault: &str| format!("{}/simulator/faults/{fault}", cloud.base);
    let fault = url(&format!("error-500={id}"));
    assert_eq!(send(cloud.client.put(&fault)).await.status(), 204);
    assert_eq!(send(cloud.sensor(&id)).await.status(), 500);
    assert_eq!(send(cloud.client.delete(&fault)).await.status(), 204);
    assert_eq!(send(cloud.sensor(&id)).await.status(), 200);
    let (status, body) = json(cloud.client.put(url("error-501"))).await;
    assert_eq!(status, 400);
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .contains("known are error-500,")
    );
    assert_eq!(
        send(cloud.client.put(url("slow=AQ2-0"))).await.status(),
        404
    );
}

#[tokio::test]
async fn shutdown_closes_every_connection() {
    let cloud = Served::start(options(10)).await;
    assert_eq!(send(cloud.get("/locations")).await.status(), 200);
    let request = cloud.get("/locations");
    cloud.stop.send(()).unwrap();
    cloud.task.await.unwrap();
    assert!(request.send().await.is_err());
}

#[tokio::test]
async fn a_sensor_has_its_name_and_readings() {
    let cloud = Served::start(options(10)).await;
    let id = cloud.id(2);
    assert_eq!(cloud.simulator.served(&id), []);
    let (status, body) = json(cloud.sensor(&id)).await;
    assert_eq!((status, body["id"].as_str()), (200, Some(&*id)));
    assert_eq!(body["name"], "0.02 Meeting room");
    assert_eq!(body["data"][0]["var_name"], "CO2ppm");
    assert_eq!(body["data"], json!(cloud.simulator.served(&id)));
    let requests = cloud.simulator.requests();
    assert_eq!((requests.token_granted, requests.sensor), (1, 1));
}

#[tokio::test]
async fn errors_have_the_form_of_fastapi() {
    let cloud = Served::start(options(10)).await;
    for (path, status, detail) in [
        (
            "/sensors/AQ2-000000000000?project=latest&project=value",
            404,
            json!("Sensor not found"),
        ),
        ("/locations/9/", 404, json!("Location not found")),
        ("/nowhere", 404, json!("Not Found")),
    ] {
        let response = json(cloud.get(path)).await;
        assert_eq!(response, (status, json!({"detail": detail})), "{path}");
    }
    let incomplete = cloud.get(&format!("/sensors/{}?project=latest", cloud.id(0)));
    let (status, body) = json(incomplete).await;
    let missing = &body["detail"][0]["loc"][1];
    assert_eq!((status, missing), (422, &json!("project")));
    let token = cloud.client.post(format!("{}/oauth2/token", cloud.base));
    let refused = json(token.form(&[("grant_type", "refresh_token")])).await;
    assert_eq!(refused, (400, json!({"error": "invalid_client"})));
    assert_eq!(cloud.simulator.requests().token_refused, 1);
}

#[tokio::test]
async fn large_responses_are_compressed_if_the_client_accepts_it() {
    let cloud = Served::start(options(10)).await;
    let plain = client().gzip(false).build().unwrap();
    let url = format!("{}/locations/{}/", cloud.base, cloud.floor());
    for (accept, compressed) in [("gzip", true), ("br", false)] {
        let request = plain.get(&url).bearer_auth(&cloud.token);
        let response = send(request.header("accept-encoding", accept)).await;
        let has_encoding = response.headers().contains_key("content-encoding");
        assert_eq!(has_encoding, compressed, "{accept}");
    }
    assert_eq!(sensor_ids(&cloud.location(&cloud.floor()).await).len(), 10);
}

#[tokio::test]
async fn faults_replace_the_responses_of_every_api_route() {
    let cloud = Served::start(options(10)).await;
    let sensor = format!("/sensors/{}?project=latest&project=value", cloud.id(0));
    for (fault, status) in [
        ("error-500", 500),
        ("rate-limit", 429),
        ("unauthorized", 401),
    ] {
        cloud.switch(fault, true);
        for path in [&*sensor, "/locations", "/locations/1000/"] {
            let response = send(cloud.get(path)).await;
            assert_eq!(response.status(), status, "{fault}: {path}");
            let has_pause = response.headers().contains_key("retry-after");
            assert_eq!(has_pause, fault == "rate-limit");
        }
        cloud.switch(fault, false);
        assert_eq!(send(cloud.get(&sensor)).await.status(), 200, "{fault}");
    }
    cloud.switch("malformed", true);
    assert_eq!(json(cloud.get(&sensor)).await, (200, Value::Null));
}

#[tokio::test]
async fn a_wrong_clock_stamps_tokens_and_dates_but_not_readings() {
    for clock_skew in [3600.0, -3600.0] {
        let cloud = Served::start(Options {
            clock_skew,
            ..options(10)
        })
        .await;
        let token = jsonwebtoken::dangerous::insecure_decode::<Value>(&cloud.token);
        let error = token.unwrap().claims["iat"].as_f64().unwrap() - unix_now();
        assert!((error - clock_skew).abs() < 10.0, "{error}");
        let response = send(cloud.sensor(&cloud.id(0))).await;
        let date = response.headers()["date"].to_str().unwrap();
        let date = httpdate::parse_http_date(date).unwrap();
        let date = date.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((date - unix_now() - clock_skew).abs() < 10.0);
        let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        let age = unix_now() - body["data"][0]["time"].as_f64().unwrap();
        assert!((0.0..70.0).contains(&age), "{age}");
    }
}

#[tokio::test]
async fn latency_delays_every_response_and_requests_overlap() {
    let latency = Duration::from_millis(200);
    let cloud = Served::start(Options {
        latency,
        ..options(10)
    })
    .await;
    let start = Instant::now();
    let requests = (0..8).map(|index| send(cloud.sensor(&cloud.id(index))));
    futures_util::future::join_all(requests).await;
    let took = start.elapsed();
    assert!(took >= latency && took < 8 * latency, "{took:?}");
}

#[tokio::test]
async fn recorded_readings_are_served_in_the_recorded_locations() {
    let csv = "location,time,sensor_id,var_name,value\nLoft,1,A-1,temperatureC,21.1875\nCellar,2,B-2,x,1\n\
               Loft,3,C-3,x,1\n,4,D-4,x,1\nLoft,99999,A-1,CO2ppm,400\n";
    let cloud = Served::start(Options {
        replay: Some(Replay::read(csv.as_bytes(), 1.0).unwrap()),
        ..options(0)
    })
    .await;
    let (_, body) = json(cloud.sensor("A-1")).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 1);
    assert_eq!(body["data"][0]["value"], 21.1875);
    let root = cloud.location("1000").await;
    assert_eq!(sensor_ids(&root), ["D-4"]);
    let children = root["children"].as_array().unwrap().iter();
    let names: Vec<_> = children.map(|child| &child["name"]).collect();
    assert_eq!(names, ["Loft", "Cellar"]);
    assert_eq!(sensor_ids(&cloud.location("1001").await), ["A-1", "C-3"]);
    let config = cloud.simulator.config_yaml(&cloud.base);
    let sensors = "sensors:\n  - \"A-1\"\n  - \"B-2\"\n  - \"C-3\"\n  - \"D-4\"\n";
    assert!(config.ends_with(sensors), "{config}");
}

#[test]
fn impossible_options_are_refused() {
    let error = |options| Simulator::new(options).err().unwrap().to_string();
    let none = Options {
        sensors: 0,
        ..Options::default()
    };
    assert!(error(none).contains("at least one sensor"));
    let unknown = Options {
        faults: vec!["hang=AQ2-0".parse().unwrap()],
        ..Options::default()
    };
    assert!(error(unknown).starts_with("fault hang=AQ2-0: there is no sensor or location"));
}
