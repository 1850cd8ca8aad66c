//! Scripts in Prometheus' test notation: our own, and the public ones of Prometheus 3.14 where they are at hand.
//!
//! The public ones are read from `TELEMETRY_ORACLES` (default `../shared/oracles` beside the workspace) and are no part
//! of this repository. Every evaluation of theirs passes; `docs/promql-conformance.md` has the figures.
#![cfg(test)]

use std::path::{Path, PathBuf};
use std::{env, fs};

use telemetry_promql::script::{self, Report};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn scripts(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "test"));
    files.sort();
    files
}

fn run(file: &Path) -> Report {
    let text = fs::read_to_string(file).unwrap();
    let script = script::read(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let report = script::run(&script, &script::options());
    assert!(report.refused.is_empty(), "{}: {:?}", file.display(), report.refused);
    report
}

fn describe(report: &Report) -> String {
    let lines =
        report.misses.iter().map(|miss| format!("\n  {}: {}\n    {}", miss.line, miss.query, miss.reason));
    lines.collect()
}

#[test]
fn our_own_scripts_come_out_as_expected() {
    let files = scripts(&workspace().join("telemetry-promql/tests/scripts"));
    assert!(!files.is_empty(), "there are scripts of our own");
    for file in files {
        let report = run(&file);
        assert!(report.evals > 0, "{}: evaluates something", file.display());
        assert!(report.misses.is_empty(), "{}:{}", file.display(), describe(&report));
    }
}

#[test]
fn the_public_scripts_come_out_as_expected() {
    let oracles = env::var_os("TELEMETRY_ORACLES");
    let oracles = oracles.map_or_else(|| workspace().join("../shared/oracles"), PathBuf::from);
    let folder = oracles.join("prometheus/promqltest");
    if !folder.is_dir() {
        println!("skipped: no {}", folder.display());
        return;
    }
    let (mut passed, mut evals) = (0, 0);
    for file in scripts(&folder) {
        let report = run(&file);
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        println!("{name}: {} of {}", report.passed(), report.evals);
        assert!(report.misses.is_empty(), "{name}:{}", describe(&report));
        passed += report.passed();
        evals += report.evals;
    }
    println!("passed {passed} of {evals}");
}
