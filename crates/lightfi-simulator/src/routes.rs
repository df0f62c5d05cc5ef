//! The simulated cloud over HTTP.
//!
//! As the vendor's (bearer token needed but for the first three):
//! - `GET /oauth2/authorize`: a person's login, whose form comes back by `POST`;
//! - `POST /oauth2/token`: the refresh grant, and the grant for a login's code;
//! - `GET /openapi.json`: what FastAPI would say of the routes;
//! - `GET /sensors/{id}?project=latest&project=value`: one sensor;
//! - `GET /locations`: the base location; `GET /locations/{id}/`: a location's children and its sensors with readings.
//!
//! Not the vendor's, without a token, for whoever drives the simulator from outside:
//! - `GET /simulator/state`: `{"sensors": {id: items last served}, "requests": {…}}`;
//! - `PUT` and `DELETE /simulator/faults/{NAME[=ID]}`: switches a fault.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
    routing::{get, post, put},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Cloud, authorize,
    broken::{self, Connection},
    building::Location,
    faults::{Fault, FaultKind},
    item::Item,
    tokens::{Request, TokenFaults},
    unix_now,
};

/// Smaller bodies are not worth compressing.
const COMPRESS_FROM: usize = 1024;

type Shared = State<Arc<Cloud>>;

/// All routes.
pub(super) fn router(cloud: Arc<Cloud>) -> Router {
    let skewed = cloud.skew != 0.0;
    let router = Router::new()
        .route("/oauth2/authorize", get(ask_to_log_in).post(log_in))
        .route("/oauth2/token", post(token))
        .route("/openapi.json", get(openapi))
        .route("/sensors/{id}", get(sensor))
        .route("/locations", get(base_location))
        .route("/locations/{id}/", get(location))
        .route("/simulator/state", get(state))
        .route("/simulator/faults/{fault}", put(fault_on).delete(fault_off))
        .fallback(async || detail(StatusCode::NOT_FOUND, "Not Found"))
        .with_state(cloud.clone());
    if !skewed {
        return router;
    }
    router.layer(axum::middleware::map_response(
        move |mut response: Response| {
            let now = UNIX_EPOCH + Duration::from_secs_f64(cloud.now().max(0.0));
            if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(now)) {
                response.headers_mut().insert(header::DATE, date);
            }
            std::future::ready(response)
        },
    ))
}

async fn ask_to_log_in(State(cloud): Shared, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    shown(authorize::ask(
        &cloud.tokens,
        &cloud.redirect_uris,
        query.as_bytes(),
    ))
}

async fn log_in(State(cloud): Shared, form: Bytes) -> Response {
    let now = cloud.now();
    shown(authorize::decide(
        &cloud.tokens,
        &cloud.redirect_uris,
        &form,
        now,
    ))
}

fn shown(answer: authorize::Answer) -> Response {
    let (status, location, page) = match answer {
        authorize::Answer::Page(page) => (StatusCode::OK, None, page),
        authorize::Answer::Refused(page) => (StatusCode::BAD_REQUEST, None, page),
        authorize::Answer::Redirect(to) => (StatusCode::FOUND, Some(to), String::new()),
    };
    let mut response = Response::new(Body::from(page));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, html);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(to) = location.and_then(|to| HeaderValue::from_str(&to).ok()) {
        headers.insert(header::LOCATION, to);
    }
    response
}

async fn token(
    State(cloud): Shared,
    connection: Option<Extension<Connection>>,
    headers: HeaderMap,
    form: Bytes,
) -> Response {
    let request = Request {
        form: &form,
        authorization: text(&headers, header::AUTHORIZATION),
    };
    let meets = |kind| cloud.faults.meets_token(kind);
    let broken = broken::answer(meets, &of(connection)).await;
    if let Some(response) = broken.or_else(|| broken::token(meets)) {
        cloud.counters.token_refused.fetch_add(1, Ordering::Relaxed);
        return response;
    }
    let faults = TokenFaults {
        revoked: meets(FaultKind::TokenRevoked),
        expires: meets(FaultKind::TokenExpires),
    };
    let (counter, mut response) = match cloud.tokens.grant(request, faults, cloud.now()) {
        Ok(granted) => (
            &cloud.counters.token_granted,
            reply(StatusCode::OK, &headers, &granted),
        ),
        Err(refused) => (
            &cloud.counters.token_refused,
            reply(StatusCode::BAD_REQUEST, &headers, &refused),
        ),
    };
    counter.fetch_add(1, Ordering::Relaxed);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The connection; a router that is called without one has none to break.
fn of(connection: Option<Extension<Connection>>) -> Connection {
    connection.map_or(Connection::NONE, |Extension(connection)| connection)
}

/// A sensor as both kinds of routes show it.
#[derive(Serialize)]
struct SensorReply<'a> {
    data: Vec<Item>,
    id: &'a str,
    name: Option<&'a str>,
}

fn sensor_reply<'a>(
    cloud: &'a Cloud,
    index: usize,
    now: f64,
    meets: &impl Fn(FaultKind) -> bool,
) -> SensorReply<'a> {
    let sensor = &cloud.source.building().sensors[index];
    SensorReply {
        data: broken::readings(meets, cloud.serve_readings(index, now)),
        id: &sensor.id,
        name: sensor.name.as_deref(),
    }
}

async fn sensor(
    State(cloud): Shared,
    connection: Option<Extension<Connection>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let counter = &cloud.counters.sensor;
    let meets = |kind| cloud.faults.meets(kind, Some(&id));
    api(&cloud, counter, &headers, of(connection), meets, || {
        let query = query.unwrap_or_default();
        let asks = |what: &str| {
            url::form_urlencoded::parse(query.as_bytes())
                .any(|(key, value)| key == "project" && value == what)
        };
        if !(asks("latest") && asks("value")) {
            let problem = json!({"detail": [
                {"type": "missing", "loc": ["query", "project"], "msg": "Field required", "input": null}
            ]});
            return reply(StatusCode::UNPROCESSABLE_ENTITY, &headers, &problem);
        }
        match cloud.source.building().sensor(&id) {
            Some(index) => {
                let body = sensor_reply(&cloud, index, unix_now(), &meets);
                reply_with(StatusCode::OK, &headers, &body, &meets)
            }
            None => detail(StatusCode::NOT_FOUND, "Sensor not found"),
        }
    })
    .await
}

#[derive(Serialize)]
struct ChildReply<'a> {
    id: &'a str,
    name: &'a str,
    r#type: &'a str,
}

#[derive(Serialize)]
struct LocationReply<'a> {
    id: &'a str,
    name: &'a str,
    r#type: &'a str,
    parent_id: Option<&'a str>,
    children: Vec<ChildReply<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sensors: Option<Vec<SensorReply<'a>>>,
}

fn location_reply<'a>(cloud: &'a Cloud, location: &'a Location) -> LocationReply<'a> {
    let locations = &cloud.source.building().locations;
    let child = |index: &usize| {
        let child = &locations[*index];
        ChildReply {
            id: &child.id,
            name: &child.name,
            r#type: child.kind,
        }
    };
    LocationReply {
        id: &location.id,
        name: &location.name,
        r#type: location.kind,
        parent_id: location.parent.map(|parent| locations[parent].id.as_str()),
        children: location.children.iter().map(child).collect(),
        sensors: None,
    }
}

async fn base_location(
    State(cloud): Shared,
    connection: Option<Extension<Connection>>,
    headers: HeaderMap,
) -> Response {
    let counter = &cloud.counters.base_location;
    let meets = |kind| cloud.faults.meets(kind, None);
    api(&cloud, counter, &headers, of(connection), meets, || {
        let root = cloud.source.building().root();
        reply(StatusCode::OK, &headers, &location_reply(&cloud, root))
    })
    .await
}

async fn location(
    State(cloud): Shared,
    connection: Option<Extension<Connection>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let counter = &cloud.counters.location;
    let meets = |kind| cloud.faults.meets(kind, Some(&id));
    api(&cloud, counter, &headers, of(connection), meets, || {
        let Some(location) = cloud.source.building().location(&id) else {
            return detail(StatusCode::NOT_FOUND, "Location not found");
        };
        let now = unix_now();
        let times = 1 + usize::from(meets(FaultKind::DuplicateSensors));
        let sensors = std::iter::repeat_n(&location.sensors, times).flatten();
        let body = LocationReply {
            sensors: Some(
                sensors
                    .map(|index| sensor_reply(&cloud, *index, now, &meets))
                    .collect(),
            ),
            ..location_reply(&cloud, location)
        };
        reply_with(StatusCode::OK, &headers, &body, &meets)
    })
    .await
}

/// What every API request goes through: the count, the delay, the token, the faults that it meets.
async fn api(
    cloud: &Cloud,
    counter: &AtomicUsize,
    headers: &HeaderMap,
    connection: Connection,
    meets: impl Fn(FaultKind) -> bool,
    answer: impl FnOnce() -> Response,
) -> Response {
    counter.fetch_add(1, Ordering::Relaxed);
    let _in_flight = InFlight::new(cloud);
    if !cloud.latency.is_zero() {
        tokio::time::sleep(cloud.latency).await;
    }
    let bearer = text(headers, header::AUTHORIZATION)
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let known = bearer.is_some_and(|(_, token)| cloud.tokens.accepts(token.trim(), cloud.now()));
    let response = match broken::answer(meets, &connection).await {
        _ if !known => broken::unauthorized(),
        Some(response) => response,
        None => answer(),
    };
    if response.status() == StatusCode::UNAUTHORIZED {
        cloud.counters.unauthorized.fetch_add(1, Ordering::Relaxed);
    }
    response
}

/// Counts a request of the API while it is under way.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn new(cloud: &'a Cloud) -> Self {
        let counters = &cloud.counters;
        let now = counters.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        counters.max_in_flight.fetch_max(now, Ordering::Relaxed);
        Self(&counters.in_flight)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn openapi(State(cloud): Shared, headers: HeaderMap) -> Response {
    cloud.counters.openapi.fetch_add(1, Ordering::Relaxed);
    reply(StatusCode::OK, &headers, &openapi_document())
}

/// As FastAPI writes it, operation ids included.
fn openapi_document() -> Value {
    let parameter = |place: &str, name: &str| json!({"name": name, "in": place, "required": true, "schema": {"type": "string", "title": name}});
    let get = |summary: &str, operation: &str, parameters: Vec<Value>| {
        json!({"get": {
            "summary": summary,
            "operationId": operation,
            "parameters": parameters,
            "security": [{"OAuth2AuthorizationCodeBearer": []}],
            "responses": {
                "200": {"description": "Successful Response", "content": {"application/json": {"schema": {}}}}
            }
        }})
    };
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Simulated LightFi API", "version": "2"},
        "paths": {
            "/sensors/{sensor_id}": get(
                "Read Latest Sensor Information",
                "read_latest_sensor_information_sensors__sensor_id__get",
                vec![
                    parameter("path", "sensor_id"),
                    json!({"name": "project", "in": "query", "required": true,
                        "schema": {"type": "array", "items": {"type": "string"}}}),
                ],
            ),
            "/locations": get("Read Base Location", "read_base_location_locations_get", vec![]),
            "/locations/{location_id}/": get(
                "Read Location Children",
                "read_location_children_locations__location_id___get",
                vec![parameter("path", "location_id")],
            ),
        },
        "components": {"securitySchemes": {"OAuth2AuthorizationCodeBearer": {"type": "oauth2", "flows": {
            "authorizationCode": {"authorizationUrl": "/oauth2/authorize", "tokenUrl": "/oauth2/token", "scopes": {}}
        }}}}
    })
}

async fn state(State(cloud): Shared, headers: HeaderMap) -> Response {
    let sensors = cloud.source.building().sensors.iter().enumerate();
    let sensors: std::collections::BTreeMap<_, _> = sensors
        .map(|(index, sensor)| (sensor.id.as_str(), cloud.served(index)))
        .collect();
    let body = StateReply {
        sensors,
        requests: cloud.requests(),
    };
    reply(StatusCode::OK, &headers, &body)
}

#[derive(Serialize)]
struct StateReply<'a> {
    sensors: std::collections::BTreeMap<&'a str, Vec<Item>>,
    requests: super::Requests,
}

async fn fault_on(State(cloud): Shared, Path(fault): Path<String>) -> Response {
    switch(&cloud, &fault, true)
}

async fn fault_off(State(cloud): Shared, Path(fault): Path<String>) -> Response {
    switch(&cloud, &fault, false)
}

fn switch(cloud: &Cloud, fault: &str, on: bool) -> Response {
    let fault: Fault = match fault.parse() {
        Ok(fault) => fault,
        Err(error) => return detail(StatusCode::BAD_REQUEST, &format!("{error}")),
    };
    if !fault.is_of(cloud.source.building()) {
        return detail(StatusCode::NOT_FOUND, "no such sensor or location");
    }
    cloud.faults.set(&fault, on);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// An error as FastAPI writes it.
pub(super) fn detail(status: StatusCode, text: &str) -> Response {
    json_response(status, json!({"detail": text}).to_string())
}

/// A body as JSON, compressed where the client takes it and it pays.
fn reply(status: StatusCode, headers: &HeaderMap, body: &impl Serialize) -> Response {
    reply_with(status, headers, body, &|_| false)
}

/// The same, with what faults make of its text.
fn reply_with(
    status: StatusCode,
    headers: &HeaderMap,
    body: &impl Serialize,
    meets: &impl Fn(FaultKind) -> bool,
) -> Response {
    let Ok(plain) = serde_json::to_vec(body) else {
        return detail(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
    };
    let plain = broken::text(meets, plain);
    if plain.len() >= COMPRESS_FROM && takes_gzip(headers) {
        let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
        let packed = encoder.write_all(&plain).and_then(|()| encoder.finish());
        if let Ok(packed) = packed {
            let mut response = json_response(status, packed);
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            return response;
        }
    }
    json_response(status, plain)
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = text(headers, header::ACCEPT_ENCODING).unwrap_or_default();
    accepted.split(',').any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim() == "gzip" && !matches!(weight.trim(), "q=0" | "q=0.0")
    })
}

pub(super) fn json_response(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use std::time::Instant;

    use reqwest::{Client, RequestBuilder, Response};
    use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

    use super::*;
    use crate::{ClockSkew, Listing, Options, Replay, Simulator};

    /// A simulator behind a socket of its own, and a client that has a token.
    struct Served {
        simulator: Simulator,
        base: String,
        client: Client,
        token: String,
        stop: oneshot::Sender<()>,
        task: JoinHandle<std::io::Result<()>>,
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
                ("client_id", &tokens.client.id),
                ("client_secret", &tokens.client.secret),
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

    fn options(sensors: usize) -> Options {
        Options {
            sensors,
            ..Options::default()
        }
    }

    #[tokio::test]
    async fn a_sensor_is_read_with_a_token_and_what_was_served_can_be_asked() {
        let cloud = Served::start(options(10)).await;
        let id = cloud.id(2);
        assert_eq!(cloud.simulator.served(&id), []);
        let (status, body) = json(cloud.sensor(&id)).await;
        assert_eq!((status, body["id"].as_str()), (200, Some(&*id)));
        assert_eq!(body["name"], "0.02 Meeting room");
        assert_eq!(body["data"][0]["var_name"], "CO2ppm");
        assert_eq!(body["data"], json!(cloud.simulator.served(&id)));
        let (_, state) = json(cloud.client.get(format!("{}/simulator/state", cloud.base))).await;
        assert_eq!(state["sensors"][&id], body["data"]);
        assert_eq!(state["sensors"][cloud.id(3)], json!([]));
        assert_eq!(state["requests"]["sensor"], 1);
        let requests = cloud.simulator.requests();
        assert_eq!(
            (
                requests.token_granted,
                requests.sensor,
                requests.max_in_flight
            ),
            (1, 1, 1)
        );
    }

    #[tokio::test]
    async fn without_a_good_token_there_is_no_answer() {
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
    async fn wrong_questions_are_answered_as_fastapi_does() {
        let cloud = Served::start(options(10)).await;
        let (status, body) = json(cloud.sensor("AQ2-000000000000")).await;
        assert_eq!((status, &body["detail"]), (404, &json!("Sensor not found")));
        let (status, body) =
            json(cloud.get(&format!("/sensors/{}?project=latest", cloud.id(0)))).await;
        assert_eq!(
            (status, &body["detail"][0]["loc"][1]),
            (422, &json!("project"))
        );
        let (status, body) = json(cloud.get("/locations/9/")).await;
        assert_eq!(
            (status, &body["detail"]),
            (404, &json!("Location not found"))
        );
        assert_eq!(json(cloud.get("/nowhere")).await.0, 404);
        let wrong = [
            ("grant_type", "refresh_token"),
            ("client_id", "x"),
            ("client_secret", "y"),
        ];
        let request = cloud
            .client
            .post(format!("{}/oauth2/token", cloud.base))
            .form(&wrong);
        assert_eq!(
            json(request).await,
            (400, json!({"error": "invalid_client"}))
        );
        assert_eq!(cloud.simulator.requests().token_refused, 1);
    }

    #[tokio::test]
    async fn walking_the_locations_finds_every_sensor_once() {
        let cloud = Served::start(options(43)).await;
        let (_, root) = json(cloud.get("/locations")).await;
        assert_eq!(
            (&root["name"], root.get("sensors")),
            (&json!("Northlight Estates"), None)
        );
        let mut rest = vec![root["id"].as_str().unwrap().to_owned()];
        let mut found = Vec::new();
        while let Some(id) = rest.pop() {
            let (status, body) = json(cloud.get(&format!("/locations/{id}/"))).await;
            assert_eq!((status, body["id"].as_str()), (200, Some(&*id)));
            let ids = |list: &Value| -> Vec<String> {
                let list = list.as_array().unwrap();
                list.iter()
                    .map(|child| child["id"].as_str().unwrap().to_owned())
                    .collect()
            };
            for sensor in body["sensors"].as_array().unwrap() {
                let id = sensor["id"].as_str().unwrap();
                assert_eq!(sensor["data"], json!(cloud.simulator.served(id)));
            }
            rest.extend(ids(&body["children"]));
            found.extend(ids(&body["sensors"]));
        }
        found.sort();
        let mut all = cloud.simulator.sensors();
        all.sort();
        assert_eq!(found, all);
    }

    #[tokio::test]
    async fn large_answers_are_compressed_for_who_asks() {
        let cloud = Served::start(options(10)).await;
        let floor = &cloud.simulator.0.source.building().locations[3].id;
        let plain = client().gzip(false).build().unwrap();
        for (accept, packed) in [
            ("gzip", true),
            ("br, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("br", false),
        ] {
            let request = plain
                .get(format!("{}/locations/{floor}/", cloud.base))
                .bearer_auth(&cloud.token);
            let response = send(request.header("accept-encoding", accept)).await;
            let encoding = response.headers().get("content-encoding").is_some();
            let body = response.bytes().await.unwrap();
            assert_eq!(
                (encoding, body.starts_with(&[0x1f, 0x8b])),
                (packed, packed),
                "{accept}"
            );
        }
        let (status, body) = json(cloud.get(&format!("/locations/{floor}/"))).await;
        assert_eq!(
            (status, body["sensors"].as_array().unwrap().len()),
            (200, 10)
        );
    }

    #[tokio::test]
    async fn the_document_lists_the_routes_it_serves() {
        let cloud = Served::start(options(10)).await;
        let (_, document) = json(cloud.client.get(format!("{}/openapi.json", cloud.base))).await;
        let paths = document["paths"].as_object().unwrap();
        assert!(
            paths.keys().eq([
                "/locations",
                "/locations/{location_id}/",
                "/sensors/{sensor_id}"
            ]
            .iter())
        );
        for (path, methods) in paths {
            assert!(methods.get("get").is_some(), "{path}");
            let path = path
                .replace("{location_id}", "1000")
                .replace("{sensor_id}", &cloud.id(0));
            assert_eq!(
                json(cloud.get(&format!("{path}?project=latest&project=value")))
                    .await
                    .0,
                200
            );
        }
    }

    #[tokio::test]
    async fn faults_that_answer_at_once() {
        let cloud = Served::start(options(10)).await;
        let id = cloud.id(0);
        for (fault, status) in [
            ("error-500", 500),
            ("rate-limit", 429),
            ("unauthorized", 401),
        ] {
            cloud.switch(fault, true);
            let response = send(cloud.sensor(&id)).await;
            assert_eq!(response.status(), status, "{fault}");
            let after = response
                .headers()
                .get("retry-after")
                .map(|value| value.to_str().unwrap());
            assert_eq!(after, (status == 429).then_some("1"));
            assert_eq!(
                send(cloud.get("/locations")).await.status(),
                status,
                "{fault}"
            );
            assert_eq!(
                send(cloud.get("/locations/1000/")).await.status(),
                status,
                "{fault}"
            );
            cloud.switch(fault, false);
            assert_eq!(send(cloud.sensor(&id)).await.status(), 200, "after {fault}");
        }
        cloud.switch("malformed", true);
        let response = send(cloud.sensor(&id)).await;
        assert_eq!(response.status(), 200);
        let body = response.bytes().await.unwrap();
        assert!(serde_json::from_slice::<Value>(&body).is_err());
    }

    #[tokio::test]
    async fn a_truncated_answer_breaks_off_after_its_head() {
        let cloud = Served::start(options(10)).await;
        cloud.switch("truncated", true);
        let mut response = send(cloud.sensor(&cloud.id(0))).await;
        assert_eq!(response.status(), 200);
        let length = response.content_length().unwrap();
        let first = response.chunk().await.unwrap().unwrap();
        assert!(!first.is_empty() && (first.len() as u64) < length);
        assert!(response.chunk().await.is_err());
    }

    #[tokio::test]
    async fn a_slow_answer_comes_late_and_a_hanging_one_never() {
        let cloud = Served::start(options(10)).await;
        cloud.switch(&format!("slow={}", cloud.id(0)), true);
        cloud.switch(&format!("hang={}", cloud.id(1)), true);
        let start = Instant::now();
        let (slow, hanging) = (cloud.id(0), cloud.id(1));
        let hanging = cloud.sensor(&hanging).timeout(Duration::from_secs(3));
        let (slow, hanging) = tokio::join!(cloud.sensor(&slow).send(), hanging.send());
        assert_eq!(slow.unwrap().status(), 200);
        assert!(hanging.unwrap_err().is_timeout());
        assert!(start.elapsed() >= Duration::from_secs(3));
    }

    #[tokio::test]
    async fn a_fault_of_one_sensor_meets_its_own_route_only() {
        let cloud = Served::start(options(10)).await;
        cloud.switch(&format!("error-500={}", cloud.id(0)), true);
        assert_eq!(send(cloud.sensor(&cloud.id(0))).await.status(), 500);
        assert_eq!(send(cloud.sensor(&cloud.id(1))).await.status(), 200);
        let floor = &cloud.simulator.0.source.building().locations[3].id;
        let (status, body) = json(cloud.get(&format!("/locations/{floor}/"))).await;
        assert_eq!(
            (status, body["sensors"].as_array().unwrap().len()),
            (200, 10)
        );
    }

    #[tokio::test]
    async fn faults_of_tokens() {
        let cloud = Served::start(options(10)).await;
        cloud.switch("token-revoked", true);
        assert_eq!(
            json(cloud.token_request()).await,
            (400, json!({"error": "invalid_grant"}))
        );
        cloud.switch("token-revoked", false);
        cloud.switch("token-expires", true);
        let (_, body) = json(cloud.token_request()).await;
        assert_eq!(body["expires_in"], 14_400);
        let url = format!("{}/locations", cloud.base);
        let ask = || {
            send(
                cloud
                    .client
                    .get(&url)
                    .bearer_auth(body["access_token"].as_str().unwrap()),
            )
        };
        assert_eq!(ask().await.status(), 200);
        tokio::time::sleep(Duration::from_millis(2100)).await;
        assert_eq!(ask().await.status(), 401);
        // A token from before the fault is as good as it says.
        assert_eq!(send(cloud.get("/locations")).await.status(), 200);
    }

    #[tokio::test]
    async fn faults_are_switched_from_outside() {
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
    async fn a_wrong_clock_stamps_tokens_and_dates_but_not_readings() {
        for (skew, sign) in [
            (ClockSkew::Ahead(Duration::from_secs(3600)), 1.0),
            (ClockSkew::Behind(Duration::from_secs(3600)), -1.0),
        ] {
            let cloud = Served::start(Options {
                clock_skew: skew,
                ..options(10)
            })
            .await;
            let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(&cloud.token)
                .unwrap()
                .claims;
            let off = claims["iat"].as_f64().unwrap() - unix_now();
            assert!((off - sign * 3600.0).abs() < 10.0, "{off}");
            let response = send(cloud.sensor(&cloud.id(0))).await;
            assert_eq!(response.status(), 200);
            let date =
                httpdate::parse_http_date(response.headers()["date"].to_str().unwrap()).unwrap();
            let date = date.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            assert!((date - unix_now() - sign * 3600.0).abs() < 10.0);
            let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
            let age = unix_now() - body["data"][0]["time"].as_f64().unwrap();
            assert!((0.0..70.0).contains(&age), "{age}");
        }
    }

    #[tokio::test]
    async fn latency_is_added_and_requests_overlap() {
        let latency = Duration::from_millis(200);
        let cloud = Served::start(Options {
            latency,
            ..options(10)
        })
        .await;
        let start = Instant::now();
        let requests = (0..8).map(|index| cloud.sensor(&cloud.id(index)).send());
        let answers = futures_util::future::join_all(requests).await;
        assert!(
            answers
                .into_iter()
                .all(|answer| answer.unwrap().status() == 200)
        );
        assert!(start.elapsed() >= latency);
        assert_eq!(cloud.simulator.requests().max_in_flight, 8);
    }

    #[tokio::test]
    async fn stopping_cuts_every_connection() {
        let cloud = Served::start(options(10)).await;
        assert_eq!(send(cloud.get("/locations")).await.status(), 200);
        let request = cloud.get("/locations");
        cloud.stop.send(()).unwrap();
        cloud.task.await.unwrap().unwrap();
        assert!(request.send().await.is_err());
    }

    #[tokio::test]
    async fn recorded_readings_are_served_instead() {
        let csv = "time,sensor_id,var_name,value\n10,A-1,temperatureC,21.1875\n10,B-2,custom,5\n99999,A-1,CO2ppm,400\n";
        let replay = Some(Replay::read(csv.as_bytes(), 1.0).unwrap());
        let cloud = Served::start(Options {
            replay,
            ..options(0)
        })
        .await;
        let (_, body) = json(cloud.sensor("A-1")).await;
        assert_eq!(body["data"].as_array().unwrap().len(), 1);
        assert_eq!(body["data"][0]["value"], 21.1875);
        // Through the same parser, which may read the last bit of a number otherwise than it was.
        let served = json!(cloud.simulator.served("A-1")).to_string();
        let served: Value = serde_json::from_str(&served).unwrap();
        assert_eq!(body["data"], served);
        let (_, root) = json(cloud.get("/locations/1000/")).await;
        assert_eq!(root["sensors"].as_array().unwrap().len(), 2);
        let config = cloud.simulator.config_yaml(&cloud.base);
        assert!(
            config.ends_with("sensors:\n  - \"A-1\"\n  - \"B-2\"\n"),
            "{config}"
        );
    }

    #[tokio::test]
    async fn recorded_sensors_stand_in_the_locations_recorded_with_them() {
        let csv = "location,time,sensor_id,var_name,value\nLoft,1,A-1,x,1\nCellar,2,B-2,x,1\nLoft,3,C-3,x,1\n,4,D-4,x,1\n";
        let replay = Some(Replay::read(csv.as_bytes(), 1.0).unwrap());
        let listing = Listing::Locations;
        let cloud = Served::start(Options {
            replay,
            listing,
            ..options(0)
        })
        .await;
        let ids = |location: &Value| -> Vec<String> {
            let sensors = location["sensors"].as_array().unwrap().iter();
            sensors
                .map(|sensor| sensor["id"].as_str().unwrap().to_owned())
                .collect()
        };
        let (_, root) = json(cloud.get("/locations/1000/")).await;
        assert_eq!(ids(&root), ["D-4"]);
        assert_eq!(root["children"][0]["name"], "Loft");
        assert_eq!(root["children"][1]["name"], "Cellar");
        let (_, loft) = json(cloud.get("/locations/1001/")).await;
        assert_eq!(ids(&loft), ["A-1", "C-3"]);
        let config = cloud.simulator.config_yaml(&cloud.base);
        assert!(config.ends_with("locations:\n  - id: base\n    recursive: true\n"));
    }
}
