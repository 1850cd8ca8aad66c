//! Where framed records are: a fjall database, or memory where no directory was given. Knows no frame and no limit.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::io::ErrorKind;
use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};

use fjall::config::CompressionPolicy;
use fjall::{Database, Keyspace as Tree, KeyspaceCreateOptions, PersistMode, Readable as _};

/// Blocks of tables that are kept in memory.
const CACHE_BYTES: u64 = 4 << 20;
/// Records of one keyspace that wait in memory for a table.
const MEMTABLE_BYTES: u64 = 4 << 20;
/// All journals together: the least that fjall accepts.
const JOURNALS_BYTES: u64 = 64 << 20;
/// Tables held open. Ten is the least that fjall accepts.
const FILES_MAX: usize = 16;
/// Blocks that cannot be read, in one scan, before it ends.
const FAULTS_MAX: usize = 1024;
/// A sequence number that no state lives to see: a thousand batches a second for three thousand years.
const SEQUENCE_MAX: u64 = 100 << 40;

/// Keys and framed records by keyspace.
pub(super) enum Backend {
    Memory(RwLock<Tables>),
    Disk(Disk),
}

/// Keyspaces in memory.
pub(super) type Tables = BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>>;

/// A fjall database.
pub(super) struct Disk {
    // Before the database: its end waits for the worker, which holds what these hold.
    trees: Mutex<BTreeMap<&'static str, Tree>>,
    database: Database,
}

/// One change of a batch; no value removes.
pub(super) struct Change {
    pub table: &'static str,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// Which way a scan goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

/// Why the database did not do what it was asked for.
#[derive(Debug)]
pub(super) enum Fault {
    /// Another process has it.
    Locked,
    /// The system refuses: no room, no right. What is on disk is not at fault.
    System(String),
    /// What is on disk cannot be read, or the database gave up.
    Damage(String),
}

/// One entry of a scan: key and framed record.
pub(super) type Entry<'a> = Result<(&'a [u8], &'a [u8]), Fault>;
/// From where to where a scan goes.
pub(super) type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

// === impl Backend ===

impl Backend {
    pub(super) fn memory() -> Self {
        Self::Memory(RwLock::default())
    }

    pub(super) fn get(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        match self {
            Self::Memory(tables) => {
                let tables = tables.read().unwrap_or_else(PoisonError::into_inner);
                Ok(tables.get(table).and_then(|table| table.get(key)).cloned())
            }
            Self::Disk(disk) => match disk.tree(table)? {
                Some(tree) => Ok(caught(|| tree.get(key))?.map(|value| value.to_vec())),
                None => Ok(None),
            },
        }
    }

    /// Makes all changes or none, and brings them to disk.
    pub(super) fn apply(&self, changes: Vec<Change>) -> Result<(), Fault> {
        match self {
            Self::Memory(tables) => {
                let mut tables = tables.write().unwrap_or_else(PoisonError::into_inner);
                for Change { table, key, value } in changes {
                    let table = tables.entry(table).or_default();
                    match value {
                        Some(value) => table.insert(key, value),
                        None => table.remove(&key),
                    };
                }
                Ok(())
            }
            Self::Disk(disk) => disk.apply(changes),
        }
    }

    /// Shows each entry of a range as of one moment. What cannot be read is shown as such, and the scan goes on.
    pub(super) fn scan(
        &self,
        table: &'static str,
        range: Range<'_>,
        way: Way,
        visit: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        match self {
            Self::Memory(tables) => {
                let tables = tables.read().unwrap_or_else(PoisonError::into_inner);
                let Some(table) = tables.get(table) else { return Ok(()) };
                let mut entries = table.range::<[u8], _>(range);
                while let Some((key, value)) = match way {
                    Way::Up => entries.next(),
                    Way::Down => entries.next_back(),
                } {
                    if visit(Ok((key, value))).is_break() {
                        break;
                    }
                }
                Ok(())
            }
            Self::Disk(disk) => disk.scan(table, range, way, visit),
        }
    }
}

// === impl Disk ===

impl Disk {
    /// Opens the database, or makes one. The worker thread starts here.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let database = caught(|| {
            Database::builder(path)
                .cache_size(CACHE_BYTES)
                .max_journaling_size(JOURNALS_BYTES)
                .max_cached_files(Some(FILES_MAX))
                .worker_threads(1)
                .open()
        })?;
        Ok(Self { trees: Mutex::default(), database })
    }

    /// Whether a damaged sequence number was taken over: it counts up from there, and panics at 2^63.
    pub(super) fn is_exhausted(&self) -> bool {
        self.database.seqno() > SEQUENCE_MAX
    }

    /// A keyspace that is there.
    fn tree(&self, table: &'static str) -> Result<Option<Tree>, Fault> {
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = trees.get(table) {
            return Ok(Some(tree.clone()));
        }
        if !caught(|| Ok(self.database.keyspace_exists(table)))? {
            return Ok(None);
        }
        let tree = caught(|| self.database.keyspace(table, options))?;
        trees.insert(table, tree.clone());
        Ok(Some(tree))
    }

    /// A keyspace, made if it is not there.
    fn made(&self, table: &'static str) -> Result<Tree, Fault> {
        if let Some(tree) = self.tree(table)? {
            return Ok(tree);
        }
        let tree = caught(|| self.database.keyspace(table, options))?;
        self.trees.lock().unwrap_or_else(PoisonError::into_inner).insert(table, tree.clone());
        Ok(tree)
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), Fault> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for Change { table, key, value } in changes {
            let tree = self.made(table)?;
            match value {
                Some(value) => batch.insert(&tree, key, value),
                None => batch.remove(&tree, key),
            }
        }
        caught(|| batch.commit())
    }

    fn scan(
        &self,
        table: &'static str,
        range: Range<'_>,
        way: Way,
        visit: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let Some(tree) = self.tree(table)? else { return Ok(()) };
        let mut entries = caught(|| Ok(self.database.snapshot().range::<&[u8], _>(&tree, range)))?;
        let mut faults = 0;
        loop {
            let entry = caught(|| {
                let next = match way {
                    Way::Up => entries.next(),
                    Way::Down => entries.next_back(),
                };
                next.map(fjall::Guard::into_inner).transpose()
            });
            let shown = match &entry {
                Ok(None) => return Ok(()),
                Ok(Some((key, value))) => visit(Ok((key, value))),
                Err(_) if faults >= FAULTS_MAX => return entry.map(drop),
                Err(fault) => {
                    faults += 1;
                    visit(Err(Fault::Damage(fault.to_string())))
                }
            };
            if shown.is_break() {
                return Ok(());
            }
        }
    }
}

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        // Records are small and read one by one; fjall is built without a compressor.
        .data_block_compression_policy(CompressionPolicy::disabled())
        .index_block_compression_policy(CompressionPolicy::disabled())
}

/// Runs an operation of the database. It may answer damage by a panic: that is an error like any other.
fn caught<T>(operation: impl FnOnce() -> fjall::Result<T>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(operation)) {
        Ok(result) => result.map_err(Fault::from),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(Fault::Damage(format!("panic: {text}")))
        }
    }
}

// === impl Fault ===

impl From<fjall::Error> for Fault {
    fn from(error: fjall::Error) -> Self {
        if matches!(error, fjall::Error::Locked) {
            return Self::Locked;
        }
        let mut source: Option<&(dyn StdError + 'static)> = Some(&error);
        while let Some(cause) = source {
            if cause.downcast_ref::<std::io::Error>().is_some_and(is_of_the_system) {
                return Self::System(cause.to_string());
            }
            source = cause.source();
        }
        Self::Damage(error.to_string())
    }
}

/// Whether an error speaks of the system and not of the bytes.
fn is_of_the_system(error: &std::io::Error) -> bool {
    let of_process = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    let of_system = matches!(
        error.kind(),
        ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::OutOfMemory
            | ErrorKind::Interrupted
    );
    of_process || of_system
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("another process has it"),
            Self::System(reason) | Self::Damage(reason) => f.write_str(reason),
        }
    }
}
