//! Reading a column of a tier.

use std::sync::Arc;

use telemetry_model::{NativeHistogram, is_stale};

use super::TierColumn;
use super::native::minus;
use crate::block::Pages;
use crate::block::reader::{Block, BlockReader, Damage};
use crate::codec::Decoded;
use crate::index::SeriesId;

/// Reads columns of one file of a tier, series after series.
pub struct TierReader {
    reader: BlockReader,
    last: Decoded,
    cells: Decoded,
}

/// Rows of a column: those with a cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TierCells {
    /// Ends of the intervals, growing.
    pub times: Vec<i64>,
    /// As many; what stands at a histogram means nothing.
    pub values: Vec<f64>,
    /// Position among them, and histogram.
    pub histograms: Vec<(u32, Arc<NativeHistogram>)>,
}

// === impl TierCells ===

impl TierCells {
    /// Forgets everything but its memory.
    pub fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
        self.histograms.clear();
    }

    /// Multiplies each value with that of the same time in the other column, if there is one.
    pub fn multiply(&mut self, by: &Self) {
        for (t, value) in
            self.times.iter().zip(self.values.iter_mut()).filter(|(_, value)| !is_stale(**value))
        {
            let factor = by.times.binary_search(t).ok().and_then(|at| by.values.get(at));
            *value *= factor.copied().unwrap_or(1.0);
        }
    }

    fn push(&mut self, t: i64, value: f64, histogram: Option<Arc<NativeHistogram>>) {
        if let Some(histogram) = histogram
            && let Ok(at) = u32::try_from(self.times.len())
        {
            self.histograms.push((at, histogram));
        }
        self.times.push(t);
        self.values.push(value);
    }
}

// === impl TierReader ===

impl TierReader {
    /// Reads a file of a tier.
    #[must_use]
    pub fn new(block: Arc<Block>) -> Self {
        Self { reader: BlockReader::new(block), last: Decoded::default(), cells: Decoded::default() }
    }

    /// Reads a file of a tier together with others, who keep pages for each other.
    #[must_use]
    pub fn sharing(block: Arc<Block>, pages: Arc<Pages>) -> Self {
        Self {
            reader: BlockReader::sharing(block, pages),
            last: Decoded::default(),
            cells: Decoded::default(),
        }
    }

    /// The file.
    #[must_use]
    pub fn block(&self) -> &Arc<Block> {
        self.reader.block()
    }

    /// Appends the rows of a series whose ends lie from `range.0` to `range.1`. Returns whether the file keeps this
    /// column of the series at all: a counter has no least value.
    ///
    /// Rows of [`TierColumn::Increase`] add up: their sum over whole intervals is the growth from the last sample
    /// before them to the last one in them.
    ///
    /// # Errors
    /// If something in the range is damaged.
    pub fn read(
        &mut self,
        series: SeriesId,
        column: TierColumn,
        range: (i64, i64),
        out: &mut TierCells,
    ) -> Result<bool, Damage> {
        let Self { reader, last, cells } = self;
        let mut is_there = false;
        let mut last_group = None;
        reader.chunks(series, range, |reader, chunk| -> Result<(), Damage> {
            let is_last = chunk.column == TierColumn::Last as u8;
            if is_last && column == TierColumn::Increase {
                last.clear();
                reader.read(&chunk, last)?;
                last_group = Some(chunk.group);
            }
            if chunk.column != column as u8 {
                return Ok(());
            }
            is_there = true;
            cells.clear();
            reader.read(&chunk, cells)?;
            let times = reader.times(&chunk)?;
            if column == TierColumn::Increase {
                if last_group != Some(chunk.group) {
                    return Err(reader.block().damage("order of columns", 0));
                }
                increases(&times, last, cells, range, out);
            } else {
                plain(&times, cells, range, out);
            }
            Ok(())
        })?;
        Ok(is_there)
    }
}

/// Steps through the histograms of decoded cells, row by row.
struct Histograms<'a>(std::iter::Peekable<std::slice::Iter<'a, (u32, Arc<NativeHistogram>)>>);

// === impl Histograms ===

impl<'a> Histograms<'a> {
    fn of(cells: &'a Decoded) -> Self {
        Self(cells.histograms.iter().peekable())
    }

    fn at(&mut self, row: usize) -> Option<&'a Arc<NativeHistogram>> {
        self.0.next_if(|(cell, _)| *cell as usize == row).map(|(_, histogram)| histogram)
    }
}

fn plain(times: &[i64], cells: &Decoded, range: (i64, i64), out: &mut TierCells) {
    let mut histograms = Histograms::of(cells);
    for (row, t) in times.iter().enumerate() {
        let histogram = histograms.at(row);
        if cells.has(row) && (range.0..=range.1).contains(t) {
            let value = cells.values.get(row).copied().unwrap_or(0.0);
            out.push(*t, value, histogram.cloned());
        }
    }
}

/// What was written, and where nothing was the difference to the last value of the row before.
fn increases(times: &[i64], last: &Decoded, said: &Decoded, range: (i64, i64), out: &mut TierCells) {
    let (mut lasts, mut growths) = (Histograms::of(last), Histograms::of(said));
    let mut before: Option<f64> = None;
    let mut before_histogram: Option<&Arc<NativeHistogram>> = None;
    for (row, t) in times.iter().enumerate() {
        let (now_histogram, growth) = (lasts.at(row), growths.at(row));
        if !last.has(row) {
            continue;
        }
        let is_in = (range.0..=range.1).contains(t);
        let now = last.values.get(row).copied().filter(|_| now_histogram.is_none());
        if said.has(row) {
            let value = said.values.get(row).copied().unwrap_or(0.0);
            if is_in {
                out.push(*t, value, growth.cloned());
            }
        } else if let (Some(now), Some(before)) = (now_histogram, before_histogram) {
            if let Some(growth) = minus(now, before).filter(|_| is_in) {
                out.push(*t, 0.0, Some(Arc::new(growth)));
            }
        } else if let (Some(now), Some(before)) = (now, before)
            && is_in
            && !is_stale(now)
            && !f64::is_nan(now - before)
        {
            out.push(*t, now - before, None);
        }
        (before, before_histogram) = (now, now_histogram);
    }
}
