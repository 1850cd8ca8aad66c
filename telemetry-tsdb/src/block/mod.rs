//! Immutable files: what the head wrote, what compaction made of it, and its downsampled tiers.
//!
//! A file is a row of frames, each with its length and checksum, so that it can be walked when its table is damaged: a
//! frame that cannot be read costs what it holds and nothing else. It is written under another name, synced, renamed,
//! and the directory synced; it needs no other file to be read. Knows no log and no head; called by [`crate::db`].

mod compact;
mod frame;
mod keep;
mod meta;
mod pages;
mod reader;
mod rebuild;
mod tier;
mod verify;
mod writer;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

pub use compact::{Coder, Deleted, Groups, OwnerOf, compact, encode, join};
pub use meta::BlockMeta;
pub use pages::{Pages, Room};
pub use reader::{Block, BlockReader, ChunkRef, Damage};
pub use tier::{Downsampled, Kind, TierCells, TierColumn, TierReader, downsample, is_reset, minus, plus};
pub use verify::Verified;
pub use writer::BlockWriter;

/// Where files are.
pub const DIR: &str = "blocks";
/// Chunks are gathered in pages of about so many bytes: what one read brings.
const PAGE_BYTES: usize = 16 << 10;

/// The number of a timestamp column within a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupRef(pub u32);
