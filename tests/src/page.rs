//! A scraped page as series: a parser of the text format of its own, so that the agent's encoder is not its own judge.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};

/// One line of values.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The name as printed: histograms with `_bucket`, `_sum` and `_count`.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// All series of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Page {
    series: Vec<Series>,
}

// === impl Series ===

impl Series {
    /// The value of the label `name`; empty without it, as the format takes the two for the same.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.label(name) == *value)
    }
}

// === impl Page ===

impl Page {
    /// Reads the text format, version 0.0.4.
    ///
    /// # Errors
    /// On the first line that is not of the format, and on a series that appears twice.
    pub fn parse(text: &str) -> Result<Self> {
        let mut series = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            series.push(sample(line).with_context(|| format!("line {}: {line:?}", number + 1))?);
        }
        let page = Self { series };
        page.no_twins()?;
        Ok(page)
    }

    /// The series of this name that carry these labels, whatever others they carry.
    pub fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Series> {
        self.series.iter().filter(move |series| series.name == name && series.has(labels))
    }

    /// Their sum; zero if there are none, as a counter that never counted need not be there.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|series| series.value).sum()
    }

    /// Whether there is one.
    #[must_use]
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// Whether a family (or any of a histogram's lines) is there at all.
    #[must_use]
    pub fn has_family(&self, family: &str) -> bool {
        self.series.iter().any(|series| series.name.strip_prefix(family).is_some_and(is_histogram_suffix))
    }

    /// Every series.
    #[must_use]
    pub fn series(&self) -> &[Series] {
        &self.series
    }

    /// How much each label set of `name` grew since `earlier`, as sums over these labels.
    #[must_use]
    pub fn growth(&self, earlier: &Page, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.sum(name, labels) - earlier.sum(name, labels)
    }

    /// A few lines that mention `needle`, for messages.
    #[must_use]
    pub fn about(&self, needle: &str) -> String {
        let mut out = String::new();
        let mentions = |series: &&Series| {
            series.name.contains(needle) || series.labels.values().any(|value| value.contains(needle))
        };
        for series in
            self.series.iter().filter(mentions).filter(|series| !series.name.ends_with("_bucket")).take(40)
        {
            out.push_str(&format!("\n  {} {:?} {}", series.name, series.labels, series.value));
        }
        out
    }

    fn no_twins(&self) -> Result<()> {
        let mut keys: Vec<_> = self.series.iter().map(|series| (&series.name, &series.labels)).collect();
        keys.sort();
        for (one, next) in keys.iter().zip(keys.iter().skip(1)) {
            if one == next {
                bail!("series {} {:?} appears twice", one.0, one.1);
            }
        }
        Ok(())
    }
}

fn is_histogram_suffix(suffix: &str) -> bool {
    matches!(suffix, "" | "_bucket" | "_sum" | "_count")
}

/// `name{label="value",..} number`; the agent prints no timestamps.
fn sample(line: &str) -> Result<Series> {
    let name_end = line.find(['{', ' ']).context("no value")?;
    let (name, rest) = line.split_at(name_end);
    let name_is_good = !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if !name_is_good {
        bail!("bad name {name:?}");
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (BTreeMap::new(), rest),
    };
    let value = match rest.trim() {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        number => number.parse().with_context(|| format!("value {number:?}"))?,
    };
    Ok(Series { name: name.to_owned(), labels, value })
}

/// Up to and without the closing brace; what follows it is given back.
fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, after) = rest.split_once("=\"").context("label without a value")?;
        let (value, after) = quoted(after)?;
        if labels.insert(name.to_owned(), value).is_some() {
            bail!("label {name} twice");
        }
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

/// A quoted value, its opening quote gone: the text, and what follows the closing quote.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, same @ ('\\' | '"'))) => value.push(same),
                other => bail!("bad escape {other:?}"),
            },
            character if character.is_control() => bail!("control character {character:?} in a value"),
            character => value.push(character),
        }
    }
    bail!("value without an end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_escapes_are_read() {
        let page =
            Page::parse("# HELP a b\na_total{x=\"1\",y=\"q\\\"\\\\\\n\"} 2.5\na_total{x=\"2\"} 1\nb 3e2\n")
                .unwrap();
        assert_eq!(page.sum("a_total", &[]), 3.5);
        assert_eq!(page.matching("a_total", &[("x", "1")]).next().unwrap().label("y"), "q\"\\\n");
        assert_eq!(page.sum("b", &[]), 300.0);
        assert!(page.has("a_total", &[("y", "")]), "a missing label is an empty one");
    }

    #[test]
    fn what_is_not_of_the_format_is_refused() {
        for bad in [
            "a{x=\"1\" 2",
            "a{x=1} 2",
            "1a 2",
            "a{x=\"1\",x=\"2\"} 1",
            "a",
            "a x",
            "a{x=\"\u{1b}\"} 1",
            "a 1\na 2",
        ] {
            assert!(Page::parse(bad).is_err(), "{bad:?}");
        }
    }
}
