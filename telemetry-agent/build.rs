//! Puts the kernel programs beside the agent's code, if they have been built.
//!
//! `cargo xtask build-ebpf` makes `target/bpf/*.o`; without them the workspace still builds, and the agent says at
//! start that it has no kernel programs.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let objects = manifest.parent().unwrap_or(Path::new("..")).join("target/bpf");
    for name in ["telemetry.o", "bench.o"] {
        let from = objects.join(name);
        println!("cargo::rerun-if-changed={}", from.display());
        // An empty file stands for "not built".
        fs::write(out.join(name), fs::read(&from).unwrap_or_default())?;
    }
    println!("cargo::rustc-env=TELEMETRY_RUSTC={}", version(&env::var("RUSTC").unwrap_or_default()));
    println!("cargo::rustc-env=TELEMETRY_REVISION={}", revision(&manifest));
    println!("cargo::rerun-if-changed=../.git/HEAD");
    Ok(())
}

/// The compiler's version, or `unknown`.
fn version(rustc: &str) -> String {
    first_line(std::process::Command::new(rustc).arg("--version"))
}

/// The commit that is built, or `unknown` outside a checkout.
fn revision(directory: &Path) -> String {
    first_line(
        std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).current_dir(directory),
    )
}

fn first_line(command: &mut std::process::Command) -> String {
    let text = command.output().ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let text = String::from_utf8(text.unwrap_or_default()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}
