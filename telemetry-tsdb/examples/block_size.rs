//! Bytes a sample of files: fresh, compacted, joined to a day, downsampled. `cargo run --release -p telemetry-tsdb
//! --example block_size [SERIES]`; two hours every five seconds of the data set that all figures are of.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement at a terminal")]
#![allow(clippy::indexing_slicing, clippy::cast_precision_loss, reason = "a measurement at a terminal")]

#[path = "../../tests/src/datagen.rs"]
#[allow(dead_code, unfulfilled_lint_expectations, reason = "shared with the benches, where more is linted")]
mod datagen;

use std::sync::Arc;
use std::time::Instant;

use telemetry_tsdb::block::{
    self, Block, BlockMeta, BlockReader, BlockWriter, Downsampled, Kind, TierCells, TierColumn, TierReader,
};
use telemetry_tsdb::codec::{Decoded, Effort, Encoder};
use telemetry_tsdb::fs::{RealStorage, Storage};
use telemetry_tsdb::index::{FileIndex, LabelPairs, OwnerRef};

const START: i64 = 1_764_000_000_000;
const WINDOW_MS: i64 = 20 * 60 * 1000;
const WINDOWS: i64 = 6;
const TICKS: usize = 240;

fn labels(at: usize, series: usize) -> LabelPairs {
    let pairs = datagen::labels(at, series).into_iter();
    pairs.map(|(name, value)| (Arc::from(name), Arc::from(value.as_str()))).collect()
}

fn index(series: usize) -> Vec<u8> {
    let all = (0..series).map(|at| (u32::try_from(at).unwrap(), OwnerRef(0), labels(at, series)));
    FileIndex::encode(all, |_| None)
}

fn open(storage: &Arc<dyn Storage>, meta: &BlockMeta) -> Arc<Block> {
    Arc::new(Block::open(&**storage, &meta.path()).unwrap())
}

fn report(what: &str, files: &[Arc<Block>], raw: f64, begun: Instant) {
    let bytes: u64 = files.iter().map(|file| file.bytes()).sum();
    let nanos = begun.elapsed().as_nanos() as f64;
    println!("{what:<28} {:.4} B a raw sample, {:.1} ns a raw sample", bytes as f64 / raw, nanos / raw);
}

fn main() {
    let series: usize = std::env::args().nth(1).map_or(20_000, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(RealStorage::open(dir.path()).unwrap());
    let raw = (series * TICKS * usize::try_from(WINDOWS).unwrap()) as f64;
    let packed = index(series);
    println!("index {:.4} B a sample of a fresh file", packed.len() as f64 / (series * TICKS) as f64);

    let begun = Instant::now();
    let fresh: Vec<_> = write(&storage, series, &packed);
    report("fresh, making data included", &fresh, raw, begun);

    let begun = Instant::now();
    let meta = BlockMeta {
        id: 10,
        level: 1,
        min_t: START,
        max_t: START + WINDOWS * WINDOW_MS,
        ..BlockMeta::default()
    };
    let made = block::compact(&storage, meta, &fresh, &|_| Vec::new(), &|_| None).unwrap();
    let compacted = open(&storage, &made);
    report("compacted to two hours", std::slice::from_ref(&compacted), raw, begun);

    let begun = Instant::now();
    let meta = BlockMeta { id: 11, level: 2, ..made };
    let joined = block::join(&storage, meta, std::slice::from_ref(&compacted), &|_| None).unwrap();
    report("joined", &[open(&storage, &joined)], raw, begun);

    for (number, minutes) in [(20, 1), (21, 5), (22, 60)] {
        let begun = Instant::now();
        let tier_ms = minutes * 60_000;
        let from = (START / tier_ms + 1) * tier_ms;
        let to = (START + WINDOWS * WINDOW_MS) / tier_ms * tier_ms;
        let wanted =
            Downsampled { meta: BlockMeta { id: number, ..BlockMeta::default() }, tier_ms, from, to };
        let kind = |name: &str| {
            if name.ends_with("_total") || name.ends_with("_bucket") { Kind::Counter } else { Kind::Gauge }
        };
        let inputs = std::slice::from_ref(&compacted);
        let made = block::downsample(&storage, &wanted, inputs, &kind, &|_| Vec::new(), &|_| None).unwrap();
        let tier = open(&storage, &made);
        report(&format!("tier of {minutes} min"), std::slice::from_ref(&tier), raw, begun);
        let (mut reader, mut out, begun) =
            (TierReader::new(Arc::clone(&tier)), TierCells::default(), Instant::now());
        let mut rows = 0;
        for id in 0..u32::try_from(series).unwrap() {
            out.clear();
            reader.read(id, TierColumn::Increase, (i64::MIN, i64::MAX), &mut out).unwrap();
            rows += out.times.len();
        }
        println!("  increase read: {:.1} ns a row", begun.elapsed().as_nanos() as f64 / rows as f64);
    }
    read(&compacted, series);
}

fn write(storage: &Arc<dyn Storage>, series: usize, packed: &[u8]) -> Vec<Arc<Block>> {
    let mut generator = datagen::Generator::new(series);
    let (mut encoder, mut cells, mut bytes) = (Encoder::default(), Decoded::default(), Vec::new());
    let mut fresh = Vec::new();
    for window in 0..WINDOWS {
        let rows: Vec<Vec<f64>> = (0..TICKS).map(|_| generator.tick().to_vec()).collect();
        let first = window * i64::try_from(TICKS).unwrap();
        let times: Vec<i64> = (first..).take(TICKS).map(|k| datagen::timestamp(START, k)).collect();
        let begun = Instant::now();
        let meta = BlockMeta {
            id: u64::try_from(window).unwrap() + 1,
            min_t: START + window * WINDOW_MS,
            max_t: START + (window + 1) * WINDOW_MS - 1,
            ..BlockMeta::default()
        };
        let mut file = BlockWriter::new(Arc::clone(storage), meta).unwrap();
        let group = file.add_group(&times).unwrap();
        for at in 0..series {
            cells.clear();
            cells.values.extend(rows.iter().map(|row| row[at]));
            bytes.clear();
            block::encode(&mut encoder, &cells, &mut bytes, Effort::Fast);
            file.add_chunk(u32::try_from(at).unwrap(), group, 0, &bytes).unwrap();
            file.count_samples(TICKS);
        }
        let meta = file.finish(packed, b"").unwrap();
        let samples = (series * TICKS) as f64;
        println!(
            "  window {window}: encode, write, sync {:.1} ns a sample",
            begun.elapsed().as_nanos() as f64 / samples
        );
        fresh.push(open(storage, &meta));
    }
    fresh
}

fn read(file: &Arc<Block>, series: usize) {
    let mut reader = BlockReader::new(Arc::clone(file));
    let (mut decoded, mut samples, begun) = (Decoded::default(), 0, Instant::now());
    for id in 0..u32::try_from(series.min(1_800)).unwrap() {
        let read = reader.chunks(id, (i64::MIN, i64::MAX), |reader, chunk| {
            decoded.clear();
            samples += reader.times(&chunk)?.len();
            reader.read(&chunk, &mut decoded)
        });
        read.unwrap();
    }
    println!("read of 1,800 series: {:.1} ns a sample", begun.elapsed().as_nanos() as f64 / samples as f64);
    let begun = Instant::now();
    drop(file.index().unwrap());
    println!("index: {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
}
