//! The compose stack and the systemd units that ship: that what they name is there.

use std::path::Path;

use lightfi_exporter::config::DEFAULT_PORT;
use serde_json::Value;

const COMPOSE: &str = include_str!("../../deploy/compose/compose.yml");
const PROVIDER: &str = include_str!("../../grafana/provisioning/dashboards/lightfi.yml");
const UNIT: &str = include_str!("../../deploy/systemd/lightfi-exporter.service");
const SOCKET: &str = include_str!("../../deploy/systemd/lightfi-exporter.socket");
const SOCKET_DROP_IN: &str =
    include_str!("../../deploy/systemd/lightfi-exporter.service.d/socket.conf");
const UNIT_CONFIG: &str = include_str!("../../deploy/systemd/lightfi-exporter.yaml");

#[test]
fn the_compose_stack_mounts_files_that_exist_where_their_readers_look() {
    let stack: Value = serde_saphyr::from_str(COMPOSE).expect("YAML");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose");
    let mut inside = Vec::new();
    for (name, service) in stack["services"].as_object().expect("services") {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let parts: Vec<_> = volume.as_str().expect("short form").split(':').collect();
            if parts[0].starts_with('.') {
                assert!(
                    folder.join(parts[0]).exists(),
                    "{name}: {} is missing",
                    parts[0]
                );
                assert_eq!(parts[2], "ro", "{name}: {}", parts[0]);
                inside.push(parts[1]);
            } else {
                assert!(
                    stack["volumes"].get(parts[0]).is_some(),
                    "{name}: {} is not declared",
                    parts[0]
                );
            }
        }
        for other in service["depends_on"].as_array().into_iter().flatten() {
            assert!(
                stack["services"]
                    .get(other.as_str().expect("a name"))
                    .is_some(),
                "{name}: {other}"
            );
        }
    }
    let provider: Value = serde_saphyr::from_str(PROVIDER).expect("YAML");
    let path = provider["providers"][0]["options"]["path"]
        .as_str()
        .expect("a path");
    let dashboards = inside.iter().filter(|file| file.starts_with(path)).count();
    assert_eq!(dashboards, 3, "in {path}: {inside:?}");
    let home =
        &stack["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"];
    assert!(inside.contains(&home.as_str().expect("a path")), "{home}");
}

#[test]
fn the_unit_loads_every_credential_its_configuration_reads() {
    let config: Value = serde_saphyr::from_str(UNIT_CONFIG).expect("YAML");
    for key in ["client_secret_file", "refresh_token_file"] {
        let path = config["oauth"][key].as_str().expect("a path");
        let name = path
            .strip_prefix("/run/credentials/lightfi-exporter.service/")
            .expect("a credential");
        assert!(UNIT.contains(&format!("LoadCredential={name}:/")), "{name}");
    }
    let state = UNIT
        .lines()
        .find_map(|line| line.strip_prefix("StateDirectory="))
        .expect("a state directory");
    let store = config["oauth"]["token_store"].as_str().expect("a path");
    assert!(store.starts_with(&format!("/var/lib/{state}/")), "{store}");
}

#[test]
fn the_socket_unit_holds_the_default_port_for_the_same_command_with_the_flag() {
    let value = |unit: &'static str, key: &str| {
        let of_key = |line: &'static str| line.strip_prefix(key)?.strip_prefix('=');
        unit.lines()
            .filter_map(of_key)
            .next_back()
            .expect("the key")
    };
    assert_eq!(value(SOCKET, "ListenStream"), DEFAULT_PORT.to_string());
    assert_eq!(
        value(SOCKET_DROP_IN, "ExecStart"),
        format!("{} --web.systemd-socket", value(UNIT, "ExecStart"))
    );
}
