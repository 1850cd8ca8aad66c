//! Every query of Prometheus' own test scripts that are at hand. They are no part of this repository.

use std::path::{Path, PathBuf};

use super::*;

/// Where the scripts are, from the environment or beside the workspace.
fn scripts() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/oracles");
    std::env::var_os("TELEMETRY_ORACLES").map_or(root, PathBuf::from).join("prometheus/promqltest")
}

/// The query of a line `eval instant at 5m query` or `eval range from 0 to 10m step 5m query`.
fn query(line: &str) -> Option<(&str, bool)> {
    let (command, rest) = line.split_once(' ')?;
    let fails = match command {
        "eval" | "eval_ordered" | "eval_warn" | "eval_info" => false,
        "eval_fail" => true,
        _ => return None,
    };
    let words = match rest.split_once(' ')?.0 {
        "instant" => 3,
        "range" => 7,
        _ => return None,
    };
    let mut query = rest;
    for _ in 0..words {
        query = query.split_once(' ')?.1.trim_start();
    }
    Some((query, fails))
}

#[test]
fn every_query_of_the_reference_scripts_is_parsed() {
    let Ok(files) = std::fs::read_dir(scripts()) else {
        eprintln!("skipped: no scripts at {}", scripts().display());
        return;
    };
    let mut parsed = 0;
    for file in files {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "test") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let Some((query, fails)) = query(line) else { continue };
            let fails = fails || lines.get(at + 1).is_some_and(|next| next.starts_with("expect fail"));
            match parse(query, &Options::all()) {
                Ok(expr) => {
                    let printed = expr.to_string();
                    let again = parse(&printed, &Options::all()).unwrap();
                    assert_eq!(again.to_string(), printed, "{query}");
                    parsed += 1;
                }
                Err(errors) => assert!(fails, "{}:{}: {query}: {errors}", path.display(), at + 1),
            }
        }
    }
    assert!(parsed > 1000, "only {parsed} queries were found");
}
