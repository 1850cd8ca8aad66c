//! A disk whose sync fails once and then lies: the page cache shows what the device does not have.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use telemetry_tests::host::{Skip, eventually, root_test};
use telemetry_tests::loopdev::{FileSystem, LoopDevice, Mount, sparse};
use telemetry_tsdb::fs::{self as store_fs, RealStorage, Storage};

use crate::disk::Held;
use crate::ledger::Ledger;
use crate::writer;

/// A directory on a disk that is whole again as soon as a sync has failed: the next sync of the same file comes back
/// well, though what the failed one should have written is not on the device.
struct Healing {
    inner: RealStorage,
    trigger: PathBuf,
}

struct HealingFile {
    inner: Arc<dyn store_fs::File>,
    trigger: PathBuf,
}

// === impl Healing ===

impl Healing {
    fn file(&self, inner: Arc<dyn store_fs::File>) -> Arc<dyn store_fs::File> {
        Arc::new(HealingFile { inner, trigger: self.trigger.clone() })
    }
}

impl Storage for Healing {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn store_fs::File>> {
        Ok(self.file(self.inner.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn store_fs::File>> {
        Ok(self.file(self.inner.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        heal(self.inner.sync_dir(dir), &self.trigger)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes()
    }
}

/// Heals the disk after an error.
fn heal(result: io::Result<()>, trigger: &Path) -> io::Result<()> {
    if result.is_err() {
        // There is none if the disk is whole.
        let _ = fs::remove_file(trigger);
    }
    result
}

// === impl HealingFile ===

impl store_fs::File for HealingFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        heal(self.inner.sync(), &self.trigger)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}

/// A block device whose writes can be made to fail: nbdkit's error filter, seen as a file through FUSE.
struct Faulty {
    fuse: Child,
    point: tempfile::TempDir,
    trigger: PathBuf,
}

// === impl Faulty ===

impl Faulty {
    fn over(image: &Path) -> Result<Self> {
        for program in ["nbdkit", "nbdfuse", "fusermount3"] {
            let there = Command::new(program).arg("--version").stdout(Stdio::null()).status();
            if !there.is_ok_and(|status| status.success()) {
                return Err(Skip(format!("no {program}")).into());
            }
        }
        let point = tempfile::tempdir()?;
        let (target, trigger) = (point.path().join("disk"), image.with_extension("fail"));
        fs::write(&target, "")?;
        let fuse = Command::new("nbdfuse")
            .arg(&target)
            .args(["--command", "nbdkit", "-s", "--exit-with-parent", "file"])
            .arg(image)
            .args(["--filter=error", "error-pwrite=EIO", "error-pwrite-rate=100%"])
            .arg(format!("error-pwrite-file={}", trigger.display()))
            .stdout(Stdio::null())
            .stderr(File::create(image.with_extension("log"))?)
            .spawn()
            .context("nbdfuse")?;
        let faulty = Self { fuse, point, trigger };
        let len = fs::metadata(image)?.len();
        let served = eventually("nbdfuse serves the image", Duration::from_secs(5), || {
            Ok(fs::metadata(faulty.path()).is_ok_and(|meta| meta.len() == len))
        });
        match served {
            Ok(()) => Ok(faulty),
            Err(error) => {
                let log = fs::read_to_string(image.with_extension("log")).unwrap_or_default();
                Err(Skip(format!("nbdfuse does not work here: {error:#}: {}", log.trim())).into())
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.point.path().join("disk")
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        // They fail only if it is gone already.
        let _ = Command::new("fusermount3").arg("-u").arg(self.path()).status();
        let _ = self.fuse.kill();
        let _ = self.fuse.wait();
    }
}

#[test]
fn a_sync_that_fails_and_then_lies_costs_no_promise() {
    root_test(|| {
        let root = tempfile::tempdir()?;
        let faulty = Faulty::over(&sparse(root.path(), 64 << 20)?)?;
        let device = LoopDevice::over(&faulty.path())?;
        // Without a journal the kernel goes on after an error, and a later sync of the same file says that all is well.
        let mut mount =
            Mount::fresh_with(&device, FileSystem::Ext4, &["-O", "^has_journal"], "errors=continue")?;
        let mut ledger = Ledger::default();
        for round in 0..6 {
            let dir = mount.path().join("tsdb");
            let storage = Healing { inner: writer::hold(&dir)?, trigger: faulty.trigger.clone() };
            let mut held = Held::over(Arc::new(storage), ledger)?;
            held.live(2 * round, 5 + 3 * round, |_, _| Ok(()))?;
            fs::write(&faulty.trigger, "")?;
            held.live(2 * round + 1, 10, |_, _| Ok(()))?;
            ensure!(!faulty.trigger.exists(), "round {round}: no sync failed");
            held.recovers()?;
            // No unmounting in good order, which would write what only the page cache has.
            ledger = held.close();
            mount.shut_down()?;
            mount = mount.again(&device)?;
            let dir = mount.path().join("tsdb");
            ledger.check(&writer::look(&dir, ledger.now())?).with_context(|| format!("round {round}"))?;
        }
        Ok(())
    });
}
