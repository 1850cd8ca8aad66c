//! What holds for histograms of any layout: nothing is lost, order does not matter, rounding is made up for.

use proptest::collection::vec;
use proptest::prelude::*;
use telemetry_model::native::CUSTOM_SCHEMA;
use telemetry_model::{Buckets, NativeHistogram};

use super::super::arithmetic::Arithmetic;

/// Buckets of whole counts, so that sums are exact.
fn buckets() -> impl Strategy<Value = Buckets> {
    vec((-40..40_i32, 0..1000_u32), 0..12).prop_map(|pairs| {
        let counts: std::collections::BTreeMap<i32, u32> = pairs.into_iter().collect();
        counts.into_iter().map(|(index, count)| (index, f64::from(count))).collect()
    })
}

fn exponential() -> impl Strategy<Value = NativeHistogram> {
    let zeros = prop_oneof![Just(0.0), Just(1e-128), Just(0.001), Just(0.3), Just(4.0)];
    (-2..4_i8, zeros, 0..50_u32, buckets(), buckets()).prop_map(
        |(schema, threshold, zero, positive, negative)| {
            // A bucket that lies in the zero bucket is no bucket.
            let beyond = |buckets: Buckets| -> Buckets {
                let lower = |index: i32| f64::exp2(f64::from(index - 1) * f64::exp2(-f64::from(schema)));
                buckets.iter().filter(|(index, _)| lower(*index) >= threshold).collect()
            };
            whole(NativeHistogram {
                schema,
                zero_threshold: threshold,
                zero_count: f64::from(zero),
                positive: beyond(positive),
                negative: beyond(negative),
                ..NativeHistogram::default()
            })
        },
    )
}

fn custom() -> impl Strategy<Value = NativeHistogram> {
    (vec(0..12_u8, 0..8), vec(0..1000_u32, 9)).prop_map(|(bounds, counts)| {
        let bounds: std::collections::BTreeSet<u8> = bounds.into_iter().collect();
        let bounds: Vec<f64> = bounds.into_iter().map(f64::from).collect();
        let counts = counts.into_iter().map(f64::from).take(bounds.len() + 1);
        whole(NativeHistogram {
            schema: CUSTOM_SCHEMA,
            positive: (0..).zip(counts).collect(),
            custom_bounds: Some(bounds.into()),
            ..NativeHistogram::default()
        })
    })
}

fn any() -> impl Strategy<Value = Vec<NativeHistogram>> {
    prop_oneof![vec(exponential(), 1..6), vec(custom(), 1..6)]
}

/// With the count and a sum that belong to its buckets.
fn whole(histogram: NativeHistogram) -> NativeHistogram {
    let count = observations(&histogram);
    NativeHistogram { count, sum: count * 3.0, ..histogram }
}

fn observations(histogram: &NativeHistogram) -> f64 {
    let buckets = histogram.positive.counts.iter().chain(&histogram.negative.counts);
    histogram.zero_count + buckets.sum::<f64>()
}

/// Added up with and without what rounding takes.
fn sums(all: &[NativeHistogram]) -> (NativeHistogram, NativeHistogram) {
    let (mut plain, mut made, mut rest) = (all[0].clone(), all[0].clone(), None);
    for histogram in &all[1..] {
        plain.add(histogram).unwrap();
        made.kahan_add(histogram, &mut rest).unwrap();
        if let Some(rest) = &rest {
            assert_eq!(rest.positive.indexes, made.positive.indexes, "both are of one layout");
            assert_eq!(rest.negative.indexes, made.negative.indexes, "both are of one layout");
            assert_eq!((rest.schema, rest.zero_threshold), (made.schema, made.zero_threshold));
            assert_eq!(rest.custom_bounds, made.custom_bounds);
        }
    }
    if let Some(rest) = &rest {
        made.add(rest).unwrap();
    }
    plain.compact();
    made.compact();
    (plain, made)
}

proptest! {
    #[test]
    fn no_observation_is_lost(all in any()) {
        let (plain, made) = sums(&all);
        let expected: f64 = all.iter().map(observations).sum();
        prop_assert_eq!(observations(&plain), expected);
        prop_assert_eq!(observations(&made), expected);
        prop_assert_eq!((made.count, made.sum), (expected, 3.0 * expected));
    }

    #[test]
    fn sums_of_whole_counts_are_the_same_with_and_without_compensation(all in any()) {
        let (plain, made) = sums(&all);
        prop_assert!(plain.equals(&made), "{plain:?}\n{made:?}");
    }

    /// Of more than two it may: which buckets a zero bucket takes depends on how coarse they are by then.
    #[test]
    fn the_order_of_two_does_not_matter(pair in any().prop_filter("two", |all| all.len() > 1)) {
        let there = sums(&[pair[0].clone(), pair[1].clone()]).1;
        let back = sums(&[pair[1].clone(), pair[0].clone()]).1;
        prop_assert!(there.equals(&back), "{there:?}\n{back:?}");
    }

    #[test]
    fn what_is_added_can_be_taken_away(pair in any().prop_filter("two", |all| all.len() > 1)) {
        let mut made = pair[0].clone();
        made.add(&pair[1]).unwrap();
        let mut rest = made.clone();
        rest.sub(&pair[1]).unwrap();
        prop_assert_eq!(observations(&rest), observations(&pair[0]));
        rest.sub(&pair[0]).unwrap();
        rest.compact();
        prop_assert!(rest.positive.is_empty() && rest.negative.is_empty() && rest.zero_count == 0.0);
    }

    #[test]
    fn a_coarser_schema_holds_as_much(histogram in exponential(), by in 0..4_i8) {
        let coarse = histogram.at_schema(histogram.schema - by);
        prop_assert_eq!(observations(&coarse), observations(&histogram));
        let twice = histogram.at_schema(histogram.schema - by / 2).at_schema(histogram.schema - by);
        prop_assert_eq!(coarse.positive, twice.positive);
    }

    /// One so large that others vanish beside it, and it is taken away in the end.
    #[test]
    fn small_counts_survive_beside_a_large_one(all in any(), place in 0..8_usize) {
        const LARGE: f64 = 1e18;
        let mut large = all[0].clone();
        large.multiply(0.0);
        large.compact();
        large.reset = all[0].reset;
        let index = large.positive.indexes.first().copied().unwrap_or(30).max(1);
        let index = if large.has_custom_bounds() { 0 } else { index + 40 };
        large.positive = [(index, LARGE)].into_iter().collect();
        large.count = LARGE;
        let mut small = large.clone();
        small.positive = [(index, -LARGE)].into_iter().collect();
        small.count = -LARGE;
        let mut mixed = all.clone();
        mixed.insert(place.min(all.len()), large);
        mixed.push(small);
        let (expected, made) = (sums(&all).1, sums(&mixed).1);
        prop_assert_eq!(observations(&made), observations(&expected));
        prop_assert_eq!(made.count, expected.count);
    }
}
