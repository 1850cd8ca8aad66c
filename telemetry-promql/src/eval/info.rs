//! `info`: labels of info series (`target_info` and its kind) added to the series that they identify.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use telemetry_model::{MatchOp, Matcher};

use super::Evaluator;
use super::frame::{Column, Frame, Grid, Twins, assemble};
use super::select::{Weigh, Worker};
use super::window::Look;
use crate::error::QueryError;
use crate::labels::{Labels, NAME};
use crate::pattern::{self, Pattern};
use crate::plan::{InfoNode, Selector};
use crate::source;

/// The info series that is looked for if none is named.
const TARGET_INFO: &str = "target_info";
/// Labels by which info series know their series.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// An info series: at each step, when the sample that is looked at was taken.
struct InfoSeries {
    labels: Labels,
    taken: Vec<Option<i64>>,
}

/// Matchers, compiled.
struct Compiled {
    matcher: Matcher,
    regex: Option<Pattern>,
}

/// One call.
struct Join {
    infos: Vec<InfoSeries>,
    /// Matchers of labels that are wanted; the metric's name is not among them.
    data: Vec<Compiled>,
}

// === impl InfoSeries ===

impl Weigh for InfoSeries {
    fn weight(&self) -> usize {
        size_of::<Self>() + size_of_val(self.taken.as_slice())
    }
}

// === impl Compiled ===

impl Compiled {
    fn new(matcher: &Matcher) -> Result<Self, QueryError> {
        let regex = match matcher.op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => {
                Some(pattern::compile(&matcher.value).map_err(QueryError::bad_data)?)
            }
        };
        Ok(Self { matcher: matcher.clone(), regex })
    }

    fn matches(&self, value: &str) -> bool {
        let found = self.regex.as_ref().is_some_and(|regex| regex.is_match(value));
        match self.matcher.op {
            MatchOp::Equal => value == self.matcher.value,
            MatchOp::NotEqual => value != self.matcher.value,
            MatchOp::Regex => found,
            MatchOp::NotRegex => !found,
        }
    }
}

/// The conditions on the names of info series: with no positive one, that they end in `_info`.
fn name_matchers(given: Option<&[Matcher]>) -> Vec<Matcher> {
    let named = given.unwrap_or(&[]).iter().filter(|matcher| matcher.name == NAME).cloned();
    let mut named: Vec<Matcher> = named.collect();
    if named.is_empty() {
        return vec![Matcher::new(NAME, MatchOp::Equal, TARGET_INFO)];
    }
    if !named.iter().any(|matcher| matches!(matcher.op, MatchOp::Equal | MatchOp::Regex)) {
        named.insert(0, Matcher::new(NAME, MatchOp::Regex, ".+_info"));
    }
    named
}

/// The part of a series' labels that names its info series.
fn identity(labels: &Labels) -> Labels {
    labels.keep(|name| IDENTIFYING.contains(&name))
}

// === impl Evaluator ===

impl Evaluator<'_> {
    /// A call of `info`.
    pub fn info(&self, node: &InfoNode, grid: Grid) -> Result<Frame, QueryError> {
        let columns = self.eval(&node.expr, grid)?.columns();
        let names = name_matchers(node.matchers.as_deref());
        let compiled: Vec<Compiled> = names.iter().map(Compiled::new).collect::<Result<_, _>>()?;
        let is_info = |labels: &Labels| compiled.iter().all(|matcher| matcher.matches(labels.name()));
        let data = node.matchers.iter().flatten().filter(|matcher| matcher.name != NAME);
        let data: Vec<Matcher> = data.cloned().collect();
        let infos = self.info_series(node, &columns, &names, &data, &is_info, grid)?;
        let data = data.iter().map(Compiled::new).collect::<Result<_, _>>()?;
        let join = Join { infos, data };
        let mut out: Vec<Column> = Vec::new();
        for column in columns {
            self.budget.check()?;
            if is_info(&column.labels) {
                out.push(column);
            } else {
                join.enrich(self, &column, grid, &mut out)?;
            }
        }
        Ok(Frame::Vector(assemble(out, Twins::Join)?))
    }

    fn info_series(
        &self,
        node: &InfoNode,
        columns: &[Column],
        names: &[Matcher],
        data: &[Matcher],
        is_info: &dyn Fn(&Labels) -> bool,
        grid: Grid,
    ) -> Result<Vec<InfoSeries>, QueryError> {
        let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for column in columns.iter().filter(|column| !is_info(&column.labels)) {
            for name in IDENTIFYING {
                let value = column.labels.get(name);
                if !value.is_empty() {
                    values.entry(name).or_default().insert(value);
                }
            }
        }
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let any_of = |values: &BTreeSet<&str>| {
            values.iter().map(|value| regex::escape(value)).collect::<Vec<_>>().join("|")
        };
        let identifying =
            values.iter().map(|(name, values)| Matcher::new(*name, MatchOp::Regex, any_of(values)));
        let selector = Selector {
            matchers: identifying.chain(data.iter().cloned()).chain(names.iter().cloned()).collect(),
            at: node.at,
            offset: node.offset,
            extended: None,
            position: 0,
            function: "info",
            grouping: None,
            stats_only: false,
        };
        let look = self.instant_look(&selector, grid);
        let selection = self.find(&selector, &look, 0)?;
        let work = |worker: &mut Worker<'_>, labels: &Labels, column: source::Column| {
            taken(worker, labels, &column, &look)
        };
        let mut infos = Vec::new();
        self.each(&selector, (&*selection, 2 * grid.count), &work, &mut |info| {
            self.grow(info.weight())?;
            infos.push(info);
            Ok(())
        })?;
        Ok(infos)
    }
}

fn taken(
    worker: &mut Worker<'_>,
    labels: &Labels,
    column: &source::Column,
    look: &Look,
) -> Result<Option<InfoSeries>, QueryError> {
    let bounds = worker.known.bounds(look, &column.times);
    let mut taken = vec![None; look.grid.count];
    for (step, cell) in taken.iter_mut().enumerate() {
        let at = bounds.at(step);
        if at.is_empty() {
            continue;
        }
        let last = at.end - 1;
        let row = u32::try_from(last).unwrap_or(u32::MAX);
        if column.histograms.binary_search_by_key(&row, |entry| entry.0).is_ok() {
            return Err(QueryError::execution(format!(
                "this should be an info metric, with float samples: {labels}"
            )));
        }
        if column.values.get(last).is_some_and(|value| !telemetry_model::is_stale(*value)) {
            *cell = column.times.get(last).copied();
        }
    }
    Ok(taken.iter().any(Option::is_some).then(|| InfoSeries { labels: labels.clone(), taken }))
}

// === impl Join ===

impl Join {
    /// A series with the labels of its info series, which may change from step to step.
    fn enrich(
        &self,
        evaluator: &Evaluator<'_>,
        column: &Column,
        grid: Grid,
        out: &mut Vec<Column>,
    ) -> Result<(), QueryError> {
        let own = identity(&column.labels);
        let mut by_name: BTreeMap<&str, Vec<&InfoSeries>> = BTreeMap::new();
        for info in self.infos.iter().filter(|info| identity(&info.labels) == own) {
            by_name.entry(info.labels.name()).or_default().push(info);
        }
        let may_be_without = self.data.iter().all(|matcher| matcher.matches(""));
        let mut made: BTreeMap<Labels, Column> = BTreeMap::new();
        for step in column.present.iter() {
            let mut found: Vec<&InfoSeries> = Vec::new();
            for infos in by_name.values() {
                found.extend(newest(infos, step)?);
            }
            if found.is_empty() && !may_be_without {
                continue;
            }
            let labels = self.labels(&column.labels, &found)?;
            let to = match made.entry(labels) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    evaluator.grow(Column::bytes_of(grid.count).saturating_add(place.key().bytes()))?;
                    let empty = Column::empty(place.key().clone(), grid.count);
                    place.insert(Column { drop_name: column.drop_name, ..empty })
                }
            };
            to.copy(step, column);
        }
        out.extend(made.into_values());
        Ok(())
    }

    fn labels(&self, base: &Labels, infos: &[&InfoSeries]) -> Result<Labels, QueryError> {
        let mut added: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, value) in infos.iter().flat_map(|info| info.labels.iter()) {
            let is_wanted = self.data.is_empty() || self.data.iter().any(|data| data.matcher.name == name);
            if name == NAME || !is_wanted {
                continue;
            }
            if added.get(name).is_some_and(|known| *known != value) {
                return Err(QueryError::execution(format!("conflicting label: {name}")));
            }
            if base.get(name).is_empty() {
                added.insert(name, value);
            }
        }
        Ok(added.into_iter().fold(base.clone(), |labels, (name, value)| labels.with(name, value)))
    }
}

/// Of info series of one name and identity the one with the newest sample.
fn newest<'i>(infos: &[&'i InfoSeries], step: usize) -> Result<Option<&'i InfoSeries>, QueryError> {
    let mut best: Option<(i64, &InfoSeries)> = None;
    for info in infos {
        let Some(Some(t)) = info.taken.get(step) else { continue };
        match best {
            Some((known, _)) if known > *t => {}
            Some((known, other)) if known == *t => {
                return Err(QueryError::execution(format!(
                    "found duplicate series for info metric: existing {} @ {known}, new {} @ {t}",
                    other.labels, info.labels
                )));
            }
            _ => best = Some((*t, info)),
        }
    }
    Ok(best.map(|(_, info)| info))
}
