//! The compose stack and the systemd units in `deploy`: the files, ports and credentials that they name exist.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use lightfi_exporter::config::DEFAULT_PORT;
use serde_json::Value;
use tempfile::TempDir;

use crate::{exporter::command, tools};

const COMPOSE: &str = include_str!("../../deploy/compose/compose.yml");
const DATASOURCE: &str = include_str!("../../grafana/provisioning/datasources/prometheus.yml");
const PROVIDER: &str = include_str!("../../grafana/provisioning/dashboards/lightfi.yml");
const UNIT: &str = include_str!("../../deploy/systemd/lightfi-exporter.service");
const SOCKET: &str = include_str!("../../deploy/systemd/lightfi-exporter.socket");
const SOCKET_DROP_IN: &str =
    include_str!("../../deploy/systemd/lightfi-exporter.service.d/socket.conf");
const UNIT_CONFIG: &str = include_str!("../../deploy/systemd/lightfi-exporter.yaml");

fn parse(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// An entry `SOURCE:TARGET[:OPTIONS]` under `volumes:` of a service.
struct Volume<'a> {
    source: &'a str,
    target: &'a str,
    options: &'a str,
}

impl Volume<'_> {
    /// Returns the mounted file; `None` for a volume with a name.
    fn file(&self) -> Option<PathBuf> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose");
        self.source
            .starts_with('.')
            .then(|| directory.join(self.source))
    }
}

fn volumes(service: &Value) -> impl Iterator<Item = Volume<'_>> {
    items(&service["volumes"]).map(|volume| {
        let mut parts = text(volume).split(':');
        let mut next = || parts.next().unwrap_or_default();
        Volume {
            source: next(),
            target: next(),
            options: next(),
        }
    })
}

#[test]
fn the_compose_stack_mounts_files_that_exist_to_where_they_are_read() {
    let stack = parse(COMPOSE);
    let mut targets = Vec::new();
    for (name, service) in stack["services"].as_object().unwrap() {
        for volume in volumes(service) {
            let source = volume.source;
            if let Some(file) = volume.file() {
                assert!(file.exists(), "{name}: {source} is missing");
                assert_eq!(volume.options, "ro", "{name}: {source}");
                targets.push(volume.target);
            } else {
                let is_declared = stack["volumes"].get(source).is_some();
                assert!(is_declared, "{name}: {source} is not declared");
            }
        }
        for other in items(&service["depends_on"]) {
            let is_declared = stack["services"].get(text(other)).is_some();
            assert!(is_declared, "{name}: {other} is not declared");
        }
    }
    let provider = parse(PROVIDER);
    let path = text(&provider["providers"][0]["options"]["path"]);
    let dashboards = targets.iter().filter(|target| target.starts_with(path));
    assert_eq!(dashboards.count(), 3, "in {path}: {targets:?}");
    let environment = &stack["services"]["grafana"]["environment"];
    let home = text(&environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]);
    assert!(targets.contains(&home), "{home}");
}

#[test]
fn prometheus_accepts_its_configuration_in_the_stack_and_the_services_find_each_other() {
    if !tools::has(&["promtool"]) {
        return;
    }
    let stack = parse(COMPOSE);
    let services = &stack["services"];
    let root = TempDir::new().unwrap();
    let inside = |path: &str| root.path().join(path.trim_start_matches('/'));
    for volume in volumes(&services["prometheus"]) {
        if let Some(file) = volume.file() {
            let target = inside(volume.target);
            let directory = target.parent().unwrap();
            fs::create_dir_all(directory).unwrap();
            fs::copy(file, target).unwrap();
        }
    }
    let mut flags = items(&services["prometheus"]["command"]).map(text);
    let config = flags.find_map(|flag| flag.strip_prefix("--config.file="));
    let config = inside(config.unwrap());
    let output = Command::new("promtool")
        .args(["check", "config"])
        .arg(&config)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && stdout.contains("2 rule files found"),
        "{output:?}"
    );

    let config = parse(&fs::read_to_string(config).unwrap());
    let target = &config["scrape_configs"][0]["static_configs"][0]["targets"][0];
    let datasource = parse(DATASOURCE);
    let url = &datasource["datasources"][0]["url"];
    for (address, service, port) in [(target, "exporter", 10420), (url, "prometheus", 9090)] {
        let address = text(address).trim_start_matches("http://");
        assert_eq!(address, format!("{service}:{port}"));
        let suffix = format!(":{port}");
        let mut ports = items(&services[service]["ports"]).map(text);
        assert!(ports.any(|published| published.ends_with(&suffix)));
    }
}

#[test]
fn the_systemd_unit_loads_every_credential_that_its_configuration_reads() {
    let config = parse(UNIT_CONFIG);
    for key in ["client_secret_file", "refresh_token_file"] {
        let path = text(&config["oauth"][key]);
        let name = path.strip_prefix("/run/credentials/lightfi-exporter.service/");
        let line = format!("LoadCredential={}:/", name.unwrap());
        assert!(UNIT.contains(&line), "{line}");
    }
    let state = format!("/var/lib/{}/", setting(UNIT, "StateDirectory"));
    let store = text(&config["oauth"]["token_store"]);
    assert!(store.starts_with(&state), "{store}");
}

/// Returns the last value of a key in a unit.
fn setting<'a>(unit: &'a str, key: &str) -> &'a str {
    let value = |line: &'a str| line.strip_prefix(key)?.strip_prefix('=');
    let value = unit.lines().filter_map(value).next_back();
    value.unwrap_or_else(|| panic!("no {key} in\n{unit}"))
}

/// The service has never run: its credentials and its state directory do not exist.
#[test]
fn the_login_command_in_the_unit_works_before_the_first_start() {
    let comments = UNIT.lines().filter_map(|line| line.strip_prefix("#   "));
    let mut words = comments
        .flat_map(str::split_whitespace)
        .skip_while(|word| !word.starts_with("LIGHTFI_OAUTH__CLIENT_SECRET_FILE="))
        .take_while(|word| *word != "systemctl")
        .filter(|word| *word != "\\");
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fs::write(path.join("client-secret"), "secret").unwrap();
    fs::write(path.join("lightfi-exporter.yaml"), UNIT_CONFIG).unwrap();
    let relocated = |word: &str| word.replace("/etc/lightfi-exporter", &path.to_string_lossy());
    let variable = words.next().and_then(|word| word.split_once('='));
    let (key, value) = variable.unwrap();
    assert_eq!(words.next(), Some("lightfi-exporter"));
    let output = command()
        .env(key, relocated(value))
        .args(words.map(relocated))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("Paste that whole address here"), "{stderr}");
    assert!(!path.join("refresh-token").exists());
}

#[test]
fn the_socket_unit_listens_on_the_default_port_and_only_adds_a_flag_to_the_command() {
    assert_eq!(setting(SOCKET, "ListenStream"), DEFAULT_PORT.to_string());
    assert_eq!(
        setting(SOCKET_DROP_IN, "ExecStart"),
        format!("{} --web.systemd-socket", setting(UNIT, "ExecStart"))
    );
}
