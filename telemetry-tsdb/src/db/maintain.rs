//! Keeping house: cutting the log, writing windows, joining files, letting old ones go, taking the disk up again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use super::append::complete_window;
use super::delete::ranges_of;
use super::refused::Pause;
use super::{Db, Error, Mode, Stats};
use crate::block::{self, Block, BlockMeta};
use crate::head::{WINDOW_MS, window_of};
use crate::index::{OwnerRef, SeriesId};

/// What compaction joins first: six windows.
pub const BUCKET_MS: i64 = 2 * 60 * 60 * 1000;
/// What it joins then.
pub(super) const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The two hours a time lies in.
pub(super) fn bucket_of(t: i64) -> i64 {
    t.div_euclid(BUCKET_MS)
}

/// What one call of [`Db::maintain`] did. There may be more to do at once after anything but `Nothing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing was due.
    Nothing,
    /// The log is written again after a failure.
    Recovered,
    /// Windows became files.
    Flushed,
    /// Files became one.
    Compacted,
    /// A tier was made, or its files became one.
    Downsampled,
    /// Files were removed.
    Expired,
    /// Something was due and failed; it is tried again.
    Failed,
}

/// What housekeeping remembers.
#[derive(Default)]
pub struct House {
    /// The window in which the log was last cut.
    cut: Option<i64>,
    /// Buckets that could not be joined, with the number of the newest file in them then.
    given_up: BTreeMap<i64, u64>,
    /// Tiers that could not be made, likewise.
    pub(super) tiers_given_up: BTreeMap<(i64, i64), u64>,
    /// Until when a disk that refused is left alone.
    pub(super) pause: Pause,
    /// It was windows that the disk refused, for too long.
    pub(super) windows_refused: bool,
}

// === impl Db ===

impl Db {
    /// Does one piece of what is due. Call it every few seconds, and again at once while it does something.
    pub fn maintain(&self) -> Work {
        if self.is_read_only() {
            return Work::Nothing;
        }
        let mut house = self.housekeeping.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now_ms();
        let done = complete_window(now, self.config.flush_delay_ms);
        if self.health.mode() == Mode::Degraded {
            return self.recover(&mut house, done, now);
        }
        self.try_cut(&mut house, now);
        let is_paused = !house.pause.is_over(self.clock.monotonic_ns());
        if self.is_flush_due(done) && !is_paused {
            return self.try_flush(&mut house, done, now);
        }
        if self.expire(&house, now) > 0 {
            return Work::Expired;
        }
        if !self.config.compaction || self.storage.is_none() || is_paused {
            return Work::Nothing;
        }
        match self.try_compact(&mut house, now) {
            Work::Nothing => self.try_downsample(&mut house, now),
            work => work,
        }
    }

    /// Begins a segment at each border of windows, so that the log can be cut there.
    fn try_cut(&self, house: &mut House, now: i64) {
        if self.storage.is_none() || house.cut == Some(window_of(now)) {
            return;
        }
        if bucket_of(now) != house.cut.map_or(i64::MIN, |window| bucket_of(window.saturating_mul(WINDOW_MS)))
        {
            // What the disk would not do two hours ago it may do now.
            house.given_up.clear();
            house.tiers_given_up.clear();
        }
        house.cut = Some(window_of(now));
        self.hold_reserve();
        self.drop_applied_tombstones(now);
        let mut writer = self.writer();
        if let Err(error) = writer.new_cut(self) {
            let _ = self.log_failed(&mut writer, error);
        }
    }

    fn is_flush_due(&self, done: i64) -> bool {
        let writer = self.writer();
        writer.groups.iter().any(|group| group.is_due(done))
    }

    fn try_flush(&self, house: &mut House, done: i64, now: i64) -> Work {
        if self.storage.is_none() {
            self.writer().freeze(done);
            let oldest = window_of(now.saturating_sub(self.config.retention.raw_ms));
            self.release(oldest.saturating_sub(1));
            self.late.drop_before(oldest.saturating_mul(WINDOW_MS));
            self.drop_applied_tombstones(now);
            return Work::Nothing;
        }
        match self.flush(done) {
            Ok(_) => {
                house.pause.end();
                Work::Flushed
            }
            Err(error) => {
                self.windows_failed(house, &error, done, now);
                Work::Failed
            }
        }
    }

    /// Removes files whose time is over, and the oldest while all are too large or the disk too full. A raw file waits
    /// for its tiers, unless the disk needs the room. Returns how many.
    fn expire(&self, house: &House, now: i64) -> usize {
        let blocks = self.blocks.load_full();
        let retention = &self.config.retention;
        let is_old = |found: &Arc<Block>| {
            let meta = found.meta();
            meta.max_t < now.saturating_sub(retention.of_tier(meta.tier_ms))
                && !self.feeds_a_tier(&blocks, house, found, now)
        };
        let mut gone: Vec<Arc<Block>> = blocks.iter().filter(|found| is_old(found)).cloned().collect();
        if self.config.bytes_max > 0 {
            let mut total: u64 = blocks.iter().map(|found| found.bytes()).sum();
            total -= gone.iter().map(|found| found.bytes()).sum::<u64>();
            for found in blocks.iter().filter(|found| !is_old(found)) {
                if total <= self.config.bytes_max {
                    break;
                }
                total -= found.bytes();
                gone.push(Arc::clone(found));
            }
        }
        if gone.is_empty() && self.is_nearly_full() {
            gone.extend(blocks.first().cloned());
        }
        self.remove_blocks(&gone);
        self.health.counters.blocks_expired.fetch_add(gone.len() as u64, Relaxed);
        gone.len()
    }

    fn is_nearly_full(&self) -> bool {
        let free = self.storage.as_ref().and_then(|storage| storage.free_bytes());
        free.is_some_and(|free| free < self.config.free_floor_bytes)
    }

    /// Gives the oldest files away for what waits. Returns how many.
    pub(super) fn make_room(&self, house: &House, now: i64) -> usize {
        let gone = self.expire(house, now);
        if gone > 0 || !self.is_nearly_full() {
            return gone;
        }
        let oldest: Vec<_> = self.blocks.load().first().cloned().into_iter().collect();
        self.remove_blocks(&oldest);
        self.health.counters.blocks_expired.fetch_add(oldest.len() as u64, Relaxed);
        oldest.len()
    }

    fn remove_blocks(&self, gone: &[Arc<Block>]) {
        if gone.is_empty() {
            return;
        }
        self.blocks.rcu(|old| {
            let stays = |found: &&Arc<Block>| !gone.iter().any(|other| Arc::ptr_eq(other, found));
            old.iter().filter(stays).cloned().collect::<Vec<_>>()
        });
        self.disown(gone.iter().map(|found| found.path().to_owned()));
    }

    /// Joins the files of one bucket, or of one day.
    fn try_compact(&self, house: &mut House, now: i64) -> Work {
        let Some((bucket, meta, inputs)) = self.next_compaction(house, now) else { return Work::Nothing };
        match self.compact(meta, &inputs) {
            Ok(()) => {
                self.health.counters.blocks_compacted.fetch_add(inputs.len() as u64, Relaxed);
                Work::Compacted
            }
            Err(error) => {
                self.health.counters.compaction_failures.fetch_add(1, Relaxed);
                tracing::warn!(%error, "files cannot be joined; they are served as they are");
                if error.is_full() {
                    house.pause.grow(self.clock.monotonic_ns());
                } else {
                    house.given_up.insert(bucket, newest_of(&inputs));
                }
                Work::Failed
            }
        }
    }

    /// Makes a tier, or joins a day of one.
    fn try_downsample(&self, house: &mut House, now: i64) -> Work {
        let Some(due) = self.next_tier(house, now) else { return Work::Nothing };
        match self.make_tier(house, due) {
            Ok(()) => {
                self.health.counters.tiers_written.fetch_add(1, Relaxed);
                Work::Downsampled
            }
            Err(error) => {
                self.health.counters.compaction_failures.fetch_add(1, Relaxed);
                tracing::warn!(%error, "a tier cannot be made; its samples are served as they came");
                if error.is_full() {
                    house.pause.grow(self.clock.monotonic_ns());
                }
                Work::Failed
            }
        }
    }

    pub(super) fn compact(&self, meta: BlockMeta, inputs: &[Arc<Block>]) -> Result<(), Error> {
        let storage = self.storage()?;
        let tombstones = self.tombstones.load_full();
        let deleted = |id: SeriesId| ranges_of(&tombstones, id);
        let owners = self.owners.view();
        let owner = |of: OwnerRef| {
            let known = owners.get(&of)?;
            known.known().map(|(is_bound, labels)| (is_bound, labels.to_vec()))
        };
        let (is_day, path) = (meta.level == 2, meta.path());
        let made = if is_day {
            block::join(&storage, meta, inputs, &owner)
        } else {
            block::compact(&storage, meta, inputs, &deleted, &owner)
        };
        self.replace(path, made, inputs)
    }

    /// Shows readers a new file in the place of those it was made of, and removes them.
    pub(super) fn replace(
        &self,
        path: PathBuf,
        made: Result<BlockMeta, block::Damage>,
        inputs: &[Arc<Block>],
    ) -> Result<(), Error> {
        let made = made.map_err(|damage| match damage {
            block::Damage::Io { file, source } => {
                Error::Io { operation: format!("join files: {}", file.display()), source }
            }
            damage => Error::Damaged { file: String::new(), reason: damage.to_string() },
        });
        let made = Arc::new(self.adopt(path, made)?);
        self.blocks.rcu(|old| {
            let stays = old.iter().filter(|found| !inputs.iter().any(|input| Arc::ptr_eq(input, found)));
            let mut all: Vec<_> = stays.cloned().chain(std::iter::once(Arc::clone(&made))).collect();
            all.sort_by_key(|found| (found.meta().min_t, found.meta().id));
            all
        });
        self.remove_blocks(inputs);
        Ok(())
    }

    fn next_compaction(&self, house: &House, now: i64) -> Option<(i64, BlockMeta, Vec<Arc<Block>>)> {
        let settled = self.settled(now);
        let blocks = self.blocks.load_full();
        let raw: Vec<_> = blocks.iter().filter(|found| found.meta().tier_ms == 0).cloned().collect();
        let mut buckets: BTreeMap<i64, Vec<Arc<Block>>> = BTreeMap::new();
        for found in raw.iter().filter(|found| found.meta().level < 2) {
            buckets.entry(bucket_of(found.meta().min_t)).or_default().push(Arc::clone(found));
        }
        for (bucket, inputs) in &buckets {
            let is_over = bucket.saturating_add(1).saturating_mul(BUCKET_MS) <= settled;
            let is_new = inputs.iter().any(|found| found.meta().level == 0);
            let is_given_up = house.given_up.get(bucket) == Some(&newest_of(inputs));
            if is_over && is_new && !is_given_up {
                return Some((
                    *bucket,
                    self.joined_meta(1, *bucket * BUCKET_MS, BUCKET_MS, inputs),
                    inputs.clone(),
                ));
            }
        }
        let mut days: BTreeMap<i64, Vec<Arc<Block>>> = BTreeMap::new();
        for found in raw.iter().filter(|found| found.meta().level == 1) {
            days.entry(found.meta().min_t.div_euclid(DAY_MS)).or_default().push(Arc::clone(found));
        }
        let due = |day: i64| day.saturating_add(1).saturating_mul(DAY_MS) <= settled;
        let (day, inputs) = days.into_iter().find(|(day, inputs)| due(*day) && inputs.len() > 1)?;
        let key = i64::MAX - day;
        if house.given_up.get(&key) == Some(&newest_of(&inputs)) {
            return None;
        }
        let from = inputs.iter().map(|input| input.meta().min_t).min()?;
        let end = inputs.iter().map(|input| input.meta().max_t).max()?.saturating_add(1);
        Some((key, self.joined_meta(2, from, end.saturating_sub(from), &inputs), inputs))
    }

    pub(super) fn joined_meta(&self, level: u8, from: i64, len: i64, inputs: &[Arc<Block>]) -> BlockMeta {
        let mut writer = self.writer();
        writer.next_block += 1;
        let sources = inputs.iter().flat_map(|input| {
            std::iter::once(input.meta().id)
                .chain(input.meta().sources.iter().copied().filter(|_| level == 1))
        });
        BlockMeta {
            id: writer.next_block,
            level,
            min_t: from,
            max_t: from + len - 1,
            sources: sources.collect(),
            ..BlockMeta::default()
        }
    }

    /// A picture of the store.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let blocks = self.blocks.load_full();
        let writer = self.writer();
        Stats {
            series: self.index.len(),
            groups: writer.groups.len(),
            owners: self.owners.view().values().filter(|owner| owner.known().is_some()).count(),
            head_bytes: writer.groups.iter().map(|group| group.bytes()).sum(),
            index_bytes: self.index.bytes(),
            log_bytes: writer.log.as_ref().map_or(0, |log| log.bytes()),
            blocks: blocks.len(),
            block_bytes: blocks.iter().map(|found| found.bytes()).sum(),
            block_samples: blocks.iter().map(|found| found.meta().samples).sum(),
            late_samples: self.late.samples(),
            deletions: self.tombstones.load().len(),
        }
    }

    /// Its files, oldest first.
    #[must_use]
    pub fn blocks(&self) -> Arc<Vec<Arc<Block>>> {
        self.blocks.load_full()
    }

    /// How it is.
    #[must_use]
    pub fn health(&self) -> &super::Health {
        &self.health
    }
}

pub(super) fn newest_of(blocks: &[Arc<Block>]) -> u64 {
    blocks.iter().map(|found| found.meta().id).max().unwrap_or(0)
}
