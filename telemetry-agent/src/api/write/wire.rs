//! Protocol Buffers' wire format, read in place: a push of ten thousand series is read without an allocation a label.

/// What is not the wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed protocol buffer: {0}")]
pub(in crate::api) struct Malformed(pub(in crate::api) &'static str);

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::api) enum Value<'a> {
    /// Integers, booleans, enums.
    Varint(u64),
    /// `double`.
    Fixed64(u64),
    /// Strings, messages, packed lists.
    Bytes(&'a [u8]),
    /// `float`: nothing here has one.
    Fixed32(u32),
}

/// Fields of one message.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Fields<'a>(pub(in crate::api) &'a [u8]);

// === impl Value ===

impl<'a> Value<'a> {
    pub(in crate::api) fn varint(self) -> Result<u64, Malformed> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(Malformed("a number was expected")),
        }
    }

    /// `int64` and `int32`.
    pub(in crate::api) fn int(self) -> Result<i64, Malformed> {
        self.varint().map(u64::cast_signed)
    }

    /// `sint64` and `sint32`.
    pub(in crate::api) fn sint(self) -> Result<i64, Malformed> {
        self.varint().map(zigzag)
    }

    pub(in crate::api) fn double(self) -> Result<f64, Malformed> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(Malformed("a double was expected")),
        }
    }

    pub(in crate::api) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed("a string or message was expected")),
        }
    }

    pub(in crate::api) fn message(self) -> Result<Fields<'a>, Malformed> {
        self.bytes().map(Fields)
    }

    pub(in crate::api) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("text is not UTF-8"))
    }

    /// A list of integers, packed or one of it.
    pub(in crate::api) fn varints(self, mut each: impl FnMut(u64)) -> Result<(), Malformed> {
        match self {
            Self::Varint(value) => each(value),
            other => {
                let mut rest = other.bytes()?;
                while !rest.is_empty() {
                    each(varint(&mut rest)?);
                }
            }
        }
        Ok(())
    }

    /// A list of doubles, packed or one of it.
    pub(in crate::api) fn doubles(self, out: &mut Vec<f64>) -> Result<(), Malformed> {
        match self {
            Self::Fixed64(bits) => out.push(f64::from_bits(bits)),
            other => {
                let (numbers, rest) = other.bytes()?.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(Malformed("a list of doubles ends within one"));
                }
                out.extend(numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)));
            }
        }
        Ok(())
    }
}

/// The number behind a zigzag code.
pub(in crate::api) fn zigzag(code: u64) -> i64 {
    (code >> 1).cast_signed() ^ -(code & 1).cast_signed()
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// The next field and its number; none at the end.
    pub(in crate::api) fn field(&mut self) -> Result<Option<(u64, Value<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = varint(&mut self.0)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut self.0)?),
            1 => Value::Fixed64(u64::from_le_bytes(*self.fixed::<8>()?)),
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).unwrap_or(usize::MAX);
                let split = self.0.split_at_checked(length).ok_or(Malformed("a field is cut short"))?;
                self.0 = split.1;
                Value::Bytes(split.0)
            }
            5 => Value::Fixed32(u32::from_le_bytes(*self.fixed::<4>()?)),
            _ => return Err(Malformed("unknown wire type")),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn fixed<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed("a field is cut short"))?;
        self.0 = rest;
        Ok(bytes)
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Malformed("a number is cut short"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed("a number is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_texts_and_lists_are_read() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1a, 0x02, 0x01, 0x02];
        let mut fields = Fields(&bytes);
        assert_eq!(fields.field(), Ok(Some((1, Value::Varint(150)))));
        let (number, value) = fields.field().unwrap().unwrap();
        assert_eq!((number, value.text()), (2, Ok("hi")));
        let mut all = Vec::new();
        fields.field().unwrap().unwrap().1.varints(|code| all.push(zigzag(code))).unwrap();
        assert_eq!(all, [-1, 1]);
        assert_eq!(fields.field(), Ok(None));
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_refused() {
        for bytes in [&[0x08][..], &[0x12, 0x05, 0x00], &[0x09, 0x00], &[0x0b], &[0xff; 12]] {
            assert!(Fields(bytes).field().is_err(), "{bytes:?}");
        }
    }
}
