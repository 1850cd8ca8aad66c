//! Block devices for the length of a test: a file behind a loop device, with or without a file system on it.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

// include/uapi/linux/loop.h
const LOOP_SET_FD: libc::Ioctl = 0x4C00;
const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
// EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are one number: _IOR('X', 125, __u32).
const SHUT_DOWN: libc::Ioctl = 0x8004_587D;
/// Without writing the file system's log out first: what was not synced is gone.
const NO_LOG_FLUSH: u32 = 2;

/// A loop device. Taken down when dropped.
#[derive(Debug)]
pub struct LoopDevice {
    device: File,
    name: String,
}

/// What is on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// XFS; its devices have 300 MiB at least.
    Xfs,
}

/// A mounted file system. Unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    point: TempDir,
    kind: &'static str,
}

// === impl FileSystem ===

impl FileSystem {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

// === impl LoopDevice ===

impl LoopDevice {
    /// Puts `file` behind a free loop device.
    ///
    /// # Errors
    /// If the kernel has no loop devices, or refuses.
    pub fn over(file: &Path) -> Result<Self> {
        let backing = OpenOptions::new().read(true).write(true).open(file).context("backing file")?;
        let Ok(control) = OpenOptions::new().read(true).write(true).open("/dev/loop-control") else {
            return Err(crate::host::kernel_lacks("loop devices"));
        };
        // Another process may take the free device between the two calls; then the next one is tried.
        for _ in 0..16 {
            // SAFETY: this request takes no argument.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(io::Error::last_os_error()).context("find a free loop device");
            }
            let name = format!("loop{number}");
            let path = format!("/dev/{name}");
            crate::host::eventually("the device node is there", Duration::from_secs(2), || {
                Ok(Path::new(&path).exists())
            })?;
            let device = OpenOptions::new().read(true).write(true).open(&path).context(path)?;
            // SAFETY: this request takes a descriptor by value, and `backing` is open.
            if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD, backing.as_raw_fd()) } == 0 {
                return Ok(Self { device, name });
            }
        }
        bail!("no loop device could be taken: {}", io::Error::last_os_error())
    }

    /// Its name, e.g. `loop0`: the agent's label `device`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its node.
    #[must_use]
    pub fn node(&self) -> String {
        format!("/dev/{}", self.name)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // SAFETY: this request takes no argument. It fails only if the device is down already.
        let _ = unsafe { libc::ioctl(self.device.as_raw_fd(), LOOP_CLR_FD) };
    }
}

// === impl Mount ===

impl Mount {
    /// A fresh ext4 on a device, mounted.
    ///
    /// # Errors
    /// If it cannot be made or mounted.
    pub fn ext4(device: &LoopDevice) -> Result<Self> {
        Self::fresh(device, FileSystem::Ext4)
    }

    /// A fresh file system on a device, mounted.
    ///
    /// # Errors
    /// If it cannot be made or mounted, or the kernel does not know it.
    pub fn fresh(device: &LoopDevice, kind: FileSystem) -> Result<Self> {
        Self::fresh_with(device, kind, &[], "")
    }

    /// The same, with further arguments to what makes it and options of the mount.
    ///
    /// # Errors
    /// As [`Mount::fresh`].
    pub fn fresh_with(
        device: &LoopDevice,
        kind: FileSystem,
        arguments: &[&str],
        options: &str,
    ) -> Result<Self> {
        let name = kind.name();
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if !known.lines().any(|line| line.split_whitespace().next_back() == Some(name)) && !module_loads(name)
        {
            return Err(crate::host::kernel_lacks(name));
        }
        let program = format!("mkfs.{name}");
        let force = if kind == FileSystem::Xfs { "-f" } else { "-F" };
        let output = Command::new(&program)
            .args(["-q", force])
            .args(arguments)
            .arg(device.node())
            .output()
            .context(program.clone())?;
        if !output.status.success() {
            bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Self::new(&device.node(), name, options)
    }

    /// Cuts the power: nothing that was not synced gets to the device any more, and every call fails.
    ///
    /// # Errors
    /// If the file system cannot do it.
    pub fn shut_down(&self) -> Result<()> {
        let root = File::open(self.path()).context("mount point")?;
        let how = NO_LOG_FLUSH;
        // SAFETY: this request reads one number, which outlives the call, and the descriptor is open.
        if unsafe { libc::ioctl(root.as_raw_fd(), SHUT_DOWN, &raw const how) } != 0 {
            return Err(io::Error::last_os_error()).context("shut the file system down");
        }
        Ok(())
    }

    /// The power comes back: unmounts it and mounts what is on the device.
    ///
    /// # Errors
    /// If somebody still has a file of it open, or what is on the device cannot be mounted.
    pub fn again(self, device: &LoopDevice) -> Result<Self> {
        let target = CString::new(self.point.path().as_os_str().as_bytes())?;
        // A process that another test starts at this moment has our files until it runs its program.
        crate::host::eventually("nobody has a file open there", Duration::from_secs(5), || {
            // SAFETY: a string with an end that outlives the call.
            if unsafe { libc::umount2(target.as_ptr(), 0) } == 0 {
                return Ok(true);
            }
            match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
                error => Err(error).context("unmount"),
            }
        })?;
        // Dropping it unmounts once more, which fails: nothing is mounted there.
        Self::new(&device.node(), self.kind, "")
    }

    /// Takes the right to write away.
    ///
    /// # Errors
    /// If the kernel refuses, as it does while somebody has a file open to write it.
    pub fn set_read_only(&self) -> Result<()> {
        let target = CString::new(self.point.path().as_os_str().as_bytes())?;
        let flags = libc::MS_REMOUNT | libc::MS_RDONLY;
        // SAFETY: a string with an end that outlives the call; a remount takes neither source nor kind nor options.
        let result = unsafe {
            libc::mount(std::ptr::null(), target.as_ptr(), std::ptr::null(), flags, std::ptr::null())
        };
        if result != 0 {
            return Err(io::Error::last_os_error()).context("remount");
        }
        Ok(())
    }

    /// A file system in memory that holds no more than `kib`.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub fn tmpfs(kib: u32) -> Result<Self> {
        Self::new("tmpfs", "tmpfs", &format!("size={kib}k"))
    }

    /// A file system in memory with these options of tmpfs.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub fn tmpfs_of(options: &str) -> Result<Self> {
        Self::new("tmpfs", "tmpfs", options)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.point.path()
    }

    fn new(source: &str, kind: &'static str, options: &str) -> Result<Self> {
        let point = tempfile::tempdir()?;
        let target = CString::new(point.path().as_os_str().as_bytes())?;
        let (source, name, options) = (CString::new(source)?, CString::new(kind)?, CString::new(options)?);
        // SAFETY: all four are strings with an end that outlive the call.
        let result = unsafe {
            libc::mount(source.as_ptr(), target.as_ptr(), name.as_ptr(), 0, options.as_ptr().cast())
        };
        if result != 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("mount {kind}"));
        }
        Ok(Self { point, kind })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Ok(target) = CString::new(self.point.path().as_os_str().as_bytes()) {
            // SAFETY: a string with an end. Detached at once: whoever still holds a file in it may finish.
            let _ = unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

/// Whether the kernel learns a file system when asked; it has it built in, as a module, or not at all.
fn module_loads(name: &str) -> bool {
    Command::new("modprobe").arg(name).output().is_ok_and(|output| output.status.success())
}

/// A sparse file of this many bytes.
///
/// # Errors
/// If it cannot be made.
pub fn sparse(dir: &Path, bytes: u64) -> Result<PathBuf> {
    let path = dir.join("disk.img");
    File::create(&path)?.set_len(bytes)?;
    Ok(path)
}

/// Whether a device keeps the times of its requests; without them there is no time in its queue to speak of.
#[must_use]
pub fn keeps_times(device: &LoopDevice) -> bool {
    let path = format!("/sys/block/{}/queue/iostats", device.name());
    fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
}
