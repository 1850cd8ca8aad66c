//! Chunks that are written and read back by the reader of blocks.

use std::sync::Arc;

use proptest::prelude::*;
use telemetry_model::{Buckets, NativeHistogram, ResetHint, STALE_MARKER};
use telemetry_tsdb::head::Sample;

use super::super::decode;
use super::*;

/// What is written is what was meant, sample for sample.
fn check_written(samples: &[(i64, Sample)]) -> Vec<Chunk> {
    let values = samples.iter().map(|(t, sample)| {
        let value = match sample {
            Sample::Float(value) => Value::Float(*value),
            Sample::Histogram(histogram) => Value::Histogram(histogram),
        };
        (*t, value)
    });
    let chunks = chunks(values);
    let mut read = Vec::new();
    for chunk in &chunks {
        let before = read.len();
        decode(chunk.encoding, &chunk.data, &mut read).unwrap();
        let of_chunk = &read[before..];
        assert!((1..=120).contains(&of_chunk.len()));
        assert_eq!((chunk.from, chunk.to), (of_chunk[0].0, of_chunk[of_chunk.len() - 1].0));
    }
    assert_eq!(read.len(), samples.len());
    for ((t, got), (at, meant)) in read.iter().zip(samples) {
        assert_eq!(t, at);
        match (got, meant) {
            (Sample::Float(got), Sample::Float(meant)) => {
                assert_eq!(got.to_bits(), meant.to_bits(), "at {t}")
            }
            (Sample::Float(got), Sample::Histogram(meant)) => {
                assert_eq!(
                    (got.to_bits(), meant.sum.to_bits()),
                    (STALE_MARKER.to_bits(), STALE_MARKER.to_bits())
                )
            }
            (Sample::Histogram(got), Sample::Histogram(meant)) => {
                // What a chunk says of its first sample is not believed by its reader.
                let meant = NativeHistogram { reset: got.reset, ..(**meant).clone() };
                assert_eq!(**got, meant, "at {t}");
            }
            other => panic!("{other:?} at {t}"),
        }
    }
    chunks
}

fn plain(reset: ResetHint, counts: &[(i32, f64)]) -> NativeHistogram {
    let count = counts.iter().map(|(_, count)| count).sum();
    NativeHistogram {
        schema: 2,
        reset,
        count,
        sum: count * 1.5,
        positive: counts.iter().copied().collect(),
        ..Default::default()
    }
}

#[test]
fn chunks_of_histograms_end_where_the_count_or_the_layout_does() {
    use ResetHint::{Gauge, NotReset, Reset, Unknown};
    let sample = |at: i64, histogram: NativeHistogram| (at * 15_000, Sample::Histogram(Arc::new(histogram)));
    let finer = NativeHistogram { schema: 3, ..plain(NotReset, &[(0, 9.0)]) };
    let end = NativeHistogram { sum: STALE_MARKER, ..Default::default() };
    let custom = NativeHistogram {
        schema: -53,
        custom_bounds: Some([0.005, 0.25, 1.0 / 3.0, 1e9].into()),
        ..plain(Unknown, &[(0, 1.0), (3, 4.0)])
    };
    let odd = NativeHistogram {
        zero_threshold: 0.3,
        zero_count: 2.0,
        negative: [(-7, 1.5)].into_iter().collect(),
        ..plain(Unknown, &[(1 << 20, 1.0)])
    };
    let samples = [
        sample(0, plain(Unknown, &[(-3, 1.0), (-2, 2.0)])),
        // A bucket more is no new layout.
        sample(1, plain(NotReset, &[(-3, 1.0), (-2, 3.0), (40, 1.0)])),
        sample(2, plain(Reset, &[(-3, 1.0)])),
        sample(3, plain(NotReset, &[(-3, 2.0)])),
        sample(4, finer),
        sample(5, end),
        sample(6, plain(Gauge, &[(1, 5.0)])),
        sample(7, plain(Gauge, &[(1, 3.0)])),
        sample(8, custom),
        sample(9, odd),
        (150_000, Sample::Float(3.5)),
    ];
    let chunks = check_written(&samples);
    let flags: Vec<_> =
        chunks.iter().map(|chunk| (chunk.encoding, chunk.from / 15_000, chunk.data[2] >> 6)).collect();
    // Encoding, first sample, and what the head says of it: unknown, reset, goes on, gauge.
    assert_eq!(&flags[..6], [(3, 0, 0), (3, 2, 2), (3, 4, 1), (3, 6, 3), (3, 8, 0), (3, 9, 0)]);
    assert_eq!((flags.len(), flags[6].0), (7, 1));
    assert!(check_written(&[]).is_empty());
}

fn floats_of_any_kind() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(STALE_MARKER),
        Just(0.0),
        any::<f64>(),
        (0u32..50).prop_map(f64::from),
        any::<u64>().prop_map(f64::from_bits),
    ]
}

fn buckets() -> impl Strategy<Value = Buckets> {
    let index = prop_oneof![-20i32..20, any::<i32>()];
    prop::collection::btree_map(index, prop_oneof![(1u32..9).prop_map(f64::from), 0.1f64..1e9], 0..8)
        .prop_map(|buckets| buckets.into_iter().collect())
}

prop_compose! {
    fn histograms()(
        schema in -4i8..=8,
        reset in prop::sample::select(vec![ResetHint::Unknown, ResetHint::Reset, ResetHint::NotReset, ResetHint::Gauge]),
        zero in prop::sample::select(vec![0.0, 2f64.powi(-128), 1e-3, 0.5, 2048.0]),
        (zero_count, count, sum) in (0u32..9, 0.0f64..1e12, -1e9f64..1e9),
        (positive, negative) in (buckets(), buckets()),
        same in any::<bool>(),
    ) -> NativeHistogram {
        // Often the same layout as its neighbours.
        let (schema, zero_threshold) = if same { (3, 0.0) } else { (schema, zero) };
        let zero_count = f64::from(zero_count);
        NativeHistogram { schema, reset, zero_threshold, zero_count, count, sum, positive, negative, custom_bounds: None }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        start in any::<i32>(),
        samples in prop::collection::vec(
            (
                prop_oneof![Just(15_000i64), 1i64..100_000, 1i64..5_000_000_000],
                prop_oneof![
                    4 => floats_of_any_kind().prop_map(Sample::Float),
                    1 => histograms().prop_map(|histogram| Sample::Histogram(Arc::new(histogram))),
                ],
            ),
            0..300,
        ),
    ) {
        let mut t = i64::from(start);
        let samples: Vec<_> = samples
            .into_iter()
            .map(|(step, sample)| {
                t += step;
                (t, sample)
            })
            .collect();
        check_written(&samples);
    }
}
