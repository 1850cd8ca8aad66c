//! The query API as clients meet it: requests in, status and JSON out.

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ORIGIN};
use serde_json::{Value as Json, json};
use telemetry_promql::labels::Labels;
use telemetry_promql::script::Memory;
use telemetry_promql::value::Cell;
use telemetry_tsdb::db::{Config as DbConfig, Metadata};
use telemetry_tsdb::fs::SystemClock;

use super::*;

/// Two counters every 15 s for ten minutes from 1,000 s on.
fn memory() -> Memory {
    let mut memory = Memory::default();
    for (job, factor) in [("a", 1.0), ("b", 2.0)] {
        let labels = Labels::from_texts([("__name__", "requests_total"), ("job", job)]);
        for step in 0..40 {
            let t = (1_000 + 15 * step) * 1000;
            memory.append(&labels, t, 0, Cell::Float(factor * step as f64)).unwrap();
        }
    }
    memory
}

fn api(config: Config) -> Arc<Prometheus> {
    let db = Arc::new(Db::in_memory(DbConfig::default(), Arc::new(SystemClock::default())));
    db.set_metadata(
        "requests_total",
        Metadata { kind: "counter".into(), unit: "".into(), help: "Requests \"all\".".into() },
    );
    let flags = BTreeMap::from([("storage.tsdb.retention.time", "1d".to_owned())]);
    let facts = Facts { started: SystemTime::UNIX_EPOCH, config: "{\"tick\":\"1s\"}".into(), flags };
    Arc::new(Prometheus::new(db, Arc::new(memory()), &config, facts))
}

async fn ask(api: &Arc<Prometheus>, request: Request) -> (u16, Json) {
    let response = Arc::clone(api).answer(request).await;
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let json = if bytes.is_empty() { Json::Null } else { serde_json::from_slice(&bytes).unwrap() };
    (status, json)
}

async fn get(path: &str) -> (u16, Json) {
    ask(&api(Config::default()), Request::get(format!("/api/v1{path}")).body(Body::empty()).unwrap()).await
}

async fn data(path: &str) -> Json {
    let (status, mut json) = get(path).await;
    assert_eq!((status, &json["status"]), (200, &json!("success")), "{json}");
    json["data"].take()
}

async fn refused(path: &str, status: u16, kind: &str, error: &str) {
    let expected = json!({"status": "error", "errorType": kind, "error": error});
    assert_eq!(get(path).await, (status, expected), "{path}");
}

#[tokio::test]
async fn a_query_answers_a_vector_by_get_form_and_url() {
    let api = api(Config::default());
    let expected = json!({"status": "success", "data": {"resultType": "vector", "result": [
        {"metric": {"job": "a"}, "value": [1300, "0.06666666666666667"]},
        {"metric": {"job": "b"}, "value": [1300, "0.13333333333333333"]},
    ]}});
    let query = "query=sum+by+(job)(rate(requests_total%5B5m%5D))&time=1300&unknown=1";
    let requests = [
        Request::get(format!("/api/v1/query?{query}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Body::empty()),
        Request::post("/api/v1/query")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded; charset=UTF-8")
            .body(query.into()),
        Request::post(format!("/api/v1/query?{query}")).body(Body::empty()),
    ];
    for request in requests {
        assert_eq!(ask(&api, request.unwrap()).await, (200, expected.clone()));
    }
}

#[tokio::test]
async fn a_range_selector_in_an_instant_query_answers_samples() {
    let found = data("/query?query=requests_total%7Bjob%3D'b'%7D%5B30s%5D&time=1045.000").await;
    let expected = json!({"resultType": "matrix", "result": [{
        "metric": {"__name__": "requests_total", "job": "b"},
        "values": [[1030, "4"], [1045, "6"]],
    }]});
    assert_eq!(found, expected);
    assert_eq!(data("/query?query=1.5&time=2").await, json!({"resultType": "scalar", "result": [2, "1.5"]}));
    assert_eq!(data("/query?query='x'&time=2").await, json!({"resultType": "string", "result": [2, "x"]}));
}

#[tokio::test]
async fn a_range_query_answers_a_matrix_with_figures_of_its_cost() {
    let path = "/query_range?query=requests_total&start=1000&end=1030&step=15s&limit=1&stats=all";
    let (_, json) = get(path).await;
    assert_eq!(json["warnings"], json!(["results truncated due to limit"]));
    let expected = json!([{
        "metric": {"__name__": "requests_total", "job": "a"},
        "values": [[1000, "0"], [1015, "1"], [1030, "2"]],
    }]);
    assert_eq!(json["data"]["result"], expected);
    let timings = json["data"]["stats"]["timings"].as_object().unwrap();
    assert_eq!(timings.len(), 6);
    assert!(timings["execTotalTime"].as_f64().unwrap() > 0.0);
    assert_eq!(json["data"]["stats"]["samples"]["samplesRead"], json!(6));
}

#[tokio::test]
async fn what_is_wrong_is_said_in_prometheus_words() {
    refused(
        "/query?query=up%20and",
        400,
        "bad_data",
        "invalid parameter \"query\": 1:7: parse error: unexpected end of input",
    )
    .await;
    refused(
        "/query?query=up&time=abc",
        400,
        "bad_data",
        "invalid parameter \"time\": invalid time value for 'time': cannot parse \"abc\" to a valid timestamp",
    )
    .await;
    refused(
        "/query_range?query=up&start=0&end=1000&step=0",
        400,
        "bad_data",
        "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
    )
    .await;
    refused(
        "/query_range?query=up&start=10&end=0&step=1",
        400,
        "bad_data",
        "invalid parameter \"end\": end timestamp must not be before start time",
    )
    .await;
    refused(
        "/query_range?query=up&start=0&end=11001&step=1",
        400,
        "bad_data",
        "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
    )
    .await;
    refused(
        "/query_range?query=up[5m]&start=0&end=1000&step=1",
        400,
        "bad_data",
        "invalid parameter \"query\": invalid expression type \"range vector\" for range query, must be Scalar or instant Vector",
    )
    .await;
    refused("/query?query=requests_total%20%2B%20on()%20requests_total&time=1000", 422, "execution",
        "found duplicate series for the match group {} on the right hand-side of the operation: [{__name__=\"requests_total\", job=\"a\"}, {__name__=\"requests_total\", job=\"b\"}];many-to-many matching not allowed: matching labels must be unique on one side").await;
    refused("/series", 400, "bad_data", "no match[] parameter provided").await;
    refused(
        "/series?match[]=%7Bx%3D~%22.*%22%7D",
        400,
        "bad_data",
        "invalid parameter \"match[]\": match[] must contain at least one non-empty matcher",
    )
    .await;
    refused("/nothing", 404, "not_found", "no such endpoint").await;
}

#[tokio::test]
async fn names_values_and_series_are_listed() {
    assert_eq!(data("/labels").await, json!(["__name__", "job"]));
    assert_eq!(data("/label/job/values").await, json!(["a", "b"]));
    assert_eq!(data("/label/job/values?match[]=requests_total%7Bjob!%3D'a'%7D").await, json!(["b"]));
    assert_eq!(data("/label/U______name____/values").await, json!(["requests_total"]));
    assert_eq!(data("/label/none/values").await, json!([]));
    let found = data("/series?match[]=requests_total&match[]=%7Bjob%3D'a'%7D&start=1000.545&end=1100").await;
    let expected =
        json!([{"__name__": "requests_total", "job": "a"}, {"__name__": "requests_total", "job": "b"}]);
    assert_eq!(found, expected);
    let expected = json!({"requests_total": [{"type": "counter", "unit": "", "help": "Requests \"all\"."}]});
    assert_eq!(data("/metadata?metric=requests_total").await, expected);
    assert_eq!(data("/metadata?limit=0").await, json!({}));
}

#[tokio::test]
async fn queries_are_formatted_and_taken_apart() {
    assert_eq!(data("/format_query?query=sum(up)by(job)").await, json!("sum by (job) (up)"));
    assert_eq!(data("/parse_query?query=1%2B2").await["type"], json!("binaryExpr"));
}

#[tokio::test]
async fn the_state_is_told_as_clients_expect_it() {
    assert_eq!(data("/status/buildinfo").await["version"], json!("3.14.0"));
    assert_eq!(data("/status/runtimeinfo").await["storageRetention"], json!("1d"));
    assert_eq!(data("/status/config").await, json!({"yaml": "{\"tick\":\"1s\"}"}));
    let tsdb = data("/status/tsdb?limit=1").await;
    assert!(tsdb["headStats"]["numSeries"].is_number() && tsdb["seriesCountByMetricName"].is_array());
    for (path, names) in [
        ("/targets", &["activeTargets", "droppedTargets", "droppedTargetCounts"][..]),
        ("/rules", &["groups"]),
        ("/alerts", &["alerts"]),
        ("/alertmanagers", &["activeAlertmanagers", "droppedAlertmanagers"]),
        ("/scrape_pools", &["scrapePools"]),
        ("/status/walreplay", &["min", "max", "current"]),
        ("/status/tsdb/blocks", &["blocks"]),
        ("/features", &["api", "promql"]),
    ] {
        let found = data(path).await;
        let mut names = names.to_vec();
        names.sort_unstable();
        assert_eq!(found.as_object().unwrap().keys().collect::<Vec<_>>(), names, "{path}");
    }
}

#[tokio::test]
async fn methods_origins_and_compression_are_negotiated() {
    let api = api(Config::default());
    let request = Request::delete("/api/v1/query").body(Body::empty()).unwrap();
    assert_eq!(ask(&api, request).await.0, 405);
    let preflight = Request::options("/api/v1/query").header(ORIGIN, "https://g.example").body(Body::empty());
    let response = Arc::clone(&api).answer(preflight.unwrap()).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "https://g.example");
    for name in ["gzip", "zstd"] {
        let request =
            Request::get("/api/v1/labels").header(ACCEPT_ENCODING, name).body(Body::empty()).unwrap();
        let response = Arc::clone(&api).answer(request).await;
        assert_eq!(response.headers()[CONTENT_ENCODING], name);
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let text = coding::decoded(name, &bytes, 1 << 20).unwrap();
        assert_eq!(text, br#"{"status":"success","data":["__name__","job"]}"#);
    }
    // What is sent may be compressed, too, and no more than a form may have.
    for (form, status) in
        [("query=1".to_owned(), 200), ("query=".to_owned() + &"1".repeat(FORM_BYTES_MAX), 400)]
    {
        let request = Request::post("/api/v1/query")
            .header(CONTENT_TYPE, FORM)
            .header(CONTENT_ENCODING, "zstd")
            .body(Coding::Zstd.encode(form.into_bytes()).into());
        assert_eq!(ask(&api, request.unwrap()).await.0, status);
    }
}

#[tokio::test]
async fn deleting_needs_leave() {
    let request = || Request::post("/api/v1/admin/tsdb/delete_series?match[]=x").body(Body::empty()).unwrap();
    let (status, json) = ask(&api(Config::default()), request()).await;
    assert_eq!((status, &json["errorType"]), (403, &json!("unavailable")));
    assert_eq!(ask(&api(Config { admin: true, ..Config::default() }), request()).await, (204, Json::Null));
}

#[tokio::test]
async fn limits_are_named() {
    let path = "/api/v1/query_range?query=requests_total&start=1000&end=1500&step=1";
    for (config, part) in [
        (Config { samples_max: 10, ..Config::default() }, "too many samples"),
        (Config { memory_max: 1000, ..Config::default() }, "bytes of intermediate values"),
        (
            Config { answer_bytes_max: 1000, ..Config::default() },
            "the answer would have more than 1000 bytes",
        ),
    ] {
        let (status, json) = ask(&api(config), Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!((status, &json["errorType"]), (422, &json!("execution")), "{json}");
        assert!(json["error"].as_str().unwrap().contains(part), "{json}");
    }
    let form = Request::post("/api/v1/query")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body("query=".to_owned() + &"x".repeat(FORM_BYTES_MAX));
    assert_eq!(ask(&api(Config::default()), form.unwrap().map(Body::from)).await.0, 400);
}
