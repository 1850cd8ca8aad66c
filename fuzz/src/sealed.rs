//! What stands behind checksums: records, frames and indexes with right ones around anything. Written from
//! docs/format.md and not with the store's own code, so that each checks the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use telemetry_model::{MatchOp, Matcher};
use telemetry_tsdb::block::{Block, BlockReader, Damage, TierCells, TierColumn, TierReader};
use telemetry_tsdb::codec::Decoded;
use telemetry_tsdb::fs::sim::SimStorage;
use telemetry_tsdb::index::{FileIndex, OwnerRef, Owners, compile};
use telemetry_tsdb::log::{Record, replay, scan};

use crate::input::Input;
use crate::store::{FILE, disk_with, files_of, put_file};

/// Begins every record of the log.
const RECORD: [u8; 4] = *b"\xA7tl\x1F";
/// Bytes of a record beside its body.
const RECORD_OVERHEAD: usize = 21;
/// Begins every frame of a file.
const FRAME: [u8; 4] = *b"\xA7tb\x1F";
/// Bytes before a frame's body.
const FRAME_HEADER: usize = 9;
/// Bytes behind it.
const FRAME_TRAILER: usize = 4;
/// The frame of compressed series.
const INDEX: u8 = 4;
/// In an input: the body is compressed on its way into the frame, so that mutations reach what is inside.
const PACKED: u8 = 0x80;
/// In an input: no frame, but bytes as they are.
const JUNK: u8 = 0x40;
/// The longest index of a seed, inflated.
const INFLATED_MAX: usize = 1 << 20;
/// Segments of one input.
const SEGMENTS_MAX: u8 = 4;
/// Series of a file that are read: a hostile index may name a million.
const SERIES_MAX: usize = 256;
/// Seeds that are taken of files, the shortest first.
const SEEDS_MAX: usize = 6;

fn put_sealed(magic: [u8; 4], head: &[&[u8]], body: &[u8], out: &mut Vec<u8>) {
    out.extend(magic);
    let from = out.len();
    head.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(body);
    let crc = crc32c::crc32c(out.get(from..).unwrap_or_default());
    out.extend(crc.to_le_bytes());
}

fn len_of(body: &[u8]) -> [u8; 4] {
    u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes()
}

/// Appends a record of the log.
pub fn put_record(out: &mut Vec<u8>, sequence: u64, kind: u8, body: &[u8]) {
    put_sealed(RECORD, &[&len_of(body), &[kind], &sequence.to_le_bytes()], body, out);
}

fn put_frame(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    put_sealed(FRAME, &[&[kind], &len_of(body)], body, out);
}

/// A file from an input: `kind u8 · length u16 · body` for each frame.
pub fn file_of(input: &mut Input<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    while !input.is_empty() {
        let (kind, len) = (input.byte(), usize::from(input.short()));
        let body = input.take(len);
        if kind & JUNK != 0 {
            out.extend_from_slice(body);
        } else if kind & PACKED != 0 {
            put_frame(&mut out, kind & 0xF, &pack(body));
        } else {
            put_frame(&mut out, kind & 0xF, body);
        }
    }
    out
}

/// The input that [`file_of`] makes this file of, but for how tightly the index is packed.
pub fn input_of(file: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, body) in frames_of(file) {
        let inflated = zstd::bulk::decompress(body, INFLATED_MAX).unwrap_or_default();
        let (kind, body) = if kind == INDEX { (kind | PACKED, &*inflated) } else { (kind, body) };
        out.push(kind);
        out.extend(u16::try_from(body.len()).expect("files of seeds are small").to_le_bytes());
        out.extend_from_slice(body);
    }
    out
}

/// Kind and body of each frame of a good file.
fn frames_of(file: &[u8]) -> Vec<(u8, &[u8])> {
    let mut frames = Vec::new();
    let mut rest = file;
    while let Some(([_, _, _, _, kind, a, b, c, d], after)) = rest.split_first_chunk::<FRAME_HEADER>() {
        let len = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let Some((body, tail)) = after.split_at_checked(len) else { break };
        frames.push((*kind, body));
        rest = tail.get(FRAME_TRAILER..).unwrap_or_default();
    }
    frames
}

fn pack(body: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(body, 1).expect("memory can be compressed")
}

type Said = (u64, u8, Vec<u8>);

fn said(record: &Record<'_>) -> Said {
    (record.sequence, record.kind, record.body.to_vec())
}

/// Records among anything, in several segments: what is read is what was written, in order, once, and bytes that are no
/// record are counted.
pub fn log(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let disk = SimStorage::default();
    let mut written: Vec<Said> = Vec::new();
    let (mut first, mut sequence) = (0, u64::from(input.byte()));
    for at in 0..=input.byte() % SEGMENTS_MAX {
        let (segment, records) = segment_of(&mut input, &mut sequence);
        written.extend(check_scan(&segment, &records));
        put_file(&disk, Path::new(&format!("log/{first:020}-{at:03}.seg")), &segment);
        first = sequence;
    }
    let mut replayed = Vec::new();
    let report = replay(&disk, |record| replayed.push(said(&record))).expect("the directory can be listed");
    assert_eq!(report.records, replayed.len() as u64, "records are counted");
    assert!(replayed.is_sorted_by(|a, b| a.0 < b.0), "each number once, in order");
    assert!(replayed.iter().all(|one| written.contains(one)), "nothing that no segment has");
}

/// Records, each with a step of its number and bytes that may be put before it.
fn segment_of(input: &mut Input<'_>, sequence: &mut u64) -> (Vec<u8>, Vec<Said>) {
    let (mut segment, mut records) = (Vec::new(), Vec::new());
    while !input.is_empty() {
        let how = input.byte();
        match how & 7 {
            0 => break,
            1 => segment.extend_from_slice(input.take(usize::from(how >> 3))),
            2 => *sequence = input.long() >> 3,
            3 => *sequence += u64::from(how >> 3),
            _ => {
                let (kind, body) = (input.byte(), input.take(usize::from(how >> 3)));
                put_record(&mut segment, *sequence, kind, body);
                records.push((*sequence, kind, body.to_vec()));
                *sequence += 1;
            }
        }
    }
    (segment, records)
}

/// Everything in a segment; what was put in as records is among it.
fn check_scan(segment: &[u8], records: &[Said]) -> Vec<Said> {
    let mut found = Vec::new();
    let mut used = 0;
    let skipped = scan(segment, |record| {
        used += record.body.len() + RECORD_OVERHEAD;
        found.push(said(&record));
    });
    let skipped = usize::try_from(skipped).expect("no more than there is");
    assert!(used + skipped <= segment.len(), "no byte is both a record's and passed over");
    assert!(
        records.iter().all(|record| found.contains(record)),
        "a whole record is found whatever is around it"
    );
    let rest = segment.len() - used - skipped;
    assert!(segment.iter().rev().take(rest).all(|byte| *byte == 0), "only zeros at the end go uncounted");
    found
}

/// Good ones, one of them with half a record before the next.
pub fn logs() -> Vec<Vec<u8>> {
    let plain = [&[0, 2][..], &[0x1C, 4, 1, 2, 3], &[0x14, 5, 9, 9], &[0], &[0x0C, 4, 7]].concat();
    let junk =
        [&[7, 1][..], &[0x29, 0xA7, b't', b'l', 0x1F, 3], &[0x14, 5, 9, 9], &[0x0B], &[0x0C, 4, 7]].concat();
    vec![plain, junk]
}

/// A file of any frames: opened, or rebuilt of them, verified and read; what cannot be read is noticed by verifying.
pub fn block(bytes: &[u8]) {
    let file = file_of(&mut Input::new(bytes));
    let disk = disk_with(FILE, &file);
    let Ok(block) = Block::open(&disk, Path::new(FILE)).map(Arc::new) else { return };
    assert_eq!(block.bytes(), file.len() as u64, "its length");
    let verified = block.verify();
    assert_eq!(verified, block.verify(), "twice the same");
    let _ = block.metadata();
    let Ok(index) = block.index() else {
        return assert!(!verified.damaged.is_empty(), "an index that cannot be read is noticed");
    };
    let (mut raw, mut tier) = (BlockReader::new(Arc::clone(&block)), TierReader::new(Arc::clone(&block)));
    let mut is_read = true;
    for (series, _, _) in index.series().take(SERIES_MAX) {
        is_read &= read(&mut raw, series).is_ok();
        for column in [TierColumn::Last, TierColumn::Increase, TierColumn::Min, TierColumn::Count] {
            let mut cells = TierCells::default();
            if tier.read(series, column, (i64::MIN, i64::MAX), &mut cells).is_ok() {
                assert_eq!(cells.times.len(), cells.values.len(), "a value a row");
            }
        }
    }
    assert!(is_read || !verified.damaged.is_empty(), "what cannot be read is noticed");
}

fn read(reader: &mut BlockReader, series: u32) -> Result<(), Damage> {
    reader.chunks(series, (i64::MIN, i64::MAX), |reader, chunk| -> Result<(), Damage> {
        let mut cells = Decoded::default();
        let times = reader.times(&chunk)?;
        assert!(times.is_sorted_by(|a, b| a < b), "times grow");
        reader.read(&chunk, &mut cells)?;
        assert_eq!(cells.values.len(), times.len(), "a cell a time");
        Ok(())
    })
}

/// The shortest good files.
pub fn blocks() -> Vec<Vec<u8>> {
    let mut all: Vec<_> = files_of("blk").iter().map(|file| input_of(file)).collect();
    all.sort_by_key(Vec::len);
    all.truncate(SEEDS_MAX);
    all
}

/// An index behind its compression: what parses is the same when it is encoded and parsed again, and a matcher and its
/// negation share all series between them.
pub fn index(bytes: &[u8]) {
    let Ok(index) = FileIndex::parse(&pack(bytes)) else { return };
    let owners: BTreeMap<OwnerRef, _> =
        index.owners().map(|(owner, is_bound, labels)| (owner, (is_bound, labels.clone()))).collect();
    let series: Vec<_> = index.series().collect();
    assert_eq!(series.len(), index.len(), "series are counted");
    assert!(series.is_sorted_by(|a, b| a.0 < b.0), "numbers grow");
    let again =
        FileIndex::parse(&FileIndex::encode(series.iter().cloned(), |owner| owners.get(&owner).cloned()))
            .expect("what was encoded is parsed");
    assert!(again.series().eq(series), "series come back");
    let view = Owners::default().view();
    let count = |matchers: &[Matcher]| {
        let compiled = compile(matchers).expect("they are good matchers");
        index.select(&compiled, &view, |_| false).len()
    };
    assert_eq!(count(&[]), index.len(), "no matcher refuses nothing");
    for (yes, no) in [(MatchOp::Equal, MatchOp::NotEqual), (MatchOp::Regex, MatchOp::NotRegex)] {
        for (name, value) in [("__name__", "x_total"), ("k", "1"), ("pod", ""), ("k", "[0-2]")] {
            let halves = [yes, no].map(|op| count(&[Matcher::new(name, op, value)]));
            assert_eq!(halves.iter().sum::<usize>(), index.len(), "{name}, {value}");
        }
    }
}

/// Good ones.
pub fn indexes() -> Vec<Vec<u8>> {
    let files = files_of("blk");
    let frames = files.iter().flat_map(|file| frames_of(file)).filter(|(kind, _)| *kind == INDEX);
    let mut all: Vec<_> =
        frames.filter_map(|(_, body)| zstd::bulk::decompress(body, INFLATED_MAX).ok()).collect();
    all.sort();
    all.dedup();
    all.truncate(SEEDS_MAX);
    all
}
