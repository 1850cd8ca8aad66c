//! A bitmap of known length: which cells are there.

/// Bits, 64 a word. Those beyond the length are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u64>,
    len: usize,
}

// === impl Bits ===

impl Bits {
    /// So many bits, all zero.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    /// How many bits there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// More bits, zero, or fewer.
    pub fn resize(&mut self, len: usize) {
        self.words.resize(len.div_ceil(64), 0);
        self.len = len;
        let used = len % 64;
        if used != 0
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << used) - 1;
        }
    }

    /// Sets a bit; one beyond the end is ignored.
    #[inline]
    pub fn set(&mut self, at: usize) {
        if at < self.len
            && let Some(word) = self.words.get_mut(at / 64)
        {
            *word |= 1 << (at % 64);
        }
    }

    /// Clears a bit.
    #[inline]
    pub fn clear(&mut self, at: usize) {
        if let Some(word) = self.words.get_mut(at / 64) {
            *word &= !(1 << (at % 64));
        }
    }

    /// A bit; one beyond the end is zero.
    #[must_use]
    #[inline]
    pub fn get(&self, at: usize) -> bool {
        self.words.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// How many are set.
    #[must_use]
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Keeps what is set in both; what `other` does not have is zero.
    pub fn and(&mut self, other: &Self) {
        for (at, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(at).copied().unwrap_or(0);
        }
    }

    /// Sets what is set in either, within this one's length.
    pub fn or(&mut self, other: &Self) {
        for (word, theirs) in self.words.iter_mut().zip(&other.words) {
            *word |= theirs;
        }
        let len = self.len;
        self.resize(len);
    }

    /// Sets the first `n`.
    pub fn fill(&mut self, n: usize) {
        for at in 0..n.min(self.len) {
            self.set(at);
        }
    }

    /// Words of 64 bits.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Positions of set bits, growing.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then_some(rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Some(at * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_beyond_the_length_do_not_exist() {
        let mut bits = Bits::new(70);
        [0, 63, 64, 69, 70, 500].iter().for_each(|at| bits.set(*at));
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 63, 64, 69]);
        bits.resize(64);
        bits.resize(80);
        assert_eq!((bits.count(), bits.get(64)), (2, false));
        let mut long = Bits::new(200);
        long.set(150);
        bits.or(&long);
        assert_eq!(bits.count(), 2);
    }
}
