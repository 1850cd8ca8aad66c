//! Cgroups for the length of a test, on machines of either version and of both at once.
//!
//! A container on a hybrid machine has the same path in every hierarchy, so a cgroup here is one path made in the
//! unified hierarchy and in the version 1 hierarchies `cpu` and `blkio`, as far as they are mounted.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Controllers that attribution needs: block I/O takes the nearest ancestor that has `io`, and charges writeback
/// to its writer only where `memory` is on too.
const CONTROLLERS: [&str; 3] = ["+cpu", "+io", "+memory"];
/// How long a cgroup whose last process has ended may still be busy.
const REMOVE_LIMIT: Duration = Duration::from_secs(5);

/// Folders that this process made, so that a parent goes when its last child is gone.
static MADE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Where the hierarchies are mounted.
#[derive(Clone, Debug, Default)]
pub struct Hierarchies {
    /// Version 2.
    pub unified: Option<PathBuf>,
    /// Version 1 with the controller `cpu`.
    pub cpu: Option<PathBuf>,
    /// Version 1 with the controller `blkio`.
    pub blkio: Option<PathBuf>,
    /// Version 1 with the controller `cpuacct`: not joined, only its totals are read.
    pub cpuacct: Option<PathBuf>,
}

/// One path in all of them. Removed when dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: OsString,
    dirs: Vec<PathBuf>,
}

// === impl Hierarchies ===

impl Hierarchies {
    /// Reads the mount table.
    ///
    /// # Errors
    /// If it cannot be read, or no hierarchy is mounted that a process can be put in.
    pub fn find() -> Result<Self> {
        let table = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
        let found = Self::parse(&table);
        if found.joined().is_empty() {
            bail!("no cgroup hierarchy is mounted");
        }
        Ok(found)
    }

    /// Whether block I/O is charged by version 2, where writeback knows its writer.
    #[must_use]
    pub fn writeback_knows_its_writer(&self) -> bool {
        self.unified.is_some() && self.blkio.is_none()
    }

    fn parse(table: &str) -> Self {
        let mut found = Self::default();
        for line in table.lines() {
            let Some((mount, rest)) = line.split_once(" - ") else { continue };
            let Some(point) = mount.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut rest = rest.split(' ');
            let (kind, options) = (rest.next().unwrap_or_default(), rest.nth(1).unwrap_or_default());
            let controls = |name| kind == "cgroup" && options.split(',').any(|option| option == name);
            if kind == "cgroup2" {
                found.unified.get_or_insert(point);
                continue;
            }
            for (name, place) in
                [("cpu", &mut found.cpu), ("blkio", &mut found.blkio), ("cpuacct", &mut found.cpuacct)]
            {
                if controls(name) {
                    place.get_or_insert(point.clone());
                }
            }
        }
        found
    }

    fn joined(&self) -> Vec<&Path> {
        [&self.unified, &self.cpu, &self.blkio].into_iter().flatten().map(PathBuf::as_path).collect()
    }
}

// === impl Cgroup ===

impl Cgroup {
    /// Makes `/telemetry-test-<pid>/<name>`.
    ///
    /// # Errors
    /// If a folder cannot be made.
    pub fn new(name: impl AsRef<OsStr>) -> Result<Self> {
        let mut path = OsString::from(format!("/telemetry-test-{}/", std::process::id()));
        path.push(name);
        Self::at(path)
    }

    /// Makes this path, with the parents it lacks.
    ///
    /// # Errors
    /// If a folder cannot be made.
    pub fn at(path: impl Into<OsString>) -> Result<Self> {
        let path = path.into();
        let mut dirs = Vec::new();
        for root in Hierarchies::find()?.joined() {
            dirs.push(make(root, Path::new(&path))?);
        }
        Ok(Self { path, dirs })
    }

    /// Its path from the root of the hierarchies: the agent's label `unit`, but for what has to be escaped.
    #[must_use]
    pub fn unit(&self) -> String {
        String::from_utf8_lossy(self.path.as_bytes()).into_owned()
    }

    /// Its path, byte by byte.
    #[must_use]
    pub fn path(&self) -> &OsStr {
        &self.path
    }

    /// The files to which a process writes `0` to enter.
    ///
    /// # Errors
    /// If one cannot be opened.
    pub fn doors(&self) -> Result<Vec<File>> {
        let open = |dir: &PathBuf| {
            let door = dir.join("cgroup.procs");
            OpenOptions::new().write(true).open(&door).with_context(|| format!("open {}", door.display()))
        };
        self.dirs.iter().map(open).collect()
    }

    /// The files to which a process writes its number to enter.
    #[must_use]
    pub fn procs(&self) -> Vec<PathBuf> {
        self.dirs.iter().map(|dir| dir.join("cgroup.procs")).collect()
    }

    /// Puts a running process in.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn join(&self, pid: u32) -> Result<()> {
        for dir in &self.dirs {
            fs::write(dir.join("cgroup.procs"), pid.to_string())
                .with_context(|| format!("put {pid} into {}", dir.display()))?;
        }
        Ok(())
    }

    /// Removes it now.
    ///
    /// # Errors
    /// If it stays busy.
    pub fn remove(self) -> Result<()> {
        self.remove_folders()
        // Dropping finds nothing left to do.
    }

    fn remove_folders(&self) -> Result<()> {
        for dir in &self.dirs {
            remove(dir)?;
            // A parent that still has other children stays; the last of them takes it along.
            for parent in dir.ancestors().skip(1).take_while(|parent| made(parent)) {
                if fs::remove_dir(parent).is_err() {
                    break;
                }
                forget(parent);
            }
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A test that failed may leave a process inside; its own failure is the one to report.
        let _ = self.remove_folders();
    }
}

/// A name of raw bytes, for hostile ones.
#[must_use]
pub fn raw_name(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

fn make(root: &Path, path: &Path) -> Result<PathBuf> {
    let mut dir = root.to_owned();
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        enable_controllers(&dir);
        dir.push(name);
        match fs::create_dir(&dir) {
            Ok(()) => {
                MADE.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.clone());
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("make {}", dir.display())),
        }
    }
    Ok(dir)
}

/// Version 2 only. A controller that this kernel or this parent does not have is none the tests can use.
fn enable_controllers(dir: &Path) {
    let file = dir.join("cgroup.subtree_control");
    if file.exists() {
        for controller in CONTROLLERS {
            let _ = fs::write(&file, controller);
        }
    }
}

fn made(dir: &Path) -> bool {
    MADE.lock().unwrap_or_else(PoisonError::into_inner).contains(dir)
}

fn forget(dir: &Path) {
    MADE.lock().unwrap_or_else(PoisonError::into_inner).remove(dir);
}

fn remove(dir: &Path) -> Result<()> {
    let start = Instant::now();
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => break,
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(error) if start.elapsed() > crate::host::scaled(REMOVE_LIMIT) => {
                return Err(error).with_context(|| format!("remove {}", dir.display()));
            }
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
    forget(dir);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_a_hybrid_machine_are_found() {
        let table = "24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            25 24 0:23 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
            26 24 0:24 / /sys/fs/cgroup/cpuacct rw,relatime shared:1 - cgroup cgroup rw,cpuacct\n\
            27 24 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = Hierarchies::parse(table);
        assert_eq!(found.cpu.as_deref(), Some(Path::new("/sys/fs/cgroup/cpu")));
        assert_eq!(found.cpuacct.as_deref(), Some(Path::new("/sys/fs/cgroup/cpuacct")));
        assert_eq!(found.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(found.blkio, None);
    }
}
