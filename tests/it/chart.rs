//! The Helm chart, the plain manifests and the Dockerfile, by the real Helm engine and hadolint: `tests/chart.py` says how.

use std::process::Command;

#[test]
fn the_chart_holds() {
    if !crate::tools::has(&[crate::tools::PYTHON]) {
        return;
    }
    let root = env!("CARGO_MANIFEST_DIR");
    let output = Command::new(format!("{root}/.tools/venv/bin/python"))
        .arg(format!("{root}/tests/chart.py"))
        .args(["check", env!("CARGO_BIN_EXE_lightfi-exporter")])
        .output()
        .unwrap_or_else(|error| panic!("python cannot be run ({error}): `make tools` installs it"));
    let [out, err] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{out}{err}");
    assert!(
        out.contains("plain manifests"),
        "nothing was checked: {out}{err}"
    );
}
