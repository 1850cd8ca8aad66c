//! Pushes as senders make them, into a store in memory.

use telemetry_model::{MatchOp, Matcher, ResetHint};
use telemetry_tsdb::db::Config;
use telemetry_tsdb::fs::sim::SimClock;

use axum::body::to_bytes;

use super::*;
use crate::api::Coding;

const NOW: i64 = 1_800_000_000_000;

fn receiver() -> Arc<Receiver> {
    Arc::new(Receiver::new(Arc::new(Db::in_memory(Config::default(), Arc::new(SimClock::at(NOW))))))
}

fn put(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.extend([number << 3 | 2, u8::try_from(bytes.len()).unwrap()]);
    out.extend(bytes);
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
    out
}

fn sample(value: f64, t: i64) -> Vec<u8> {
    let mut out = vec![0x09];
    out.extend(value.to_le_bytes());
    out.push(0x10);
    out.extend(varint(t.cast_unsigned()));
    out
}

/// One series of version 1: labels as given, one sample.
fn series(labels: &[(&str, &str)], value: f64, t: i64) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in labels {
        let mut pair = Vec::new();
        put(&mut pair, 1, name.as_bytes());
        put(&mut pair, 2, value.as_bytes());
        put(&mut out, 1, &pair);
    }
    put(&mut out, 2, &sample(value, t));
    out
}

fn request(all: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    all.iter().for_each(|each| put(&mut out, 1, each));
    out
}

async fn push(receiver: &Arc<Receiver>, content_type: &str, bytes: &[u8]) -> (u16, HeaderMap, String) {
    let body = snap::raw::Encoder::new().compress_vec(bytes).unwrap();
    let request =
        Request::post("/api/v1/write").header(CONTENT_TYPE, content_type).header(CONTENT_ENCODING, "snappy");
    let response = Arc::clone(receiver).answer(request.body(Body::from(body)).unwrap()).await;
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, 1 << 16).await.unwrap();
    (parts.status.as_u16(), parts.headers, String::from_utf8(text.to_vec()).unwrap())
}

const ONE: &str = "application/x-protobuf";
const TWO: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

fn read(receiver: &Receiver, name: &str) -> Vec<(i64, f64)> {
    let matchers = [Matcher::new("__name__", MatchOp::Equal, name)];
    let selection = receiver.db.select(&matchers, 0, i64::MAX).unwrap();
    let mut reader = selection.reader();
    let mut all = Vec::new();
    for series in selection.series() {
        let column = reader.read(series, 0, i64::MAX).unwrap();
        all.extend(column.times.iter().copied().zip(column.values.iter().copied()));
    }
    all
}

#[tokio::test]
async fn version_1_is_taken_in_whole() {
    let receiver = receiver();
    // Unsorted labels and empty values are put right.
    let first = series(&[("job", "j"), ("__name__", "a"), ("empty", "")], 1.5, NOW);
    let second = series(&[("__name__", "a"), ("job", "j")], 2.5, NOW + 1000);
    let (status, headers, text) = push(&receiver, ONE, &request(&[first.clone(), second])).await;
    assert_eq!((status, &*text), (204, ""));
    assert!(headers.get("x-prometheus-remote-write-samples-written").is_none());
    assert_eq!(read(&receiver, "a"), [(NOW, 1.5), (NOW + 1000, 2.5)]);
    // The same once more changes nothing.
    assert_eq!(push(&receiver, ONE, &request(&[first])).await.0, 204);
    assert_eq!(read(&receiver, "a").len(), 2);
}

#[tokio::test]
async fn other_compressions_are_taken_and_bombs_are_not() {
    let receiver = receiver();
    for (coding, name) in [(Coding::Gzip, "gzip"), (Coding::Zstd, "zstd")] {
        let send = async |bytes: Vec<u8>| {
            let request = Request::post("/write").header(CONTENT_TYPE, ONE).header(CONTENT_ENCODING, name);
            let request = request.body(Body::from(coding.encode(bytes))).unwrap();
            Arc::clone(&receiver).answer(request).await.status().as_u16()
        };
        assert_eq!(send(request(&[series(&[("__name__", name)], 1.0, NOW)])).await, 204);
        assert_eq!(read(&receiver, name), [(NOW, 1.0)]);
        assert_eq!(send(vec![0; INFLATED_BYTES_MAX + 1]).await, 413);
    }
    let request = Request::post("/write").header(CONTENT_TYPE, ONE).header(CONTENT_ENCODING, "br");
    let answer = Arc::clone(&receiver).answer(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_series_that_was_sent_before_is_found_again_also_after_its_end() {
    let receiver = receiver();
    let labels = [("__name__", "a"), ("job", "j")];
    let one = |t: i64, value: f64| request(&[series(&labels, value, t)]);
    assert_eq!(push(&receiver, ONE, &one(NOW, 1.0)).await.0, 204);
    assert_eq!(push(&receiver, ONE, &one(NOW + 1000, 2.0)).await.0, 204);
    // It ends, as one does that is silent for long; what is remembered of it must not be used any more.
    let group = receiver.db.group("write\0j\0\0").unwrap();
    let known = receiver.db.series(group, &labels, OwnerRef(0)).unwrap();
    receiver.db.end(&[known], NOW + 2000);
    assert_eq!(push(&receiver, ONE, &one(NOW + 3000, 3.0)).await.0, 204);
    assert_eq!(push(&receiver, ONE, &one(NOW + 4000, 4.0)).await.0, 204);
    let values: Vec<f64> = read(&receiver, "a").into_iter().map(|(_, value)| value).collect();
    assert_eq!(values.iter().filter(|value| !value.is_nan()).count(), 4, "{values:?}");
    let Outcomes { floats, refused } = outcomes(&receiver);
    assert_eq!((floats, refused), (4, 0));
    // Others have other keys: the same labels with a value more, and the same text cut elsewhere.
    for labels in [[("__name__", "a"), ("job", "jj")], [("__name__", "aj"), ("ob", "j")]] {
        assert_eq!(push(&receiver, ONE, &request(&[series(&labels, 9.0, NOW + 4000)])).await.0, 204);
    }
    assert_eq!(read(&receiver, "a").len(), values.len() + 1);
    assert_eq!(read(&receiver, "aj"), [(NOW + 4000, 9.0)]);
}

struct Outcomes {
    floats: u64,
    refused: u64,
}

fn outcomes(receiver: &Receiver) -> Outcomes {
    Outcomes { floats: receiver.floats.load(Relaxed), refused: receiver.refused.load(Relaxed) }
}

#[tokio::test]
async fn what_cannot_be_taken_is_told_and_the_rest_is_kept() {
    let receiver = receiver();
    let good = series(&[("__name__", "a")], 1.0, NOW);
    let old = series(&[("__name__", "a")], 1.0, NOW - 40 * 24 * 3_600_000);
    let nameless = series(&[("job", "j")], 1.0, NOW);
    let twice = series(&[("__name__", "a"), ("x", "1"), ("x", "2")], 1.0, NOW);
    let (status, _, text) = push(&receiver, ONE, &request(&[good, nameless, twice, old])).await;
    assert_eq!(status, 400);
    assert_eq!(
        text,
        r#"{"status":"error","errorType":"bad_data","error":"3 samples refused, the first because: a series without a name"}"#
    );
    assert_eq!(read(&receiver, "a"), [(NOW, 1.0)]);
}

#[tokio::test]
async fn version_2_brings_symbols_metadata_histograms_and_exemplars() {
    let receiver = receiver();
    let mut histogram = vec![0x08, 6]; // count 6
    histogram.push(0x19);
    histogram.extend(12.5f64.to_le_bytes()); // sum
    histogram.extend([0x20, 0]); // schema 0
    histogram.extend([0x30, 1]); // zero count 1
    put(&mut histogram, 11, &[0x08, 0x00, 0x10, 2]); // buckets 0 and 1
    put(&mut histogram, 11, &[0x08, 0x02, 0x10, 1]); // then 3
    put(&mut histogram, 12, &[2, 2, 0]); // 1, 2, 2
    histogram.push(0x78);
    histogram.extend(varint(NOW.cast_unsigned()));
    let mut exemplar = Vec::new();
    put(&mut exemplar, 1, &[5, 6]);
    exemplar.extend(sample(0.5, NOW).iter().map(|byte| match byte {
        0x09 => 0x11, // value is field 2
        0x10 => 0x18, // time is field 3
        other => *other,
    }));
    let mut one = Vec::new();
    put(&mut one, 1, &[1, 2, 3, 4]);
    put(&mut one, 3, &histogram);
    put(&mut one, 4, &exemplar);
    put(&mut one, 5, &[0x08, 3, 0x18, 7, 0x20, 0]);
    let mut bytes = Vec::new();
    for symbol in ["", "__name__", "h", "job", "j", "trace_id", "abc", "How long."] {
        put(&mut bytes, 4, symbol.as_bytes());
    }
    put(&mut bytes, 5, &one);
    let (status, headers, text) = push(&receiver, TWO, &bytes).await;
    assert_eq!((status, &*text), (204, ""));
    assert_eq!(headers["x-prometheus-remote-write-histograms-written"], "1");
    assert_eq!(headers["x-prometheus-remote-write-samples-written"], "0");
    let metadata = receiver.db.metadata();
    assert_eq!(
        (&*metadata[0].0, &*metadata[0].1.kind, &*metadata[0].1.help),
        ("h", "histogram", "How long.")
    );
    let selection = receiver.db.select(&[Matcher::new("job", MatchOp::Equal, "j")], 0, i64::MAX).unwrap();
    let found = selection.reader().read(&selection.series()[0], 0, i64::MAX).unwrap();
    let (_, stored) = &found.histograms[0];
    assert_eq!(
        (stored.count, stored.sum, stored.zero_count, stored.reset),
        (6.0, 12.5, 1.0, ResetHint::Unknown)
    );
    assert_eq!(stored.positive.iter().collect::<Vec<_>>(), [(0, 1.0), (1, 2.0), (3, 2.0)]);
}

#[tokio::test]
async fn what_is_no_push_is_refused() {
    let receiver = receiver();
    assert_eq!(push(&receiver, "text/plain", b"").await.0, 415);
    assert_eq!(push(&receiver, "application/x-protobuf;proto=other", b"").await.0, 415);
    assert_eq!(push(&receiver, ONE, b"\xff\xff\xff").await.0, 400);
    // A symbol that is not in the table.
    assert_eq!(push(&receiver, TWO, &[0x2a, 4, 0x0a, 2, 0, 1]).await.0, 400);
    let bomb = Request::post("/write")
        .header(CONTENT_TYPE, ONE)
        .body(Body::from(vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0]));
    assert_eq!(Arc::clone(&receiver).answer(bomb.unwrap()).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let get = Request::get("/write").body(Body::empty()).unwrap();
    assert_eq!(Arc::clone(&receiver).answer(get).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(receiver.malformed.load(Relaxed), 5);
}
