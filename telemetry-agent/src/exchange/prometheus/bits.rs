//! Bits of Prometheus' chunks: most significant first, and numbers of varying width. Nothing is trusted: what is cut
//! off is an error.

use super::Malformed;

/// Reads bits.
pub struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Leading and trailing zeros of the XOR written last; none before the first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Zeros(Option<(u32, u32)>);

// === impl Bits ===

impl<'a> Bits<'a> {
    /// From the first bit of some bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many are left.
    #[must_use]
    pub fn left(&self) -> usize {
        (self.bytes.len() * 8).saturating_sub(self.at)
    }

    /// The next `n` bits, 64 at most.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn get(&mut self, n: u32) -> Result<u64, Malformed> {
        if self.left() < n as usize {
            return Err(Malformed("chunk cut off"));
        }
        let mut value = 0u64;
        let mut wanted = n as usize;
        while wanted > 0 {
            let byte = u64::from(self.bytes.get(self.at / 8).copied().unwrap_or(0));
            let offset = self.at % 8;
            let taken = wanted.min(8 - offset);
            let bits = (byte >> (8 - offset - taken)) & ((1 << taken) - 1);
            value = (value << taken) | bits;
            self.at += taken;
            wanted -= taken;
        }
        Ok(value)
    }

    /// How many ones come before the next zero, `max` at most.
    ///
    /// # Errors
    /// If the bits end before.
    pub fn ones(&mut self, max: u32) -> Result<u32, Malformed> {
        let mut n = 0;
        while n < max && self.get(1)? == 1 {
            n += 1;
        }
        Ok(n)
    }

    /// A float, bit for bit.
    ///
    /// # Errors
    /// If it is cut off.
    pub fn f64(&mut self) -> Result<f64, Malformed> {
        Ok(f64::from_bits(self.get(64)?))
    }

    /// A number in steps of seven bits.
    ///
    /// # Errors
    /// If it is cut off or longer than ten bytes.
    pub fn uvarint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.get(8)?;
            value |= (byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("number too long"))
    }

    /// The same with a sign.
    ///
    /// # Errors
    /// As [`Bits::uvarint`].
    pub fn varint(&mut self) -> Result<i64, Malformed> {
        self.uvarint().map(unzigzag)
    }

    /// An unsigned number of one of nine widths.
    ///
    /// # Errors
    /// If it is cut off.
    pub fn varbit_uint(&mut self) -> Result<u64, Malformed> {
        let width = self.varbit_width()?;
        self.get(width)
    }

    /// A signed number of one of nine widths.
    ///
    /// # Errors
    /// If it is cut off.
    pub fn varbit_int(&mut self) -> Result<i64, Malformed> {
        let width = self.varbit_width()?;
        let bits = self.get(width)?;
        // Of the two halves the positive one has the number more.
        Ok(if width > 0 { signed(bits, width, 1) } else { 0 })
    }

    fn varbit_width(&mut self) -> Result<u32, Malformed> {
        Ok(match self.ones(8)? {
            0 => 0,
            1 => 3,
            2 => 6,
            3 => 9,
            4 => 12,
            5 => 18,
            6 => 25,
            7 => 56,
            _ => 64,
        })
    }

    /// `value`, changed by what is written as its XOR.
    ///
    /// # Errors
    /// If it is cut off or says what cannot be.
    pub fn xor(&mut self, value: f64, zeros: &mut Zeros) -> Result<f64, Malformed> {
        match self.ones(2)? {
            0 => Ok(value),
            1 => self.xor_within(value, *zeros),
            _ => self.xor_anew(value, zeros),
        }
    }

    /// An XOR between the zeros of the one before.
    ///
    /// # Errors
    /// As [`Bits::xor`].
    pub fn xor_within(&mut self, value: f64, zeros: Zeros) -> Result<f64, Malformed> {
        let (leading, trailing) = zeros.0.ok_or(Malformed("XOR without a width"))?;
        let bits = self.get(64 - leading - trailing)?;
        Ok(f64::from_bits(value.to_bits() ^ (bits << trailing)))
    }

    /// An XOR with zeros of its own.
    ///
    /// # Errors
    /// As [`Bits::xor`].
    pub fn xor_anew(&mut self, value: f64, zeros: &mut Zeros) -> Result<f64, Malformed> {
        let leading = u32::try_from(self.get(5)?).unwrap_or(0);
        let significant = match u32::try_from(self.get(6)?).unwrap_or(0) {
            0 => 64,
            bits => bits,
        };
        let trailing = 64u32.checked_sub(leading + significant).ok_or(Malformed("XOR wider than a float"))?;
        *zeros = Zeros(Some((leading, trailing)));
        self.xor_within(value, *zeros)
    }
}

/// A number of `width` bits whose upper half is negative; `above` says from which distance to the middle on.
#[must_use]
pub fn signed(bits: u64, width: u32, above: u64) -> i64 {
    if width >= 64 {
        return bits.cast_signed();
    }
    let middle = 1u64 << (width - 1);
    let value = bits.cast_signed();
    if bits >= middle + above { value - (1i64 << width) } else { value }
}

/// Even numbers are positive, odd ones negative.
#[must_use]
pub fn unzigzag(value: u64) -> i64 {
    let half = (value >> 1).cast_signed();
    if value & 1 == 1 { !half } else { half }
}

/// The inverse of [`unzigzag`].
#[must_use]
pub fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}
