//! Interned strings: each kept once, known by a number.

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;

/// A string's number.
pub type Symbol = u32;

/// All strings of an index.
#[derive(Default)]
pub struct Symbols {
    strings: Vec<Arc<str>>,
    table: HashTable<Symbol>,
    hasher: RandomState,
    bytes: usize,
}

// === impl Symbols ===

impl Symbols {
    /// The number of a string, if it is known.
    pub fn find(&self, text: &str) -> Option<Symbol> {
        let same = |symbol: &Symbol| self.get(*symbol).is_some_and(|known| &**known == text);
        self.table.find(self.hasher.hash_one(text), same).copied()
    }

    /// The number of a string.
    pub fn intern(&mut self, text: &str) -> Symbol {
        if let Some(known) = self.find(text) {
            return known;
        }
        self.add(Arc::from(text))
    }

    /// Takes a string of another index over, without a copy.
    pub fn share(&mut self, text: &Arc<str>) -> Symbol {
        if let Some(known) = self.find(text) {
            return known;
        }
        self.add(Arc::clone(text))
    }

    fn add(&mut self, text: Arc<str>) -> Symbol {
        let symbol = Symbol::try_from(self.strings.len()).unwrap_or(Symbol::MAX);
        let hash = self.hasher.hash_one(&*text);
        // Two counters and the padding of the allocation stand beside the text.
        self.bytes += text.len() + 40;
        self.strings.push(text);
        let Self { strings, table, hasher, .. } = self;
        let rehash =
            |symbol: &Symbol| strings.get(*symbol as usize).map_or(0, |known| hasher.hash_one(&**known));
        table.insert_unique(hash, symbol, rehash);
        symbol
    }

    /// The string of a number.
    pub fn get(&self, symbol: Symbol) -> Option<&Arc<str>> {
        self.strings.get(symbol as usize)
    }

    /// Memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes + self.strings.capacity() * 16 + self.table.capacity() * 5
    }
}
