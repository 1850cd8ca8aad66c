//! Chunks of native histograms: of integers and of floats, exponential or with bounds of their own.

use std::sync::Arc;

use telemetry_model::native::{CUSTOM_SCHEMA, SCHEMA_MAX, SCHEMA_MIN};
use telemetry_model::{Buckets, NativeHistogram, ResetHint, STALE_MARKER, float, is_stale};
use telemetry_tsdb::head::Sample;

use super::Malformed;
use super::bits::{Bits, Zeros};
use super::floats::StartTimes;

/// What all samples of a chunk share.
struct Layout {
    schema: i8,
    zero_threshold: f64,
    positive: Vec<i32>,
    negative: Vec<i32>,
    bounds: Option<Arc<[f64]>>,
    is_gauge: bool,
}

/// What stands before the samples.
struct Head<'a> {
    count: u16,
    is_gauge: bool,
    starts: StartTimes,
    bits: Bits<'a>,
}

/// A count, with the step it made last.
#[derive(Clone, Copy, Default)]
struct Stepped {
    value: i64,
    step: i64,
}

/// A float, with the zeros of its last XOR.
#[derive(Clone, Copy, Default)]
struct Chained {
    value: f64,
    zeros: Zeros,
}

/// The samples of a chunk of integer histograms; `with_starts`: of the kind that has start timestamps.
///
/// # Errors
/// If it is malformed.
pub fn integers(data: &[u8], with_starts: WithStarts, out: &mut Vec<(i64, Sample)>) -> Result<(), Malformed> {
    let mut head = Head::of(data, with_starts)?;
    if head.count == 0 {
        return Ok(());
    }
    let layout = Layout::read(&mut head)?;
    let Head { count: samples, starts, mut bits, .. } = head;
    let (mut t, mut count, mut zero) = (Stepped::default(), Stepped::default(), Stepped::default());
    let mut sum = Chained::default();
    let mut positive = vec![Stepped::default(); layout.positive.len()];
    let mut negative = vec![Stepped::default(); layout.negative.len()];
    for number in 0..samples {
        if number == 0 {
            t.value = bits.varbit_int()?;
            count.value = bits.varbit_uint()?.cast_signed();
            zero.value = bits.varbit_uint()?.cast_signed();
            sum.value = bits.f64()?;
        } else {
            t.change(bits.varbit_int()?);
            count.change(bits.varbit_int()?);
            zero.change(bits.varbit_int()?);
            sum.value = bits.xor(sum.value, &mut sum.zeros)?;
        }
        let is_end = is_stale(sum.value) && number > 0;
        for cell in positive.iter_mut().chain(&mut negative).filter(|_| !is_end) {
            let read = bits.varbit_int()?;
            if number == 0 { cell.value = read } else { cell.change(read) }
        }
        starts.skip(number, &mut bits)?;
        let sample = layout.sample(
            number,
            [float(count.value.cast_unsigned()), float(zero.value.cast_unsigned()), sum.value],
            running(&positive),
            running(&negative),
        );
        out.push((t.value, sample));
    }
    Ok(())
}

/// The samples of a chunk of float histograms.
///
/// # Errors
/// If it is malformed.
pub fn floats(data: &[u8], with_starts: WithStarts, out: &mut Vec<(i64, Sample)>) -> Result<(), Malformed> {
    let mut head = Head::of(data, with_starts)?;
    if head.count == 0 {
        return Ok(());
    }
    let layout = Layout::read(&mut head)?;
    let Head { count: samples, starts, mut bits, .. } = head;
    let mut t = Stepped::default();
    let mut totals = [Chained::default(); 3];
    if bits.left() / 64 < layout.positive.len() + layout.negative.len() {
        return Err(Malformed("chunk cut off"));
    }
    let mut positive = vec![Chained::default(); layout.positive.len()];
    let mut negative = vec![Chained::default(); layout.negative.len()];
    for number in 0..samples {
        let read = |bits: &mut Bits<'_>, cell: &mut Chained| {
            let next = if number == 0 { bits.f64() } else { bits.xor(cell.value, &mut cell.zeros) };
            next.map(|value| cell.value = value)
        };
        let change = bits.varbit_int()?;
        if number == 0 {
            t.value = change
        } else {
            t.change(change)
        }
        for cell in &mut totals {
            read(&mut bits, cell)?;
        }
        let [count, zero, sum] = totals.map(|cell| cell.value);
        let is_end = is_stale(sum) && number > 0;
        for cell in positive.iter_mut().chain(&mut negative).filter(|_| !is_end) {
            read(&mut bits, cell)?;
        }
        starts.skip(number, &mut bits)?;
        let values = |cells: &[Chained]| cells.iter().map(|cell| cell.value).collect::<Vec<_>>();
        out.push((t.value, layout.sample(number, [count, zero, sum], values(&positive), values(&negative))));
    }
    Ok(())
}

/// Whether a chunk is of the kind that has start timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithStarts {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// Buckets are written as differences to the bucket before.
#[expect(clippy::cast_precision_loss, reason = "samples are 64-bit floats in every format served")]
fn running(cells: &[Stepped]) -> Vec<f64> {
    let mut total = 0i64;
    let add = |cell: &Stepped| {
        total = total.wrapping_add(cell.value);
        total as f64
    };
    cells.iter().map(add).collect()
}

// === impl Stepped ===

impl Stepped {
    fn change(&mut self, of_step: i64) {
        self.step = self.step.wrapping_add(of_step);
        self.value = self.value.wrapping_add(self.step);
    }
}

// === impl Head ===

impl<'a> Head<'a> {
    fn of(data: &'a [u8], with_starts: WithStarts) -> Result<Self, Malformed> {
        let (head, data) = data.split_first_chunk::<3>().ok_or(Malformed("chunk cut off"))?;
        let [high, low, third] = *head;
        let (count, flags, starts) = match with_starts {
            WithStarts::No => (u16::from_be_bytes([high, low]), third, 0),
            WithStarts::Yes => (u16::from_be_bytes([high & 0x3f, low]), high, third),
        };
        let is_gauge = flags & 0xc0 == 0xc0;
        Ok(Self { count, is_gauge, starts: StartTimes::of(starts), bits: Bits::new(data) })
    }
}

// === impl Layout ===

impl Layout {
    fn read(head: &mut Head<'_>) -> Result<Self, Malformed> {
        let bits = &mut head.bits;
        let zero_threshold = match bits.get(8)? {
            0 => 0.0,
            255 => bits.f64()?,
            exponent => 0.5 * f64::from(i32::try_from(exponent).unwrap_or(0) - 243).exp2(),
        };
        let schema = i8::try_from(bits.varbit_int()?).map_err(|_| Malformed("schema not known"))?;
        if schema != CUSTOM_SCHEMA && !(SCHEMA_MIN..=SCHEMA_MAX).contains(&schema) {
            return Err(Malformed("schema not known"));
        }
        let (positive, negative) = (spans(bits)?, spans(bits)?);
        let bounds = if schema == CUSTOM_SCHEMA { Some(custom_bounds(bits)?) } else { None };
        Ok(Self { schema, zero_threshold, positive, negative, bounds, is_gauge: head.is_gauge })
    }

    /// A histogram without its empty buckets; a stale marker where the series ends.
    fn sample(&self, number: u16, totals: [f64; 3], positive: Vec<f64>, negative: Vec<f64>) -> Sample {
        let [count, zero_count, sum] = totals;
        if is_stale(sum) {
            return Sample::Float(STALE_MARKER);
        }
        let buckets = |indexes: &[i32], counts: Vec<f64>| -> Buckets {
            indexes.iter().copied().zip(counts).filter(|(_, count)| *count != 0.0).collect()
        };
        let reset = match number {
            _ if self.is_gauge => ResetHint::Gauge,
            // What the chunk says of its first sample holds only beside the chunk that was before it then.
            0 => ResetHint::Unknown,
            _ => ResetHint::NotReset,
        };
        Sample::Histogram(Arc::new(NativeHistogram {
            schema: self.schema,
            reset,
            zero_threshold: self.zero_threshold,
            zero_count,
            count,
            sum,
            positive: buckets(&self.positive, positive),
            negative: buckets(&self.negative, negative),
            custom_bounds: self.bounds.clone(),
        }))
    }
}

/// Runs of buckets, as the indexes they are. Each bucket takes a bit at least, so what claims more is refused.
fn spans(bits: &mut Bits<'_>) -> Result<Vec<i32>, Malformed> {
    let bad = Malformed("spans of buckets");
    let count = bits.varbit_uint()?;
    let mut indexes = Vec::new();
    let mut next = 0i64;
    for _ in 0..count {
        let len = usize::try_from(bits.varbit_uint()?).map_err(|_| bad)?;
        let offset = bits.varbit_int()?;
        // Only the first run may begin below zero.
        if (offset < 0 && !indexes.is_empty()) || len > bits.left() || indexes.len() > bits.left() {
            return Err(bad);
        }
        next = next.checked_add(offset).ok_or(bad)?;
        for _ in 0..len {
            indexes.push(i32::try_from(next).map_err(|_| bad)?);
            next += 1;
        }
    }
    if indexes.is_sorted_by(|a, b| a < b) { Ok(indexes) } else { Err(bad) }
}

/// Bounds: thousandths where they are few, bits where not.
fn custom_bounds(bits: &mut Bits<'_>) -> Result<Arc<[f64]>, Malformed> {
    let count = usize::try_from(bits.varbit_uint()?).map_err(|_| Malformed("bounds"))?;
    if count > bits.left() {
        return Err(Malformed("bounds"));
    }
    let bound = |_| match bits.varbit_uint()? {
        0 => bits.f64(),
        thousandths => Ok(float(thousandths - 1) / 1000.0),
    };
    let bounds = (0..count).map(bound).collect::<Result<Vec<_>, _>>()?;
    if bounds.is_sorted_by(|a, b| a < b) { Ok(bounds.into()) } else { Err(Malformed("bounds")) }
}
