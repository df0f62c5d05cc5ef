//! The compose stack and the systemd units that ship: that what they name is there.

use std::{fs, path::Path, process::Command};

use lightfi_exporter::config::DEFAULT_PORT;
use serde_json::Value;
use tempfile::TempDir;

use crate::exporter::command;

const COMPOSE: &str = include_str!("../../deploy/compose/compose.yml");
const SOURCE: &str = include_str!("../../grafana/provisioning/datasources/prometheus.yml");
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
fn prometheus_accepts_what_the_stack_mounts_and_the_parts_find_each_other() {
    if !crate::tools::has(&["promtool"]) {
        return;
    }
    let stack: Value = serde_saphyr::from_str(COMPOSE).expect("YAML");
    let services = &stack["services"];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose");
    let root = TempDir::new().expect("a temporary directory");
    let inside = |path: &str| root.path().join(path.trim_start_matches('/'));
    for volume in services["prometheus"]["volumes"]
        .as_array()
        .expect("a list")
    {
        let parts: Vec<_> = volume.as_str().expect("short form").split(':').collect();
        if parts[0].starts_with('.') {
            let place = inside(parts[1]);
            fs::create_dir_all(place.parent().expect("a folder")).expect("it is made");
            fs::copy(folder.join(parts[0]), place).expect("it is copied");
        }
    }
    let flags = services["prometheus"]["command"].as_array().expect("flags");
    let config = flags
        .iter()
        .find_map(|flag| flag.as_str()?.strip_prefix("--config.file="))
        .map(inside)
        .expect("it is told its configuration");
    let output = Command::new("promtool")
        .args(["check", "config"])
        .arg(&config)
        .output()
        .unwrap_or_else(|error| {
            panic!("promtool cannot be run ({error}): `make tools` installs it")
        });
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("2 rule files found"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let text = fs::read_to_string(config).expect("text");
    let config: Value = serde_saphyr::from_str(&text).expect("YAML");
    let target = &config["scrape_configs"][0]["static_configs"][0]["targets"][0];
    let source: Value = serde_saphyr::from_str(SOURCE).expect("YAML");
    let url = &source["datasources"][0]["url"];
    for (at, service, port) in [(target, "exporter", "10420"), (url, "prometheus", "9090")] {
        let at = at.as_str().expect("an address");
        assert_eq!(
            at.trim_start_matches("http://"),
            format!("{service}:{port}")
        );
        let ports = services[service]["ports"].as_array().expect("ports");
        let ends = format!(":{port}");
        assert!(
            ports
                .iter()
                .any(|own| own.as_str().is_some_and(|own| own.ends_with(&ends)))
        );
    }
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

/// On a machine where the service never ran: neither its credentials nor its state directory are there.
#[test]
fn the_login_that_the_unit_asks_for_gets_as_far_as_the_address() {
    let words = UNIT.lines().filter_map(|line| line.strip_prefix("#   "));
    let mut words = words
        .flat_map(str::split_whitespace)
        .skip_while(|word| !word.starts_with("LIGHTFI_OAUTH__CLIENT_SECRET_FILE="))
        .take_while(|word| *word != "systemctl")
        .filter(|word| *word != "\\");
    let folder = TempDir::new().expect("a temporary directory");
    let here = |word: &str| word.replace("/etc/lightfi-exporter", &folder.path().to_string_lossy());
    fs::write(folder.path().join("client-secret"), "secret").expect("it is written");
    fs::write(folder.path().join("lightfi-exporter.yaml"), UNIT_CONFIG).expect("it is written");
    let (key, value) = words
        .next()
        .and_then(|word| word.split_once('='))
        .expect("where the secret is");
    assert_eq!(words.next(), Some("lightfi-exporter"));
    let output = command()
        .env(key, here(value))
        .args(words.map(here))
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Paste that whole address here"), "{said}");
    assert!(!folder.path().join("refresh-token").exists());
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
