//! A reading as it goes over the wire. Made by `world` and `replay`, sent by `routes`.

use std::borrow::Cow;

use serde::{Serialize, Serializer, ser::SerializeMap};

/// One item of a sensor's `data`, as it goes over the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The variable.
    pub var_name: Cow<'static, str>,
    /// Unix seconds; the key is left out where there is none.
    pub time: Option<f64>,
    /// `null` where there is none.
    pub value: Option<f64>,
}

/// Variables whose whole numbers the cloud still writes with a point: `612.0`.
const FLOATS: [&str; 6] = [
    "CO2ppm",
    "energyInkWh",
    "illuminanceArb",
    "pressuremBar",
    "relativeHumidity",
    "temperatureC",
];

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("var_name", &self.var_name)?;
        if let Some(time) = self.time {
            map.serialize_entry(
                "time",
                &Number {
                    value: time,
                    point: false,
                },
            )?;
        }
        let point = FLOATS.contains(&&*self.var_name);
        map.serialize_entry("value", &self.value.map(|value| Number { value, point }))?;
        map.end()
    }
}

/// Whole numbers go as integers unless `point` asks for `.0`.
struct Number {
    value: f64,
    point: bool,
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Up to 2^53 an f64 holds every whole number, so nothing is lost by writing it as one. −0 keeps its point.
        let whole = self.value.fract() == 0.0 && self.value.abs() <= 9_007_199_254_740_992.0;
        if whole && !self.point && !(self.value == 0.0 && self.value.is_sign_negative()) {
            serializer.serialize_i64(self.value as i64)
        } else {
            serializer.serialize_f64(self.value)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn numbers_go_over_the_wire_as_the_vendor_mixes_them() {
        let text = |name: &'static str, time: Option<f64>, value: Option<f64>| {
            let var_name = Cow::Borrowed(name);
            serde_json::to_string(&Item {
                var_name,
                time,
                value,
            })
            .unwrap()
        };
        assert_eq!(
            text("CO2ppm", Some(1_716_301_234.5), Some(612.0)),
            r#"{"var_name":"CO2ppm","time":1716301234.5,"value":612.0}"#
        );
        assert_eq!(
            text("clientsWiFi", Some(1_716_301_234.0), Some(20.0)),
            r#"{"var_name":"clientsWiFi","time":1716301234,"value":20}"#
        );
        assert_eq!(
            text("NOX", None, None),
            r#"{"var_name":"NOX","value":null}"#
        );
        assert_eq!(
            text("x", None, Some(-0.0)),
            r#"{"var_name":"x","value":-0.0}"#
        );
    }
}
