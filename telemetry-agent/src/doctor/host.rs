//! The facts of this host that the agent depends on, as files and calls tell them. Judges nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use telemetry_model::Hierarchy;

use crate::attribute::Mounts;
use crate::bpf;
use crate::bpf::privileges::{CapSet, Held};
use crate::config::Config;

/// What was found. A `None` is a file that is not there or may not be read.
#[derive(Clone, Debug)]
pub struct Host {
    /// `uname -r`.
    pub release: Option<String>,
    /// Whether the kernel's type information is there: its size in bytes.
    pub btf: Result<u64, String>,
    /// Whether this binary carries the kernel programs.
    pub has_programs: bool,
    /// The effective capabilities.
    pub capabilities: Option<CapSet>,
    /// `/proc/self/uid_map`: which user namespace this is.
    pub uid_map: Option<String>,
    /// The cgroup hierarchies.
    pub cgroups: Result<Mounts, String>,
    /// The inodes of the hierarchies' roots, as far as they are seen.
    pub cgroup_roots: Vec<(Hierarchy, u64)>,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Option<i64>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<i64>,
    /// `net.core.bpf_jit_enable`.
    pub bpf_jit_enable: Option<i64>,
    /// `/sys/kernel/security/lockdown`.
    pub lockdown: Option<String>,
    /// `/proc/self/schedstat`.
    pub schedstat: Option<String>,
    /// Devices with a request queue whose `iostats` is off.
    pub without_iostats: Vec<String>,
    /// Whether the address can be listened on.
    pub listen: Result<(), io::ErrorKind>,
    /// Whether another process holds the lock in the data directory.
    pub is_locked: bool,
    /// Whether the data directory, or the one it would be made in, can be written to.
    pub data_dir: Result<PathBuf, String>,
    /// `/proc/meminfo`.
    pub meminfo: Option<String>,
    /// `/proc/self/limits`.
    pub limits: Option<String>,
}

// === impl Host ===

impl Host {
    /// Looks at everything once. Leaves nothing behind.
    #[must_use]
    pub fn read(config: &Config) -> Self {
        let cgroups = Mounts::discover(
            &text("/proc/self/mountinfo").unwrap_or_default(),
            &text("/proc/cgroups").unwrap_or_default(),
            &config.attribution.cgroup_root,
        );
        let inode = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.ino());
        let roots = cgroups.as_ref().map(Mounts::mounts).unwrap_or_default();
        Self {
            release: text("/proc/sys/kernel/osrelease"),
            btf: btf(Path::new("/sys/kernel/btf/vmlinux")),
            has_programs: bpf::available(),
            capabilities: Held::read().ok().map(|held| held.effective),
            uid_map: text("/proc/self/uid_map"),
            cgroup_roots: roots
                .iter()
                .filter_map(|mount| Some((mount.hierarchy, inode(&mount.point)?)))
                .collect(),
            cgroups: cgroups.map_err(|error| error.to_string()),
            perf_event_paranoid: number("/proc/sys/kernel/perf_event_paranoid"),
            unprivileged_bpf_disabled: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
            bpf_jit_enable: number("/proc/sys/net/core/bpf_jit_enable"),
            lockdown: text("/sys/kernel/security/lockdown"),
            schedstat: text("/proc/self/schedstat"),
            without_iostats: without_iostats(Path::new("/sys/block")),
            listen: TcpListener::bind(config.listen).map(drop).map_err(|error| error.kind()),
            is_locked: text("/proc/locks")
                .zip(inode(&config.data_dir.join("lock")))
                .is_some_and(|(locks, inode)| is_locked(&locks, inode)),
            data_dir: writable(&config.data_dir),
            meminfo: text("/proc/meminfo"),
            limits: text("/proc/self/limits"),
        }
    }
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

fn number(path: &str) -> Option<i64> {
    text(path)?.parse().ok()
}

/// The size of the kernel's type information, if it begins as it should.
fn btf(path: &Path) -> Result<u64, String> {
    const MAGIC: u16 = 0xeb9f;
    let open = || {
        let mut file = File::open(path)?;
        let mut magic = [0; 2];
        file.read_exact(&mut magic)?;
        io::Result::Ok((u16::from_ne_bytes(magic), file.metadata()?.len()))
    };
    match open() {
        Ok((MAGIC, size)) => Ok(size),
        Ok(_) => Err(format!("{} is no type information", path.display())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(format!("{} is empty", path.display()))
        }
        Err(error) => Err(io_text(path, &error)),
    }
}

/// Devices whose requests carry no time stamps. What has no `mq` directory has no requests to begin with.
fn without_iostats(block: &Path) -> Vec<String> {
    let Ok(devices) = fs::read_dir(block) else { return Vec::new() };
    let mut found: Vec<_> = devices
        .filter_map(Result::ok)
        .filter(|device| device.path().join("mq").is_dir())
        .filter(|device| {
            fs::read_to_string(device.path().join("queue/iostats")).is_ok_and(|on| on.trim() == "0")
        })
        .map(|device| device.file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    found
}

/// Whether `/proc/locks` shows a lock of the whole file, as the agent takes it, on this inode.
/// `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`
fn is_locked(locks: &str, inode: u64) -> bool {
    locks.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next() == Some("FLOCK")
            && fields.nth(3).and_then(|place| place.rsplit(':').next()?.parse().ok()) == Some(inode)
    })
}

/// The directory that exists, this one or the nearest above it, if a file can be made in it.
fn writable(directory: &Path) -> Result<PathBuf, String> {
    let absolute = std::path::absolute(directory).map_err(|error| io_text(directory, &error))?;
    // What exists and is no directory fails below, where a file is made in it.
    let existing =
        absolute.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
    let probe = existing.join(format!(".telemetry-doctor-{}", std::process::id()));
    let made = OpenOptions::new().write(true).create_new(true).open(&probe);
    match made {
        Ok(_) => {
            // A file that could be made a moment ago can be removed.
            let _ = fs::remove_file(&probe);
            Ok(existing.to_owned())
        }
        Err(error) => Err(io_text(existing, &error)),
    }
}

fn io_text(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_can_be_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().join("a/b"), ..Config::default() };
        let host = Host::read(&config);
        assert!(host.release.is_some() && host.meminfo.is_some() && host.limits.is_some(), "{host:?}");
        assert_eq!(host.data_dir.as_deref(), Ok(dir.path()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing may be left behind");
    }

    #[test]
    fn a_port_in_use_is_found() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = Config { listen: taken.local_addr().unwrap(), ..Config::default() };
        assert_eq!(Host::read(&config).listen, Err(io::ErrorKind::AddrInUse));
    }

    #[test]
    fn what_is_no_type_information_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vmlinux");
        for (bytes, expected) in [(b"".as_slice(), "is empty"), (b"ab", "is no type information")] {
            fs::write(&file, bytes).unwrap();
            let error = btf(&file).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        fs::write(&file, 0xeb9f_u16.to_ne_bytes()).unwrap();
        assert_eq!(btf(&file), Ok(2));
        assert!(btf(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn only_devices_with_requests_need_iostats() {
        let dir = tempfile::tempdir().unwrap();
        for (device, has_requests, iostats) in
            [("sda", true, "0\n"), ("sdb", true, "1\n"), ("zram0", false, "0\n"), ("sdc", true, "0\n")]
        {
            fs::create_dir_all(dir.path().join(device).join("queue")).unwrap();
            fs::write(dir.path().join(device).join("queue/iostats"), iostats).unwrap();
            if has_requests {
                fs::create_dir(dir.path().join(device).join("mq")).unwrap();
            }
        }
        assert_eq!(without_iostats(dir.path()), ["sda", "sdc"]);
    }

    #[test]
    fn a_lock_is_found_by_its_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 08:01:111 0 EOF\n2: FLOCK  ADVISORY  WRITE 8 fe:00:222 0 EOF\n\
            2: -> FLOCK  ADVISORY  WRITE 9 fe:00:333 0 EOF\n";
        assert_eq!([111, 222, 333, 22].map(|inode| is_locked(locks, inode)), [false, true, false, false]);
    }

    #[test]
    fn a_lock_of_this_process_is_shown_by_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
        let file = File::create(dir.path().join("lock")).unwrap();
        assert!(!Host::read(&config).is_locked);
        let mut flock = std::process::Command::new("flock");
        // Held by another process, as an agent's would be; it ends when its standard input does.
        flock.args(["--exclusive", "--no-fork"]).arg(dir.path().join("lock")).args(["sh", "-c", "echo; cat"]);
        let mut held =
            flock.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        held.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let is_locked = Host::read(&config).is_locked;
        drop(held.stdin.take());
        held.wait().unwrap();
        drop(file);
        assert!(is_locked);
    }

    #[test]
    fn a_file_in_place_of_the_data_directory_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("below")] {
            assert!(writable(&path).unwrap_err().starts_with(file.to_str().unwrap()));
        }
    }
}
