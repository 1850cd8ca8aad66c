//! `prometheus.ChunkedReadResponse`: frames of chunks, one series after the other, so that neither side holds more than
//! a frame. A frame is its length, a checksum and a message.

use std::sync::Arc;

use telemetry_promql::budget::Budget;
use telemetry_promql::labels::Labels;
use telemetry_promql::source::{Column, Source};

use super::super::answer::Failure;
use super::super::queries::Admitted;
use super::super::source_failure;
use super::request::Query;
use super::samples::write_labels;
use super::select;
use crate::api::wire::{Message, put_varint};
use crate::exchange::prometheus::encode::{self, Chunk};

/// Bytes of chunks in a frame: Prometheus' own default.
const FRAME_BYTES: usize = 1 << 20;
/// Bytes that are sent at once: frames of small series go together.
const SEND_BYTES: usize = 64 * 1024;

/// Sends all queries' frames to `out`.
pub(super) fn answer(
    source: &dyn Source,
    queries: &[Query],
    admitted: &Admitted,
    out: &mut dyn FnMut(Vec<u8>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let budget = Budget::new(admitted.options.limits, Arc::clone(&admitted.options.canceled));
    let mut ready = Vec::new();
    for (number, query) in queries.iter().enumerate() {
        let selection = select(source, query, &budget)?;
        let mut reader = selection.reader();
        for (at, series) in selection.series().iter().enumerate() {
            budget.check()?;
            let chunks = match query.is_of_series {
                // A series without any chunk is none in this format.
                true => vec![Chunk { from: query.from, to: query.to, ..Chunk::empty() }],
                false => encode::chunks(samples(&reader.read(at).map_err(source_failure)?)),
            };
            for frame in frames(number, series, chunks) {
                put_frame(&mut ready, &frame);
                if ready.len() >= SEND_BYTES {
                    out(std::mem::take(&mut ready))?;
                }
            }
        }
    }
    if ready.is_empty() { Ok(()) } else { out(ready) }
}

/// A column as what chunks are made of.
fn samples(column: &Column) -> impl Iterator<Item = (i64, encode::Value<'_>)> {
    let mut histograms = column.histograms.iter().peekable();
    column.times.iter().zip(&column.values).enumerate().map(move |(at, (t, value))| {
        let histogram = histograms.next_if(|(place, _)| *place as usize == at);
        let value = match histogram {
            Some((_, histogram)) => encode::Value::Histogram(histogram),
            None => encode::Value::Float(*value),
        };
        (*t, value)
    })
}

/// The messages of one series: as many chunks in each as fit.
fn frames(query: usize, labels: &Labels, chunks: Vec<Chunk>) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut rest = chunks.as_slice();
    while !rest.is_empty() {
        let mut left = FRAME_BYTES;
        let fits = rest.iter().take_while(|chunk| {
            let fits = left > 0;
            left = left.saturating_sub(chunk.data.len());
            fits
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        rest = later;
        let mut message = Message::default();
        message.message(1, |out| {
            write_labels(out, labels);
            for chunk in now {
                out.message(2, |out| {
                    out.int(1, chunk.from);
                    out.int(2, chunk.to);
                    out.number(3, u64::from(chunk.encoding));
                    out.bytes(4, &chunk.data);
                });
            }
        });
        message.number(2, query as u64);
        frames.push(message.into_bytes());
    }
    frames
}

fn put_frame(out: &mut Vec<u8>, message: &[u8]) {
    put_varint(out, message.len() as u64);
    out.extend(crc32c::crc32c(message).to_be_bytes());
    out.extend(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_too_large_for_a_frame_goes_in_several() {
        let chunk = |from| Chunk { from, to: from + 1, encoding: 1, data: vec![0; FRAME_BYTES / 2 + 1] };
        let labels = Labels::from_texts([("__name__", "up")]);
        let frames = frames(3, &labels, (0..5).map(chunk).collect());
        let sizes: Vec<_> = frames.iter().map(|frame| frame.len() / (FRAME_BYTES / 2)).collect();
        assert_eq!(sizes, [2, 2, 1]);
    }

    #[test]
    fn a_frame_has_its_length_and_checksum() {
        let mut out = Vec::new();
        put_frame(&mut out, b"123456789");
        // The check value of CRC-32C.
        assert_eq!(out, [&[9, 0xe3, 0x06, 0x92, 0x83][..], b"123456789"].concat());
    }
}
