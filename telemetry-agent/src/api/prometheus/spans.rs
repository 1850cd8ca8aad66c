//! Buckets of native histograms as messages of Prometheus have them: runs of indexes, and a count for each index.

use telemetry_model::Buckets;

use crate::api::wire::Message;

/// Writes spans and counts into fields of these numbers.
pub(super) fn write_buckets(out: &mut Message, [spans, counts]: [u64; 2], buckets: &Buckets) {
    let mut next = 0i64;
    for run in buckets.indexes.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        out.message(spans, |out| {
            out.sint(1, i64::from(*first) - next);
            out.number(2, run.len() as u64);
        });
        next = i64::from(*last) + 1;
    }
    out.doubles(counts, &buckets.counts);
}
