//! `cargo xtask check`: what must hold before anybody reviews a change.

use std::process::Command;

use anyhow::Result;

use crate::build_ebpf::{self, EbpfFeatures};
use crate::cargo::{cargo, cargo_for_tests};
use crate::results::Results;
use crate::toolchain::{self, Toolchain};
use crate::{setup, shell, tidy};

/// Every check and the unit tests.
///
/// # Errors
/// When a check fails or the kernel objects, which the agent embeds, cannot be built.
pub fn check() -> Result<()> {
    let mut results = Results::default();
    let toolchain = toolchain::ensure()?;
    setup::ensure_components()?;
    build_ebpf::build_with(&toolchain, &EbpfFeatures::default())?;
    static_checks(&mut results, &toolchain);
    results.tests(
        "unit tests",
        &mut cargo_for_tests(&["test", "--workspace", "--lib", "--bins", "--no-fail-fast"]),
    )?;
    results.finish()
}

/// What can be said about the code without running it.
pub fn static_checks(results: &mut Results, toolchain: &Toolchain) {
    let mut shown = |name: &str, command: &mut Command| results.step(name, || shell::shown(command));
    shown("format", &mut cargo(&["fmt", "--all", "--check"]));
    let lints = ["--", "--deny", "warnings"];
    shown("clippy, host", cargo(&["clippy", "--quiet", "--workspace", "--all-targets"]).args(lints));
    let podlet = ["clippy", "--quiet", "--package", "telemetry-podlet", "--features", "cri"];
    if shell::find_program("protoc").is_some() {
        shown("clippy, podlet", cargo(&podlet).args(lints));
    }
    let mut docs = cargo(&["doc", "--quiet", "--workspace", "--no-deps"]);
    shown("documentation", docs.env("RUSTDOCFLAGS", "--deny warnings"));
    results.step("tidy", tidy::tidy);

    const KERNEL_CLIPPY: &str = "clippy, kernel programs";
    if toolchain.has_clippy() {
        let mut clippy = build_ebpf::bpf_cargo(toolchain, "clippy", &EbpfFeatures::default());
        results.step(KERNEL_CLIPPY, || shell::shown(clippy.args(lints)));
    } else {
        results.skip(KERNEL_CLIPPY, &format!("{} has no clippy", toolchain.name()));
    }

    const DENY: &str = "cargo deny";
    if shell::find_program("cargo-deny").is_some() {
        results.step(DENY, || shell::shown(&mut cargo(&["deny", "check", "bans", "licenses", "sources"])));
    } else {
        results.skip(DENY, "cargo-deny is not installed");
    }
}
