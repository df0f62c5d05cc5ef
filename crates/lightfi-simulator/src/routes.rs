//! The simulated cloud over HTTP.
//!
//! The vendor's routes (all but the first three need an access token):
//! - `GET` and `POST /oauth2/authorize`: the login form;
//! - `POST /oauth2/token`: access tokens for refresh tokens and authorization codes;
//! - `GET /openapi.json`: the routes as FastAPI describes them;
//! - `GET /sensors/{id}?project=latest&project=value`: one sensor;
//! - `GET /locations`: the base location; `GET /locations/{id}/`: a location's children and its sensors with readings.
//!
//! For a program that drives the simulator from outside, without a token:
//! - `PUT` and `DELETE /simulator/faults/{NAME[=ID]}`: switches a fault on or off.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    Extension, Json, Router,
    extract::{Path, RawPathParams, RawQuery, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{get, post, put},
};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    building::Location,
    cloud::Cloud,
    fault_responses::{self, Connection},
    faults::{Fault, FaultError, FaultKind},
    login_page::{self, LoginResponse},
    reading::Reading,
    responses,
};

type Shared = State<Arc<Cloud>>;
/// The faults that affect the request.
type ActiveFaults = Arc<[FaultKind]>;

const NO_STORE: (header::HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// Returns all routes. They take the [`Connection`] of the request as an extension.
pub(super) fn router(cloud: &Arc<Cloud>) -> Router {
    let api = Router::new()
        .route("/sensors/{id}", get(sensor))
        .route("/locations", get(base_location))
        .route("/locations/{id}/", get(location))
        .route_layer(middleware::from_fn_with_state(cloud.clone(), api_request));
    let router = Router::new()
        .merge(api)
        .route("/oauth2/authorize", get(show_login).post(submit_login))
        .route("/oauth2/token", post(token))
        .route("/openapi.json", get(openapi))
        .route(
            "/simulator/faults/{fault}",
            put(switch_fault).delete(switch_fault),
        )
        .fallback(async || responses::error(StatusCode::NOT_FOUND, "Not Found"))
        .with_state(cloud.clone());
    match cloud.options.clock_skew {
        0.0 => router,
        _ => router.layer(middleware::map_response_with_state(cloud.clone(), date)),
    }
}

/// Sets the `Date` of the cloud's own clock.
async fn date(State(cloud): Shared, mut response: Response) -> Response {
    let now = UNIX_EPOCH + Duration::from_secs_f64(cloud.now().max(0.0));
    if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(now)) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

async fn show_login(State(cloud): Shared, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let allowed = &cloud.options.redirect_uris;
    login_response(login_page::show(&cloud.tokens, allowed, query.as_bytes()))
}

async fn submit_login(State(cloud): Shared, form: Bytes) -> Response {
    let allowed = &cloud.options.redirect_uris;
    login_response(login_page::submit(
        &cloud.tokens,
        allowed,
        &form,
        cloud.now(),
    ))
}

fn login_response(response: LoginResponse) -> Response {
    let response = match response {
        LoginResponse::Form(page) => Html(page).into_response(),
        LoginResponse::Error(page) => (StatusCode::BAD_REQUEST, Html(page)).into_response(),
        LoginResponse::Redirect(to) => {
            (StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
        }
    };
    ([NO_STORE], response).into_response()
}

async fn token(
    State(cloud): Shared,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    form: Bytes,
) -> Response {
    let faults = cloud.faults.of_token_request();
    if let Some(response) = fault_responses::replacement(&faults, &connection).await {
        cloud.count(|requests| requests.token_refused += 1);
        return response;
    }
    let authorization = authorization(&headers);
    let short_lived = faults.contains(&FaultKind::TokenExpires);
    let result = cloud
        .tokens
        .respond(&form, authorization, short_lived, cloud.now());
    match result {
        Ok(response) => {
            cloud.count(|requests| requests.token_granted += 1);
            ([NO_STORE], Json(response)).into_response()
        }
        Err(error) => {
            cloud.count(|requests| requests.token_refused += 1);
            ([NO_STORE], fault_responses::oauth_error(error)).into_response()
        }
    }
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()
}

/// Handles every API request first: the counters, the delay, the access token and the transport faults.
async fn api_request(
    State(cloud): Shared,
    Extension(connection): Extension<Connection>,
    parameters: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    let id = parameters.iter().next().map(|(_, id)| id);
    let is_sensor = request.uri().path().starts_with("/sensors/");
    cloud.count(|requests| match id {
        Some(_) if is_sensor => requests.sensor += 1,
        Some(_) => requests.location += 1,
        None => requests.base_location += 1,
    });
    tokio::time::sleep(cloud.options.latency).await;
    let bearer = authorization(request.headers()).and_then(|value| value.split_once(' '));
    let authorized = bearer.is_some_and(|(scheme, token)| {
        scheme.eq_ignore_ascii_case("bearer") && cloud.tokens.accepts(token.trim(), cloud.now())
    });
    let faults: ActiveFaults = cloud.faults.of_api_request(id).into();
    let response = match fault_responses::replacement(&faults, &connection).await {
        _ if !authorized => responses::unauthorized(),
        Some(response) => response,
        None => {
            request.extensions_mut().insert(faults);
            next.run(request).await
        }
    };
    if response.status() == StatusCode::UNAUTHORIZED {
        cloud.count(|requests| requests.unauthorized += 1);
    }
    response
}

/// A sensor as the sensor and location routes describe it.
#[derive(Serialize)]
struct SensorResponse<'a> {
    data: Vec<Reading>,
    id: &'a str,
    name: Option<&'a str>,
}

fn sensor_response<'a>(cloud: &'a Cloud, index: usize, faults: &[FaultKind]) -> SensorResponse<'a> {
    let sensor = &cloud.building().sensors[index];
    SensorResponse {
        data: fault_responses::change_readings(faults, cloud.serve_readings(index)),
        id: &sensor.id,
        name: sensor.name.as_deref(),
    }
}

async fn sensor(
    State(cloud): Shared,
    Extension(faults): Extension<ActiveFaults>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query = query.unwrap_or_default();
    let requests = |what: &str| {
        url::form_urlencoded::parse(query.as_bytes())
            .any(|(key, value)| key == "project" && value == what)
    };
    if !(requests("latest") && requests("value")) {
        let error = json!({"type": "missing", "loc": ["query", "project"], "msg": "Field required", "input": null});
        let body = Json(json!({"detail": [error]}));
        return (StatusCode::UNPROCESSABLE_ENTITY, body).into_response();
    }
    match cloud.building().sensor(&id) {
        Some(index) => document(&headers, &faults, &sensor_response(&cloud, index, &faults)),
        None => responses::error(StatusCode::NOT_FOUND, "Sensor not found"),
    }
}

#[derive(Serialize)]
struct LocationResponse<'a> {
    id: &'a str,
    name: &'a str,
    r#type: &'a str,
    parent_id: Option<&'a str>,
    children: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sensors: Option<Vec<SensorResponse<'a>>>,
}

fn location_response<'a>(cloud: &'a Cloud, location: &'a Location) -> LocationResponse<'a> {
    let locations = &cloud.building().locations;
    let children = location.children.iter().map(|index| {
        let child = &locations[*index];
        json!({"id": child.id, "name": child.name, "type": child.kind})
    });
    LocationResponse {
        id: &location.id,
        name: &location.name,
        r#type: location.kind,
        parent_id: location.parent.map(|parent| &*locations[parent].id),
        children: children.collect(),
        sensors: None,
    }
}

async fn base_location(
    State(cloud): Shared,
    Extension(faults): Extension<ActiveFaults>,
    headers: HeaderMap,
) -> Response {
    let root = cloud.building().root();
    document(&headers, &faults, &location_response(&cloud, root))
}

async fn location(
    State(cloud): Shared,
    Extension(faults): Extension<ActiveFaults>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(location) = cloud.building().location(&id) else {
        return responses::error(StatusCode::NOT_FOUND, "Location not found");
    };
    let times = 1 + usize::from(faults.contains(&FaultKind::DuplicateSensors));
    let sensors = std::iter::repeat_n(&location.sensors, times).flatten();
    let sensors = sensors.map(|index| sensor_response(&cloud, *index, &faults));
    let response = LocationResponse {
        sensors: Some(sensors.collect()),
        ..location_response(&cloud, location)
    };
    document(&headers, &faults, &response)
}

/// Returns a good response, with the payload faults that change its text.
fn document(request: &HeaderMap, faults: &[FaultKind], body: &impl Serialize) -> Response {
    let text = fault_responses::change_text(faults, responses::to_json(body));
    responses::json_document(request, text)
}

async fn openapi() -> Response {
    ([responses::JSON], include_str!("openapi.json")).into_response()
}

async fn switch_fault(
    State(cloud): Shared,
    method: Method,
    Path(fault): Path<String>,
) -> Result<StatusCode, Response> {
    let fault: Fault = fault.parse().map_err(|error: FaultError| {
        responses::error(StatusCode::BAD_REQUEST, &error.to_string())
    })?;
    if !fault.exists_in(cloud.building()) {
        let error = "no such sensor or location";
        return Err(responses::error(StatusCode::NOT_FOUND, error));
    }
    cloud.faults.set(&fault, method == Method::PUT);
    Ok(StatusCode::NO_CONTENT)
}
