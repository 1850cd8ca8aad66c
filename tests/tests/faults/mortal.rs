//! A directory whose process dies, as by kill -9, at a chosen operation; and a note of what it was doing.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use telemetry_tsdb::fs::{File, RealStorage, Storage};

/// What the store is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Nothing of the store: the process starts, or the load makes values.
    Idle = 0,
    /// Start-up: files, log, first segment.
    Opening,
    /// A commit: records go to the log.
    Commit,
    /// Housekeeping begins a segment with a checkpoint.
    Checkpoint,
    /// A window goes to a file.
    Flush,
    /// The log is cut.
    Cut,
    /// Files are joined into one.
    Compaction,
    /// The joined files are removed.
    Replacing,
    /// Old files are removed.
    Retention,
}

/// When the process ends itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It does not.
    Never,
    /// At the n-th operation.
    At(u64),
    /// At the n-th operation of a phase.
    In(Phase, u64),
}

/// A directory, and the fate of who writes it.
pub struct Mortal {
    inner: RealStorage,
    fate: Arc<Fate>,
}

/// The fate of a process.
pub struct Fate {
    plan: Plan,
    operations: AtomicU64,
    in_phase: AtomicU64,
    phase: AtomicU8,
    /// Housekeeping is under way, and in it a file was read, or a joined one made.
    is_keeping: AtomicU8,
    /// Where the phase is left for whoever asks after the death.
    note: Option<std::fs::File>,
}

struct MortalFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    fate: Arc<Fate>,
}

const KEEPING: u8 = 1;
const READ: u8 = 2;
const JOINED: u8 = 4;

// === impl Phase ===

impl Phase {
    /// All that a process can die in.
    pub const ALL: [Self; 9] = [
        Self::Idle,
        Self::Opening,
        Self::Commit,
        Self::Checkpoint,
        Self::Flush,
        Self::Cut,
        Self::Compaction,
        Self::Replacing,
        Self::Retention,
    ];

    /// By its number.
    pub fn of(number: u8) -> Self {
        Self::ALL.into_iter().find(|phase| *phase as u8 == number).unwrap_or(Self::Idle)
    }
}

// === impl Plan ===

impl Plan {
    /// As a word.
    pub fn word(self) -> String {
        match self {
            Self::Never => "never".into(),
            Self::At(n) => format!("at-{n}"),
            Self::In(phase, n) => format!("in-{}-{n}", phase as u8),
        }
    }

    /// From its word.
    pub fn parse(word: &str) -> Option<Self> {
        let parts: Vec<&str> = word.split('-').collect();
        match *parts.as_slice() {
            ["never"] => Some(Self::Never),
            ["at", n] => Some(Self::At(n.parse().ok()?)),
            ["in", phase, n] => Some(Self::In(Phase::of(phase.parse().ok()?), n.parse().ok()?)),
            _ => None,
        }
    }
}

// === impl Fate ===

impl Fate {
    /// A fate, noted in a file.
    pub fn new(plan: Plan, note: Option<&Path>) -> io::Result<Arc<Self>> {
        let note = match note {
            Some(path) => Some(OpenOptions::new().create(true).truncate(false).write(true).open(path)?),
            None => None,
        };
        let fate = Self {
            plan,
            operations: AtomicU64::new(0),
            in_phase: AtomicU64::new(0),
            phase: AtomicU8::new(u8::MAX),
            is_keeping: AtomicU8::new(0),
            note,
        };
        fate.enter(Phase::Idle);
        Ok(Arc::new(fate))
    }

    /// The process is at something else now.
    pub fn enter(&self, phase: Phase) {
        if self.phase.swap(phase as u8, Ordering::Relaxed) != phase as u8
            && let Some(note) = &self.note
        {
            // Without the note a death is counted as one of the phase before; nothing else hangs on it.
            let _ = note.write_all_at(&[phase as u8], 0);
        }
    }

    /// Housekeeping begins or ends.
    pub fn keep_house(&self, begins: bool) {
        self.is_keeping.store(if begins { KEEPING } else { 0 }, Ordering::Relaxed);
        self.enter(Phase::Idle);
    }

    fn keeping(&self, flag: u8) -> bool {
        self.is_keeping.load(Ordering::Relaxed) & flag != 0
    }

    fn is_opening(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == Phase::Opening as u8
    }

    /// Housekeeping read a file: what it writes next is a joined one.
    fn reads(&self, path: &Path) {
        if self.keeping(KEEPING) && !self.is_opening() && is_block(path) {
            self.is_keeping.fetch_or(READ, Ordering::Relaxed);
        }
    }

    /// Counts a change of the disk that is about to happen. True: it is the last one.
    fn is_last(&self, phase: Phase) -> bool {
        let phase = if self.is_opening() { Phase::Opening } else { phase };
        self.enter(phase);
        let all = self.operations.fetch_add(1, Ordering::Relaxed) + 1;
        match self.plan {
            Plan::Never => false,
            Plan::At(n) => all >= n,
            Plan::In(of, n) => of == phase && self.in_phase.fetch_add(1, Ordering::Relaxed) + 1 >= n,
        }
    }

    fn step(&self, phase: Phase) {
        if self.is_last(phase) {
            telemetry_tests::own::kill();
        }
    }

    fn phase_of(&self, path: &Path) -> Phase {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("seg") if self.keeping(KEEPING) => Phase::Checkpoint,
            Some("seg") => Phase::Commit,
            _ if self.keeping(READ) => Phase::Compaction,
            _ => Phase::Flush,
        }
    }
}

fn is_block(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "blk")
}

// === impl Mortal ===

impl Mortal {
    /// A directory whose holder dies by `fate`.
    pub fn new(inner: RealStorage, fate: Arc<Fate>) -> Self {
        Self { inner, fate }
    }

    fn file(&self, path: &Path, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(MortalFile { inner, path: path.to_owned(), fate: Arc::clone(&self.fate) })
    }
}

impl Storage for Mortal {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.fate.step(self.fate.phase_of(path));
        Ok(self.file(path, self.inner.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.file(path, self.inner.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let phase = self.fate.phase_of(from);
        self.fate.step(phase);
        self.inner.rename(from, to)?;
        self.fate.is_keeping.fetch_and(!(READ | JOINED), Ordering::Relaxed);
        if phase == Phase::Compaction {
            self.fate.is_keeping.fetch_or(JOINED, Ordering::Relaxed);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let phase = match path.extension().and_then(|extension| extension.to_str()) {
            Some("seg") => Phase::Cut,
            Some("blk") if self.fate.keeping(JOINED) => Phase::Replacing,
            Some("blk") => Phase::Retention,
            // A writer of files clears its place first.
            _ => self.fate.phase_of(path),
        };
        self.fate.step(phase);
        self.inner.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.fate.step(Phase::of(self.fate.phase.load(Ordering::Relaxed)));
        self.inner.sync_dir(dir)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes()
    }
}

// === impl MortalFile ===

impl File for MortalFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.fate.is_last(self.fate.phase_of(&self.path)) {
            // Every other one of them dies in the middle of it.
            if bytes.len().is_multiple_of(2) {
                self.inner.write_at(&bytes[..bytes.len() / 2], offset)?;
            }
            telemetry_tests::own::kill();
        }
        self.inner.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.fate.reads(&self.path);
        self.inner.read_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.fate.step(self.fate.phase_of(&self.path));
        self.inner.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}
