//! Runs scripts in Prometheus' test notation: each file named, and each `.test` file of the folders named.
//!
//! Prints every miss with file, line, expected and got. Exit code 1 if a script or its data cannot be read; misses are
//! figures and no failure. `cargo xtask promqltest` calls it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use telemetry_promql::script;

/// What all scripts came to.
#[derive(Default)]
struct Total {
    passed: usize,
    evals: usize,
    unread: usize,
}

fn main() -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let mut files = Vec::new();
    for path in env::args_os().skip(1).map(PathBuf::from) {
        add_files(&path, &mut files)?;
    }
    if files.is_empty() {
        writeln!(out, "no script named, and none in the folders named")?;
        return Ok(ExitCode::FAILURE);
    }
    let mut total = Total::default();
    for file in &files {
        run(file, &mut total, &mut out)?;
    }
    writeln!(out, "passed {} of {}", total.passed, total.evals)?;
    Ok(if total.unread == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn add_files(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    let mut inside = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    inside.retain(|path| path.extension().is_some_and(|extension| extension == "test"));
    inside.sort();
    files.append(&mut inside);
    Ok(())
}

fn run(file: &Path, total: &mut Total, out: &mut impl Write) -> io::Result<()> {
    let name = file.display();
    let read = match fs::read_to_string(file) {
        Ok(text) => script::read(&text),
        Err(error) => {
            total.unread += 1;
            return writeln!(out, "{name}: {error}");
        }
    };
    let script = match read {
        Ok(script) => script,
        Err(error) => {
            total.unread += 1;
            return writeln!(out, "{name}:{}: {}", error.line, error.message);
        }
    };
    let report = script::run(&script, &script::options());
    for miss in &report.refused {
        total.unread += 1;
        writeln!(out, "{name}:{}: load: {}", miss.line, miss.reason)?;
    }
    for miss in &report.misses {
        writeln!(out, "{name}:{}: {}\n    {}", miss.line, miss.query, miss.reason)?;
    }
    writeln!(out, "{name}: {} of {}", report.passed(), report.evals)?;
    total.passed += report.passed();
    total.evals += report.evals;
    Ok(())
}
