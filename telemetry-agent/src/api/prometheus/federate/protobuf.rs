//! `io.prometheus.client.MetricFamily`, each behind its length.

use telemetry_model::{Buckets, NativeHistogram, ResetHint};
use telemetry_promql::labels::Labels;

use super::super::spans::write_buckets;
use super::{Last, Value, labels_of, name_of};
use crate::api::wire::{Message, put_varint};

/// Numbers of the kinds of families.
const UNTYPED: u64 = 3;
const HISTOGRAM: u64 = 4;
const GAUGE_HISTOGRAM: u64 = 5;

/// Series of one name, in as many families as they have kinds.
pub(super) fn family(out: &mut Vec<u8>, series: &[(&(String, Labels), &Last)], quoted: bool) {
    for same in series.chunk_by(|a, b| kind(a.1) == kind(b.1)) {
        let Some(((name, _), first)) = same.first() else { continue };
        let mut family = Message::default();
        family.bytes(1, name_of(name, quoted).as_bytes());
        family.number(3, kind(first));
        for ((_, labels), last) in same {
            family.message(4, |metric| {
                for (name, value) in labels_of(labels) {
                    metric.message(1, |pair| {
                        pair.bytes(1, name_of(name, quoted).as_bytes());
                        pair.bytes(2, value.as_bytes());
                    });
                }
                match &last.value {
                    Value::Float(value) => metric.message(5, |untyped| untyped.double(1, *value)),
                    Value::Histogram(histogram) => metric.message(7, |out| write_histogram(out, histogram)),
                }
                metric.int(6, last.t);
            });
        }
        let family = family.into_bytes();
        put_varint(out, family.len() as u64);
        out.extend(family);
    }
}

fn kind(last: &Last) -> u64 {
    match &last.value {
        Value::Float(_) => UNTYPED,
        Value::Histogram(histogram) if histogram.reset == ResetHint::Gauge => GAUGE_HISTOGRAM,
        Value::Histogram(_) => HISTOGRAM,
    }
}

/// `Histogram`: native buckets of floats, or classic ones for bounds of its own.
fn write_histogram(out: &mut Message, histogram: &NativeHistogram) {
    out.double(2, histogram.sum);
    out.double(4, histogram.count);
    if let Some(bounds) = &histogram.custom_bounds {
        let mut below = 0.0;
        for (at, bound) in bounds.iter().enumerate() {
            below += i32::try_from(at).map_or(0.0, |index| count_at(&histogram.positive, index));
            out.message(3, |bucket| {
                bucket.double(2, *bound);
                bucket.double(4, below);
            });
        }
        return;
    }
    out.sint(5, i64::from(histogram.schema));
    out.double(6, histogram.zero_threshold);
    out.double(8, histogram.zero_count);
    write_buckets(out, [9, 11], &histogram.negative);
    write_buckets(out, [12, 14], &histogram.positive);
    if histogram.positive.indexes.is_empty() && histogram.negative.indexes.is_empty() {
        // An empty span tells that it is a native histogram nevertheless.
        out.message(12, |span| span.sint(1, 0));
    }
}

fn count_at(buckets: &Buckets, index: i32) -> f64 {
    let at = buckets.indexes.binary_search(&index).ok();
    at.and_then(|at| buckets.counts.get(at)).copied().unwrap_or(0.0)
}
