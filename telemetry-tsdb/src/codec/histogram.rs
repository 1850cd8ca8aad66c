//! Native histograms as columns: one float column a bucket over samples of one layout. Counts that are whole become
//! packed integers by the float codec. Buckets without observations are not kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use telemetry_model::native::CUSTOM_SCHEMA;
use telemetry_model::{Buckets, NativeHistogram, ResetHint};

use super::floats::{FloatCoder, decode_floats};
use super::varint::{put_varint, take, take_varint};
use super::{CodecError, Effort, unzigzag, zigzag};

/// The most buckets a side may have: schema 8 over all of a float's range.
const BUCKETS_MAX: usize = 1 << 16;
/// The most cells all columns of a chunk may have: what one decoding may allocate.
const COLUMN_CELLS_MAX: usize = 1 << 24;
/// The count is what the buckets sum up to, so it is stored as the difference.
const COUNT_IS_REST: u8 = 0x80;

/// Whether two samples can share columns.
fn same_layout(a: &NativeHistogram, b: &NativeHistogram) -> bool {
    a.schema == b.schema
        && a.reset == b.reset
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && match (&a.custom_bounds, &b.custom_bounds) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                Arc::ptr_eq(a, b) || a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits()))
            }
            _ => false,
        }
}

/// Appends samples, a run of columns for each change of layout.
pub fn encode_histograms(
    coder: &mut FloatCoder,
    samples: &[(u32, &NativeHistogram)],
    out: &mut Vec<u8>,
    effort: Effort,
) {
    let runs: Vec<_> = samples.chunk_by(|a, b| same_layout(a.1, b.1)).collect();
    put_varint(out, runs.len() as u64);
    for run in runs {
        put_varint(out, run.len() as u64);
        encode_run(coder, run, out, effort);
    }
}

fn total(h: &NativeHistogram) -> f64 {
    h.zero_count + h.positive.counts.iter().sum::<f64>() + h.negative.counts.iter().sum::<f64>()
}

fn encode_run(coder: &mut FloatCoder, run: &[(u32, &NativeHistogram)], out: &mut Vec<u8>, effort: Effort) {
    let Some((_, first)) = run.first() else { return };
    let is_rest = run.iter().all(|(_, h)| ((h.count - total(h)) + total(h)).to_bits() == h.count.to_bits());
    out.extend_from_slice(&first.schema.to_le_bytes());
    let hint = match first.reset {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::NotReset => 2,
        ResetHint::Gauge => 3,
    };
    out.push(hint | if is_rest { COUNT_IS_REST } else { 0 });
    out.extend_from_slice(&first.zero_threshold.to_le_bytes());
    if first.schema == CUSTOM_SCHEMA {
        let bounds = first.custom_bounds.as_deref().unwrap_or(&[]);
        put_varint(out, bounds.len() as u64);
        bounds.iter().for_each(|bound| out.extend_from_slice(&bound.to_le_bytes()));
    }
    let mut column = Vec::with_capacity(run.len());
    let mut put = |out: &mut Vec<u8>, value: &dyn Fn(&NativeHistogram) -> f64| {
        column.clear();
        column.extend(run.iter().map(|(_, h)| value(h)));
        let mut packed = Vec::new();
        coder.encode(&column, &mut packed, effort);
        put_varint(out, packed.len() as u64);
        out.extend_from_slice(&packed);
    };
    if is_rest {
        put(out, &|h| h.count - total(h));
    } else {
        put(out, &|h| h.count);
    }
    put(out, &|h| h.zero_count);
    put(out, &|h| h.sum);
    let sides: [fn(&NativeHistogram) -> &Buckets; 2] = [|h| &h.positive, |h| &h.negative];
    for side in sides {
        let indexes: BTreeSet<i32> = run
            .iter()
            .flat_map(|(_, h)| side(h).iter().filter(|(_, count)| *count != 0.0).map(|(index, _)| index))
            .collect();
        put_varint(out, indexes.len() as u64);
        let mut last = 0;
        for index in &indexes {
            put_varint(out, zigzag(i64::from(*index) - last));
            last = i64::from(*index);
        }
        for index in &indexes {
            put(out, &|h| count_at(side(h), *index));
        }
    }
}

fn count_at(buckets: &Buckets, index: i32) -> f64 {
    let at = buckets.indexes.binary_search(&index).ok();
    at.and_then(|at| buckets.counts.get(at)).copied().unwrap_or(0.0)
}

/// Appends `n` samples.
pub fn decode_histograms(
    mut bytes: &[u8],
    n: usize,
    out: &mut Vec<NativeHistogram>,
) -> Result<(), CodecError> {
    let runs = take_varint(&mut bytes)?;
    let mut left = n;
    for _ in 0..runs {
        let rows = usize::try_from(take_varint(&mut bytes)?).map_err(|_| CodecError::Malformed("run"))?;
        if rows == 0 {
            return Err(CodecError::Malformed("empty run"));
        }
        left = left.checked_sub(rows).ok_or(CodecError::Malformed("run beyond the rows"))?;
        decode_run(&mut bytes, rows, out)?;
    }
    if left == 0 { Ok(()) } else { Err(CodecError::Short) }
}

fn get_float(bytes: &mut &[u8]) -> Result<f64, CodecError> {
    let bits = take(bytes, 8)?.first_chunk::<8>().ok_or(CodecError::Short)?;
    Ok(f64::from_le_bytes(*bits))
}

fn get_column(bytes: &mut &[u8], rows: usize) -> Result<Vec<f64>, CodecError> {
    let len = usize::try_from(take_varint(bytes)?).map_err(|_| CodecError::Short)?;
    let packed = take(bytes, len)?;
    let mut column = Vec::new();
    decode_floats(packed, rows, &mut column)?;
    Ok(column)
}

fn decode_run(bytes: &mut &[u8], rows: usize, out: &mut Vec<NativeHistogram>) -> Result<(), CodecError> {
    let head = take(bytes, 2)?;
    let (schema, flags) = (head.first().copied().unwrap_or(0), head.get(1).copied().unwrap_or(0));
    let schema = i8::from_le_bytes([schema]);
    let reset = match flags & !COUNT_IS_REST {
        0 => ResetHint::Unknown,
        1 => ResetHint::Reset,
        2 => ResetHint::NotReset,
        3 => ResetHint::Gauge,
        other => return Err(CodecError::Code(other)),
    };
    let zero_threshold = get_float(bytes)?;
    let custom_bounds: Option<Arc<[f64]>> = if schema == CUSTOM_SCHEMA {
        let n = usize::try_from(take_varint(bytes)?).map_err(|_| CodecError::Short)?;
        if n > bytes.len() / 8 {
            return Err(CodecError::Short);
        }
        Some((0..n).map(|_| get_float(bytes)).collect::<Result<_, _>>()?)
    } else {
        None
    };
    let (count, zero, sum) = (get_column(bytes, rows)?, get_column(bytes, rows)?, get_column(bytes, rows)?);
    let positive = get_side(bytes, rows)?;
    let negative = get_side(bytes, rows)?;
    for row in 0..rows {
        let at = |column: &[f64]| column.get(row).copied().unwrap_or(0.0);
        let mut sample = NativeHistogram {
            schema,
            reset,
            zero_threshold,
            zero_count: at(&zero),
            count: at(&count),
            sum: at(&sum),
            positive: buckets(&positive, row),
            negative: buckets(&negative, row),
            custom_bounds: custom_bounds.clone(),
        };
        if flags & COUNT_IS_REST != 0 {
            sample.count += total(&sample);
        }
        out.push(sample);
    }
    Ok(())
}

type Side = Vec<(i32, Vec<f64>)>;

fn get_side(bytes: &mut &[u8], rows: usize) -> Result<Side, CodecError> {
    let n = usize::try_from(take_varint(bytes)?).map_err(|_| CodecError::Short)?;
    if n > bytes.len() || n > BUCKETS_MAX || n.saturating_mul(rows) > COLUMN_CELLS_MAX {
        return Err(CodecError::Malformed("too many buckets"));
    }
    let mut indexes = Vec::with_capacity(n);
    let mut last = 0i64;
    for k in 0..n {
        let step = unzigzag(take_varint(bytes)?);
        if k > 0 && step <= 0 {
            return Err(CodecError::Malformed("bucket indexes do not grow"));
        }
        last = last.checked_add(step).ok_or(CodecError::Malformed("bucket index"))?;
        indexes.push(i32::try_from(last).map_err(|_| CodecError::Malformed("bucket index"))?);
    }
    indexes.into_iter().map(|index| Ok((index, get_column(bytes, rows)?))).collect()
}

fn buckets(side: &Side, row: usize) -> Buckets {
    let cells = side.iter().map(|(index, column)| (*index, column.get(row).copied().unwrap_or(0.0)));
    cells.filter(|(_, count)| *count != 0.0).collect()
}
