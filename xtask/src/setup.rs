//! Makes a bare Debian machine able to do what a command needs; elsewhere says what is missing.
//!
//! A need is met when its file is there, whoever put it there, so a machine that has everything is
//! never asked for root, apt or a network.

use std::fmt;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::cargo::cargo;
use crate::shell::Stream;
use crate::{cache, paths, shell};

/// Something that a Debian package brings.
#[derive(Debug, Clone)]
pub struct Need {
    pub package: String,
    probe: Probe,
}

/// How to tell that it is there.
#[derive(Debug, Clone)]
enum Probe {
    Program(String),
    File(PathBuf),
    /// Of the Python on the path.
    Module(String),
}

/// What a command needs and cannot get here. Ends in exit code 69.
#[derive(Debug)]
pub struct Missing {
    pub items: Vec<String>,
}

/// What the tests use beside the toolchain.
pub fn test_needs() -> Vec<Need> {
    vec![
        Need::program("iproute2", "ip"),
        Need::program("e2fsprogs", "mkfs.ext4"),
        Need::program("xfsprogs", "mkfs.xfs"),
        // A disk whose syncs fail.
        Need::program("nbdkit", "nbdkit"),
        Need::program("libnbd-bin", "nbdfuse"),
        Need::program("fuse3", "fusermount3"),
    ]
}

/// What the kernel matrix uses.
pub fn qemu_needs() -> Vec<Need> {
    vec![
        Need::program("qemu-system-x86", "qemu-system-x86_64"),
        Need::program("busybox-static", "busybox"),
        Need::program("cpio", "cpio"),
        Need::program("zstd", "zstd"),
        Need::program("xz-utils", "xz"),
    ]
}

/// Says where set-up stands.
pub fn say(what: impl fmt::Display) {
    eprintln!("[setup] {what}");
}

/// Makes sure that every need is met, by apt where that is possible.
///
/// # Errors
/// [`Missing`] where packages cannot be installed, else what apt said.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !need.is_met()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !can_install() {
        let items = missing.iter().map(|need| need.to_string()).collect();
        return Err(Missing { items }.into());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package.as_str()).collect();
    say(format_args!("installing {}", packages.join(" ")));
    update_lists()?;
    let started = Instant::now();
    let mut install = apt_get(&["install", "--yes", "--quiet", "--no-install-recommends"]);
    shell::filtered(install.args(&packages), |_, line| {
        if line.starts_with("Need to get") || line.starts_with("Setting up") {
            say(format_args!("  {line}"));
        }
    })?;
    say(format_args!("installed {} in {} s", packages.join(" "), started.elapsed().as_secs()));
    let absent: Vec<String> =
        missing.iter().filter(|need| !need.is_met()).map(|need| need.to_string()).collect();
    if absent.is_empty() { Ok(()) } else { Err(Missing { items: absent }.into()) }
}

/// True for root on a system with apt: the one kind of machine that is set up without asking.
pub fn can_install() -> bool {
    is_root() && shell::find_program("apt-get").is_some()
}

/// True when the effective user is root.
pub fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uids.and_then(|uids| uids.split_whitespace().nth(1)) == Some("0")
}

/// rustfmt and clippy, which rustup's minimal profile leaves out.
///
/// # Errors
/// [`Missing`] where there is no rustup, else what rustup said.
pub fn ensure_components() -> Result<()> {
    const COMPONENTS: [(&str, &str); 2] = [("fmt", "rustfmt"), ("clippy", "clippy")];
    let there = |subcommand: &str| shell::succeeds(&mut cargo(&[subcommand, "--version"]));
    let absent = COMPONENTS.iter().filter(|(subcommand, _)| !there(subcommand));
    let components: Vec<&str> = absent.map(|(_, component)| *component).collect();
    if components.is_empty() {
        return Ok(());
    }
    let Some(rustup) = shell::find_program("rustup") else {
        let items = components.iter().map(|name| format!("{name} of the Rust toolchain")).collect();
        return Err(Missing { items }.into());
    };
    say(format_args!("adding {}", components.join(" ")));
    shell::quiet(Command::new(rustup).args(["component", "add"]).args(&components)).map(|_| ())
}

/// `prometheus` and `promtool`, for the tests that let the real ones read our pages.
///
/// Installing the package would start a server and add a user; its two programs need only libc, so
/// the package is unpacked into the cache instead.
///
/// # Errors
/// [`Missing`] where there is no apt, else what apt said.
pub fn ensure_prometheus() -> Result<()> {
    const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];
    let found = |name: &&str| shell::find_program(name).is_some() || paths::tools_bin().join(name).is_file();
    if PROGRAMS.iter().all(found) {
        return Ok(());
    }
    if shell::find_program("apt-get").is_none() || shell::find_program("dpkg-deb").is_none() {
        let items = vec!["prometheus and promtool (Debian package prometheus)".to_owned()];
        return Err(Missing { items }.into());
    }
    let tree = cache::entry("tools/prometheus", |dir| {
        say("fetching prometheus and promtool");
        if is_root() {
            update_lists()?;
        }
        // As root, apt would hand the download to its own user, who may not write here.
        let options = ["-o", "APT::Sandbox::User=root", "download", "--quiet", "prometheus"];
        shell::quiet(apt_get(&options).current_dir(dir))?;
        unpack_packages(dir, dir)
    })?;
    for name in PROGRAMS {
        link_tool(&tree.join("usr/bin").join(name))?;
    }
    Ok(())
}

/// Unpacks every package file of `from` into `to` and removes it.
///
/// # Errors
/// When a package is broken or the disk is full.
pub fn unpack_packages(from: &Path, to: &Path) -> Result<()> {
    for file in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            shell::quiet(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(to))?;
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Links a tool of the cache into the folder that stands first on every child's `PATH`.
///
/// # Errors
/// When the folder cannot be written.
pub fn link_tool(tool: &Path) -> Result<()> {
    let dir = paths::tools_bin();
    let link = dir.join(tool.file_name().unwrap_or_default());
    if fs::read_link(&link).is_ok_and(|to| to == tool) {
        return Ok(());
    }
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link).with_context(|| format!("remove {}", link.display()))?;
    }
    symlink(tool, &link).with_context(|| format!("link {}", link.display()))
}

/// An `apt-get` that asks nobody anything.
pub fn apt_get(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    command
}

/// `apt-get update`, at most once a process.
///
/// # Errors
/// When apt cannot be run.
pub fn update_lists() -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.get().is_none() {
        say("apt-get update");
        shell::filtered(&mut apt_get(&["update", "--quiet"]), |stream, line| {
            // One broken list of several is no reason to stop, but a reason to say so.
            if stream == Stream::Err {
                say(format_args!("  {line}"));
            }
        })?;
        DONE.get_or_init(|| ());
    }
    Ok(())
}

// === impl Need ===

impl Need {
    /// A package that is there when this program is.
    pub fn program(package: &str, program: &str) -> Self {
        Self { package: package.into(), probe: Probe::Program(program.into()) }
    }

    /// A package that is there when this file or folder is.
    pub fn file(package: &str, file: impl Into<PathBuf>) -> Self {
        Self { package: package.into(), probe: Probe::File(file.into()) }
    }

    /// A package that is there when Python has this module.
    pub fn module(package: &str, module: &str) -> Self {
        Self { package: package.into(), probe: Probe::Module(module.into()) }
    }

    /// True when nothing has to be done.
    pub fn is_met(&self) -> bool {
        match &self.probe {
            Probe::Program(name) => shell::find_program(name).is_some(),
            Probe::File(path) => path.exists(),
            Probe::Module(name) => {
                shell::succeeds(Command::new("python3").args(["-c", &format!("import {name}")]))
            }
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.probe {
            Probe::Program(name) => write!(f, "{name} (Debian package {})", self.package),
            Probe::Module(name) => {
                write!(f, "Python's module {name} (Debian package {})", self.package)
            }
            Probe::File(path) => write!(f, "{} (Debian package {})", path.display(), self.package),
        }
    }
}

// === impl Missing ===

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "missing on this machine:")?;
        for item in &self.items {
            write!(f, "\n    {item}")?;
        }
        write!(f, "\nroot on a Debian machine gets these by itself; elsewhere install them and repeat")
    }
}

impl std::error::Error for Missing {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_is_met_by_its_file_or_program_alone() {
        assert!(Need::program("no-such-package", "sh").is_met());
        assert!(!Need::program("no-such-package", "no-such-program").is_met());
        assert!(Need::file("no-such-package", "/proc/self/status").is_met());
        assert!(!Need::file("no-such-package", "/no/such/file").is_met());
    }

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let items = vec![Need::program("iproute2", "ip").to_string()];
        let text = Missing { items }.to_string();
        assert!(text.contains("ip (Debian package iproute2)"), "{text}");
    }
}
