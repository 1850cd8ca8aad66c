//! `cargo xtask bless`: writes every generated file again, for a human to read in the diff.
//!
//! The tests that compare a generated file with the code write it instead when `TELEMETRY_BLESS`
//! is set, so there is one generator and it is the one that is checked.

use anyhow::Result;

use crate::build_ebpf::{self, EbpfFeatures};
use crate::cargo::{self, cargo_for_tests};
use crate::{kernel, setup, shell};

/// Runs the tests that own generated files.
///
/// # Errors
/// When a test fails for another reason than a stale file.
pub fn bless() -> Result<()> {
    build_ebpf::build_ebpf(&EbpfFeatures::default())?;
    setup::ensure(&setup::test_needs())?;
    setup::ensure_prometheus()?;
    cargo::build_agent()?;
    let mut command = cargo_for_tests(&["test", "--quiet", "--workspace", "--lib", "--bins"]);
    for target in
        cargo::targets()?.iter().filter(|target| target.kind == "test" && target.name != kernel::SUITE)
    {
        command.args(["--test", &target.name]);
    }
    shell::shown(command.env("TELEMETRY_BLESS", "1"))?;
    eprintln!("[bless] done; git diff shows what changed");
    Ok(())
}
