//! Bytes of log bodies and block sections: varints, strings, floats. Reading checks every length.

use crate::codec::{get_varint, put_varint};

/// A body that is not what its writer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed body: {0}")]
pub struct Malformed(pub &'static str);

/// Reads a body from its front.
#[derive(Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

// === impl Reader ===

impl<'a> Reader<'a> {
    /// Over a whole body.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all is read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Malformed("too short"))?;
        self.0 = rest;
        Ok(head)
    }

    /// One byte.
    ///
    /// # Errors
    /// If there is none.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.bytes(1)?.first().copied().unwrap_or(0))
    }

    /// A number of one to ten bytes.
    ///
    /// # Errors
    /// If it does not end.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        let (value, used) = get_varint(self.0).map_err(|_| Malformed("varint"))?;
        self.bytes(used)?;
        Ok(value)
    }

    /// A number below 2^32.
    ///
    /// # Errors
    /// If it is larger.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.u64()?).map_err(|_| Malformed("number over 32 bits"))
    }

    /// A signed number.
    ///
    /// # Errors
    /// If it does not end.
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(crate::codec::unzigzag(self.u64()?))
    }

    /// How many things follow, each of at least `least` bytes: never more than the bytes there are allow.
    ///
    /// # Errors
    /// If the body cannot hold so many.
    pub fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let n = usize::try_from(self.u64()?).map_err(|_| Malformed("count"))?;
        if n > self.0.len() / least.max(1) { Err(Malformed("count beyond the body")) } else { Ok(n) }
    }

    /// A float, bit for bit.
    ///
    /// # Errors
    /// If there are fewer than eight bytes.
    pub fn f64(&mut self) -> Result<f64, Malformed> {
        let bytes = self.bytes(8)?.try_into().map_err(|_| Malformed("float"))?;
        Ok(f64::from_le_bytes(bytes))
    }

    /// A string with its length before it.
    ///
    /// # Errors
    /// If it is longer than the body or not UTF-8.
    pub fn str(&mut self) -> Result<&'a str, Malformed> {
        let n = self.count(1)?;
        std::str::from_utf8(self.bytes(n)?).map_err(|_| Malformed("string is not UTF-8"))
    }
}

/// Appends a number.
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    put_varint(out, value);
}

/// Appends a signed number.
pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_varint(out, crate::codec::zigzag(value));
}

/// Appends a length or count.
pub fn put_count(out: &mut Vec<u8>, n: usize) {
    put_varint(out, n as u64);
}

/// Appends a string and its length.
pub fn put_str(out: &mut Vec<u8>, text: &str) {
    put_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_got_and_no_more() {
        let mut out = Vec::new();
        put_u64(&mut out, u64::MAX);
        put_i64(&mut out, -5);
        put_str(&mut out, "é");
        let mut r = Reader::new(&out);
        assert_eq!((r.u64(), r.i64(), r.str()), (Ok(u64::MAX), Ok(-5), Ok("é")));
        assert!(r.is_empty() && r.u8().is_err());
    }

    #[test]
    fn a_count_beyond_the_body_is_refused() {
        let mut out = Vec::new();
        put_u64(&mut out, 1 << 40);
        assert!(Reader::new(&out).count(1).is_err());
        assert!(Reader::new(&out).str().is_err());
    }
}
