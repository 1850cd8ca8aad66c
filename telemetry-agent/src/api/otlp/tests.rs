//! Pushes as exporters make them, into a store in memory.

use std::io::Write as _;

use telemetry_model::{MatchOp, Matcher, STALE_MARKER};
use telemetry_tsdb::db::Config as Store;
use telemetry_tsdb::fs::sim::SimClock;

use axum::body::to_bytes;

use super::*;

const NOW: i64 = 1_800_000_000_000;
const NANOS: &str = "1800000000000000000";

fn receiver(config: &Config) -> Arc<OtlpReceiver> {
    let db = Db::in_memory(Store::default(), Arc::new(SimClock::at(NOW)));
    Arc::new(OtlpReceiver::new(Arc::new(db), config))
}

async fn post(receiver: &Arc<OtlpReceiver>, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, Vec<u8>) {
    let mut request = Request::post("/v1/metrics");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = Arc::clone(receiver).answer(request.body(Body::from(body)).unwrap()).await;
    let (parts, body) = response.into_parts();
    (parts.status.as_u16(), to_bytes(body, 1 << 16).await.unwrap().to_vec())
}

const JSON: (&str, &str) = ("content-type", "application/json");
const PROTO: (&str, &str) = ("content-type", "application/x-protobuf");

async fn push(receiver: &Arc<OtlpReceiver>, metrics: &str) -> (u16, String) {
    let body = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[
            {{"key":"service.name","value":{{"stringValue":"shop"}}}},
            {{"key":"host.name","value":{{"stringValue":"n1"}}}}]}},
            "scopeMetrics":[{{"scope":{{"name":"s"}},"metrics":[{metrics}]}}]}}]}}"#
    );
    let (status, body) = post(receiver, &[JSON], body.into_bytes()).await;
    (status, String::from_utf8(body).unwrap())
}

/// Every series of a name: labels, times, values.
fn read(receiver: &OtlpReceiver, name: &str) -> Vec<(String, Vec<(i64, f64)>)> {
    let matchers = [Matcher::new("__name__", MatchOp::Equal, name)];
    let selection = receiver.db.select(&matchers, 0, i64::MAX).unwrap();
    let mut reader = selection.reader();
    let mut all = Vec::new();
    for series in selection.series() {
        let column = reader.read(series, 0, i64::MAX).unwrap();
        let labels = series.labels();
        let labels = labels.iter().filter(|(name, _)| &**name != "__name__" && &**name != "job");
        let labels: Vec<_> = labels.map(|(name, value)| format!("{name}={value}")).collect();
        all.push((
            labels.join(","),
            column.times.iter().copied().zip(column.values.iter().copied()).collect(),
        ));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[tokio::test]
async fn json_of_every_kind_is_taken_in() {
    let receiver = receiver(&Config::default());
    let metrics = format!(
        r#"{{"name":"queue.size","unit":"By","gauge":{{"dataPoints":[{{"timeUnixNano":"{NANOS}","asInt":"7","attributes":[{{"key":"q.x","value":{{"intValue":"1"}}}}]}}]}}}},
        {{"name":"requests","description":"All.","sum":{{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{{"timeUnixNano":{NANOS},"asDouble":1.5}}]}}}},
        {{"name":"latency","unit":"s","histogram":{{"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE","dataPoints":[
            {{"timeUnixNano":"{NANOS}","count":"6","sum":2.5,"bucketCounts":["1","2","3"],"explicitBounds":[0.1,5],
              "exemplars":[{{"timeUnixNano":"{NANOS}","asDouble":0.05,"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708"}}]}}]}}}},
        {{"name":"size","summary":{{"dataPoints":[{{"timeUnixNano":"{NANOS}","count":"2","sum":3,"quantileValues":[{{"quantile":0.5,"value":"NaN"}}]}}]}}}},
        {{"name":"gone","gauge":{{"dataPoints":[{{"timeUnixNano":"{NANOS}","flags":1}}]}}}}"#
    );
    assert_eq!(push(&receiver, &metrics).await, (200, "{}".to_owned()));
    let one = |labels: &str, value: f64| vec![(labels.to_owned(), vec![(NOW, value)])];
    assert_eq!(read(&receiver, "queue_size_bytes"), one("q_x=1", 7.0));
    assert_eq!(read(&receiver, "requests_total"), one("", 1.5));
    assert_eq!(read(&receiver, "latency_seconds_sum"), one("", 2.5));
    assert_eq!(read(&receiver, "latency_seconds_count"), one("", 6.0));
    let buckets = [("le=+Inf", 6.0), ("le=0.1", 1.0), ("le=5", 3.0)];
    let buckets: Vec<_> = buckets.iter().flat_map(|(labels, value)| one(labels, *value)).collect();
    assert_eq!(read(&receiver, "latency_seconds_bucket"), buckets);
    assert_eq!(read(&receiver, "size_sum"), one("", 3.0));
    assert!(read(&receiver, "size")[0].1[0].1.is_nan());
    assert_eq!(read(&receiver, "gone")[0].1[0].1.to_bits(), STALE_MARKER.to_bits());
    assert_eq!(read(&receiver, "target_info"), one("host_name=n1", 1.0));
    assert_eq!(receiver.exemplars.load(Relaxed), 1);
    let metadata = receiver.db.metadata();
    let of = metadata.iter().find(|(name, _)| &**name == "requests_total").unwrap();
    assert_eq!((&*of.1.kind, &*of.1.help), ("counter", "All."));
}

#[tokio::test]
async fn deltas_are_added_up_and_late_ones_are_told() {
    let receiver = receiver(&Config::default());
    let delta = |start: i64, end: i64, value: i64| {
        let nanos = |seconds: i64| (NOW + seconds * 1000) * 1_000_000;
        format!(
            r#"{{"name":"d","sum":{{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[
                {{"startTimeUnixNano":"{}","timeUnixNano":"{}","asInt":{value}}}]}}}}"#,
            nanos(start),
            nanos(end)
        )
    };
    assert_eq!(push(&receiver, &delta(0, 1, 5)).await.1, "{}");
    assert_eq!(push(&receiver, &delta(1, 2, 2)).await.1, "{}");
    let (status, text) = push(&receiver, &delta(1, 2, 2)).await;
    assert_eq!(status, 200);
    assert!(text.contains(r#""rejectedDataPoints":"1""#) && text.contains("not newer"), "{text}");
    assert_eq!(read(&receiver, "d_total"), [(String::new(), vec![(NOW + 1000, 5.0), (NOW + 2000, 7.0)])]);
    assert_eq!(receiver.dropped[1].load(Relaxed), 1);
    let (_, text) = push(&receiver, r#"{"name":"u","sum":{"dataPoints":[{"asInt":1}]}}"#).await;
    assert!(text.contains("no valid aggregation temporality"), "{text}");
}

#[tokio::test]
async fn histograms_become_native() {
    let receiver = receiver(&Config { convert_histograms_to_nhcb: true, ..Config::default() });
    let metrics = format!(
        r#"{{"name":"e","exponentialHistogram":{{"aggregationTemporality":2,"dataPoints":[{{"timeUnixNano":"{NANOS}","count":"4","sum":5,"scale":1,"zeroCount":"1","positive":{{"offset":-1,"bucketCounts":["1","2"]}}}}]}}}},
        {{"name":"c","histogram":{{"aggregationTemporality":2,"dataPoints":[{{"timeUnixNano":"{NANOS}","count":"3","sum":5,"bucketCounts":["1","2"],"explicitBounds":[2]}}]}}}}"#
    );
    assert_eq!(push(&receiver, &metrics).await, (200, "{}".to_owned()));
    for (name, schema, expected) in [("e", 1, [(0, 1.0), (1, 2.0)]), ("c", -53, [(0, 1.0), (1, 2.0)])] {
        let selection =
            receiver.db.select(&[Matcher::new("__name__", MatchOp::Equal, name)], 0, i64::MAX).unwrap();
        let column = selection.reader().read(&selection.series()[0], 0, i64::MAX).unwrap();
        let stored = &column.histograms[0].1;
        assert_eq!((stored.schema, stored.positive.iter().collect::<Vec<_>>()), (schema, expected.to_vec()));
    }
}

#[tokio::test]
async fn both_encodings_both_compressions_and_no_bombs() {
    let receiver = receiver(&Config::default());
    let request = message::Request::default().encode_to_vec();
    assert_eq!(post(&receiver, &[PROTO], request).await, (200, Vec::new()));
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(post(&receiver, &[JSON, ("content-encoding", "gzip")], gzip(b"{}")).await.0, 200);
    let zstd = zstd::encode_all(&b"{}"[..], 1).unwrap();
    assert_eq!(post(&receiver, &[JSON, ("content-encoding", "zstd")], zstd).await.0, 200);
    let zeros = vec![b' '; 17 << 20];
    assert_eq!(post(&receiver, &[JSON, ("content-encoding", "gzip")], gzip(&zeros)).await.0, 413);
    let zstd = zstd::encode_all(&*zeros, 1).unwrap();
    assert_eq!(post(&receiver, &[JSON, ("content-encoding", "zstd")], zstd).await.0, 413);
    // Empty messages: two bytes each, a hundred times that once they are read.
    let empty = gzip(&[0x0a, 0x00].repeat(1 << 20));
    assert_eq!(post(&receiver, &[PROTO, ("content-encoding", "gzip")], empty).await.0, 413);
    let (status, body) = post(&receiver, &[PROTO], vec![0xff, 0xff]).await;
    assert_eq!((status, Status::decode(&*body).unwrap().code), (400, 3));
    assert_eq!(post(&receiver, &[JSON], b"{\"resourceMetrics\":7}".to_vec()).await.0, 400);
    assert_eq!(post(&receiver, &[("content-type", "text/plain")], Vec::new()).await.0, 415);
    assert_eq!(post(&receiver, &[JSON, ("content-encoding", "br")], Vec::new()).await.0, 415);
    assert_eq!(receiver.malformed.load(Relaxed), 7);
}
