//! The root file system of a guest: busybox, the programs under test, and what they call.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use super::archive::{Kernel, files_below};
use super::{Programs, guest};
use crate::{paths, shell};

/// Modules that the suite needs where they are not built in, with all that they need themselves:
/// loop devices and a file system for block I/O, virtual links for the network.
const MODULES: [&str; 5] = ["crc32c_generic", "crc32c_intel", "loop", "veth", "ext4"];
/// Programs of this machine that the suite calls and busybox has not, or has in a lesser form.
const TOOLS: [&str; 2] = ["ip", "mkfs.ext4"];

/// What each guest does. Cgroups stand as on a node of today: one unified tree, every controller on.
/// The lines that `guest` looks for start with its marks.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp RUST_BACKTRACE=1
busybox mount -t proc proc /proc
busybox --install -s /bin 2>/dev/null
mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm; mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp; mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for c in $(cat /sys/fs/cgroup/cgroup.controllers); do echo "+$c" >/sys/fs/cgroup/cgroup.subtree_control; done
ulimit -n 65536
echo; echo "@BOOT $(uname -r) $(cut -d' ' -f1 /proc/uptime)"
while read -r m; do insmod "/mod/$m" 2>/dev/null; done </mod/order
ip link set lo up
: >/tmp/skips
cd /tmp
TELEMETRY_AGENT=/bin/telemetry-agent TELEMETRY_SKIPS=/tmp/skips /bin/kernel-tests --test-threads=1 2>&1
code=$?
sed 's/^/@SKIP /' /tmp/skips
echo "@EXIT $code $(cut -d' ' -f1 /proc/uptime)"
sync
poweroff -f
"#;

/// Packs the guest's root for a kernel and returns the archive.
///
/// # Errors
/// When a program is missing or the disk is full.
pub fn build(kernel: &Kernel, programs: &Programs) -> Result<PathBuf> {
    let dir = guest::log_dir();
    let root = dir.join(format!("{}.root", kernel.version));
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    }
    for sub in ["bin", "sbin", "usr/bin", "usr/sbin", "proc", "sys", "dev", "tmp", "run", "mnt", "mod", "etc"]
    {
        fs::create_dir_all(root.join(sub)).with_context(|| format!("create {sub} in the guest's root"))?;
    }
    copy(&program("busybox")?, &root.join("bin/busybox"))?;
    symlink("busybox", root.join("bin/sh")).context("link sh")?;
    copy(&programs.agent, &root.join("bin/telemetry-agent"))?;
    copy(&programs.suite, &root.join("bin/kernel-tests"))?;
    for tool in TOOLS {
        let file = program(tool)?;
        copy(&file, &root.join("usr/sbin").join(tool))?;
        for library in libraries(&file)? {
            let place = root.join(library.strip_prefix("/").unwrap_or(&library));
            copy(&library, &place)?;
        }
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/tmp:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")?;
    copy_modules(kernel, &MODULES, &root.join("mod"))?;
    let image = dir.join(format!("{}.initramfs", kernel.version));
    pack(&root, INIT, &image)?;
    Ok(image)
}

/// Packs a root with what runs first in it, and removes it.
///
/// # Errors
/// When the disk is full.
pub fn pack(root: &Path, init: &str, image: &Path) -> Result<()> {
    write_program(&root.join("init"), init)?;
    // Not compressed: unpacking costs an emulated CPU more than reading does.
    let pack = r#"find . -print0 | cpio --null --create --format newc --owner 0:0 --quiet >"$0""#;
    shell::quiet(Command::new("sh").args(["-c", pack]).arg(image).current_dir(root))?;
    fs::remove_dir_all(root).context("remove the guest's unpacked root")
}

/// Writes a script that can be run.
///
/// # Errors
/// When the disk is full.
pub fn write_program(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
    shell::quiet(Command::new("chmod").arg("0755").arg(file)).map(drop)
}

/// Where a program of this machine is.
///
/// # Errors
/// When it is not on the path.
pub fn program(name: &str) -> Result<PathBuf> {
    shell::find_program(name).ok_or_else(|| anyhow!("{name} is not on PATH"))
}

/// Copies a file into a guest's root.
///
/// # Errors
/// When it cannot be read, or the disk is full.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    // Follows links and keeps the mode.
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Shared libraries of a program, the loader among them.
fn libraries(file: &Path) -> Result<Vec<PathBuf>> {
    let text = shell::quiet(Command::new("ldd").arg(file))?;
    Ok(parse_ldd(&text))
}

fn parse_ldd(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    text.lines().filter_map(path).collect()
}

/// Copies modules and what they need, unpacked, and a file `order` that names them in the order to load them.
///
/// # Errors
/// When one cannot be read or unpacked.
pub fn copy_modules(kernel: &Kernel, names: &[&str], to: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    for path in files_below(&kernel.tree)? {
        if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in names {
        load_order(
            name,
            &mut seen,
            &mut |name| {
                // What is not a file is built in, or this kernel has it under another name.
                let Some(path) = files.get(name) else { return Ok(Vec::new()) };
                let bytes = unpack(path)?;
                let file = to.join(format!("{name}.ko"));
                fs::write(&file, &bytes).with_context(|| format!("write {}", file.display()))?;
                Ok(dependencies(&bytes))
            },
            &mut order,
        )?;
    }
    let lines: String =
        order.iter().filter(|name| files.contains_key(*name)).map(|n| format!("{n}.ko\n")).collect();
    fs::write(to.join("order"), lines).context("write the order of modules")
}

/// Depth first: a module comes after all that it needs.
fn load_order(
    name: &str,
    seen: &mut BTreeSet<String>,
    needs: &mut dyn FnMut(&str) -> Result<Vec<String>>,
    order: &mut Vec<String>,
) -> Result<()> {
    if !seen.insert(name.to_owned()) {
        return Ok(());
    }
    for dependency in needs(name)? {
        load_order(&dependency, seen, needs, order)?;
    }
    order.push(name.to_owned());
    Ok(())
}

/// `crc32c_generic` of `…/crc32c-generic.ko.xz`: file names and dependencies mix `-` and `_`.
fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let (stem, rest) = name.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst").then(|| stem.replace('-', "_"))
}

fn unpack(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("read {}", path.display())),
    };
    let output =
        Command::new(tool).args(["-d", "-c", "-q"]).arg(path).output().with_context(|| tool.to_owned())?;
    if !output.status.success() {
        return Err(anyhow!("{tool} -dc {}: {}", path.display(), output.status));
    }
    Ok(output.stdout)
}

/// The `depends=` entry of a module's `.modinfo`, which is a list of NUL-terminated strings.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module.get(at + KEY.len()..).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(value);
    text.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// Removes an archive that has been booted.
pub fn remove(image: &Path) {
    // A leftover costs disk and is written anew by the next run.
    let _ = fs::remove_file(image);
    debug_assert!(image.starts_with(paths::target()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text =
            "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\t/lib64/ld.so.2 (0x7f)\n";
        assert_eq!(parse_ldd(text), [PathBuf::from("/lib/x/libc.so.6"), PathBuf::from("/lib64/ld.so.2")]);
    }

    #[test]
    fn dependencies_are_read_from_modinfo() {
        assert_eq!(
            dependencies(b"ELF\0license=GPL\0depends=jbd2,mbcache,crc-x\0name=ext4\0"),
            ["jbd2", "mbcache", "crc_x"]
        );
        assert!(dependencies(b"ELF\0depends=\0name=loop\0").is_empty());
        assert!(dependencies(b"ELF").is_empty());
    }

    #[test]
    fn modules_load_after_what_they_need() {
        let mut order = Vec::new();
        let mut needs = |name: &str| {
            Ok(match name {
                "ext4" => vec!["jbd2".to_owned(), "crc16".to_owned()],
                "jbd2" => vec!["crc16".to_owned()],
                _ => Vec::new(),
            })
        };
        load_order("ext4", &mut BTreeSet::new(), &mut needs, &mut order).unwrap();
        assert_eq!(order, ["crc16", "jbd2", "ext4"]);
    }

    #[test]
    fn module_names_do_not_depend_on_packing() {
        for file in ["crc32c-generic.ko", "crc32c_generic.ko.xz", "crc32c_generic.ko.zst"] {
            assert_eq!(module_name(Path::new(file)).as_deref(), Some("crc32c_generic"), "{file}");
        }
        assert_eq!(module_name(Path::new("vmlinuz")), None);
    }
}
