//! Parsed indexes that were used last, for all files of the process: parsing one takes milliseconds, and files that
//! follow each other mostly have the same one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use ahash::RandomState;

use crate::index::{FileIndex, IndexError};

/// Memory of kept indexes: three of 20,000 series.
const BYTES_MAX: usize = 8 << 20;

static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

struct Kept {
    /// Two keyed hashes are what equal bytes are known by.
    hashers: [RandomState; 2],
    /// The one used last in front.
    indexes: VecDeque<One>,
}

#[derive(Clone)]
struct One {
    print: [u64; 2],
    index: Arc<FileIndex>,
}

// === impl Kept ===

impl Kept {
    fn use_again(&mut self, is_it: impl Fn(&One) -> bool) -> Option<Arc<FileIndex>> {
        let at = self.indexes.iter().position(is_it)?;
        let one = self.indexes.remove(at)?;
        let index = Arc::clone(&one.index);
        self.indexes.push_front(one);
        Some(index)
    }

    fn add(&mut self, print: [u64; 2], index: &Arc<FileIndex>) {
        self.indexes.push_front(One { print, index: Arc::clone(index) });
        let mut bytes = 0;
        self.indexes.retain(|one| {
            bytes += one.index.memory();
            bytes <= BYTES_MAX
        });
    }
}

fn with<T>(act: impl FnOnce(&mut Kept) -> T) -> T {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = kept.get_or_insert_with(|| Kept {
        hashers: [RandomState::new(), RandomState::new()],
        indexes: VecDeque::new(),
    });
    act(kept)
}

/// The index that these bytes are: one that is kept, or a new one.
///
/// # Errors
/// If they are none.
pub fn parse(bytes: &[u8]) -> Result<Arc<FileIndex>, IndexError> {
    let hashers = with(|kept| kept.hashers.clone());
    let print = hashers.map(|hasher| hasher.hash_one(bytes));
    if let Some(index) = with(|kept| kept.use_again(|one| one.print == print)) {
        return Ok(index);
    }
    let index = Arc::new(FileIndex::parse(bytes)?);
    with(|kept| kept.add(print, &index));
    Ok(index)
}

/// An index was used again.
pub fn touch(index: &Arc<FileIndex>) {
    with(|kept| kept.use_again(|one| Arc::ptr_eq(&one.index, index)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::OwnerRef;

    #[test]
    fn equal_bytes_are_one_index_and_memory_is_bounded() {
        let of = |n: u32| {
            let series = (0..10_000)
                .map(|id| (id, OwnerRef(0), vec![(Arc::from("a"), Arc::from(format!("{n}-{id}")))]));
            FileIndex::encode(series, |_| None)
        };
        let first = parse(&of(0)).unwrap();
        assert!(Arc::ptr_eq(&first, &parse(&of(0)).unwrap()));
        assert!(parse(b"nonsense").is_err());
        (1..20).for_each(|n| drop(parse(&of(n)).unwrap()));
        let held = with(|kept| kept.indexes.iter().map(|one| one.index.memory()).sum::<usize>());
        assert!(held <= BYTES_MAX && held > BYTES_MAX / 2, "{held}");
        assert!(!Arc::ptr_eq(&first, &parse(&of(0)).unwrap()), "the oldest went");
    }
}
