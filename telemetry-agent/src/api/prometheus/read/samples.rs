//! `prometheus.ReadResponse`: all series and samples in one message, compressed.

use std::sync::Arc;

use telemetry_model::{NativeHistogram, ResetHint};
use telemetry_promql::budget::Budget;
use telemetry_promql::labels::Labels;
use telemetry_promql::source::{Column, Source};

use super::super::answer::Failure;
use super::super::queries::Admitted;
use super::super::source_failure;
use super::super::spans::write_buckets;
use super::request::Query;
use super::select;
use crate::api::wire::Message;

/// Reads all queries; the message may have `max` bytes before it is compressed.
pub(super) fn answer(
    source: &dyn Source,
    queries: &[Query],
    admitted: &Admitted,
    max: usize,
) -> Result<Vec<u8>, Failure> {
    let limits = admitted.options.limits;
    let budget = Budget::new(limits, Arc::clone(&admitted.options.canceled));
    let mut message = Message::default();
    for query in queries {
        let mut result = Message::default();
        let selection = select(source, query, &budget)?;
        let mut reader = selection.reader();
        for (at, series) in selection.series().iter().enumerate() {
            budget.check()?;
            let column = match query.is_of_series {
                true => Column::default(),
                false => reader.read(at).map_err(source_failure)?,
            };
            if budget.samples(column.times.len()).is_err() {
                return Err(Failure::execution(format!("exceeded sample limit ({})", limits.samples)));
            }
            if column.times.is_empty() && !query.is_of_series {
                continue;
            }
            result.message(1, |out| write_series(out, series, &column));
            if message.len() + result.len() > max {
                return Err(Failure::execution(format!(
                    "the answer would have more than {max} bytes; ask for STREAMED_XOR_CHUNKS, fewer series or less time"
                )));
            }
        }
        message.bytes(1, &result.into_bytes());
    }
    let compressed = snap::raw::Encoder::new().compress_vec(&message.into_bytes());
    compressed.map_err(|error| Failure::execution(error.to_string()))
}

/// `prometheus.TimeSeries`.
fn write_series(out: &mut Message, labels: &Labels, column: &Column) {
    write_labels(out, labels);
    let mut histograms = column.histograms.iter().peekable();
    for (at, t) in column.times.iter().enumerate() {
        match histograms.next_if(|(place, _)| *place as usize == at) {
            Some((_, histogram)) => out.message(4, |out| write_histogram(out, *t, histogram)),
            None => out.message(2, |out| {
                out.double(1, column.values.get(at).copied().unwrap_or(f64::NAN));
                out.int(2, *t);
            }),
        }
    }
}

/// Labels, which are field 1 of every message that has them.
pub(super) fn write_labels(out: &mut Message, labels: &Labels) {
    for (name, value) in labels.iter() {
        out.message(1, |out| {
            out.bytes(1, name.as_bytes());
            out.bytes(2, value.as_bytes());
        });
    }
}

/// `prometheus.Histogram` of floats.
fn write_histogram(out: &mut Message, t: i64, histogram: &NativeHistogram) {
    out.double(2, histogram.count);
    out.double(3, histogram.sum);
    out.sint(4, i64::from(histogram.schema));
    out.double(5, histogram.zero_threshold);
    out.double(7, histogram.zero_count);
    write_buckets(out, [8, 10], &histogram.negative);
    write_buckets(out, [11, 13], &histogram.positive);
    let hint = match histogram.reset {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::NotReset => 2,
        ResetHint::Gauge => 3,
    };
    out.number(14, hint);
    out.int(15, t);
    out.doubles(16, histogram.custom_bounds.as_deref().unwrap_or_default());
}
