//! What the store costs, figure by figure, each beside its bar.
//!
//! One JSON line a figure on standard output. Every section is a process of its own, so that one's memory is not
//! another's: the program calls itself with the section's name.

mod hard;
mod peers;
mod sections;

use std::io::Write as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use sections::SECTIONS;

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1);
    let result = match wanted {
        Some(name) => run(&name),
        None => run_all(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a place to say it, the exit code has to do.
            let _ = writeln!(std::io::stderr(), "bench-store: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str) -> Result<()> {
    let (_, section) = SECTIONS.iter().find(|(known, _)| *known == name).context("no such section")?;
    section()
}

fn run_all() -> Result<()> {
    let this = std::env::current_exe()?;
    for (name, _) in SECTIONS {
        let status = Command::new(&this).arg(name).status()?;
        anyhow::ensure!(status.success(), "section {name}: {status}");
    }
    Ok(())
}
