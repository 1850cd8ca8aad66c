//! Where things are in the source tree and in `target/`.
//!
//! Knows names only; whoever asks creates what is not there.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the source tree: the folder above this crate.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// `target/` of the tree, whatever `CARGO_TARGET_DIR` says: the agent embeds the kernel objects from
/// here by a fixed path.
pub fn target() -> PathBuf {
    root().join("target")
}

/// Where cargo puts what it builds for the host.
pub fn cargo_target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(target, |dir| root().join(dir))
}

/// The agent that `run`, `test` and `bench` use.
pub fn release_agent() -> PathBuf {
    cargo_target().join("release/telemetry-agent")
}

/// Finished kernel objects.
pub fn bpf_objects() -> PathBuf {
    target().join("bpf")
}

/// Cargo's target directory for the kernel objects: another toolchain, so never shared with the host's.
pub fn bpf_build() -> PathBuf {
    target().join("bpf-build")
}

/// Links to the tools that set-up has made, for `PATH`.
pub fn tools_bin() -> PathBuf {
    target().join("tools/bin")
}

/// Files of other projects that tests compare with.
pub fn oracles() -> PathBuf {
    env::var_os("TELEMETRY_ORACLES").map_or_else(|| root().join("../shared/oracles"), PathBuf::from)
}
