//! A big-endian stream of bits over 64-bit words.

/// Appends bits to bytes.
pub struct BitWriter<'a> {
    bytes: &'a mut Vec<u8>,
    word: u64,
    used: u32,
}

/// Reads bits from bytes. Beyond the end there are zeros, and [`BitReader::is_overrun`] says so.
pub struct BitReader<'a> {
    bytes: &'a [u8],
    word: u64,
    left: u32,
    pos: usize,
}

// === impl BitWriter ===

impl<'a> BitWriter<'a> {
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes, word: 0, used: 0 }
    }

    /// The low `bits` of `v`.
    #[inline]
    pub fn put(&mut self, v: u64, bits: u32) {
        if bits == 0 {
            return;
        }
        let v = if bits == 64 { v } else { v & ((1u64 << bits) - 1) };
        let room = 64 - self.used;
        if bits < room {
            self.word |= v << (room - bits);
            self.used += bits;
        } else {
            let rest = bits - room;
            self.word |= v >> rest;
            self.bytes.extend_from_slice(&self.word.to_be_bytes());
            self.used = rest;
            self.word = if rest == 0 { 0 } else { v << (64 - rest) };
        }
    }

    /// Writes what is left, to a whole byte.
    pub fn finish(self) {
        let tail = self.used.div_ceil(8) as usize;
        self.bytes.extend(self.word.to_be_bytes().iter().take(tail));
    }
}

// === impl BitReader ===

impl<'a> BitReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut reader = Self { bytes, word: 0, left: 0, pos: 0 };
        reader.fill();
        reader
    }

    #[inline]
    fn fill(&mut self) {
        self.word = match self.bytes.get(self.pos..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(word) => u64::from_be_bytes(*word),
            None => self.tail(),
        };
        self.pos += 8;
        self.left = 64;
    }

    #[cold]
    fn tail(&self) -> u64 {
        let rest = self.bytes.get(self.pos..).unwrap_or(&[]);
        (0..8).fold(0, |word, at| word << 8 | u64::from(rest.get(at).copied().unwrap_or(0)))
    }

    /// The next `bits`, at most 64.
    #[inline]
    pub fn get(&mut self, bits: u32) -> u64 {
        if bits == 0 {
            return 0;
        }
        if self.left == 0 {
            self.fill();
        }
        if bits <= self.left {
            let v = self.word >> (64 - bits);
            self.word = if bits == 64 { 0 } else { self.word << bits };
            self.left -= bits;
            v
        } else {
            let high = self.word >> (64 - self.left);
            let need = bits - self.left;
            self.fill();
            let low = self.word >> (64 - need);
            self.word <<= need;
            self.left -= need;
            (high << need) | low
        }
    }

    /// Whether more was read than there is.
    pub fn is_overrun(&self) -> bool {
        let read = self.pos * 8 - self.left as usize;
        read > self.bytes.len() * 8
    }
}
