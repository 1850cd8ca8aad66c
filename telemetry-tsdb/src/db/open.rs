//! Opening a store: files first, then the log, then the first new segment.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, Mutex, RwLock};

use arc_swap::ArcSwap;

use super::maintain::{DAY_MS, House};
use super::writer::Writer;
use super::{Config, Db, Error, Health, Mode};
use crate::block::{self, Block, BlockMeta, Damage};
use crate::fs::{Clock, DAMAGED_DIR, Storage};
use crate::head::{LateSamples, window_of};
use crate::index::{HeadIndex, Owners};
use crate::wire::Reader;

/// No file has more: those of a day are joined, and no more than those.
const FILE_RANGE_MAX_MS: i64 = 2 * DAY_MS;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct OpenReport {
    /// Files that are served.
    pub blocks: usize,
    /// Files that could not be read and were moved aside, each with the reason.
    pub damaged: Vec<(PathBuf, String)>,
    /// What the log held.
    pub log: crate::log::Report,
    /// Samples taken from the log.
    pub replayed_samples: u64,
    /// Samples that damage in the log took.
    pub lost_samples: u64,
}

// === impl Db ===

impl Db {
    /// A store without a disk: the head and nothing else, within the same limits.
    #[must_use]
    pub fn in_memory(config: Config, clock: Arc<dyn Clock>) -> Self {
        Self::new(config, None, clock, Mode::MemoryOnly)
    }

    /// Opens a store, or makes one. What is damaged is moved aside, named and counted; the rest is served.
    ///
    /// # Errors
    /// If the directory cannot be read or written at all.
    pub fn open(
        config: Config,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, OpenReport), Error> {
        Self::open_as(config, storage, clock, Mode::Durable)
    }

    /// Opens a store to be read: nothing on disk is changed.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn open_read_only(
        config: Config,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, OpenReport), Error> {
        Self::open_as(config, storage, clock, Mode::ReadOnly)
    }

    fn open_as(
        config: Config,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        mode: Mode,
    ) -> Result<(Self, OpenReport), Error> {
        let db = Self::new(config, Some(Arc::clone(&storage)), clock, mode);
        let mut report = OpenReport::default();
        db.open_blocks(&*storage, &mut report)?;
        let io = |source| Error::Io { operation: "read the log".into(), source };
        db.replay(&*storage, &mut report).map_err(io)?;
        if mode != Mode::ReadOnly {
            db.find_reserve(&*storage);
            db.take_up_log(&*storage, &report.log)?;
        }
        Ok((db, report))
    }

    /// Makes what the log held durable, whoever wrote it, and begins to write. A full disk is no reason not to start:
    /// then the store is degraded until there is room.
    fn take_up_log(&self, storage: &dyn Storage, found: &crate::log::Report) -> Result<(), Error> {
        let mut writer = self.writer();
        writer.found = found.clone();
        writer.found_through = writer.newest;
        let synced = crate::log::sync(storage);
        let begun = self.begin_log(&mut writer, found.next_sequence).and_then(|()| match &synced {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "the log of the last process cannot be synced: it is written again");
                writer.unsynced_from = i64::MIN;
                self.log_again(&mut writer)
            }
        });
        match begun {
            Ok(()) => {
                writer.unsynced_from = i64::MAX;
                self.durable_through.fetch_max(writer.newest, Relaxed);
                Ok(())
            }
            Err(Error::Log(error)) if error.is_full() => {
                if synced.is_ok() {
                    writer.unsynced_from = i64::MAX;
                }
                if let Err(error) = self.log_failed(&mut writer, error) {
                    tracing::warn!(%error, "the store starts on a full disk");
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Begins a segment behind what the log holds. Nothing before it is needed once the windows it knows of are files.
    pub(super) fn begin_log(&self, writer: &mut Writer, next: u64) -> Result<(), Error> {
        let mut log = crate::log::LogWriter::open(self.storage()?, next)?;
        log.keep_damaged(&writer.found);
        writer.log = Some(log);
        writer.new_cut(self)?;
        if let Some(log) = writer.log.as_mut() {
            log.commit()?;
        }
        Ok(())
    }

    fn new(config: Config, storage: Option<Arc<dyn Storage>>, clock: Arc<dyn Clock>, mode: Mode) -> Self {
        Self {
            index: Arc::new(HeadIndex::new(config.limits.clone())),
            owners: Arc::new(Owners::default()),
            config,
            storage,
            clock,
            writer: Mutex::new(Writer::new()),
            groups: RwLock::default(),
            places: super::series::Places::default(),
            late: LateSamples::default(),
            blocks: ArcSwap::default(),
            tombstones: ArcSwap::default(),
            strays: super::strays::Strays::default(),
            exemplars: Mutex::default(),
            metadata: RwLock::default(),
            health: Health::new(mode),
            durable_through: AtomicI64::new(i64::MIN),
            has_reserve: AtomicBool::new(false),
            housekeeping: Mutex::new(House::default()),
        }
    }

    fn open_blocks(&self, storage: &dyn Storage, report: &mut OpenReport) -> Result<(), Error> {
        let dir = Path::new(block::DIR);
        let io = |source| Error::Io { operation: "list files".into(), source };
        let mut blocks: Vec<Arc<Block>> = Vec::new();
        let mut newest = 0;
        for name in storage.list(dir).map_err(io)? {
            let path = dir.join(&name);
            let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            newest = newest.max(number.unwrap_or(0));
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("tmp") if !self.is_read_only() => {
                    // Half a file of a process that died; its inputs are all still there.
                    let _ = storage.remove(&path);
                }
                Some("blk") => match Block::open(storage, &path).and_then(|found| as_written(found, &path)) {
                    Ok(found) => blocks.push(Arc::new(found)),
                    Err(damage) => self.set_aside(storage, &path, &damage, report),
                },
                _ => {}
            }
        }
        // A file is made of earlier ones: no damage may make it name others.
        let sources_of = |found: &BlockMeta| {
            let earlier = |source: &u64| *source < found.id;
            found.sources.iter().copied().filter(earlier).collect::<Vec<_>>()
        };
        let replaced: std::collections::HashSet<u64> =
            blocks.iter().flat_map(|found| sources_of(found.meta())).collect();
        let (old, live): (Vec<_>, Vec<_>) =
            blocks.into_iter().partition(|found| replaced.contains(&found.meta().id));
        if !self.is_read_only() && !old.is_empty() {
            // The process died between the end of a compaction and the removal of its inputs.
            self.disown(old.iter().map(|found| found.path().to_owned()));
        }
        self.learn_from_blocks(&live);
        report.blocks = live.len();
        let mut writer = self.writer();
        writer.next_block = newest;
        drop(writer);
        self.add_blocks(live);
        Ok(())
    }

    /// Owners, metadata, and numbers that are taken.
    fn learn_from_blocks(&self, blocks: &[Arc<Block>]) {
        let mut by_age: Vec<_> = blocks.iter().collect();
        by_age.sort_by_key(|found| found.meta().id);
        for found in by_age {
            if let Ok(index) = found.index() {
                if let Some(max) = index.max_id() {
                    self.index.skip_to(max.saturating_add(1));
                }
                index.owner_refs().iter().for_each(|owner| self.owners.refer(*owner));
                for (owner, is_bound, labels) in index.owners() {
                    let labels: Vec<_> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
                    let _ = self.owners.put(owner, is_bound, &labels);
                }
            }
            let Ok(body) = found.metadata() else { continue };
            let mut r = Reader::new(&body);
            let families = r.count(4).unwrap_or(0);
            let mut all = self.metadata.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            for _ in 0..families {
                let Ok((family, metadata)) = super::record::get_metadata(&mut r) else { break };
                all.insert(family.into(), metadata);
            }
        }
    }

    /// Moves a file that cannot be read out of the way. One of a later version stays: it is not damaged.
    fn set_aside(&self, storage: &dyn Storage, path: &Path, damage: &Damage, report: &mut OpenReport) {
        tracing::error!(file = %path.display(), %damage, "a file of the store cannot be read");
        report.damaged.push((path.to_owned(), damage.to_string()));
        self.health.count(&self.health.counters.blocks_damaged, 1);
        let is_newer = matches!(damage, Damage::Version { .. });
        if self.is_read_only() || is_newer {
            return;
        }
        if let Some(name) = path.file_name() {
            let _ = storage.create_dir(Path::new(DAMAGED_DIR));
            let _ = storage.rename(path, &Path::new(DAMAGED_DIR).join(name));
        }
    }

    /// Windows up to this one are in files; rows of theirs in the log are not needed.
    pub(super) fn written_through(&self) -> i64 {
        let blocks = self.blocks.load();
        let raw = blocks.iter().filter(|found| found.meta().tier_ms == 0 && !found.meta().out_of_order);
        raw.map(|found| window_of(found.meta().max_t)).max().unwrap_or(i64::MIN)
    }
}

/// Refuses a file that says of itself what none of ours says. Under another name than its own it would be taken for
/// the one that bears its number, and removed with it; house keeping walks all of a file's range.
fn as_written(found: Block, path: &Path) -> Result<Block, Damage> {
    let damaged = |what| Damage::Frame { file: path.to_owned(), what, offset: 0 };
    let meta = found.meta();
    if meta.path() != path {
        return Err(damaged("name, which is another file's,"));
    }
    match meta.max_t.checked_sub(meta.min_t) {
        Some(0..FILE_RANGE_MAX_MS) => Ok(found),
        _ => Err(damaged("range")),
    }
}
