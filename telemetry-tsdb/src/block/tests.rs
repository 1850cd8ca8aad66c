//! Files against what was put in; damage against every byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::codec::{Cells, Decoded, Effort, Encoder};
use crate::fs::Storage;
use crate::fs::sim::SimStorage;
use crate::index::{FileIndex, LabelPairs, OwnerRef, SeriesId};

type Samples = BTreeMap<SeriesId, BTreeMap<i64, f64>>;

fn labels(id: SeriesId) -> LabelPairs {
    vec![(Arc::from("__name__"), Arc::from("x")), (Arc::from("id"), Arc::from(id.to_string().as_str()))]
}

/// One group a series: each has times of its own here.
fn write(disk: &SimStorage, meta: BlockMeta, samples: &Samples) -> Arc<Block> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let mut file = BlockWriter::new(Arc::clone(&storage), meta).unwrap();
    for (id, list) in samples.iter().filter(|(_, list)| !list.is_empty()) {
        let times: Vec<i64> = list.keys().copied().collect();
        let values: Vec<f64> = list.values().copied().collect();
        let group = file.add_group(&times).unwrap();
        let mut bytes = Vec::new();
        let cells = Cells { values: &values, present: None, histograms: &[] };
        Encoder::default().encode_cells(&cells, &mut bytes, Effort::Fast);
        file.add_chunk(*id, group, 0, &bytes).unwrap();
        file.count_samples(values.len());
    }
    let ids =
        samples.iter().filter(|(_, list)| !list.is_empty()).map(|(id, _)| (*id, OwnerRef(0), labels(*id)));
    let meta = file.finish(&FileIndex::encode(ids, |_| None), b"meta").unwrap();
    Arc::new(Block::open(&*storage, &meta.path()).unwrap())
}

fn read(block: &Arc<Block>) -> Result<Samples, Damage> {
    let mut reader = BlockReader::new(Arc::clone(block));
    let mut all = Samples::new();
    for (id, _, found) in block.index()?.series() {
        assert_eq!(found, labels(id), "labels are what was written");
        all.insert(id, read_series(&mut reader, id)?);
    }
    Ok(all)
}

fn read_series(reader: &mut BlockReader, id: SeriesId) -> Result<BTreeMap<i64, f64>, Damage> {
    let mut list = BTreeMap::new();
    reader.chunks(id, (i64::MIN, i64::MAX), |reader, chunk| -> Result<(), Damage> {
        let mut cells = Decoded::default();
        let times = reader.times(&chunk)?;
        reader.read(&chunk, &mut cells)?;
        list.extend(
            times
                .iter()
                .copied()
                .zip(0..)
                .filter(|(_, at)| cells.has(*at))
                .map(|(t, at)| (t, cells.values[at])),
        );
        Ok(())
    })?;
    Ok(list)
}

fn meta(id: u64, out_of_order: bool) -> BlockMeta {
    BlockMeta { id, min_t: 0, max_t: 10_000, out_of_order, ..BlockMeta::default() }
}

fn sample_file(disk: &SimStorage) -> (Arc<Block>, Samples) {
    let series = |id: u32| (0..20).map(move |k| (i64::from(k * 10 + id % 3), f64::from(k * id).sqrt()));
    // Wide enough for several pages.
    let samples: Samples = (0..600).map(|id| (id, series(id).collect())).collect();
    (write(disk, meta(1, false), &samples), samples)
}

fn small_file(disk: &SimStorage) -> (PathBuf, Samples) {
    let series = |id: u32| (0..12).map(move |k| (i64::from(k * 10), f64::from(k * id) * 0.5));
    let samples: Samples = (0..12).map(|id| (id, series(id).collect())).collect();
    (write(disk, meta(1, false), &samples).path().to_owned(), samples)
}

#[test]
fn what_is_written_is_read() {
    let disk = SimStorage::default();
    let (block, samples) = sample_file(&disk);
    assert_eq!(read(&block).unwrap(), samples);
    assert_eq!((block.meta().series, block.meta().samples), (600, 12_000));
    assert_eq!(block.metadata().unwrap(), b"meta");
    assert!(block.verify().damaged.is_empty());
    assert!(disk.files().iter().all(|(path, _)| path.extension() != Some("tmp".as_ref())));
}

/// Every byte flipped, in turn: what is read is right, or it is an error, and only of what the byte belongs to.
#[test]
fn each_damaged_byte_is_noticed_or_harmless() {
    let disk = SimStorage::default();
    let (path, samples) = small_file(&disk);
    let len = usize::try_from(Block::open(&disk, &path).unwrap().bytes()).unwrap();
    let (mut refused, mut partial, mut harmless) = (0, 0, 0);
    for at in 0..len {
        let damaged = disk.copy();
        damaged.flip(&path, at, u32::try_from(at % 8).unwrap());
        let Ok(block) = Block::open(&damaged, &path).map(Arc::new) else {
            refused += 1;
            continue;
        };
        let mut reader = BlockReader::new(Arc::clone(&block));
        let mut lost = 0;
        for (id, expected) in &samples {
            match read_series(&mut reader, *id) {
                Ok(got) => assert_eq!(&got, expected, "byte {at}: a wrong value"),
                Err(_) => lost += 1,
            }
        }
        if let Ok(index) = block.index() {
            index
                .series()
                .for_each(|(id, _, found)| assert_eq!(found, labels(id), "byte {at}: a wrong label"));
        }
        let is_noticed = !block.verify().damaged.is_empty();
        assert!(lost == 0 || is_noticed, "byte {at}: a loss nobody hears of");
        if is_noticed { partial += 1 } else { harmless += 1 }
    }
    assert_eq!(harmless, 0, "of {len} bytes so many are not watched");
    assert!(partial > refused, "most damage costs a part: {refused} refused, {partial} in part");
}

/// A file that was cut has lost its index: it is refused, whatever its length.
#[test]
fn a_file_cut_anywhere_is_refused_or_whole() {
    let disk = SimStorage::default();
    let (path, samples) = small_file(&disk);
    let len = Block::open(&disk, &path).unwrap().bytes();
    let mut opened = 0;
    for end in 0..usize::try_from(len).unwrap() {
        let damaged = disk.copy();
        damaged.truncate(&path, end);
        let Ok(block) = Block::open(&damaged, &path).map(Arc::new) else { continue };
        opened += 1;
        assert_eq!(read(&block).unwrap(), samples, "cut at {end}: nothing but table and footer may be gone");
        assert!(!block.verify().damaged.is_empty(), "cut at {end}");
    }
    assert!(opened > 50, "a file that lost only its table is read: {opened}");
}

/// Blocks of the disk that come back as zeros, with and without the table: an error for what was there, and only that.
#[test]
fn a_zeroed_page_is_an_error_for_its_series_alone() {
    let disk = SimStorage::default();
    let (block, samples) = sample_file(&disk);
    let (path, len) = (block.path().to_owned(), usize::try_from(block.bytes()).unwrap());
    for (at, lose_table) in (0..len).step_by(3 * 512).flat_map(|at| [(at, false), (at, true)]) {
        let damaged = disk.copy();
        let file = damaged.open(&path).unwrap();
        file.write_at(&vec![0; 512.min(len - at)], at as u64).unwrap();
        if lose_table {
            damaged.flip(&path, len - 10, 3);
        }
        let Ok(block) = Block::open(&damaged, &path).map(Arc::new) else { continue };
        let mut reader = BlockReader::new(Arc::clone(&block));
        let good = samples.iter().filter(|(id, expected)| match read_series(&mut reader, **id) {
            Ok(got) => {
                assert_eq!(&&got, expected, "zeros at {at}: a wrong answer for {id}");
                true
            }
            Err(_) => false,
        });
        let good = good.count();
        assert!(good > samples.len() / 2, "zeros at {at} (table lost: {lose_table}) left {good} series");
        assert!(!block.verify().damaged.is_empty(), "zeros at {at} go unnoticed");
    }
}

#[test]
fn a_file_without_its_table_is_still_what_it_was() {
    let disk = SimStorage::default();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let meta = BlockMeta { tier_ms: 60_000, level: 2, sources: vec![3, 4], ..meta(5, false) };
    let mut file = BlockWriter::new(storage, meta.clone()).unwrap();
    let group = file.add_group(&[60_000]).unwrap();
    file.add_chunk(1, group, 3, &[0]).unwrap();
    file.finish(&FileIndex::encode(std::iter::once((1, OwnerRef(0), labels(1))), |_| None), b"").unwrap();
    let len = Block::open(&disk, &meta.path()).unwrap().bytes();
    for at in [len - 10, len - 45] {
        let damaged = disk.copy();
        damaged.flip(&meta.path(), usize::try_from(at).unwrap(), 1);
        let block = Block::open(&damaged, &meta.path()).unwrap();
        let got = block.meta();
        assert!(block.is_damaged());
        assert_eq!((got.tier_ms, got.level, &got.sources[..], got.min_t), (60_000, 2, &[3, 4][..], 0));
    }
}

#[test]
fn a_later_version_is_refused_by_name() {
    let disk = SimStorage::default();
    let mut bytes = Vec::new();
    frame::put(&mut bytes, frame::kind::HEADER, &[9]);
    let path = Path::new("blocks/000000000007.blk");
    disk.create(path).unwrap().write_at(&bytes, 0).unwrap();
    assert!(matches!(Block::open(&disk, path), Err(Damage::Version { version: 9, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn compaction_keeps_every_sample(
        files in prop::collection::vec(prop::collection::vec((0..6u32, 0..40i64, -100..100i32), 0..60), 1..5),
        late in prop::collection::vec((0..7u32, 0..200i64, -100..100i32), 0..30),
        cut in (0..200i64, 0..40i64, 0..6u32),
    ) {
        let disk = SimStorage::default();
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let mut expected = Samples::new();
        let mut inputs = Vec::new();
        for (at, cells) in files.iter().enumerate() {
            let mut samples = Samples::new();
            for (id, t, value) in cells {
                samples.entry(*id).or_default().insert(i64::try_from(at).unwrap() * 40 + t, f64::from(*value) / 8.0);
            }
            inputs.push(write(&disk, meta(at as u64 + 1, false), &samples));
            samples.into_iter().for_each(|(id, list)| expected.entry(id).or_default().extend(list));
        }
        let mut samples = Samples::new();
        for (id, t, value) in &late {
            samples.entry(*id).or_default().insert(*t, f64::from(*value) / 4.0);
        }
        inputs.push(write(&disk, meta(9, true), &samples));
        for (id, list) in samples {
            let known = expected.entry(id).or_default();
            // What came in order stays.
            list.into_iter().for_each(|(t, value)| { known.entry(t).or_insert(value); });
        }
        let (from, len, of) = cut;
        if let Some(list) = expected.get_mut(&of) {
            list.retain(|t, _| !(from..=from + len).contains(t));
        }
        expected.retain(|_, list| !list.is_empty());
        let deleted = |id: SeriesId| if id == of { vec![(from, from + len)] } else { Vec::new() };
        let made = compact(&storage, meta(10, false), &inputs, &deleted, &|_| None).unwrap();
        let joined = Arc::new(Block::open(&disk, &made.path()).unwrap());
        prop_assert_eq!(read(&joined).unwrap(), expected.clone());
        prop_assert_eq!(made.samples, expected.values().map(|list| list.len() as u64).sum::<u64>());
        let day = join(&storage, meta(11, false), &[joined], &|_| None).unwrap();
        prop_assert_eq!(read(&Arc::new(Block::open(&disk, &day.path()).unwrap())).unwrap(), expected);
    }
}
