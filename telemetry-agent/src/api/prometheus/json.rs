//! Answers as JSON, figure for figure as Prometheus writes them.

use std::io::{Cursor, Result, Write};
use std::ops::Range;
use std::time::Duration;

use telemetry_model::NativeHistogram;
use telemetry_promql::labels::Labels;
use telemetry_promql::source::ExemplarSeries;
use telemetry_promql::text;
use telemetry_promql::value::{Bucket, Cell, Sample, Series, Stats, Value, buckets};

/// Whole numbers up to here are written as such: the shortest form is theirs, and it is the fastest to make.
const WHOLE_MAX: f64 = 1e15;
/// Other numbers of these sizes have no exponent, and their digits are made by the fastest way that is known.
const DECIMAL: Range<f64> = 1e-5..1e15;
/// Room for a sample of a range as text: a time of 20 digits and a value of 26.
const POINT_MAX: usize = 96;

/// How long the parts of a query took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Took {
    /// Until it could begin.
    pub(super) queue: Duration,
    /// Reading its text.
    pub(super) preparation: Duration,
    /// Evaluating it; series come in their order, so that sorting is part of it.
    pub(super) evaluation: Duration,
}

// === impl Took ===

impl Took {
    /// The start of the statistics: Prometheus' six figures, seconds.
    fn write(self, out: &mut dyn Write) -> Result<()> {
        let seconds = |length: Duration| length.as_secs_f64();
        let eval = self.preparation + self.evaluation;
        write!(
            out,
            ",\"stats\":{{\"timings\":{{\"evalTotalTime\":{},\"resultSortTime\":0,\"queryPreparationTime\":{},\
             \"innerEvalTime\":{},\"execQueueTime\":{},\"execTotalTime\":{}}},",
            seconds(eval),
            seconds(self.preparation),
            seconds(self.evaluation),
            seconds(self.queue),
            seconds(self.queue + eval)
        )
    }
}

/// A string.
pub(super) fn string(out: &mut dyn Write, text: &str) -> Result<()> {
    serde_json::to_writer(out, text).map_err(Into::into)
}

/// A list of strings.
pub(super) fn strings<S: AsRef<str>>(out: &mut dyn Write, texts: &[S]) -> Result<()> {
    list(out, texts, |out, text| string(out, text.as_ref()))
}

/// A list.
pub(super) fn list<T>(
    out: &mut dyn Write,
    items: &[T],
    each: impl Fn(&mut dyn Write, &T) -> Result<()>,
) -> Result<()> {
    out.write_all(b"[")?;
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        each(out, item)?;
    }
    out.write_all(b"]")
}

/// A sample's value: a string, for JSON knows neither NaN nor infinity.
pub(super) fn number<W: Write + ?Sized>(out: &mut W, value: f64) -> Result<()> {
    let size = value.abs();
    if size < WHOLE_MAX && value.fract() == 0.0 && (value != 0.0 || value.is_sign_positive()) {
        #[expect(clippy::cast_possible_truncation, reason = "a whole number below the bound")]
        let whole = value as i64;
        return quoted(out, itoa::Buffer::new().format(whole));
    }
    if DECIMAL.contains(&size) {
        return quoted(out, zmij::Buffer::new().format_finite(value));
    }
    if size.is_finite() && size != 0.0 && !(1e-6..1e21).contains(&size) || !size.is_finite() {
        return quoted(out, &text::general(value));
    }
    write!(out, "\"{value}\"")
}

/// A text of which no character needs an escape.
fn quoted<W: Write + ?Sized>(out: &mut W, text: &str) -> Result<()> {
    out.write_all(b"\"")?;
    out.write_all(text.as_bytes())?;
    out.write_all(b"\"")
}

/// Milliseconds as seconds, with decimals only where there are any.
pub(super) fn time<W: Write + ?Sized>(out: &mut W, millis: i64) -> Result<()> {
    let sign = if millis < 0 { "-" } else { "" };
    let size = millis.unsigned_abs();
    let (seconds, fraction) = (size / 1000, size % 1000);
    out.write_all(sign.as_bytes())?;
    out.write_all(itoa::Buffer::new().format(seconds).as_bytes())?;
    if fraction == 0 { Ok(()) } else { write!(out, ".{fraction:03}") }
}

/// A label set.
pub(super) fn labels(out: &mut dyn Write, labels: &Labels) -> Result<()> {
    out.write_all(b"{")?;
    for (at, (name, value)) in labels.iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        string(out, name)?;
        out.write_all(b":")?;
        string(out, value)?;
    }
    out.write_all(b"}")
}

/// What a query answers.
pub(super) fn query(out: &mut dyn Write, value: &Value, stats: Option<(&Stats, Took)>) -> Result<()> {
    write!(out, "{{\"resultType\":\"{}\",\"result\":", value.type_name())?;
    match value {
        Value::Scalar { t, value } => point(out, *t, |out| number(out, *value))?,
        Value::String { t, value } => point(out, *t, |out| string(out, value))?,
        Value::Vector(samples) => list(out, samples, sample)?,
        Value::Matrix(all) => list(out, all, series)?,
    }
    if let Some((stats, took)) = stats {
        took.write(out)?;
        write!(
            out,
            "\"samples\":{{\"totalQueryableSamples\":{},\"samplesRead\":{},\"peakSamples\":{}}}}}",
            stats.samples_total, stats.samples_read, stats.samples_peak
        )?;
    }
    out.write_all(b"}")
}

fn point(out: &mut dyn Write, t: i64, value: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    out.write_all(b"[")?;
    time(out, t)?;
    out.write_all(b",")?;
    value(out)?;
    out.write_all(b"]")
}

/// A number of a range, of which an answer may have a million: in one piece.
fn float_point(out: &mut dyn Write, t: i64, value: f64) -> Result<()> {
    let mut room = [0; POINT_MAX];
    let mut text = Cursor::new(room.as_mut_slice());
    text.write_all(b"[")?;
    time(&mut text, t)?;
    text.write_all(b",")?;
    number(&mut text, value)?;
    text.write_all(b"]")?;
    let used = usize::try_from(text.position()).unwrap_or(POINT_MAX);
    out.write_all(room.get(..used).unwrap_or_default())
}

fn sample(out: &mut dyn Write, sample: &Sample) -> Result<()> {
    out.write_all(b"{\"metric\":")?;
    labels(out, &sample.labels)?;
    match &sample.cell {
        Cell::Float(value) => {
            out.write_all(b",\"value\":")?;
            point(out, sample.t, |out| number(out, *value))?;
        }
        Cell::Histogram(value) => {
            out.write_all(b",\"histogram\":")?;
            point(out, sample.t, |out| histogram(out, value))?;
        }
    }
    out.write_all(b"}")
}

fn series(out: &mut dyn Write, series: &Series) -> Result<()> {
    out.write_all(b"{\"metric\":")?;
    labels(out, &series.labels)?;
    if !series.floats.is_empty() {
        out.write_all(b",\"values\":")?;
        list(out, &series.floats, |out, (t, value)| float_point(out, *t, *value))?;
    }
    if !series.histograms.is_empty() {
        out.write_all(b",\"histograms\":")?;
        list(out, &series.histograms, |out, (t, value)| point(out, *t, |out| histogram(out, value)))?;
    }
    out.write_all(b"}")
}

/// A native histogram: buckets that are not empty, each with a rule that says which bounds belong to it.
fn histogram(out: &mut dyn Write, histogram: &NativeHistogram) -> Result<()> {
    out.write_all(b"{\"count\":")?;
    number(out, histogram.count)?;
    out.write_all(b",\"sum\":")?;
    number(out, histogram.sum)?;
    let filled: Vec<Bucket> = buckets(histogram).into_iter().filter(|bucket| bucket.count != 0.0).collect();
    if !filled.is_empty() {
        out.write_all(b",\"buckets\":")?;
        list(out, &filled, |out, bucket| {
            let rule = match (bucket.has_lower, bucket.has_upper) {
                (false, true) => 0,
                (true, false) => 1,
                (false, false) => 2,
                (true, true) => 3,
            };
            write!(out, "[{rule},")?;
            number(out, bucket.lower)?;
            out.write_all(b",")?;
            number(out, bucket.upper)?;
            out.write_all(b",")?;
            number(out, bucket.count)?;
            out.write_all(b"]")
        })?;
    }
    out.write_all(b"}")
}

/// Exemplars of one series.
pub(super) fn exemplars(out: &mut dyn Write, series: &ExemplarSeries) -> Result<()> {
    out.write_all(b"{\"seriesLabels\":")?;
    labels(out, &series.labels)?;
    out.write_all(b",\"exemplars\":")?;
    list(out, &series.exemplars, |out, exemplar| {
        out.write_all(b"{\"labels\":")?;
        labels(out, &exemplar.labels)?;
        out.write_all(b",\"value\":")?;
        number(out, exemplar.value)?;
        out.write_all(b",\"timestamp\":")?;
        time(out, exemplar.t)?;
        out.write_all(b"}")
    })?;
    out.write_all(b"}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use telemetry_model::Buckets;

    use super::*;

    fn written(write: impl FnOnce(&mut dyn Write) -> Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_as_prometheus_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-3.5, "-3.5"),
            (1e6, "1000000"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-2.5e300, "-2.5e+300"),
            (1e-6, "0.000001"),
            (9.99e-7, "9.99e-07"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (0.1 + 0.2, "0.30000000000000004"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            // Half-way between two that are as short: to the even one, as Go does.
            (18_761_681_294_571.0 + 1.0 / 16.0, "18761681294571.062"),
            (-18_761_681_294_571.0 - 3.0 / 16.0, "-18761681294571.188"),
            (1_876_168_129_457.0 + 1.0 / 32.0, "1876168129457.0312"),
        ] {
            assert_eq!(written(|out| number(out, value)), format!("\"{text}\""));
        }
    }

    #[test]
    fn times_have_decimals_only_where_there_are_any() {
        for (millis, text) in [
            (0, "0"),
            (1_435_781_430_781, "1435781430.781"),
            (5_000, "5"),
            (5_060, "5.060"),
            (-1_500, "-1.500"),
        ] {
            assert_eq!(written(|out| time(out, millis)), text);
        }
    }

    #[test]
    fn a_histogram_names_its_filled_buckets_and_their_bounds() {
        let histogram_value = NativeHistogram {
            schema: 0,
            zero_threshold: 0.001,
            zero_count: 2.0,
            count: 9.0,
            sum: 30.5,
            positive: Buckets { indexes: vec![0, 1, 3], counts: vec![2.0, 0.0, 4.0] },
            negative: Buckets { indexes: vec![1], counts: vec![1.0] },
            ..NativeHistogram::default()
        };
        let value = Value::Matrix(vec![Series {
            labels: Labels::from_texts([("__name__", "h"), ("q", "\"\n")]),
            floats: vec![(1_000, 1.0)],
            histograms: vec![(2_000, Arc::new(histogram_value))],
        }]);
        assert_eq!(
            written(|out| query(out, &value, None)),
            r#"{"resultType":"matrix","result":[{"metric":{"__name__":"h","q":"\"\n"},"values":[[1,"1"]],"histograms":[[2,{"count":"9","sum":"30.5","buckets":[[1,"-2","-1","1"],[3,"-0.001","0.001","2"],[0,"0.5","1","2"],[0,"4","8","4"]]}]]}]}"#
        );
    }

    proptest! {
        #[test]
        fn digits_are_the_shortest(bits in any::<u64>(), exponent in 1_000u64..1_080) {
            let value = f64::from_bits(bits & !(0x7FF << 52) | exponent << 52);
            let text = written(|out| number(out, value));
            if DECIMAL.contains(&value.abs()) {
                // Of two that are as short and as near, the library takes the even one, as Go does, and Rust the larger.
                let rust = format!("\"{value}\"");
                prop_assert_eq!(text.len(), rust.len(), "{} for {}", text, rust);
                prop_assert!(!text.contains('e'), "{}", text);
                prop_assert_eq!(text.trim_matches('"').parse(), Ok(value));
            }
        }

        #[test]
        fn every_number_reads_back_exactly(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            let text = written(|out| number(out, value));
            let back: f64 = text.trim_matches('"').parse().unwrap();
            prop_assert!(back.to_bits() == bits || value.is_nan() && back.is_nan(), "{text}");
        }
    }
}
