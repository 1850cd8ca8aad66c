//! Reading: which series, and their samples in a range. A selection is a moment of the store; what is written, joined
//! or removed afterwards does not change it.

mod column;
mod growth;
mod tiered;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use telemetry_model::Matcher;

use super::delete::ranges_of;
use super::series::SeriesRef;
use super::{Db, Error, Tombstone};
use crate::block::{Block, BlockReader, Damage, Pages, Room, TierCells, TierColumn, TierReader};
use crate::codec::Decoded;
use crate::head::{GroupId, GroupView, LateSeries, Sample, Slot, Stripe, WINDOW_MS, Window};
use crate::index::{CompiledMatcher, FileIndex, LabelPairs, OwnersView, SeriesId, compile};

pub use column::{Column, SharedTimes};
pub use tiered::{Hints, Stretch, Want};

use column::Joiner;
use growth::grown;
use tiered::Coverage;

/// How often a moment is looked for; house keeping changes files some times a minute.
const TRIES_MAX: u32 = 100;

/// Bytes of pages that the readers of a selection keep: twice what an hour of 10,000 series takes. Beyond it pages are
/// read again.
const PAGES_MAX: usize = 16 << 20;

/// Series that were asked for, in the order of their labels.
pub struct Selection {
    series: Vec<Selected>,
    moment: Arc<Moment>,
}

/// One series as a reader sees it: all stored series that bear its labels.
#[derive(Clone, Debug)]
pub struct Selected {
    labels: Arc<[(Arc<str>, Arc<str>)]>,
    /// Younger first: of two samples at one time the younger series' is read.
    ids: Vec<SeriesId>,
}

/// Reads the series of a selection. One a thread.
pub struct Reader {
    moment: Arc<Moment>,
    readers: Vec<BlockReader>,
    tiers: Vec<TierReader>,
    joiner: Joiner,
    /// What counters grew by, where a tier answers.
    growth: Joiner,
    cells: TierCells,
    shared: SharedTimes,
    decoded: Decoded,
    times: Vec<i64>,
}

/// What is read from.
struct Moment {
    /// In order first, then late ones.
    blocks: Vec<Arc<Block>>,
    views: Vec<Arc<GroupView>>,
    places: HashMap<SeriesId, (GroupId, Slot), ahash::RandomState>,
    late: HashMap<SeriesId, [Option<LateSeries>; 2], ahash::RandomState>,
    tombstones: Arc<Vec<Tombstone>>,
    /// Who answers for which times, in their order.
    stretches: Vec<Stretch>,
    want: Want,
    /// Files of tiers, as [`order_tiers`] says.
    tiers: Vec<Arc<Block>>,
    /// Pages that were read, of each file.
    pages: Vec<Arc<Pages>>,
    /// The same of each file of a tier.
    tier_pages: Vec<Arc<Pages>>,
}

/// What [`Db::see`] found.
struct Seen {
    views: Vec<Arc<GroupView>>,
    blocks: Arc<Vec<Arc<Block>>>,
    tombstones: Arc<Vec<Tombstone>>,
    owners: OwnersView,
    /// Series in memory, with their labels.
    in_head: Vec<(SeriesId, LabelPairs)>,
    places: HashMap<SeriesId, (GroupId, Slot), ahash::RandomState>,
    late: HashMap<SeriesId, [Option<LateSeries>; 2], ahash::RandomState>,
}

// === impl Db ===

impl Db {
    /// The series that all matchers want and that may have a sample in the range.
    ///
    /// # Errors
    /// If an expression is malformed, or the index of a file is damaged.
    pub fn select(&self, matchers: &[Matcher], from: i64, to: i64) -> Result<Selection, Error> {
        self.select_raw_or_tiers(matchers, from, to, None)
    }

    /// The same for a query of which something is known: where its steps and windows are wide, or raw samples are gone,
    /// tiers answer. [`Selection::stretches`] says which and for what times.
    ///
    /// # Errors
    /// As [`Db::select`].
    pub fn select_for(
        &self,
        matchers: &[Matcher],
        from: i64,
        to: i64,
        hints: &Hints,
    ) -> Result<Selection, Error> {
        self.select_raw_or_tiers(matchers, from, to, Some(hints))
    }

    fn select_raw_or_tiers(
        &self,
        matchers: &[Matcher],
        from: i64,
        to: i64,
        hints: Option<&Hints>,
    ) -> Result<Selection, Error> {
        let compiled = compile(matchers)?;
        let Seen { views, blocks: all, tombstones, owners, in_head, places, late } = self.see(&compiled);
        let mut labels: BTreeMap<SeriesId, LabelPairs> = in_head.into_iter().collect();
        let stretches = match hints {
            Some(hints) => Coverage::of(&all, &views).plan(from, to, hints),
            None => vec![Stretch { from, to, tier_ms: 0 }],
        };
        let wanted = |found: &&Arc<Block>| {
            let meta = found.meta();
            stretches.iter().any(|s| s.tier_ms == meta.tier_ms && meta.overlaps(s.from, s.to))
        };
        let (mut blocks, mut tiers): (Vec<_>, Vec<_>) =
            all.iter().filter(wanted).cloned().partition(|found| found.meta().tier_ms == 0);
        blocks.sort_by_key(|found| (found.meta().out_of_order, found.meta().min_t, found.meta().id));
        order_tiers(&mut tiers);
        let mut last: Option<Arc<FileIndex>> = None;
        for found in blocks.iter().chain(&tiers) {
            let index = found.index().map_err(damaged)?;
            // Files that follow each other mostly have one index.
            if last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &index)) {
                continue;
            }
            for (id, pairs) in index.select(&compiled, &owners, |id| labels.contains_key(&id)) {
                labels.entry(id).or_insert(pairs);
            }
            last = Some(index);
        }
        let room = Room::new(PAGES_MAX);
        let pages = |found: &Arc<Block>| Arc::new(Pages::new(found.pages(), room.clone()));
        let moment = Moment {
            pages: blocks.iter().map(pages).collect(),
            tier_pages: tiers.iter().map(pages).collect(),
            blocks,
            views,
            places,
            late,
            tombstones,
            stretches,
            want: hints.map_or(Want::Every, |hints| hints.want),
            tiers,
        };
        Ok(Selection { series: by_labels(labels), moment: Arc::new(moment) })
    }

    /// Everything that a selection rests on, as it was together at one moment.
    ///
    /// What leaves memory is in a file before, and what is deleted is a new list: while files and deletions are the
    /// same after as before, nothing that was looked at in between has gone elsewhere. Both change with windows and
    /// deletions, so that a second try is rare. After the last one files are newer than what memory was seen to hold,
    /// so that nothing is missing but what was deleted since.
    fn see(&self, matchers: &[CompiledMatcher]) -> Seen {
        let mut tries = 1;
        loop {
            let before = (self.blocks.load_full(), self.tombstones.load_full());
            let views = self.group_handles().iter().map(|handle| handle.view.load_full()).collect();
            let owners = self.owners.view();
            let ids: Vec<SeriesId> = self.index.select(matchers, &owners).iter().collect();
            let in_head = self.index.labels_of_all(&ids, &owners);
            let places = self.places.get_all(ids.iter().copied());
            let late = if self.late.is_empty() {
                HashMap::default()
            } else {
                ids.iter().map(|id| (*id, self.late.get(*id))).collect()
            };
            let (blocks, tombstones) = (self.blocks.load_full(), self.tombstones.load_full());
            let is_still = Arc::ptr_eq(&blocks, &before.0) && Arc::ptr_eq(&tombstones, &before.1);
            if is_still || tries == TRIES_MAX {
                let places = places.into_iter().map(|(id, group, slot)| (id, (group, slot))).collect();
                return Seen { views, blocks, tombstones, owners, in_head, places, late };
            }
            tries += 1;
        }
    }

    /// Names of the labels that series have, of those that all matchers want.
    ///
    /// # Errors
    /// As [`Db::select`].
    pub fn label_names(&self, matchers: &[Matcher], from: i64, to: i64) -> Result<Vec<Arc<str>>, Error> {
        let selection = self.select(matchers, from, to)?;
        let names: BTreeSet<Arc<str>> =
            selection.series.iter().flat_map(|s| s.labels.iter().map(|(name, _)| Arc::clone(name))).collect();
        Ok(names.into_iter().collect())
    }

    /// Values of a label.
    ///
    /// # Errors
    /// As [`Db::select`].
    pub fn label_values(
        &self,
        label: &str,
        matchers: &[Matcher],
        from: i64,
        to: i64,
    ) -> Result<Vec<Arc<str>>, Error> {
        let selection = self.select(matchers, from, to)?;
        let values: BTreeSet<Arc<str>> = selection
            .series
            .iter()
            .filter_map(|s| s.labels.iter().find(|(name, _)| &**name == label))
            .map(|(_, value)| Arc::clone(value))
            .collect();
        Ok(values.into_iter().collect())
    }
}

/// Younger first, because where two files have a series the younger says all; older first where no two files tell of one
/// time, which is nearly always, so that rows come in the order of time.
fn order_tiers(tiers: &mut [Arc<Block>]) {
    let place = |found: &Arc<Block>| (found.meta().tier_ms, found.meta().min_t);
    tiers.sort_by_key(place);
    let is_apart = |pair: &[Arc<Block>]| match pair {
        [a, b] => a.meta().tier_ms != b.meta().tier_ms || a.meta().max_t < b.meta().min_t,
        _ => true,
    };
    if !tiers.windows(2).all(is_apart) {
        tiers.sort_by_key(|found| std::cmp::Reverse(found.meta().id));
    }
}

fn damaged(damage: Damage) -> Error {
    match damage {
        Damage::Io { file, source } => Error::Io { operation: format!("read {}", file.display()), source },
        other => Error::Damaged { file: String::new(), reason: other.to_string() },
    }
}

/// Joins stored series that bear the same labels.
fn by_labels(labels: BTreeMap<SeriesId, LabelPairs>) -> Vec<Selected> {
    let selected = |(id, labels): (SeriesId, LabelPairs)| Selected { labels: labels.into(), ids: vec![id] };
    let mut all: Vec<Selected> = labels.into_iter().map(selected).collect();
    all.sort_by(|a, b| compared(&a.labels, &b.labels));
    all.dedup_by(|later, first| {
        let same = compared(&later.labels, &first.labels).is_eq();
        if same {
            first.ids.append(&mut later.ids);
            first.ids.sort_unstable_by(|a, b| b.cmp(a));
        }
        same
    });
    all
}

/// The order of labels. Texts of one index are shared, so that most are seen to be equal without being read.
fn compared(a: &[(Arc<str>, Arc<str>)], b: &[(Arc<str>, Arc<str>)]) -> Ordering {
    let text = |a: &Arc<str>, b: &Arc<str>| if Arc::ptr_eq(a, b) { Ordering::Equal } else { a.cmp(b) };
    let pairs = a.iter().zip(b).map(|(a, b)| text(&a.0, &b.0).then_with(|| text(&a.1, &b.1)));
    pairs.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
}

// === impl Selection ===

impl Selection {
    /// Its series.
    #[must_use]
    pub fn series(&self) -> &[Selected] {
        &self.series
    }

    /// Who answers for which times, in their order.
    #[must_use]
    pub fn stretches(&self) -> &[Stretch] {
        &self.moment.stretches
    }

    /// Whether no sample can be in its range: no file reaches into it, and the head has no series that was asked for.
    #[must_use]
    pub(super) fn is_without_samples(&self) -> bool {
        self.moment.blocks.is_empty() && self.moment.places.is_empty()
    }

    /// A reader of them.
    #[must_use]
    pub fn reader(&self) -> Reader {
        let moment = &self.moment;
        let in_blocks = moment.blocks.iter().zip(&moment.pages);
        let readers =
            in_blocks.map(|(found, pages)| BlockReader::sharing(Arc::clone(found), Arc::clone(pages)));
        let in_tiers = moment.tiers.iter().zip(&moment.tier_pages);
        let tiers = in_tiers.map(|(found, pages)| TierReader::sharing(Arc::clone(found), Arc::clone(pages)));
        Reader {
            moment: Arc::clone(moment),
            readers: readers.collect(),
            tiers: tiers.collect(),
            growth: Joiner::default(),
            cells: TierCells::default(),
            joiner: Joiner::default(),
            shared: SharedTimes::default(),
            decoded: Decoded::default(),
            times: Vec::new(),
        }
    }
}

// === impl Selected ===

impl Selected {
    /// Its labels, in the order of their names.
    #[must_use]
    pub fn labels(&self) -> &Arc<[(Arc<str>, Arc<str>)]> {
        &self.labels
    }

    /// The value of a label.
    #[must_use]
    pub fn get(&self, label: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(name, _)| (**name).cmp(label)).ok()?;
        self.labels.get(at).map(|(_, value)| &**value)
    }

    /// The stored series behind it.
    #[must_use]
    pub fn ids(&self) -> &[SeriesId] {
        &self.ids
    }
}

// === impl Reader ===

impl Reader {
    /// The samples of a series from `from` to `to`, both included; where a tier answers, its rows.
    ///
    /// # Errors
    /// If something in the range is damaged: no answer rather than a wrong one.
    pub fn read(&mut self, series: &Selected, from: i64, to: i64) -> Result<Column, Error> {
        self.joiner.clear();
        self.growth.clear();
        let mut deleted = Vec::new();
        for id in &series.ids {
            let of_id = ranges_of(&self.moment.tombstones, *id);
            for at in 0..self.moment.stretches.len() {
                let Some(stretch) = self.moment.stretches.get(at).copied() else { continue };
                let range = (from.max(stretch.from), to.min(stretch.to));
                if range.0 > range.1 {
                    continue;
                }
                match stretch.tier_ms {
                    0 => self.read_one(*id, range).map_err(damaged)?,
                    tier_ms => self.read_tier(*id, tier_ms, range, &of_id).map_err(damaged)?,
                }
            }
            deleted.extend(of_id);
        }
        let has_tier = self.moment.stretches.iter().any(|stretch| stretch.tier_ms > 0);
        let want = self.moment.want;
        let mut column = self.joiner.finish(&mut self.shared, &deleted);
        if want == Want::Increase && has_tier {
            let growth = self.growth.finish(&mut SharedTimes::default(), &deleted);
            column = grown(column, &growth);
        } else if want == Want::Count {
            column.count_raw(|t| self.moment.is_raw(t));
        }
        Ok(column)
    }

    /// Rows of a tier. Where two files have a series, the younger says all; rows of which anything is deleted are not
    /// read.
    fn read_tier(
        &mut self,
        id: SeriesId,
        tier_ms: i64,
        range: (i64, i64),
        deleted: &[(i64, i64)],
    ) -> Result<(), Damage> {
        let Self { moment, tiers, joiner, growth, cells, .. } = self;
        let mut said: Vec<(i64, i64)> = Vec::new();
        for reader in tiers.iter_mut() {
            let meta = reader.block().meta();
            let covers = (meta.min_t, meta.max_t);
            let is_said = said.iter().any(|other| other.0 <= covers.1 && covers.0 <= other.1);
            if meta.tier_ms != tier_ms || !meta.overlaps(range.0, range.1) || is_said {
                continue;
            }
            cells.clear();
            if !reader.read(id, TierColumn::Last, range, cells)? {
                continue;
            }
            said.push(covers);
            let mut column = moment.want.column();
            if column != TierColumn::Last {
                let mut wanted = TierCells::default();
                if reader.read(id, column, range, &mut wanted)? {
                    // Stale markers are in the column of last values alone; what is folded over a window needs none.
                    std::mem::swap(cells, &mut wanted);
                } else {
                    column = TierColumn::Last;
                    if moment.want == Want::Sum && reader.read(id, TierColumn::Count, range, &mut wanted)? {
                        cells.multiply(&wanted);
                    }
                }
            }
            push_cells(joiner, cells, tier_ms, deleted);
            if column == TierColumn::Last && moment.want == Want::Increase {
                cells.clear();
                reader.read(id, TierColumn::Increase, range, cells)?;
                push_cells(growth, cells, tier_ms, deleted);
            }
        }
        Ok(())
    }

    fn read_one(&mut self, id: SeriesId, range: (i64, i64)) -> Result<(), Damage> {
        let Self { moment, readers, joiner, decoded, times, .. } = self;
        let in_order = readers.iter().take_while(|reader| !reader.block().meta().out_of_order).count();
        let (in_order, late) = readers.split_at_mut(in_order);
        for reader in in_order {
            read_block(reader, id, range, joiner, decoded)?;
        }
        moment.read_head(id, range, joiner, decoded, times);
        for reader in late {
            read_block(reader, id, range, joiner, decoded)?;
        }
        for list in moment.late.get(&id).into_iter().flatten().flatten() {
            list.iter().for_each(|(t, sample)| joiner.sample(*t, Some(sample), range));
        }
        Ok(())
    }
}

/// Hands rows of a tier on, but those of intervals of which something is deleted.
fn push_cells(joiner: &mut Joiner, cells: &TierCells, tier_ms: i64, deleted: &[(i64, i64)]) {
    if deleted.is_empty() && cells.histograms.is_empty() {
        joiner.floats(&cells.times, &cells.values);
        return;
    }
    let mut histograms = cells.histograms.iter().peekable();
    for (at, (t, value)) in cells.times.iter().zip(&cells.values).enumerate() {
        let histogram = histograms.next_if(|(of, _)| *of as usize == at);
        if deleted.iter().any(|(from, to)| *t >= *from && t.saturating_sub(tier_ms) < *to) {
            continue;
        }
        let sample = histogram.map_or(Sample::Float(*value), |(_, h)| Sample::Histogram(Arc::clone(h)));
        joiner.sample(*t, Some(&sample), (i64::MIN, i64::MAX));
    }
}

fn read_block(
    reader: &mut BlockReader,
    id: SeriesId,
    range: (i64, i64),
    joiner: &mut Joiner,
    decoded: &mut Decoded,
) -> Result<(), Damage> {
    reader.chunks(id, range, |reader, chunk| {
        let times = reader.times(&chunk)?;
        if !joiner.whole(&times, range, |values| reader.read_plain(&chunk, values))? {
            decoded.clear();
            reader.read(&chunk, decoded)?;
            joiner.run(&times, decoded, 0, range);
        }
        Ok(())
    })
}

// === impl Moment ===

impl Moment {
    /// Whether a sample of this time is one that came, not a row of a tier.
    fn is_raw(&self, t: i64) -> bool {
        let at = self.stretches.partition_point(|stretch| stretch.to < t);
        self.stretches.get(at).is_none_or(|stretch| stretch.tier_ms == 0)
    }

    /// Whether a file of the selection has all of a window.
    fn is_in_file(&self, number: i64) -> bool {
        let (from, to) = (number * WINDOW_MS, (number + 1) * WINDOW_MS - 1);
        let has = |found: &&Arc<Block>| {
            !found.meta().out_of_order && found.meta().min_t <= from && to <= found.meta().max_t
        };
        self.blocks.iter().any(|found| has(&found))
    }

    fn read_head(
        &self,
        id: SeriesId,
        range: (i64, i64),
        joiner: &mut Joiner,
        decoded: &mut Decoded,
        times: &mut Vec<i64>,
    ) {
        let Some((group, slot)) = self.places.get(&id) else { return };
        let Some(view) = self.views.get(group.0 as usize) else { return };
        for window in &view.frozen {
            let is_its = window.series.get(slot.0 as usize) == Some(&id);
            if is_its && !self.is_in_file(window.number) {
                run_window(window, *slot, range, joiner, decoded);
            }
        }
        for stripe in &view.stripes {
            let (first, last) = (stripe.times().first(), stripe.times().last());
            if first.is_some_and(|t| *t <= range.1) && last.is_some_and(|t| *t >= range.0) {
                run_stripe(stripe, *slot, range, joiner, decoded);
            }
        }
        times.clear();
        for row in &view.rows {
            joiner.sample(row.t, row.get(slot.0).as_ref(), range);
        }
    }
}

fn run_window(window: &Window, slot: Slot, range: (i64, i64), joiner: &mut Joiner, decoded: &mut Decoded) {
    for stripe in &window.stripes {
        run_stripe(stripe, slot, range, joiner, decoded);
    }
}

/// Cells of a stripe. What cannot be decoded is absent.
fn run_stripe(stripe: &Stripe, slot: Slot, range: (i64, i64), joiner: &mut Joiner, decoded: &mut Decoded) {
    let whole = joiner.whole(stripe.times(), range, |values| stripe.read_plain(slot.0, values));
    if matches!(whole, Ok(false)) {
        decoded.clear();
        if stripe.read(slot.0, decoded).is_ok() {
            joiner.run(stripe.times(), decoded, 0, range);
        }
    }
}

/// The sample that files have of a series at a time. What is damaged has none.
pub(super) fn sample_in_files(blocks: &[Arc<Block>], id: SeriesId, t: i64) -> Option<Sample> {
    let mut joiner = Joiner::default();
    let mut decoded = Decoded::default();
    for found in blocks.iter().filter(|found| found.meta().tier_ms == 0 && found.meta().overlaps(t, t)) {
        let mut reader = BlockReader::new(Arc::clone(found));
        if let Err(damage) = read_block(&mut reader, id, (t, t), &mut joiner, &mut decoded) {
            tracing::debug!(%damage, "a late sample cannot be compared");
        }
    }
    only_sample(&mut joiner)
}

fn only_sample(joiner: &mut Joiner) -> Option<Sample> {
    let column = joiner.finish(&mut SharedTimes::default(), &[]);
    match column.histograms.first() {
        Some((_, histogram)) => Some(Sample::Histogram(Arc::clone(histogram))),
        None => column.values.first().copied().map(Sample::Float),
    }
}

/// The sample that a view has of a series at a time.
pub(super) fn sample_in_view(view: &GroupView, series: SeriesRef, t: i64) -> Option<Sample> {
    let mut joiner = Joiner::default();
    let mut decoded = Decoded::default();
    for window in view.frozen.iter().filter(|window| window.number == crate::head::window_of(t)) {
        if window.series.get(series.slot.0 as usize) == Some(&series.id) {
            run_window(window, series.slot, (t, t), &mut joiner, &mut decoded);
        }
    }
    for stripe in view.stripes.iter().filter(|stripe| stripe.times().binary_search(&t).is_ok()) {
        decoded.clear();
        if stripe.read(series.slot.0, &mut decoded).is_ok() {
            joiner.run(stripe.times(), &decoded, 0, (t, t));
        }
    }
    only_sample(&mut joiner)
}
