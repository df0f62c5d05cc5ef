//! Compares the number of instructions of each stage of a refresh with `benches/budget.json`. Unlike time, it does not depend
//! on the load of the machine. `UPDATE_BUDGET=1` rewrites the file.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    path::PathBuf,
    process::Command,
};

use serde_json::{Value, json};

use crate::tools::has;

const BUDGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/budget.json");
/// Enough to make the fixed cost of a refresh small compared with the cost per sensor.
const SENSORS: usize = 200;
const REFRESHES: usize = 2;
/// Allows for random seeds of hash tables and for differences between compilers.
const TOLERANCE: f64 = 0.05;

#[test]
#[ignore = "takes a minute: make test-long"]
fn no_stage_of_a_refresh_takes_more_instructions_than_its_budget() {
    if !has(&["valgrind"]) {
        return;
    }
    let counted = count(&program());
    if env::var_os("UPDATE_BUDGET").is_some() {
        let stages: BTreeMap<_, _> = counted.iter().collect();
        let about = format!("instructions per sensor of one refresh of {SENSORS} sensors");
        let budget = json!({"about": about, "stages": stages});
        let text = serde_json::to_string_pretty(&budget).expect("it is JSON");
        fs::write(BUDGET, text + "\n").expect("the budget can be written");
        return;
    }
    let budget = fs::read_to_string(BUDGET).expect("the budget can be read");
    let budget: Value = serde_json::from_str(&budget).expect("the budget is JSON");
    let budget = budget["stages"].as_object().expect("the budget has stages");
    let mut wrong = Vec::new();
    for (stage, allowed) in budget {
        let allowed = allowed.as_u64().expect("a count of instructions") as f64;
        let taken = counted[stage] as f64;
        if taken > allowed * (1.0 + TOLERANCE) {
            wrong.push(format!(
                "{stage} takes {taken} instructions per sensor, its budget is {allowed}"
            ));
        }
        if taken < allowed * (1.0 - 4.0 * TOLERANCE) {
            wrong.push(format!(
                "{stage} takes {taken} instructions per sensor of the {allowed} allowed: lower its budget"
            ));
        }
    }
    assert!(
        wrong.is_empty() && budget.len() == counted.len(),
        "{}; where that is meant, run this with UPDATE_BUDGET=1 and --ignored",
        wrong.join("; ")
    );
}

/// Builds the benchmark with the profile of the tests: a release build would take minutes, and grows in the same way.
fn program() -> PathBuf {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "bench",
            "--locked",
            "--profile",
            "dev",
            "--no-run",
            "--bench",
            "refresh",
        ])
        .args(["--message-format", "json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(
        built.status.success(),
        "the benchmark does not build: {said}"
    );
    let messages = String::from_utf8(built.stdout).expect("cargo writes JSON");
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        // The exporter itself is built too.
        let is_it = message["target"]["name"] == "refresh";
        Some(message["executable"].as_str()?.into()).filter(|_| is_it)
    };
    messages
        .lines()
        .find_map(executable)
        .expect("a benchmark is a program")
}

/// Returns the instructions per sensor and refresh, by stage.
fn count(program: &PathBuf) -> HashMap<String, u64> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let out = directory.path().join("callgrind.out");
    let run = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--compress-strings=no",
            "--compress-pos=no",
        ])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args([SENSORS.to_string(), REFRESHES.to_string()])
        .output()
        .expect("valgrind runs");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "valgrind fails: {said}");
    let profile = fs::read_to_string(out).expect("callgrind writes a profile");
    let share = |count: u64| count / (SENSORS * (REFRESHES + 1)) as u64;
    inclusive(&profile)
        .into_iter()
        .map(|(stage, count)| (stage, share(count)))
        .collect()
}

/// Returns the cost of the `stage_*` functions, including everything they call. In the profile, a `cfn=` line has the name of
/// the called function, and the line after `calls=` ends with the cost.
fn inclusive(profile: &str) -> HashMap<String, u64> {
    let mut stages = HashMap::new();
    let mut called = None;
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("cfn=") {
            let stage = name.find("stage_").map(|at| &name[at + "stage_".len()..]);
            called = stage.map(|stage| {
                let end = stage.find(|c: char| !c.is_ascii_lowercase());
                stage[..end.unwrap_or(stage.len())].to_owned()
            });
        } else if line.starts_with("calls=") {
            let cost = lines.next().and_then(|line| line.split(' ').next_back());
            if let (Some(stage), Some(cost)) = (called.take(), cost) {
                *stages.entry(stage).or_default() += cost.parse::<u64>().unwrap_or(0);
            }
        }
    }
    stages
}
