//! Runs the tools that read what the exporter writes. `tests/install-tools.sh` installs them.

use std::{
    env,
    io::{self, Write as _},
    net::TcpListener,
    process::{Command, Output, Stdio},
};

/// Python with the packages that the checks need.
pub const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.tools/venv/bin/python");

/// Drives Chromium.
pub const PLAYWRIGHT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/.tools/node/node_modules/playwright-core/package.json"
);

/// Returns whether every program or file is installed. Without one of them the calling test has to skip its check; one line on
/// standard error says so. `make test` sets `REQUIRE_TEST_TOOLS`, and then a missing program is a failure.
pub fn has(programs: &[&str]) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_installed =
        |program: &&&str| env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let Some(missing) = programs.iter().find(|program| !is_installed(program)) else {
        return true;
    };
    assert!(
        env::var_os("REQUIRE_TEST_TOOLS").is_none(),
        "{missing} is not installed; `make tools` installs it"
    );
    // Unlike eprintln!, this is shown for tests that pass.
    let _ = writeln!(
        io::stderr(),
        "skipped a check: {missing} is not installed; `make tools` installs it"
    );
    false
}

/// Runs a tool from the root of the repository. Returns whether it succeeded, and what it wrote to both streams.
pub fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    result(output.unwrap_or_else(|error| panic!("{program} cannot be run ({error})")))
}

fn result(output: Output) -> (bool, String) {
    let text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    (output.status.success(), text)
}

/// The same for a tool that reads standard input.
fn feed(mut command: Command, input: &str) -> (bool, String) {
    let name = format!("{:?}", command.get_program());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name} cannot be run ({error})"));
    child
        .stdin
        .take()
        .expect("standard input is piped")
        .write_all(input.as_bytes())
        .expect("the tool reads");
    result(child.wait_with_output().expect("the tool ends"))
}

/// Checks that `promtool check metrics` has no complaint about a text body.
pub fn promtool_accepts(body: &str) {
    if !has(&["promtool"]) {
        return;
    }
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    let (is_ok, output) = feed(promtool, body);
    assert!(is_ok && output.is_empty(), "promtool: {output}");
}

/// Returns the number of samples that the strict parser of `prometheus_client` reads in an OpenMetrics body; `None`
/// where it is not installed.
pub fn openmetrics_samples(body: &str) -> Option<usize> {
    if !has(&[PYTHON]) {
        return None;
    }
    const PARSE: &str = "import sys\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as families\n\
        print(sum(len(family.samples) for family in families(sys.stdin.read())))";
    let mut python = Command::new(PYTHON);
    python.args(["-c", PARSE]).env("PYTHONIOENCODING", "utf-8");
    let (is_ok, output) = feed(python, body);
    assert!(is_ok, "the parser refuses it: {output}");
    Some(output.trim().parse().expect("a number of samples"))
}

/// Returns the builder of an HTTP client. reqwest comes without a cryptography provider, so this installs one for the
/// test process; a second installation fails, which is fine.
pub fn client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

/// Returns a port of loopback that is free at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let address = listener.local_addr();
    address.expect("a bound listener has an address").port()
}
