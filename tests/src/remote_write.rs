//! Remote write 1.0: the request as Prometheus' protocol has it, encoded by hand, for loading peers.
//!
//! Snappy's format allows a block of literals alone, so nothing is compressed: a peer pays for reading more bytes and
//! saves the inflating.

use anyhow::{Context as _, Result};

use crate::http;

/// Snappy's longest literal with a length of three bytes.
const LITERAL_MAX: usize = 1 << 16;

/// A native histogram of whole counts.
#[derive(Clone, Debug, Default)]
pub struct Native {
    /// The schema; -53 has bounds of its own.
    pub schema: i64,
    /// Sum of all observations.
    pub sum: f64,
    /// Observations at zero.
    pub zeros: u64,
    /// Index of the first positive bucket, and counts from there on.
    pub positive: (i64, Vec<u64>),
    /// The same below zero.
    pub negative: (i64, Vec<u64>),
    /// Upper bounds of buckets that have their own.
    pub bounds: Vec<f64>,
}

/// Series that go in one request, their labels already encoded.
pub struct Request {
    series: Vec<Vec<u8>>,
    body: Vec<u8>,
}

// === impl Request ===

impl Request {
    /// For series with these labels, sorted by name.
    pub fn new<'a>(series: impl IntoIterator<Item = &'a [(String, String)]>) -> Self {
        Self { series: series.into_iter().map(labels).collect(), body: Vec::new() }
    }

    /// Sends rows of many times, a value a series in each.
    ///
    /// # Errors
    /// If the receiver does not take it.
    pub fn send_rows(&mut self, port: u16, path: &str, rows: &[(i64, &[f64])]) -> Result<()> {
        self.body.clear();
        for (at, labels) in self.series.iter().enumerate() {
            let samples = rows.iter().filter_map(|(t, values)| Some((*t, values.get(at).copied()?)));
            put_series(&mut self.body, labels, samples);
        }
        self.post(port, path)
    }

    /// Sends a value a series, those without one left out.
    ///
    /// # Errors
    /// If the receiver does not take it.
    pub fn send(&mut self, port: u16, path: &str, t: i64, values: &[Option<f64>]) -> Result<()> {
        self.body.clear();
        for (labels, value) in self.series.iter().zip(values) {
            if let Some(value) = value {
                put_series(&mut self.body, labels, [(t, *value)]);
            }
        }
        self.post(port, path)
    }

    /// Sends a native histogram a series.
    ///
    /// # Errors
    /// If the receiver does not take it.
    pub fn send_natives(&mut self, port: u16, path: &str, t: i64, natives: &[Native]) -> Result<()> {
        self.body.clear();
        for (labels, native) in self.series.iter().zip(natives) {
            let mut all = Vec::new();
            put_bytes(&mut all, 0x22, &histogram(native, t));
            self.body.push(0x0a);
            put_varint(&mut self.body, (labels.len() + all.len()) as u64);
            self.body.extend_from_slice(labels);
            self.body.extend_from_slice(&all);
        }
        self.post(port, path)
    }

    fn post(&self, port: u16, path: &str) -> Result<()> {
        let headers = [
            ("Content-Type", "application/x-protobuf"),
            ("Content-Encoding", "snappy"),
            ("X-Prometheus-Remote-Write-Version", "0.1.0"),
        ];
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let answer = http::post(address, path, &headers, &snappy(&self.body)).context("remote write")?;
        let text = String::from_utf8_lossy(&answer.body);
        anyhow::ensure!((200..300).contains(&answer.status), "remote write: {} {text}", answer.status);
        Ok(())
    }
}

/// A `TimeSeries` message with its samples, inside the request.
fn put_series(out: &mut Vec<u8>, labels: &[u8], samples: impl IntoIterator<Item = (i64, f64)>) {
    let mut all = Vec::new();
    for (t, value) in samples {
        let mut sample = vec![0x09];
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(0x10);
        put_varint(&mut sample, t.cast_unsigned());
        put_bytes(&mut all, 0x12, &sample);
    }
    out.push(0x0a);
    put_varint(out, (labels.len() + all.len()) as u64);
    out.extend_from_slice(labels);
    out.extend_from_slice(&all);
}

/// A `Histogram` message.
fn histogram(native: &Native, t: i64) -> Vec<u8> {
    let mut out = Vec::new();
    let number = |out: &mut Vec<u8>, tag: u8, value: u64| {
        out.push(tag);
        put_varint(out, value);
    };
    let double = |out: &mut Vec<u8>, tag: u8, value: f64| {
        out.push(tag);
        out.extend_from_slice(&value.to_le_bytes());
    };
    let Native { schema, sum, zeros, positive, negative, bounds } = native;
    let count = zeros + positive.1.iter().sum::<u64>() + negative.1.iter().sum::<u64>();
    number(&mut out, 0x08, count);
    double(&mut out, 0x19, *sum);
    number(&mut out, 0x20, zigzag(*schema));
    if bounds.is_empty() {
        double(&mut out, 0x29, 1e-128);
        number(&mut out, 0x30, *zeros);
    }
    for ((first, counts), span_tag, deltas_tag) in [(negative, 0x42, 0x4a), (positive, 0x5a, 0x62)] {
        if counts.is_empty() {
            continue;
        }
        let mut span = Vec::new();
        number(&mut span, 0x08, zigzag(*first));
        number(&mut span, 0x10, counts.len() as u64);
        put_bytes(&mut out, span_tag, &span);
        let mut deltas = Vec::new();
        let mut before = 0i64;
        for count in counts {
            put_varint(&mut deltas, zigzag(count.cast_signed() - before));
            before = count.cast_signed();
        }
        put_bytes(&mut out, deltas_tag, &deltas);
    }
    number(&mut out, 0x78, t.cast_unsigned());
    if !bounds.is_empty() {
        let bytes: Vec<u8> = bounds.iter().flat_map(|bound| bound.to_le_bytes()).collect();
        // Field 16: its tag has two bytes.
        out.push(0x82);
        put_bytes(&mut out, 0x01, &bytes);
    }
    out
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

fn labels(pairs: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        let mut pair = Vec::new();
        put_bytes(&mut pair, 0x0a, name.as_bytes());
        put_bytes(&mut pair, 0x12, value.as_bytes());
        put_bytes(&mut out, 0x0a, &pair);
    }
    out
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// A snappy block of literals.
fn snappy(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + body.len() / LITERAL_MAX * 3 + 16);
    put_varint(&mut out, body.len() as u64);
    for part in body.chunks(LITERAL_MAX) {
        // 61: the length less one stands in two bytes.
        out.push(61 << 2);
        let [low, high, ..] = (part.len() - 1).to_le_bytes();
        out.extend_from_slice(&[low, high]);
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_encoded_as_the_protocol_says() {
        let mut out = Vec::new();
        put_series(&mut out, &labels(&[("a".into(), "b".into())]), [(300, 1.0)]);
        let expected = [
            0x0a, 22, 0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'b', 0x12, 12, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f,
            0x10, 0xac, 2,
        ];
        assert_eq!(out, expected);
    }

    #[test]
    fn a_block_says_its_length_and_each_literals() {
        assert_eq!(snappy(b"abc"), [3, 244, 2, 0, b'a', b'b', b'c']);
        let long = snappy(&vec![7; LITERAL_MAX + 1]);
        assert_eq!((long.len(), &long[3..6]), (3 + 3 + LITERAL_MAX + 3 + 1, &[244, 255, 255][..]));
    }
}
