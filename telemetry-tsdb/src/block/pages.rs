//! Pages of files that were read and verified once, for all readers of one selection: series are asked for in the order
//! of their labels and lie in that of their numbers, so that without it every series would cost a page.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use super::ChunkRef;

/// A page whose checksum was right, and where its chunks are.
pub struct Page {
    /// The whole frame.
    pub bytes: Vec<u8>,
    /// Growing by series.
    pub chunks: Vec<ChunkRef>,
}

/// Bytes of pages that may still be kept, for all files of a selection together.
#[derive(Clone)]
pub struct Room(Arc<AtomicUsize>);

/// The pages of one file that are kept. What finds no room is read again: none is dropped for another, since each is
/// asked for as often as any.
pub struct Pages {
    kept: Vec<OnceLock<Arc<Page>>>,
    room: Room,
}

// === impl Room ===

impl Room {
    /// For so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Whether there was room for so many bytes, which are taken.
    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

// === impl Pages ===

impl Pages {
    /// Of a file with so many pages.
    #[must_use]
    pub fn new(count: usize, room: Room) -> Self {
        Self { kept: std::iter::repeat_with(OnceLock::new).take(count).collect(), room }
    }

    /// A page that was kept.
    pub fn get(&self, page: usize) -> Option<&Arc<Page>> {
        self.kept.get(page)?.get()
    }

    /// Keeps a page if there is room.
    pub fn keep(&self, page: usize, read: &Arc<Page>) {
        let bytes = read.bytes.len() + size_of_val(read.chunks.as_slice());
        if let Some(kept) = self.kept.get(page)
            && self.room.take(bytes)
        {
            // Where two readers came at once, one of two equal pages goes, and its room with it.
            let _ = kept.set(Arc::clone(read));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_kept_as_far_as_there_is_room() {
        let page = |len| Arc::new(Page { bytes: vec![0; len], chunks: Vec::new() });
        let room = Room::new(100);
        let (first, second) = (Pages::new(2, room.clone()), Pages::new(1, room));
        first.keep(0, &page(60));
        second.keep(0, &page(60));
        first.keep(1, &page(40));
        first.keep(7, &page(0));
        assert_eq!(first.get(0).map(|page| page.bytes.len()), Some(60));
        assert!(second.get(0).is_none() && first.get(1).is_some() && first.get(7).is_none());
    }
}
