//! The samples that all stores get: a month of few series, then an hour and a half of many.

use anyhow::Result;
use telemetry_tests::datagen::{self, Generator, Rng};

/// A whole number of days.
pub const LONG_START: i64 = 1_699_920_000_000 - LONG_MS;
/// Thirty days.
const LONG_MS: i64 = 30 * 24 * 3_600_000;
/// The end of the month.
pub const LONG_END: i64 = LONG_START + LONG_MS;
/// Between two samples of the month.
const LONG_STEP_MS: i64 = 60_000;
/// Series of the month, half of them counters.
const LONG_SERIES: usize = 40;

/// The beginning of the hour and a half: a whole number of two-hour buckets.
pub const START: i64 = 1_699_999_200_000;
/// Samples of each series, 5 s apart.
const TICKS: i64 = 1_080;
/// The last whole minute.
pub const END: i64 = START + 89 * 60_000;
/// Series of the hour and a half.
const SERIES: usize = 20_000;

/// Labels of a series, sorted by name.
pub type Labels = Vec<(String, String)>;

/// Series and their rows.
pub struct Part {
    /// Which series.
    pub series: Vec<Labels>,
    /// Time and a value a series.
    rows: Box<dyn Iterator<Item = (i64, Vec<f64>)>>,
}

/// Both, in the order of time.
pub fn parts() -> [Part; 2] {
    [long(), short()]
}

fn long() -> Part {
    let series = (0..LONG_SERIES).map(|at| {
        let name = if at % 2 == 0 { "long_total" } else { "long_level" };
        let pairs =
            [("__name__", name.to_owned()), ("id", at.to_string()), ("zone", (at / 2 % 4).to_string())];
        pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
    });
    let mut rng = Rng::new(11);
    let mut values = vec![0.0; LONG_SERIES];
    let times = (0..LONG_MS / LONG_STEP_MS).map(|k| LONG_START + (k + 1) * LONG_STEP_MS);
    let rows = times.map(move |t| {
        for (at, value) in values.iter_mut().enumerate() {
            let step = (rng.unit() * 100.0).floor();
            *value = if at % 2 == 0 { *value + step } else { step };
        }
        (t, values.clone())
    });
    Part { series: series.collect(), rows: Box::new(rows) }
}

fn short() -> Part {
    let owned = |(name, value): (&str, String)| (name.to_owned(), value);
    let series = (0..SERIES).map(|at| datagen::labels(at, SERIES).into_iter().map(owned).collect());
    let mut data = Generator::new(SERIES);
    let rows = (0..TICKS).map(move |k| (datagen::timestamp(START, k), data.tick().to_vec()));
    Part { series: series.collect(), rows: Box::new(rows) }
}

/// Takes rows of a part, so many at a time.
pub fn chunks(
    part: &mut Part,
    rows_max: usize,
    mut each: impl FnMut(&[Labels], &[(i64, Vec<f64>)]) -> Result<()>,
) -> Result<()> {
    loop {
        let rows: Vec<_> = part.rows.by_ref().take(rows_max).collect();
        if rows.is_empty() {
            return Ok(());
        }
        each(&part.series, &rows)?;
    }
}
