//! `cargo xtask bless`: writes every generated file again, for a human to read in the diff.
//!
//! The tests that compare a generated file with the code write it instead when `TELEMETRY_BLESS`
//! is set, so there is one generator and it is the one that is checked.

use anyhow::Result;

use crate::build_ebpf::{self, EbpfFeatures};
use crate::cargo::cargo_for_tests;
use crate::shell;

/// Runs the tests that own generated files.
///
/// # Errors
/// When a test fails for another reason than a stale file.
pub fn bless() -> Result<()> {
    build_ebpf::build_ebpf(&EbpfFeatures::default())?;
    // Whatever owns a generated file is a unit test beside the code that makes it.
    let mut command = cargo_for_tests(&["test", "--quiet", "--workspace", "--lib", "--bins"]);
    shell::shown(command.env("TELEMETRY_BLESS", "1"))?;
    eprintln!("[bless] done; git diff shows what changed");
    Ok(())
}
