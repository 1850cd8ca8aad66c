//! Files of every released version of the format are read for ever. `TELEMETRY_BLESS=1` writes those of this version
//! anew; a change of them is a change of the format.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use telemetry_model::native::CUSTOM_SCHEMA;
use telemetry_model::{NativeHistogram, ResetHint, STALE_MARKER};

use super::*;
use crate::codec::{Bits, Decoded, Effort, Encoder};
use crate::fs::Storage;
use crate::fs::sim::{Rng, SimStorage};
use crate::index::{FileIndex, LabelPairs, OwnerRef, SeriesId};

/// One series of the golden file: its times and cells.
struct Series {
    id: SeriesId,
    owner: OwnerRef,
    name: &'static str,
    times: Vec<i64>,
    cells: Decoded,
    effort: Effort,
}

fn floats(values: impl Iterator<Item = f64>) -> Decoded {
    Decoded { values: values.collect(), ..Decoded::default() }
}

fn histogram(k: u32, schema: i8) -> NativeHistogram {
    let count = f64::from(k);
    NativeHistogram {
        schema,
        reset: if k == 0 { ResetHint::Reset } else { ResetHint::Unknown },
        zero_threshold: 0.001,
        zero_count: count,
        count: count * 4.0,
        sum: count * 0.25,
        positive: [(1, count), (3, count)].into_iter().filter(|(_, count)| *count > 0.0).collect(),
        negative: std::iter::once((-2, count))
            .filter(|(_, count)| *count > 0.0 && schema != CUSTOM_SCHEMA)
            .collect(),
        custom_bounds: (schema == CUSTOM_SCHEMA).then(|| Arc::from([0.5, 1.0, 2.5])),
    }
}

/// Every codec of floats, times and histograms has its series.
fn series() -> Vec<Series> {
    let mut rng = Rng::new(1);
    let mut jitter = move |n: i64| i64::try_from(rng.below(n.unsigned_abs())).unwrap();
    let even: Vec<i64> = (0..40).map(|k| 1_764_000_000_000 + k * 5_000).collect();
    let shaky: Vec<i64> = even.iter().map(|t| t + jitter(4)).collect();
    let wild: Vec<i64> = even.iter().map(|t| t + jitter(2_000)).collect();
    let long: Vec<i64> = (0..300).map(|k| 1_764_000_000_000 + k * 15_000).collect();
    let mut noise = Rng::new(2);
    let mut random = move || f64::from_bits(0x3FF0_0000_0000_0000 | noise.number() >> 12);
    let mut gaps = floats((0..40).map(f64::from));
    let mut present = Bits::new(40);
    (0..40).filter(|k| k % 7 != 3).for_each(|k| present.set(k));
    gaps.present = Some(present);
    (0..40).filter(|k| k % 7 == 3).for_each(|k| gaps.values[k] = 0.0);
    let mut natives = floats((0..40).map(|_| 0.0));
    natives.histograms =
        (0..40).map(|k| (k, Arc::new(histogram(k, if k < 20 { 3 } else { CUSTOM_SCHEMA })))).collect();
    let mut mixed = floats((0..40).map(|k| if k % 2 == 0 { 0.0 } else { f64::from(k) }));
    mixed.histograms = (0..40).step_by(2).map(|k| (k, Arc::new(histogram(k, 0)))).collect();
    let all = [
        (1, 0, "zero", &even, floats((0..40).map(|_| 0.0)), Effort::Fast),
        (2, 0, "whole", &even, floats((0..40).map(|_| -17.0)), Effort::Fast),
        (3, 0, "raw", &even, floats((0..40).map(|_| 0.1)), Effort::Fast),
        (4, 7, "steady", &even, floats((0..40).map(|k| f64::from(k * 3))), Effort::Fast),
        (5, 7, "milli", &shaky, floats((0..40).map(|k| f64::from(k * k % 97) / 1000.0)), Effort::Fast),
        (6, 0, "random", &shaky, floats((0..40).map(|_| random())), Effort::Fast),
        (
            9,
            0,
            "stale",
            &wild,
            floats((0..40).map(|k| if k == 9 { STALE_MARKER } else { -0.0 })),
            Effort::Fast,
        ),
        (10, 9, "gaps", &wild, gaps, Effort::Fast),
        (11, 0, "native", &even, natives, Effort::Fast),
        (12, 0, "mixed", &even, mixed, Effort::Fast),
        (300, 0, "long_total", &long, floats((0..300).map(|k| f64::from(k * k % 211))), Effort::Long),
        (70_000, 0, "long", &long, floats((0..300).map(|k| (f64::from(k) / 7.0).sin())), Effort::Long),
    ];
    let make =
        |(id, owner, name, times, cells, effort): (u32, u32, &'static str, &Vec<i64>, Decoded, Effort)| {
            Series { id, owner: OwnerRef(owner), name, times: times.clone(), cells, effort }
        };
    all.into_iter().map(make).collect()
}

fn meta() -> BlockMeta {
    BlockMeta {
        id: 1,
        level: 1,
        min_t: 1_764_000_000_000,
        max_t: 1_764_007_199_999,
        sources: vec![40, 41],
        ..BlockMeta::default()
    }
}

fn pairs(all: &[(&str, &str)]) -> LabelPairs {
    all.iter().map(|(name, value)| (Arc::from(*name), Arc::from(*value))).collect()
}

/// Writes both files of this version; returns their paths.
fn write(disk: &SimStorage) -> [PathBuf; 2] {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let mut file = BlockWriter::new(Arc::clone(&storage), meta()).unwrap();
    let mut known: Vec<(Vec<i64>, GroupRef)> = Vec::new();
    let all = series();
    for one in &all {
        let group = match known.iter().find(|(times, _)| *times == one.times) {
            Some((_, group)) => *group,
            None => {
                let group = file.add_group(&one.times).unwrap();
                known.push((one.times.clone(), group));
                group
            }
        };
        let mut bytes = Vec::new();
        encode(&mut Encoder::default(), &one.cells, &mut bytes, one.effort);
        file.add_chunk(one.id, group, 0, &bytes).unwrap();
        file.count_samples(one.cells.present.as_ref().map_or(one.times.len(), Bits::count));
    }
    let index = FileIndex::encode(
        all.iter().map(|one| (one.id, one.owner, pairs(&[("__name__", one.name), ("job", "é")]))),
        |owner| Some((owner.0 == 7, pairs(&[("pod", if owner.0 == 7 { "bound" } else { "guess" })]))),
    );
    let raw = file.finish(&index, b"metadata").unwrap().path();
    let input = Arc::new(Block::open(disk, &raw).unwrap());
    let tier = Downsampled {
        meta: BlockMeta { id: 2, level: 2, sources: Vec::new(), ..BlockMeta::default() },
        tier_ms: 60_000,
        from: 1_764_000_000_000,
        to: 1_764_003_600_000,
    };
    let kind = |name: &str| if name.ends_with("_total") { Kind::Counter } else { Kind::Unknown };
    let made = downsample(&storage, &tier, &[input], &kind, &|_| Vec::new(), &|_| None).unwrap();
    [raw, made.path()]
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

const NAMES: [&str; 2] = ["block-v1.blk", "tier-v1.blk"];

/// A disk with the golden files on it.
fn golden_disk() -> (SimStorage, [PathBuf; 2]) {
    let made = SimStorage::default();
    let paths = write(&made);
    let disk = SimStorage::default();
    for (name, path) in NAMES.iter().zip(&paths) {
        if std::env::var_os("TELEMETRY_BLESS").is_some() {
            let file = made.open(path).unwrap();
            let bytes = crate::fs::read_all(&*file, 1 << 20).unwrap();
            // In one step: other tests read it at the same time.
            let new = golden(&format!("{name}.{:?}", std::thread::current().id()));
            std::fs::write(&new, bytes).unwrap();
            std::fs::rename(new, golden(name)).unwrap();
        }
        let bytes = std::fs::read(golden(name)).unwrap();
        disk.create(path).unwrap().write_at(&bytes, 0).unwrap();
    }
    (disk, paths)
}

fn read(block: &Arc<Block>, id: SeriesId) -> (Vec<i64>, Decoded) {
    let (mut times, mut cells) = (Vec::new(), Decoded::default());
    let mut reader = BlockReader::new(Arc::clone(block));
    let read = reader.chunks(id, (i64::MIN, i64::MAX), |reader, chunk| {
        times.extend_from_slice(&reader.times(&chunk)?);
        reader.read(&chunk, &mut cells)
    });
    read.unwrap();
    (times, cells)
}

#[test]
fn a_file_of_version_1_is_read_value_by_value() {
    let (disk, [raw, _]) = golden_disk();
    let block = Arc::new(Block::open(&disk, &raw).unwrap());
    assert!(block.verify().damaged.is_empty());
    assert_eq!(*block.meta(), BlockMeta { samples: 40 * 10 - 6 + 600, series: 12, ..meta() });
    assert_eq!(block.metadata().unwrap(), b"metadata");
    let index = block.index().unwrap();
    let owners: Vec<_> =
        index.owners().map(|(owner, bound, labels)| (owner.0, bound, labels.clone())).collect();
    assert_eq!(owners, [(7, true, pairs(&[("pod", "bound")])), (9, false, pairs(&[("pod", "guess")]))]);
    let all = series();
    assert_eq!(index.len(), all.len());
    for (one, (id, owner, labels)) in all.iter().zip(index.series()) {
        assert_eq!((id, owner, labels), (one.id, one.owner, pairs(&[("__name__", one.name), ("job", "é")])));
        let (times, cells) = read(&block, id);
        let bits = |cells: &Decoded| cells.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(times, one.times, "{}", one.name);
        assert_eq!(bits(&cells), bits(&one.cells), "{}", one.name);
        assert_eq!(cells.histograms, one.cells.histograms, "{}", one.name);
        assert!((0..times.len()).all(|at| cells.has(at) == one.cells.has(at)), "{}", one.name);
    }
}

#[test]
fn a_tier_of_version_1_is_read() {
    let (disk, [_, tier]) = golden_disk();
    let block = Arc::new(Block::open(&disk, &tier).unwrap());
    assert!(block.verify().damaged.is_empty());
    let mut reader = TierReader::new(Arc::clone(&block));
    let mut sum = |id, column| {
        let mut out = TierCells::default();
        let is_there = reader.read(id, column, (i64::MIN, i64::MAX), &mut out).unwrap();
        is_there.then(|| (out.times.len(), out.values.iter().sum::<f64>(), out.histograms.len()))
    };
    // 40 values 0, 3, ..., 117 every 5 s from an interval's end: the first belongs to the interval before.
    assert_eq!(sum(4, TierColumn::Count), Some((4, 39.0, 0)));
    assert_eq!(sum(4, TierColumn::Sum), Some((4, f64::from((0..40).sum::<i32>() * 3), 0)));
    assert_eq!(sum(4, TierColumn::Increase), Some((4, 117.0, 0)));
    assert_eq!(sum(4, TierColumn::Min), Some((4, f64::from(3 + 39 + 75 + 111), 0)));
    assert_eq!(sum(300, TierColumn::Min), None);
    assert_eq!(sum(11, TierColumn::Last), Some((4, 0.0, 4)));
}

#[test]
fn every_damaged_byte_of_a_golden_file_is_noticed() {
    let (disk, paths) = golden_disk();
    for path in paths {
        let len = usize::try_from(Block::open(&disk, &path).unwrap().bytes()).unwrap();
        for at in 0..len {
            let damaged = disk.copy();
            damaged.flip(&path, at, u32::try_from(at % 8).unwrap());
            let Ok(block) = Block::open(&damaged, &path).map(Arc::new) else { continue };
            assert!(!block.verify().damaged.is_empty(), "byte {at} of {}", path.display());
        }
    }
}

#[test]
fn every_codec_has_its_series() {
    let (disk, [raw, _]) = golden_disk();
    let block = Arc::new(Block::open(&disk, &raw).unwrap());
    let mut codes = std::collections::BTreeSet::new();
    for one in series() {
        let mut reader = BlockReader::new(Arc::clone(&block));
        let read = reader.chunks(one.id, (i64::MIN, i64::MAX), |reader, chunk| -> Result<(), Damage> {
            codes.insert(reader.packed(&chunk).unwrap()[0]);
            Ok(())
        });
        read.unwrap();
    }
    // Integers as they are, by differences of differences; constants; XOR; pco twice; presence, histograms, both.
    for code in [0xE1, 0xE2, 0xE6, 0xF0, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5] {
        assert!(codes.contains(&code), "{code:#x} is not among {codes:x?}");
    }
}
