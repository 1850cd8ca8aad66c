//! What queries cost: the usual shapes of dashboards and the worst ones, on the same samples in our store, in Prometheus
//! and in VictoriaMetrics, in one run.
//!
//! One JSON line a figure on standard output; a figure that misses its bar fails the run, at its end. Our store is
//! filled by one process and asked by another, so that the memory of the first is not counted to the second. For a
//! profiler: `bench-query fill DIR`, then `bench-query again DIR SHAPE` asks one shape for some seconds.

mod answer;
mod data;
mod ours;
mod report;
mod shapes;
mod theirs;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use telemetry_tests::peer::Kind;

use answer::Measured;
use report::Table;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => run(),
        ["fill", dir] => ours::fill(Path::new(dir)),
        ["ask", dir] => ours::ask(Path::new(dir)),
        ["again", dir, shape] => ours::again(Path::new(dir), shape),
        _ => Err(anyhow::anyhow!("usage: bench-query [fill DIR | ask DIR | again DIR SHAPE]")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a place to say it, the exit code has to do.
            let _ = writeln!(std::io::stderr(), "bench-query: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = dir.path().join("store");
    again("fill", &store)?;
    again("ask", &store)?;
    let ours = Measured::read(&store.with_extension("answers"))?;
    let mut table = Table::new(ours);
    for kind in Kind::ALL {
        let folder = std::env::var_os("TELEMETRY_PEERS").map(PathBuf::from);
        let folder = folder.filter(|folder| kind.version(folder).is_some());
        let result = folder.context("the program cannot be had here").and_then(|folder| {
            let version = kind.version(&folder).context("version")?;
            table.add(kind, version, theirs::measure(kind, &folder, &dir.path().join(kind.name()))?);
            Ok(())
        });
        if let Err(error) = result {
            report::not_measured(kind, &error)?;
        }
    }
    table.print()
}

/// This program again, for one part.
fn again(part: &str, dir: &Path) -> Result<()> {
    let status = Command::new(std::env::current_exe()?).arg(part).arg(dir).status()?;
    anyhow::ensure!(status.success(), "{part}: {status}");
    Ok(())
}
