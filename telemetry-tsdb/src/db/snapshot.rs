//! Copies of the whole store while it runs, and deletions applied now: what an operator asks for.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use super::delete::is_made_since;
use super::{Db, Error};
use crate::block::{self, Block, BlockMeta};
use crate::fs::Storage;
use crate::log;

/// What a snapshot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// Everything.
    Whole,
    /// Files alone, without what is still in memory and in the log.
    Files,
}

// === impl Db ===

impl Db {
    /// Makes a store of its own below `into`, which is a path within this one's directory: all that is acknowledged now,
    /// or what is in files by now, and nothing that comes later. They are linked, not copied, where the file system can.
    ///
    /// # Errors
    /// If the store is not on a disk, is degraded, or the disk refuses; what was made by then stays.
    pub fn snapshot(&self, into: &Path, what: Snapshot) -> Result<(), Error> {
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let storage = self.storage()?;
        // No file is removed meanwhile.
        let house = self.housekeeping.lock().unwrap_or_else(PoisonError::into_inner);
        self.commit()?;
        let mut writer = self.writer();
        // What is behind a border does not change any more.
        if let Some(log) = writer.log.as_mut() {
            log.commit()?;
        }
        writer.new_cut(self)?;
        if let Some(log) = writer.log.as_mut() {
            log.commit()?;
        }
        let linked = link_all(&*storage, into, &self.blocks.load(), what);
        drop(writer);
        drop(house);
        linked.map_err(|source| Error::Io { operation: format!("snapshot into {}", into.display()), source })
    }

    /// Writes the files anew that hold what was deleted, those of raw samples that no window is added to any more. Returns
    /// how many. What is in memory or in such a file goes when its window is written and joined.
    ///
    /// # Errors
    /// If a file cannot be read or written; the others are done by then.
    pub fn apply_deletions(&self) -> Result<usize, Error> {
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let mut house = self.housekeeping.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now_ms();
        let mut written = 0;
        while let Some(found) = self.next_with_deletions(now) {
            let BlockMeta { min_t, max_t, .. } = *found.meta();
            let inputs = [found];
            let meta = self.joined_meta(1, min_t, max_t.saturating_sub(min_t).saturating_add(1), &inputs);
            self.compact(meta, &inputs)?;
            written += 1;
        }
        self.drop_applied_tombstones(now);
        house.pause.end();
        Ok(written)
    }

    fn next_with_deletions(&self, now: i64) -> Option<Arc<Block>> {
        let settled = self.settled(now);
        let tombstones = self.tombstones.load();
        let blocks = self.blocks.load();
        let wanted = |found: &&Arc<Block>| {
            let meta = found.meta();
            let has = |from, to, files| meta.overlaps(from, to) && !is_made_since(meta, files);
            meta.tier_ms == 0
                && meta.max_t < settled
                && tombstones.iter().any(|deleted| has(deleted.from, deleted.to, deleted.files))
        };
        blocks.iter().find(wanted).cloned()
    }
}

/// Files and closed segments, each under the name that it has.
fn link_all(
    storage: &dyn Storage,
    into: &Path,
    blocks: &[Arc<Block>],
    what: Snapshot,
) -> std::io::Result<()> {
    let (files, segments) = (into.join(block::DIR), into.join(log::DIR));
    for dir in
        into.ancestors().filter(|dir| !dir.as_os_str().is_empty()).collect::<Vec<_>>().into_iter().rev()
    {
        storage.create_dir(dir)?;
    }
    storage.create_dir(&files)?;
    storage.create_dir(&segments)?;
    for found in blocks {
        storage.link(found.path(), &into.join(found.path()))?;
    }
    let closed = if what == Snapshot::Whole { log::closed(storage)? } else { Vec::new() };
    for segment in closed {
        storage.link(&segment, &into.join(&segment))?;
    }
    storage.sync_dir(&files)?;
    storage.sync_dir(&segments)
}
