//! A store as a Parquet file: one row a sample.
//!
//! | column | type | |
//! |---|---|---|
//! | `timestamp` | INT64, TIMESTAMP(MILLIS, UTC) | |
//! | `name` | BYTE_ARRAY, STRING | the metric's name |
//! | `labels` | MAP of STRING to STRING | all other labels |
//! | `value` | DOUBLE, optional | of floats |
//! | `histogram` | BYTE_ARRAY, JSON, optional | of native histograms |
//!
//! Labels are a map, not a column each: their names differ from series to series, and DuckDB, Spark and pyarrow read
//! maps. Rows come series after series, in the order of time; a group of rows is what is held in memory.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use telemetry_model::{NativeHistogram, is_stale};
use telemetry_tsdb::db::{Column, Db, Selected};

use super::{Exported, TransferError, Wanted, read};

/// What a file has.
pub const SCHEMA: &str = "message samples {
    required int64 timestamp (TIMESTAMP(MILLIS,true));
    required binary name (STRING);
    required group labels (MAP) {
        repeated group key_value {
            required binary key (STRING);
            required binary value (STRING);
        }
    }
    optional double value;
    optional binary histogram (JSON);
}";
/// Rows of one group: large enough for readers that work group by group, some 10 MiB of memory here.
const ROWS_MAX: usize = 256 << 10;
/// Bytes of histograms in one group.
const HISTOGRAM_BYTES_MAX: usize = 32 << 20;
/// Rows that are handed over at once where each repeats the labels of its series.
const LABEL_ROWS: usize = 512;

/// Rows that wait for their group to be full.
#[derive(Default)]
struct Rows {
    times: Vec<i64>,
    /// Each series and how many rows it has.
    runs: Vec<(Run, usize)>,
    values: Vec<f64>,
    /// 1 where a row has a value.
    has_value: Vec<i16>,
    histograms: Vec<ByteArray>,
    histogram_bytes: usize,
    /// 1 where a row has a histogram.
    has_histogram: Vec<i16>,
}

/// A series' name and labels.
#[derive(Clone)]
struct Run {
    name: ByteArray,
    keys: Vec<ByteArray>,
    values: Vec<ByteArray>,
}

/// Writes every sample that is wanted; stale markers are not written.
///
/// # Errors
/// If something is damaged, or the disk refuses.
pub fn export<W: Write + Send>(
    db: &Db,
    wanted: &Wanted,
    out: W,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Exported, TransferError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_created_by(concat!("telemetry-agent ", env!("CARGO_PKG_VERSION")).into())
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut file = SerializedFileWriter::new(out, schema, Arc::new(properties))?;
    let selection = db.select(&wanted.matchers, wanted.from, wanted.to)?;
    let mut reader = selection.reader();
    let slices = wanted.slices(db);
    let (mut rows, mut done) = (Rows::default(), Exported::default());
    let total = u64::try_from(selection.series().len()).unwrap_or(u64::MAX);
    for (at, series) in (1u64..).zip(selection.series()) {
        let run = Run::of(series);
        let before = done.samples;
        for slice in &slices {
            let column = read(&mut reader, series, *slice)?;
            done.samples += rows.take(&run, &column, &mut |rows| rows.write(&mut file))?;
        }
        done.series += u64::from(done.samples > before);
        progress(at, total);
    }
    rows.write(&mut file)?;
    file.close()?;
    Ok(done)
}

// === impl Run ===

impl Run {
    fn of(series: &Selected) -> Self {
        let labels = || series.labels().iter().filter(|(name, _)| &**name != "__name__");
        Self {
            name: series.get("__name__").unwrap_or("").into(),
            keys: labels().map(|(name, _)| ByteArray::from(&**name)).collect(),
            values: labels().map(|(_, value)| ByteArray::from(&**value)).collect(),
        }
    }
}

// === impl Rows ===

impl Rows {
    /// Adds a column's samples; `full` empties the rows. Returns how many samples there were.
    fn take(
        &mut self,
        run: &Run,
        column: &Column,
        full: &mut dyn FnMut(&mut Self) -> Result<(), TransferError>,
    ) -> Result<u64, TransferError> {
        let mut histograms = column.histograms.iter().peekable();
        let (mut taken, mut of_run) = (0, 0);
        for (at, (t, value)) in column.times.iter().zip(&column.values).enumerate() {
            let histogram = histograms.next_if(|(of, _)| *of as usize == at);
            if histogram.is_none() && is_stale(*value) {
                continue;
            }
            self.times.push(*t);
            self.has_value.push(i16::from(histogram.is_none()));
            self.has_histogram.push(i16::from(histogram.is_some()));
            match histogram {
                None => self.values.push(*value),
                Some((_, histogram)) => {
                    let json = json(histogram);
                    self.histogram_bytes += json.len();
                    self.histograms.push(json.as_str().into());
                }
            }
            (taken, of_run) = (taken + 1, of_run + 1);
            if self.times.len() >= ROWS_MAX || self.histogram_bytes >= HISTOGRAM_BYTES_MAX {
                self.runs.push((run.clone(), std::mem::take(&mut of_run)));
                full(self)?;
            }
        }
        if of_run > 0 {
            self.runs.push((run.clone(), of_run));
        }
        Ok(taken)
    }

    /// Writes the rows as one group and forgets them.
    fn write<W: Write + Send>(&mut self, file: &mut SerializedFileWriter<W>) -> Result<(), TransferError> {
        if self.times.is_empty() {
            return Ok(());
        }
        let mut group = file.next_row_group()?;
        if let Some(mut column) = group.next_column()? {
            column.typed::<Int64Type>().write_batch(&self.times, None, None)?;
            column.close()?;
        }
        if let Some(mut column) = group.next_column()? {
            for (run, rows) in &self.runs {
                let names = vec![run.name.clone(); (*rows).min(LABEL_ROWS)];
                for part in parts(*rows) {
                    column.typed::<ByteArrayType>().write_batch(
                        names.get(..part).unwrap_or(&[]),
                        None,
                        None,
                    )?;
                }
            }
            column.close()?;
        }
        self.write_labels(&mut group, |run| &run.keys)?;
        self.write_labels(&mut group, |run| &run.values)?;
        if let Some(mut column) = group.next_column()? {
            column.typed::<DoubleType>().write_batch(&self.values, Some(&self.has_value), None)?;
            column.close()?;
        }
        if let Some(mut column) = group.next_column()? {
            column.typed::<ByteArrayType>().write_batch(&self.histograms, Some(&self.has_histogram), None)?;
            column.close()?;
        }
        group.close()?;
        *self = Self::default();
        Ok(())
    }

    /// One half of the maps: in each row as many entries as the series has labels, or one that says there are none.
    fn write_labels<W: Write + Send>(
        &self,
        group: &mut SerializedRowGroupWriter<'_, W>,
        half: impl Fn(&Run) -> &Vec<ByteArray>,
    ) -> Result<(), TransferError> {
        let Some(mut column) = group.next_column()? else { return Ok(()) };
        for (run, rows) in &self.runs {
            let entries = half(run);
            let width = entries.len().max(1);
            let most = (*rows).min(LABEL_ROWS);
            let repeated: Vec<ByteArray> =
                entries.iter().cycle().take(entries.len() * most).cloned().collect();
            let defined = vec![i16::from(!entries.is_empty()); width * most];
            let continued: Vec<i16> = (0..width * most).map(|at| i16::from(at % width != 0)).collect();
            for part in parts(*rows) {
                column.typed::<ByteArrayType>().write_batch(
                    repeated.get(..entries.len() * part).unwrap_or(&[]),
                    defined.get(..width * part),
                    continued.get(..width * part),
                )?;
            }
        }
        column.close()?;
        Ok(())
    }
}

/// A number of rows in parts.
fn parts(rows: usize) -> impl Iterator<Item = usize> {
    let whole = std::iter::repeat_n(LABEL_ROWS, rows / LABEL_ROWS);
    whole.chain(std::iter::once(rows % LABEL_ROWS).filter(|rest| *rest > 0))
}

/// `{"schema":…,"count":…,"sum":…,"zero_threshold":…,"zero_count":…,"positive":[[index,count],…],"negative":[…]}`, and
/// `"custom_bounds"` where there are some. A number that JSON has no form for is a string.
fn json(histogram: &NativeHistogram) -> String {
    let number = |value: f64| -> serde_json::Value {
        if value.is_finite() { value.into() } else { value.to_string().into() }
    };
    let buckets = |buckets: &telemetry_model::Buckets| -> serde_json::Value {
        buckets.iter().map(|(index, count)| serde_json::json!([index, number(count)])).collect()
    };
    let mut all = serde_json::json!({
        "schema": histogram.schema,
        "count": number(histogram.count),
        "sum": number(histogram.sum),
        "zero_threshold": number(histogram.zero_threshold),
        "zero_count": number(histogram.zero_count),
        "positive": buckets(&histogram.positive),
        "negative": buckets(&histogram.negative),
    });
    if let (Some(bounds), Some(all)) = (&histogram.custom_bounds, all.as_object_mut()) {
        all.insert("custom_bounds".into(), bounds.iter().map(|bound| number(*bound)).collect());
    }
    all.to_string()
}
