//! Histogram bins: one file for both sides of the border.
//!
//! A bin's upper bound is `2^(i/4)` seconds, inclusive: schema 2 of Prometheus' native histograms, so that a bin lies
//! in exactly one native bucket and powers of four are bounds of the classic view. No scaling is needed: a bound in
//! nanoseconds is `10^9 * 2^(i/4)`, and within one binary octave of nanoseconds there are always the same four
//! mantissas. The value is shifted until its top bit is bit 63 and compared with those; since it is an integer,
//! comparing with the bound's floor is exact for every value of 64 bits.

/// Bins an octave, as a power of two.
pub const SCHEMA: u8 = 2;
/// Values up to `2^LOW_OCTAVE` seconds (238 ns, which is 4^-11 s) are in bin 0.
pub const LOW_OCTAVE: i32 = -22;
/// Values above `2^HIGH_OCTAVE` seconds (1,024 s, which is 4^5 s) are in the last bin.
pub const HIGH_OCTAVE: i32 = 10;
/// Bin 0, four bins for each of 32 octaves, and the last bin.
pub const BINS: usize = ((HIGH_OCTAVE - LOW_OCTAVE) as usize) * 4 + 2;

/// `floor(10^9 * 2^(j/4) * 2^k)` with `k` such that bit 63 is the top one, for j = 1, 2, 3, 4.
const MANTISSAS: [u64; 4] =
    [0x8dc3_b896_0164_a7d9, 0xa896_5f74_bf06_5071, 0xc87c_3e7d_03cd_bec3, 0xee6b_2800_0000_0000];

/// `10^9` has its top bit at bit 29; its octave's last bound is therefore 2^0 s, and bin 1 ends at index -87.
const BIN_OFFSET: i32 = 4 * 29 + 3 + 4 * LOW_OCTAVE;

/// The bin of a duration. Always below [`BINS`].
#[must_use]
#[inline(always)]
pub const fn bin_of(ns: u64) -> u32 {
    let octave = log2(ns);
    if octave < 7 {
        return 0;
    }
    let mantissa = ns << (63 - octave);
    let above = if mantissa > MANTISSAS[1] {
        if mantissa > MANTISSAS[3] {
            4
        } else if mantissa > MANTISSAS[2] {
            3
        } else {
            2
        }
    } else if mantissa > MANTISSAS[0] {
        1
    } else {
        0
    };
    let bin = 4 * octave as i32 + above - BIN_OFFSET;
    if bin < 0 {
        0
    } else if bin >= BINS as i32 {
        BINS as u32 - 1
    } else {
        bin as u32
    }
}

/// Position of the top bit; 0 for 0. Six compares: the target has no instruction for it, and the compiler's own
/// expansion is three times as long.
#[must_use]
#[inline(always)]
pub const fn log2(mut value: u64) -> u32 {
    let mut position = 0;
    if value >= 1 << 32 {
        value >>= 32;
        position += 32;
    }
    if value >= 1 << 16 {
        value >>= 16;
        position += 16;
    }
    if value >= 1 << 8 {
        value >>= 8;
        position += 8;
    }
    if value >= 1 << 4 {
        value >>= 4;
        position += 4;
    }
    if value >= 1 << 2 {
        value >>= 2;
        position += 2;
    }
    if value >= 2 {
        position += 1;
    }
    position
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether `ns <= 10^9 * 2^(i/4)`, in integers of any size: both sides to the fourth power.
    fn at_most(ns: u64, i: i32) -> bool {
        let power = |base: u64| {
            let square = u128::from(base) * u128::from(base);
            Wide::product(square, square)
        };
        let (mut left, mut right) = (power(ns), power(1_000_000_000));
        let shift = i.unsigned_abs();
        if i >= 0 {
            right.shift(shift)
        } else {
            left.shift(shift)
        }
        left <= right
    }

    /// An integer of 512 bits, most significant word first: enough for (2^64)^4 and for (10^9)^4 * 2^128.
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Wide([u64; 8]);

    impl Wide {
        fn product(a: u128, b: u128) -> Self {
            let mut words = [0_u64; 8];
            let halves = |x: u128| [x as u64, (x >> 64) as u64];
            for (i, x) in halves(a).into_iter().enumerate() {
                let mut carry = 0_u128;
                for (j, y) in halves(b).into_iter().enumerate() {
                    let at = 7 - i - j;
                    let sum = u128::from(words[at]) + u128::from(x) * u128::from(y) + carry;
                    words[at] = sum as u64;
                    carry = sum >> 64;
                }
                words[7 - i - 2] = carry as u64;
            }
            Self(words)
        }

        fn shift(&mut self, bits: u32) {
            for _ in 0..bits {
                let mut carry = 0;
                for word in self.0.iter_mut().rev() {
                    (*word, carry) = (*word << 1 | carry, *word >> 63);
                }
            }
        }
    }

    /// The native bucket index whose upper bound ends a bin.
    fn index_of(bin: u32) -> i32 {
        4 * LOW_OCTAVE + bin as i32
    }

    fn check(ns: u64) {
        let bin = bin_of(ns);
        assert!((bin as usize) < BINS);
        if (bin as usize) < BINS - 1 {
            assert!(at_most(ns, index_of(bin)), "{ns} ns is above the upper bound of bin {bin}");
        }
        if bin > 0 {
            assert!(!at_most(ns, index_of(bin - 1)), "{ns} ns belongs below bin {bin}");
        }
    }

    #[test]
    fn whole_octaves_of_a_second_are_inclusive_upper_bounds() {
        for octave in 0..=10 {
            let bound = 1_000_000_000_u64 << octave;
            assert_eq!(bin_of(bound) as i32, 4 * (octave - LOW_OCTAVE), "2^{octave} s");
            assert_eq!(bin_of(bound + 1), bin_of(bound) + 1);
        }
        assert_eq!(
            bin_of(1_000_000_000 / 512) as i32,
            4 * (-9 - LOW_OCTAVE),
            "2^-9 s is a whole number of ns"
        );
    }

    #[test]
    fn both_ends_are_clamped() {
        assert_eq!(bin_of(0), 0);
        assert_eq!(bin_of(238), 0, "2^-22 s is 238.4 ns");
        assert_eq!(bin_of(239), 1);
        assert_eq!(bin_of(1_024_000_000_000), BINS as u32 - 2);
        assert_eq!(bin_of(1_024_000_000_001), BINS as u32 - 1);
        assert_eq!(bin_of(u64::MAX), BINS as u32 - 1);
    }

    #[test]
    fn every_bound_and_its_neighbours_are_exact() {
        let mut last = 0;
        let mut ns = 1_u64;
        while ns < 1_100_000_000_000 {
            check(ns);
            let bin = bin_of(ns);
            assert!(bin >= last, "bins grow with the value");
            if bin != last {
                // Between the last step and this one lies a bound: find it, and look at both of its sides.
                let (mut low, mut high) = (ns - ns / 32 - 1, ns);
                while high - low > 1 {
                    let middle = u64::midpoint(low, high);
                    if bin_of(middle) < bin { low = middle } else { high = middle }
                }
                check(low);
                check(high);
            }
            last = bin;
            ns += ns / 64 + 1;
        }
    }

    proptest! {
        #[test]
        fn a_duration_lies_between_the_exact_bounds_of_its_bin(ns in any::<u64>(), shift in 0_u32..64) {
            check(ns >> shift);
        }

        #[test]
        fn log2_is_the_top_bit(value in 1_u64.., shift in 0_u32..64) {
            let value = (value >> shift).max(1);
            prop_assert_eq!(log2(value), value.ilog2());
        }
    }
}
