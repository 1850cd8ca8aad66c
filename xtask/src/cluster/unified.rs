//! `cargo xtask cluster unified`: a node of pods as today's distributions have it, in a guest: cgroups of version 2
//! alone, made by systemd. This machine's own may be of another kind, and only one system can have them.
//!
//! Debian's systemd, containerd and runc with all that they need, unpacked into the cache and never configured: no
//! package's script runs. The guest boots from a disk of them, runs the cluster suite and ends.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use super::{Driver, IMAGE, SUITE, image, runtime_config};
use crate::apt::Apt;
use crate::build_ebpf::{self, EbpfFeatures};
use crate::kernel::guest::{self, Guest};
use crate::kernel::{self, Programs, initramfs};
use crate::results::Results;
use crate::setup::{self, Need};
use crate::{cache, shell};

/// What the guest is called in results.
const NAME: &str = "unified cluster";
/// The system's place in the cache.
const ENTRY: &str = "cluster/unified";
/// The system of the guest and its kernel: the oldest that is supported.
const RELEASE: &str = "bookworm";
const KERNEL: &str = "6.1";
/// What is unpacked, and all that it depends on.
const PACKAGES: [&str; 6] = ["systemd", "containerd", "runc", "busybox-static", "util-linux", "dash"];
/// Drivers of the disk and its file system, and of containers' file systems.
const MODULES: [&str; 6] = ["virtio_pci", "virtio_blk", "crc32c_generic", "crc32c_intel", "ext4", "overlay"];
/// Folders that Debian has as links into `usr`.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
/// Room for the system, the runtime's state and the agent's store.
const DISK_BYTES: u64 = 2 << 30;
/// Where the node's state is in the guest.
const NODE: &str = "/node";

/// From the initramfs to the disk.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
while read -r m; do /bin/busybox insmod "/mod/$m"; done </mod/order
while ! /bin/busybox test -b /dev/vda; do /bin/busybox usleep 100000; done
/bin/busybox mount -t ext4 /dev/vda /mnt
/bin/busybox mount --move /dev /mnt/dev
/bin/busybox umount /proc
exec /bin/busybox switch_root /mnt /lib/systemd/systemd
"#;

/// Nothing but the runtime and the suite is started.
const TARGET: &str = "[Unit]\nRequires=suite.service\n";
const RUNTIME: &str = "[Unit]
DefaultDependencies=no
[Service]
ExecStart=/usr/bin/containerd --config /etc/containerd.toml
Delegate=yes
KillMode=process
StandardOutput=file:/containerd.log
StandardError=inherit
";
const SUITE_UNIT: &str = "[Unit]
DefaultDependencies=no
Requires=runtime.service
After=runtime.service
[Service]
Type=oneshot
ExecStart=/suite.sh
TimeoutStartSec=infinity
";

/// The lines that `guest` looks for start with its marks. Nodes within nodes make cgroups beside systemd, which the
/// systemd driver does not allow: those tests stay outside.
const SCRIPT: &str = r#"#!/bin/busybox sh
exec >/dev/console 2>&1 </dev/null
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp RUST_BACKTRACE=1
ulimit -n 65536
echo; echo "@BOOT $(uname -r) $(cut -d' ' -f1 /proc/uptime)"
code=1
fail() { echo "$1"; tail -n 20 /containerd.log; }
ip link set lo up
: >/tmp/skips
tries=0
until podlet --socket @NODE@/containerd.sock version >/tmp/version 2>&1 || [ $tries -gt 120 ]; do sleep 1; tries=$((tries+1)); done
if ! grep -q ' /sys/fs/cgroup cgroup2 ' /proc/mounts || grep ' cgroup ' /proc/mounts; then fail "cgroups are not of version 2 alone"
elif ! cat /tmp/version; then fail "no runtime"
elif ! ctr --address @NODE@/containerd.sock --namespace k8s.io images import /image.tar; then fail "no image"
else
    cd /tmp
    export TELEMETRY_AGENT=/usr/bin/telemetry-agent TELEMETRY_SKIPS=/tmp/skips
    export TELEMETRY_NODE=@NODE@ TELEMETRY_PODLET=/usr/bin/podlet TELEMETRY_CGROUP_DRIVER=systemd
    cluster-suite --test-threads=1 --skip nested:: 2>&1
    code=$?
fi
sed 's/^/@SKIP /' /tmp/skips
echo "@EXIT $code $(cut -d' ' -f1 /proc/uptime)"
busybox sync
busybox poweroff -f
"#;

/// Makes the guest, runs the suite in it and says how that went.
///
/// # Errors
/// When something is missing or a test fails.
pub fn unified() -> Result<()> {
    let mut results = Results::default();
    build_ebpf::build_ebpf(&EbpfFeatures::default())?;
    run(&mut results)?;
    results.finish()
}

/// The suite in the guest, where its system is in the cache or `is_full` asks for it.
///
/// # Errors
/// When the emulator cannot be started.
pub fn run_suite(is_full: bool, results: &mut Results) -> Result<()> {
    if !is_full && !cache::dir()?.join(ENTRY).exists() {
        results.skip(NAME, "its guest is not made yet; --full or `cargo xtask cluster unified` does");
        return Ok(());
    }
    if let Err(error) = run(results) {
        results.skip(NAME, &format!("{error:#}").replace('\n', " "));
    }
    Ok(())
}

fn run(results: &mut Results) -> Result<()> {
    if !setup::is_root() {
        bail!("a guest's files are root's, so this needs root");
    }
    kernel::prepare_emulator()?;
    setup::ensure(&[Need::program("protobuf-compiler", "protoc")])?;
    let kernel = kernel::fetch(KERNEL)?;
    let system = system()?;
    let programs = kernel::build_programs(SUITE)?;
    let messages =
        kernel::build_static(&["--package", "telemetry-podlet", "--features", "cri", "--bin", "podlet"])?;
    let podlet = kernel::built(&messages, "bin", "podlet")?;

    let dir = guest::log_dir().join("unified");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let disk = disk(&dir, &system, &programs, &podlet)?;
    let initramfs = dir.join("initramfs");
    let root = dir.join("first");
    for sub in ["bin", "proc", "dev", "mnt", "mod"] {
        fs::create_dir_all(root.join(sub)).with_context(|| format!("create {sub} of the initramfs"))?;
    }
    initramfs::copy(&system.join("usr/bin/busybox"), &root.join("bin/busybox"))?;
    initramfs::copy_modules(&kernel, &MODULES, &root.join("mod"))?;
    initramfs::pack(&root, INIT, &initramfs)?;
    // Standard output of units would stand between the suite's lines.
    let arguments = "systemd.unit=suite.target systemd.show_status=0 systemd.log_level=warning";
    let guest =
        Guest { name: NAME.to_owned(), kernel: &kernel, initramfs: &initramfs, disk: Some(&disk), arguments };
    guest.run(results)?;
    fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))
}

/// The packages' files, in the cache.
fn system() -> Result<PathBuf> {
    cache::entry(ENTRY, |dir| {
        setup::say(format_args!("fetching {} and what they need", PACKAGES.join(" ")));
        let apt_dir = dir.join(".apt");
        let apt = Apt::new(apt_dir.clone());
        apt.update(&[RELEASE])?;
        // As if nothing were installed, so that all is fetched.
        let status = apt_dir.join("status");
        File::create(&status).context("an empty list of what is installed")?;
        let mut download = apt.command("apt-get");
        download
            .arg("-o")
            .arg(format!("Dir::State::status={}", status.display()))
            .args(["-o", "APT::Architecture=amd64", "--yes", "--quiet", "--no-install-recommends"])
            .args(["--download-only", "install"])
            .args(PACKAGES);
        shell::quiet(&mut download)?;
        for name in MERGED {
            fs::create_dir_all(dir.join("usr").join(name)).with_context(|| format!("create usr/{name}"))?;
            symlink(format!("usr/{name}"), dir.join(name)).with_context(|| format!("link {name}"))?;
        }
        let packages = apt_dir.join("cache/archives");
        for file in fs::read_dir(&packages).with_context(|| format!("read {}", packages.display()))? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                // `dpkg-deb --extract` would put folders in the place of the links.
                let unpack = r#"dpkg-deb --fsys-tarfile "$0" | tar --extract --keep-directory-symlink --directory "$1""#;
                shell::quiet(Command::new("sh").args(["-c", unpack]).arg(&path).arg(dir))?;
            }
        }
        fs::remove_dir_all(&apt_dir).context("remove the packages")?;
        for unread in ["usr/share/doc", "usr/share/man", "usr/share/locale"] {
            // What is not there need not go.
            let _ = fs::remove_dir_all(dir.join(unread));
        }
        for needed in ["usr/lib/systemd/systemd", "usr/bin/containerd", "usr/sbin/runc", "usr/bin/busybox"] {
            if !dir.join(needed).is_file() {
                return Err(anyhow!("the packages hold no {needed}"));
            }
        }
        Ok(())
    })
}

/// A disk of the system and the programs under test.
fn disk(dir: &Path, system: &Path, programs: &Programs, podlet: &Path) -> Result<PathBuf> {
    let root = dir.join("root");
    shell::quiet(Command::new("cp").arg("--archive").arg(system).arg(&root))?;
    for sub in ["proc", "sys", "dev", "run", "tmp", "mnt", "var", "etc/systemd/system", "node"] {
        fs::create_dir_all(root.join(sub)).with_context(|| format!("create {sub} in the guest's root"))?;
    }
    for (program, name) in
        [(&*programs.agent, "telemetry-agent"), (&*programs.suite, "cluster-suite"), (podlet, "podlet")]
    {
        initramfs::copy(program, &root.join("usr/bin").join(name))?;
    }
    initramfs::copy(&image::of_busybox(system, IMAGE)?, &root.join("image.tar"))?;
    // busybox as a shell would take its own `unshare`, which knows fewer namespaces.
    let shell = root.join("usr/bin/sh");
    if !shell.exists() {
        symlink("dash", &shell).context("link sh")?;
    }
    // What no package brings is busybox's.
    for applet in shell::quiet(Command::new(system.join("usr/bin/busybox")).arg("--list"))?.lines() {
        let place = root.join("usr/bin").join(applet);
        if !place.exists() && !root.join("usr/sbin").join(applet).exists() {
            symlink("/usr/bin/busybox", &place).with_context(|| format!("link {applet}"))?;
        }
    }
    let files = [
        ("etc/passwd", "root:x:0:0::/tmp:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n".to_owned()),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\n".to_owned()),
        // The runtime gives them to pods.
        ("etc/hosts", "127.0.0.1 localhost\n".to_owned()),
        ("etc/hostname", "guest\n".to_owned()),
        ("etc/resolv.conf", String::new()),
        // Without one the first boot asks who this machine is.
        ("etc/machine-id", format!("{:032x}\n", 1)),
        ("etc/systemd/system/suite.target", TARGET.to_owned()),
        ("etc/systemd/system/runtime.service", RUNTIME.to_owned()),
        ("etc/systemd/system/suite.service", SUITE_UNIT.to_owned()),
        (
            "etc/containerd.toml",
            runtime_config(Path::new(NODE), Path::new("/usr/sbin/runc"), Driver::Systemd),
        ),
    ];
    for (name, text) in files {
        fs::write(root.join(name), text).with_context(|| format!("write {name}"))?;
    }
    initramfs::write_program(&root.join("suite.sh"), &SCRIPT.replace("@NODE@", NODE))?;
    let disk = dir.join("disk");
    File::create(&disk)
        .and_then(|file| file.set_len(DISK_BYTES))
        .with_context(|| format!("create {}", disk.display()))?;
    shell::quiet(Command::new("mkfs.ext4").args(["-q", "-d"]).arg(&root).arg(&disk))?;
    fs::remove_dir_all(&root).context("remove the guest's unpacked root")?;
    Ok(disk)
}
