//! What lines mean together: families whole and once, groups whole, times in order, buckets that add up.
//!
//! Memory: a name a family and eight bytes a group of the family at hand, both limited.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::line::number;
use super::{Dialect, Kind, Line, Sample, SyntaxError, Time};

/// Names of families, suffixes included.
const NAMES_MAX: usize = 1 << 20;
/// Label sets of one family.
const GROUPS_MAX: usize = 4 << 20;

/// Checks lines in their order.
pub struct Checker {
    dialect: Dialect,
    names: HashSet<Box<str>>,
    family: Option<Family>,
    has_ended: bool,
}

/// The family at hand.
struct Family {
    name: String,
    kind: Option<Kind>,
    unit: Option<Box<str>>,
    has_help: bool,
    /// Begun by a sample of which nothing was said.
    is_bare: bool,
    groups: HashSet<u64>,
    /// Group and time of the last sample.
    last: Option<(u64, Option<Time>)>,
    histogram: Option<Buckets>,
}

/// The histogram at hand: one group at one time.
struct Buckets {
    of: (u64, Option<Time>),
    bound: Option<f64>,
    value: f64,
    count: Option<f64>,
    sum: Option<f64>,
    has_negative: bool,
}

// === impl Checker ===

impl Checker {
    /// Before the first line.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, names: HashSet::new(), family: None, has_ended: false }
    }

    /// The type of the family at hand.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.family.as_ref().and_then(|family| family.kind).unwrap_or_default()
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// If it may not stand there.
    pub fn line(&mut self, line: &Line<'_>) -> Result<(), SyntaxError> {
        if self.dialect == Dialect::Text {
            return self.text_line(line);
        }
        if self.has_ended {
            return Err(SyntaxError("text after # EOF"));
        }
        match line {
            Line::Sample(sample) => self.sample(sample),
            Line::Type(name, kind) => {
                let family = self.metadata(name)?;
                if family.kind.replace(*kind).is_some() {
                    return Err(SyntaxError("second TYPE of a family"));
                }
                Ok(())
            }
            Line::Unit(name, unit) => {
                let family = self.metadata(name)?;
                if family.unit.replace((*unit).into()).is_some() {
                    return Err(SyntaxError("second UNIT of a family"));
                }
                Ok(())
            }
            Line::Help(name, _) => {
                let family = self.metadata(name)?;
                if std::mem::replace(&mut family.has_help, true) {
                    return Err(SyntaxError("second HELP of a family"));
                }
                Ok(())
            }
            Line::Eof => {
                self.has_ended = true;
                self.end_family()
            }
            Line::Nothing => Ok(()),
        }
    }

    /// After the last line.
    ///
    /// # Errors
    /// If OpenMetrics lacks its end.
    pub fn finish(self) -> Result<(), SyntaxError> {
        if self.dialect == Dialect::OpenMetrics && !self.has_ended {
            return Err(SyntaxError("# EOF missing"));
        }
        Ok(())
    }

    /// Text 0.0.4 asks for one HELP and one TYPE a family, the latter before its samples.
    fn text_line(&mut self, line: &Line<'_>) -> Result<(), SyntaxError> {
        let name = match line {
            Line::Type(name, _) => {
                if self.names.len() >= NAMES_MAX {
                    return Err(SyntaxError("too many families"));
                }
                if !self.names.insert(name.as_ref().into()) {
                    return Err(SyntaxError("second TYPE of a family"));
                }
                name
            }
            Line::Sample(_) | Line::Help(..) | Line::Unit(..) | Line::Eof | Line::Nothing => return Ok(()),
        };
        let kind = if let Line::Type(_, kind) = line { Some(*kind) } else { None };
        self.family = Some(Family { kind, ..Family::new(name) });
        Ok(())
    }

    fn metadata(&mut self, name: &str) -> Result<&mut Family, SyntaxError> {
        let is_same = self.family.as_ref().is_some_and(|family| family.name == name);
        if is_same && self.family.as_ref().is_some_and(|family| family.last.is_some()) {
            return Err(SyntaxError("metadata after samples"));
        }
        if !is_same {
            self.end_family()?;
        }
        Ok(self.family.get_or_insert_with(|| Family::new(name)))
    }

    fn sample(&mut self, sample: &Sample<'_>) -> Result<(), SyntaxError> {
        let name = sample.get("__name__").unwrap_or("");
        let belongs = |family: &Family| {
            let suffix = name.strip_prefix(family.name.as_str());
            suffix.is_some_and(|suffix| family.kind.unwrap_or_default().suffixes().contains(&suffix))
        };
        if !self.family.as_ref().is_some_and(belongs) {
            self.end_family()?;
            self.family = Some(Family { is_bare: true, ..Family::new(name) });
        }
        match &mut self.family {
            Some(family) => family.sample(name, sample),
            None => Ok(()),
        }
    }

    /// Whole families have names that no other has.
    fn end_family(&mut self) -> Result<(), SyntaxError> {
        let Some(family) = self.family.take() else { return Ok(()) };
        if self.names.len() >= NAMES_MAX {
            return Err(SyntaxError("too many families"));
        }
        let suffixes = family.kind.unwrap_or_default().suffixes().iter().filter(|suffix| !suffix.is_empty());
        for suffix in suffixes.chain([&""]) {
            if !self.names.insert(format!("{}{suffix}", family.name).into()) {
                return Err(SyntaxError("a name that another family has, or a family in two parts"));
            }
        }
        family.end()
    }
}

// === impl Family ===

impl Family {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: None,
            unit: None,
            has_help: false,
            is_bare: false,
            groups: HashSet::new(),
            last: None,
            histogram: None,
        }
    }

    fn end(mut self) -> Result<(), SyntaxError> {
        debug_assert!(!self.is_bare || self.unit.is_none(), "nothing was said of it");
        if let Some(unit) = self.unit.as_deref().filter(|unit| !unit.is_empty()) {
            if !self.name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')) {
                return Err(SyntaxError("a family's name must end in its unit"));
            }
            if matches!(self.kind, Some(Kind::Info | Kind::StateSet)) {
                return Err(SyntaxError("no unit is allowed for this type"));
            }
        }
        self.histogram.take().map_or(Ok(()), |histogram| histogram.end(self.kind.unwrap_or_default()))
    }

    fn sample(&mut self, name: &str, sample: &Sample<'_>) -> Result<(), SyntaxError> {
        let kind = self.kind.unwrap_or_default();
        let suffix = name.get(self.name.len()..).unwrap_or("").to_owned();
        self.labels(kind, &suffix, sample)?;
        values(kind, &suffix, sample)?;
        let of = (self.group(kind, &suffix, sample), sample.t);
        self.order(kind, of)?;
        let may_have_exemplar = match kind {
            Kind::Histogram | Kind::GaugeHistogram => suffix == "_bucket",
            Kind::Counter => suffix == "_total",
            _ => false,
        };
        if sample.exemplar.is_some() && !may_have_exemplar {
            return Err(SyntaxError("no exemplar is allowed here"));
        }
        if matches!(kind, Kind::Histogram | Kind::GaugeHistogram) {
            self.histogram(kind, &suffix, sample, of)?;
        }
        Ok(())
    }

    /// The labels that a type asks for.
    fn labels(&self, kind: Kind, suffix: &str, sample: &Sample<'_>) -> Result<(), SyntaxError> {
        match kind {
            Kind::StateSet if sample.get(&self.name).is_none() => {
                Err(SyntaxError("a state set needs a label of its own name"))
            }
            Kind::Histogram | Kind::GaugeHistogram if suffix == "_bucket" => bound(sample).map(|_| ()),
            Kind::Summary if suffix.is_empty() => {
                let quantile = sample.get("quantile").ok_or(SyntaxError("quantile missing"))?;
                let quantile = number(quantile)?;
                if (0.0..=1.0).contains(&quantile) { Ok(()) } else { Err(SyntaxError("not a quantile")) }
            }
            _ => Ok(()),
        }
    }

    /// A hash of what tells metrics of the family apart.
    fn group(&self, kind: Kind, suffix: &str, sample: &Sample<'_>) -> u64 {
        let own = match kind {
            Kind::Histogram | Kind::GaugeHistogram if suffix == "_bucket" => "le",
            Kind::Summary if suffix.is_empty() => "quantile",
            Kind::StateSet => self.name.as_str(),
            _ => "",
        };
        let mut hasher = DefaultHasher::new();
        // Metrics of an info family cannot be told apart.
        for (name, value) in sample.labels.iter().filter(|_| kind != Kind::Info) {
            if name != "__name__" && name != own {
                (name, value).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// A group is whole; within it time does not run backwards, and is said always or never.
    fn order(&mut self, kind: Kind, of: (u64, Option<Time>)) -> Result<(), SyntaxError> {
        match self.last {
            Some((group, before)) if group == of.0 => {
                if before.is_some() != of.1.is_some() {
                    return Err(SyntaxError("samples of a group with and without a time"));
                }
                if before > of.1 && kind != Kind::Info {
                    return Err(SyntaxError("time runs backwards within a group"));
                }
            }
            _ => {
                if self.groups.len() >= GROUPS_MAX {
                    return Err(SyntaxError("too many label sets of one family"));
                }
                if !self.groups.insert(of.0) {
                    return Err(SyntaxError("a group of samples in two parts"));
                }
            }
        }
        self.last = Some(of);
        Ok(())
    }

    fn histogram(
        &mut self,
        kind: Kind,
        suffix: &str,
        sample: &Sample<'_>,
        of: (u64, Option<Time>),
    ) -> Result<(), SyntaxError> {
        if let Some(before) = self.histogram.take_if(|histogram| histogram.of != of) {
            before.end(kind)?;
        }
        let histogram = self.histogram.get_or_insert(Buckets {
            of,
            bound: None,
            value: 0.0,
            count: None,
            sum: None,
            has_negative: false,
        });
        match suffix {
            "_bucket" => histogram.bucket(bound(sample)?, sample.value),
            "_count" | "_gcount" => {
                histogram.count = Some(sample.value);
                Ok(())
            }
            "_sum" | "_gsum" => {
                histogram.sum = Some(sample.value);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The values that a type allows.
fn values(kind: Kind, suffix: &str, sample: &Sample<'_>) -> Result<(), SyntaxError> {
    let value = sample.value;
    let is_counted = matches!(suffix, "_total" | "_sum" | "_count" | "_bucket" | "_gcount");
    match kind {
        Kind::StateSet if value != 0.0 && value != 1.0 => Err(SyntaxError("a state is 0 or 1")),
        Kind::Info if value != 1.0 => Err(SyntaxError("an info is 1")),
        Kind::Summary if suffix.is_empty() && value < 0.0 => Err(SyntaxError("a quantile is not negative")),
        Kind::Unknown | Kind::Gauge => Ok(()),
        _ if value.is_nan() && (is_counted || suffix == "_gsum") => Err(SyntaxError("a count is not NaN")),
        _ if value < 0.0 && is_counted => Err(SyntaxError("a count is not negative")),
        _ if value.fract() != 0.0 && matches!(suffix, "_bucket" | "_count" | "_gcount") => {
            Err(SyntaxError("observations are whole"))
        }
        _ => Ok(()),
    }
}

/// The upper bound that a bucket's label says.
fn bound(sample: &Sample<'_>) -> Result<f64, SyntaxError> {
    let text = sample.get("le").ok_or(SyntaxError("le missing"))?;
    let bound = number(text)?;
    let is_canonical = bound != f64::INFINITY || text == "+Inf";
    if bound.is_nan() || !is_canonical { Err(SyntaxError("not a bound")) } else { Ok(bound) }
}

// === impl Buckets ===

impl Buckets {
    fn bucket(&mut self, bound: f64, value: f64) -> Result<(), SyntaxError> {
        // The same bound again is the same sample again: its time was finer than it is kept.
        if self.bound.is_some_and(|before| bound <= before) {
            return Err(SyntaxError("buckets out of order"));
        }
        if value < self.value {
            return Err(SyntaxError("a bucket holds less than the one below"));
        }
        self.has_negative |= bound < 0.0;
        (self.bound, self.value) = (Some(bound), value);
        Ok(())
    }

    fn end(self, kind: Kind) -> Result<(), SyntaxError> {
        let wrong = |what| Err(SyntaxError(what));
        if self.bound != Some(f64::INFINITY) {
            return wrong("bucket of +Inf missing");
        }
        if self.count.is_some_and(|count| count != self.value) {
            return wrong("count is not the bucket of +Inf");
        }
        if self.count.is_some() != self.sum.is_some() {
            return wrong("count without sum, or sum without count");
        }
        match (kind, self.sum) {
            (Kind::Histogram, Some(_)) if self.has_negative => wrong("sum beside negative buckets"),
            (Kind::GaugeHistogram, Some(sum)) if sum < 0.0 && !self.has_negative => {
                wrong("negative sum without negative buckets")
            }
            _ => Ok(()),
        }
    }
}

// === impl Sample ===

impl Sample<'_> {
    /// The value of a label.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}
