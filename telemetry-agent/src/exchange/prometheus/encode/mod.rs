//! Samples as chunks of Prometheus: XOR for floats, and float histograms, which every reader since 2.40 knows.
//!
//! A chunk of histograms has one layout of buckets; those that a sample lacks are written as empty, which means the
//! same. It ends where a count begins anew, as its head says so of its first sample alone.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use telemetry_model::{NativeHistogram, ResetHint, STALE_MARKER, is_stale};

use super::bits::zigzag;

/// Samples of one chunk, as Prometheus itself has them.
const SAMPLES_MAX: usize = 120;
/// Numbers of the encodings.
const XOR: u8 = 1;
const FLOAT_HISTOGRAM: u8 = 3;
/// The largest bound that is written in thousandths.
const THOUSANDTHS_MAX: f64 = 33_554_430.0;

/// One chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Time of its first sample, milliseconds.
    pub from: i64,
    /// Time of its last sample, milliseconds.
    pub to: i64,
    /// Its encoding's number.
    pub encoding: u8,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// A sample on its way into a chunk.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// A float; a stale marker among them.
    Float(f64),
    /// A native histogram. A stale marker is its sum.
    Histogram(&'a NativeHistogram),
}

/// Bits, most significant first.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    /// Bits of the last byte that are taken; 0 if all are.
    used: u32,
}

/// A float that was written, and the zeros of the XOR before it.
#[derive(Clone, Copy, Default)]
struct Chained {
    bits: u64,
    zeros: Option<(u32, u32)>,
}

/// The layout of a chunk of histograms.
struct Layout<'a> {
    first: &'a NativeHistogram,
    positive: Vec<i32>,
    negative: Vec<i32>,
}

/// The samples, in the order of time, as chunks.
#[must_use]
pub fn chunks<'a>(samples: impl IntoIterator<Item = (i64, Value<'a>)>) -> Vec<Chunk> {
    let mut out = Vec::new();
    let mut floats: Vec<(i64, f64)> = Vec::new();
    let mut histograms: Vec<(i64, &NativeHistogram)> = Vec::new();
    for (t, value) in samples {
        match value {
            Value::Float(value) => {
                flush_histograms(&mut histograms, &mut out);
                floats.push((t, value));
                if floats.len() == SAMPLES_MAX {
                    flush_floats(&mut floats, &mut out);
                }
            }
            // A series of floats and histograms ends with a stale marker of either kind.
            Value::Histogram(histogram) => {
                flush_floats(&mut floats, &mut out);
                let last = histograms.last().map(|(_, last)| *last);
                if last.is_some_and(|last| !goes_on(last, histogram)) || histograms.len() == SAMPLES_MAX {
                    flush_histograms(&mut histograms, &mut out);
                }
                histograms.push((t, histogram));
            }
        }
    }
    flush_floats(&mut floats, &mut out);
    flush_histograms(&mut histograms, &mut out);
    out
}

/// Whether two histograms may stand in one chunk, one after the other.
fn goes_on(before: &NativeHistogram, after: &NativeHistogram) -> bool {
    if is_stale(before.sum) || is_stale(after.sum) {
        return is_stale(after.sum) && !is_stale(before.sum);
    }
    let fits = match after.reset {
        ResetHint::Gauge => before.reset == ResetHint::Gauge,
        ResetHint::NotReset => before.reset != ResetHint::Gauge,
        ResetHint::Unknown | ResetHint::Reset => false,
    };
    fits && before.schema == after.schema
        && before.zero_threshold.to_bits() == after.zero_threshold.to_bits()
        && before.custom_bounds == after.custom_bounds
}

fn flush_floats(samples: &mut Vec<(i64, f64)>, out: &mut Vec<Chunk>) {
    if let (Some((from, _)), Some((to, _))) = (samples.first(), samples.last()) {
        out.push(Chunk { from: *from, to: *to, encoding: XOR, data: xor(samples) });
    }
    samples.clear();
}

fn flush_histograms(samples: &mut Vec<(i64, &NativeHistogram)>, out: &mut Vec<Chunk>) {
    if let (Some((from, _)), Some((to, _))) = (samples.first(), samples.last()) {
        out.push(Chunk { from: *from, to: *to, encoding: FLOAT_HISTOGRAM, data: float_histograms(samples) });
    }
    samples.clear();
}

fn xor(samples: &[(i64, f64)]) -> Vec<u8> {
    let mut w = Writer::default();
    w.count(samples.len());
    let (mut t, mut step) = (0i64, 0i64);
    let mut value = Chained::default();
    for (number, (now, sample)) in samples.iter().enumerate() {
        if number == 0 {
            w.varint(*now);
            w.put(sample.to_bits(), 64);
            value.bits = sample.to_bits();
        } else {
            let change = now.wrapping_sub(t).wrapping_sub(step);
            step = now.wrapping_sub(t);
            match change {
                _ if number == 1 => w.uvarint(step.cast_unsigned()),
                0 => w.put(0, 1),
                -8191..=8192 => w.prefixed(0b10, 2, change, 14),
                -65_535..=65_536 => w.prefixed(0b110, 3, change, 17),
                -524_287..=524_288 => w.prefixed(0b1110, 4, change, 20),
                _ => w.prefixed(0b1111, 4, change, 64),
            }
            w.xor(&mut value, *sample);
        }
        t = *now;
    }
    w.bytes
}

fn float_histograms(samples: &[(i64, &NativeHistogram)]) -> Vec<u8> {
    let mut w = Writer::default();
    let Some((_, first)) = samples.first() else { return w.bytes };
    w.count(samples.len());
    w.put(
        match first.reset {
            ResetHint::Unknown => 0,
            ResetHint::NotReset => 0b01,
            ResetHint::Reset => 0b10,
            ResetHint::Gauge => 0b11,
        } << 6,
        8,
    );
    let layout = Layout::of(first, samples);
    layout.write(&mut w);
    let (mut t, mut step) = (0i64, 0i64);
    let mut cells = vec![Chained::default(); 3 + layout.positive.len() + layout.negative.len()];
    for (number, (now, histogram)) in samples.iter().enumerate() {
        match number {
            0 => w.varbit_int(*now),
            1 => {
                step = now.wrapping_sub(t);
                w.varbit_int(step);
            }
            _ => {
                w.varbit_int(now.wrapping_sub(t).wrapping_sub(step));
                step = now.wrapping_sub(t);
            }
        }
        t = *now;
        let is_end = is_stale(histogram.sum);
        let totals = match is_end {
            true => [0.0, 0.0, STALE_MARKER],
            false => [histogram.count, histogram.zero_count, histogram.sum],
        };
        let buckets = [(&layout.positive, &histogram.positive), (&layout.negative, &histogram.negative)];
        let counts = buckets.into_iter().flat_map(|(indexes, buckets)| {
            let count =
                |index| buckets.indexes.binary_search(index).ok().and_then(|at| buckets.counts.get(at));
            indexes.iter().map(move |index| count(index).copied().unwrap_or(0.0))
        });
        // Behind a stale marker no bucket is read.
        let counts = counts.take(if is_end { 0 } else { usize::MAX });
        for (cell, value) in cells.iter_mut().zip(totals.into_iter().chain(counts)) {
            if number == 0 {
                w.put(value.to_bits(), 64);
                cell.bits = value.to_bits();
            } else {
                w.xor(cell, value);
            }
        }
    }
    w.bytes
}

// === impl Chunk ===

impl Chunk {
    /// One without samples.
    #[must_use]
    pub fn empty() -> Self {
        Self { from: 0, to: 0, encoding: XOR, data: vec![0, 0] }
    }
}

// === impl Layout ===

impl<'a> Layout<'a> {
    /// The buckets that any of the samples has; none at all if the first is a stale marker, which stands alone.
    fn of(first: &'a NativeHistogram, samples: &[(i64, &NativeHistogram)]) -> Self {
        if is_stale(first.sum) {
            return Self { first, positive: Vec::new(), negative: Vec::new() };
        }
        let all = |side: fn(&NativeHistogram) -> &telemetry_model::Buckets| {
            let indexes = samples.iter().flat_map(|(_, histogram)| side(histogram).indexes.iter().copied());
            indexes.collect::<BTreeSet<i32>>().into_iter().collect()
        };
        Self {
            first,
            positive: all(|histogram| &histogram.positive),
            negative: all(|histogram| &histogram.negative),
        }
    }

    fn write(&self, w: &mut Writer) {
        let threshold = self.first.zero_threshold;
        match power_of_two(threshold) {
            Some(code) => w.put(u64::from(code), 8),
            None => {
                w.put(255, 8);
                w.put(threshold.to_bits(), 64);
            }
        }
        w.varbit_int(i64::from(self.first.schema));
        w.spans(&self.positive);
        w.spans(&self.negative);
        if self.first.has_custom_bounds() {
            let none: Arc<[f64]> = Arc::default();
            let bounds = self.first.custom_bounds.as_ref().unwrap_or(&none);
            w.varbit_uint(bounds.len() as u64);
            for bound in bounds.iter() {
                w.bound(*bound);
            }
        }
    }
}

/// The byte that stands for a threshold: 0 for zero, else its exponent where it is a power of two of some size.
fn power_of_two(threshold: f64) -> Option<u8> {
    if threshold == 0.0 {
        return Some(0);
    }
    // As half of a power of two, which is how the format counts.
    (-242i32..=11)
        .find(|exponent| 0.5 * f64::from(*exponent).exp2() == threshold)
        .and_then(|exponent| u8::try_from(exponent + 243).ok())
}

// === impl Writer ===

impl Writer {
    fn count(&mut self, samples: usize) {
        self.put(samples as u64, 16);
    }

    /// The lowest `n` bits of a number.
    fn put(&mut self, value: u64, n: u32) {
        let mut left = n;
        while left > 0 {
            if self.used == 0 {
                self.bytes.push(0);
            }
            let free = 8 - self.used;
            let taken = left.min(free);
            let bits = (value >> (left - taken)) & ((1 << taken) - 1);
            if let Some(byte) = self.bytes.last_mut() {
                *byte |= u8::try_from(bits << (free - taken)).unwrap_or(0);
            }
            self.used = (self.used + taken) % 8;
            left -= taken;
        }
    }

    fn prefixed(&mut self, prefix: u64, prefix_len: u32, value: i64, width: u32) {
        self.put(prefix, prefix_len);
        self.put(value.cast_unsigned(), width);
    }

    fn uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(value & 0x7f | 0x80, 8);
            value >>= 7;
        }
        self.put(value, 8);
    }

    fn varint(&mut self, value: i64) {
        self.uvarint(zigzag(value));
    }

    /// One of nine widths; `fits` tells whether the number fits into one.
    fn varbit(&mut self, value: u64, fits: impl Fn(u32) -> bool) {
        if value == 0 {
            return self.put(0, 1);
        }
        let widths = [(1u32, 3u32), (2, 6), (3, 9), (4, 12), (5, 18), (6, 25), (7, 56)];
        match widths.into_iter().find(|(_, width)| fits(*width)) {
            Some((ones, width)) => {
                self.put((1 << (ones + 1)) - 2, ones + 1);
                self.put(value, width);
            }
            None => {
                self.put(0xff, 8);
                self.put(value, 64);
            }
        }
    }

    fn varbit_uint(&mut self, value: u64) {
        self.varbit(value, |width| value < 1 << width);
    }

    fn varbit_int(&mut self, value: i64) {
        // Of the two halves the positive one has the number more.
        let fits = |width: u32| -(1i64 << (width - 1)) < value && value <= 1 << (width - 1);
        self.varbit(value.cast_unsigned(), fits);
    }

    /// What changed since the value before.
    fn xor(&mut self, last: &mut Chained, value: f64) {
        let changed = last.bits ^ value.to_bits();
        last.bits = value.to_bits();
        if changed == 0 {
            return self.put(0, 1);
        }
        // Five bits tell of the leading zeros.
        let (leading, trailing) = (changed.leading_zeros().min(31), changed.trailing_zeros());
        if let Some((before, after)) = last.zeros
            && leading >= before
            && trailing >= after
        {
            self.put(0b10, 2);
            return self.put(changed >> after, 64 - before - after);
        }
        last.zeros = Some((leading, trailing));
        let width = 64 - leading - trailing;
        self.put(0b11, 2);
        self.put(u64::from(leading), 5);
        // 64 is written as 0.
        self.put(u64::from(width % 64), 6);
        self.put(changed >> trailing, width);
    }

    /// Runs of indexes: how long each is, and how far from the end of the one before.
    fn spans(&mut self, indexes: &[i32]) {
        let runs: Vec<&[i32]> = indexes.chunk_by(|a, b| a.checked_add(1) == Some(*b)).collect();
        self.varbit_uint(runs.len() as u64);
        let mut next = 0i64;
        for run in runs {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            self.varbit_uint(run.len() as u64);
            self.varbit_int(i64::from(*first) - next);
            next = i64::from(*last) + 1;
        }
    }

    /// An upper bound: in thousandths where it is a small number of them, else bit for bit.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number between 0 and 2^25"
    )]
    fn bound(&mut self, bound: f64) {
        let thousandths = (bound * 1000.0).round();
        if (0.0..=THOUSANDTHS_MAX).contains(&thousandths) && thousandths / 1000.0 == bound {
            self.varbit_uint(thousandths as u64 + 1);
        } else {
            self.put(0, 1);
            self.put(bound.to_bits(), 64);
        }
    }
}
