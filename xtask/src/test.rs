//! `cargo xtask test`: every check and every test, from a bare machine. What CI runs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::build_ebpf::{self, EbpfFeatures};
use crate::cargo::{self, Target, cargo_for_tests};
use crate::kernel::{self, Refresh};
use crate::results::Results;
use crate::{check, cluster, peers, python, setup, toolchain};

/// Kernels that every change is tried on: the oldest that Debian supports, and the newest long-term one.
const MATRIX: [&str; 2] = ["6.1", "6.12"];

/// The matrix builds everything once more and boots two guests without hardware's help, a quarter of an hour on two slow
/// cores; the whole is to end within 45 min. Begun later than this it is left out, by name.
const MATRIX_BEGINS: Duration = Duration::from_secs(29 * 60);

/// One more guest, whose programs the matrix has built in the main.
const UNIFIED_BEGINS: Duration = Duration::from_secs(36 * 60);

/// Sets the machine up, then checks and tests everything that this machine can.
///
/// # Errors
/// When set-up, a check or a test fails. What cannot run here is named instead.
pub fn test(is_full: bool) -> Result<()> {
    let begun = Instant::now();
    let toolchain = toolchain::ensure()?;
    setup::ensure_components()?;
    setup::ensure(&setup::test_needs())?;
    setup::ensure_prometheus()?;
    peers::ensure();
    python::ensure();
    build_ebpf::build_with(&toolchain, &EbpfFeatures::default())?;

    let mut results = Results::default();
    check::static_checks(&mut results, &toolchain);
    // Tests run the agent as it will be run; a broken build shows here once, not in every test.
    cargo::build_agent().context("the agent")?;
    let targets = cargo::targets()?;
    results.tests("all but the kernel suite", &mut cargo_for_tests(&unprivileged(&targets)))?;
    if targets.iter().any(|target| target.kind == "lib") {
        results.tests(
            "examples in the documentation",
            &mut cargo_for_tests(&["test", "--workspace", "--doc"]),
        )?;
    }
    if setup::is_root() {
        results.tests("kernel suite", &mut kernel::suite())?;
    } else {
        results.skip("kernel suite", "needs root");
    }
    cluster::run_suite(&mut results)?;
    cluster::kubernetes::run_suite(is_full, &mut results)?;
    let minutes = || begun.elapsed().as_secs() / 60;
    if begun.elapsed() > MATRIX_BEGINS {
        let reason = format!("{} min are used; `cargo xtask kernel {}` runs it", minutes(), MATRIX.join(" "));
        results.skip("kernel matrix", &reason);
    } else {
        match kernel::prepare(&MATRIX, Refresh::No) {
            Ok(matrix) => matrix.run(&mut results)?,
            Err(error) => results.skip("kernel matrix", &one_line(&error)),
        }
    }
    if begun.elapsed() > UNIFIED_BEGINS && !is_full {
        let reason = format!("{} min are used; `cargo xtask cluster unified` runs it", minutes());
        results.skip("unified cluster", &reason);
    } else {
        cluster::unified::run_suite(is_full, &mut results)?;
    }
    results.finish()
}

/// Everything but the suites that count for the whole machine and so run alone, later.
fn unprivileged(targets: &[Target]) -> Vec<&str> {
    let mut args = vec!["test", "--workspace", "--no-fail-fast", "--lib", "--bins"];
    for target in targets.iter().filter(|target| target.kind == "test") {
        if [kernel::SUITE, cluster::SUITE, cluster::kubernetes::SUITE].contains(&target.name.as_str()) {
            continue;
        }
        args.extend(["--test", &target.name]);
    }
    args
}

/// An error as the reason in a line of the report; what a command printed is in the output above.
fn one_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let mut lines = text.lines().map(str::trim);
    let first = lines.next().unwrap_or_default().to_owned();
    lines.next_back().map_or_else(|| first.clone(), |last| format!("{first} … {last}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_suite_runs_apart_from_all_others() {
        let target =
            |name: &str, kind: &str| Target { package: "p".into(), name: name.into(), kind: kind.into() };
        let targets = [
            target("kernel", "test"),
            target("cluster", "test"),
            target("kubernetes", "test"),
            target("e2e", "test"),
            target("bench-kernel", "bin"),
        ];
        let args = unprivileged(&targets);
        assert_eq!(args.last(), Some(&"e2e"));
        assert!(
            ["kernel", "cluster", "kubernetes", "bench-kernel"].iter().all(|name| !args.contains(name)),
            "{args:?}"
        );
    }
}
