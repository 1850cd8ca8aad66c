//! Downsampled files: which are due, and making them before the raw samples go.
//!
//! Every two hours of raw files that are joined get one file a tier; twelve of those become a day's. A tier is up to
//! date when it is younger than the raw file it was made from: history that comes in later makes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::delete::ranges_of;
use super::maintain::{BUCKET_MS, DAY_MS, House, bucket_of, newest_of};
use super::{Db, Error};
use crate::block::{self, Block, BlockMeta, Downsampled, Kind};
use crate::head::WINDOW_MS;
use crate::index::{OwnerRef, SeriesId};

/// Lengths of an interval, finest first.
pub const TIERS_MS: [i64; 3] = [60_000, 300_000, 3_600_000];

/// How far before a bucket its counters' last samples may lie.
const LOOKBACK_MS: i64 = 60 * 60 * 1000;

/// A piece of work.
pub(super) enum Due {
    /// One tier of two hours.
    Bucket {
        /// Which two hours.
        bucket: i64,
        /// Length of an interval.
        tier_ms: i64,
        /// Number of the raw file that asks for it.
        wanted_by: u64,
        /// Raw files that have samples of it, or of the hour before.
        inputs: Vec<Arc<Block>>,
    },
    /// A day's files of one tier.
    Day {
        /// What they become.
        meta: BlockMeta,
        /// The files.
        inputs: Vec<Arc<Block>>,
    },
}

/// The number that a tier must be above to have what is in a raw file. A day's file was joined from files that had
/// tiers of their own, or has none at all: any tier will do.
fn number_wanted(meta: &BlockMeta) -> u64 {
    if meta.level == 2 { 0 } else { meta.id }
}

// === impl Db ===

impl Db {
    /// The next tier to make, or the next day of one to join.
    pub(super) fn next_tier(&self, house: &House, now: i64) -> Option<Due> {
        let blocks = self.blocks.load_full();
        let settled = self.settled(now);
        for bucket in buckets_of(&blocks) {
            let end = (bucket + 1).saturating_mul(BUCKET_MS);
            if end > settled {
                break;
            }
            for tier_ms in TIERS_MS {
                let Some(wanted_by) = self.lacks_tier(&blocks, house, bucket, tier_ms, now) else { continue };
                let from = bucket.saturating_mul(BUCKET_MS).saturating_sub(LOOKBACK_MS);
                let feeds =
                    |found: &&Arc<Block>| found.meta().tier_ms == 0 && found.meta().overlaps(from, end);
                let inputs = blocks.iter().filter(feeds).cloned().collect();
                return Some(Due::Bucket { bucket, tier_ms, wanted_by, inputs });
            }
        }
        self.next_tier_day(&blocks, house, settled)
    }

    /// Times before this change no more: late samples and stragglers are in files.
    pub(super) fn settled(&self, now: i64) -> i64 {
        now.saturating_sub(self.config.out_of_order_window_ms + self.config.flush_delay_ms + WINDOW_MS)
    }

    /// The number of the raw file of a bucket that a tier does not have yet.
    fn lacks_tier(
        &self,
        blocks: &[Arc<Block>],
        house: &House,
        bucket: i64,
        tier_ms: i64,
        now: i64,
    ) -> Option<u64> {
        let (from, to) = (bucket.saturating_mul(BUCKET_MS), (bucket + 1).saturating_mul(BUCKET_MS));
        if to <= now.saturating_sub(self.config.retention.of_tier(tier_ms)) {
            return None;
        }
        let raw =
            blocks.iter().filter(|found| found.meta().tier_ms == 0 && found.meta().overlaps(from, to - 1));
        let newest = raw.map(|found| number_wanted(found.meta())).max()?;
        let has = |found: &Arc<Block>| {
            let meta = found.meta();
            meta.tier_ms == tier_ms && meta.overlaps(from + 1, to) && meta.id > newest
        };
        let is_given_up = house.tiers_given_up.get(&(bucket, tier_ms)) == Some(&newest);
        (!is_given_up && !blocks.iter().any(has)).then_some(newest)
    }

    /// Whether a raw file is the only place that has its samples although a tier could have them.
    pub(super) fn feeds_a_tier(&self, blocks: &[Arc<Block>], house: &House, found: &Block, now: i64) -> bool {
        let meta = found.meta();
        if meta.tier_ms != 0 || !self.config.compaction || self.storage.is_none() {
            return false;
        }
        (bucket_of(meta.min_t)..=bucket_of(meta.max_t)).any(|bucket| {
            TIERS_MS.iter().any(|tier| self.lacks_tier(blocks, house, bucket, *tier, now).is_some())
        })
    }

    fn next_tier_day(&self, blocks: &[Arc<Block>], house: &House, settled: i64) -> Option<Due> {
        let mut days: BTreeMap<(i64, i64), Vec<Arc<Block>>> = BTreeMap::new();
        for found in blocks.iter().filter(|found| found.meta().tier_ms > 0 && found.meta().level == 1) {
            let meta = found.meta();
            days.entry((meta.tier_ms, meta.min_t.div_euclid(DAY_MS))).or_default().push(Arc::clone(found));
        }
        for ((tier_ms, day), inputs) in days {
            let is_over = day.saturating_add(1).saturating_mul(DAY_MS) <= settled;
            let is_given_up =
                house.tiers_given_up.get(&(i64::MAX - day, tier_ms)) == Some(&newest_of(&inputs));
            // Two files of the same two hours would not be in the order of time behind each other.
            let ranges: BTreeSet<i64> = inputs.iter().map(|input| input.meta().min_t).collect();
            if is_over && !is_given_up && inputs.len() > 1 && ranges.len() == inputs.len() {
                let mut writer = self.writer();
                writer.next_block += 1;
                let meta = BlockMeta {
                    id: writer.next_block,
                    level: 2,
                    tier_ms,
                    min_t: inputs.iter().map(|input| input.meta().min_t).min().unwrap_or(0),
                    max_t: inputs.iter().map(|input| input.meta().max_t).max().unwrap_or(0),
                    sources: inputs.iter().map(|input| input.meta().id).collect(),
                    ..BlockMeta::default()
                };
                return Some(Due::Day { meta, inputs });
            }
        }
        None
    }

    /// Makes what is due.
    ///
    /// # Errors
    /// If an input is damaged or the disk refuses; it is not tried again until the inputs are others.
    pub(super) fn make_tier(&self, house: &mut House, due: Due) -> Result<(), Error> {
        match due {
            Due::Bucket { bucket, tier_ms, wanted_by, inputs } => {
                let result = self.downsample(bucket, tier_ms, &inputs);
                if result.as_ref().is_err_and(|error| !error.is_full()) {
                    house.tiers_given_up.insert((bucket, tier_ms), wanted_by);
                }
                result
            }
            Due::Day { meta, inputs } => {
                let key = (i64::MAX - meta.min_t.div_euclid(DAY_MS), meta.tier_ms);
                let result = self.join_tier(meta, &inputs);
                if result.as_ref().is_err_and(|error| !error.is_full()) {
                    house.tiers_given_up.insert(key, newest_of(&inputs));
                }
                result
            }
        }
    }

    fn downsample(&self, bucket: i64, tier_ms: i64, inputs: &[Arc<Block>]) -> Result<(), Error> {
        let (from, to) = (bucket.saturating_mul(BUCKET_MS), (bucket + 1).saturating_mul(BUCKET_MS));
        // One that was there before stays: it may have series whose raw samples are gone. The younger one is read where
        // both have a series.
        let wanted = {
            let mut writer = self.writer();
            writer.next_block += 1;
            let meta = BlockMeta { id: writer.next_block, level: 1, ..BlockMeta::default() };
            Downsampled { meta, tier_ms, from, to }
        };
        let metadata = self.metadata();
        let kinds: BTreeMap<&str, Kind> =
            metadata.iter().map(|(family, known)| (&**family, kind_of(&known.kind))).collect();
        let kind = |name: &str| family_kind(&kinds, name);
        let tombstones = self.tombstones.load_full();
        let deleted = |id: SeriesId| ranges_of(&tombstones, id);
        let owners = self.owners.view();
        let owner =
            |of: OwnerRef| owners.get(&of)?.known().map(|(is_bound, labels)| (is_bound, labels.to_vec()));
        let made = block::downsample(&self.storage()?, &wanted, inputs, &kind, &deleted, &owner);
        self.replace(wanted.meta.path(), made, &[])
    }

    fn join_tier(&self, meta: BlockMeta, inputs: &[Arc<Block>]) -> Result<(), Error> {
        let owners = self.owners.view();
        let owner =
            |of: OwnerRef| owners.get(&of)?.known().map(|(is_bound, labels)| (is_bound, labels.to_vec()));
        let path = meta.path();
        let made = block::join(&self.storage()?, meta, inputs, &owner);
        self.replace(path, made, inputs)
    }
}

/// The two hours that raw files have, oldest first.
fn buckets_of(blocks: &[Arc<Block>]) -> BTreeSet<i64> {
    let raw = blocks.iter().filter(|found| found.meta().tier_ms == 0);
    raw.flat_map(|found| bucket_of(found.meta().min_t)..=bucket_of(found.meta().max_t)).collect()
}

/// What a family's type says of its floats.
fn kind_of(kind: &str) -> Kind {
    match kind {
        "counter" => Kind::Counter,
        "gauge" | "info" | "stateset" => Kind::Gauge,
        _ => Kind::Unknown,
    }
}

/// What a series' name says: that of its family, or of the family whose part it is.
fn family_kind(kinds: &BTreeMap<&str, Kind>, name: &str) -> Kind {
    if let Some(kind) = kinds.get(name) {
        return *kind;
    }
    for suffix in ["_total", "_bucket", "_count", "_sum"] {
        let Some(family) = name.strip_suffix(suffix) else { continue };
        return match kinds.get(family) {
            Some(Kind::Gauge) => Kind::Gauge,
            // The parts of a histogram or summary count, but for a sum of negative observations.
            Some(_) if suffix != "_sum" => Kind::Counter,
            _ => Kind::Unknown,
        };
    }
    Kind::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_family_count_as_the_family_says() {
        let kinds = BTreeMap::from([("a_total", Kind::Counter), ("b", Kind::Unknown), ("c", Kind::Gauge)]);
        let check = |name: &str, kind: Kind| assert_eq!(family_kind(&kinds, name), kind, "{name}");
        check("a_total", Kind::Counter);
        check("b_bucket", Kind::Counter);
        check("b_sum", Kind::Unknown);
        check("c", Kind::Gauge);
        check("c_count", Kind::Gauge);
        check("d_total", Kind::Unknown);
    }
}
