//! `cargo xtask build-ebpf`: the kernel objects, in `target/bpf/`.
//!
//! The kernel side needs a compiler that builds `core` for a target without a standard library,
//! so it has its own toolchain and target directory; the agent takes the finished objects by path.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::toolchain::Toolchain;
use crate::{paths, shell, toolchain};

/// Programs of crate telemetry-ebpf, each one kernel object.
const OBJECTS: [&str; 2] = ["telemetry", "bench"];
const BPF_TARGET: &str = "bpfel-unknown-none";

/// Features of telemetry-ebpf to build with.
#[derive(Debug, Default)]
pub struct EbpfFeatures(pub Vec<String>);

/// Sets the toolchain up and builds the kernel objects.
///
/// # Errors
/// When the toolchain cannot be had or the programs do not compile.
pub fn build_ebpf(features: &EbpfFeatures) -> Result<()> {
    let toolchain = toolchain::ensure()?;
    build_with(&toolchain, features)
}

/// Builds the kernel objects with a toolchain that is there.
///
/// # Errors
/// When they do not compile.
pub fn build_with(toolchain: &Toolchain, features: &EbpfFeatures) -> Result<()> {
    eprintln!("[build-ebpf] kernel objects with {}", toolchain.name());
    let mut build = bpf_cargo(toolchain, "build", features);
    shell::shown(&mut build).with_context(|| {
        format!(
            "kernel objects with {} (a bpf-linker of another LLVM cannot read its bitcode)",
            toolchain.name()
        )
    })?;
    let built = paths::bpf_build().join(BPF_TARGET).join("release");
    for name in OBJECTS {
        copy_if_changed(&built.join(name), &paths::bpf_objects().join(format!("{name}.o")))?;
    }
    Ok(())
}

/// A cargo command on the kernel programs, with all that their target asks for.
pub fn bpf_cargo(toolchain: &Toolchain, subcommand: &str, features: &EbpfFeatures) -> Command {
    let mut command = toolchain.cargo();
    command
        .args([subcommand, "--release", "--target", BPF_TARGET, "-Z", "build-std=core"])
        .args(["--package", "telemetry-ebpf", "--bins"])
        // Lets a released compiler take -Z and the intrinsics; a nightly ignores it.
        .env("RUSTC_BOOTSTRAP", "1")
        // The BTF map definitions come out of the debug info: the two go together.
        .env("RUSTFLAGS", "-C debuginfo=2 -C link-arg=--btf")
        .env("CARGO_TARGET_DIR", paths::bpf_build())
        // The workspace's release profile is the agent's. A kernel program is one function to the
        // verifier: everything must be inlined into it, and nothing can unwind.
        .env("CARGO_PROFILE_RELEASE_LTO", "true")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2");
    if !features.0.is_empty() {
        command.args(["--features", &features.0.join(",")]);
    }
    command
}

/// Copies a file unless the copy is the same already: an untouched copy spares the agent's rebuild.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    // Renamed into place, so that a compiler that reads it now sees one version whole.
    let partial = to.with_extension("partial");
    fs::write(&partial, &bytes).with_context(|| format!("write {}", partial.display()))?;
    fs::rename(&partial, to).with_context(|| format!("rename to {}", to.display()))?;
    eprintln!("[build-ebpf] {} ({} bytes)", to.display(), bytes.len());
    Ok(())
}
