//! `labels`, `label/NAME/values`, `series`, `metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use telemetry_model::Matcher;
use telemetry_promql::budget::Budget;
use telemetry_promql::source::{Hints, Select, SourceError};
use telemetry_tsdb::db::Metadata;

use super::answer::{Failure, Success, TRUNCATED};
use super::params::{MAX_TIME, MIN_TIME, invalid};
use super::{Call, json, source_failure};

/// `labels`: names of labels.
pub(super) fn names(call: Call<'_>) -> Result<Success, Failure> {
    listed(&call, |matchers, from, to| call.source().label_names(matchers, from, to))
}

/// `label/NAME/values`: values of a label.
pub(super) fn values(call: Call<'_>) -> Result<Success, Failure> {
    let name = match call.name.strip_prefix("U__") {
        Some(escaped) => unescaped(escaped).unwrap_or_else(|| call.name.to_owned()),
        None => call.name.to_owned(),
    };
    if name.is_empty() {
        return Err(Failure::bad_data("invalid label name: \"\""));
    }
    listed(&call, |matchers, from, to| call.source().label_values(&name, matchers, from, to))
}

/// What any of the selectors finds, sorted, none twice.
fn listed(
    call: &Call<'_>,
    find: impl Fn(&[Matcher], i64, i64) -> Result<Vec<Arc<str>>, SourceError>,
) -> Result<Success, Failure> {
    let limit = call.params.limit()?;
    let (start, end) = (call.params.time_or("start", MIN_TIME)?, call.params.time_or("end", MAX_TIME)?);
    let sets = call.params.matchers(&call.options.language)?;
    let mut all = BTreeSet::new();
    if sets.is_empty() {
        all.extend(find(&[], start, end).map_err(source_failure)?);
    }
    for matchers in &sets {
        all.extend(find(matchers, start, end).map_err(source_failure)?);
    }
    Ok(Success::texts(all.into_iter().collect::<Vec<_>>(), limit))
}

/// `series`: label sets.
pub(super) fn series(call: Call<'_>) -> Result<Success, Failure> {
    if call.params.all("match[]").next().is_none() {
        return Err(Failure::bad_data("no match[] parameter provided"));
    }
    let limit = call.params.limit()?;
    let (from, to) = (call.params.time_or("start", MIN_TIME)?, call.params.time_or("end", MAX_TIME)?);
    let sets = call
        .params
        .matchers(&call.options.language)
        .map_err(|failure| invalid("match[]", &failure.message))?;
    let budget = Budget::new(call.options.limits, Arc::clone(&call.options.canceled));
    let mut found = BTreeSet::new();
    for matchers in &sets {
        budget.check()?;
        let hints = Hints { function: "series", ..Hints::default() };
        let select = Select { matchers, from, to, hints };
        let selection = call.source().select(&select, &budget).map_err(source_failure)?;
        found.extend(selection.series().iter().cloned());
    }
    let mut found: Vec<_> = found.into_iter().collect();
    let is_cut = limit.is_some_and(|limit| found.len() > limit);
    found.truncate(limit.unwrap_or(usize::MAX));
    let mut success = Success::data(move |out| json::list(out, &found, json::labels));
    success.warnings.extend(is_cut.then(|| TRUNCATED.to_owned()));
    Ok(success)
}

/// `metadata`: kind, unit and help of families.
pub(super) fn metadata(call: Call<'_>) -> Result<Success, Failure> {
    let limit = call.params.count("limit")?;
    // Each family has one description here, so that a limit for each never cuts; a wrong one is still refused.
    call.params.count("limit_per_metric")?;
    let metric = call.params.get("metric");
    let all: BTreeMap<_, _> = call.shared.db.metadata().into_iter().collect();
    let mut wanted: Vec<(Box<str>, Metadata)> =
        all.into_iter().filter(|(name, _)| metric.is_empty() || **name == *metric).collect();
    wanted.truncate(limit.unwrap_or(usize::MAX));
    Ok(Success::data(move |out| {
        out.write_all(b"{")?;
        for (at, (name, metadata)) in wanted.iter().enumerate() {
            if at > 0 {
                out.write_all(b",")?;
            }
            json::string(out, name)?;
            out.write_all(b":[")?;
            describe(out, metadata)?;
            out.write_all(b"]")?;
        }
        out.write_all(b"}")
    }))
}

/// Kind, help and unit of a family.
pub(super) fn describe(out: &mut dyn std::io::Write, metadata: &Metadata) -> std::io::Result<()> {
    let kind = if metadata.kind.is_empty() { "unknown" } else { &metadata.kind };
    out.write_all(b"{\"type\":")?;
    json::string(out, kind)?;
    out.write_all(b",\"unit\":")?;
    json::string(out, &metadata.unit)?;
    out.write_all(b",\"help\":")?;
    json::string(out, &metadata.help)?;
    out.write_all(b"}")
}

/// A name behind `U__`: `__` is `_`, `_hex_` a character.
fn unescaped(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('_') {
        let (before, after) = rest.split_at_checked(at)?;
        out.push_str(before);
        let after = after.get(1..)?;
        if let Some(after) = after.strip_prefix('_') {
            out.push('_');
            rest = after;
            continue;
        }
        let (code, after) = after.split_once('_')?;
        if code.len() > 6 {
            return None;
        }
        out.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_are_read_as_the_names_they_stand_for() {
        assert_eq!(unescaped("http_2e_status__code").as_deref(), Some("http.status_code"));
        assert_eq!(unescaped("a_zz_b"), None);
        assert_eq!(unescaped("a_b"), None);
    }
}
