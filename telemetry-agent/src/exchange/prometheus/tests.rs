//! Chunks and blocks written here as the format says, read back; and whatever bytes there are. The real Prometheus'
//! own blocks are read by the tests of the command.

#![allow(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "bits are written by hand"
)]

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use telemetry_model::{NativeHistogram, ResetHint, STALE_MARKER};

use super::*;

/// Bits, most significant first.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    used: usize,
}

impl Writer {
    fn put(&mut self, value: u64, n: u32) -> &mut Self {
        for bit in (0..n).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if value >> bit & 1 == 1 {
                *self.bytes.last_mut().unwrap() |= 0x80 >> (self.used % 8);
            }
            self.used += 1;
        }
        self
    }

    fn uvarint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.put(value & 0x7f | 0x80, 8);
            value >>= 7;
        }
        self.put(value, 8)
    }

    fn varint(&mut self, value: i64) -> &mut Self {
        self.uvarint((value << 1 ^ value >> 63) as u64)
    }

    fn varbit(&mut self, value: u64, fits: impl Fn(u32) -> bool) -> &mut Self {
        if value == 0 {
            return self.put(0, 1);
        }
        for (ones, width) in [(1, 3), (2, 6), (3, 9), (4, 12), (5, 18), (6, 25), (7, 56)] {
            if fits(width) {
                return self.put((1 << (ones + 1)) - 2, ones + 1).put(value, width);
            }
        }
        self.put(0xff, 8).put(value, 64)
    }

    fn varbit_uint(&mut self, value: u64) -> &mut Self {
        self.varbit(value, |width| value < 1 << width)
    }

    fn varbit_int(&mut self, value: i64) -> &mut Self {
        self.varbit(value as u64, |width| -(1i64 << (width - 1)) < value && value <= 1 << (width - 1))
    }

    fn anew(&mut self, xor: u64) -> &mut Self {
        let (leading, trailing) = (xor.leading_zeros().min(31), xor.trailing_zeros());
        let width = 64 - leading - trailing;
        self.put(u64::from(leading), 5).put(u64::from(width % 64), 6).put(xor >> trailing, width)
    }
}

const DELTAS: [i64; 7] = [15_000, 15_000, 15_001, 14_000, 100_000, 15_000, 5_000_000_000];

fn floats(values: &[f64]) -> Vec<(i64, Sample)> {
    let mut t = 1_700_000_000_000;
    let sample = |(at, value): (usize, &f64)| {
        t += DELTAS[at % DELTAS.len()];
        (t, Sample::Float(*value))
    };
    values.iter().enumerate().map(sample).collect()
}

fn value_of(sample: &Sample) -> u64 {
    match sample {
        Sample::Float(value) => value.to_bits(),
        Sample::Histogram(_) => panic!("a histogram"),
    }
}

fn xor_chunk(samples: &[(i64, Sample)]) -> Vec<u8> {
    let mut w = Writer::default();
    w.put(samples.len() as u64, 16);
    let (mut t, mut step, mut last) = (0, 0, 0);
    for (at, (now, sample)) in samples.iter().enumerate() {
        let bits = value_of(sample);
        if at == 0 {
            w.varint(*now).put(bits, 64);
        } else {
            let change = now - t - step;
            step = now - t;
            match change {
                _ if at == 1 => w.uvarint(step as u64),
                0 => w.put(0, 1),
                c if (-8191..=8192).contains(&c) => w.put(0b10, 2).put(c as u64, 14),
                c if (-65_535..=65_536).contains(&c) => w.put(0b110, 3).put(c as u64, 17),
                c if (-524_287..=524_288).contains(&c) => w.put(0b1110, 4).put(c as u64, 20),
                c => w.put(0b1111, 4).put(c as u64, 64),
            };
            if bits == last {
                w.put(0, 1)
            } else {
                w.put(0b11, 2).anew(bits ^ last)
            };
        }
        (t, last) = (*now, bits);
    }
    w.bytes
}

/// With start timestamps from sample 2 on.
fn xor2_chunk(samples: &[(i64, Sample)]) -> Vec<u8> {
    let mut w = Writer::default();
    w.put(samples.len() as u64, 16).put(0x82, 8);
    let (mut t, mut step, mut chain) = (0, 0, 0);
    for (at, (now, sample)) in samples.iter().enumerate() {
        let bits = value_of(sample);
        let is_end = bits == STALE_MARKER.to_bits();
        let change = now - t - step;
        if at == 0 {
            w.varint(*now).put(bits, 64);
        } else {
            step = now - t;
            let mut has_value = true;
            match change {
                _ if at == 1 => w.uvarint(step as u64),
                0 if is_end => {
                    has_value = false;
                    w.put(0b11111, 5)
                }
                0 if bits == chain => {
                    has_value = false;
                    w.put(0, 1)
                }
                0 => {
                    has_value = false;
                    w.put(0b101, 3).anew(bits ^ chain)
                }
                c if (-4096..=4095).contains(&c) => w.put(0b110, 3).put(c as u64, 13),
                c if (-524_288..=524_287).contains(&c) => w.put(0b1110, 4).put(c as u64, 20),
                c => w.put(0b11110, 5).put(c as u64, 64),
            };
            match has_value {
                false => {}
                true if is_end => drop(w.put(0b111, 3)),
                true if bits == chain => drop(w.put(0, 1)),
                true => drop(w.put(0b110, 3).anew(bits ^ chain)),
            }
        }
        match at {
            0 => drop(w.varint(-77)),
            1 => {}
            _ => drop(w.varbit_int(at as i64 * 1000)),
        }
        t = *now;
        if !is_end {
            chain = bits;
        }
    }
    w.bytes
}

fn check_floats(encoding: u8, bytes: &[u8], expected: &[(i64, Sample)]) {
    let mut got = Vec::new();
    decode(encoding, bytes, &mut got).unwrap();
    let bits = |samples: &[(i64, Sample)]| samples.iter().map(|(t, s)| (*t, value_of(s))).collect::<Vec<_>>();
    assert_eq!(bits(&got), bits(expected));
    for end in 0..bytes.len().saturating_sub(1) {
        let cut = decode(encoding, &bytes[..end], &mut Vec::new());
        assert!(cut.is_err(), "cut at {end} of {}", bytes.len());
    }
}

/// An integer histogram chunk of three samples, with or without start timestamps.
fn histogram_chunk(with_starts: bool) -> Vec<u8> {
    let mut w = Writer::default();
    if with_starts {
        w.put(3, 16).put(0x81, 8)
    } else {
        w.put(3, 16).put(0b01 << 6, 8)
    };
    // Threshold 2^-128, schema 3, buckets -2, -1 and 3 above zero, 5 below.
    w.put(116, 8).varbit_int(3);
    w.varbit_uint(2).varbit_uint(2).varbit_int(-2).varbit_uint(1).varbit_int(3);
    w.varbit_uint(1).varbit_uint(1).varbit_int(5);
    w.varbit_int(1000).varbit_uint(9).varbit_uint(1).put(2.5f64.to_bits(), 64);
    w.varbit_int(2).varbit_int(1).varbit_int(0).varbit_int(0);
    if with_starts {
        w.varint(5);
    }
    // The second: counts 12, buckets 3, 4, 3.
    w.varbit_int(15_000).varbit_int(3).varbit_int(0).put(0, 1);
    w.varbit_int(1).varbit_int(0).varbit_int(-1).varbit_int(0);
    if with_starts {
        w.varbit_int(-9);
    }
    // The third is an end.
    let end = 2.5f64.to_bits() ^ STALE_MARKER.to_bits();
    w.varbit_int(0).varbit_int(0).varbit_int(0).put(0b11, 2).anew(end);
    if with_starts {
        w.varbit_int(300);
    }
    w.bytes
}

#[test]
fn chunks_of_floats_are_read_bit_for_bit() {
    let values = [
        1.0,
        1.0,
        2.5,
        STALE_MARKER,
        2.5,
        -0.0,
        f64::NAN,
        f64::INFINITY,
        1e-310,
        7.0,
        7.0,
        STALE_MARKER,
        STALE_MARKER,
    ];
    let samples = floats(&values);
    check_floats(1, &xor_chunk(&samples), &samples);
    check_floats(4, &xor2_chunk(&samples), &samples);
    let steady: Vec<_> =
        samples.iter().enumerate().map(|(at, (_, s))| (at as i64 * 1000, s.clone())).collect();
    check_floats(1, &xor_chunk(&steady), &steady);
    check_floats(4, &xor2_chunk(&steady), &steady);
}

#[test]
fn chunks_of_histograms_are_read() {
    for (encoding, with_starts) in [(2, false), (5, true)] {
        let bytes = histogram_chunk(with_starts);
        let mut got = Vec::new();
        decode(encoding, &bytes, &mut got).unwrap();
        let histogram = |reset, count, positive: &[(i32, f64)]| NativeHistogram {
            schema: 3,
            reset,
            zero_threshold: 2f64.powi(-128),
            zero_count: 1.0,
            count,
            sum: 2.5,
            positive: positive.iter().copied().collect(),
            ..Default::default()
        };
        let first = histogram(ResetHint::Unknown, 9.0, &[(-2, 2.0), (-1, 3.0), (3, 3.0)]);
        let second = histogram(ResetHint::NotReset, 12.0, &[(-2, 3.0), (-1, 4.0), (3, 3.0)]);
        let expected = [
            (1000, Sample::Histogram(Arc::new(first))),
            (16_000, Sample::Histogram(Arc::new(second))),
            (31_000, Sample::Float(STALE_MARKER)),
        ];
        for (got, expected) in got.iter().zip(&expected) {
            match (&got.1, &expected.1) {
                (Sample::Float(a), Sample::Float(b)) => assert_eq!(a.to_bits(), b.to_bits()),
                (a, b) => assert_eq!(a, b, "{encoding}"),
            }
            assert_eq!(got.0, expected.0);
        }
        assert_eq!(got.len(), 3);
        for end in 0..bytes.len() - 1 {
            assert!(decode(encoding, &bytes[..end], &mut Vec::new()).is_err(), "cut at {end}");
        }
    }
}

#[test]
fn custom_bounds_and_float_counts_are_read() {
    let mut w = Writer::default();
    w.put(1, 16).put(0b11 << 6, 8).put(0, 8).varbit_int(-53);
    w.varbit_uint(1).varbit_uint(2).varbit_int(0).varbit_uint(0);
    w.varbit_uint(2).varbit_uint(251).varbit_uint(0).put(1e9f64.to_bits(), 64);
    w.varbit_int(7);
    for value in [3.5, 0.0, 1.25, 0.5, 3.0] {
        w.put(f64::to_bits(value), 64);
    }
    let mut got = Vec::new();
    decode(3, &w.bytes, &mut got).unwrap();
    let expected = NativeHistogram {
        schema: -53,
        reset: ResetHint::Gauge,
        count: 3.5,
        sum: 1.25,
        positive: [(0, 0.5), (1, 3.0)].into_iter().collect(),
        custom_bounds: Some([0.25, 1e9].into()),
        ..Default::default()
    };
    assert_eq!(got, [(7, Sample::Histogram(Arc::new(expected)))]);
}

fn sealed(body: &[u8]) -> Vec<u8> {
    [body, &crc32c::crc32c(body).to_be_bytes()].concat()
}

/// A block of two series of one chunk each, the second deleted in part.
fn write_block(dir: &Path) -> Vec<(i64, Sample)> {
    let samples = floats(&[1.0, 2.0, 3.5]);
    let chunk = xor_chunk(&samples);
    let mut chunks = vec![0x85, 0xBD, 0x40, 0xDD, 1, 0, 0, 0];
    let mut places = Vec::new();
    for _ in 0..2 {
        places.push(chunks.len() as u64);
        chunks.extend(Writer::default().uvarint(chunk.len() as u64).bytes.iter());
        chunks.extend(sealed(&[&[1], chunk.as_slice()].concat()));
    }
    std::fs::create_dir_all(dir.join("chunks")).unwrap();
    std::fs::write(dir.join("chunks/000001"), chunks).unwrap();

    let mut index = vec![0xBA, 0xAA, 0xD7, 0x00, 2];
    let symbols = ["", "__name__", "a", "b", "up"];
    let mut body = (symbols.len() as u32).to_be_bytes().to_vec();
    for symbol in symbols {
        body.push(symbol.len() as u8);
        body.extend(symbol.as_bytes());
    }
    index.extend((body.len() as u32).to_be_bytes());
    index.extend(sealed(&body));
    let series_at = index.len() as u64;
    let mut ids = Vec::new();
    for (value, place) in [(2, places[0]), (3, places[1])] {
        index.resize(index.len().next_multiple_of(16), 0);
        ids.push(index.len() as u64 / 16);
        let mut w = Writer::default();
        w.uvarint(2).uvarint(1).uvarint(4).uvarint(2).uvarint(value).uvarint(1);
        w.varint(samples[0].0).uvarint((samples[2].0 - samples[0].0) as u64).uvarint(place);
        index.extend(Writer::default().uvarint(w.bytes.len() as u64).bytes.iter());
        index.extend(sealed(&w.bytes));
    }
    let end = index.len() as u64;
    let toc: Vec<u8> = [5, series_at, 0, 0, end, end].iter().flat_map(|at: &u64| at.to_be_bytes()).collect();
    index.extend(sealed(&toc));
    std::fs::write(dir.join("index"), index).unwrap();

    let mut w = Writer::default();
    w.uvarint(ids[1]).varint(samples[1].0).varint(samples[1].0 + 5);
    let stones = [&[0x01, 0x30, 0xBA, 0x30, 1], sealed(&w.bytes).as_slice()].concat();
    std::fs::write(dir.join("tombstones"), stones).unwrap();
    let meta = format!(
        r#"{{"ulid":"x","minTime":{},"maxTime":{},"stats":{{"numSamples":6}},"version":1}}"#,
        samples[0].0,
        samples[2].0 + 1
    );
    std::fs::write(dir.join("meta.json"), meta).unwrap();
    samples
}

/// Every sample as `series t value`, and how many chunks were damaged.
fn read_block(dir: &Path) -> Result<(Vec<String>, usize), BlockError> {
    let block = Block::open(dir)?;
    let (mut lines, mut damaged) = (Vec::new(), 0);
    block.read(
        (i64::MIN, i64::MAX),
        |_| damaged += 1,
        |labels, samples| {
            lines.extend(samples.iter().map(|(t, s)| format!("{labels:?} {t} {:x}", value_of(s))));
            Ok::<(), BlockError>(())
        },
    )?;
    Ok((lines, damaged))
}

#[test]
fn a_block_is_read_without_what_is_deleted() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("01BLOCK");
    let samples = write_block(&dir);
    let (lines, damaged) = read_block(&dir).unwrap();
    let line = |value: &str, at: usize| {
        let (t, sample) = &samples[at];
        format!(r#"[("__name__", "up"), ("a", "{value}")] {t} {:x}"#, value_of(sample))
    };
    let expected = [line("a", 0), line("a", 1), line("a", 2), line("b", 0), line("b", 2)];
    let expected: Vec<_> = expected.iter().map(|line| line.replace("\"b\", \"a\"", "\"b\", \"b\"")).collect();
    assert_eq!((lines, damaged), (expected, 0));
    assert_eq!(find(&dir).unwrap(), std::slice::from_ref(&dir));
    assert_eq!(find(root.path()).unwrap(), std::slice::from_ref(&dir));
    assert!(matches!(find(&dir.join("chunks")), Err(BlockError::NoBlock(_))));
    let leaving = root.path().join("01BLOCK.tmp-for-deletion");
    std::fs::rename(&dir, leaving).unwrap();
    assert!(matches!(find(root.path()), Err(BlockError::NoBlock(_))), "a block on its way out is none");
}

#[test]
fn a_changed_byte_never_makes_a_wrong_value() {
    let dir = tempfile::tempdir().unwrap();
    write_block(dir.path());
    let (whole, _) = read_block(dir.path()).unwrap();
    for file in ["index", "chunks/000001", "tombstones"] {
        let path = dir.path().join(file);
        let good = std::fs::read(&path).unwrap();
        let mut noticed = 0;
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            std::fs::write(&path, &bad).unwrap();
            match read_block(dir.path()) {
                Err(_) => noticed += 1,
                Ok((lines, damaged)) => {
                    noticed += usize::from(damaged > 0);
                    let is_part = lines.iter().all(|line| whole.contains(line));
                    assert!(
                        is_part && (lines.len() == whole.len() || damaged > 0),
                        "{file} byte {at}: {lines:?}"
                    );
                }
            }
            std::fs::write(&path, &good[..at]).unwrap();
            if let Ok((lines, _)) = read_block(dir.path()) {
                assert!(lines.iter().all(|line| whole.contains(line)), "{file} cut at {at}");
            }
        }
        assert!(noticed * 10 >= good.len() * 8, "{file}: {noticed} of {} noticed", good.len());
        std::fs::write(&path, &good).unwrap();
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_chunk_or_an_error(encoding in 0u8..8, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut out = Vec::new();
        let _ = decode(encoding, &bytes, &mut out);
        // A bit a sample is the least.
        prop_assert!(out.len() <= bytes.len() * 8 + 1);
    }

    #[test]
    fn a_mutated_chunk_is_a_chunk_or_an_error(
        which in 0usize..4,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let samples = floats(&[1.0, 2.0, STALE_MARKER, 4.5, 4.5, 1e300]);
        let (encoding, mut bytes) = match which {
            0 => (1, xor_chunk(&samples)),
            1 => (4, xor2_chunk(&samples)),
            2 => (2, histogram_chunk(false)),
            _ => (5, histogram_chunk(true)),
        };
        for (at, with) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= with;
        }
        let _ = decode(encoding, &bytes, &mut Vec::new());
        bytes.truncate(cut.index(bytes.len()));
        let _ = decode(encoding, &bytes, &mut Vec::new());
    }

    #[test]
    fn any_bytes_are_series_symbols_tombstones_or_errors(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = index::Series::default().parse(&bytes);
        let _ = index::places(&bytes);
        let _ = block::parse_tombstones(&bytes);
        let mut stones = vec![0x01, 0x30, 0xBA, 0x30, 1];
        stones.extend(sealed(&bytes));
        let _ = block::parse_tombstones(&stones);
    }
}
