//! The named faults of the simulated cloud, and which of them are on.
//!
//! `fault_responses` makes the responses. Faults are switched by `--fault`, by tests and by `PUT /simulator/faults/…`.

use std::{
    fmt,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::building::Building;

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The response is 500.
    Error500,
    /// The response is 429 with `Retry-After: 1`.
    RateLimit,
    /// The response is two seconds late.
    Slow,
    /// There is never a response.
    Hang,
    /// The response is 200 with invalid JSON.
    Malformed,
    /// The body ends before the announced length.
    Truncated,
    /// The response is 401 although the token is valid.
    Unauthorized,
    /// The connection is reset in the middle of the body.
    Reset,
    /// The body arrives at one byte per second.
    Drip,
    /// The body is 200 MB long.
    Huge,
    /// The body is small, and 64 MB long when decompressed.
    GzipBomb,
    /// The announced length is shorter than the body.
    WrongLength,
    /// The response is 200 with an HTML page.
    Html,
    /// The response redirects to another host.
    Redirect,
    /// `data` is an object.
    DataObject,
    /// `data` is a string.
    DataString,
    /// `data` is `null`.
    DataNull,
    /// Every value is larger than an f64 can hold.
    OutOfRange,
    /// Every value is `Infinity`, which is not JSON.
    Infinity,
    /// Every time is long before 1970.
    NegativeTimes,
    /// Every time is some thousand years ahead.
    FarFuture,
    /// Every variable appears twice, once with an older reading.
    DuplicateVariables,
    /// Every sensor of a location appears twice.
    DuplicateSensors,
    /// Every sensor has 100,000 additional variables.
    ManyVariables,
    /// New access tokens are refused after two seconds, long before they expire.
    TokenExpires,
    /// The token endpoint answers `invalid_grant`.
    TokenRevoked,
    /// The token endpoint answers `invalid_client`.
    TokenInvalidClient,
    /// The token endpoint answers 200 with JSON without `access_token`.
    TokenNoAccessToken,
}

/// The requests that a fault can affect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// How a response is sent: every route.
    Transport,
    /// The content of a response: the API's routes.
    Payload,
    /// The token endpoint only.
    Token,
}

use FaultKind::*;
use Scope::{Payload, Token, Transport};

/// Every fault with its name and scope.
const FAULTS: &[(&str, FaultKind, Scope)] = &[
    ("error-500", Error500, Transport),
    ("rate-limit", RateLimit, Transport),
    ("slow", Slow, Transport),
    ("hang", Hang, Transport),
    ("malformed", Malformed, Transport),
    ("truncated", Truncated, Transport),
    ("unauthorized", Unauthorized, Transport),
    ("reset", Reset, Transport),
    ("drip", Drip, Transport),
    ("huge", Huge, Transport),
    ("gzip-bomb", GzipBomb, Transport),
    ("wrong-length", WrongLength, Transport),
    ("html", Html, Transport),
    ("redirect", Redirect, Transport),
    ("data-object", DataObject, Payload),
    ("data-string", DataString, Payload),
    ("data-null", DataNull, Payload),
    ("out-of-range", OutOfRange, Payload),
    ("infinity", Infinity, Payload),
    ("negative-times", NegativeTimes, Payload),
    ("far-future", FarFuture, Payload),
    ("duplicate-variables", DuplicateVariables, Payload),
    ("duplicate-sensors", DuplicateSensors, Payload),
    ("many-variables", ManyVariables, Payload),
    ("token-expires", TokenExpires, Token),
    ("token-revoked", TokenRevoked, Token),
    ("token-invalid-client", TokenInvalidClient, Token),
    ("token-no-access-token", TokenNoAccessToken, Token),
];

/// A fault of all API requests, or of one route. Written `NAME` or `NAME=ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    scope: Scope,
    /// The id of the only sensor or location whose route it affects, or [`TOKEN_ENDPOINT`].
    pub only: Option<String>,
}

/// `NAME=token` is a fault of the token endpoint.
const TOKEN_ENDPOINT: &str = "token";

/// Why a text is not a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// No fault has that name.
    #[error("unknown fault {0:?}; known are {known}", known = names().collect::<Vec<_>>().join(", "))]
    Unknown(String),
    /// `NAME=` without an id.
    #[error("fault {0:?}: the id after \"=\" is missing; without \"=\" it affects all sensors")]
    MissingId(String),
    /// A fault of the token endpoint with an id, or a payload fault for the token endpoint.
    #[error(
        "fault {0:?}: this fault cannot be limited to what follows \"=\"; see the table of faults in the README"
    )]
    WrongRoute(String),
}

/// Returns the names of all faults.
pub fn names() -> impl Iterator<Item = &'static str> {
    FAULTS.iter().map(|(name, ..)| *name)
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (name, only) = match text.split_once('=') {
            Some((name, only)) => (name, Some(only)),
            None => (text, None),
        };
        let mut faults = FAULTS.iter();
        let Some(&(_, kind, scope)) = faults.find(|(known, ..)| *known == name) else {
            return Err(FaultError::Unknown(name.to_owned()));
        };
        match (only, scope) {
            (Some(""), _) => Err(FaultError::MissingId(text.to_owned())),
            (Some(_), Token) | (Some(TOKEN_ENDPOINT), Payload) => {
                Err(FaultError::WrongRoute(text.to_owned()))
            }
            _ => Ok(Self {
                kind,
                scope,
                only: only.map(str::to_owned),
            }),
        }
    }
}

impl Fault {
    /// Returns whether the building has the sensor or location that the fault names.
    pub(super) fn exists_in(&self, building: &Building) -> bool {
        self.only.as_deref().is_none_or(|id| {
            id == TOKEN_ENDPOINT || building.sensor(id).is_some() || building.location(id).is_some()
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = FAULTS.iter().find(|(_, kind, _)| *kind == self.kind);
        f.write_str(row.map_or("", |(name, ..)| name))?;
        match &self.only {
            Some(only) => write!(f, "={only}"),
            None => Ok(()),
        }
    }
}

/// The faults that are on.
#[derive(Debug)]
pub(super) struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    pub(super) fn new(faults: Vec<Fault>) -> Self {
        Self(Mutex::new(faults))
    }

    /// Returns the faults that affect an API request for the sensor or location `id`.
    pub(super) fn of_api_request(&self, id: Option<&str>) -> Vec<FaultKind> {
        self.select(|fault| {
            fault.scope != Token && (fault.only.is_none() || fault.only.as_deref() == id)
        })
    }

    /// Returns the faults that affect a token request.
    pub(super) fn of_token_request(&self) -> Vec<FaultKind> {
        self.select(|fault| fault.scope == Token || fault.only.as_deref() == Some(TOKEN_ENDPOINT))
    }

    /// Switches a fault on or off.
    pub(super) fn set(&self, fault: &Fault, on: bool) {
        let mut faults = self.lock();
        faults.retain(|known| known != fault);
        if on {
            faults.push(fault.clone());
        }
    }

    fn select(&self, affects: impl Fn(&Fault) -> bool) -> Vec<FaultKind> {
        let faults = self.lock();
        let selected = faults.iter().filter(|fault| affects(fault));
        selected.map(|fault| fault.kind).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_fault_is_written_as_it_is_read() {
        for text in names().chain(["slow=AQ2-0A1B2C3D4E5F", "hang=token"]) {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let error = |text: &str| text.parse::<Fault>().unwrap_err().to_string();
        assert!(
            error("error500")
                .starts_with("unknown fault \"error500\"; known are error-500, rate-limit, slow, ")
        );
        assert_eq!(
            error("slow="),
            "fault \"slow=\": the id after \"=\" is missing; without \"=\" it affects all sensors"
        );
        for text in ["data-null=token", "token-revoked=LF-1"] {
            assert!(
                error(text).contains("this fault cannot be limited"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_fault_of_one_sensor_affects_no_other_and_can_be_switched_off() {
        let faults = Faults::new(vec!["hang=A".parse().unwrap()]);
        assert_eq!(faults.of_api_request(Some("A")), [Hang]);
        assert_eq!(faults.of_api_request(Some("B")), []);
        assert_eq!(faults.of_api_request(None), []);
        faults.set(&"hang".parse().unwrap(), true);
        assert_eq!(faults.of_api_request(Some("B")), [Hang]);
        faults.set(&"hang=A".parse().unwrap(), false);
        faults.set(&"hang".parse().unwrap(), false);
        assert_eq!(faults.of_api_request(Some("A")), []);
    }

    #[test]
    fn the_token_endpoint_has_its_own_faults_and_those_that_name_it() {
        let faults = ["hang", "html=token", "token-expires"].map(|text| text.parse().unwrap());
        let faults = Faults::new(faults.to_vec());
        assert_eq!(faults.of_token_request(), [Html, TokenExpires]);
        assert_eq!(faults.of_api_request(Some("A")), [Hang]);
    }
}
