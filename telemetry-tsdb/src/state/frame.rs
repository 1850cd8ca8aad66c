//! Bytes of a record, of a time-keyed key, and of the ledger (`docs/format.md`, State).

use std::collections::BTreeMap;

use super::Keyspace;
use crate::wire::{Malformed, Reader, put_u64};

/// Bytes before a record's body.
pub(super) const HEADER: usize = 12;

/// How much each keyspace holds.
pub(super) type Counts = BTreeMap<Keyspace, Count>;

/// How much one keyspace holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub records: u64,
    pub bytes: u64,
    /// All records' numbers, added up without regard to overflow: a record that came back from the past shows.
    pub numbers: u64,
}

// === impl Count ===

impl Count {
    pub fn add(&mut self, key: &[u8], record: &[u8]) {
        self.records += 1;
        self.bytes += super::len(key) + super::len(record);
        self.numbers = self.numbers.wrapping_add(number(record));
    }

    pub fn take_away(&mut self, key: &[u8], record: &[u8]) {
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(super::len(key) + super::len(record));
        self.numbers = self.numbers.wrapping_sub(number(record));
    }
}

/// A record: its number, a checksum over key, number and body, the body. A record under another's key is damage, too.
pub(super) fn seal(key: &[u8], number: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + body.len());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&checksum(key, number, body).to_le_bytes());
    out.extend_from_slice(body);
    out
}

/// A record's number and body.
pub(super) fn unseal<'a>(key: &[u8], record: &'a [u8]) -> Result<(u64, &'a [u8]), Malformed> {
    let (number, rest) = record.split_first_chunk::<8>().ok_or(Malformed("record too short"))?;
    let (sum, body) = rest.split_first_chunk::<4>().ok_or(Malformed("record too short"))?;
    let number = u64::from_le_bytes(*number);
    if u32::from_le_bytes(*sum) == checksum(key, number, body) {
        Ok((number, body))
    } else {
        Err(Malformed("checksum of a record"))
    }
}

/// A record's number, unverified: as it is added up in the ledger.
pub(super) fn number(record: &[u8]) -> u64 {
    record.first_chunk::<8>().map_or(0, |number| u64::from_le_bytes(*number))
}

fn checksum(key: &[u8], number: u64, body: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(key), &number.to_le_bytes());
    crc32c::crc32c_append(sum, body)
}

/// The key of something that happened: sorts by time, then by number.
pub(super) fn time_key(at_ms: i64, number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    let (time, rest) = key.split_at_mut(8);
    time.copy_from_slice(&sortable(at_ms));
    rest.copy_from_slice(&number.to_be_bytes());
    key
}

/// The first bytes of keys of a time. Negative times sort before positive ones.
pub(super) fn sortable(at_ms: i64) -> [u8; 8] {
    (at_ms.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

/// Time and number of a key.
pub(super) fn read_time_key(key: &[u8]) -> Option<(i64, u64)> {
    let (time, rest) = key.split_first_chunk::<8>()?;
    let number = u64::from_be_bytes(rest.try_into().ok()?);
    Some(((u64::from_be_bytes(*time) ^ (1 << 63)).cast_signed(), number))
}

/// The ledger's body: what each keyspace holds after the batch that it was written with.
pub(super) fn put_counts(counts: &Counts) -> Vec<u8> {
    let mut out = Vec::new();
    for (keyspace, count) in counts {
        out.push(keyspace.code());
        put_u64(&mut out, count.records);
        put_u64(&mut out, count.bytes);
        out.extend_from_slice(&count.numbers.to_le_bytes());
    }
    out
}

/// Reads the ledger's body. Keyspaces of a later version are passed over.
pub(super) fn get_counts(body: &[u8]) -> Result<Counts, Malformed> {
    let mut r = Reader::new(body);
    let mut counts = Counts::new();
    while !r.is_empty() {
        let code = r.u8()?;
        let (records, bytes) = (r.u64()?, r.u64()?);
        let numbers = r.bytes(8)?.try_into().map_err(|_| Malformed("sum of numbers"))?;
        let count = Count { records, bytes, numbers: u64::from_le_bytes(numbers) };
        if let Some(keyspace) = Keyspace::ALL.into_iter().find(|keyspace| keyspace.code() == code) {
            counts.insert(keyspace, count);
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flipped_bit_of_a_record_or_its_key_is_noticed() {
        let (key, record) = (b"key".to_vec(), seal(b"key", 7, b"body"));
        assert_eq!(unseal(&key, &record), Ok((7, &b"body"[..])));
        for bit in 0..record.len() * 8 {
            let mut record = record.clone();
            record[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&key, &record).is_err(), "bit {bit}");
        }
        for bit in 0..key.len() * 8 {
            let mut key = key.clone();
            key[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&key, &record).is_err(), "bit {bit} of the key");
        }
        assert!((0..record.len()).all(|len| unseal(&key, &record[..len]).is_err()));
    }

    #[test]
    fn keys_sort_by_time_then_number() {
        let keys = [(i64::MIN, 9), (-1, 3), (0, 1), (0, 2), (1, 0), (i64::MAX, 0)];
        let sealed: Vec<_> = keys.iter().map(|(t, n)| time_key(*t, *n)).collect();
        assert!(sealed.is_sorted());
        for (key, sealed) in keys.iter().zip(&sealed) {
            assert_eq!(read_time_key(sealed), Some(*key));
        }
        assert_eq!(read_time_key(b"short"), None);
    }

    #[test]
    fn counts_are_read_as_written_and_unknown_keyspaces_passed_over() {
        let counts = Counts::from([
            (Keyspace::Events, Count { records: 300, bytes: 1 << 40, numbers: u64::MAX - 5 }),
            (Keyspace::Cursors, Count::default()),
        ]);
        let mut body = put_counts(&counts);
        body.extend_from_slice(&[200, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(get_counts(&body), Ok(counts));
        assert!(get_counts(&body[..body.len() - 1]).is_err());
    }
}
