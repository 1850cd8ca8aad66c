//! Text and blocks into a store, as history. What is there already stays: the same file twice changes nothing.

use std::collections::BTreeMap;
use std::io::{BufRead, Read as _};

use telemetry_model::{MatchOp, Matcher};
use telemetry_tsdb::db::{BUCKET_MS, Bulk, Db, Exemplar, Imported, Metadata};
use telemetry_tsdb::head::Sample;

use super::TransferError;
use super::openmetrics::check::Checker;
use super::openmetrics::line::parse_line;
use super::openmetrics::{self, Dialect, Kind, LINE_BYTES_MAX, Line};
use super::prometheus::{Block, BlockError, Damaged, find};

/// Exemplars held until the samples are in: as many as the store keeps.
const EXEMPLARS_MAX: usize = 16_384;
/// Families whose metadata is taken.
const FAMILIES_MAX: usize = 100_000;
/// Samples of a block that are read between two writes of files.
const SAMPLES_A_PASS: u64 = 2 << 20;
/// Damaged chunks that are named; the others are counted.
const DAMAGED_MAX: usize = 20;

/// How strictly a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rigour {
    /// What the format forbids is an error.
    Strict,
    /// Each line must be one of the format; what lines say together is not asked.
    LinesAlone,
}

/// What was taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// What became of samples.
    pub samples: Imported,
    /// Samples without a time: nobody can say when they were.
    pub untimed: u64,
    /// Samples of times that no store has.
    pub impossible_times: u64,
    /// Exemplars taken.
    pub exemplars: u64,
    /// Families whose metadata was taken.
    pub families: u64,
    /// Chunks of blocks that could not be read.
    pub damaged_chunks: u64,
    /// The first of them.
    pub damaged: Vec<Damaged>,
    /// Blocks read.
    pub blocks: u64,
}

/// Takes text into the store. Each sample must have a time. Samples before `horizon` are counted: retention takes
/// them.
///
/// # Errors
/// At the first line that is not of the format, or if the disk refuses; what was read before is in the store.
pub fn text(
    db: &Db,
    input: &mut dyn BufRead,
    (dialect, rigour): (Dialect, Rigour),
    horizon: i64,
    progress: &mut dyn FnMut(u64),
) -> Result<Taken, TransferError> {
    let mut bulk = db.bulk();
    bulk.count_older_than(horizon);
    let mut state = Text {
        bulk,
        dialect,
        checker: Checker::new(dialect),
        taken: Taken::default(),
        families: BTreeMap::new(),
        exemplars: Vec::new(),
    };
    let mut number = 0;
    let result = state.read(input, rigour, &mut number, progress);
    // What was read before a wrong line is whole samples: they are kept, and a second import passes them over.
    let finished = state.finish(db);
    match (result, finished) {
        (Err(error), _) | (Ok(()), Err(error)) => Err(error),
        (Ok(()), Ok(taken)) => Ok(taken),
    }
}

struct Text<'a> {
    bulk: Bulk<'a>,
    dialect: Dialect,
    checker: Checker,
    taken: Taken,
    families: BTreeMap<String, (Kind, Metadata)>,
    exemplars: Vec<(Vec<Matcher>, Exemplar)>,
}

// === impl Text ===

impl Text<'_> {
    fn read(
        &mut self,
        input: &mut dyn BufRead,
        rigour: Rigour,
        number: &mut u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), TransferError> {
        let (mut bytes, mut total) = (Vec::new(), 0);
        let wrong = |line, reason: &str| TransferError::Line { line, reason: reason.to_owned() };
        loop {
            bytes.clear();
            let limit = u64::try_from(LINE_BYTES_MAX + 2).unwrap_or(u64::MAX);
            let read = input.take(limit).read_until(b'\n', &mut bytes).map_err(TransferError::Read)?;
            if read == 0 {
                break;
            }
            *number += 1;
            total += read as u64;
            let line = std::str::from_utf8(&bytes).map_err(|_| wrong(*number, "not UTF-8"))?;
            let line = line.strip_suffix('\n').unwrap_or(line);
            let parsed = parse_line(line, self.dialect).map_err(|e| wrong(*number, e.0))?;
            if rigour == Rigour::Strict {
                self.checker.line(&parsed).map_err(|e| wrong(*number, e.0))?;
            }
            self.take(parsed)?;
            if number.is_multiple_of(4096) {
                progress(total);
            }
        }
        if rigour == Rigour::Strict {
            let checker = std::mem::replace(&mut self.checker, Checker::new(self.dialect));
            checker.finish().map_err(|e| wrong(*number + 1, e.0))?;
        }
        Ok(())
    }

    fn take(&mut self, line: Line<'_>) -> Result<(), TransferError> {
        match line {
            Line::Sample(sample) => return self.sample(&sample),
            Line::Type(family, kind) => {
                self.family(&family, |known| (known.0, known.1.kind) = (kind, kind.word().into()));
            }
            Line::Unit(family, unit) => self.family(&family, |known| known.1.unit = unit.into()),
            Line::Help(family, help) => self.family(&family, |known| known.1.help = help.as_ref().into()),
            Line::Eof | Line::Nothing => {}
        }
        Ok(())
    }

    fn family(&mut self, family: &str, change: impl FnOnce(&mut (Kind, Metadata))) {
        if self.families.len() < FAMILIES_MAX || self.families.contains_key(family) {
            change(self.families.entry(family.to_owned()).or_default());
        }
    }

    fn sample(&mut self, sample: &openmetrics::Sample<'_>) -> Result<(), TransferError> {
        let Some(t) = sample.t else {
            self.taken.untimed += 1;
            return Ok(());
        };
        let Some(t) = t.millis() else {
            self.taken.impossible_times += 1;
            return Ok(());
        };
        // A label without value is no label.
        let labels: Vec<(&str, &str)> =
            sample.labels.iter().map(|(n, v)| (&**n, &**v)).filter(|(_, v)| !v.is_empty()).collect();
        self.bulk.add(&labels, [(t, Sample::Float(sample.value))])?;
        let Some(exemplar) = &sample.exemplar else { return Ok(()) };
        if self.exemplars.len() < EXEMPLARS_MAX {
            let matchers =
                labels.iter().map(|(name, value)| Matcher::new(*name, MatchOp::Equal, *value)).collect();
            let pairs = exemplar.labels.iter().map(|(n, v)| (n.as_ref().into(), v.as_ref().into())).collect();
            let at = exemplar.t.and_then(openmetrics::Time::millis).unwrap_or(t);
            self.exemplars
                .push((matchers, Exemplar { series: 0, t: at, value: exemplar.value, labels: pairs }));
        }
        Ok(())
    }

    fn finish(self, db: &Db) -> Result<Taken, TransferError> {
        let Self { bulk, dialect, mut taken, families, exemplars, .. } = self;
        taken.samples = bulk.finish()?;
        for (matchers, mut exemplar) in exemplars {
            let selection = db.select(&matchers, i64::MIN, i64::MAX)?;
            // Matchers say nothing of labels that they do not name.
            let series = selection.series().iter().find(|series| series.labels().len() == matchers.len());
            let Some(series) = series else { continue };
            let is_known =
                series.ids().iter().any(|id| !db.exemplars(*id, exemplar.t, exemplar.t).is_empty());
            exemplar.series = series.ids().first().copied().unwrap_or(0);
            taken.exemplars += u64::from(!is_known && db.add_exemplar(exemplar));
        }
        for (family, (kind, metadata)) in families {
            let suffix = match kind {
                Kind::Counter if dialect == Dialect::OpenMetrics => "_total",
                Kind::Info => "_info",
                _ => "",
            };
            db.set_metadata(&format!("{family}{suffix}"), metadata);
            taken.families += 1;
        }
        db.commit()?;
        Ok(taken)
    }
}

/// Takes a block of Prometheus, or all blocks of a directory, into the store. `progress` hears samples done and to
/// do. Samples before `horizon` are counted: retention takes them.
///
/// # Errors
/// If an index is damaged, or the disk refuses; what was read before is in the store.
pub fn prometheus(
    db: &Db,
    path: &std::path::Path,
    horizon: i64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Taken, TransferError> {
    let blocks = find(path)?.iter().map(|dir| Block::open(dir)).collect::<Result<Vec<_>, BlockError>>()?;
    let total = blocks.iter().map(Block::samples).fold(0u64, u64::saturating_add);
    let mut taken = Taken::default();
    let mut bulk = db.bulk();
    bulk.count_older_than(horizon);
    let mut done = 0u64;
    for block in &blocks {
        for slice in slices(block) {
            let damaged = |found: Damaged| {
                taken.damaged_chunks += 1;
                if taken.damaged.len() < DAMAGED_MAX {
                    taken.damaged.push(found);
                }
            };
            block.read(slice, damaged, |labels, samples| {
                done += samples.len() as u64;
                bulk.add(labels, samples.drain(..))?;
                progress(done, total);
                Ok::<(), TransferError>(())
            })?;
            bulk.flush()?;
        }
        taken.blocks += 1;
    }
    taken.samples = bulk.finish()?;
    db.commit()?;
    Ok(taken)
}

/// The time of a block in parts that fit into memory; borders are those of the store's own files.
fn slices(block: &Block) -> Vec<(i64, i64)> {
    let (from, end) = block.range();
    let last = end.saturating_sub(1).max(from);
    let (first, after) = (from.div_euclid(BUCKET_MS), last.div_euclid(BUCKET_MS).saturating_add(1));
    let buckets = after.saturating_sub(first).max(1);
    let passes =
        i64::try_from(block.samples().div_ceil(SAMPLES_A_PASS)).unwrap_or(i64::MAX).clamp(1, buckets);
    let step = buckets.div_euclid(passes).max(1);
    let mut slices = Vec::new();
    let mut at = first;
    while at < after && slices.len() < usize::from(u16::MAX) {
        let next = at.saturating_add(step);
        let low = at.saturating_mul(BUCKET_MS).max(from);
        let high = next.saturating_mul(BUCKET_MS).saturating_sub(1).min(last);
        slices.push((low, high));
        at = next;
    }
    slices
}
