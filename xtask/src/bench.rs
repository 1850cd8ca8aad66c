//! `cargo xtask bench [NAME]`: the project's figures, one JSON line each on standard output.
//!
//! A benchmark is a program `bench-<name>` of the tests crate. It holds each figure to its bar and says so in the line.
//! That of queries fails when a bar is missed; of the others a missed bar is a fact to read.

use anyhow::{Result, bail};

use crate::build_ebpf::{self, EbpfFeatures};
use crate::cargo::{self, Target, cargo_for_tests};
use crate::setup::Need;
use crate::{cache, peers, setup, shell};

const PREFIX: &str = "bench-";
/// Those that have peers.
const BESIDE_PEERS: [&str; 3] = ["api", "store", "query"];
/// Those that need no kernel.
const WITHOUT_KERNEL: [&str; 2] = ["store", "query"];

/// Runs one benchmark, or all.
///
/// # Errors
/// When there is none of this name, or one cannot run at all.
pub fn bench(name: Option<&str>) -> Result<()> {
    let targets = cargo::targets()?;
    let known = known(&targets);
    let chosen: Vec<&str> =
        known.iter().copied().filter(|bench| name.is_none_or(|name| name == *bench)).collect();
    if chosen.is_empty() {
        bail!("no benchmark {}; there are: {}", name.unwrap_or("at all"), known.join(", "));
    }
    let has_peers = |bench: &&str| BESIDE_PEERS.contains(bench);
    // Whoever asks for one that needs no kernel does not wait for the programs' build.
    if !chosen.iter().all(|bench| WITHOUT_KERNEL.contains(bench)) {
        build_ebpf::build_ebpf(&EbpfFeatures::default())?;
        // For `perf bench sched pipe`, the densest stream of context switches at hand.
        setup::ensure(&[Need::program("linux-perf", "perf")])?;
        cargo::build_agent()?;
    }
    if chosen.iter().any(has_peers) {
        peers::ensure();
    }
    let recordings = cache::dir()?.join("recordings");
    for bench in chosen {
        let program = format!("{PREFIX}{bench}");
        let args = ["run", "--quiet", "--release", "--package", "telemetry-tests", "--bin", &program];
        let mut command = cargo_for_tests(&args);
        command.env("TELEMETRY_RECORDINGS", &recordings);
        shell::shown(&mut command)?;
    }
    Ok(())
}

fn known(targets: &[Target]) -> Vec<&str> {
    let programs =
        targets.iter().filter(|target| target.kind == "bin" && target.package == "telemetry-tests");
    programs.filter_map(|target| target.name.strip_prefix(PREFIX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn benchmarks_are_the_bench_programs_of_the_tests_crate() {
        let target = |package: &str, name: &str, kind: &str| Target {
            package: package.into(),
            name: name.into(),
            kind: kind.into(),
        };
        let targets = [
            target("telemetry-tests", "bench-kernel", "bin"),
            target("telemetry-tests", "kernel", "test"),
            target("telemetry-ebpf", "bench", "bin"),
        ];
        assert_eq!(known(&targets), ["kernel"]);
    }
}
