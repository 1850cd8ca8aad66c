//! What the kernel side costs, figure by figure, each beside what it is held to.
//!
//! One JSON line a figure on standard output. A figure that misses its bar says so and fails nothing; a measurement
//! that could not be made is named on standard error and ends the run with code 1. Wants root and a quiet machine.

mod hooks;
mod pipe;
mod resources;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;

/// A group of figures.
type Section = (&'static str, fn() -> Result<()>);

const SECTIONS: [Section; 5] = [
    ("ns per event", hooks::per_event),
    ("end to end", pipe::end_to_end),
    ("drain", resources::drain),
    ("page", resources::page),
    ("at rest", resources::at_rest),
];

fn main() -> ExitCode {
    match telemetry_tests::work::run_if_asked() {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return failed("workload", &error),
    }
    // One section by a part of its name, for whoever works on it.
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let mut code = ExitCode::SUCCESS;
    for (name, section) in SECTIONS.iter().filter(|(name, _)| name.contains(&wanted)) {
        if let Err(error) = section() {
            code = failed(name, &error);
        }
    }
    code
}

fn failed(what: &str, error: &anyhow::Error) -> ExitCode {
    // Without a place to say it, the exit code has to do.
    let _ = writeln!(std::io::stderr(), "bench-kernel: {what}: {error:#}");
    ExitCode::FAILURE
}
