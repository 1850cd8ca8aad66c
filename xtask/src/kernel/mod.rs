//! `cargo xtask kernel [VERSION…]`: the privileged suite, here or on Debian's kernels in QEMU.
//!
//! A guest is a kernel of Debian's archive and an initramfs of the static suite, the static agent
//! and the few tools that the suite calls. Everything is emulated: a `/dev/kvm` that exists is no
//! proof that it works, and emulation behaves alike everywhere.

mod archive;
pub mod guest;
pub mod initramfs;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::build_ebpf::{self, EbpfFeatures};
use crate::cargo::{cargo, cargo_for_tests};
use crate::results::Results;
use crate::{paths, setup, shell};

use archive::Archive;
pub use archive::Kernel;
use guest::Guest;

/// The integration test that needs root and a kernel to itself.
pub const SUITE: &str = "kernel";
/// Debian's cloud kernels are taken for this machine type, and so the guest's programs.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Whether to ask the archive for newer kernels than the cache has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    Yes,
    No,
}

/// Kernels that are ready to boot.
#[derive(Debug)]
pub struct Matrix {
    kernels: Vec<Kernel>,
    /// Asked for and not to be had, with the reason.
    absent: Vec<(String, String)>,
}

/// What is run inside a guest.
#[derive(Debug)]
pub struct Programs {
    pub agent: PathBuf,
    pub suite: PathBuf,
}

/// Runs the suite on this machine, or on each kernel that is named.
///
/// # Errors
/// When set-up or a test fails, or a kernel that was asked for by name is not to be had.
pub fn kernel(versions: &[String], refresh: Refresh) -> Result<()> {
    let mut results = Results::default();
    if versions.is_empty() {
        if !setup::is_root() {
            bail!("the privileged suite needs root");
        }
        setup::ensure(&setup::test_needs())?;
        build_ebpf::build_ebpf(&EbpfFeatures::default())?;
        crate::cargo::build_agent()?;
        results.tests("kernel suite", &mut suite())?;
        return results.finish();
    }
    let versions: Vec<&str> = versions.iter().map(String::as_str).collect();
    let matrix = prepare(&versions, refresh)?;
    if let Some((version, reason)) = matrix.absent.first() {
        bail!("kernel {version}: {reason}");
    }
    build_ebpf::build_ebpf(&EbpfFeatures::default())?;
    matrix.run(&mut results)?;
    results.finish()
}

/// The suite on this kernel. One test at a time: each looks at counters of the whole machine.
pub fn suite() -> Command {
    cargo_for_tests(&["test", "--workspace", "--no-fail-fast", "--test", SUITE, "--", "--test-threads=1"])
}

/// One kernel, from the cache if it has one that answers to the name.
///
/// # Errors
/// When it is not to be had.
pub fn fetch(version: &str) -> Result<Kernel> {
    Archive::new(Refresh::No)?.kernel(version)
}

/// Fetches the kernels and what boots them.
///
/// # Errors
/// When the emulator or every kernel is not to be had.
pub fn prepare(versions: &[&str], refresh: Refresh) -> Result<Matrix> {
    prepare_emulator()?;
    let mut archive = Archive::new(refresh)?;
    let mut matrix = Matrix { kernels: Vec::new(), absent: Vec::new() };
    for version in versions {
        match archive.kernel(version) {
            Ok(kernel) => matrix.kernels.push(kernel),
            Err(error) => matrix.absent.push(((*version).to_owned(), format!("{error:#}"))),
        }
    }
    match matrix.absent.first() {
        Some((version, reason)) if matrix.kernels.is_empty() => bail!("kernel {version}: {reason}"),
        _ => Ok(matrix),
    }
}

/// Makes sure that guests can be made and booted here.
///
/// # Errors
/// When something is missing, or this machine is of another kind.
pub fn prepare_emulator() -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        bail!("the guests' programs are built for x86_64, which this machine is not");
    }
    let mut needs = setup::qemu_needs();
    needs.extend(setup::test_needs());
    setup::ensure(&needs)
}

/// Builds the agent and a suite without shared libraries, in one go so that they share crates.
///
/// # Errors
/// When they do not compile.
pub fn build_programs(suite: &str) -> Result<Programs> {
    eprintln!("[guest] building the static agent and suite");
    let messages = build_static(&[
        "--package",
        "telemetry-agent",
        "--package",
        "telemetry-tests",
        "--bin",
        "telemetry-agent",
        "--test",
        suite,
    ])?;
    Ok(Programs {
        agent: built(&messages, "bin", "telemetry-agent")?,
        suite: built(&messages, "test", suite)?,
    })
}

/// Builds for guests, and returns cargo's messages.
///
/// # Errors
/// When it does not compile.
pub fn build_static(what: &[&str]) -> Result<String> {
    let mut build = cargo(&["build", "--release", "--target", GUEST_TARGET]);
    build
        .args(what)
        .args(["--message-format", "json-render-diagnostics"])
        .env("CARGO_TARGET_DIR", paths::target().join("guest"))
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        // They are copied into every guest, and run once.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    shell::filtered(&mut build, |stream, line| {
        if stream == shell::Stream::Err {
            eprintln!("{line}");
        }
    })
}

/// The file of a target that was built.
///
/// # Errors
/// When cargo's messages tell of none.
pub fn built(messages: &str, kind: &str, name: &str) -> Result<PathBuf> {
    executable(messages, kind, name).ok_or_else(|| anyhow!("cargo built no {kind} {name}"))
}

/// The file that cargo's messages name for a target.
fn executable(messages: &str, kind: &str, name: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let target = message.get("target")?;
        let fits = target.get("name")?.as_str()? == name && target.pointer("/kind/0")?.as_str()? == kind;
        fits.then(|| message.get("executable")?.as_str().map(PathBuf::from))?
    })
}

// === impl Refresh ===

impl From<bool> for Refresh {
    fn from(asked: bool) -> Self {
        if asked { Self::Yes } else { Self::No }
    }
}

// === impl Matrix ===

impl Matrix {
    /// Boots each kernel in turn and runs the suite in it.
    ///
    /// # Errors
    /// When the guests' programs cannot be built or the emulator cannot be started; what fails in a
    /// guest is in `results`.
    pub fn run(&self, results: &mut Results) -> Result<()> {
        for (version, reason) in &self.absent {
            results.skip(&format!("kernel {version}"), reason);
        }
        let programs = match build_programs(SUITE) {
            Ok(programs) => programs,
            Err(error) => {
                // The compiler's words stand above already.
                let text = format!("{error:#}");
                results.fail("static agent and suite", text.lines().next().unwrap_or_default());
                return Ok(());
            }
        };
        for kernel in &self.kernels {
            let image = initramfs::build(kernel, &programs)
                .with_context(|| format!("initramfs of {}", kernel.version))?;
            let name = format!("kernel {}", kernel.version);
            Guest { name, kernel, initramfs: &image, disk: None, arguments: "" }.run(results)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_by_kind_and_name() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"kernel"},"executable":null}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"kernel"},"executable":"/t/kernel-1"}"#,
        );
        assert_eq!(executable(messages, "test", "kernel"), Some(PathBuf::from("/t/kernel-1")));
        assert_eq!(executable(messages, "lib", "kernel"), None);
        assert_eq!(executable(messages, "bin", "kernel"), None);
    }
}
