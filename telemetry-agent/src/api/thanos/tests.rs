//! Calls as Thanos makes them, into a store in memory.

use telemetry_model::ResetHint;
use telemetry_tsdb::db::Config as Store;
use telemetry_tsdb::fs::sim::SimClock;
use telemetry_tsdb::head::Sample;
use telemetry_tsdb::index::OwnerRef;

use super::message::LabelMatcher;
use telemetry_model::native::NativeHistogram;

use super::*;

const NOW: i64 = 1_800_000_000_000;

fn store(series_max: u64, samples_max: u64) -> Arc<ThanosStore> {
    let db = Db::in_memory(Store::default(), Arc::new(SimClock::at(NOW)));
    let group = db.group("g").unwrap();
    let mut samples = Vec::new();
    for (name, pod) in [("a", "p2"), ("a", "p1"), ("b", "p1")] {
        let labels = [("__name__", name), ("node", "its own"), ("pod", pod)];
        let series = db.series(group, &labels, OwnerRef(0)).unwrap();
        for at in 0..300i32 {
            let t = NOW + i64::from(at) * 1000;
            let value = if name == "b" && at >= 100 {
                let count = f64::from(at);
                let positive = [(1, count)].into_iter().collect();
                Sample::Histogram(Arc::new(NativeHistogram { count, positive, ..NativeHistogram::default() }))
            } else {
                Sample::Float(f64::from(at) * 0.5)
            };
            samples.push((series, t, value));
        }
    }
    samples.sort_by_key(|(_, t, _)| *t);
    assert!(db.append(samples).refused.is_empty());
    let config = Config { external_labels: vec!["node=n1".to_owned(), "cluster=c".to_owned()] };
    Arc::new(ThanosStore::new(Arc::new(db), &config, series_max, samples_max).unwrap())
}

async fn call(
    store: &Arc<ThanosStore>,
    method: Method,
    request: &impl Message,
) -> Result<Vec<Vec<u8>>, Refusal> {
    let mut messages = Arc::clone(store).call(method, request.encode_to_vec()).await?;
    let mut all = Vec::new();
    while let Some(message) = messages.recv().await {
        all.push(message?);
    }
    Ok(all)
}

fn matcher(kind: i32, name: &str, value: &str) -> LabelMatcher {
    LabelMatcher { kind, name: name.to_owned(), value: value.to_owned() }
}

fn ask(matchers: &[LabelMatcher]) -> SeriesRequest {
    let (min_time, max_time) = (NOW, NOW + 299_000);
    SeriesRequest { min_time, max_time, matchers: matchers.to_vec(), ..SeriesRequest::default() }
}

async fn series(store: &Arc<ThanosStore>, request: &SeriesRequest) -> Vec<Series> {
    let all = call(store, Method::Series, request).await.unwrap();
    all.iter().map(|bytes| SeriesResponse::decode(&**bytes).unwrap().series.unwrap()).collect()
}

fn said(series: &Series) -> String {
    series.labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn series_come_sorted_with_external_labels_and_chunks_that_are_read_back() {
    let store = store(10, 10_000);
    let found = series(&store, &ask(&[matcher(2, "__name__", "a|b"), matcher(0, "cluster", "c")])).await;
    let labels: Vec<_> = found.iter().map(said).collect();
    assert_eq!(
        labels,
        [
            "__name__=a,cluster=c,node=n1,pod=p1",
            "__name__=a,cluster=c,node=n1,pod=p2",
            "__name__=b,cluster=c,node=n1,pod=p1"
        ]
    );
    for series in &found {
        let mut samples = Vec::new();
        for chunk in &series.chunks {
            let (from, raw) = (samples.len(), chunk.raw.as_ref().unwrap());
            // A file of Prometheus numbers its encodings from 1.
            let number = u8::try_from(raw.kind + 1).unwrap();
            crate::exchange::prometheus::decode(number, &raw.data, &mut samples).unwrap();
            assert!(samples.len() - from <= 120);
            assert_eq!((samples[from].0, samples[samples.len() - 1].0), (chunk.min_time, chunk.max_time));
        }
        assert_eq!(samples.len(), 300);
        for (at, (t, sample)) in (0i32..).zip(&samples) {
            assert_eq!(*t, NOW + i64::from(at) * 1000);
            match sample {
                Sample::Float(value) => assert_eq!(*value, f64::from(at) * 0.5),
                Sample::Histogram(value) => {
                    assert_eq!((value.count, value.positive.counts[0]), (f64::from(at), f64::from(at)));
                    assert_ne!(value.reset, ResetHint::Gauge);
                }
            }
        }
    }
    let request = SeriesRequest {
        skip_chunks: true,
        limit: 2,
        without_replica_labels: vec!["pod".to_owned()],
        ..ask(&[matcher(2, "__name__", ".+")])
    };
    let found = series(&store, &request).await;
    let labels: Vec<_> = found.iter().map(|series| (said(series), series.chunks.len())).collect();
    assert_eq!(labels, vec![("__name__=a,cluster=c,node=n1".to_owned(), 0); 2]);
    assert!(series(&store, &ask(&[matcher(0, "__name__", "a"), matcher(1, "node", "n1")])).await.is_empty());
}

#[tokio::test]
async fn names_values_and_info() {
    let store = store(10, 10_000);
    let (start, end) = (NOW, NOW + 299_000);
    let names = |matchers| LabelNamesRequest { start, end, matchers, ..LabelNamesRequest::default() };
    let texts = |bytes: Vec<Vec<u8>>| Texts::decode(&*bytes[0]).unwrap().texts;
    let all = call(&store, Method::LabelNames, &names(Vec::new())).await.unwrap();
    assert_eq!(texts(all), ["__name__", "cluster", "node", "pod"]);
    let none = call(&store, Method::LabelNames, &names(vec![matcher(0, "cluster", "x")])).await.unwrap();
    assert!(texts(none).is_empty());
    for (label, matchers, limit, expected) in [
        ("pod", vec![matcher(0, "__name__", "a")], 0, vec!["p1", "p2"]),
        ("pod", vec![], 1, vec!["p1"]),
        ("node", vec![matcher(0, "__name__", "a")], 0, vec!["n1"]),
        ("node", vec![matcher(0, "__name__", "nothing")], 0, vec![]),
    ] {
        let label = label.to_owned();
        let request =
            LabelValuesRequest { label, start, end, matchers, limit, ..LabelValuesRequest::default() };
        assert_eq!(texts(call(&store, Method::LabelValues, &request).await.unwrap()), expected);
    }
    let info = call(&store, Method::Info, &Texts::default()).await.unwrap();
    let info = InfoResponse::decode(&*info[0]).unwrap();
    assert_eq!((info.label_sets.len(), info.label_sets[0].labels.len()), (1, 2));
    assert_eq!(info.store.unwrap().max_time, i64::MAX);
}

#[tokio::test]
async fn what_is_too_much_or_wrong_is_told_with_its_code() {
    let every = ask(&[matcher(2, "__name__", ".+")]);
    let kind = |result: Result<Vec<Vec<u8>>, Refusal>| result.unwrap_err().kind;
    assert_eq!(kind(call(&store(2, 10_000), Method::Series, &every).await), Refused::TooLarge);
    let few = store(10, 500);
    assert_eq!(kind(call(&few, Method::Series, &every).await), Refused::TooLarge);
    assert_eq!(few.limit.load(Relaxed), 1);
    for request in [
        ask(&[]),
        ask(&[matcher(0, "node", "n1")]),
        ask(&[matcher(2, "pod", "(")]),
        ask(&[matcher(7, "pod", "x")]),
        SeriesRequest { max_time: 0, ..every },
    ] {
        assert_eq!(kind(call(&few, Method::Series, &request).await), Refused::Malformed);
    }
    let unnamed = LabelValuesRequest::default();
    assert_eq!(kind(call(&few, Method::LabelValues, &unnamed).await), Refused::Malformed);
    assert!(Arc::clone(&few).call(Method::Series, vec![0xff]).await.unwrap().recv().await.unwrap().is_err());
}
