//! Tiers against a naive model: every interval computed anew from all samples.

use std::collections::BTreeMap;

use proptest::prelude::*;
use telemetry_model::{NativeHistogram, ResetHint, STALE_MARKER, is_stale};

use super::*;
use crate::codec::Decoded;
use crate::fs::sim::SimStorage;
use crate::index::{FileIndex, LabelPairs, OwnerRef, SeriesId};

const TIER: i64 = 60;

#[derive(Clone, Debug)]
enum Cell {
    Float(f64),
    Histogram(Arc<NativeHistogram>),
}

type Samples = BTreeMap<i64, Cell>;

fn labels(id: SeriesId) -> LabelPairs {
    let name = ["c_total", "g", "u"][id as usize % 3];
    vec![(Arc::from(NAME), Arc::from(name)), (Arc::from("id"), Arc::from(id.to_string()))]
}

fn kind(name: &str) -> Kind {
    match name {
        "c_total" => Kind::Counter,
        "g" => Kind::Gauge,
        _ => Kind::Unknown,
    }
}

fn write(disk: &SimStorage, id: u64, is_late: bool, all: &BTreeMap<SeriesId, Samples>) -> Arc<Block> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let meta = BlockMeta { id, min_t: -1000, max_t: 1000, out_of_order: is_late, ..BlockMeta::default() };
    let mut file = BlockWriter::new(Arc::clone(&storage), meta).unwrap();
    for (id, samples) in all {
        let times: Vec<i64> = samples.keys().copied().collect();
        let group = file.add_group(&times).unwrap();
        let mut cells = Decoded::default();
        for (row, cell) in (0u32..).zip(samples.values()) {
            match cell {
                Cell::Float(value) => cells.values.push(*value),
                Cell::Histogram(histogram) => {
                    cells.values.push(0.0);
                    cells.histograms.push((row, Arc::clone(histogram)));
                }
            }
        }
        let mut bytes = Vec::new();
        encode(&mut Encoder::default(), &cells, &mut bytes, Effort::Fast);
        file.add_chunk(*id, group, 0, &bytes).unwrap();
    }
    let index = FileIndex::encode(all.keys().map(|id| (*id, OwnerRef(0), labels(*id))), |_| None);
    let meta = file.finish(&index, b"").unwrap();
    Arc::new(Block::open(&*storage, &meta.path()).unwrap())
}

fn make(disk: &SimStorage, inputs: &[Arc<Block>], from: i64, to: i64) -> Arc<Block> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let meta = BlockMeta { id: 100, ..BlockMeta::default() };
    let wanted = Downsampled { meta, tier_ms: TIER, from, to };
    let made = downsample(&storage, &wanted, inputs, &kind, &|_| Vec::new(), &|_| None).unwrap();
    assert_eq!((made.tier_ms, made.min_t, made.max_t), (TIER, from + 1, to));
    Arc::new(Block::open(disk, &made.path()).unwrap())
}

fn column(block: &Arc<Block>, id: SeriesId, column: TierColumn) -> Option<TierCells> {
    let mut out = TierCells::default();
    let mut reader = TierReader::new(Arc::clone(block));
    reader.read(id, column, (i64::MIN, i64::MAX), &mut out).unwrap().then_some(out)
}

fn floats(samples: &Samples, from: i64, to: i64) -> Vec<f64> {
    let cells = samples.range(from + 1..=to).map(|(_, cell)| cell);
    cells.filter_map(|cell| if let Cell::Float(value) = cell { Some(*value) } else { None }).collect()
}

/// What counters of these samples grew by over whole intervals: sample by sample.
fn growth(samples: &Samples, from: i64, to: i64) -> f64 {
    let (mut before, mut sum) = (None, 0.0);
    for (t, value) in
        samples.iter().filter_map(|(t, cell)| if let Cell::Float(v) = cell { Some((*t, *v)) } else { None })
    {
        if value.is_nan() || t <= -LOOKBACK_MS || t > to {
            continue;
        }
        if let Some(before) = before
            && t > from
        {
            sum += if value < before { value } else { value - before };
        }
        before = Some(value);
    }
    sum
}

fn check(block: &Arc<Block>, id: SeriesId, samples: &Samples, to: i64) -> Result<(), TestCaseError> {
    let bits = |all: &[f64]| all.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let (mut ends, mut last, mut counted, mut count, mut valued) = (vec![], vec![], vec![], vec![], vec![]);
    let (mut min, mut max, mut sum) = (vec![], vec![], vec![]);
    for end in (0..to).step_by(60).map(|start| start + TIER) {
        let all = floats(samples, end - TIER, end);
        let real: Vec<f64> = all.iter().copied().filter(|v| !is_stale(*v)).collect();
        if let Some(newest) = all.last() {
            ends.push(end);
            last.push(*newest);
        }
        if !real.is_empty() {
            counted.push(end);
            count.push(real.len() as f64);
            valued.push(end);
            min.push(real.iter().copied().fold(f64::NAN, f64::min));
            max.push(real.iter().copied().fold(f64::NAN, f64::max));
            sum.push(real.iter().sum::<f64>());
        }
    }
    let got = column(block, id, TierColumn::Last).unwrap_or_default();
    prop_assert_eq!(&got.times, &ends);
    prop_assert_eq!(bits(&got.values), bits(&last));
    let got = column(block, id, TierColumn::Count).unwrap_or_default();
    prop_assert_eq!((&got.times, &got.values), (&counted, &count));
    let is_gauge = kind(&labels(id)[0].1) != Kind::Counter;
    for (name, expected) in [(TierColumn::Min, &min), (TierColumn::Max, &max), (TierColumn::Sum, &sum)] {
        let got = column(block, id, name);
        prop_assert_eq!(got.is_some(), is_gauge && !valued.is_empty(), "{:?} of {}", name, id);
        if let Some(got) = got {
            prop_assert_eq!(&got.times, &valued);
            for (a, b) in got.values.iter().zip(expected) {
                prop_assert!(a == b || (a.is_nan() && b.is_nan()), "{:?}: {} is not {}", name, a, b);
            }
        }
    }
    if kind(&labels(id)[0].1) == Kind::Gauge {
        prop_assert_eq!(column(block, id, TierColumn::Increase), None);
        return Ok(());
    }
    let got = column(block, id, TierColumn::Increase).unwrap_or_default();
    for start in (0..to).step_by(60) {
        for end in (start..=to).step_by(60) {
            let rows = got.times.iter().zip(&got.values).filter(|(t, _)| **t > start && **t <= end);
            prop_assert_eq!(
                rows.map(|(_, v)| v).sum::<f64>(),
                growth(samples, start, end),
                "({}, {}]",
                start,
                end
            );
        }
    }
    Ok(())
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        20 => (0..400i32).prop_map(|v| f64::from(v) / 8.0),
        1 => Just(STALE_MARKER),
        1 => Just(f64::NAN),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn rows_are_what_all_samples_of_their_interval_say(
        samples in prop::collection::btree_map((0..3u32, -100..700i64), value(), 0..150),
        is_rising in any::<bool>(),
        cut in -100..700i64,
        late in prop::collection::btree_set(0..100usize, 0..5),
    ) {
        let disk = SimStorage::default();
        let mut all: BTreeMap<SeriesId, Samples> = BTreeMap::new();
        for (((id, t), value), at) in samples.iter().zip(0..) {
            // Mostly growing, with resets where the random part falls by more than the steps rise.
            let value = if is_rising && !value.is_nan() { value + f64::from(at) } else { *value };
            all.entry(*id).or_default().insert(*t, Cell::Float(value));
        }
        let mut parts = vec![BTreeMap::<SeriesId, Samples>::new(); 3];
        for (n, (id, t, cell)) in all.iter().flat_map(|(id, s)| s.iter().map(move |(t, c)| (*id, *t, c))).enumerate() {
            let part = if late.contains(&n) { 2 } else { usize::from(t >= cut) };
            parts[part].entry(id).or_default().insert(t, cell.clone());
        }
        let inputs: Vec<_> = (1..).zip(&parts).map(|(n, part)| write(&disk, n, n == 3, part)).collect();
        let made = make(&disk, &inputs, 0, 600);
        for (id, samples) in &all {
            check(&made, *id, samples, 600)?;
        }
        let found: Vec<_> = made.index().unwrap().series().map(|(id, _, found)| (id, found)).collect();
        let expected = all.iter().filter(|(_, s)| s.range(1..=600).next().is_some());
        prop_assert_eq!(found, expected.map(|(id, _)| (*id, labels(*id))).collect::<Vec<_>>());
        prop_assert!(made.verify().damaged.is_empty());
    }

    #[test]
    fn histograms_grow_in_rows_as_they_grow_in_samples(
        steps in prop::collection::vec((1..25i64, 0..40u32, prop::collection::vec((-3..4i32, 0..9u32), 0..3)), 1..60),
        coarser_from in 0..80usize,
    ) {
        let disk = SimStorage::default();
        let (mut samples, mut t) = (Samples::new(), -50i64);
        let (mut counts, mut zero) = (BTreeMap::<i32, f64>::new(), 0.0);
        let mut totals: Vec<(i64, f64, f64)> = Vec::new();
        let (mut all, mut before) = (0.0, None::<f64>);
        for (n, (step, dice, grown)) in steps.iter().enumerate() {
            t += step;
            if *dice == 0 {
                samples.insert(t, Cell::Float(STALE_MARKER));
                continue;
            }
            if *dice == 1 {
                (counts, zero) = (BTreeMap::new(), 0.0);
                before = before.map(|_| 0.0);
            }
            zero += 1.0;
            grown.iter().for_each(|(index, count)| *counts.entry(*index).or_default() += f64::from(*count));
            let mut positive: BTreeMap<i32, f64> = BTreeMap::new();
            let is_coarse = n >= coarser_from;
            for (index, count) in counts.iter().filter(|(_, count)| **count > 0.0) {
                let to = if is_coarse { ((index - 1) >> 1) + 1 } else { *index };
                *positive.entry(to).or_default() += count;
            }
            let count = zero + counts.values().sum::<f64>();
            // Counted from the first sample that anybody saw.
            all += before.map_or(0.0, |before| count - before);
            before = Some(count);
            totals.push((t, all, count));
            let histogram = NativeHistogram {
                schema: if is_coarse { 2 } else { 3 },
                reset: if *dice == 1 { ResetHint::Reset } else { ResetHint::Unknown },
                zero_count: zero,
                count,
                sum: count * 2.0,
                positive: positive.into_iter().collect(),
                ..NativeHistogram::default()
            };
            samples.insert(t, Cell::Histogram(Arc::new(histogram)));
        }
        let block = write(&disk, 1, false, &BTreeMap::from([(0, samples)]));
        let made = make(&disk, &[block], 0, 600);
        let got = column(&made, 0, TierColumn::Increase).unwrap_or_default();
        prop_assert_eq!(got.histograms.len(), got.times.len());
        for start in (0..600).step_by(60) {
            for end in (start..=600).step_by(60) {
                let at = |t: i64| totals.iter().rev().find(|x| x.0 <= t).or(totals.first()).map_or(0.0, |x| x.1);
                let rows = got.histograms.iter().filter(|(at, _)| (start + 1..=end).contains(&got.times[*at as usize]));
                let (mut count, mut sum, mut buckets) = (0.0, 0.0, 0.0);
                for (_, h) in rows {
                    count += h.count;
                    sum += h.sum;
                    buckets += h.zero_count + h.positive.counts.iter().sum::<f64>();
                }
                let expected = at(end) - at(start);
                prop_assert_eq!((count, sum, buckets), (expected, expected * 2.0, expected), "({}, {}]", start, end);
            }
        }
        let last = column(&made, 0, TierColumn::Last).unwrap_or_default();
        for (at, h) in &last.histograms {
            let end = last.times[*at as usize];
            let newest = totals.iter().rev().find(|x| x.0 <= end).unwrap();
            prop_assert_eq!(h.count, newest.2);
        }
    }
}

#[test]
fn a_gauge_histogram_is_summed() {
    let disk = SimStorage::default();
    let of = |count: f64| {
        let positive = std::iter::once((1, count)).collect();
        Cell::Histogram(Arc::new(NativeHistogram {
            reset: ResetHint::Gauge,
            count,
            sum: count,
            positive,
            ..NativeHistogram::default()
        }))
    };
    let samples = Samples::from([(10, of(3.0)), (20, of(1.0)), (70, of(2.0))]);
    let block = write(&disk, 1, false, &BTreeMap::from([(1, samples)]));
    let made = make(&disk, &[block], 0, 120);
    let sum = column(&made, 1, TierColumn::Sum).unwrap();
    assert_eq!(sum.histograms.iter().map(|(_, h)| h.count).collect::<Vec<_>>(), [4.0, 2.0]);
    assert_eq!(column(&made, 1, TierColumn::Count).unwrap().values, [2.0, 1.0]);
    assert_eq!(column(&made, 1, TierColumn::Increase), None);
}

#[test]
fn a_range_that_is_no_number_of_intervals_is_refused() {
    let storage: Arc<dyn Storage> = Arc::new(SimStorage::default());
    for (tier_ms, from, to) in [(60, 0, 90), (60, 30, 120), (0, 0, 60), (60, 60, 60), (1, i64::MIN, i64::MAX)]
    {
        let wanted = Downsampled { meta: BlockMeta::default(), tier_ms, from, to };
        let made = downsample(&storage, &wanted, &[], &kind, &|_| Vec::new(), &|_| None);
        assert!(made.is_err(), "{tier_ms} {from} {to}");
    }
}
