//! A configuration file as text: where each key stands in it, so that an error can say so.

use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, KEYS};
use super::{Error, Place, one_line};

/// A file that is TOML and names known keys only.
pub(super) struct Document<'a> {
    file: Option<&'a Path>,
    text: &'a str,
    entries: Vec<Entry>,
}

/// A key that the file names.
struct Entry {
    name: String,
    key: Range<usize>,
    value: Range<usize>,
}

// === impl Document ===

impl<'a> Document<'a> {
    /// Reads the syntax and refuses keys that are none.
    pub(super) fn parse(file: Option<&'a Path>, bytes: &'a [u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
            let place = Place { file: file.map(Path::to_owned), line: Some(line), key: None };
            Error::Content { place, what: "is not UTF-8; save the file as UTF-8 text".to_owned() }
        })?;
        let mut document = Self { file, text, entries: Vec::new() };
        let table = DeTable::parse(text).map_err(|error| document.error(&error))?;
        document.collect("", table.get_ref())?;
        Ok(document)
    }

    /// The values, with the defaults of what the file does not name.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        toml::from_str(self.text).map_err(|error| self.error(&error))
    }

    /// Where the file names a key; without a line if it does not.
    pub(super) fn place(&self, name: &str) -> Place {
        let entry = self.entries.iter().find(|entry| entry.name == name);
        Place {
            file: self.file.map(Path::to_owned),
            line: entry.map(|entry| self.line(entry.key.start)),
            key: Some(name.to_owned()),
        }
    }

    fn collect(&mut self, section: &str, table: &DeTable<'_>) -> Result<(), Error> {
        for (key, value) in table {
            let name = match section {
                "" => key.get_ref().to_string(),
                section => format!("{section}.{}", key.get_ref()),
            };
            let entry = Entry { name, key: key.span(), value: value.span() };
            match value.get_ref() {
                DeValue::Table(table) if keys::is_section(&entry.name) => self.collect(&entry.name, table)?,
                _ if keys::find(&entry.name).is_some() => self.entries.push(entry),
                _ => return Err(self.unknown(entry)),
            }
        }
        Ok(())
    }

    fn unknown(&self, entry: Entry) -> Error {
        let Entry { name, key, value: _ } = entry;
        let what = if keys::is_section(&name) {
            format!("is a section; write [{name}] and its keys below")
        } else if let Some(near) = nearest(&name) {
            format!("is no key; did you mean {near}?")
        } else {
            "is no key; remove it, docs/config.md lists every key".to_owned()
        };
        // A name may hold anything when it is quoted; the line it is printed in may not.
        let name = telemetry_model::escape::printable(name.as_bytes()).into_owned();
        let place =
            Place { file: self.file.map(Path::to_owned), line: Some(self.line(key.start)), key: Some(name) };
        Error::Content { place, what }
    }

    /// An error of the TOML library, with the key whose value it is about.
    fn error(&self, error: &toml::de::Error) -> Error {
        let at = error.span().map(|span| span.start);
        let entry = at.and_then(|at| {
            self.entries.iter().find(|entry| entry.value.contains(&at) || entry.key.contains(&at))
        });
        let remedy = entry.and_then(|entry| keys::find(&entry.name)).map(|key| key.kind.remedy());
        let message = one_line(error.message());
        Error::Content {
            place: Place {
                file: self.file.map(Path::to_owned),
                line: at.map(|at| self.line(at)),
                key: entry.map(|entry| entry.name.clone()),
            },
            what: match remedy {
                Some(remedy) => format!("{message}; write {remedy}"),
                None => format!("{message}; see docs/telemetry.toml for an example"),
            },
        }
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }
}

/// The known key that a wrong one is closest to, if it is close at all.
fn nearest(name: &str) -> Option<&'static str> {
    const EDITS_MAX: usize = 3;
    /// Names longer than this are no slip of the hand, and comparing them takes time.
    const LENGTH_MAX: usize = 64;
    if name.len() > LENGTH_MAX {
        return None;
    }
    let last = |name: &str| name.rsplit('.').next().map(str::to_owned);
    KEYS.iter()
        .map(|key| {
            // The right key in the wrong section is one edit away.
            let moved = if last(name) == last(key.name) { 1 } else { usize::MAX };
            (edits(name, key.name).min(moved), key.name)
        })
        .min()
        .filter(|(edits, _)| *edits <= EDITS_MAX)
        .map(|(_, near)| near)
}

/// Characters to insert, remove or replace to turn one name into the other.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (at, a) in from.chars().enumerate() {
        let mut next = vec![at + 1];
        let mut left = at + 1;
        for ((b, diagonal), above) in to.chars().zip(&row).zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(a != b)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (from, to, expected) in
            [("", "", 0), ("", "abc", 3), ("tick", "tikc", 2), ("lissten", "listen", 1)]
        {
            assert_eq!(edits(from, to), expected, "{from} {to}");
        }
    }

    #[test]
    fn a_wrong_key_is_told_its_nearest_neighbour() {
        assert_eq!(nearest("kernel.owner_max"), Some("kernel.owners_max"));
        assert_eq!(nearest("owners_max"), Some("kernel.owners_max"), "the section was forgotten");
        assert_eq!(nearest("colour"), None);
        assert_eq!(nearest(&"x".repeat(100_000)), None);
    }
}
