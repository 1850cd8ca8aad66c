//! What is not yet in files: the newest samples of every group of series.
//!
//! A group's samples come in rows: one timestamp, one cell a slot, a slot a series. Thirty rows stay as they came; then
//! they are turned into columns and packed ([`Stripe`]); twenty minutes of stripes are a [`Window`], which goes into a
//! file as a whole. Everything a reader gets is immutable and behind an `Arc`: the writer swaps in a new [`GroupView`]
//! after each row and never waits for a reader.
//!
//! Knows no file and no log; the store ([`crate::db`]) is its only caller.

mod group;
mod late;
mod row;
mod stripe;
mod window;

pub use group::{Amended, Ended, Group, GroupView, Placed};
pub use late::{LateSamples, LateSeries};
pub use row::{Row, Sample};
pub use stripe::{Packer, Stripe};
pub use window::Window;

/// Length of a window of the head: what one fresh file holds. 240 ticks of 5 s.
pub const WINDOW_MS: i64 = 20 * 60 * 1000;
/// Rows that stay as they came before they are packed: the compression block of the chunk codec.
pub const STAGED_ROWS: usize = 30;
/// Out-of-order samples one series may hold between two writes of windows.
pub const LATE_SAMPLES_PER_SERIES: usize = 4096;

/// A group of series that share their timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// A series' place in the rows of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// The number of the window that a time lies in; the window begins at the number times [`WINDOW_MS`].
#[must_use]
pub fn window_of(t: i64) -> i64 {
    t.div_euclid(WINDOW_MS)
}
