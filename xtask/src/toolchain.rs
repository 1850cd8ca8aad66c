//! The toolchain for the kernel objects: a compiler that builds `core`, and bpf-linker.
//!
//! Two kinds will do. Debian's `rustc-web` is a released compiler whose LLVM is packaged beside it,
//! so bpf-linker can be built against the very same; a rustup nightly with `rust-src` needs a
//! bpf-linker that somebody has installed. bpf-linker reads the compiler's bitcode: its LLVM's
//! major version must equal the compiler's.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use crate::setup::{Missing, Need};
use crate::{cache, paths, setup, shell};

/// What is built when no bpf-linker is there.
const LINKER_VERSION: &str = "0.13.0";
/// Where Debian's packages put the compiler, whatever else is on `PATH`.
const DEBIAN_BIN: &str = "/usr/bin";
const DEBIAN_CORE: &str = "/usr/lib/rustlib/src/rust/library/core/Cargo.toml";
/// Oldest compiler that knows edition 2024 and all that aya-ebpf asks for.
const RUSTC_MINOR_MIN: u32 = 88;

/// A toolchain that can build kernel objects.
#[derive(Debug)]
pub struct Toolchain {
    kind: Kind,
    /// Folder of the bpf-linker to use.
    linker_dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Debian,
    Nightly,
}

/// What `rustc -vV` says.
#[derive(Debug, PartialEq, Eq)]
struct Rustc {
    minor: u32,
    llvm_major: u32,
}

/// A complete toolchain, installed now if it has to be and can be.
///
/// # Errors
/// [`Missing`] with every gap of both kinds, or the command of set-up that failed.
pub fn ensure() -> Result<Toolchain> {
    if let Some(linker_dir) = debian_linker_dir().filter(|dir| dir.join("bpf-linker").is_file()) {
        setup::link_tool(&linker_dir.join("bpf-linker"))?;
        return Ok(Toolchain { kind: Kind::Debian, linker_dir: paths::tools_bin() });
    }
    let gaps = match nightly() {
        Ok(toolchain) => return Ok(toolchain),
        Err(gaps) => gaps,
    };
    let packages_are_there =
        debian_rustc().is_some_and(|rustc| linker_needs(&rustc).iter().all(Need::is_met));
    if setup::can_install() || packages_are_there {
        return install_debian();
    }
    let mut items = vec!["a toolchain for the kernel objects, one of these two:".to_owned()];
    items.push(format!("rustup's nightly, which lacks: {}", gaps.join(", ")));
    items.push(format!("Debian's compiler, which lacks: {}", debian_gaps().join(", ")));
    Err(Missing { items }.into())
}

/// Debian's compiler, if it is installed with its sources and new enough.
fn debian_rustc() -> Option<Rustc> {
    let rustc = Path::new(DEBIAN_BIN).join("rustc");
    if !rustc.is_file() || !Path::new(DEBIAN_CORE).is_file() || !Path::new(DEBIAN_BIN).join("cargo").is_file()
    {
        return None;
    }
    let text = shell::quiet(cleaned(&mut Command::new(rustc)).arg("-vV")).ok()?;
    parse_rustc(&text).filter(|rustc| rustc.minor >= RUSTC_MINOR_MIN)
}

/// The folder of the cache for the linker that fits Debian's compiler.
fn debian_linker_dir() -> Option<PathBuf> {
    let rustc = debian_rustc()?;
    Some(cache::dir().ok()?.join(linker_entry(&rustc)).join("bin"))
}

fn linker_entry(rustc: &Rustc) -> String {
    format!("tools/bpf-linker-{LINKER_VERSION}-llvm{}", rustc.llvm_major)
}

fn debian_gaps() -> Vec<String> {
    match debian_rustc() {
        Some(rustc) => {
            linker_needs(&rustc).iter().filter(|need| !need.is_met()).map(Need::to_string).collect()
        }
        None => {
            debian_needs().iter().map(|need| need.package.clone()).chain(["bpf-linker".to_owned()]).collect()
        }
    }
}

fn debian_needs() -> Vec<Need> {
    vec![
        Need::file("rustc-web", Path::new(DEBIAN_BIN).join("rustc")),
        Need::file("cargo-web", Path::new(DEBIAN_BIN).join("cargo")),
        Need::file("rust-web-src", DEBIAN_CORE),
    ]
}

/// What bpf-linker is built from, beside its own source.
fn linker_needs(rustc: &Rustc) -> Vec<Need> {
    let llvm = rustc.llvm_major;
    let header = format!("/usr/lib/llvm-{llvm}/include/llvm-c/Core.h");
    vec![Need::file(&format!("llvm-{llvm}-dev"), header), Need::program("g++", "c++")]
}

/// Installs Debian's compiler and builds the linker against the LLVM it was built with.
fn install_debian() -> Result<Toolchain> {
    setup::ensure(&debian_needs())?;
    let rustc = debian_rustc().ok_or_else(|| {
        anyhow!(
            "{DEBIAN_BIN}/rustc is older than 1.{RUSTC_MINOR_MIN}: another package than rustc-web owns it"
        )
    })?;
    let llvm = rustc.llvm_major;
    let prefix = format!("/usr/lib/llvm-{llvm}");
    let entry = cache::entry(&linker_entry(&rustc), |dir| {
        setup::ensure(&linker_needs(&rustc))?;
        setup::say(format_args!("building bpf-linker {LINKER_VERSION} for LLVM {llvm} (a minute or two)"));
        let started = Instant::now();
        let mut install = Command::new(Path::new(DEBIAN_BIN).join("cargo"));
        cleaned(&mut install)
            .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--no-default-features"])
            .args(["--features", &format!("llvm-{llvm}"), "--root"])
            .arg(dir)
            .env("LLVM_PREFIX", &prefix)
            .env("CARGO_TARGET_DIR", dir.join("build"))
            .env("PATH", path_for_debian(None));
        shell::filtered(&mut install, |_, line| {
            if line.trim_start().starts_with("Compiling") {
                setup::say(format_args!("  {}", line.trim()));
            }
        })?;
        std::fs::remove_dir_all(dir.join("build")).context("remove the linker's build folder")?;
        setup::say(format_args!("bpf-linker built in {} s", started.elapsed().as_secs()));
        Ok(())
    })?;
    setup::link_tool(&entry.join("bin/bpf-linker"))?;
    Ok(Toolchain { kind: Kind::Debian, linker_dir: paths::tools_bin() })
}

/// rustup's nightly, or what it lacks.
fn nightly() -> Result<Toolchain, Vec<String>> {
    let Some(rustup) = shell::find_program("rustup") else {
        return Err(vec!["rustup".into()]);
    };
    // Through `rustup run`, not the shims: a shim may fetch a toolchain that is not there.
    let rustc = |args: &[&str]| {
        let mut command = Command::new(&rustup);
        cleaned(&mut command).args(["run", "nightly", "rustc"]).args(args);
        shell::quiet(&mut command)
    };
    let mut gaps = Vec::new();
    match rustc(&["--print", "sysroot"]) {
        Err(_) => gaps.push("toolchain nightly".to_owned()),
        Ok(sysroot) => {
            let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml");
            if !core.is_file() {
                gaps.push("component rust-src".to_owned());
            }
        }
    }
    let linker =
        shell::find_program("bpf-linker").filter(|file| shell::succeeds(Command::new(file).arg("--version")));
    match linker.as_deref().and_then(Path::parent) {
        Some(dir) if gaps.is_empty() => Ok(Toolchain { kind: Kind::Nightly, linker_dir: dir.to_path_buf() }),
        Some(_) => Err(gaps),
        None => {
            let llvm = rustc(&["-vV"]).ok().and_then(|text| parse_rustc(&text)).map(|rustc| rustc.llvm_major);
            let of = llvm.map(|major| format!(" (for LLVM {major})")).unwrap_or_default();
            gaps.push(format!("bpf-linker on PATH{of}"));
            Err(gaps)
        }
    }
}

/// Debian's folders first, so that no shim stands before its compiler.
fn path_for_debian(linker_dir: Option<&Path>) -> OsString {
    let mut first: Vec<&Path> = linker_dir.into_iter().collect();
    first.extend([Path::new(DEBIAN_BIN), Path::new("/bin")]);
    shell::path_with(&first)
}

/// Takes away what an outer cargo, rustup or shell has set for another toolchain. What says where
/// the registry is and how to reach it stays.
fn cleaned(command: &mut Command) -> &mut Command {
    const KEPT: [&str; 4] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR"];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let ours = text.starts_with("CARGO") || text.starts_with("RUST") || text == "LD_LIBRARY_PATH";
        let kept = text == "RUSTUP_HOME" || KEPT.iter().any(|kept| text.starts_with(kept));
        if ours && !kept {
            command.env_remove(&name);
        }
    }
    command
}

fn parse_rustc(text: &str) -> Option<Rustc> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let minor = field("release")?.split('.').nth(1)?.parse().ok()?;
    let llvm_major = field("LLVM version")?.split('.').next()?.parse().ok()?;
    Some(Rustc { minor, llvm_major })
}

// === impl Toolchain ===

impl Toolchain {
    /// Its cargo, with nothing in the environment that belongs to another toolchain.
    pub fn cargo(&self) -> Command {
        let mut command = match self.kind {
            Kind::Debian => Command::new(Path::new(DEBIAN_BIN).join("cargo")),
            Kind::Nightly => Command::new("rustup"),
        };
        cleaned(&mut command).current_dir(paths::root());
        match self.kind {
            Kind::Debian => command.env("PATH", path_for_debian(Some(&self.linker_dir))),
            Kind::Nightly => {
                command.env("PATH", shell::path_with(&[&self.linker_dir])).args(["run", "nightly", "cargo"])
            }
        };
        command
    }

    /// For progress lines.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Debian => "Debian's rustc",
            Kind::Nightly => "rustup's nightly",
        }
    }

    /// Whether `cargo clippy` exists here; Debian packages the compiler without it.
    pub fn has_clippy(&self) -> bool {
        match self.kind {
            // Asked for by file: any cargo also finds the shim of rustup, which is of another compiler.
            Kind::Debian => Path::new(DEBIAN_BIN).join("cargo-clippy").is_file(),
            Kind::Nightly => shell::succeeds(self.cargo().args(["clippy", "--version"])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiler_and_llvm_versions_are_read_from_rustc() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25)\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(parse_rustc(text), Some(Rustc { minor: 96, llvm_major: 22 }));
        assert_eq!(
            parse_rustc("release: 1.97.0-nightly\nLLVM version: 23.1\n").map(|r| r.llvm_major),
            Some(23)
        );
        assert_eq!(
            parse_rustc("release: 1.96.0\n"),
            None,
            "a compiler without LLVM builds no kernel objects"
        );
    }

    #[test]
    fn each_llvm_has_its_own_linker() {
        let entry = |llvm_major| linker_entry(&Rustc { minor: 96, llvm_major });
        assert_ne!(entry(22), entry(23));
    }
}
