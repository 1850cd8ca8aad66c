//! Real readings: pages of running programs, scraped every two seconds once and kept, so that figures of different
//! days are of the same samples.
//!
//! A recording is text. `T` begins a scrape at a time in milliseconds, `S` names a series, `V` gives it a value that
//! is not the one before, `G` says that the page has it no more.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use crate::http;

const EVERY: Duration = Duration::from_secs(2);

/// What was recorded.
#[derive(Debug, Default, PartialEq)]
pub struct Recording {
    /// Labels of each series, sorted, its page as `job`.
    pub series: Vec<Vec<(String, String)>>,
    /// Time in milliseconds, and a value a series; rows are shorter before a series is first seen.
    pub rows: Vec<(i64, Vec<Option<f64>>)>,
}

// === impl Recording ===

impl Recording {
    /// Reads a recording.
    ///
    /// # Errors
    /// If a line is of another form.
    pub fn parse(text: &str) -> Result<Self> {
        let mut all = Self::default();
        let mut now: Vec<Option<f64>> = Vec::new();
        let mut t = None;
        for line in text.lines() {
            let (kind, rest) = line.split_once(' ').with_context(|| format!("recording: {line:?}"))?;
            let (number, value) = rest.split_once(' ').unwrap_or((rest, ""));
            match kind {
                "T" => {
                    all.rows.extend(t.map(|t| (t, now.clone())));
                    t = Some(number.parse()?);
                }
                "S" => {
                    all.series.push(labels(value).with_context(|| format!("series {value:?}"))?);
                    now.push(None);
                }
                "V" | "G" => {
                    let cell = now.get_mut(number.parse::<usize>()?).context("a series without a name")?;
                    *cell = if kind == "V" { Some(value.parse()?) } else { None };
                }
                _ => anyhow::bail!("recording: {line:?}"),
            }
        }
        all.rows.extend(t.map(|t| (t, now)));
        Ok(all)
    }

    /// How many samples there are.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.rows.iter().map(|(_, row)| row.iter().flatten().count()).sum()
    }
}

/// Scrapes pages for so long and writes what they said.
///
/// # Errors
/// If a page does not answer.
pub fn record(pages: &[(&str, SocketAddr)], length: Duration, file: &Path) -> Result<()> {
    let (mut ids, mut last): (HashMap<String, usize>, HashMap<usize, String>) = Default::default();
    let mut out = String::new();
    let begun = Instant::now();
    let mut due = begun;
    while begun.elapsed() < length {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        writeln!(out, "T {now}")?;
        let mut seen = std::collections::HashSet::new();
        for (job, address) in pages {
            let body = http::get(*address, "/metrics", &[])?.body;
            let page = String::from_utf8(body).context("page")?;
            for line in page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let (name, value) = line.rsplit_once(' ').context("a line without a value")?;
                let (series, next) = (format!("{job} {name}"), ids.len());
                let id = *ids.entry(series.clone()).or_insert(next);
                if id == next {
                    writeln!(out, "S {id} {series}")?;
                }
                seen.insert(id);
                if last.get(&id).is_none_or(|last| last != value) {
                    writeln!(out, "V {id} {value}")?;
                    last.insert(id, value.to_owned());
                }
            }
        }
        let mut gone: Vec<usize> = last.keys().copied().filter(|id| !seen.contains(id)).collect();
        gone.sort_unstable();
        for id in gone {
            writeln!(out, "G {id}")?;
            last.remove(&id);
        }
        due += EVERY;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let unfinished = file.with_extension("unfinished");
    std::fs::write(&unfinished, out).with_context(|| unfinished.display().to_string())?;
    std::fs::rename(&unfinished, file).with_context(|| file.display().to_string())
}

/// `job name{label="value",…}` as sorted labels.
fn labels(text: &str) -> Result<Vec<(String, String)>> {
    let (job, series) = text.split_once(' ').context("no job")?;
    let (name, mut rest) = series.split_once('{').unwrap_or((series, "}"));
    let mut all = vec![("__name__".to_owned(), name.to_owned()), ("job".to_owned(), job.to_owned())];
    while let Some((label, after)) = rest.split_once("=\"") {
        let (mut value, mut is_escaped, mut end) = (String::new(), false, None);
        for (at, c) in after.char_indices() {
            match c {
                '"' if !is_escaped => {
                    end = Some(at);
                    break;
                }
                '\\' if !is_escaped => is_escaped = true,
                'n' if is_escaped => {
                    value.push('\n');
                    is_escaped = false;
                }
                _ => {
                    value.push(c);
                    is_escaped = false;
                }
            }
        }
        all.push((label.trim_start_matches([',', ' ']).to_owned(), value));
        rest = after.get(end.context("a value without an end")? + 1..).unwrap_or_default();
    }
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_gives_back_every_value_and_every_gap() {
        let text = "T 1000\nS 0 node up\nV 0 1\nS 1 node x{a=\"b\\\"c,}\",d=\"e\"}\nV 1 2.5\nT 3000\nG 1\n\
                    T 5000\nV 1 NaN\nS 2 vm up\nV 2 3\n";
        let got = Recording::parse(text).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            got.series[1],
            [pair("__name__", "x"), pair("a", "b\"c,}"), pair("d", "e"), pair("job", "node")]
        );
        assert_eq!(got.rows[0], (1000, vec![Some(1.0), Some(2.5)]));
        assert_eq!(got.rows[1], (3000, vec![Some(1.0), None]));
        assert!(got.rows[2].1[1].unwrap().is_nan());
        assert_eq!((got.rows[2].1[2], got.samples()), (Some(3.0), 6));
    }

    #[test]
    fn a_broken_recording_is_refused() {
        assert!(Recording::parse("V 0 1\n").is_err());
        assert!(Recording::parse("X 0 1\n").is_err());
        assert!(Recording::parse("S 0 node x{a=\"b\n").is_err());
    }
}
