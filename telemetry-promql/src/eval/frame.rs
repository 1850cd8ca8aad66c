//! What operators hand each other: columns over the steps of a query.

use std::collections::HashMap;
use std::sync::Arc;

use telemetry_model::NativeHistogram;

use crate::error::QueryError;
use crate::labels::Labels;
use crate::value::Cell;

/// What a column takes beside its labels and values: itself, its place in lists and maps, its allocations.
const COLUMN_BYTES: usize = 320;
/// What a histogram takes beside its buckets.
const HISTOGRAM_BYTES: usize = 192;

/// The times at which an expression is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    /// First time, milliseconds.
    pub start: i64,
    /// Milliseconds between; at least 1.
    pub step: i64,
    /// How many; may be none.
    pub count: usize,
}

/// One bit a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
    len: usize,
}

/// A series over all steps.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// The series; with its name even where it is to be dropped later.
    pub labels: Labels,
    /// Whether the name is dropped when the query is done.
    pub drop_name: bool,
    /// One a step; what stands where nothing is present, or at a histogram, means nothing.
    pub values: Vec<f64>,
    /// At which steps there is a value.
    pub present: Bits,
    /// Histograms at their steps; none at all in a column of numbers.
    pub histograms: Option<Vec<Option<Arc<NativeHistogram>>>>,
}

/// The value of an expression over all steps.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    /// A number a step.
    Scalar(Vec<f64>),
    /// Series.
    Vector(Vec<Column>),
    /// A text.
    Text(Arc<str>),
}

/// A value as it stands in a column.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CellRef<'a> {
    Float(f64),
    Histogram(&'a Arc<NativeHistogram>),
}

/// What to do with columns of equal labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twins {
    /// Join them if they have no step in common, else fail.
    Join,
    /// Fail.
    Refuse,
    /// Leave them: names are still to be dropped.
    Leave,
}

// === impl Grid ===

impl Grid {
    /// From `start` to `end`, both included if the steps meet `end`.
    pub fn new(start: i64, end: i64, step: i64) -> Self {
        let step = step.max(1);
        if end < start {
            return Self { start, step, count: 0 };
        }
        let steps = (i128::from(end) - i128::from(start)) / i128::from(step) + 1;
        Self { start, step, count: usize::try_from(steps).unwrap_or(usize::MAX) }
    }

    /// One time.
    pub fn one(start: i64) -> Self {
        Self { start, step: 1, count: 1 }
    }

    /// The time of a step.
    pub fn t(&self, at: usize) -> i64 {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        self.start.saturating_add(self.step.saturating_mul(at))
    }

    /// All times.
    pub fn times(&self) -> impl Iterator<Item = i64> + use<> {
        let grid = *self;
        (0..grid.count).map(move |at| grid.t(at))
    }

    /// Whether there is one time only: order is kept then.
    pub fn is_instant(&self) -> bool {
        self.count <= 1
    }
}

// === impl Bits ===

impl Bits {
    pub fn none(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    pub fn all(len: usize) -> Self {
        let mut bits = Self { words: vec![u64::MAX; len.div_ceil(64)], len };
        bits.trim();
        bits
    }

    fn trim(&mut self) {
        let rest = self.len % 64;
        if rest > 0
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << rest) - 1;
        }
    }

    pub fn get(&self, at: usize) -> bool {
        self.words.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    pub fn set(&mut self, at: usize) {
        if let Some(word) = self.words.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    pub fn unset(&mut self, at: usize) {
        if let Some(word) = self.words.get_mut(at / 64) {
            *word &= !(1 << (at % 64));
        }
    }

    pub fn any(&self) -> bool {
        self.words.iter().any(|word| *word != 0)
    }

    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn and(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= b);
    }

    pub fn and_not(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= !b);
    }

    pub fn or(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
    }

    pub fn meets(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).any(|(a, b)| a & b != 0)
    }

    /// Positions of the bits that are set, growing.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros() as usize;
                rest &= rest.checked_sub(1)?;
                Some(at * 64 + bit)
            })
        })
    }
}

// === impl Column ===

impl Column {
    /// Nothing yet.
    pub fn empty(labels: Labels, steps: usize) -> Self {
        Self {
            labels,
            drop_name: false,
            values: vec![0.0; steps],
            present: Bits::none(steps),
            histograms: None,
        }
    }

    /// A number a step.
    pub fn of(labels: Labels, values: Vec<f64>) -> Self {
        let present = Bits::all(values.len());
        Self { labels, drop_name: false, values, present, histograms: None }
    }

    /// The value at a step.
    pub fn get(&self, at: usize) -> Option<CellRef<'_>> {
        if !self.present.get(at) {
            return None;
        }
        if let Some(histograms) = &self.histograms
            && let Some(Some(histogram)) = histograms.get(at)
        {
            return Some(CellRef::Histogram(histogram));
        }
        self.values.get(at).map(|value| CellRef::Float(*value))
    }

    /// The histogram at a step.
    pub fn histogram(&self, at: usize) -> Option<&Arc<NativeHistogram>> {
        match self.get(at) {
            Some(CellRef::Histogram(histogram)) => Some(histogram),
            _ => None,
        }
    }

    /// The number at a step.
    pub fn float(&self, at: usize) -> Option<f64> {
        match self.get(at) {
            Some(CellRef::Float(value)) => Some(value),
            _ => None,
        }
    }

    /// Sets a step to a number.
    pub fn set(&mut self, at: usize, value: f64) {
        if let Some(cell) = self.values.get_mut(at) {
            *cell = value;
            self.present.set(at);
        }
    }

    /// Sets a step to a histogram.
    pub fn set_histogram(&mut self, at: usize, histogram: Arc<NativeHistogram>) {
        let steps = self.values.len();
        let histograms = self.histograms.get_or_insert_with(|| vec![None; steps]);
        if let Some(cell) = histograms.get_mut(at) {
            *cell = Some(histogram);
            self.present.set(at);
        }
    }

    /// Sets a step to either.
    pub fn put(&mut self, at: usize, cell: Cell) {
        match cell {
            Cell::Float(value) => self.set(at, value),
            Cell::Histogram(histogram) => self.set_histogram(at, histogram),
        }
    }

    /// Copies a step from another column.
    pub fn copy(&mut self, at: usize, from: &Self) {
        match from.get(at) {
            None => {}
            Some(CellRef::Float(value)) => self.set(at, value),
            Some(CellRef::Histogram(histogram)) => self.set_histogram(at, Arc::clone(histogram)),
        }
    }

    /// Steps at which there are histograms.
    pub fn histogram_bits(&self) -> Bits {
        let mut bits = Bits::none(self.values.len());
        if let Some(histograms) = &self.histograms {
            histograms.iter().enumerate().filter(|(_, h)| h.is_some()).for_each(|(at, _)| bits.set(at));
            bits.and(&self.present);
        }
        bits
    }

    /// Only the steps with numbers.
    pub fn floats_only(mut self) -> Self {
        let histograms = self.histogram_bits();
        self.present.and_not(&histograms);
        self.histograms = None;
        self
    }

    /// The same value at `steps` steps: what a step-invariant expression is.
    pub fn spread(self, steps: usize) -> Self {
        let mut out = Self::empty(self.labels.clone(), steps);
        out.drop_name = self.drop_name;
        match self.get(0) {
            None => {}
            Some(CellRef::Float(value)) => {
                out.values.fill(value);
                out.present = Bits::all(steps);
            }
            Some(CellRef::Histogram(histogram)) => {
                out.histograms = Some(vec![Some(Arc::clone(histogram)); steps]);
                out.present = Bits::all(steps);
            }
        }
        out
    }

    /// Bytes of memory of a column of numbers over so many steps, about; without its labels.
    pub fn bytes_of(steps: usize) -> usize {
        steps.saturating_mul(9).saturating_add(COLUMN_BYTES)
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes_unnamed() + self.labels.bytes()
    }

    /// Bytes of memory, about, where whoever gave the labels still holds them.
    pub fn bytes_unnamed(&self) -> usize {
        let mut bytes = Self::bytes_of(self.values.len());
        let mut last: Option<&Arc<NativeHistogram>> = None;
        for cell in self.histograms.iter().flatten() {
            bytes += size_of::<usize>();
            // What is the same at each step is there once.
            if let Some(histogram) = cell
                && !last.is_some_and(|last| Arc::ptr_eq(last, histogram))
            {
                bytes += histogram_bytes(histogram);
                last = Some(histogram);
            }
        }
        bytes
    }

    fn join(&mut self, other: &Self) -> Result<(), QueryError> {
        if self.present.meets(&other.present) {
            return Err(QueryError::same_labels());
        }
        other.present.iter().for_each(|at| self.copy(at, other));
        Ok(())
    }
}

// === impl Frame ===

impl Frame {
    /// The columns, or none.
    pub fn columns(self) -> Vec<Column> {
        match self {
            Self::Vector(columns) => columns,
            Self::Scalar(_) | Self::Text(_) => Vec::new(),
        }
    }

    /// The numbers, or none.
    pub fn numbers(self) -> Vec<f64> {
        match self {
            Self::Scalar(values) => values,
            Self::Vector(_) | Self::Text(_) => Vec::new(),
        }
    }
}

/// Bytes of memory of a histogram, about.
pub(crate) fn histogram_bytes(histogram: &NativeHistogram) -> usize {
    let bounds = histogram.custom_bounds.as_ref().map_or(0, |bounds| bounds.len());
    HISTOGRAM_BYTES + 12 * (histogram.positive.len() + histogram.negative.len()) + 8 * bounds
}

/// Takes empty columns out and sees to columns of equal labels.
pub(crate) fn assemble(columns: Vec<Column>, twins: Twins) -> Result<Vec<Column>, QueryError> {
    let mut out: Vec<Column> = Vec::with_capacity(columns.len());
    if twins == Twins::Leave || columns.len() < 2 {
        out.extend(columns.into_iter().filter(|column| column.present.any()));
        return Ok(out);
    }
    let mut places: HashMap<Labels, usize, ahash::RandomState> = HashMap::default();
    for column in columns.into_iter().filter(|column| column.present.any()) {
        match places.get(&column.labels).and_then(|at| out.get_mut(*at)) {
            Some(_) if twins == Twins::Refuse => return Err(QueryError::same_labels()),
            Some(twin) => twin.join(&column)?,
            None => {
                places.insert(column.labels.clone(), out.len());
                out.push(column);
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_set_combined_and_walked() {
        let mut bits = Bits::none(130);
        [0, 63, 64, 129].iter().for_each(|at| bits.set(*at));
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert_eq!((bits.count(), Bits::all(130).count()), (4, 130));
        let mut others = Bits::all(130);
        others.and_not(&bits);
        assert!(!others.meets(&bits) && others.count() == 126);
    }

    #[test]
    fn grids_never_overflow() {
        assert_eq!(Grid::new(0, 10, 5).times().collect::<Vec<_>>(), [0, 5, 10]);
        assert_eq!(Grid::new(0, -1, 5).count, 0);
        let widest = Grid::new(i64::MIN, i64::MAX, 1);
        assert_eq!(widest.t(usize::MAX), i64::MAX.saturating_add(i64::MIN), "it saturates");
    }

    #[test]
    fn twins_are_joined_or_refused() {
        let labels = Labels::from_texts([("a", "1")]);
        let (mut a, mut b) = (Column::empty(labels.clone(), 3), Column::empty(labels, 3));
        a.set(0, 1.0);
        b.set(2, 3.0);
        let joined = assemble(vec![a.clone(), b.clone()], Twins::Join).unwrap();
        assert_eq!((joined.len(), joined[0].float(0), joined[0].float(2)), (1, Some(1.0), Some(3.0)));
        assert!(assemble(vec![a.clone(), b.clone()], Twins::Refuse).is_err());
        b.set(0, 2.0);
        assert!(assemble(vec![a, b], Twins::Join).is_err(), "both have a value at the first step");
    }
}
