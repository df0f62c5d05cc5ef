//! Sets the revision and the compiler version that `--version` and `lightfi_exporter_build_info` show.

use std::{env, process::Command};

fn main() {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .ok()
        .and_then(|out| String::from_utf8(out.stdout).ok());
    let version = version
        .as_deref()
        .and_then(|text| text.split_whitespace().nth(1))
        .unwrap_or("unknown");
    println!("cargo::rustc-env=LIGHTFI_EXPORTER_RUSTC={version}");
    let revision = env::var("LIGHTFI_EXPORTER_REVISION").unwrap_or_else(|_| "unknown".to_owned());
    println!("cargo::rustc-env=LIGHTFI_EXPORTER_REVISION={revision}");
    println!("cargo::rerun-if-env-changed=LIGHTFI_EXPORTER_REVISION");
    println!("cargo::rerun-if-changed=build.rs");
}
