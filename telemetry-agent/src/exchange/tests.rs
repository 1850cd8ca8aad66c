//! What leaves a store comes back into another as it was; Parquet is read by its own reader.

use std::sync::Arc;

use ::parquet::file::reader::{FileReader as _, SerializedFileReader};
use ::parquet::record::{Field, Row, RowAccessor as _};
use proptest::prelude::*;
use telemetry_model::{MatchOp, NativeHistogram, STALE_MARKER};
use telemetry_tsdb::db::Config;
use telemetry_tsdb::fs::{RealStorage, SystemClock};
use telemetry_tsdb::head::Sample;

use super::import::Rigour;
use super::openmetrics::Dialect;
use super::*;

fn open(dir: &std::path::Path) -> Db {
    let storage = Arc::new(RealStorage::open(dir).unwrap());
    Db::open(Config::default(), storage, Arc::new(SystemClock::default())).unwrap().0
}

fn all() -> Wanted {
    Wanted { matchers: vec![Matcher::new("__name__", MatchOp::Regex, ".*")], from: i64::MIN, to: i64::MAX }
}

/// Every sample: labels, time, bits; one NaN for all.
fn contents(db: &Db) -> Vec<(String, i64, u64)> {
    let selection = db.select(&all().matchers, i64::MIN, i64::MAX).unwrap();
    let mut reader = selection.reader();
    let mut samples = Vec::new();
    for series in selection.series() {
        let column = reader.read(series, i64::MIN, i64::MAX).unwrap();
        for (t, value) in column.times.iter().zip(&column.values) {
            let bits = if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
            samples.push((format!("{:?}", series.labels()), *t, bits));
        }
    }
    samples
}

type Stored = Vec<(String, String, Vec<(i64, u64)>)>;

fn stored() -> impl Strategy<Value = Stored> {
    let name = "[a-z]{1,3}(_total|_bucket|_sum|_count)?|\\PC{1,4}";
    let samples = prop::collection::vec((-100_000_000i64..100_000_000, any::<u64>()), 1..20);
    prop::collection::vec((name, "\\PC{0,6}|[\\\\\"\n]{1,3}", samples), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn text_brings_every_sample_back(stored in stored()) {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (open(&dir.path().join("a")), open(&dir.path().join("b")));
        let mut bulk = first.bulk();
        for (name, value, samples) in &stored {
            let labels = [("__name__", name.as_str()), ("label", value.as_str())];
            let labels = labels.iter().copied().filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>();
            let floats = samples.iter().map(|(t, bits)| (*t, Sample::Float(f64::from_bits(*bits))));
            let floats = floats.filter(|(_, s)| !matches!(s, Sample::Float(v) if telemetry_model::is_stale(*v)));
            bulk.add(&labels, floats).unwrap();
        }
        bulk.finish().unwrap();
        let mut text = Vec::new();
        export::openmetrics(&first, &all(), &mut text, &mut |_, _| {}).unwrap();
        let how = (Dialect::OpenMetrics, Rigour::Strict);
        import::text(&second, &mut text.as_slice(), how, i64::MIN, &mut |_| {}).unwrap();
        prop_assert_eq!(contents(&first), contents(&second));
        let mut again = Vec::new();
        export::openmetrics(&second, &all(), &mut again, &mut |_, _| {}).unwrap();
        prop_assert_eq!(String::from_utf8(text).unwrap(), String::from_utf8(again).unwrap());
    }

    #[test]
    fn any_bytes_are_imported_or_refused(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        for dialect in [Dialect::OpenMetrics, Dialect::Text] {
            for rigour in [Rigour::Strict, Rigour::LinesAlone] {
                let _ = import::text(&db, &mut text.as_slice(), (dialect, rigour), 0, &mut |_| {});
            }
        }
    }
}

#[test]
fn parquet_rows_are_what_the_store_has() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("store"));
    // More rows than one group holds.
    const LONG: i64 = (256 << 10) + 1000;
    let mut bulk = db.bulk();
    bulk.add(&[("__name__", "bare")], (0..3).map(|k| (k, Sample::Float(f64::NAN)))).unwrap();
    let long = (0..LONG).map(|k| (k * 1000, Sample::Float(telemetry_model::float(k.unsigned_abs()) / 3.0)));
    bulk.add(&[("__name__", "long"), ("a", "1"), ("b", "\u{e4}\"")], long).unwrap();
    let histogram =
        NativeHistogram { count: 2.0, positive: [(7, 2.0)].into_iter().collect(), ..Default::default() };
    let end = [(5, Sample::Histogram(Arc::new(histogram))), (6, Sample::Float(STALE_MARKER))];
    bulk.add(&[("__name__", "native"), ("a", "2")], end).unwrap();
    bulk.finish().unwrap();

    let path = dir.path().join("x.parquet");
    let done = parquet::export(&db, &all(), std::fs::File::create(&path).unwrap(), &mut |_, _| {}).unwrap();
    assert_eq!((done.series, done.samples), (3, LONG.unsigned_abs() + 4));
    let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    assert_eq!(reader.metadata().num_row_groups(), 2);
    let mut counts = [0i64; 3];
    for row in reader.get_row_iter(None).unwrap() {
        let row: Row = row.unwrap();
        let t = match row.get_column_iter().next().unwrap().1 {
            Field::TimestampMillis(t) => *t,
            other => panic!("{other:?}"),
        };
        let labels: Vec<String> =
            row.get_map(2).unwrap().entries().iter().map(|(name, value)| format!("{name}={value}")).collect();
        match row.get_string(1).unwrap().as_str() {
            "bare" => {
                assert!(row.get_double(3).unwrap().is_nan() && labels.is_empty());
                counts[0] += 1;
            }
            "long" => {
                assert_eq!(t, counts[1] * 1000);
                let expected = telemetry_model::float(counts[1].unsigned_abs()) / 3.0;
                assert_eq!(row.get_double(3).unwrap().to_bits(), expected.to_bits());
                assert_eq!(labels, ["\"a\"=\"1\"", "\"b\"=\"\u{e4}\"\""]);
                counts[1] += 1;
            }
            _ => {
                assert_eq!((t, labels.as_slice()), (5, &["\"a\"=\"2\"".to_owned()][..]));
                assert!(row.get_string(4).unwrap().contains("\"positive\":[[7,2.0]]"));
                counts[2] += 1;
            }
        }
    }
    assert_eq!(counts, [3, LONG, 1]);
}
