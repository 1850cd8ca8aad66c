//! Writes every target's seeds below a folder, one folder a target, and prints the targets' names.

use std::io::Write as _;
use std::path::PathBuf;

use telemetry_fuzz::TARGETS;

fn main() -> std::io::Result<()> {
    let root = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| ".".to_owned()));
    let mut out = std::io::stdout();
    for target in TARGETS {
        let dir = root.join(target.name);
        std::fs::create_dir_all(&dir)?;
        for (at, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{at:03}")), seed)?;
        }
        writeln!(out, "{}", target.name)?;
    }
    Ok(())
}
