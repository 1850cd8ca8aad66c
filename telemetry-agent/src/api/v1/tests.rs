//! The root without a socket: documents, pages, tags, problems.

mod events;

use std::collections::BTreeSet;

use axum::body::to_bytes;
use axum::http::Request as HttpRequest;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, IF_NONE_MATCH, LINK};
use serde_json::Value;
use telemetry_model::{Labels, OwnerKind, Roster, RosterEntry};

use super::*;
use crate::api::Check;

/// Health that is well.
struct Well;

impl Health for Well {
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Vec<Check> {
        vec![Check::holds("first-tick"), Check::fails("drain", "late")]
    }
}

fn owner(number: usize, kind: OwnerKind) -> RosterEntry {
    let labels = Labels::fixed(&[("namespace", if number.is_multiple_of(2) { "even" } else { "odd" })]);
    RosterEntry {
        id: format!("unit~{number:04}"),
        kind,
        is_living: !number.is_multiple_of(3),
        labels,
        pod_uid: String::new(),
        container_id: String::new(),
        image: String::new(),
        qos: "",
        runtime: "",
        pod: None,
        cgroups: Vec::new(),
        cgroup_count: 0,
    }
}

fn root(owners: usize) -> Arc<V1> {
    let latest = Arc::new(Latest::default());
    let kind = |number: usize| if number.is_multiple_of(5) { OwnerKind::Container } else { OwnerKind::Unit };
    latest.publish_roster(Roster { owners: (0..owners).map(|number| owner(number, kind(number))).collect() });
    let failed = ProgramState::Failed("no".to_owned());
    let fact = |family, name, state| ProgramFact { family, name, hook: name, variant: "default", state };
    let programs = vec![
        fact("identity", "a", ProgramState::Attached),
        fact("scheduler", "b", ProgramState::Attached),
        fact("scheduler", "c", failed.clone()),
        fact("block", "d", ProgramState::Disabled),
        fact("network", "e", failed),
    ];
    let facts = Facts { programs, version: "1.2.3", ..Facts::default() };
    let (journal, mut keeper) = Journal::new(&Default::default());
    keeper.step(Duration::ZERO);
    Arc::new(V1::new(Parts { latest, health: Arc::new(Well), journal, facts, gzip_min_bytes: 1024 }))
}

async fn ask(root: &Arc<V1>, method: &str, path: &str, headers: &[(&str, &str)]) -> (Response, Vec<u8>) {
    let mut request = HttpRequest::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = Arc::clone(root).answer(request.body(Body::empty()).unwrap()).await;
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    (Response::from_parts(parts, Body::empty()), bytes)
}

fn get(root: &Arc<V1>, path: &str, headers: &[(&str, &str)]) -> (Response, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(ask(root, "GET", path, headers))
}

fn json(root: &Arc<V1>, path: &str) -> Value {
    let (response, body) = get(root, path, &[]);
    assert_eq!(response.status(), StatusCode::OK, "{path}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

/// The status, and which parameter is wrong.
fn problem(root: &Arc<V1>, method: &str, path: &str) -> (u16, String, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (response, body) = runtime.block_on(ask(root, method, path, &[]));
    assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), problem::CONTENT, "{path}");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["status"], response.status().as_u16());
    let kind = body["type"].as_str().unwrap().strip_prefix("urn:telemetry-agent:problem:").unwrap();
    let wrong = body.pointer("/errors/0/parameter").and_then(Value::as_str).unwrap_or_default();
    (response.status().as_u16(), kind.to_owned(), wrong.to_owned())
}

#[test]
fn every_owner_is_on_one_page() {
    let root = root(257);
    for limit in [1, 10, 128, 256, 257, 1000] {
        let mut path = format!("/v1/owners?limit={limit}");
        let mut seen = Vec::new();
        loop {
            let page = json(&root, &path);
            let owners = page["owners"].as_array().unwrap();
            assert!(owners.len() <= limit);
            seen.extend(owners.iter().map(|owner| owner["id"].as_str().unwrap().to_owned()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            path = format!("/v1/owners?limit={limit}&cursor={next}");
        }
        assert_eq!(seen.len(), 257, "limit {limit}");
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 257, "limit {limit}");
    }
}

#[test]
fn the_next_page_is_linked_with_the_same_filters() {
    let (response, body) = get(&root(30), "/v1/owners?namespace=odd&limit=4", &[]);
    let body: Value = serde_json::from_slice(&body).unwrap();
    let link = response.headers().get(LINK).unwrap().to_str().unwrap();
    let cursor = body["next_cursor"].as_str().unwrap();
    assert_eq!(link, format!("</v1/owners?namespace=odd&limit=4&cursor={cursor}>; rel=\"next\""));
}

#[test]
fn filters_leave_the_rest_out() {
    let root = root(30);
    let count = |path: &str| json(&root, path)["owners"].as_array().unwrap().len();
    assert_eq!(count("/v1/owners?namespace=odd"), 15);
    assert_eq!(count("/v1/owners?namespace=none"), 0);
    assert_eq!(count("/v1/owners?kind=container"), 6);
    assert_eq!(count("/v1/owners?kind=container,unit"), 30);
    assert_eq!(count("/v1/owners?living=false"), 10);
    assert_eq!(count("/v1/owners?living=true&namespace=even&kind=unit"), 8);
}

#[test]
fn one_owner_is_had_by_its_id() {
    let root = root(30);
    let one = json(&root, "/v1/owners/unit~0007");
    assert_eq!((one["kind"].as_str(), one["state"].as_str()), (Some("unit"), Some("living")));
    assert_eq!(problem(&root, "GET", "/v1/owners/nobody"), (404, "not-found".into(), String::new()));
    assert_eq!(problem(&root, "GET", "/v1/owners/%FF").0, 404);
}

#[test]
fn what_a_client_has_is_not_sent_again_and_gzip_is_sent_to_whom_takes_it() {
    let root = root(100);
    let (first, plain) = get(&root, "/v1/owners", &[]);
    let tag = first.headers().get(ETAG).unwrap().to_str().unwrap().to_owned();
    for tags in [tag.clone(), format!("\"x\", {tag}"), "*".to_owned(), tag.replace("W/", "")] {
        let (again, body) = get(&root, "/v1/owners", &[(IF_NONE_MATCH.as_str(), &tags)]);
        assert_eq!((again.status(), body.len()), (StatusCode::NOT_MODIFIED, 0), "{tags}");
        assert_eq!(again.headers().get(ETAG).unwrap().to_str().unwrap(), tag);
    }
    let (other, _) = get(&root, "/v1/owners?limit=7", &[(IF_NONE_MATCH.as_str(), &tag)]);
    assert_eq!(other.status(), StatusCode::OK);
    let (small, packed) = get(&root, "/v1/owners", &[(ACCEPT_ENCODING.as_str(), "gzip")]);
    assert_eq!(small.headers().get(CONTENT_ENCODING).unwrap(), "gzip");
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut unpacked).unwrap();
    assert_eq!(unpacked, plain);
}

#[test]
fn what_cannot_be_used_is_named() {
    let root = root(3);
    let bad = |path: &str, parameter: &str| {
        let expected = (400, "bad-parameter".to_owned(), parameter.to_owned());
        assert_eq!(problem(&root, "GET", path), expected, "{path}");
    };
    for limit in ["", "0", "1001", "-1", "+5", "x", "1.5", "99999999999999999999"] {
        bad(&format!("/v1/owners?limit={}", limit.replace('+', "%2B")), "limit");
    }
    for cursor in ["", "a", "xy", "0G", "É"] {
        bad(&format!("/v1/owners?cursor={}", cursor.replace('É', "%C3%89")), "cursor");
    }
    bad("/v1/owners?kind=", "kind");
    bad("/v1/owners?kind=container,", "kind");
    bad("/v1/owners?living=1", "living");
    bad("/v1/owners?color=red", "color");
    bad("/v1/owners?pod=a&pod=b", "pod");
    bad("/v1/status?x", "x");
    assert_eq!(problem(&root, "POST", "/v1/owners").0, 405);
    assert_eq!(problem(&root, "GET", "/v1").0, 404);
    assert_eq!(problem(&root, "GET", "/v1/nothing").1, "not-found");
}

#[test]
fn the_state_of_families_is_that_of_their_programs() {
    let status = json(&root(3), "/v1/status");
    let states: Vec<_> = status["families"]
        .as_array()
        .unwrap()
        .iter()
        .map(|family| (family["name"].as_str().unwrap(), family["state"].as_str().unwrap()))
        .collect();
    let expected =
        [("identity", "counting"), ("scheduler", "partial"), ("block", "off"), ("network", "failed")];
    assert_eq!(states, expected);
    assert_eq!((&status["is_live"], &status["is_ready"]), (&true.into(), &false.into()));
    assert_eq!(status.pointer("/checks/1/reason").unwrap(), "late");
}

#[test]
fn the_document_is_openapi_3_1_and_names_every_route() {
    let document = json(&root(0), "/v1/openapi.json");
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    for path in paths.keys() {
        assert_eq!(handler(&path.replace("{id}", "x")), path, "a route without metrics of its own");
        assert!(!document["paths"][path]["get"]["parameters"].to_string().contains("null\""), "{path}");
        let operation = document.pointer(&format!("/paths/{}/get", path.replace('/', "~1"))).unwrap();
        for status in ["200", "304", "400", "405", "414"] {
            assert!(operation["responses"].get(status).is_some(), "{path}: {status}");
        }
    }
}

#[test]
fn a_flow_is_the_sum_of_what_its_owners_series_say() {
    use telemetry_model::clock::Timestamp;
    use telemetry_model::{Desc, Family, Histogram, Kind, Layout, Scope, Series, Snapshot, Unit};
    static LAYOUT: Layout = Layout { schema: 2, low_octave: -22, high_octave: 10 };
    static BYTES: Desc = Desc {
        scope: Scope::Owner,
        ..Desc::of_agent(
            "test",
            "kernel_network_bytes_total",
            Kind::Counter,
            Unit::Bytes,
            &["direction", "protocol"],
            "6",
            "Bytes.",
        )
    };
    static LATENCY: Desc = Desc {
        scope: Scope::Owner,
        ..Desc::of_agent(
            "test",
            "kernel_tcp_connect_latency_seconds",
            Kind::Histogram,
            Unit::Seconds,
            &["result"],
            "1",
            "Latency.",
        )
    };
    let latest = Arc::new(Latest::default());
    let mut known = owner(4, OwnerKind::Unit);
    known.labels = Labels::fixed(&[("namespace", "even"), ("unit", "u")]);
    let series = |owner: &Labels, direction: &'static str, value: f64| {
        let own = Labels::fixed(&[("direction", direction), ("protocol", "tcp")]);
        Series { created: Some(Timestamp(1000)), ..Series::number(own.and(owner), value) }
    };
    let mut histogram = Histogram::new(&LAYOUT);
    histogram.observe(0.25);
    histogram.observe(0.5);
    let ok = Labels::fixed(&[("result", "ok")]).and(&known.labels);
    let latency = telemetry_model::Value::Histogram(Arc::new(histogram));
    let families = vec![
        Family {
            desc: &BYTES,
            series: vec![
                series(&known.labels, "receive", 7.0),
                series(&known.labels, "transmit", 9.0),
                series(&Labels::fixed(&[("unit", "nobody")]), "receive", 1.0),
            ],
        },
        Family { desc: &LATENCY, series: vec![Series { value: latency, ..Series::number(ok, 0.0) }] },
    ];
    latest.publish(Snapshot::new(Timestamp(5000), families));
    latest.publish_roster(Roster { owners: vec![known] });
    let parts = Parts {
        latest,
        health: Arc::new(Well),
        journal: Journal::new(&Default::default()).0,
        facts: Facts::default(),
        gzip_min_bytes: 1024,
    };
    let page = json(&Arc::new(V1::new(parts)), "/v1/flows?namespace=even");
    assert_eq!(page["flows"].as_array().unwrap().len(), 1, "{page}");
    let flow = &page["flows"][0];
    assert_eq!(flow["owner_id"], "unit~0004");
    assert_eq!(flow.pointer("/packets/receive/tcp/bytes").unwrap(), 7.0);
    assert_eq!(flow.pointer("/packets/transmit/tcp/bytes").unwrap(), 9.0);
    assert_eq!(flow.pointer("/tcp/connect_latency/count").unwrap(), 2.0);
    assert_eq!(flow.pointer("/tcp/connect_latency/sum_seconds").unwrap(), 0.75);
    assert_eq!(flow["since"], "1970-01-01T00:00:01Z");
    assert!(page["notes"][0].as_str().unwrap().contains("peers"));
}
