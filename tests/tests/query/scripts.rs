//! The public scripts of Prometheus 3.14 through the store, from wherever it has the samples.

use std::path::{Path, PathBuf};
use std::{env, fs};

use telemetry_promql::script;

use crate::shelf::{Place, Shelf};

/// What it asks for is when counts began, which the store does not keep.
const STARTS: &str = "start_timestamps.test";

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

fn run_all(folder: &Path, place: Place) {
    let (mut passed, mut evals, mut said) = (0, 0, String::new());
    for file in scripts(folder) {
        if file.file_name().is_some_and(|name| name == STARTS) {
            continue;
        }
        let script = script::read(&fs::read_to_string(&file).unwrap()).unwrap();
        let report = script::run_in(&mut Shelf::new(place), &script, &script::options());
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        println!("{place:?} {name}: {} of {}", report.passed(), report.evals);
        for miss in report.refused.iter().chain(&report.misses) {
            said += &format!("\n{name}:{}: {}\n    {}", miss.line, miss.query, miss.reason);
        }
        passed += report.passed();
        evals += report.evals;
    }
    println!("{place:?}: passed {passed} of {evals}");
    assert!(said.is_empty(), "{place:?}:{said}");
    assert!(evals > 0, "{}: evaluates something", folder.display());
}

fn public() -> Option<PathBuf> {
    let oracles = env::var_os("TELEMETRY_ORACLES");
    let oracles = oracles.map_or_else(|| workspace().join("../shared/oracles"), PathBuf::from);
    let folder = oracles.join("prometheus/promqltest");
    if !folder.is_dir() {
        println!("skipped: no {}", folder.display());
        return None;
    }
    Some(folder)
}

#[test]
fn our_own_scripts_come_out_of_the_store() {
    let folder = workspace().join("telemetry-promql/tests/scripts");
    [Place::Memory, Place::Files, Place::Joined].iter().for_each(|place| run_all(&folder, *place));
}

#[test]
fn the_public_scripts_come_out_of_memory() {
    if let Some(folder) = public() {
        run_all(&folder, Place::Memory);
    }
}

#[test]
fn the_public_scripts_come_out_of_fresh_files() {
    if let Some(folder) = public() {
        run_all(&folder, Place::Files);
    }
}

#[test]
fn the_public_scripts_come_out_of_joined_files() {
    if let Some(folder) = public() {
        run_all(&folder, Place::Joined);
    }
}
