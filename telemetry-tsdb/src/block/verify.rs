//! Reading all of a file to see whether it is what was written.

use std::sync::Arc;

use super::frame::kind;
use super::reader::FOOTER_BYTES;
use super::{Block, BlockReader, Damage, GroupRef};
use crate::codec::{Bits, Decoded};

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Frames read.
    pub frames: u64,
    /// Chunks decoded.
    pub chunks: u64,
    /// Samples that can be read.
    pub samples: u64,
    /// Samples that were written and cannot be read.
    pub lost: u64,
    /// What is damaged, in words.
    pub damaged: Vec<String>,
}

// === impl Verified ===

impl Verified {
    fn note<T>(&mut self, result: Result<T, Damage>) -> Option<T> {
        result.map_err(|damage| self.damaged.push(damage.to_string())).ok()
    }
}

// === impl Block ===

impl Block {
    /// Reads and decodes everything there is; each byte of the file belongs to something that is checked.
    #[must_use]
    pub fn verify(self: &Arc<Self>) -> Verified {
        let mut found = Verified::default();
        if self.is_damaged {
            found.damaged.push(self.damage("header or table", 0).to_string());
        }
        let footer = self.bytes.saturating_sub(FOOTER_BYTES as u64);
        found.note(self.frame((footer, FOOTER_BYTES), kind::FOOTER, "footer"));
        found.note(self.index());
        found.note(self.metadata());
        found.frames += 5;
        for group in (0u32..).map(GroupRef).take(self.table.times.len()) {
            found.frames += 1;
            found.note(self.times(group));
        }
        let mut reader = BlockReader::new(Arc::clone(self));
        for page in 0..self.table.pages.len() {
            found.frames += 1;
            let turned = reader.turn_to(page);
            if found.note(turned).is_some() {
                verify_page(&mut reader, &mut found);
            }
        }
        found.lost = self.meta().samples.saturating_sub(found.samples);
        found
    }
}

/// Decodes the chunks of a page; each must have its rows.
fn verify_page(reader: &mut BlockReader, found: &mut Verified) {
    let chunks = reader.page.as_ref().map_or_else(Vec::new, |(_, page)| page.chunks.clone());
    let mut decoded = Decoded::default();
    for chunk in chunks {
        decoded.clear();
        found.chunks += 1;
        let cells = reader.read(&chunk, &mut decoded).and_then(|()| reader.times(&chunk));
        if found.note(cells).is_some() {
            let cells = decoded.present.as_ref().map_or(decoded.values.len(), Bits::count);
            found.samples += cells as u64;
        }
    }
}
