//! The files for Prometheus and Grafana: they know our names, and the rules hold.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::operator::Watched;

fn read(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join("docs").join(name)).unwrap()
}

/// The metrics of ours that a text names, without what histograms append.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let ours = words.filter(|word| word.starts_with("highwater_") || word.starts_with("process_"));
    let plain = |word: &str| {
        let ends = ["_bucket", "_sum", "_count"];
        let end = ends.iter().find_map(|end| word.strip_suffix(end));
        end.unwrap_or(word).to_owned()
    };
    ours.map(plain).collect()
}

#[test]
fn every_metric_is_documented_and_the_files_name_no_other() {
    let watched = Watched::start("echo", &[]);
    let told = metrics_in(&watched.get("/metrics").body);
    let documented = metrics_in(&read("operations.md"));
    assert!(told.len() > 20, "{told:?}");
    let missing: Vec<_> = told.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/operations.md does not have {missing:?}");
    let of_services = ["highwater_answers_total"];
    for name in ["alerts.yml", "alerts_test.yml", "dashboard.json"] {
        let named = metrics_in(&read(&format!("operations/{name}")));
        let unknown: Vec<_> = named
            .difference(&told)
            .filter(|name| !of_services.contains(&name.as_str()))
            .collect();
        assert!(unknown.is_empty(), "{name} has {unknown:?}");
    }
    let dashboard: serde_json::Value = serde_json::from_str(&read("operations/dashboard.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() >= 5);
}

#[test]
fn promtool_finds_the_alert_rules_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations");
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
        ["check", "config", "prometheus.yml"],
    ] {
        let Ok(output) = Command::new("promtool")
            .args(arguments)
            .current_dir(&folder)
            .output()
        else {
            println!("skipped: promtool is not installed");
            return;
        };
        let told =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}");
    }
}
