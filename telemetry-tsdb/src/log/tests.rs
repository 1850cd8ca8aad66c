//! Damage costs the record it hits; what was committed survives crashes, failing syncs and full disks.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::codec::Bits;
use crate::fs::Storage;
use crate::fs::sim::{Fault, Rng, SimStorage};

type Row = (Vec<f64>, Bits);

fn body(n: u64) -> Vec<u8> {
    (0..100 + n % 60).map(|i| (n * 31 + i * i).to_le_bytes()[0]).collect()
}

fn records(n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    (0..n).for_each(|k| put_record(&mut bytes, k, 1, &body(k)));
    bytes
}

fn read(bytes: &[u8]) -> (Vec<u64>, u64) {
    let mut seen = Vec::new();
    let skipped = scan(bytes, |record| {
        assert_eq!(record.body, body(record.sequence), "a wrong value");
        seen.push(record.sequence);
    });
    (seen, skipped)
}

#[test]
fn each_flipped_bit_costs_one_record() {
    let clean = records(20);
    for at in 0..clean.len() {
        for bit in 0..8 {
            let mut bytes = clean.clone();
            bytes[at] ^= 1 << bit;
            let (seen, skipped) = read(&bytes);
            assert_eq!(seen.len(), 19, "byte {at}");
            assert!(skipped > 0);
        }
    }
}

#[test]
fn a_number_that_no_log_reaches_is_no_records() {
    let mut bytes = records(3);
    put_record(&mut bytes, u64::MAX, 1, &body(u64::MAX % 7));
    let disk = SimStorage::default();
    disk.create(&segment_path(0, 0)).unwrap().write_at(&bytes, 0).unwrap();
    let report = replay(&disk, |record| assert!(record.sequence < 3, "{}", record.sequence)).unwrap();
    assert_eq!((report.records, report.next_sequence, report.damaged.len()), (3, 3, 1));
}

#[test]
fn a_torn_tail_and_missing_sectors_cost_what_they_touch() {
    let clean = records(40);
    for end in 0..clean.len() {
        let (seen, _) = read(&clean[..end]);
        assert!(seen.iter().enumerate().all(|(i, s)| i as u64 == *s), "cut at {end}");
    }
    for sector in 0..clean.len() / 512 {
        let mut bytes = clean.clone();
        bytes[sector * 512..(sector + 1) * 512].fill(0);
        assert!(read(&bytes).0.len() >= 40 - 7, "sector {sector}");
    }
    let mut long = clean.clone();
    long.resize(1 << 16, 0);
    assert_eq!(read(&long), ((0..40).collect(), 0), "a file's unused rest is no damage");
}

fn replayed(storage: &SimStorage) -> (Vec<u64>, Report) {
    let mut seen = Vec::new();
    let report = replay(storage, |record| {
        assert_eq!(record.body, body(record.sequence), "nothing is invented");
        seen.push(record.sequence);
    })
    .unwrap();
    (seen, report)
}

/// One life after the other on one disk; what was acknowledged must be there, in order, once.
fn live_and_crash(seed: u64) {
    let mut rng = Rng::new(seed);
    let disk = SimStorage::default();
    let mut acknowledged: Vec<u64> = Vec::new();
    let mut next = 0;
    for _ in 0..4 {
        let mut log = LogWriter::open(Arc::new(disk.clone()), next).unwrap();
        match rng.below(4) {
            0 => disk.fail(rng.below(12) + 1, Fault::SyncLies),
            1 => disk.fail(rng.below(12) + 1, Fault::Once),
            2 => disk.fail(rng.below(24) + 1, Fault::Dies),
            _ => {}
        }
        for _ in 0..rng.below(12) {
            let mut batch = Vec::new();
            for _ in 0..=rng.below(5) {
                let sequence = log.next_sequence();
                assert_eq!(log.append(1, &body(sequence)), sequence);
                batch.push(sequence);
            }
            if rng.below(5) == 0 {
                if log.rotate().is_err() {
                    break;
                }
            } else if log.commit().is_err() {
                break;
            }
            acknowledged.extend(batch);
        }
        if rng.below(3) == 0 {
            disk.kill()
        } else {
            disk.crash(&mut rng)
        }
        let (seen, report) = replayed(&disk);
        assert!(seen.is_sorted_by(|a, b| a < b), "seed {seed}: records come once and in order");
        for sequence in &acknowledged {
            assert!(seen.binary_search(sequence).is_ok(), "seed {seed}: {sequence} was acknowledged");
        }
        next = report.next_sequence;
    }
}

#[test]
fn acknowledged_records_survive_simulated_crashes() {
    let count = std::env::var("TELEMETRY_SIM_CRASHES").ok().and_then(|n| n.parse().ok()).unwrap_or(2000u64);
    (0..count.div_ceil(4)).for_each(live_and_crash);
}

#[test]
fn a_sync_that_fails_once_and_then_lies_loses_nothing() {
    let disk = SimStorage::default();
    let mut log = LogWriter::open(Arc::new(disk.clone()), 0).unwrap();
    log.append(1, &body(0));
    log.commit().unwrap();
    disk.fail(2, Fault::SyncLies);
    log.append(1, &body(1));
    log.commit().unwrap();
    assert_eq!(log.failures(), 1);
    log.append(1, &body(2));
    log.commit().unwrap();
    disk.crash(&mut Rng::new(1));
    assert_eq!(replayed(&disk).0, [0, 1, 2]);
}

#[test]
fn a_full_disk_is_an_error_and_old_segments_can_go() {
    let disk = SimStorage::new(2000);
    let mut log = LogWriter::open(Arc::new(disk.clone()), 0).unwrap();
    log.append(1, &body(0));
    let cut = log.rotate().unwrap();
    let mut failed = false;
    for _ in 0..40 {
        let sequence = log.next_sequence();
        log.append(1, &body(sequence));
        failed |= log.commit().is_err();
        if failed {
            break;
        }
    }
    assert!(failed, "2,000 bytes do not hold 40 records");
    disk.set_capacity(1 << 20);
    let (seen, report) = replayed(&disk);
    let mut log = LogWriter::open(Arc::new(disk.clone()), report.next_sequence).unwrap();
    log.append(1, &body(report.next_sequence));
    log.commit().unwrap();
    log.remove_before(cut).unwrap();
    assert!(!disk.list(Path::new("log")).unwrap().contains(&"00000000000000000000-000.seg".into()));
    assert_eq!(replayed(&disk).0.len(), seen.len(), "the first record is gone, a new one is there");
}

fn row(cells: &[Option<f64>]) -> (Vec<f64>, Bits) {
    let mut bits = Bits::new(cells.len());
    cells.iter().enumerate().filter(|(_, c)| c.is_some()).for_each(|(at, _)| bits.set(at));
    (cells.iter().map(|c| c.unwrap_or(0.0)).collect(), bits)
}

fn cell() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        Just(None),
        (-1000..1_000_000i64).prop_map(|v| Some(v as f64)),
        (-1000..1_000_000i64).prop_map(|v| Some(v as f64 / 1e6)),
        any::<u64>().prop_map(|bits| Some(f64::from_bits(bits))),
    ]
}

proptest! {
    #[test]
    fn rows_come_back_cell_by_cell(rows in prop::collection::vec(prop::collection::vec(cell(), 0..40), 1..8), noise in prop::collection::vec(any::<u8>(), 0..80)) {
        let (mut encoder, mut decoder) = (RowEncoder::default(), RowDecoder::default());
        let (mut before, mut known): (Option<Row>, Option<Row>) = (None, None);
        for cells in &rows {
            let now = row(cells);
            let mut bytes = Vec::new();
            encoder.encode(before.as_ref().map(|(v, b)| (v.as_slice(), b)), (&now.0, &now.1), &mut bytes);
            let got = decoder.decode(&bytes, known.as_ref().map(|(v, b)| (v.as_slice(), b))).unwrap();
            prop_assert_eq!(&got.1, &now.1);
            for (at, cell) in cells.iter().enumerate() {
                if let Some(value) = cell {
                    prop_assert_eq!(got.0[at].to_bits(), value.to_bits());
                }
            }
            for end in 0..bytes.len() {
                let _ = decoder.decode(&bytes[..end], None);
            }
            // The writer's next row builds upon its own row, the reader's upon what it decoded.
            before = Some(now);
            known = Some(got);
        }
        let _ = decoder.decode(&noise, None);
    }
}
