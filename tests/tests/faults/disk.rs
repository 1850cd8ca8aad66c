//! Disks that are full or read-only, and two holders of one directory.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use telemetry_tests::host::root_test;
use telemetry_tests::loopdev::{FileSystem, LoopDevice, Mount, sparse};
use telemetry_tsdb::db::{Db, Mode, Work};
use telemetry_tsdb::fs::sim::SimClock;
use telemetry_tsdb::fs::{Clock as _, RealStorage, Storage};

use crate::ledger::{Ledger, Note};
use crate::load::{Load, START, config};
use crate::writer;

/// From room to recovery, on the store's clock; housekeeping is called every five seconds, as the agent does.
const RECOVERY_LIMIT_MS: i64 = 30_000;
const CALL_EVERY_MS: i64 = 5000;

/// A store of this very process, and its books.
pub struct Held {
    db: Db,
    clock: Arc<SimClock>,
    ledger: Ledger,
}

// === impl Held ===

impl Held {
    fn open(dir: &Path, ledger: Ledger) -> Result<Self> {
        Self::over(Arc::new(writer::hold(dir)?), ledger)
    }

    /// Opens a store on some disk.
    pub fn over(storage: Arc<dyn Storage>, mut ledger: Ledger) -> Result<Self> {
        let clock = Arc::new(SimClock::at(ledger.now().max(START)));
        let (db, _) = Db::open(config(), storage, clock.clone())?;
        ledger.take(Note::Open { durable: db.durable_through() });
        Ok(Self { db, clock, ledger })
    }

    /// A life of so many ticks, one step at a time.
    pub fn live(
        &mut self,
        life: u64,
        ticks: u64,
        mut each: impl FnMut(u64, &Db) -> Result<()>,
    ) -> Result<()> {
        let Self { db, clock, ledger } = self;
        let now = ledger.now().max(START);
        let mut witness = |notes: &[Note]| {
            // The store was not opened again: what it promised it still owes.
            let news = notes.iter().filter(|note| !matches!(note, Note::Open { .. }));
            news.cloned().for_each(|note| ledger.take(note));
            Ok(())
        };
        let mut load = Load::new(db, clock, life, now, &mut witness)?;
        for tick in 0..ticks {
            each(tick, db)?;
            load.tick(&mut witness, &|_| {})?;
        }
        Ok(())
    }

    /// Lets go of the store and keeps its books.
    pub fn close(self) -> Ledger {
        self.ledger
    }

    /// Calls housekeeping as an agent does that has nothing to record, until the disk is taken up again.
    pub fn recovers(&self) -> Result<()> {
        let from = self.clock.now_ms();
        while self.clock.now_ms() - from <= RECOVERY_LIMIT_MS {
            self.clock.set(self.clock.now_ms() + CALL_EVERY_MS);
            while !matches!(self.db.maintain(), Work::Nothing | Work::Failed) {}
            if self.db.mode() == Mode::Durable {
                return Ok(());
            }
        }
        anyhow::bail!("{:?} after {RECOVERY_LIMIT_MS} ms: {}", self.db.mode(), self.db.health().reason())
    }
}

/// Takes all the room there is but for so many bytes.
pub fn fill(path: &Path, left: usize) -> Result<()> {
    let mut file = File::create(path)?;
    let chunk = vec![0x5A; 4096];
    while file.write_all(&chunk).is_ok() {}
    let len = file.metadata()?.len();
    Ok(file.set_len(len.saturating_sub(left as u64))?)
}

/// Files that an attempt left which came to nothing: half of a window, segments without a record.
fn leftovers(dir: &Path) -> usize {
    let files = |of: &str| fs::read_dir(dir.join(of)).into_iter().flatten().flatten();
    let halves = files("blocks").filter(|file| file.path().extension().is_some_and(|of| of == "tmp"));
    let empty = files("log").filter(|file| file.metadata().is_ok_and(|meta| meta.len() == 0));
    halves.count() + empty.count()
}

#[test]
fn a_full_disk_costs_no_promise_and_is_taken_up_again() {
    root_test(|| {
        let mount = Mount::tmpfs(8 << 10)?;
        let (dir, filler) = (mount.path().join("tsdb"), mount.path().join("filler"));
        let mut held = Held::open(&dir, Ledger::default())?;
        let mut degraded = 0;
        for round in 0..12_u64 {
            held.live(2 * round, 30, |_, _| Ok(()))?;
            // Full to the last byte, or at some point of what is written next.
            fill(&filler, [0, 4096, 8192, 12_288][(round % 4) as usize])?;
            let mut was_degraded = false;
            held.live(2 * round + 1, 10 + 20 * round, |_, db| {
                was_degraded |= db.mode() == Mode::Degraded;
                let left = leftovers(&dir);
                ensure!(left <= 1, "round {round}: {left} files that are good for nothing");
                Ok(())
            })?;
            degraded += u32::from(was_degraded);
            held.ledger.check(&held.db).with_context(|| format!("round {round}, full"))?;
            fs::remove_file(&filler)?;
            held.recovers().with_context(|| format!("round {round}"))?;
            let Held { db, ledger, .. } = held;
            drop(db);
            held = Held::open(&dir, ledger)?;
            held.ledger.check(&held.db).with_context(|| format!("round {round}, opened again"))?;
        }
        ensure!(degraded >= 8, "the disk was full in {degraded} rounds only");
        Ok(())
    });
}

#[test]
fn a_disk_without_inodes_costs_no_promise_and_is_taken_up_again() {
    root_test(|| {
        let mount = Mount::tmpfs_of("size=64m,nr_inodes=64")?;
        let dir = mount.path().join("tsdb");
        let mut held = Held::open(&dir, Ledger::default())?;
        held.live(0, 30, |_, _| Ok(()))?;
        let fillers: Vec<_> = (0..64).map(|at| mount.path().join(format!("filler-{at}"))).collect();
        fillers.iter().take_while(|path| File::create(path).is_ok()).count();
        let mut was_degraded = false;
        held.live(1, 60, |_, db| {
            was_degraded |= db.mode() == Mode::Degraded;
            Ok(())
        })?;
        ensure!(was_degraded, "there were inodes left");
        fillers.iter().for_each(|path| drop(fs::remove_file(path)));
        held.recovers()?;
        let Held { db, mut ledger, .. } = held;
        drop(db);
        ledger.check(&writer::open(&dir, ledger.now())?).map(drop)
    });
}

/// A kernel that meets an error in a file system takes writing away from it, under open files.
#[test]
fn a_disk_that_turns_read_only_costs_no_promise() {
    root_test(|| {
        let root = tempfile::tempdir()?;
        let device = LoopDevice::over(&sparse(root.path(), 64 << 20)?)?;
        let mount = Mount::fresh_with(&device, FileSystem::Ext4, &[], "errors=remount-ro")?;
        let mut held = Held::open(&mount.path().join("tsdb"), Ledger::default())?;
        held.live(0, 30, |_, _| Ok(()))?;
        fs::write(format!("/sys/fs/ext4/{}/trigger_fs_error", device.name()), "a test").context("sysfs")?;
        held.live(1, 60, |_, _| Ok(()))?;
        ensure!(held.db.mode() == Mode::Degraded, "{:?} on a read-only disk", held.db.mode());
        held.ledger.check(&held.db).context("from memory")?;
        let Held { db, mut ledger, .. } = held;
        drop(db);
        let mount = mount.again(&device)?;
        let dir = mount.path().join("tsdb");
        ledger.check(&writer::open(&dir, ledger.now())?).context("mounted again")?;
        // A store on a disk that nobody may write is not taken for one that can be written, and can be read.
        mount.set_read_only()?;
        let refused = RealStorage::open(&dir).map(drop);
        ensure!(
            refused.is_err_and(|error| error.kind() == std::io::ErrorKind::ReadOnlyFilesystem),
            "a holder of a read-only directory"
        );
        let storage = Arc::new(RealStorage::open_unlocked(&dir)?);
        let (db, _) = Db::open_read_only(config(), storage, Arc::new(SimClock::at(ledger.now())))?;
        ledger.check(&db).context("read-only").map(drop)
    });
}

#[test]
fn a_directory_has_one_holder_and_the_lock_goes_with_its_death() -> Result<()> {
    let root = tempfile::tempdir()?;
    let dir = root.path().join("tsdb");
    let life = writer::Life {
        dir: dir.clone(),
        life: 0,
        now: START,
        ticks: 100_000,
        plan: crate::mortal::Plan::Never,
        note: root.path().join("phase"),
    };
    let mut ledger = Ledger::default();
    let mut running = life.start()?;
    running.follow(&mut ledger, |note| *note == Note::Acknowledged)?;
    let second = RealStorage::open(&dir).map(drop);
    ensure!(second.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "a second holder");
    running.end_after(Duration::ZERO, writer::Death::Kill, &mut ledger)?;
    ensure!(dir.join("lock").exists(), "the file stays, and locks nobody out");
    ledger.check(&writer::open(&dir, ledger.now())?).map(drop)
}
