//! The index of a file: its series and their labels, without postings. A selection runs each matcher once a value, ends
//! there if no value is wanted, and then looks at every series' numbers, some 30 ns each: less than reading bitmaps would cost, and less to keep.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::owners::{OwnersView, labels_of};
use super::{CompiledMatcher, LabelPairs, OwnerRef, SeriesId, merge};
use crate::codec::{get_varint, put_varint};

/// An index is not larger when inflated.
const BYTES_MAX: usize = 256 << 20;
/// zstd's level: indexes are written once and are a tenth of a file.
const LEVEL: i32 = 6;

/// An index that is not what its writer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("index of a file: {0}")]
pub struct IndexError(&'static str);

/// The series of a file.
#[derive(Debug, Default)]
pub struct FileIndex {
    symbols: Vec<Arc<str>>,
    series: Vec<Entry>,
    labels: Vec<(u32, u32)>,
    /// Owners as they were known when the file was written.
    owners: BTreeMap<OwnerRef, (bool, LabelPairs)>,
    /// Every owner that a series has, once.
    owner_refs: Vec<OwnerRef>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: SeriesId,
    owner: OwnerRef,
    first: u32,
    len: u32,
}

// === impl FileIndex ===

impl FileIndex {
    /// The bytes of an index. Series come in the order of their numbers, each with its own labels.
    #[must_use]
    pub fn encode<'a>(
        series: impl Iterator<Item = (SeriesId, OwnerRef, LabelPairs)>,
        owner: impl Fn(OwnerRef) -> Option<(bool, LabelPairs)> + 'a,
    ) -> Vec<u8> {
        // Texts as numbers in the order they are met: the labels of a hundred thousand series are never held as texts.
        let mut texts = Numbered::default();
        let (mut entries, mut owners) = (Vec::new(), BTreeMap::new());
        let mut refs: Vec<(u32, u32)> = Vec::new();
        for (id, of, labels) in series {
            refs.extend(labels.iter().map(|(name, value)| (texts.number(name), texts.number(value))));
            entries.push((id, of, labels.len()));
            if of.0 != 0
                && !owners.contains_key(&of)
                && let Some((is_bound, labels)) = owner(of)
            {
                let pair = |(name, value): &(Arc<str>, Arc<str>)| (texts.number(name), texts.number(value));
                owners.insert(of, (is_bound, labels.iter().map(pair).collect::<Vec<_>>()));
            }
        }
        let (symbols, places) = texts.sorted();
        let mut body = Vec::new();
        put_varint(&mut body, symbols.len() as u64);
        let mut last: &str = "";
        for symbol in &symbols {
            let shared = common(last, symbol);
            put_varint(&mut body, shared as u64);
            put_varint(&mut body, (symbol.len() - shared) as u64);
            body.extend(symbol.bytes().skip(shared));
            last = symbol;
        }
        let put_labels = |body: &mut Vec<u8>, refs: &[(u32, u32)]| {
            put_varint(body, refs.len() as u64);
            for number in refs.iter().flat_map(|(name, value)| [*name, *value]) {
                put_varint(body, places.get(number as usize).copied().unwrap_or(0));
            }
        };
        put_varint(&mut body, owners.len() as u64);
        for (of, (is_bound, labels)) in &owners {
            put_varint(&mut body, u64::from(of.0));
            body.push(u8::from(*is_bound));
            put_labels(&mut body, labels);
        }
        put_varint(&mut body, entries.len() as u64);
        let (mut before, mut rest) = (0, refs.as_slice());
        for (id, of, count) in &entries {
            put_varint(&mut body, u64::from(*id) - before);
            before = u64::from(*id);
            put_varint(&mut body, u64::from(of.0));
            let (own, others) = rest.split_at_checked(*count).unwrap_or((rest, &[]));
            put_labels(&mut body, own);
            rest = others;
        }
        zstd::bulk::compress(&body, LEVEL).unwrap_or_default()
    }

    /// The index in some bytes.
    ///
    /// # Errors
    /// If they are not one.
    pub fn parse(bytes: &[u8]) -> Result<Self, IndexError> {
        let size = zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten();
        let size = size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= BYTES_MAX);
        let body = zstd::bulk::decompress(bytes, size.ok_or(IndexError("size"))?)
            .map_err(|_| IndexError("does not inflate"))?;
        let mut r = Cursor(&body);
        let mut index = Self::default();
        let (mut last, mut text) = (String::new(), 0);
        for _ in 0..r.count(2)? {
            let (shared, rest) = (r.number()?, r.number()?);
            let rest = std::str::from_utf8(r.bytes(rest)?).map_err(|_| IndexError("symbol is not UTF-8"))?;
            last = last.get(..shared).ok_or(IndexError("shared prefix"))?.to_owned() + rest;
            // What symbols share is written once and kept by each.
            text += last.len();
            if text > BYTES_MAX {
                return Err(IndexError("symbols are too long"));
            }
            // They are looked for by halves.
            if index.symbols.last().is_some_and(|before| **before >= *last) {
                return Err(IndexError("symbols do not grow"));
            }
            index.symbols.push(Arc::from(last.as_str()));
        }
        for _ in 0..r.count(3)? {
            let owner = OwnerRef(r.small()?);
            if owner.0 == 0 || index.owners.last_key_value().is_some_and(|(before, _)| *before >= owner) {
                return Err(IndexError("owners do not grow"));
            }
            let is_bound = r.bytes(1)?.first() == Some(&1);
            let refs = r.labels(index.symbols.len())?;
            let labels = index.pairs(&refs);
            index.owners.insert(owner, (is_bound, labels));
        }
        let (n, mut id) = (r.count(3)?, 0u32);
        index.series.reserve_exact(n);
        for k in 0..n {
            let step = r.small()?;
            if k > 0 && step == 0 {
                return Err(IndexError("numbers do not grow"));
            }
            id = id.checked_add(step).ok_or(IndexError("number"))?;
            let owner = OwnerRef(r.small()?);
            let refs = r.labels(index.symbols.len())?;
            let first = u32::try_from(index.labels.len()).map_err(|_| IndexError("labels"))?;
            let len = u32::try_from(refs.len()).map_err(|_| IndexError("labels"))?;
            index.labels.extend(refs);
            index.series.push(Entry { id, owner, first, len });
        }
        index.labels.shrink_to_fit();
        let refs: BTreeSet<OwnerRef> = index.series.iter().map(|entry| entry.owner).collect();
        index.owner_refs = refs.into_iter().filter(|owner| owner.0 != 0).collect();
        if r.0.is_empty() { Ok(index) } else { Err(IndexError("bytes left over")) }
    }

    fn pairs(&self, refs: &[(u32, u32)]) -> LabelPairs {
        let text = |n: u32| self.symbols.get(n as usize).map_or_else(|| Arc::from(""), Arc::clone);
        refs.iter().map(|(name, value)| (text(*name), text(*value))).collect()
    }

    fn refs(&self, entry: &Entry) -> &[(u32, u32)] {
        let first = entry.first as usize;
        self.labels.get(first..first + entry.len as usize).unwrap_or(&[])
    }

    /// All series: number, owner, own labels.
    pub fn series(&self) -> impl Iterator<Item = (SeriesId, OwnerRef, LabelPairs)> + '_ {
        self.series.iter().map(|entry| (entry.id, entry.owner, self.pairs(self.refs(entry))))
    }

    /// How many series there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// About how much memory it takes.
    #[must_use]
    pub fn memory(&self) -> usize {
        // An `Arc<str>` is two words here and two before its text.
        let symbols = self.symbols.iter().map(|symbol| symbol.len() + 32).sum::<usize>();
        let owners =
            self.owners.values().map(|(_, labels)| 32 + size_of_val(labels.as_slice())).sum::<usize>();
        size_of_val(self.series.as_slice())
            + size_of_val(self.labels.as_slice())
            + size_of_val(self.owner_refs.as_slice())
            + symbols
            + owners
    }

    /// The highest number of a series.
    #[must_use]
    pub fn max_id(&self) -> Option<SeriesId> {
        self.series.last().map(|entry| entry.id)
    }

    /// Every owner that a series has, once.
    #[must_use]
    pub fn owner_refs(&self) -> &[OwnerRef] {
        &self.owner_refs
    }

    /// Owners as they were known when the file was written.
    pub fn owners(&self) -> impl Iterator<Item = (OwnerRef, bool, &LabelPairs)> {
        self.owners.iter().map(|(owner, (is_bound, labels))| (*owner, *is_bound, labels))
    }

    /// The series that all matchers want, growing, with their labels; those that `is_known` already are left out.
    #[must_use]
    pub fn select(
        &self,
        matchers: &[CompiledMatcher],
        owners: &OwnersView,
        is_known: impl Fn(SeriesId) -> bool,
    ) -> Vec<(SeriesId, LabelPairs)> {
        let tests: Option<Vec<_>> = matchers.iter().map(|matcher| self.prepare(matcher, owners)).collect();
        let Some(tests) = tests else { return Vec::new() };
        let mut found = Vec::new();
        for entry in &self.series {
            let refs = self.refs(entry);
            if tests.iter().all(|test| test.wants(refs, entry.owner)) && !is_known(entry.id) {
                found.push((entry.id, merge(self.pairs(refs), self.owner_labels(entry.owner, owners))));
            }
        }
        found
    }

    /// What is known of an owner: now, or when the file was written.
    fn owner_labels<'a>(&'a self, owner: OwnerRef, view: &'a OwnersView) -> &'a [(Arc<str>, Arc<str>)] {
        let now = labels_of(view, owner);
        if now.is_empty() { self.owners.get(&owner).map_or(&[], |(_, labels)| labels) } else { now }
    }

    /// Runs a matcher on every value of the file; `None` if no series of it can be wanted.
    fn prepare<'a>(&self, matcher: &'a CompiledMatcher, owners: &OwnersView) -> Option<Prepared<'a>> {
        let name = self.symbol(&matcher.name);
        let verdicts = name.map_or_else(Vec::new, |name| self.verdicts(name, matcher));
        let of_owner = |owner: &OwnerRef| {
            let labels = self.owner_labels(*owner, owners);
            let value = labels.iter().find(|(name, _)| **name == *matcher.name);
            (*owner, matcher.matches(value.map_or("", |(_, value)| value)))
        };
        let by_owner: BTreeMap<_, _> = self.owner_refs.iter().map(of_owner).collect();
        let is_hopeful = matcher.matches_empty()
            || verdicts.contains(&Verdict::Wanted)
            || by_owner.values().any(|is_wanted| *is_wanted);
        is_hopeful.then_some(Prepared { name, verdicts, by_owner, matcher })
    }

    fn symbol(&self, text: &str) -> Option<u32> {
        let at = self.symbols.binary_search_by(|symbol| (**symbol).cmp(text)).ok()?;
        u32::try_from(at).ok()
    }

    /// What a matcher says of each symbol that is a value of the label.
    fn verdicts(&self, name: u32, matcher: &CompiledMatcher) -> Vec<Verdict> {
        let mut verdicts = vec![Verdict::Unseen; self.symbols.len()];
        // The values are known beforehand: there is nothing to run on all labels of all series.
        if let (Some(values), false) = (matcher.literals(), matcher.is_negative) {
            for at in values.iter().filter_map(|value| self.symbol(value)) {
                if let Some(cell) = verdicts.get_mut(at as usize) {
                    *cell = Verdict::Wanted;
                }
            }
            return verdicts;
        }
        for (_, value) in self.labels.iter().filter(|(of, _)| *of == name) {
            if let Some(cell @ Verdict::Unseen) = verdicts.get_mut(*value as usize) {
                let is_wanted = self.symbols.get(*value as usize).is_some_and(|value| matcher.matches(value));
                *cell = if is_wanted { Verdict::Wanted } else { Verdict::Unwanted };
            }
        }
        verdicts
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Unseen,
    Wanted,
    Unwanted,
}

/// A matcher whose test has been run on every value of the file.
struct Prepared<'a> {
    name: Option<u32>,
    verdicts: Vec<Verdict>,
    by_owner: BTreeMap<OwnerRef, bool>,
    matcher: &'a CompiledMatcher,
}

// === impl Prepared ===

impl Prepared<'_> {
    fn wants(&self, refs: &[(u32, u32)], owner: OwnerRef) -> bool {
        let own = self.name.and_then(|name| refs.iter().find(|(of, _)| *of == name));
        match own {
            Some((_, value)) => self.verdicts.get(*value as usize) == Some(&Verdict::Wanted),
            None => self.by_owner.get(&owner).copied().unwrap_or(self.matcher.matches_empty()),
        }
    }
}

/// Texts, numbered as they are met.
#[derive(Default)]
struct Numbered(HashMap<Arc<str>, u32, ahash::RandomState>);

// === impl Numbered ===

impl Numbered {
    fn number(&mut self, text: &Arc<str>) -> u32 {
        if let Some(number) = self.0.get(text) {
            return *number;
        }
        let number = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.insert(Arc::clone(text), number);
        number
    }

    /// The texts in the order of their bytes, and the place of each number among them.
    fn sorted(self) -> (Vec<Arc<str>>, Vec<u64>) {
        let mut all: Vec<(Arc<str>, u32)> = self.0.into_iter().collect();
        all.sort_unstable();
        let mut places = vec![0; all.len()];
        for (place, (_, number)) in (0u64..).zip(&all) {
            if let Some(cell) = places.get_mut(*number as usize) {
                *cell = place;
            }
        }
        (all.into_iter().map(|(text, _)| text).collect(), places)
    }
}

/// How many bytes two strings share at their front, to a whole character.
fn common(a: &str, b: &str) -> usize {
    let same = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    (0..=same).rev().find(|at| a.is_char_boundary(*at) && b.is_char_boundary(*at)).unwrap_or(0)
}

struct Cursor<'a>(&'a [u8]);

// === impl Cursor ===

impl<'a> Cursor<'a> {
    fn number(&mut self) -> Result<usize, IndexError> {
        let (value, used) = get_varint(self.0).map_err(|_| IndexError("varint"))?;
        self.0 = self.0.get(used..).unwrap_or(&[]);
        usize::try_from(value).map_err(|_| IndexError("number"))
    }

    fn small(&mut self) -> Result<u32, IndexError> {
        u32::try_from(self.number()?).map_err(|_| IndexError("number over 32 bits"))
    }

    /// A count of things of at least `least` bytes each.
    fn count(&mut self, least: usize) -> Result<usize, IndexError> {
        let n = self.number()?;
        if n > self.0.len() / least { Err(IndexError("count beyond the bytes")) } else { Ok(n) }
    }

    fn bytes(&mut self, n: usize) -> Result<&'a [u8], IndexError> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(IndexError("too short"))?;
        self.0 = rest;
        Ok(head)
    }

    fn labels(&mut self, symbols: usize) -> Result<Vec<(u32, u32)>, IndexError> {
        let n = self.count(2)?;
        let mut labels = Vec::with_capacity(n);
        for _ in 0..n {
            let (name, value) = (self.small()?, self.small()?);
            if name as usize >= symbols || value as usize >= symbols {
                return Err(IndexError("unknown symbol"));
            }
            labels.push((name, value));
        }
        Ok(labels)
    }
}
