//! Chunks as Prometheus writes them, of samples of ours: XOR for floats, and float histograms.
//!
//! What this writes, [`super::decode`] reads, and so does whoever reads Prometheus' own.

use telemetry_model::NativeHistogram;
use telemetry_model::native::ResetHint;

/// Samples of a chunk at most, as Prometheus cuts them.
pub const SAMPLES_MAX: usize = 120;

/// Which format a chunk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Floats.
    Xor,
    /// Native histograms with counts that are floats.
    FloatHistogram,
}

/// A chunk and the times of its first and last sample, milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Which format.
    pub encoding: Encoding,
    /// First time.
    pub min_t: i64,
    /// Last time.
    pub max_t: i64,
    /// As in a file of chunks, without length and checksum.
    pub data: Vec<u8>,
}

/// Writes bits, most significant first.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    /// Bits that are free in the last byte.
    free: u32,
}

/// A float, and leading and trailing zeros of its last XOR that had zeros of its own.
#[derive(Clone, Copy, Default)]
struct Chained {
    bits: u64,
    zeros: Option<(u32, u32)>,
}

/// Chunks of floats in order of time.
#[must_use]
pub fn floats(samples: &[(i64, f64)]) -> Vec<Chunk> {
    let encode = |samples: &[(i64, f64)]| {
        let mut w = Writer::default();
        w.put(samples.len() as u64, 16);
        let (mut last, mut step) = (0i64, 0i64);
        let mut value = Chained::default();
        for (at, (t, sample)) in samples.iter().enumerate() {
            let now = t.wrapping_sub(last);
            match at {
                0 => w.varint(*t),
                1 => w.uvarint(now.cast_unsigned()),
                _ => w.step(now.wrapping_sub(step)),
            }
            // The first step is that of the second sample.
            step = if at == 0 { 0 } else { now };
            last = *t;
            value.put(sample.to_bits(), at == 0, &mut w);
        }
        w.bytes
    };
    let chunks = samples.chunks(SAMPLES_MAX);
    chunks.filter_map(|run| Chunk::new(Encoding::Xor, times(run, |(t, _)| *t)?, encode(run))).collect()
}

/// Chunks of histograms in order of time. One chunk has one schema and no reset within it, so that its readers need to
/// look for none.
#[must_use]
pub fn histograms<H: AsRef<NativeHistogram>>(samples: &[(i64, H)]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut rest = samples;
    while let Some((_, first)) = rest.first() {
        let first = first.as_ref();
        let goes_on = |pair: &[(i64, H)]| match pair {
            [(_, a), (_, b)] => is_like(first, b.as_ref()) && !is_reset(a.as_ref(), b.as_ref()),
            _ => true,
        };
        let len = 1 + rest.windows(2).take(SAMPLES_MAX - 1).take_while(|pair| goes_on(pair)).count();
        let (run, behind) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        let chunk = times(run, |(t, _)| *t).map(|range| (range, histogram_chunk(first, run)));
        chunks.extend(chunk.and_then(|(range, data)| Chunk::new(Encoding::FloatHistogram, range, data)));
        rest = behind;
    }
    chunks
}

fn times<T>(run: &[T], t: impl Fn(&T) -> i64) -> Option<(i64, i64)> {
    Some((t(run.first()?), t(run.last()?)))
}

fn is_gauge(histogram: &NativeHistogram) -> bool {
    histogram.reset == ResetHint::Gauge
}

fn is_like(a: &NativeHistogram, b: &NativeHistogram) -> bool {
    a.schema == b.schema
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && a.custom_bounds == b.custom_bounds
        && is_gauge(a) == is_gauge(b)
}

/// Whether a counter of `b` is below that of `a`, or `b` says that it begins anew.
fn is_reset(a: &NativeHistogram, b: &NativeHistogram) -> bool {
    if is_gauge(b) {
        return false;
    }
    let falls = |a: &telemetry_model::Buckets, b: &telemetry_model::Buckets| {
        let mut now = b.iter().peekable();
        a.iter().any(|(index, count)| {
            while now.next_if(|(at, _)| *at < index).is_some() {}
            let held = now.next_if(|(at, _)| *at == index).map_or(0.0, |(_, held)| held);
            held < count
        })
    };
    b.reset == ResetHint::Reset
        || b.count < a.count
        || b.zero_count < a.zero_count
        || falls(&a.positive, &b.positive)
        || falls(&a.negative, &b.negative)
}

fn histogram_chunk<H: AsRef<NativeHistogram>>(first: &NativeHistogram, run: &[(i64, H)]) -> Vec<u8> {
    let all = |side: fn(&NativeHistogram) -> &telemetry_model::Buckets| {
        let mut indexes: Vec<i32> =
            run.iter().flat_map(|(_, h)| side(h.as_ref()).indexes.iter().copied()).collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes
    };
    let (positive, negative) = (all(|h| &h.positive), all(|h| &h.negative));
    let mut w = Writer::default();
    w.put(run.len() as u64, 16);
    // Gauges, or nothing known of what was before.
    w.put(if is_gauge(first) { 0xc0 } else { 0 }, 8);
    if first.zero_threshold == 0.0 {
        w.put(0, 8);
    } else {
        w.put(255, 8);
        w.put(first.zero_threshold.to_bits(), 64);
    }
    w.varbit_int(i64::from(first.schema));
    for indexes in [&positive, &negative] {
        w.spans(indexes);
    }
    if let Some(bounds) = &first.custom_bounds {
        w.varbit_uint(bounds.len() as u64);
        for bound in &**bounds {
            w.varbit_uint(0);
            w.put(bound.to_bits(), 64);
        }
    }
    let (mut last, mut step) = (0i64, 0i64);
    let mut totals = [Chained::default(); 3];
    let mut cells = vec![Chained::default(); positive.len() + negative.len()];
    for (at, (t, histogram)) in run.iter().enumerate() {
        let histogram = histogram.as_ref();
        let now = t.wrapping_sub(last);
        w.varbit_int(now.wrapping_sub(step));
        step = if at == 0 { 0 } else { now };
        last = *t;
        for (cell, value) in totals.iter_mut().zip([histogram.count, histogram.zero_count, histogram.sum]) {
            cell.put(value.to_bits(), at == 0, &mut w);
        }
        let sides = [(&positive, &histogram.positive), (&negative, &histogram.negative)];
        let counts = sides.into_iter().flat_map(|(indexes, buckets)| {
            let mut held = buckets.iter().peekable();
            indexes
                .iter()
                .map(move |index| held.next_if(|(at, _)| at == index).map_or(0.0, |(_, count)| count))
        });
        for (cell, count) in cells.iter_mut().zip(counts) {
            cell.put(count.to_bits(), at == 0, &mut w);
        }
    }
    w.bytes
}

// === impl Chunk ===

impl Chunk {
    fn new(encoding: Encoding, (min_t, max_t): (i64, i64), data: Vec<u8>) -> Option<Self> {
        Some(Self { encoding, min_t, max_t, data })
    }
}

// === impl Chained ===

impl Chained {
    fn put(&mut self, bits: u64, is_first: bool, w: &mut Writer) {
        let xor = bits ^ self.bits;
        self.bits = bits;
        if is_first {
            return w.put(bits, 64);
        }
        if xor == 0 {
            return w.put(0, 1);
        }
        let (leading, trailing) = (xor.leading_zeros().min(31), xor.trailing_zeros());
        if let Some((before, behind)) =
            self.zeros.filter(|(before, behind)| leading >= *before && trailing >= *behind)
        {
            w.put(0b10, 2);
            return w.put(xor >> behind, 64 - before - behind);
        }
        self.zeros = Some((leading, trailing));
        let width = 64 - leading - trailing;
        w.put(0b11, 2);
        w.put(u64::from(leading), 5);
        w.put(u64::from(width % 64), 6);
        w.put(xor >> trailing, width);
    }
}

// === impl Writer ===

impl Writer {
    /// The low `n` bits, 64 at most.
    fn put(&mut self, value: u64, mut n: u32) {
        while n > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let taken = n.min(self.free);
            n -= taken;
            self.free -= taken;
            let bits = (value >> n & ((1 << taken) - 1)) << self.free;
            if let (Some(last), Ok(bits)) = (self.bytes.last_mut(), u8::try_from(bits)) {
                *last |= bits;
            }
        }
    }

    fn uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(value & 0x7f | 0x80, 8);
            value >>= 7;
        }
        self.put(value, 8);
    }

    fn varint(&mut self, value: i64) {
        self.uvarint((value << 1 ^ value >> 63).cast_unsigned());
    }

    /// How the distance of two times changed.
    fn step(&mut self, change: i64) {
        match change {
            0 => self.put(0, 1),
            -8191..=8192 => self.marked(0b10, 2, change, 14),
            -65_535..=65_536 => self.marked(0b110, 3, change, 17),
            -524_287..=524_288 => self.marked(0b1110, 4, change, 20),
            _ => self.marked(0b1111, 4, change, 64),
        }
    }

    fn marked(&mut self, mark: u64, len: u32, value: i64, width: u32) {
        self.put(mark, len);
        self.put(value.cast_unsigned(), width);
    }

    fn varbit_uint(&mut self, value: u64) {
        self.varbit(value, value == 0, |width| value >> width == 0);
    }

    fn varbit_int(&mut self, value: i64) {
        let fits = |width: u32| -(1i64 << (width - 1)) < value && value <= 1 << (width - 1);
        self.varbit(value.cast_unsigned(), value == 0, fits);
    }

    fn varbit(&mut self, bits: u64, is_zero: bool, fits: impl Fn(u32) -> bool) {
        if is_zero {
            return self.put(0, 1);
        }
        for (ones, width) in [(1, 3), (2, 6), (3, 9), (4, 12), (5, 18), (6, 25), (7, 56)] {
            if fits(width) {
                self.put((1 << (ones + 1)) - 2, ones + 1);
                return self.put(bits, width);
            }
        }
        self.put(0xff, 8);
        self.put(bits, 64);
    }

    /// Indexes as runs: how many, and for each its length and the gap before it.
    fn spans(&mut self, indexes: &[i32]) {
        let runs: Vec<&[i32]> = indexes.chunk_by(|a, b| i64::from(*a) + 1 == i64::from(*b)).collect();
        self.varbit_uint(runs.len() as u64);
        let mut next = 0i64;
        for run in runs {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            self.varbit_uint(run.len() as u64);
            self.varbit_int(i64::from(*first) - next);
            next = i64::from(*last) + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use telemetry_model::Buckets;
    use telemetry_tsdb::head::Sample;

    use super::*;

    fn read(chunks: &[Chunk], number: u8) -> Vec<(i64, Sample)> {
        let mut out = Vec::new();
        for chunk in chunks {
            let from = out.len();
            super::super::decode(number, &chunk.data, &mut out).unwrap();
            assert_eq!((out[from].0, out.last().unwrap().0), (chunk.min_t, chunk.max_t));
        }
        out
    }

    fn histogram(counts: &[(i32, u32)], hint: ResetHint) -> Arc<NativeHistogram> {
        let positive: Buckets = counts.iter().map(|(index, count)| (*index, f64::from(*count))).collect();
        let count = positive.counts.iter().sum::<f64>() + 1.0;
        Arc::new(NativeHistogram {
            schema: 2,
            reset: hint,
            zero_threshold: 1e-128,
            zero_count: 1.0,
            count,
            sum: count * 0.1,
            positive,
            ..NativeHistogram::default()
        })
    }

    proptest! {
        #[test]
        fn floats_are_read_back(
            steps in prop::collection::vec((1i64..1 << 40, any::<u64>(), 0u8..3), 1..400),
        ) {
            let (mut t, mut value) = (1_700_000_000_000i64, 0u64);
            let samples: Vec<_> = steps.iter().map(|(step, bits, kind)| {
                t += match kind { 0 => 15_000, 1 => step % 40_000 + 1, _ => *step };
                value = match kind { 0 => value, 1 => value ^ (bits & 0xff00), _ => *bits };
                (t, f64::from_bits(value))
            }).collect();
            let back: Vec<_> = read(&floats(&samples), 1).into_iter().map(|(t, sample)| match sample {
                Sample::Float(value) => (t, value.to_bits()),
                Sample::Histogram(_) => (t, 0),
            }).collect();
            let expected: Vec<_> = samples.iter().map(|(t, value)| (*t, value.to_bits())).collect();
            prop_assert_eq!(back, expected);
        }

        #[test]
        fn histograms_are_read_back(
            rows in prop::collection::vec(prop::collection::btree_map(-50i32..50, 1u32..1000, 0..8), 1..200),
            is_gauge in any::<bool>(),
        ) {
            let hint = if is_gauge { ResetHint::Gauge } else { ResetHint::Unknown };
            let samples: Vec<_> = (1i64..).zip(&rows).map(|(at, row)| {
                let pairs: Vec<_> = row.iter().map(|(index, count)| (*index, *count)).collect();
                (at * 15_000, histogram(&pairs, hint))
            }).collect();
            let back = read(&histograms(&samples), 3);
            prop_assert_eq!(back.len(), samples.len());
            for ((t, found), (expected_t, expected)) in back.iter().zip(&samples) {
                prop_assert_eq!(t, expected_t);
                let Sample::Histogram(found) = found else { panic!("a float") };
                let same = NativeHistogram { reset: ResetHint::Unknown, ..(**found).clone() };
                prop_assert_eq!(same, NativeHistogram { reset: ResetHint::Unknown, ..(**expected).clone() });
                prop_assert_eq!(found.reset == ResetHint::Gauge, is_gauge);
            }
        }
    }

    #[test]
    fn a_reset_begins_a_chunk() {
        let rows = [vec![(1, 2)], vec![(1, 2), (3, 1)], vec![(3, 9)], vec![(3, 9), (4, 1)]];
        let samples: Vec<_> =
            (0i64..).zip(&rows).map(|(at, row)| (at, histogram(row, ResetHint::Unknown))).collect();
        let lengths: Vec<_> =
            histograms(&samples).iter().map(|chunk| chunk.max_t - chunk.min_t + 1).collect();
        assert_eq!(lengths, [2, 2]);
        let custom = NativeHistogram {
            schema: -53,
            count: 3.0,
            custom_bounds: Some([0.5, 2.0].into()),
            positive: [(0, 1.0), (2, 2.0)].into_iter().collect(),
            ..NativeHistogram::default()
        };
        let back = read(&histograms(&[(7, Arc::new(custom.clone()))]), 3);
        assert_eq!(back, [(7, Sample::Histogram(Arc::new(custom)))]);
    }
}
