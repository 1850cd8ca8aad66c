//! Remote write 1.0 and 2.0: from a request's bytes to series, one at a time.

use std::sync::Arc;

use telemetry_model::native::{Buckets, CUSTOM_SCHEMA, NativeHistogram, ResetHint, SCHEMA_MAX, SCHEMA_MIN};

use super::super::wire::{Fields, Malformed, Value, zigzag};
use super::known::{Hashes, Key};

/// Buckets of one histogram at most; a schema of 8 over the usual range of seconds has 10,000.
const BUCKETS_MAX: usize = 65_536;

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// `prometheus.WriteRequest`.
    One,
    /// `io.prometheus.write.v2.Request`.
    Two,
}

/// What of a push belongs to one series. Kept from one to the next, so that its lists grow once.
#[derive(Debug, Default)]
pub(super) struct Pushed<'a> {
    pub(super) labels: Vec<(&'a str, &'a str)>,
    pub(super) floats: Vec<(i64, f64)>,
    pub(super) histograms: Vec<(i64, Arc<NativeHistogram>)>,
    pub(super) exemplars: Vec<Exemplar<'a>>,
    /// What its family is; version 2 says it with every series.
    pub(super) metadata: Option<Described<'a>>,
}

/// A family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Described<'a> {
    pub(super) family: &'a str,
    pub(super) kind: &'static str,
    pub(super) help: &'a str,
    pub(super) unit: &'a str,
}

/// A sample that is remembered for its trace.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Exemplar<'a> {
    pub(super) labels: Vec<(&'a str, &'a str)>,
    pub(super) value: f64,
    pub(super) t: i64,
}

/// The parts of a push.
#[derive(Debug, Default)]
pub(super) struct Push<'a> {
    version: Option<Version>,
    symbols: Vec<&'a str>,
    /// Of each symbol.
    hashes: Vec<Key>,
    series: Vec<Fields<'a>>,
    /// Version 1 tells of families apart from series.
    pub(super) described: Vec<Described<'a>>,
}

// === impl Push ===

impl<'a> Push<'a> {
    /// Takes a request apart.
    pub(super) fn read(version: Version, bytes: &'a [u8], hashes: &Hashes) -> Result<Self, Malformed> {
        let mut push = Self { version: Some(version), ..Self::default() };
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.field()? {
            match (version, number) {
                (Version::One, 1) | (Version::Two, 5) => push.series.push(value.message()?),
                (Version::One, 3) => push.described.push(described(value.message()?)?),
                (Version::Two, 4) => {
                    let symbol = value.text()?;
                    push.hashes.push(hashes.of(symbol.as_bytes()));
                    push.symbols.push(symbol);
                }
                _ => {}
            }
        }
        if version == Version::Two && push.symbols.first().is_some_and(|first| !first.is_empty()) {
            return Err(Malformed("the first symbol is not empty"));
        }
        Ok(push)
    }

    /// How many series it has.
    pub(super) fn len(&self) -> usize {
        self.series.len()
    }

    /// What its labels, and in version 2 its family's description too, are known by; the same in every request. None if
    /// they do not stand together.
    pub(super) fn key(&self, at: usize, hashes: &Hashes) -> Result<Option<Key>, Malformed> {
        let Some(mut fields) = self.series.get(at).copied() else { return Ok(None) };
        let whole = fields.0;
        if self.version == Some(Version::One) {
            loop {
                let behind = fields.0.len();
                match fields.field()? {
                    Some((1, _)) => {}
                    other => {
                        let end = if other.is_some() { whole.len() - behind } else { whole.len() };
                        // Labels behind samples are none that a sender writes.
                        while let Some((number, _)) = fields.field()? {
                            if number == 1 {
                                return Ok(None);
                            }
                        }
                        return Ok(Some(hashes.of(whole.get(..end).unwrap_or_default())));
                    }
                }
            }
        }
        let mut parts = Vec::with_capacity(24);
        let mut add = |symbol: u64| match self.hashes.get(usize::try_from(symbol).unwrap_or(usize::MAX)) {
            Some(hash) => parts.push(*hash),
            // Reading the labels will say so.
            None => parts.push(Key::default()),
        };
        while let Some((number, value)) = fields.field()? {
            match number {
                1 => value.varints(&mut add)?,
                5 => {
                    let mut fields = value.message()?;
                    while let Some((number, value)) = fields.field()? {
                        match number {
                            3 | 4 => add(value.varint()?),
                            _ => add(u64::MAX),
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(Some(hashes.of_keys(&parts)))
    }

    /// Reads the samples of one of its series.
    pub(super) fn samples(&self, at: usize, out: &mut Pushed<'a>) -> Result<(), Malformed> {
        let Pushed { floats, histograms, exemplars, .. } = out;
        floats.clear();
        histograms.clear();
        exemplars.clear();
        let Some(mut fields) = self.series.get(at).copied() else { return Ok(()) };
        let is_two = self.version == Some(Version::Two);
        while let Some((number, value)) = fields.field()? {
            match (is_two, number) {
                (_, 2) => floats.push(float(value.message()?)?),
                (false, 4) | (true, 3) => histograms.push(histogram(value.message()?)?),
                (false, 3) | (true, 4) => exemplars.push(self.exemplar(value.message()?, is_two)?),
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads the labels of one of its series, and in version 2 what its family is.
    pub(super) fn labels(&self, at: usize, out: &mut Pushed<'a>) -> Result<(), Malformed> {
        let Pushed { labels, metadata, .. } = out;
        labels.clear();
        *metadata = None;
        let Some(mut fields) = self.series.get(at).copied() else { return Ok(()) };
        let is_two = self.version == Some(Version::Two);
        while let Some((number, value)) = fields.field()? {
            match (is_two, number) {
                (false, 1) => labels.push(pair(value.message()?)?),
                (true, 1) => self.pairs(value, labels)?,
                (true, 5) => *metadata = Some(self.metadata(value.message()?)?),
                _ => {}
            }
        }
        if !labels.is_sorted_by(|a, b| a.0 <= b.0) {
            labels.sort_unstable();
        }
        if let (Some(metadata), Some((_, name))) =
            (metadata, labels.iter().find(|(name, _)| *name == "__name__"))
        {
            metadata.family = name;
        }
        Ok(())
    }

    fn pairs(&self, value: Value<'a>, out: &mut Vec<(&'a str, &'a str)>) -> Result<(), Malformed> {
        let mut name = None;
        let mut result = Ok(());
        value.varints(|at| match (self.symbol(at), name.take()) {
            (Ok(symbol), None) => name = Some(symbol),
            (Ok(symbol), Some(name)) => out.push((name, symbol)),
            (Err(error), _) => result = Err(error),
        })?;
        result?;
        if name.is_some() { Err(Malformed("a label has no value")) } else { Ok(()) }
    }

    fn symbol(&self, at: u64) -> Result<&'a str, Malformed> {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        self.symbols.get(at).copied().ok_or(Malformed("a symbol is not in the table"))
    }

    fn exemplar(&self, mut fields: Fields<'a>, is_two: bool) -> Result<Exemplar<'a>, Malformed> {
        let mut exemplar = Exemplar::default();
        while let Some((number, value)) = fields.field()? {
            match (number, is_two) {
                (1, false) => exemplar.labels.push(pair(value.message()?)?),
                (1, true) => self.pairs(value, &mut exemplar.labels)?,
                (2, _) => exemplar.value = value.double()?,
                (3, _) => exemplar.t = value.int()?,
                _ => {}
            }
        }
        Ok(exemplar)
    }

    fn metadata(&self, mut fields: Fields<'a>) -> Result<Described<'a>, Malformed> {
        let mut metadata = Described::default();
        while let Some((number, value)) = fields.field()? {
            match number {
                1 => metadata.kind = kind(value.varint()?),
                3 => metadata.help = self.symbol(value.varint()?)?,
                4 => metadata.unit = self.symbol(value.varint()?)?,
                _ => {}
            }
        }
        Ok(metadata)
    }
}

fn pair(mut fields: Fields<'_>) -> Result<(&str, &str), Malformed> {
    let (mut name, mut text) = ("", "");
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => name = value.text()?,
            2 => text = value.text()?,
            _ => {}
        }
    }
    Ok((name, text))
}

fn float(mut fields: Fields<'_>) -> Result<(i64, f64), Malformed> {
    let (mut t, mut number) = (0, 0.0);
    while let Some((field, value)) = fields.field()? {
        match field {
            1 => number = value.double()?,
            2 => t = value.int()?,
            _ => {}
        }
    }
    Ok((t, number))
}

fn described(mut fields: Fields<'_>) -> Result<Described<'_>, Malformed> {
    let mut described = Described::default();
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => described.kind = kind(value.varint()?),
            2 => described.family = value.text()?,
            4 => described.help = value.text()?,
            5 => described.unit = value.text()?,
            _ => {}
        }
    }
    Ok(described)
}

fn kind(code: u64) -> &'static str {
    match code {
        1 => "counter",
        2 => "gauge",
        3 => "histogram",
        4 => "gaugehistogram",
        5 => "summary",
        6 => "info",
        7 => "stateset",
        _ => "unknown",
    }
}

/// Buckets as they are sent: runs of indexes, and counts either as differences of whole numbers or as they are.
#[derive(Default)]
struct Runs {
    /// Gap before a run, and its length.
    spans: Vec<(i64, u64)>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

fn histogram(mut fields: Fields<'_>) -> Result<(i64, Arc<NativeHistogram>), Malformed> {
    let mut made = NativeHistogram::default();
    let (mut positive, mut negative) = (Runs::default(), Runs::default());
    let (mut t, mut schema, mut bounds) = (0, 0, Vec::new());
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => made.count = telemetry_model::float(value.varint()?),
            2 => made.count = value.double()?,
            3 => made.sum = value.double()?,
            4 => schema = value.sint()?,
            5 => made.zero_threshold = value.double()?,
            6 => made.zero_count = telemetry_model::float(value.varint()?),
            7 => made.zero_count = value.double()?,
            8 => negative.spans.push(span(value.message()?)?),
            9 => value.varints(|code| negative.deltas.push(zigzag(code)))?,
            10 => value.doubles(&mut negative.counts)?,
            11 => positive.spans.push(span(value.message()?)?),
            12 => value.varints(|code| positive.deltas.push(zigzag(code)))?,
            13 => value.doubles(&mut positive.counts)?,
            14 => {
                made.reset = match value.varint()? {
                    1 => ResetHint::Reset,
                    2 => ResetHint::NotReset,
                    3 => ResetHint::Gauge,
                    _ => ResetHint::Unknown,
                }
            }
            15 => t = value.int()?,
            16 => value.doubles(&mut bounds)?,
            _ => {}
        }
    }
    made.schema = i8::try_from(schema).map_err(|_| Malformed("unknown histogram schema"))?;
    match made.schema {
        SCHEMA_MIN..=SCHEMA_MAX => {}
        CUSTOM_SCHEMA => made.custom_bounds = Some(bounds.into()),
        _ => return Err(Malformed("unknown histogram schema")),
    }
    made.positive = positive.buckets()?;
    made.negative = negative.buckets()?;
    validate(&made)?;
    Ok((t, Arc::new(made)))
}

fn span(mut fields: Fields<'_>) -> Result<(i64, u64), Malformed> {
    let (mut offset, mut length) = (0, 0);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => offset = value.sint()?,
            2 => length = value.varint()?,
            _ => {}
        }
    }
    Ok((offset, length))
}

/// What no histogram can be.
fn validate(made: &NativeHistogram) -> Result<(), Malformed> {
    let counts = made.positive.counts.iter().chain(&made.negative.counts);
    if counts.chain([&made.count, &made.zero_count]).any(|count| *count < 0.0) {
        return Err(Malformed("histogram has a negative count"));
    }
    let Some(bounds) = made.custom_bounds.as_deref() else { return Ok(()) };
    if !bounds.is_sorted_by(|a, b| a < b) || bounds.iter().any(|bound| !bound.is_finite()) {
        return Err(Malformed("histogram's custom bounds do not grow"));
    }
    let last = made.positive.indexes.last().copied().unwrap_or(0);
    if usize::try_from(last).is_ok_and(|last| last > bounds.len()) {
        return Err(Malformed("histogram has more buckets than custom bounds"));
    }
    if made.zero_count != 0.0 || made.zero_threshold != 0.0 || !made.negative.is_empty() {
        return Err(Malformed("a histogram with custom bounds has a zero bucket or negative buckets"));
    }
    Ok(())
}

// === impl Runs ===

impl Runs {
    fn buckets(self) -> Result<Buckets, Malformed> {
        let counts = if self.counts.is_empty() {
            let mut count = 0i64;
            let absolute = self.deltas.iter().map(|delta| {
                count = count.checked_add(*delta)?;
                u64::try_from(count).ok().map(telemetry_model::float)
            });
            absolute.collect::<Option<Vec<f64>>>().ok_or(Malformed("histogram has a negative count"))?
        } else {
            self.counts
        };
        if counts.len() > BUCKETS_MAX {
            return Err(Malformed("histogram has too many buckets"));
        }
        let mut indexes = Vec::with_capacity(counts.len());
        let mut next = 0i64;
        for (at, (offset, length)) in self.spans.into_iter().enumerate() {
            if at > 0 && offset < 0 {
                return Err(Malformed("histogram has overlapping spans"));
            }
            next = next.checked_add(offset).ok_or(Malformed("histogram's index is out of range"))?;
            if length > (counts.len() - indexes.len()) as u64 {
                return Err(Malformed("histogram has fewer buckets than its spans say"));
            }
            for _ in 0..length {
                indexes
                    .push(i32::try_from(next).map_err(|_| Malformed("histogram's index is out of range"))?);
                next += 1;
            }
        }
        if indexes.len() != counts.len() {
            return Err(Malformed("histogram has more buckets than its spans say"));
        }
        Ok(Buckets { indexes, counts })
    }
}
