//! The real tools that read what the exporter writes. `tests/install-tools.sh` installs them.

use std::{
    io::Write,
    process::{Command, Stdio},
};

/// What the tool wrote on both streams, and whether it was content.
fn feed(mut command: Command, input: &str) -> (bool, String) {
    let name = format!("{:?}", command.get_program());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name} cannot be run ({error}): `make tools` installs it"));
    child
        .stdin
        .take()
        .expect("standard input is piped")
        .write_all(input.as_bytes())
        .expect("the tool reads");
    let output = child.wait_with_output().expect("the tool ends");
    let said = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    (output.status.success(), said)
}

/// `promtool check metrics` has nothing to say about a text body.
pub fn promtool_is_content(body: &str) {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    let (content, said) = feed(promtool, body);
    assert!(content && said.is_empty(), "promtool says: {said}");
}

/// The strict parser of `prometheus_client` reads the whole OpenMetrics body; the number of its samples.
pub fn openmetrics_samples(body: &str) -> usize {
    const PARSE: &str = "import sys\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as families\n\
        print(sum(len(family.samples) for family in families(sys.stdin.read())))";
    let mut python = Command::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/.tools/venv/bin/python"
    ));
    python.args(["-c", PARSE]).env("PYTHONIOENCODING", "utf-8");
    let (content, said) = feed(python, body);
    assert!(content, "the parser refuses it: {said}");
    said.trim().parse().expect("a number of samples")
}
