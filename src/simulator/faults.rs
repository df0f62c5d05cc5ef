//! Named faults: what the simulated cloud can be told to do wrong, and which of it is on at present.
//!
//! `routes` asks before it answers; `--fault`, tests and `PUT /simulator/faults/…` switch.

use std::{fmt, str::FromStr, sync::Arc};

use arc_swap::ArcSwap;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// API requests are answered 500.
    Error500,
    /// API requests are answered 429 with `Retry-After: 1`.
    RateLimit,
    /// API requests are answered two seconds late.
    Slow,
    /// API requests are never answered.
    Hang,
    /// API requests are answered 200 with a body that is no JSON.
    Malformed,
    /// API answers end before the length they announce.
    Truncated,
    /// API requests are answered 401 though the token is good.
    Unauthorized,
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

impl FaultKind {
    /// Every fault with its name.
    pub const ALL: [(&'static str, Self); 14] = [
        ("error-500", Self::Error500),
        ("rate-limit", Self::RateLimit),
        ("slow", Self::Slow),
        ("hang", Self::Hang),
        ("malformed", Self::Malformed),
        ("truncated", Self::Truncated),
        ("unauthorized", Self::Unauthorized),
        ("token-expires", Self::TokenExpires),
        ("token-revoked", Self::TokenRevoked),
        ("token-invalid-client", Self::TokenInvalidClient),
        ("token-error-500", Self::TokenError500),
        ("token-slow", Self::TokenSlow),
        ("token-html", Self::TokenHtml),
        ("token-no-access-token", Self::TokenNoAccessToken),
    ];

    /// Whether it is the token endpoint's, and so no sensor's.
    fn is_of_tokens(self) -> bool {
        matches!(
            self,
            Self::TokenExpires
                | Self::TokenRevoked
                | Self::TokenInvalidClient
                | Self::TokenError500
                | Self::TokenSlow
                | Self::TokenHtml
                | Self::TokenNoAccessToken
        )
    }
}

/// A fault, of all API requests or of one sensor's own route. Written `NAME` or `NAME=SENSOR_ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// The only sensor it happens to. In a location's reply that sensor is left alone.
    pub sensor: Option<String>,
}

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
}

fn known() -> String {
    FaultKind::ALL.map(|(name, _)| name).join(", ")
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (name, sensor) = match text.split_once('=') {
            Some((name, sensor)) => (name, Some(sensor)),
            None => (text, None),
        };
        let (_, kind) = FaultKind::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| FaultError::Unknown(name.to_owned()))?;
        match sensor {
            Some("") => Err(FaultError::NoSensor(text.to_owned())),
            Some(_) if kind.is_of_tokens() => Err(FaultError::TakesNoSensor(name.to_owned())),
            _ => Ok(Self {
                kind: *kind,
                sensor: sensor.map(str::to_owned),
            }),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = FaultKind::ALL.iter().find(|(_, kind)| *kind == self.kind);
        f.write_str(name.map_or("", |(name, _)| name))?;
        match &self.sensor {
            Some(sensor) => write!(f, "={sensor}"),
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

    /// Whether a request is met by a fault: a sensor's request by its own and by those of all.
    pub(super) fn meets(&self, kind: FaultKind, sensor: Option<&str>) -> bool {
        self.0.load().iter().any(|fault| {
            fault.kind == kind && (fault.sensor.is_none() || fault.sensor.as_deref() == sensor)
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
        assert_eq!(one.sensor.as_deref(), Some("AQ2-0A1B2C3D4E5F"));
        assert_eq!(one.to_string(), "slow=AQ2-0A1B2C3D4E5F");
    }

    #[test]
    fn what_is_no_fault_says_why() {
        let error = |text: &str| text.parse::<Fault>().unwrap_err().to_string();
        assert_eq!(
            error("error500"),
            "unknown fault \"error500\"; known are error-500, rate-limit, slow, hang, malformed, truncated, \
             unauthorized, token-expires, token-revoked, token-invalid-client, token-error-500, token-slow, \
             token-html, token-no-access-token"
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
}
