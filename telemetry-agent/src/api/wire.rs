//! Protocol Buffers' wire format, read in place: a push of ten thousand series is read without an allocation a label. And
//! written, a message within a message without a second buffer.

/// What is not the wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed protocol buffer: {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
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
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

/// A message being written.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

// === impl Value ===

impl<'a> Value<'a> {
    pub(super) fn varint(self) -> Result<u64, Malformed> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(Malformed("a number was expected")),
        }
    }

    /// `int64` and `int32`.
    pub(super) fn int(self) -> Result<i64, Malformed> {
        self.varint().map(u64::cast_signed)
    }

    /// `sint64` and `sint32`.
    pub(super) fn sint(self) -> Result<i64, Malformed> {
        self.varint().map(zigzag)
    }

    pub(super) fn double(self) -> Result<f64, Malformed> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(Malformed("a double was expected")),
        }
    }

    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed("a string or message was expected")),
        }
    }

    pub(super) fn message(self) -> Result<Fields<'a>, Malformed> {
        self.bytes().map(Fields)
    }

    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("text is not UTF-8"))
    }

    /// A list of integers, packed or one of it.
    pub(super) fn varints(self, mut each: impl FnMut(u64)) -> Result<(), Malformed> {
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
    pub(super) fn doubles(self, out: &mut Vec<f64>) -> Result<(), Malformed> {
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
pub(super) fn zigzag(code: u64) -> i64 {
    (code >> 1).cast_signed() ^ -(code & 1).cast_signed()
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// The next field and its number; none at the end.
    pub(super) fn field(&mut self) -> Result<Option<(u64, Value<'a>)>, Malformed> {
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

// === impl Message ===

impl Message {
    /// What was written.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn tag(&mut self, field: u64, kind: u64) {
        put_varint(&mut self.0, field << 3 | kind);
    }

    /// Integers, booleans, enums; 0 is not written, as it is what an absent field means.
    pub(super) fn number(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.tag(field, 0);
            put_varint(&mut self.0, value);
        }
    }

    /// `int64` and `int32`.
    pub(super) fn int(&mut self, field: u64, value: i64) {
        self.number(field, value.cast_unsigned());
    }

    /// `sint64` and `sint32`.
    pub(super) fn sint(&mut self, field: u64, value: i64) {
        self.number(field, unzigzagged(value));
    }

    /// `double`, even if it is 0: in a choice of fields it says which.
    pub(super) fn double(&mut self, field: u64, value: f64) {
        self.tag(field, 1);
        self.0.extend(value.to_bits().to_le_bytes());
    }

    /// A packed list of doubles.
    pub(super) fn doubles(&mut self, field: u64, values: &[f64]) {
        if !values.is_empty() {
            self.tag(field, 2);
            put_varint(&mut self.0, values.len() as u64 * 8);
            self.0.extend(values.iter().flat_map(|value| value.to_bits().to_le_bytes()));
        }
    }

    /// Bytes and texts.
    pub(super) fn bytes(&mut self, field: u64, value: &[u8]) {
        self.tag(field, 2);
        put_varint(&mut self.0, value.len() as u64);
        self.0.extend(value);
    }

    /// A message, which is written in place and then moved by the length of its length.
    pub(super) fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        self.tag(field, 2);
        let begun = self.0.len();
        write(self);
        let mut length = Vec::with_capacity(4);
        put_varint(&mut length, (self.0.len() - begun) as u64);
        self.0.splice(begun..begun, length);
    }
}

/// Appends a number in steps of seven bits.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_seven(value) | 0x80);
        value >>= 7;
    }
    out.push(low_seven(value));
}

fn low_seven(value: u64) -> u8 {
    let [low, ..] = value.to_le_bytes();
    low & 0x7f
}

/// The zigzag code of a number.
fn unzigzagged(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
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
    fn what_is_written_is_read() {
        let mut message = Message::default();
        message.message(1, |inner| {
            inner.bytes(1, &[7; 200]);
            inner.sint(2, -3);
            inner.doubles(3, &[1.5, f64::INFINITY]);
        });
        message.int(2, -1);
        message.number(3, 0);
        message.double(4, 0.0);
        let bytes = message.into_bytes();
        let mut fields = Fields(&bytes);
        let mut inner = fields.field().unwrap().unwrap().1.message().unwrap();
        assert_eq!(inner.field().unwrap().unwrap().1.bytes().unwrap(), [7; 200]);
        assert_eq!(inner.field().unwrap().unwrap().1.sint(), Ok(-3));
        let mut doubles = Vec::new();
        inner.field().unwrap().unwrap().1.doubles(&mut doubles).unwrap();
        assert_eq!((doubles, inner.field()), (vec![1.5, f64::INFINITY], Ok(None)));
        assert_eq!(fields.field().unwrap().map(|(number, value)| (number, value.int())), Some((2, Ok(-1))));
        assert_eq!(fields.field(), Ok(Some((4, Value::Fixed64(0)))));
        assert_eq!(fields.field(), Ok(None));
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_refused() {
        for bytes in [&[0x08][..], &[0x12, 0x05, 0x00], &[0x09, 0x00], &[0x0b], &[0xff; 12]] {
            assert!(Fields(bytes).field().is_err(), "{bytes:?}");
        }
    }
}
