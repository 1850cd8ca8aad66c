//! Every bit pattern comes back; damaged bytes are an error or some value, never a panic and never much memory.

use std::sync::Arc;

use proptest::prelude::*;
use telemetry_model::native::CUSTOM_SCHEMA;
use telemetry_model::{NativeHistogram, ResetHint, STALE_MARKER};

use super::*;

fn decode(bytes: &[u8], n: usize) -> Result<Decoded, CodecError> {
    let mut out = Decoded::default();
    decode_cells(bytes, n, &mut out).map(|()| out)
}

fn round_trip(values: &[f64], effort: Effort) -> usize {
    let mut bytes = Vec::new();
    let cells = Cells { values, present: None, histograms: &[] };
    Encoder::default().encode_cells(&cells, &mut bytes, effort);
    let out = decode(&bytes, values.len()).expect("what was encoded decodes");
    let (got, wanted): (Vec<_>, Vec<_>) =
        (out.values.iter().map(|v| v.to_bits()).collect(), values.iter().map(|v| v.to_bits()).collect());
    assert_eq!(got, wanted, "{effort:?}");
    bytes.len()
}

#[test]
fn special_values_survive() {
    for effort in [Effort::Fast, Effort::Long] {
        for values in [
            vec![0.0],
            vec![-0.0, 0.0, 1.0],
            vec![-0.0; 3],
            vec![STALE_MARKER; 5],
            vec![1.0, STALE_MARKER, 2.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE],
            vec![9e15, 1.0, -9e15, 8.999e15],
            vec![0.1, 0.2, 0.300_000_000_000_000_04, 1e-9, 123_456.789],
            (0..1440).map(|k| f64::from(k) * 0.37).collect(),
            (0..1440).map(|k| f64::from(k * k % 977)).collect(),
            (0..1440).map(|k| f64::from(k).sqrt()).collect(),
        ] {
            round_trip(&values, effort);
        }
    }
}

#[test]
fn a_constant_is_a_few_bytes_and_a_counter_a_byte_a_sample() {
    assert!(round_trip(&[5.0; 240], Effort::Fast) <= 3);
    let counter: Vec<f64> = (0..240).map(|k| f64::from(k * 100 + k % 7)).collect();
    assert!(round_trip(&counter, Effort::Fast) <= 240);
}

#[test]
fn times_survive_and_even_ones_are_free() {
    for times in [vec![5], (0..240).map(|k| 1_700_000_000_000 + k * 5000).collect(), vec![-7, 0, 1, 900, 901]]
    {
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        encode_times(&times, &mut bytes);
        decode_times(&bytes, times.len(), &mut out).unwrap();
        assert_eq!(out, times);
        assert!(bytes.len() < 16);
    }
    let (mut bytes, mut out) = (Vec::new(), Vec::new());
    encode_times(&[3, 2, 9], &mut bytes);
    assert!(decode_times(&bytes, 3, &mut out).is_err(), "times that do not grow are refused");
}

#[derive(Clone, Debug)]
enum Cell {
    Absent,
    Float(f64),
    Histogram(NativeHistogram),
}

fn histogram() -> impl Strategy<Value = NativeHistogram> {
    let side = prop::collection::btree_map(-300..300i32, 1..1_000_000u64, 0..12);
    let counts = (side.clone(), side, 0..9u64, any::<f64>(), any::<bool>());
    (counts, 0..4u8, 0..3i8, any::<bool>()).prop_map(
        |((positive, negative, nan, sum, whole), hint, schema, custom)| {
            let scale = if whole { 1.0 } else { 0.3 };
            let list = |m: std::collections::BTreeMap<i32, u64>| {
                m.into_iter()
                    .map(|(index, count)| (index, count as f64 * scale))
                    .collect::<telemetry_model::Buckets>()
            };
            let (positive, negative) = (list(positive), list(negative));
            let all: f64 = positive.counts.iter().chain(&negative.counts).sum();
            NativeHistogram {
                schema: if custom { CUSTOM_SCHEMA } else { schema },
                reset: [ResetHint::Unknown, ResetHint::Reset, ResetHint::NotReset, ResetHint::Gauge]
                    [hint as usize],
                zero_threshold: if whole { 1e-9 } else { 0.0 },
                zero_count: nan as f64,
                count: all + nan as f64 * 2.0,
                sum,
                positive,
                negative,
                custom_bounds: custom.then(|| Arc::from(vec![1.0, 2.0, f64::from(schema)])),
            }
        },
    )
}

fn cell() -> impl Strategy<Value = Cell> {
    prop_oneof![
        2 => Just(Cell::Absent),
        4 => (0..1_000_000i64).prop_map(|v| Cell::Float(v as f64 / 100.0)),
        1 => any::<u64>().prop_map(|bits| Cell::Float(f64::from_bits(bits))),
        2 => histogram().prop_map(Cell::Histogram),
    ]
}

fn encode(cells: &[Cell], effort: Effort) -> Vec<u8> {
    let mut present = Bits::new(cells.len());
    let (mut values, mut histograms) = (vec![7.5; cells.len()], Vec::new());
    for (row, cell) in cells.iter().enumerate() {
        match cell {
            Cell::Absent => continue,
            Cell::Float(value) => values[row] = *value,
            Cell::Histogram(h) => histograms.push((u32::try_from(row).unwrap(), h)),
        }
        present.set(row);
    }
    let mut bytes = Vec::new();
    let cells = Cells { values: &values, present: Some(&present), histograms: &histograms };
    Encoder::default().encode_cells(&cells, &mut bytes, effort);
    bytes
}

fn check(cells: &[Cell], out: &Decoded) {
    assert_eq!(out.values.len(), cells.len());
    let mut histograms = out.histograms.iter();
    for (row, cell) in cells.iter().enumerate() {
        assert_eq!(out.has(row), !matches!(cell, Cell::Absent), "row {row}");
        match cell {
            Cell::Absent => {}
            Cell::Float(value) => assert_eq!(out.values[row].to_bits(), value.to_bits()),
            Cell::Histogram(h) => {
                let (at, got) = histograms.next().unwrap();
                assert_eq!(*at as usize, row);
                assert_eq!(got.sum.to_bits(), h.sum.to_bits());
                let (mut got, mut h) = ((**got).clone(), h.clone());
                (got.sum, h.sum) = (0.0, 0.0);
                assert_eq!(got, h);
            }
        }
    }
    assert!(histograms.next().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bits_survive(bits in prop::collection::vec(any::<u64>(), 1..400)) {
        let values: Vec<f64> = bits.into_iter().map(f64::from_bits).collect();
        round_trip(&values, Effort::Fast);
        round_trip(&values, Effort::Long);
    }

    #[test]
    fn decimals_survive(v in prop::collection::vec(-10_000_000_000i64..10_000_000_000, 1..400), k in 0..6usize) {
        let scale = [1.0, 10.0, 100.0, 1e3, 1e6, 1e9][k];
        let values: Vec<f64> = v.into_iter().map(|v| v as f64 / scale).collect();
        round_trip(&values, Effort::Fast);
        round_trip(&values, Effort::Long);
    }

    #[test]
    fn any_cells_survive(a in prop::collection::vec(cell(), 1..60), b in prop::collection::vec(cell(), 1..60)) {
        let mut out = Decoded::default();
        decode_cells(&encode(&a, Effort::Fast), a.len(), &mut out).unwrap();
        check(&a, &out);
        decode_cells(&encode(&b, Effort::Long), b.len(), &mut out).unwrap();
        check(&[a, b].concat(), &out);
    }

    #[test]
    fn damaged_chunks_never_panic(cells in prop::collection::vec(cell(), 1..40), n in 0..200usize, noise in prop::collection::vec(any::<u8>(), 0..100)) {
        let bytes = encode(&cells, Effort::Fast);
        for at in 0..bytes.len() {
            let _ = decode(&bytes[..at], cells.len());
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let _ = decode(&flipped, cells.len());
        }
        let _ = decode(&bytes, n);
        let _ = decode(&noise, n);
        let mut times = Vec::new();
        let _ = decode_times(&noise, n, &mut times);
    }
}
