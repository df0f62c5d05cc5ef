//! A reading as the API sends it. Made by `world` and `replay`, sent by `routes`.

use std::borrow::Cow;

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

/// One entry of a sensor's `data`.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The variable's name.
    pub var_name: Cow<'static, str>,
    /// Unix seconds; `None` omits the key.
    pub time: Option<f64>,
    /// `None` is sent as `null`.
    pub value: Option<f64>,
}

/// Variables whose whole numbers the API writes with a decimal point: `612.0`.
const FLOATS: [&str; 6] = [
    "CO2ppm",
    "energyInkWh",
    "illuminanceArb",
    "pressuremBar",
    "relativeHumidity",
    "temperatureC",
];

impl Serialize for Reading {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("var_name", &self.var_name)?;
        if let Some(time) = self.time {
            map.serialize_entry("time", &integer_if_whole(time))?;
        }
        let is_float = FLOATS.contains(&&*self.var_name);
        let value = self.value.map(|value| match is_float {
            true => Value::from(value),
            false => integer_if_whole(value),
        });
        map.serialize_entry("value", &value)?;
        map.end()
    }
}

fn integer_if_whole(number: f64) -> Value {
    // Up to 2^53 an f64 holds every whole number exactly.
    if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn whole_numbers_are_integers_or_floats_as_the_vendor_sends_them() {
        let text = |name: &'static str, time: Option<f64>, value: Option<f64>| {
            let var_name = Cow::Borrowed(name);
            let reading = Reading {
                var_name,
                time,
                value,
            };
            serde_json::to_string(&reading).unwrap()
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
    }
}
