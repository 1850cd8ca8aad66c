//! Integers in as few bytes as they need.

use super::CodecError;

/// The longest a varint can be.
const BYTES_MAX: usize = 10;

/// Small numbers of either sign become small numbers.
#[must_use]
#[inline]
pub const fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)).cast_unsigned()
}

/// The number that [`zigzag`] was given.
#[must_use]
#[inline]
pub const fn unzigzag(v: u64) -> i64 {
    (v >> 1).cast_signed() ^ -((v & 1).cast_signed())
}

/// Appends a number, seven bits a byte.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "seven bits are taken at a time")]
pub fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// The number at the front and how many bytes it took.
///
/// # Errors
/// If it does not end within the bytes, or has more than 64 bits.
#[inline]
pub fn get_varint(bytes: &[u8]) -> Result<(u64, usize), CodecError> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(BYTES_MAX).enumerate() {
        if at == BYTES_MAX - 1 && *byte > 1 {
            return Err(CodecError::Malformed("varint over 64 bits"));
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((value, at + 1));
        }
    }
    Err(CodecError::Short)
}

/// Takes the number at the front off.
#[inline]
pub(super) fn take_varint(bytes: &mut &[u8]) -> Result<u64, CodecError> {
    let (value, used) = get_varint(bytes)?;
    *bytes = bytes.get(used..).unwrap_or(&[]);
    Ok(value)
}

/// Takes so many bytes off the front.
pub(super) fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Result<&'a [u8], CodecError> {
    let (head, rest) = bytes.split_at_checked(n).ok_or(CodecError::Short)?;
    *bytes = rest;
    Ok(head)
}
