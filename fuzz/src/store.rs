//! Decoders of the store: records of the log, chunks, files and their indexes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use telemetry_model::{MatchOp, Matcher, NativeHistogram};
use telemetry_tsdb::block::{Block, BlockReader, Damage, TierCells, TierColumn, TierReader};
use telemetry_tsdb::codec::{
    Bits, Cells, Decoded, Effort, Encoder, FloatCoder, decode_cells, decode_floats, decode_times,
    encode_times,
};
use telemetry_tsdb::db::record::{self, kind};
use telemetry_tsdb::db::{Config, Db, Exemplar, Metadata, Tombstone, Work};
use telemetry_tsdb::fs::sim::{SimClock, SimStorage};
use telemetry_tsdb::fs::{Storage, read_all};
use telemetry_tsdb::head::{GroupId, Sample};
use telemetry_tsdb::index::{FileIndex, OwnerRef, compile};
use telemetry_tsdb::log::{RowDecoder, RowEncoder, scan};
use telemetry_tsdb::wire::Reader;

/// A whole number of two-hour buckets.
pub const START: i64 = 1_699_999_200_000;
/// The first segment of a log.
pub const SEGMENT: &str = "log/00000000000000000000-000.seg";
/// The first file of a store.
pub const FILE: &str = "blocks/000000000001.blk";

/// A disk with one file.
pub fn disk_with(path: &str, bytes: &[u8]) -> SimStorage {
    let disk = SimStorage::default();
    put_file(&disk, Path::new(path), bytes);
    disk
}

/// Puts a file on a disk.
pub fn put_file(disk: &SimStorage, path: &Path, bytes: &[u8]) {
    let file = disk.create(path).expect("a new disk takes a file");
    file.write_at(bytes, 0).and_then(|()| file.sync()).expect("an endless disk takes bytes");
    disk.sync_dir(path.parent().unwrap_or(Path::new(""))).expect("nothing fails");
}

/// A small store with files, tiers and a log that has a record of each kind.
pub fn small_store() -> SimStorage {
    let (disk, clock) = (SimStorage::default(), Arc::new(SimClock::at(START)));
    let (db, _) =
        Db::open(Config::default(), Arc::new(disk.clone()), clock.clone()).expect("a new store opens");
    let group = db.group("g").expect("a group");
    let owner = db.create_owner(&[("pod", "a")]);
    let labels = |k| [("__name__", "x_total"), ("k", k)];
    let series: Vec<_> =
        ["0", "1", "2", "3"].iter().filter_map(|k| db.series(group, &labels(*k), owner)).collect();
    db.set_metadata("x_total", Metadata { kind: "counter".into(), ..Metadata::default() });
    for tick in 0..200i32 {
        let t = START + i64::from(tick) * 60_000;
        clock.set(t);
        let cells = series.iter().zip(0i32..).map(|(series, k)| {
            let sample = if k == 3 {
                let positive = [(1, f64::from(tick)), (4, 2.0)].into_iter().collect();
                let count = f64::from(tick) + 2.0;
                let histogram = NativeHistogram { schema: 3, count, positive, ..NativeHistogram::default() };
                Sample::Histogram(Arc::new(histogram))
            } else {
                Sample::Float(f64::from(tick * k) / 4.0)
            };
            (*series, sample)
        });
        db.append_row(group, t, cells);
        if let Some(first) = series.first().filter(|_| tick % 7 == 0) {
            db.append([(*first, t - 30_000, Sample::Float(-1.0))]);
            let labels = vec![("trace_id".into(), tick.to_string().into())];
            db.add_exemplar(Exemplar { series: first.id, t, value: 1.0, labels });
        }
        if tick == 195 {
            db.bind_owner(owner, &[("pod", "web")]);
            let second = [Matcher::new("k", MatchOp::Equal, "1")];
            db.delete(&second, t - 600_000, t - 300_000).expect("nothing fails");
        }
        if let Some(third) = series.get(2).filter(|_| tick == 197) {
            db.end(&[*third], t);
        }
        db.commit().expect("nothing fails");
        while db.maintain() != Work::Nothing {}
    }
    disk
}

/// The files of a small store that end so.
pub fn files_of(extension: &str) -> Vec<Vec<u8>> {
    let disk = small_store();
    let wanted: Vec<PathBuf> = disk
        .files()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    wanted
        .iter()
        .map(|path| disk.open(path).and_then(|file| read_all(&*file, 1 << 20)).expect("it is there"))
        .collect()
}

/// Opens a store on a disk and reads all of it; what is damaged is an error, never a panic.
fn read_store(disk: SimStorage) {
    let clock = Arc::new(SimClock::at(START + 12_000_000));
    let Ok((db, _)) = Db::open(Config::default(), Arc::new(disk), clock) else { return };
    let everything = [Matcher::new("__name__", MatchOp::Regex, ".*")];
    let Ok(selection) = db.select(&everything, i64::MIN, i64::MAX) else { return };
    let mut reader = selection.reader();
    for series in selection.series().iter().take(1000) {
        let _ = reader.read(series, i64::MIN, i64::MAX);
    }
}

/// A segment of the log, scanned and replayed.
pub fn log_segment(bytes: &[u8]) {
    let mut records = 0u64;
    let skipped = scan(bytes, |_| records += 1);
    assert!(skipped <= bytes.len() as u64, "more was passed over than there is");
    read_store(disk_with(SEGMENT, bytes));
}

/// Good segments.
pub fn log_segments() -> Vec<Vec<u8>> {
    files_of("seg")
}

/// A body of a record; the first byte says of which kind.
pub fn log_body(bytes: &[u8]) {
    let Some((of, sealed)) = bytes.split_first() else { return };
    let Ok(body) = record::unseal(sealed) else { return };
    let mut r = Reader::new(&body);
    let mut next = || match *of {
        kind::SERIES => record::get_series(&mut r).is_ok(),
        kind::OWNER => record::get_owner(&mut r).is_ok(),
        kind::SAMPLES => record::get_sample(&mut r).is_ok(),
        kind::METADATA => record::get_metadata(&mut r).is_ok(),
        kind::EXEMPLARS => record::get_exemplar(&mut r).is_ok(),
        kind::TOMBSTONE => record::get_tombstone(&mut r).is_ok(),
        kind::END => record::get_ends(&mut r).is_ok(),
        kind::CHECKPOINT => record::get_checkpoint(&mut r).is_ok(),
        kind::HISTOGRAMS => record::get_row_head(&mut r).is_ok() && record::get_histogram(&mut r).is_ok(),
        _ => false,
    };
    while next() {}
}

/// Good bodies of each kind.
pub fn log_bodies() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut add = |kind: u8, put: &dyn Fn(&mut Vec<u8>)| {
        let mut body = Vec::new();
        put(&mut body);
        all.push([&[kind], record::seal(&body).as_slice()].concat());
    };
    let histogram = || NativeHistogram {
        schema: telemetry_model::native::CUSTOM_SCHEMA,
        count: 3.0,
        positive: [(0, 1.0), (2, 2.0)].into_iter().collect(),
        custom_bounds: Some(Arc::from([1.0, 2.0])),
        ..NativeHistogram::default()
    };
    add(kind::OWNER, &|out| record::put_owner(out, OwnerRef(1), true, &[("pod", "a"), ("container", "b")]));
    add(kind::SAMPLES, &|out| {
        record::put_sample(out, 4, 5, &Sample::Float(0.5));
        record::put_sample(out, 4, 6, &Sample::Histogram(Arc::new(histogram())));
    });
    add(kind::METADATA, &|out| {
        record::put_metadata(out, "x", &Metadata { kind: "gauge".into(), ..Metadata::default() })
    });
    add(kind::TOMBSTONE, &|out| {
        record::put_tombstone(out, &Tombstone { from: -1, to: 9, series: vec![1, 2], files: 3 })
    });
    add(kind::EXEMPLARS, &|out| {
        let labels = vec![("trace_id".into(), "a".into())];
        record::put_exemplar(out, &Exemplar { series: 1, t: 2, value: 3.0, labels });
    });
    add(kind::HISTOGRAMS, &|out| {
        record::put_row_head(out, GroupId(1), 5, Some(3));
        record::put_histogram(out, &histogram());
    });
    all
}

/// A row of the log, by itself and upon a row before.
pub fn log_row(bytes: &[u8]) {
    let mut decoder = RowDecoder::default();
    let (values, mut present) = (vec![1.5; 64], Bits::new(64));
    present.fill(40);
    let _ = decoder.decode(bytes, Some((&values, &present)));
    let Ok((values, present)) = decoder.decode(bytes, None) else { return };
    let mut again = Vec::new();
    RowEncoder::default().encode(None, (&values, &present), &mut again);
    let (now, there) = decoder.decode(&again, None).expect("what was encoded is decoded");
    let same = now.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(same && there == present, "a row changed");
}

/// Good rows.
pub fn log_rows() -> Vec<Vec<u8>> {
    let mut present = Bits::new(40);
    present.fill(40);
    let row = |step: f64| -> Vec<f64> { (0..40).map(|k| f64::from(k) * step).collect() };
    [0.0, 1.0, 0.125, 1.0 / 3.0]
        .iter()
        .map(|step| {
            let mut bytes = Vec::new();
            RowEncoder::default().encode(None, (&row(*step), &present), &mut bytes);
            bytes
        })
        .collect()
}

/// How many cells, and the chunk: the first two bytes say the former.
fn counted(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (count, chunk) = bytes.split_first_chunk::<2>()?;
    Some((usize::from(u16::from_le_bytes(*count)), chunk))
}

fn with_count(count: u16, chunk: &[u8]) -> Vec<u8> {
    [&count.to_le_bytes(), chunk].concat()
}

/// A chunk of floats, histograms or both.
pub fn chunk_cells(bytes: &[u8]) {
    let Some((count, chunk)) = counted(bytes) else { return };
    let mut cells = Decoded::default();
    // A chunk has a cell at least.
    if decode_cells(chunk, count, &mut cells).is_err() || count == 0 {
        return;
    }
    assert_eq!(cells.values.len(), count, "as many rows as were asked for");
    let histograms: Vec<_> = cells.histograms.iter().map(|(row, h)| (*row, h.as_ref())).collect();
    let parts = Cells { values: &cells.values, present: cells.present.as_ref(), histograms: &histograms };
    for effort in [Effort::Fast, Effort::Long] {
        let (mut again, mut decoded) = (Vec::new(), Decoded::default());
        Encoder::default().encode_cells(&parts, &mut again, effort);
        decode_cells(&again, count, &mut decoded).expect("what was encoded is decoded");
        let same = (0..count).all(|at| {
            let is_float = !cells.histograms.iter().any(|(row, _)| *row as usize == at);
            let bits = |cells: &Decoded| cells.values.get(at).map(|value| value.to_bits());
            cells.has(at) == decoded.has(at)
                && (!is_float || !cells.has(at) || bits(&cells) == bits(&decoded))
        });
        assert!(same, "cells changed");
    }
}

/// Good chunks.
pub fn chunks() -> Vec<Vec<u8>> {
    let histogram = |k: u32| NativeHistogram {
        schema: 3,
        count: f64::from(k),
        positive: [(1, f64::from(k)), (9, 1.0)].into_iter().collect(),
        ..NativeHistogram::default()
    };
    let all: Vec<NativeHistogram> = (0..20).map(histogram).collect();
    let pairs: Vec<_> = (0u32..).zip(&all).collect();
    let mut gaps = Bits::new(20);
    gaps.fill(13);
    let values: Vec<f64> = (0..20).map(|k| f64::from(k * k) / 8.0).collect();
    let wild: Vec<f64> = (0..20u64).map(|k| f64::from_bits(k.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
    let mut out = Vec::new();
    for cells in [
        Cells { values: &values, present: None, histograms: &[] },
        Cells { values: &wild, present: Some(&gaps), histograms: &[] },
        Cells { values: &values, present: None, histograms: &pairs },
    ] {
        for effort in [Effort::Fast, Effort::Long] {
            let mut bytes = Vec::new();
            Encoder::default().encode_cells(&cells, &mut bytes, effort);
            out.push(with_count(20, &bytes));
        }
    }
    out
}

/// A chunk of floats; and its bytes as floats, encoded and decoded.
pub fn chunk_floats(bytes: &[u8]) {
    if let Some((count, chunk)) = counted(bytes) {
        let mut out = Vec::new();
        if decode_floats(chunk, count, &mut out).is_ok() {
            assert_eq!(out.len(), count, "as many as were asked for");
        }
    }
    let values: Vec<f64> =
        bytes.chunks_exact(8).filter_map(|of| Some(f64::from_le_bytes(of.try_into().ok()?))).collect();
    for effort in [Effort::Fast, Effort::Long] {
        let (mut chunk, mut out) = (Vec::new(), Vec::new());
        FloatCoder::default().encode(&values, &mut chunk, effort);
        decode_floats(&chunk, values.len(), &mut out).expect("what was encoded is decoded");
        let same = out.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same && out.len() == values.len(), "floats changed");
    }
}

/// Good chunks of floats.
pub fn float_chunks() -> Vec<Vec<u8>> {
    [0.0, 1.0, 0.01, 1.0 / 3.0]
        .iter()
        .map(|step| {
            let values: Vec<f64> = (0..64).map(|k| f64::from(k) * step).collect();
            let mut bytes = Vec::new();
            FloatCoder::default().encode(&values, &mut bytes, Effort::Fast);
            with_count(64, &bytes)
        })
        .collect()
}

/// A column of times; and its bytes as times in their order, encoded and decoded.
pub fn chunk_times(bytes: &[u8]) {
    if let Some((count, chunk)) = counted(bytes) {
        let _ = decode_times(chunk, count, &mut Vec::new());
    }
    let mut times: Vec<i64> =
        bytes.chunks_exact(8).filter_map(|of| Some(i64::from_le_bytes(of.try_into().ok()?))).collect();
    times.sort_unstable();
    times.dedup();
    let (mut chunk, mut out) = (Vec::new(), Vec::new());
    encode_times(&times, &mut chunk);
    decode_times(&chunk, times.len(), &mut out).expect("what was encoded is decoded");
    assert_eq!(out, times, "times changed");
}

/// Good columns.
pub fn time_chunks() -> Vec<Vec<u8>> {
    [0i64, 3, 977]
        .iter()
        .map(|jitter| {
            let times: Vec<i64> = (0..60).map(|k| START + k * 5000 + k * k % (jitter + 1)).collect();
            let mut bytes = Vec::new();
            encode_times(&times, &mut bytes);
            with_count(60, &bytes)
        })
        .collect()
}

/// A file: opened, verified, read as a raw one and as one of a tier, and served by a store.
pub fn block_file(bytes: &[u8]) {
    let disk = disk_with(FILE, bytes);
    if let Ok(block) = Block::open(&disk, Path::new(FILE)).map(Arc::new) {
        let _ = block.verify();
        let _ = block.metadata();
        if let Ok(index) = block.index() {
            let ids: Vec<_> = index.series().map(|(id, _, _)| id).take(1000).collect();
            let (mut raw, mut tier) =
                (BlockReader::new(Arc::clone(&block)), TierReader::new(Arc::clone(&block)));
            for id in ids {
                let _ = raw.chunks(id, (i64::MIN, i64::MAX), |reader, chunk| -> Result<(), Damage> {
                    reader.times(&chunk)?;
                    reader.read(&chunk, &mut Decoded::default())
                });
                for column in [TierColumn::Last, TierColumn::Increase, TierColumn::Min] {
                    let _ = tier.read(id, column, (i64::MIN, i64::MAX), &mut TierCells::default());
                }
            }
        }
    }
    read_store(disk);
}

/// Good files, fresh, joined and downsampled.
pub fn block_files() -> Vec<Vec<u8>> {
    files_of("blk")
}

/// An index of a file, and selectors upon it.
pub fn file_index(bytes: &[u8]) {
    let Ok(index) = FileIndex::parse(bytes) else { return };
    let matchers = [Matcher::new("k", MatchOp::Regex, "1|2.*"), Matcher::new("pod", MatchOp::NotEqual, "b")];
    let compiled = compile(&matchers).expect("they are good matchers");
    let owners = telemetry_tsdb::index::Owners::default();
    let _ = index.select(&compiled, &owners.view(), |_| false).len();
    let _ = index.series().count();
}

/// Good indexes.
pub fn file_indexes() -> Vec<Vec<u8>> {
    let pairs = |k: u32| {
        let labels = [("__name__", "x".to_owned()), ("k", k.to_string())];
        labels.into_iter().map(|(name, value)| (Arc::from(name), Arc::from(value.as_str()))).collect()
    };
    let entries = (1..40u32).map(|k| (k * 3, OwnerRef(k % 3), pairs(k)));
    let owner = |owner: OwnerRef| (owner.0 > 0).then(|| (true, vec![(Arc::from("pod"), Arc::from("a"))]));
    vec![FileIndex::encode(entries, owner)]
}
