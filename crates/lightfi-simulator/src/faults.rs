//! Named faults: what the simulated cloud can be told to do wrong, and which of it is on at present.
//!
//! `routes` asks before it answers, and `broken` makes what is then answered; `--fault`, tests and
//! `PUT /simulator/faults/…` switch.

use std::{fmt, str::FromStr, sync::Arc};

use arc_swap::ArcSwap;

use super::building::Building;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Requests are answered 500.
    Error500,
    /// Requests are answered 429 with `Retry-After: 1`.
    RateLimit,
    /// Requests are answered two seconds late.
    Slow,
    /// Requests are never answered.
    Hang,
    /// Requests are answered 200 with a body that is no JSON.
    Malformed,
    /// Answers end before the length they announce.
    Truncated,
    /// Requests are answered 401 though the token is good.
    Unauthorized,
    /// The connection is reset in the middle of an answer.
    Reset,
    /// An answer comes at one byte a second.
    Drip,
    /// An answer is 200 MB long.
    Huge,
    /// An answer is small, and 64 MB long when it is unpacked.
    GzipBomb,
    /// An answer announces less than it has, so that it ends early.
    WrongLength,
    /// Requests are answered 200 with a web page, as portals and wrong addresses do.
    Html,
    /// Requests are answered by a redirect to another host.
    Redirect,
    /// Where a sensor's readings should be there is an object.
    DataObject,
    /// Where a sensor's readings should be there is a text.
    DataString,
    /// Where a sensor's readings should be there is `null`.
    DataNull,
    /// Every value is larger than any number a computer holds.
    OutOfRange,
    /// Every value is `Infinity`, which JSON does not have.
    Infinity,
    /// Every reading is of long before 1970.
    NegativeTimes,
    /// Every reading is of some thousand years ahead.
    FarFuture,
    /// Every variable comes twice, with an older reading.
    DuplicateVariables,
    /// Every sensor of a location comes twice.
    DuplicateSensors,
    /// A sensor has 100,000 variables more.
    ManyVariables,
    /// Tokens granted from now on are refused two seconds later, long before they say they end.
    TokenExpires,
    /// The token endpoint answers `invalid_grant`.
    TokenRevoked,
    /// The token endpoint answers `invalid_client`.
    TokenInvalidClient,
    /// The token endpoint answers 500.
    TokenError500,
    /// The token endpoint answers two seconds late.
    TokenSlow,
    /// The token endpoint answers 200 with a web page, as portals and wrong addresses do.
    TokenHtml,
    /// The token endpoint answers 200 with JSON that holds no `access_token`.
    TokenNoAccessToken,
}

/// What a fault is of, and so where it can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// How an answer comes: on any route.
    Delivery,
    /// What it says of sensors: on the API's routes.
    Readings,
    /// Of the token endpoint alone.
    Token,
}

impl FaultKind {
    /// Every fault with its name.
    pub const ALL: [(&'static str, Self); 31] = [
        ("error-500", Self::Error500),
        ("rate-limit", Self::RateLimit),
        ("slow", Self::Slow),
        ("hang", Self::Hang),
        ("malformed", Self::Malformed),
        ("truncated", Self::Truncated),
        ("unauthorized", Self::Unauthorized),
        ("reset", Self::Reset),
        ("drip", Self::Drip),
        ("huge", Self::Huge),
        ("gzip-bomb", Self::GzipBomb),
        ("wrong-length", Self::WrongLength),
        ("html", Self::Html),
        ("redirect", Self::Redirect),
        ("data-object", Self::DataObject),
        ("data-string", Self::DataString),
        ("data-null", Self::DataNull),
        ("out-of-range", Self::OutOfRange),
        ("infinity", Self::Infinity),
        ("negative-times", Self::NegativeTimes),
        ("far-future", Self::FarFuture),
        ("duplicate-variables", Self::DuplicateVariables),
        ("duplicate-sensors", Self::DuplicateSensors),
        ("many-variables", Self::ManyVariables),
        ("token-expires", Self::TokenExpires),
        ("token-revoked", Self::TokenRevoked),
        ("token-invalid-client", Self::TokenInvalidClient),
        ("token-error-500", Self::TokenError500),
        ("token-slow", Self::TokenSlow),
        ("token-html", Self::TokenHtml),
        ("token-no-access-token", Self::TokenNoAccessToken),
    ];

    fn sort(self) -> Sort {
        match self {
            Self::Error500
            | Self::RateLimit
            | Self::Slow
            | Self::Hang
            | Self::Malformed
            | Self::Truncated
            | Self::Unauthorized
            | Self::Reset
            | Self::Drip
            | Self::Huge
            | Self::GzipBomb
            | Self::WrongLength
            | Self::Html
            | Self::Redirect => Sort::Delivery,
            Self::DataObject
            | Self::DataString
            | Self::DataNull
            | Self::OutOfRange
            | Self::Infinity
            | Self::NegativeTimes
            | Self::FarFuture
            | Self::DuplicateVariables
            | Self::DuplicateSensors
            | Self::ManyVariables => Sort::Readings,
            Self::TokenExpires
            | Self::TokenRevoked
            | Self::TokenInvalidClient
            | Self::TokenError500
            | Self::TokenSlow
            | Self::TokenHtml
            | Self::TokenNoAccessToken => Sort::Token,
        }
    }
}

/// A fault of all API requests, or of one route only. Written `NAME` or `NAME=ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// The only one it happens to: a sensor or a location by its id, or [`TOKEN`]. In a location's reply a sensor is left
    /// alone by faults of its own.
    pub only: Option<String>,
}

/// `NAME=token`: a fault of the token endpoint.
pub(super) const TOKEN: &str = "token";

/// Why a text names no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// No such name.
    #[error("unknown fault {0:?}; known are {known}", known = known())]
    Unknown(String),
    /// `NAME=` with nothing after it.
    #[error(
        "fault {0:?} ends where a sensor id should follow; without `=` it concerns all sensors"
    )]
    NoSensor(String),
    /// A fault of the token endpoint with a sensor.
    #[error("fault {0:?} is of the token endpoint and takes no sensor id")]
    TakesNoSensor(String),
    /// A fault of readings at the token endpoint.
    #[error("fault {0:?} is of readings, which the token endpoint has none of")]
    NotOfTokens(String),
}

fn known() -> String {
    FaultKind::ALL.map(|(name, _)| name).join(", ")
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (name, only) = match text.split_once('=') {
            Some((name, only)) => (name, Some(only)),
            None => (text, None),
        };
        let (_, kind) = FaultKind::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| FaultError::Unknown(name.to_owned()))?;
        match (only, kind.sort()) {
            (Some(""), _) => Err(FaultError::NoSensor(text.to_owned())),
            (Some(_), Sort::Token) => Err(FaultError::TakesNoSensor(name.to_owned())),
            (Some(TOKEN), Sort::Readings) => Err(FaultError::NotOfTokens(name.to_owned())),
            _ => Ok(Self {
                kind: *kind,
                only: only.map(str::to_owned),
            }),
        }
    }
}

impl Fault {
    /// Whether there is what it happens to.
    pub(super) fn is_of(&self, building: &Building) -> bool {
        self.only.as_deref().is_none_or(|id| {
            id == TOKEN || building.sensor(id).is_some() || building.location(id).is_some()
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = FaultKind::ALL.iter().find(|(_, kind)| *kind == self.kind);
        f.write_str(name.map_or("", |(name, _)| name))?;
        match &self.only {
            Some(only) => write!(f, "={only}"),
            None => Ok(()),
        }
    }
}

/// The faults that are on.
#[derive(Debug)]
pub(super) struct Faults(ArcSwap<Vec<Fault>>);

impl Faults {
    pub(super) fn new(faults: Vec<Fault>) -> Self {
        Self(ArcSwap::from_pointee(faults))
    }

    /// Whether a request of the API is met by a fault: by one of all, and by those of its own sensor or location.
    pub(super) fn meets(&self, kind: FaultKind, id: Option<&str>) -> bool {
        kind.sort() != Sort::Token
            && self.0.load().iter().any(|fault| {
                fault.kind == kind && (fault.only.is_none() || fault.only.as_deref() == id)
            })
    }

    /// Whether a token request is met by a fault.
    pub(super) fn meets_token(&self, kind: FaultKind) -> bool {
        self.0.load().iter().any(|fault| {
            let of_tokens = kind.sort() == Sort::Token || fault.only.as_deref() == Some(TOKEN);
            fault.kind == kind && of_tokens
        })
    }

    /// Switches one fault; switching what is so already does nothing.
    pub(super) fn set(&self, fault: &Fault, on: bool) {
        self.0.rcu(|faults| {
            let others = faults.iter().filter(|known| *known != fault).cloned();
            Arc::new(others.chain(on.then(|| fault.clone())).collect::<Vec<_>>())
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_name_reads_and_writes_itself() {
        for (name, kind) in FaultKind::ALL {
            let fault: Fault = name.parse().unwrap();
            assert_eq!((fault.kind, fault.to_string()), (kind, name.to_owned()));
        }
        let one: Fault = "slow=AQ2-0A1B2C3D4E5F".parse().unwrap();
        assert_eq!(one.only.as_deref(), Some("AQ2-0A1B2C3D4E5F"));
        assert_eq!(one.to_string(), "slow=AQ2-0A1B2C3D4E5F");
    }

    #[test]
    fn what_is_no_fault_says_why() {
        let error = |text: &str| text.parse::<Fault>().unwrap_err().to_string();
        assert_eq!(
            error("error500"),
            "unknown fault \"error500\"; known are error-500, rate-limit, slow, hang, malformed, truncated, \
             unauthorized, reset, drip, huge, gzip-bomb, wrong-length, html, redirect, data-object, data-string, \
             data-null, out-of-range, infinity, negative-times, far-future, duplicate-variables, duplicate-sensors, \
             many-variables, token-expires, token-revoked, token-invalid-client, token-error-500, token-slow, \
             token-html, token-no-access-token"
        );
        assert_eq!(
            error("data-null=token"),
            "fault \"data-null\" is of readings, which the token endpoint has none of"
        );
        assert_eq!(
            error("slow="),
            "fault \"slow=\" ends where a sensor id should follow; without `=` it concerns all sensors"
        );
        assert_eq!(
            error("token-revoked=LF-1"),
            "fault \"token-revoked\" is of the token endpoint and takes no sensor id"
        );
    }

    #[test]
    fn a_fault_of_one_sensor_leaves_the_others_alone_and_can_be_switched_off() {
        let faults = Faults::new(vec!["hang=A".parse().unwrap()]);
        assert!(faults.meets(FaultKind::Hang, Some("A")));
        assert!(!faults.meets(FaultKind::Hang, Some("B")));
        assert!(!faults.meets(FaultKind::Hang, None));
        faults.set(&"hang".parse().unwrap(), true);
        assert!(faults.meets(FaultKind::Hang, Some("B")));
        faults.set(&"hang=A".parse().unwrap(), false);
        faults.set(&"hang".parse().unwrap(), false);
        assert!(!faults.meets(FaultKind::Hang, Some("A")));
    }

    #[test]
    fn the_token_endpoint_has_its_own_faults_and_those_it_is_named_in() {
        let faults = Faults::new(vec!["hang".parse().unwrap(), "html=token".parse().unwrap()]);
        assert!(!faults.meets_token(FaultKind::Hang));
        assert!(faults.meets_token(FaultKind::Html));
        assert!(!faults.meets(FaultKind::Html, Some("A")));
        faults.set(&"token-slow".parse().unwrap(), true);
        assert!(faults.meets_token(FaultKind::TokenSlow));
        assert!(!faults.meets(FaultKind::TokenSlow, Some("A")));
    }
}
