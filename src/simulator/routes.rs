//! The simulated cloud over HTTP.
//!
//! As the vendor's (bearer token needed but for the first two):
//! - `POST /oauth2/token`: the refresh grant;
//! - `GET /openapi.json`: what FastAPI would say of the routes;
//! - `GET /sensors/{id}?project=latest&project=value`: one sensor;
//! - `GET /locations`: the base location; `GET /locations/{id}/`: a location's children and its sensors with readings.
//!
//! Not the vendor's, without a token, for whoever drives the simulator from outside:
//! - `GET /simulator/state`: `{"sensors": {id: items last served}, "requests": {…}}`;
//! - `PUT` and `DELETE /simulator/faults/{NAME[=SENSOR_ID]}`: switches a fault.

use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    Router,
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
    Cloud,
    building::Location,
    faults::{Fault, FaultKind},
    tokens::{Request, TokenFaults},
    unix_now,
    world::Item,
};

/// How late the fault `slow` is.
const SLOW: Duration = Duration::from_secs(2);

/// Smaller bodies are not worth compressing.
const COMPRESS_FROM: usize = 1024;

type Shared = State<Arc<Cloud>>;

/// All routes.
pub(super) fn router(cloud: Arc<Cloud>) -> Router {
    let skewed = cloud.skew != 0.0;
    let router = Router::new()
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

async fn token(State(cloud): Shared, headers: HeaderMap, form: Bytes) -> Response {
    let request = Request {
        form: &form,
        authorization: text(&headers, header::AUTHORIZATION),
    };
    let faults = TokenFaults {
        revoked: cloud.faults.meets(FaultKind::TokenRevoked, None),
        expires: cloud.faults.meets(FaultKind::TokenExpires, None),
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

/// A sensor as both kinds of routes show it.
#[derive(Serialize)]
struct SensorReply<'a> {
    data: Vec<Item>,
    id: &'a str,
    name: Option<&'a str>,
}

fn sensor_reply(cloud: &Cloud, index: usize, now: f64) -> SensorReply<'_> {
    let sensor = &cloud.source.building().sensors[index];
    SensorReply {
        data: cloud.serve_readings(index, now),
        id: &sensor.id,
        name: sensor.name.as_deref(),
    }
}

async fn sensor(
    State(cloud): Shared,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let counter = &cloud.counters.sensor;
    api(&cloud, counter, &headers, Some(&id), || {
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
            Some(index) => reply(
                StatusCode::OK,
                &headers,
                &sensor_reply(&cloud, index, unix_now()),
            ),
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

async fn base_location(State(cloud): Shared, headers: HeaderMap) -> Response {
    let counter = &cloud.counters.base_location;
    api(&cloud, counter, &headers, None, || {
        let root = cloud.source.building().root();
        reply(StatusCode::OK, &headers, &location_reply(&cloud, root))
    })
    .await
}

async fn location(State(cloud): Shared, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let counter = &cloud.counters.location;
    api(&cloud, counter, &headers, None, || {
        let Some(location) = cloud.source.building().location(&id) else {
            return detail(StatusCode::NOT_FOUND, "Location not found");
        };
        let now = unix_now();
        let sensors = location.sensors.iter();
        let body = LocationReply {
            sensors: Some(
                sensors
                    .map(|index| sensor_reply(&cloud, *index, now))
                    .collect(),
            ),
            ..location_reply(&cloud, location)
        };
        reply(StatusCode::OK, &headers, &body)
    })
    .await
}

/// What every API request goes through: the count, the delay, the faults, the token. A fault of a sensor meets only
/// that sensor's own route.
async fn api(
    cloud: &Cloud,
    counter: &AtomicUsize,
    headers: &HeaderMap,
    sensor: Option<&str>,
    answer: impl FnOnce() -> Response,
) -> Response {
    counter.fetch_add(1, Ordering::Relaxed);
    let _in_flight = InFlight::new(cloud);
    let meets = |kind| cloud.faults.meets(kind, sensor);
    if !cloud.latency.is_zero() {
        tokio::time::sleep(cloud.latency).await;
    }
    if meets(FaultKind::Hang) {
        std::future::pending::<()>().await;
    }
    if meets(FaultKind::Slow) {
        tokio::time::sleep(SLOW).await;
    }
    let bearer = text(headers, header::AUTHORIZATION)
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let known = bearer.is_some_and(|(_, token)| cloud.tokens.accepts(token.trim(), cloud.now()));
    if !known || meets(FaultKind::Unauthorized) {
        cloud.counters.unauthorized.fetch_add(1, Ordering::Relaxed);
        let mut response = detail(StatusCode::UNAUTHORIZED, "Could not validate credentials");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    if meets(FaultKind::Error500) {
        return detail(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
    }
    if meets(FaultKind::RateLimit) {
        let mut response = detail(StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded");
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        return response;
    }
    if meets(FaultKind::Malformed) {
        return json_response(StatusCode::OK, r#"{"data": [{"var_name": "CO2ppm", "ti"#);
    }
    if meets(FaultKind::Truncated) {
        return truncated();
    }
    answer()
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

/// An answer that breaks off: the body fails after its first bytes, and with it the connection.
fn truncated() -> Response {
    const BEGIN: &str = r#"{"data": [{"var_name": "CO2ppm", "#;
    let body = futures_util::stream::unfold(0, async |step| match step {
        0 => Some((Ok(Bytes::from_static(BEGIN.as_bytes())), 1)),
        _ => {
            // Until the head and the first bytes have left.
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Err(io::Error::other("truncated on purpose")), 2))
        }
    });
    let mut response = json_response(StatusCode::OK, Body::from_stream(body));
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(10 * BEGIN.len()));
    response
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
    let sensor = fault.sensor.as_deref();
    if sensor.is_some_and(|id| cloud.source.building().sensor(id).is_none()) {
        return detail(StatusCode::NOT_FOUND, "Sensor not found");
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
fn detail(status: StatusCode, text: &str) -> Response {
    json_response(status, json!({"detail": text}).to_string())
}

/// A body as JSON, compressed where the client takes it and it pays.
fn reply(status: StatusCode, headers: &HeaderMap, body: &impl Serialize) -> Response {
    let Ok(plain) = serde_json::to_vec(body) else {
        return detail(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
    };
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

fn json_response(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
