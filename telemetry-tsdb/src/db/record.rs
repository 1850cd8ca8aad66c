//! Bodies of the log's records: what is said about series, groups, owners and single samples. Rows have a codec of
//! their own in [`crate::log`].

use std::sync::Arc;

use telemetry_model::native::CUSTOM_SCHEMA;
use telemetry_model::{Buckets, NativeHistogram, ResetHint};

use crate::head::{GroupId, Sample, Slot};
use crate::index::{OwnerRef, SeriesId};
use crate::wire::{Malformed, Reader, put_count, put_i64, put_str, put_u64};

/// Kinds of records. Numbers are for ever: docs/format.md.
pub mod kind {
    /// Series and their places.
    pub const SERIES: u8 = 1;
    /// A group.
    pub const GROUP: u8 = 2;
    /// An owner, or what has become known of it.
    pub const OWNER: u8 = 3;
    /// A row of floats.
    pub const ROW: u8 = 4;
    /// Single samples: late ones, and cells of rows already written.
    pub const SAMPLES: u8 = 5;
    /// What a family is.
    pub const METADATA: u8 = 6;
    /// Exemplars.
    pub const EXEMPLARS: u8 = 7;
    /// Deleted ranges.
    pub const TOMBSTONE: u8 = 8;
    /// Series that ended.
    pub const END: u8 = 9;
    /// What the store counts on: begins every segment that follows a window.
    pub const CHECKPOINT: u8 = 10;
    /// Histogram cells of a row.
    pub const HISTOGRAMS: u8 = 11;
}

/// Bodies above this many bytes are compressed.
const COMPRESS_FROM: usize = 512;
/// No body is longer when inflated.
pub const BODY_MAX: usize = 32 << 20;

/// Where a series is and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesRecord<'a> {
    /// Its number.
    pub series: SeriesId,
    /// Its group.
    pub group: GroupId,
    /// Its place there.
    pub slot: Slot,
    /// Whose it is.
    pub owner: OwnerRef,
    /// Its own labels, the name among them, in order.
    pub labels: Vec<(&'a str, &'a str)>,
}

/// What an owner is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRecord<'a> {
    /// Which.
    pub owner: OwnerRef,
    /// Whether this is its name for good.
    pub bound: bool,
    /// Label pairs.
    pub labels: Vec<(&'a str, &'a str)>,
}

/// What a family is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Metadata {
    /// `counter`, `gauge`, `histogram`, ...
    pub kind: Box<str>,
    /// Unit, or empty.
    pub unit: Box<str>,
    /// Help line.
    pub help: Box<str>,
}

/// A time range of series that is not to be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// First time.
    pub from: i64,
    /// Last time.
    pub to: i64,
    /// Which, growing.
    pub series: Vec<SeriesId>,
    /// The number of the newest file when it was made: it is not applied to those up to it. `u64::MAX` if that is not
    /// known.
    pub files: u64,
}

/// A sample that is remembered for its trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Of which series.
    pub series: SeriesId,
    /// When.
    pub t: i64,
    /// The value.
    pub value: f64,
    /// Its labels: trace id and such; at most 128 characters in all.
    pub labels: Vec<(Box<str>, Box<str>)>,
}

/// The numbers that go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// The next series gets this number at least.
    pub next_series: SeriesId,
    /// The next owner.
    pub next_owner: u32,
    /// When it was written.
    pub t: i64,
}

// === bodies ===

/// Puts a flag before a body and compresses it if that pays.
#[must_use]
pub fn seal(body: &[u8]) -> Vec<u8> {
    if body.len() >= COMPRESS_FROM
        && let Ok(packed) = zstd::bulk::compress(body, 1)
        && packed.len() < body.len()
    {
        let mut out = Vec::with_capacity(packed.len() + 1);
        out.push(1);
        out.extend_from_slice(&packed);
        return out;
    }
    let mut out = Vec::with_capacity(body.len() + 1);
    out.push(0);
    out.extend_from_slice(body);
    out
}

/// Takes the flag off and inflates.
///
/// # Errors
/// If the flag is unknown or the body does not inflate within [`BODY_MAX`].
pub fn unseal(sealed: &[u8]) -> Result<Vec<u8>, Malformed> {
    match sealed.split_first() {
        Some((0, body)) => Ok(body.to_vec()),
        Some((1, packed)) => zstd::bulk::decompress(packed, BODY_MAX).map_err(|_| Malformed("zstd")),
        _ => Err(Malformed("flag of the body")),
    }
}

fn put_labels(out: &mut Vec<u8>, labels: &[(&str, &str)]) {
    put_count(out, labels.len());
    for (name, value) in labels {
        put_str(out, name);
        put_str(out, value);
    }
}

fn get_labels<'a>(r: &mut Reader<'a>) -> Result<Vec<(&'a str, &'a str)>, Malformed> {
    let n = r.count(2)?;
    (0..n).map(|_| Ok((r.str()?, r.str()?))).collect()
}

/// Appends a series.
pub fn put_series(out: &mut Vec<u8>, record: &SeriesRecord<'_>) {
    put_u64(out, u64::from(record.series));
    put_u64(out, u64::from(record.group.0));
    put_u64(out, u64::from(record.slot.0));
    put_u64(out, u64::from(record.owner.0));
    put_labels(out, &record.labels);
}

/// The next series of a body.
///
/// # Errors
/// If it is not one.
pub fn get_series<'a>(r: &mut Reader<'a>) -> Result<SeriesRecord<'a>, Malformed> {
    Ok(SeriesRecord {
        series: r.u32()?,
        group: GroupId(r.u32()?),
        slot: Slot(r.u32()?),
        owner: OwnerRef(r.u32()?),
        labels: get_labels(r)?,
    })
}

/// Appends an owner.
pub fn put_owner(out: &mut Vec<u8>, owner: OwnerRef, bound: bool, labels: &[(&str, &str)]) {
    put_u64(out, u64::from(owner.0));
    out.push(u8::from(bound));
    put_labels(out, labels);
}

/// The next owner of a body.
///
/// # Errors
/// If it is not one.
pub fn get_owner<'a>(r: &mut Reader<'a>) -> Result<OwnerRecord<'a>, Malformed> {
    Ok(OwnerRecord { owner: OwnerRef(r.u32()?), bound: r.u8()? != 0, labels: get_labels(r)? })
}

/// Appends what a family is.
pub fn put_metadata(out: &mut Vec<u8>, family: &str, metadata: &Metadata) {
    for text in [family, &metadata.kind, &metadata.unit, &metadata.help] {
        put_str(out, text);
    }
}

/// The next family of a body.
///
/// # Errors
/// If it is not one.
pub fn get_metadata<'a>(r: &mut Reader<'a>) -> Result<(&'a str, Metadata), Malformed> {
    let family = r.str()?;
    Ok((family, Metadata { kind: r.str()?.into(), unit: r.str()?.into(), help: r.str()?.into() }))
}

/// Appends a number and a name.
pub fn put_named(out: &mut Vec<u8>, number: u64, name: &str) {
    put_u64(out, number);
    put_str(out, name);
}

/// Appends a tombstone.
pub fn put_tombstone(out: &mut Vec<u8>, tombstone: &Tombstone) {
    put_i64(out, tombstone.from);
    put_i64(out, tombstone.to);
    put_count(out, tombstone.series.len());
    tombstone.series.iter().for_each(|series| put_u64(out, u64::from(*series)));
    put_u64(out, tombstone.files);
}

/// The next tombstone of a body.
///
/// # Errors
/// If it is not one.
pub fn get_tombstone(r: &mut Reader<'_>) -> Result<Tombstone, Malformed> {
    let (from, to) = (r.i64()?, r.i64()?);
    let n = r.count(1)?;
    let series = (0..n).map(|_| r.u32()).collect::<Result<_, _>>()?;
    let files = if r.is_empty() { u64::MAX } else { r.u64()? };
    Ok(Tombstone { from, to, series, files })
}

/// Appends an exemplar.
pub fn put_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    put_u64(out, u64::from(exemplar.series));
    put_i64(out, exemplar.t);
    out.extend_from_slice(&exemplar.value.to_le_bytes());
    let labels: Vec<_> = exemplar.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    put_labels(out, &labels);
}

/// The next exemplar of a body.
///
/// # Errors
/// If it is not one.
pub fn get_exemplar(r: &mut Reader<'_>) -> Result<Exemplar, Malformed> {
    Ok(Exemplar {
        series: r.u32()?,
        t: r.i64()?,
        value: r.f64()?,
        labels: get_labels(r)?.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
    })
}

/// Appends what stands before the cells of a row: its group, its time, and the record it builds upon.
pub fn put_row_head(out: &mut Vec<u8>, group: GroupId, t: i64, base: Option<u64>) {
    put_u64(out, u64::from(group.0));
    put_i64(out, t);
    put_u64(out, base.map_or(0, |sequence| sequence + 1));
}

/// What stands before the cells of a row.
///
/// # Errors
/// If the body is too short.
pub fn get_row_head(r: &mut Reader<'_>) -> Result<(GroupId, i64, Option<u64>), Malformed> {
    Ok((GroupId(r.u32()?), r.i64()?, r.u64()?.checked_sub(1)))
}

/// Appends series that ended, by their places.
pub fn put_ends(out: &mut Vec<u8>, places: impl ExactSizeIterator<Item = (GroupId, Slot)>) {
    put_count(out, places.len());
    for (group, slot) in places {
        put_u64(out, u64::from(group.0));
        put_u64(out, u64::from(slot.0));
    }
}

/// Series that ended.
///
/// # Errors
/// If the body is not a list of places.
pub fn get_ends(r: &mut Reader<'_>) -> Result<Vec<(GroupId, Slot)>, Malformed> {
    let n = r.count(2)?;
    (0..n).map(|_| Ok((GroupId(r.u32()?), Slot(r.u32()?)))).collect()
}

/// Appends the numbers that go on.
pub fn put_checkpoint(out: &mut Vec<u8>, checkpoint: &Checkpoint) {
    put_u64(out, u64::from(checkpoint.next_series));
    put_u64(out, u64::from(checkpoint.next_owner));
    put_i64(out, checkpoint.t);
}

/// The numbers that go on.
///
/// # Errors
/// If the body is not a checkpoint.
pub fn get_checkpoint(r: &mut Reader<'_>) -> Result<Checkpoint, Malformed> {
    Ok(Checkpoint { next_series: r.u32()?, next_owner: r.u32()?, t: r.i64()? })
}

/// Appends a sample of one series.
pub fn put_sample(out: &mut Vec<u8>, series: SeriesId, t: i64, sample: &Sample) {
    put_u64(out, u64::from(series));
    put_i64(out, t);
    match sample {
        Sample::Float(value) => {
            out.push(0);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Sample::Histogram(histogram) => {
            out.push(1);
            put_histogram(out, histogram);
        }
    }
}

/// The next sample of a body.
///
/// # Errors
/// If it is not one.
pub fn get_sample(r: &mut Reader<'_>) -> Result<(SeriesId, i64, Sample), Malformed> {
    let (series, t) = (r.u32()?, r.i64()?);
    let sample = match r.u8()? {
        0 => Sample::Float(r.f64()?),
        1 => Sample::Histogram(Arc::new(get_histogram(r)?)),
        _ => return Err(Malformed("kind of sample")),
    };
    Ok((series, t, sample))
}

/// Appends a whole histogram.
pub fn put_histogram(out: &mut Vec<u8>, histogram: &NativeHistogram) {
    out.extend_from_slice(&histogram.schema.to_le_bytes());
    out.push(match histogram.reset {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::NotReset => 2,
        ResetHint::Gauge => 3,
    });
    for value in [histogram.zero_threshold, histogram.zero_count, histogram.count, histogram.sum] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    put_buckets(out, &histogram.positive);
    put_buckets(out, &histogram.negative);
    let bounds = histogram.custom_bounds.as_deref().unwrap_or(&[]);
    put_count(out, bounds.len());
    bounds.iter().for_each(|bound| out.extend_from_slice(&bound.to_le_bytes()));
}

/// The next histogram of a body.
///
/// # Errors
/// If it is not one.
pub fn get_histogram(r: &mut Reader<'_>) -> Result<NativeHistogram, Malformed> {
    let schema = i8::from_le_bytes([r.u8()?]);
    let reset = match r.u8()? {
        0 => ResetHint::Unknown,
        1 => ResetHint::Reset,
        2 => ResetHint::NotReset,
        3 => ResetHint::Gauge,
        _ => return Err(Malformed("reset hint")),
    };
    let (zero_threshold, zero_count, count, sum) = (r.f64()?, r.f64()?, r.f64()?, r.f64()?);
    let (positive, negative) = (get_buckets(r)?, get_buckets(r)?);
    let n = r.count(8)?;
    let bounds: Arc<[f64]> = (0..n).map(|_| r.f64()).collect::<Result<_, _>>()?;
    let custom_bounds = (schema == CUSTOM_SCHEMA).then_some(bounds);
    Ok(NativeHistogram {
        schema,
        reset,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive,
        negative,
        custom_bounds,
    })
}

fn put_buckets(out: &mut Vec<u8>, buckets: &Buckets) {
    put_count(out, buckets.len());
    let mut last = 0;
    for (index, count) in buckets.iter() {
        put_i64(out, i64::from(index) - last);
        last = i64::from(index);
        out.extend_from_slice(&count.to_le_bytes());
    }
}

fn get_buckets(r: &mut Reader<'_>) -> Result<Buckets, Malformed> {
    let n = r.count(9)?;
    let mut buckets = Buckets { indexes: Vec::with_capacity(n), counts: Vec::with_capacity(n) };
    let mut last = 0i64;
    for k in 0..n {
        let step = r.i64()?;
        if k > 0 && step <= 0 {
            return Err(Malformed("bucket indexes do not grow"));
        }
        last = last.checked_add(step).ok_or(Malformed("bucket index"))?;
        buckets.indexes.push(i32::try_from(last).map_err(|_| Malformed("bucket index"))?);
        buckets.counts.push(r.f64()?);
    }
    Ok(buckets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_come_back_as_they_were() {
        let mut out = Vec::new();
        let series = SeriesRecord {
            series: 7,
            group: GroupId(1),
            slot: Slot(300),
            owner: OwnerRef(2),
            labels: vec![("__name__", "x"), ("a", "b")],
        };
        put_series(&mut out, &series);
        let tombstone = Tombstone { from: -1, to: i64::MAX, series: vec![1, 9], files: 7 };
        put_tombstone(&mut out, &tombstone);
        let histogram = NativeHistogram {
            schema: CUSTOM_SCHEMA,
            count: 3.0,
            sum: -0.0,
            reset: ResetHint::Gauge,
            positive: [(0, 1.0), (2, 2.0)].into_iter().collect(),
            custom_bounds: Some(Arc::from([1.0, 2.0])),
            ..Default::default()
        };
        put_sample(&mut out, 4, 5, &Sample::Histogram(Arc::new(histogram.clone())));
        let body = unseal(&seal(&out)).unwrap();
        let mut r = Reader::new(&body);
        assert_eq!(get_series(&mut r).unwrap(), series);
        assert_eq!(get_tombstone(&mut r).unwrap(), tombstone);
        assert_eq!(get_sample(&mut r).unwrap(), (4, 5, Sample::Histogram(Arc::new(histogram))));
        assert!(r.is_empty());
    }

    #[test]
    fn a_body_cut_anywhere_is_refused() {
        let mut out = Vec::new();
        put_owner(&mut out, OwnerRef(1), true, &[("pod", "a"), ("container", "b")]);
        for end in 0..out.len() {
            assert!(get_owner(&mut Reader::new(&out[..end])).is_err(), "cut at {end}");
        }
    }
}
