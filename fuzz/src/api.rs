//! What clients send: pushes, remote reads, and an operator's `web.yml`. Each goes the whole way, into a store and out of it.
//!
//! The first byte says how a body is called; the rest is the body. Nothing that a client sends is answered by 500.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use telemetry_agent::api::prometheus::{self, Facts};
use telemetry_agent::api::security::{Access, Security};
use telemetry_agent::api::{self, OtlpReceiver, Prometheus, Receiver};
use telemetry_agent::store::History;
use telemetry_model::clock::Timestamp;
use telemetry_tsdb::db::{self, Db};
use telemetry_tsdb::fs::SystemClock;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// An answer is read up to this, to see that it ends.
const ANSWER_MAX: usize = 64 << 20;

/// What all inputs go into, one after the other: what one leaves behind is what the next meets.
struct Served {
    runtime: Runtime,
    pushes: Arc<Receiver>,
    exports: Arc<OtlpReceiver>,
    queries: Arc<Prometheus>,
}

static SERVED: LazyLock<Served> = LazyLock::new(|| {
    let mut config = db::Config::default();
    config.limits.series = 10_000;
    let db = Arc::new(Db::in_memory(config, Arc::new(SystemClock::default())));
    let source = Arc::new(History::new(Arc::clone(&db)));
    let facts = Facts { started: SystemTime::UNIX_EPOCH, config: String::new(), flags: BTreeMap::new() };
    Served {
        runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
        pushes: Arc::new(Receiver::new(Arc::clone(&db))),
        exports: Arc::new(OtlpReceiver::new(Arc::clone(&db), &api::otlp::Config::default())),
        queries: Arc::new(Prometheus::new(db, source, &prometheus::Config::default(), facts)),
    }
});

/// Where `web.yml` is written to.
static DIR: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a folder"));

impl Served {
    /// The answer's status. It is no fault of ours, and the answer has an end.
    fn status(&self, answer: impl Future<Output = Response>) -> StatusCode {
        self.runtime.block_on(async {
            let response = answer.await;
            let status = response.status();
            assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "a bug");
            axum::body::to_bytes(response.into_body(), ANSWER_MAX).await.expect("an answer ends");
            status
        })
    }
}

/// One of three words.
fn pick(words: [&'static str; 3], at: u8) -> &'static str {
    words.into_iter().cycle().nth(usize::from(at)).unwrap_or_default()
}

fn post(path: &str, (content_type, encoding): (&str, &str), body: &[u8]) -> Request {
    Request::post(path)
        .header("content-type", content_type)
        .header("content-encoding", encoding)
        .body(Body::from(body.to_vec()))
        .expect("a request")
}

/// A push of either version, compressed or not.
pub fn remote_write(bytes: &[u8]) {
    status_of_remote_write(bytes);
}

fn status_of_remote_write(bytes: &[u8]) -> Option<StatusCode> {
    let (form, body) = bytes.split_first()?;
    let version = match form & 1 {
        0 => "application/x-protobuf;proto=prometheus.WriteRequest",
        _ => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
    };
    let encoding = pick(["snappy", "gzip", "zstd"], form >> 1);
    // As it is, it would be refused for its sum; so it is compressed here, now and then.
    let packed = (form & 0x80 == 0).then(|| snappy(body));
    let (encoding, body) = packed.as_deref().map_or((encoding, body), |packed| ("snappy", packed));
    Some(SERVED.status(Arc::clone(&SERVED.pushes).answer(post("/api/v1/write", (version, encoding), body))))
}

/// A push of OpenTelemetry's.
pub fn otlp(bytes: &[u8]) {
    status_of_otlp(bytes);
}

fn status_of_otlp(bytes: &[u8]) -> Option<StatusCode> {
    let (form, body) = bytes.split_first()?;
    let content_type = if form & 1 == 0 { "application/x-protobuf" } else { "application/json" };
    let encoding = pick(["identity", "gzip", "zstd"], form >> 1);
    Some(SERVED.status(Arc::clone(&SERVED.exports).answer(post(
        "/v1/metrics",
        (content_type, encoding),
        body,
    ))))
}

/// What another Prometheus asks for.
pub fn remote_read(bytes: &[u8]) {
    status_of_remote_read(bytes);
}

fn status_of_remote_read(bytes: &[u8]) -> Option<StatusCode> {
    let (form, body) = bytes.split_first()?;
    let packed = (form & 1 == 0).then(|| snappy(body));
    let body = packed.as_deref().unwrap_or(body);
    let request = post("/api/v1/read", ("application/x-protobuf", "snappy"), body);
    Some(SERVED.status(Arc::clone(&SERVED.queries).answer(request)))
}

/// A web configuration: refused in a line that names its place, or held to.
pub fn web_file(bytes: &[u8]) {
    let file = DIR.path().join("web.yml");
    fs::write(&file, bytes).expect("a file");
    let local = (vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))], Access::Granted);
    if let Err(error) = Security::load(Some(&file), local, None, &api::Config::default(), Timestamp(0)) {
        assert!(!error.to_string().contains('\n'), "one line: {error}");
    }
}

/// Snappy's block format without any compression: the length, and literals.
fn snappy(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(bytes.len() as u64, &mut out);
    for part in bytes.chunks(60) {
        out.push(u8::try_from((part.len() - 1) << 2).unwrap_or(0));
        out.extend_from_slice(part);
    }
    out
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return out.push(low & 0x7F);
        }
        out.push(low | 0x80);
    }
}

/// A field that holds bytes.
fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3 | 2, &mut out);
    varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

/// A field that holds a number.
fn count(number: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3, &mut out);
    varint(value, &mut out);
    out
}

/// A field that holds a float.
fn double(number: u64, value: f64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3 | 1, &mut out);
    out.extend_from_slice(&value.to_le_bytes());
    out
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

fn label(name: &str, value: &str) -> Vec<u8> {
    [field(1, name.as_bytes()), field(2, value.as_bytes())].concat()
}

/// A native histogram with one span on each side.
fn histogram(span: impl Fn(i64, u64) -> Vec<u8>) -> Vec<u8> {
    let zigzag = |value: i64| ((value << 1) ^ (value >> 63)).cast_unsigned();
    [
        count(1, 7),
        double(3, 1.5),
        count(4, zigzag(3)),
        double(5, 1e-128),
        count(6, 1),
        field(8, &span(-2, 1)),
        field(9, &[2]),
        field(11, &span(1, 2)),
        field(12, &[4, 2]),
        count(15, now_ms()),
    ]
    .concat()
}

/// Pushes of both versions.
pub fn writes() -> Vec<Vec<u8>> {
    let span = |offset: i64, length: u64| {
        [count(1, ((offset << 1) ^ (offset >> 63)).cast_unsigned()), count(2, length)].concat()
    };
    let sample = [double(1, 2.5), count(2, now_ms())].concat();
    let exemplar = [field(1, &label("trace_id", "0af7")), double(2, 0.5), count(3, now_ms())].concat();
    let one = [
        field(
            1,
            &[
                field(1, &label("__name__", "a_total")),
                field(1, &label("job", "x")),
                field(2, &sample),
                field(3, &exemplar),
            ]
            .concat(),
        ),
        field(1, &[field(1, &label("__name__", "h")), field(4, &histogram(span))].concat()),
        field(3, &[count(1, 1), field(2, b"a_total"), field(4, b"All of them."), field(5, b"")].concat()),
    ]
    .concat();
    let symbols = ["", "__name__", "b_total", "job", "y", "Help."];
    let mut two: Vec<u8> = symbols.iter().flat_map(|symbol| field(4, symbol.as_bytes())).collect();
    let metadata = [count(1, 1), count(3, 5)].concat();
    two.extend(field(5, &[field(1, &[1, 2, 3, 4]), field(2, &sample), field(5, &metadata)].concat()));
    two.extend(field(5, &[field(1, &[1, 2]), field(3, &histogram(span))].concat()));
    let framed = |form: u8, body: &[u8]| [&[form], body].concat();
    let zstd = zstd::bulk::compress(&one, 1).unwrap_or_default();
    vec![framed(0, &one), framed(1, &two), framed(0x84, &snappy(&one)), framed(0x82, &zstd)]
}

/// Requests of remote read: of samples, and of chunks.
pub fn reads() -> Vec<Vec<u8>> {
    let matcher = [count(1, 2), field(2, b"__name__"), field(3, b".+")].concat();
    let hints = [count(1, 15_000), field(2, b"rate"), count(3, 0), count(4, now_ms())].concat();
    let query = [count(1, 0), count(2, now_ms() + 60_000), field(3, &matcher), field(4, &hints)].concat();
    let chunks = [field(1, &query), count(2, 1)].concat();
    let samples = [field(1, &query), count(2, 0)].concat();
    let framed = |form: u8, body: &[u8]| [&[form], body].concat();
    vec![framed(0, &chunks), framed(0, &samples), framed(1, &snappy(&samples))]
}

/// Every kind of point, in both forms.
pub fn exports() -> Vec<Vec<u8>> {
    let text = |value: &str| field(1, value.as_bytes());
    let pair = |name: &str, value: &str| [field(1, name.as_bytes()), field(2, &text(value))].concat();
    let fixed = |number: u64, value: u64| {
        let mut out = Vec::new();
        varint(number << 3 | 1, &mut out);
        out.extend_from_slice(&value.to_le_bytes());
        out
    };
    let now = now_ms() * 1_000_000;
    let times = [fixed(2, now - 1_000_000_000), fixed(3, now)].concat();
    let number = [times.clone(), double(4, 2.5), field(7, &pair("code", "200"))].concat();
    let buckets = [count(1, 2), field(2, &[1, 2, 3])].concat();
    let exponential = [
        times.clone(),
        fixed(4, 7),
        double(5, 3.5),
        count(6, 6),
        fixed(7, 1),
        field(8, &buckets),
        field(9, &buckets),
    ]
    .concat();
    let bounds: Vec<u8> = [0.1f64, 1.0].iter().flat_map(|bound| bound.to_le_bytes()).collect();
    let counts: Vec<u8> = [1u64, 2, 3].iter().flat_map(|count| count.to_le_bytes()).collect();
    let classic = [times.clone(), fixed(4, 6), double(5, 3.5), field(6, &counts), field(7, &bounds)].concat();
    let quantile = [double(1, 0.99), double(2, 2.5)].concat();
    let summary = [times, fixed(4, 4), double(5, 10.0), field(6, &quantile)].concat();
    let of = |kind: u64, point: &[u8], temporality: u64, rest: &[u8]| {
        let data = [field(1, point), count(2, temporality), rest.to_vec()].concat();
        [field(1, format!("m.{kind}.{temporality}").as_bytes()), field(3, b"s"), field(kind, &data)].concat()
    };
    let metrics: Vec<u8> = [
        of(5, &number, 0, &[]),
        of(7, &number, 2, &count(3, 1)),
        of(7, &number, 1, &count(3, 1)),
        of(9, &classic, 1, &[]),
        of(9, &classic, 2, &[]),
        of(10, &exponential, 1, &[]),
        of(10, &exponential, 2, &[]),
        of(11, &summary, 0, &[]),
    ]
    .iter()
    .flat_map(|metric| field(2, metric))
    .collect();
    let scope = [field(1, &[field(1, b"lib"), field(2, b"1.0")].concat()), metrics].concat();
    let resource = [field(1, &pair("service.name", "x")), field(1, &pair("host.name", "n"))].concat();
    let request = field(1, &[field(1, &resource), field(2, &scope)].concat());
    let json = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"j"}}}}]}},
        "scopeMetrics":[{{"scope":{{"name":"s"}},"metrics":[{{"name":"q","unit":"1","sum":{{"aggregationTemporality":1,
        "isMonotonic":true,"dataPoints":[{{"startTimeUnixNano":"{}","timeUnixNano":"{now}","asInt":"5"}}]}}}}]}}]}}]}}"#,
        now - 1_000_000_000
    );
    let zstd = zstd::bulk::compress(&request, 1).unwrap_or_default();
    let framed = |form: u8, body: &[u8]| [&[form], body].concat();
    vec![framed(0, &request), framed(1, json.as_bytes()), framed(4, &zstd)]
}

/// What operators write.
pub fn web_files() -> Vec<Vec<u8>> {
    let users = "basic_auth_users:\n  alice: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze\n";
    let tls = "tls_server_config: {cert_file: a.crt, key_file: a.key, min_version: TLS12, client_auth_type: RequestClientCert, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]}\n";
    let rest = "http_server_config: {http2: true, headers: {X-Frame-Options: deny}}\nrate_limit: {interval: 1s, burst: 5}\n";
    [users, tls, rest, "bearer_tokens_file: tokens\n"].map(|text| text.as_bytes().to_vec()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mutations_begin_with_is_taken() {
        let taken = |status: Option<StatusCode>| status.is_some_and(|status| status.is_success());
        for (at, seed) in writes().iter().enumerate() {
            assert!(taken(status_of_remote_write(seed)), "write {at}: {:?}", status_of_remote_write(seed));
        }
        for (at, seed) in exports().iter().enumerate() {
            assert!(taken(status_of_otlp(seed)), "export {at}: {:?}", status_of_otlp(seed));
        }
        for (at, seed) in reads().iter().enumerate() {
            assert!(taken(status_of_remote_read(seed)), "read {at}: {:?}", status_of_remote_read(seed));
        }
    }
}
