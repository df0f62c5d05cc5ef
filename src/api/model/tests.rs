use proptest::prelude::*;

use super::*;

/// The data of a sensor with one reading.
const DATA: &str = r#""data":[{"var_name":"x","time":1,"value":1}]"#;

fn reading(var_name: &str, time: f64, value: f64) -> Item {
    Item::Reading {
        var_name: var_name.to_owned(),
        time,
        value,
    }
}

fn unchanged(text: String) -> String {
    text
}

fn sensor(body: &str) -> Result<SensorReply, Malformed> {
    decode_sensor(body.as_bytes(), &unchanged)
}

fn location(body: &str) -> Result<LocationReply, Malformed> {
    decode_location(body.as_bytes(), &unchanged)
}

fn base_location(body: &str) -> Result<LocationReply, Malformed> {
    decode_base_location(body.as_bytes(), &unchanged)
}

fn ids(entries: &[LocationEntry]) -> Vec<&str> {
    entries.iter().map(|entry| &*entry.id).collect()
}

fn ids_and_parents(entries: &[LocationEntry]) -> Vec<(&str, Option<&str>)> {
    let pairs = entries
        .iter()
        .map(|entry| (&*entry.id, entry.parent.as_deref()));
    pairs.collect()
}

#[test]
fn a_sensor_is_decoded_also_without_data() {
    let example = r#"{"data": [{"var_name": "CO2ppm", "time": 1716301234.5, "value": 612.0},
        {"var_name": "temperatureC", "time": 1716301234, "value": 21.4}], "name": "Boardroom", "id": 7}"#;
    let items = vec![
        reading("CO2ppm", 1716301234.5, 612.0),
        reading("temperatureC", 1716301234.0, 21.4),
    ];
    for (body, name, items) in [
        (example, Some("Boardroom"), items),
        ("{}", None, vec![]),
        (r#"{"data":null}"#, None, vec![]),
        (r#"{"data":[],"name":5}"#, None, vec![]),
    ] {
        let name = name.map(str::to_owned);
        assert_eq!(sensor(body), Ok(SensorReply { name, items }), "{body}");
    }
}

#[test]
fn a_sensor_body_of_another_shape_is_malformed() {
    let not_a_number = r#"{"data":[{"var_name":"a","time":1,"value":NaN}]}"#;
    for (body, message) in [
        ("<html>", "invalid JSON: expected value at line 1 column 1"),
        (
            not_a_number,
            "invalid JSON: expected value at line 1 column 43",
        ),
        ("[]", "the reply is not a JSON object"),
        (
            r#"{"data":{},"x":1}"#,
            "`data` is not an array; top-level keys: data, x",
        ),
        (
            r#"{"data":"text"}"#,
            "`data` is not an array; top-level keys: data",
        ),
    ] {
        assert_eq!(sensor(body).unwrap_err().to_string(), message, "{body}");
    }
}

#[test]
fn an_item_that_is_no_reading_does_not_affect_the_others() {
    let long_name = format!(r#"{{"var_name":"{}","time":1,"value":1}}"#, "x".repeat(129));
    let null = [
        r#"{"var_name":"a","time":null,"value":1}"#,
        r#"{"var_name":"a","value":1}"#,
        r#"{"var_name":"a","time":1,"value":null}"#,
    ];
    let infinite = [r#"{"var_name":"a","time":1,"value":1e999}"#];
    let malformed = [
        r#"{"var_name":"a","time":1,"value":"21.5"}"#,
        r#"{"var_name":"a","time":true,"value":null}"#,
        r#"{"var_name":7,"time":1,"value":1}"#,
        r#"{"var_name":"","time":1,"value":1}"#,
        r#"{"time":1,"value":1}"#,
        r#"["a",1,1]"#,
        "7",
        "null",
        &long_name,
    ];
    for (items, expected) in [
        (&null[..], Item::Null),
        (&infinite, reading("a", 1.0, f64::INFINITY)),
        (&malformed, Item::Malformed),
    ] {
        for item in items {
            let body = format!(r#"{{"data":[{item},{{"var_name":"b","time":1,"value":2}}]}}"#);
            let decoded = sensor(&body).unwrap().items;
            assert_eq!(
                decoded,
                [expected.clone(), reading("b", 1.0, 2.0)],
                "{item}"
            );
        }
    }
}

#[test]
fn a_location_with_sensors_and_child_locations_is_decoded() {
    let reply = location(
        r#"{"id": 12, "name": "Floor 3", "sensors": [
            {"id": "AQ2-1", "name": "East", "data": [{"var_name":"CO2ppm","time":1,"value":2}]},
            {"sensor_id": "MS1-2", "data": null}, {"id": "AMP-6", "data": "gone"}],
        "children": [{"id": "13", "name": "Wing", "sensors": {"LF5-3": {"name": "Lab", "data": []}},
            "sub_locations": [{"id": "14", "name": "Room", "sensors": [{"id":"AMP-4"}]}]}]}"#,
    )
    .unwrap();
    let own = (reply.id.as_deref(), reply.name.as_deref());
    assert_eq!(own, (Some("12"), Some("Floor 3")));
    let sensors = [
        ("LF5-3", Some("13")),
        ("AMP-4", Some("14")),
        ("AQ2-1", None),
        ("MS1-2", None),
        ("AMP-6", None),
    ];
    assert_eq!(ids_and_parents(&reply.sensors), sensors);
    let items = [2, 3, 4].map(|sensor| reply.sensors[sensor].items.as_deref());
    let co2 = [reading("CO2ppm", 1.0, 2.0)];
    assert_eq!(items, [Some(&co2[..]), Some(&[]), None]);
    let children = [("13", None), ("14", Some("13"))];
    assert_eq!(ids_and_parents(&reply.children), children);
}

#[test]
fn sensors_are_recognised_wherever_they_are() {
    for body in [
        format!(r#"[{{"id":"A",{DATA}}}]"#),
        format!(r#"{{"result":{{"items":[{{"sensor_id":"A",{DATA}}}]}}}}"#),
        format!(r#"{{"data":[{{"id":"A",{DATA}}}]}}"#),
        format!(r#"{{"sensors":{{"A":{{{DATA}}}}}}}"#),
        format!(r#"{{"locations":{{"9":{{"name":"F","sensors":[{{"id":"A",{DATA}}}]}}}}}}"#),
        format!(r#"{{"sensors":[{{"id":17,"sensor_id":"A",{DATA}}}]}}"#),
        format!(r#"{{"A":{{"name":"Desk",{DATA}}}}}"#),
        format!(r#"{{"id":1,"data":{{"A":{{{DATA}}}}}}}"#),
        format!(r#"{{"sensors":{{"":{{{DATA}}},"A":{{{DATA}}}}}}}"#),
        format!(r#"{{"sensors":[],"":[{{{DATA}}}],"A":{{"id":"A",{DATA}}}}}"#),
    ] {
        assert_eq!(ids(&location(&body).unwrap().sensors), ["A"], "{body}");
    }
}

#[test]
fn a_child_location_needs_a_name_or_null_and_an_id_that_fits_into_a_url() {
    for (body, children) in [
        (
            r#"{"children":[{"id":1,"name":null},{"id":2},{"id":"..","name":"Up"},{"id":".","name":"Here"}]}"#,
            vec!["1"],
        ),
        (
            r#"{"children":{"":{"name":"Nowhere"},"..":{"name":"Up"},"9":{"name":"Floor"}}}"#,
            vec!["9"],
        ),
    ] {
        assert_eq!(ids(&location(body).unwrap().children), children);
    }
    let base = base_location(r#"{"id":"..","children":[]}"#);
    assert_eq!(base.unwrap().id, None);
}

#[test]
fn a_sensor_that_is_the_whole_reply_is_not_the_location_itself() {
    let sensor = format!(r#"{{"id":"A","name":"Desk",{DATA}}}"#);
    for body in [format!("[{sensor}]"), sensor] {
        for decode in [location, base_location] {
            let reply = decode(&body).unwrap();
            assert_eq!((reply.id, reply.name), (None, None), "{body}");
            assert_eq!(reply.sensors.len(), 1, "{body}");
        }
    }
}

#[test]
fn an_empty_location_is_no_error_and_an_unknown_shape_is() {
    for body in [
        r#"{"sensors":[]}"#,
        r#"{"children":null}"#,
        r#"{"x":{"sub_locations":{}}}"#,
    ] {
        assert_eq!(location(body), Ok(LocationReply::default()), "{body}");
    }
    let nothing = "contains neither a sensor nor a child location; top-level keys: ";
    let long_key = format!(r#"{{"detail":1,"{}":2}}"#, "s3cret".repeat(7));
    for (body, keys) in [
        (r#"{"detail":"x","sensors":3}"#, "detail, sensors"),
        (&long_key, "detail"),
        ("{}", ""),
        ("[]", ""),
    ] {
        let error = location(body).unwrap_err().to_string();
        assert_eq!(error, format!("{nothing}{keys}"));
    }
}

#[test]
fn the_base_location_needs_only_its_id() {
    let base = base_location(r#"{"id": 1, "name": "HQ"}"#).unwrap();
    let own = (base.id.as_deref(), base.name.as_deref());
    assert_eq!(own, (Some("1"), Some("HQ")));
    assert!(base_location(r#"{"name": "HQ"}"#).is_err());
}

#[test]
fn the_routes_of_the_openapi_document_are_listed() {
    let body = br#"{"openapi": "3.1.0", "paths": {"/sensors/{sensor_id}": {"get": {}}, "/locations": {"get": {}, "post": {}},
        "/locations/{location_id}/": {"get": {}}, "/things/{a}/{b}/x": {"delete": {}}}}"#;
    assert_eq!(
        decode_openapi(body).unwrap(),
        ["/locations", "/locations/{}/", "/sensors/{}"]
    );
    assert!(decode_openapi(b"{}").is_err());
    assert!(decode_openapi(b"<html>").is_err());
}

#[test]
fn a_body_that_would_take_many_times_its_length_in_memory_is_malformed() {
    let repeated = |head: &str, value: &str, count: usize| {
        let values = vec![value; count].join(",");
        format!("{head}{values}]}}")
    };
    let error = |reply: Result<LocationReply, Malformed>| reply.unwrap_err().to_string();
    for value in ["0", "{}", "null"] {
        let body = repeated(r#"{"data":["#, value, 1_000_000);
        let error = sensor(&body).unwrap_err().to_string();
        assert!(error.contains("too many for a reply"), "{error}");
    }
    let body = repeated(r#"{"sensors":["#, "0", 1_000_000);
    assert!(error(location(&body)).contains("too many for a reply"));
    let body = repeated(r#"{"data":["#, "0", 90_000);
    assert_eq!(sensor(&body).unwrap().items.len(), 90_000);
    let body = repeated(r#"{"sensors":["#, r#"{"id":"a"}"#, MAX_ENTRIES + 1);
    assert!(error(location(&body)).contains("more than 100000"));
    let body = repeated(r#"{"sensors":["#, r#"{"id":"a"}"#, MAX_ENTRIES);
    assert_eq!(location(&body).unwrap().sensors.len(), MAX_ENTRIES);
}

#[test]
fn long_names_are_cut_between_characters() {
    let longest = "é".repeat(128);
    for (name, expected) in [
        ("Lab".to_owned(), "Lab".to_owned()),
        (longest.clone(), longest),
        ("é".repeat(129), format!("{}…", "é".repeat(127))),
        ("😀".repeat(100_000), format!("{}…", "😀".repeat(127))),
    ] {
        let expected = Some(expected);
        let reply = sensor(&format!(r#"{{"name":"{name}"}}"#)).unwrap();
        assert_eq!(reply.name, expected);
        let body = format!(
            r#"{{"id":1,"name":"{name}","sensors":[{{"id":"A","name":"{name}"}}],"children":[{{"id":2,"name":"{name}"}}]}}"#
        );
        let reply = location(&body).unwrap();
        let names = [&reply.name, &reply.sensors[0].name, &reply.children[0].name];
        assert_eq!(names, [&expected; 3]);
    }
}

#[test]
fn a_reply_with_a_long_id_is_malformed() {
    for (bytes, allowed) in [(MAX_ID_BYTES, true), (MAX_ID_BYTES + 1, false)] {
        let id = "x".repeat(bytes);
        for body in [
            format!(r#"{{"sensors":[{{"id":"{id}"}}]}}"#),
            format!(r#"{{"children":[{{"id":"{id}","name":""}}]}}"#),
            format!(r#"{{"id":"{id}","sensors":[]}}"#),
            format!(r#"{{"id":"{id}"}}"#),
        ] {
            assert_eq!(base_location(&body).is_ok(), allowed, "{body}");
        }
    }
}

#[test]
fn secrets_are_redacted_in_every_text_before_it_is_cut() {
    let redact = |text: String| text.replace("s3cret", "*");
    let name = format!("{}s3cret", "x".repeat(124));
    let data = r#""data":[{"var_name":"v s3cret","time":0,"value":0}]"#;
    let body = format!(
        r#"{{"id":"0 s3cret","name":"s3cret","children":[{{"id":"1 s3cret","name":"s3cret",
            "sensors":{{"A s3cret":{{"name":"{name}",{data}}}}}}}]}}"#
    );
    let texts = format!("{:?}", decode_location(body.as_bytes(), &redact).unwrap());
    let redacted = texts.matches('*').count();
    assert_eq!((texts.contains("s3"), redacted), (false, 8), "{texts}");
    let body = format!(r#"{{"name":"s3cret",{data}}}"#);
    let texts = format!("{:?}", decode_sensor(body.as_bytes(), &redact).unwrap());
    let redacted = texts.matches('*').count();
    assert_eq!((texts.contains("s3"), redacted), (false, 2), "{texts}");
}

#[test]
fn deep_nesting_is_ignored() {
    let body = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(location(&body).is_err());
    let body = format!("{}1{}", r#"{"children":"#.repeat(5_000), "}".repeat(5_000));
    assert_eq!(location(&body), Ok(LocationReply::default()));
}

proptest! {
    #[test]
    fn any_body_is_decoded_or_malformed(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        text in r#"[\[\]{}:,"a-z0-9 .-]{0,80}"#,
    ) {
        for body in [&bytes, text.as_bytes()] {
            let _ = decode_sensor(body, &unchanged);
            let _ = decode_base_location(body, &unchanged);
        }
    }
}
