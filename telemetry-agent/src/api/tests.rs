//! The server against real sockets on the loopback device, with clients that behave and clients that do not.

mod http2;
mod reviewed;
mod secure;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use telemetry_model::Value;
use telemetry_model::clock::Timestamp;
use telemetry_tsdb::db::Db;
use tokio::sync::watch;

use super::otlp;
use super::prometheus::{self, Facts};
use super::security::Access;
use super::{
    Check, Config, Deps, Health, HttpStats, METRICS, OtlpReceiver, Prometheus, Receiver, Security, bind,
    serve,
};
use crate::expose::{self, Format, fixture};
use crate::store::Latest;

/// Longer than anything here should take; a test that waits for it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a thread and a port of its own.
struct Server {
    address: SocketAddr,
    deps: Deps,
    health: Arc<Said>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

/// Health as a test says it is.
#[derive(Default)]
struct Said(Mutex<(Option<String>, Vec<Check>)>);

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

/// A store with nothing in it.
fn db() -> Arc<Db> {
    let clock = Arc::new(telemetry_tsdb::fs::SystemClock::default());
    Arc::new(Db::in_memory(telemetry_tsdb::db::Config::default(), clock))
}

fn security(config: &Config) -> Security {
    let local = (vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))], Access::Granted);
    Security::load(None, local, None, config, Timestamp(0)).unwrap()
}

fn queries(db: Arc<Db>) -> Arc<Prometheus> {
    let facts = Facts {
        started: std::time::SystemTime::UNIX_EPOCH,
        config: String::new(),
        flags: std::collections::BTreeMap::new(),
    };
    let source = Arc::new(crate::store::History::new(Arc::clone(&db)));
    Arc::new(Prometheus::new(db, source, &prometheus::Config::default(), facts))
}

// === impl Said ===

impl Health for Said {
    fn live(&self) -> Result<(), String> {
        self.0.lock().unwrap().0.clone().map_or(Ok(()), Err)
    }

    fn ready(&self) -> Vec<Check> {
        self.0.lock().unwrap().1.clone()
    }
}

// === impl Server ===

impl Server {
    fn start(config: Config) -> Self {
        let security = Arc::new(security(&config));
        Self::secured(config, security)
    }

    fn secured(config: Config, security: Arc<Security>) -> Self {
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let health = Arc::new(Said::default());
        let db = db();
        let latest = Arc::new(Latest::default());
        let said = Arc::clone(&health) as Arc<dyn Health>;
        let own = super::V1::new(super::v1::Parts {
            latest: Arc::clone(&latest),
            health: Arc::clone(&said),
            journal: crate::journal::Journal::new(&Default::default()).0,
            facts: super::v1::Facts::default(),
            gzip_min_bytes: 1024,
        });
        let deps = Deps {
            latest,
            health: said,
            own: Arc::new(own),
            observe: Arc::new(HttpStats::new(Timestamp(0))),
            queries: queries(Arc::clone(&db)),
            otlp: Arc::new(OtlpReceiver::new(Arc::clone(&db), &otlp::Config::default())),
            pushes: Arc::new(Receiver::new(db)),
            security,
        };
        let (stop, stopped) = watch::channel(false);
        let serving = serve(listener, deps.clone(), config, expose::Config::default(), stopped);
        let thread = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serving)
        });
        Self { address, deps, health, stop, thread: Some(thread) }
    }

    fn with_page(config: Config, lines: usize) -> Self {
        let server = Self::start(config);
        server.deps.latest.publish(fixture::snapshot(lines));
        server
    }

    fn page(&self, format: Format) -> Vec<u8> {
        let mut page = Vec::new();
        format.write(&self.deps.latest.get(), &mut page);
        page
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Sends raw bytes on a connection of its own and reads until the server closes it.
    fn raw(&self, request: &str) -> Answer {
        let mut socket = self.connect();
        socket.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).unwrap();
        Answer::parse(&bytes)
    }

    fn get(&self, path: &str, headers: &str) -> Answer {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n"))
    }

    /// The value of a series, 0 if it does not exist.
    fn metric(&self, name: &str, label: Option<(&str, &str)>) -> f64 {
        let families = self.deps.observe.families();
        let family = families.iter().find(|family| family.desc.name == name).unwrap();
        let series = family
            .series
            .iter()
            .find(|series| label.is_none_or(|(name, value)| series.labels.get(name) == Some(value)));
        match series.map(|series| &series.value) {
            Some(Value::Number(value)) => *value,
            Some(Value::Histogram(histogram)) => telemetry_model::float(histogram.count()),
            None => 0.0,
        }
    }

    fn closed_for(&self, reason: &str) -> f64 {
        self.metric("telemetry_agent_http_server_connections_closed_total", Some(("reason", reason)))
    }

    /// Waits until something becomes true that another thread does.
    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(begun.elapsed() < PATIENCE, "{what} did not happen");
            std::thread::yield_now();
        }
    }

    fn stop(mut self) -> Duration {
        let begun = Instant::now();
        self.stop.send(true).unwrap();
        self.thread.take().unwrap().join().unwrap().unwrap();
        begun.elapsed()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A server whose test has failed already.
        let _ = self.stop.send(true);
    }
}

// === impl Answer ===

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let head_len = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole header") + 4;
        let head = String::from_utf8(bytes[..head_len].to_vec()).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head, body: bytes[head_len..].to_vec() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn config() -> Config {
    Config::default()
}

fn is_closed(mut socket: TcpStream) -> bool {
    // A close with unread bytes on the server's side arrives as a reset.
    !matches!(socket.read(&mut [0; 64]), Ok(1..)) && !timed_out(&mut socket)
}

fn timed_out(socket: &mut TcpStream) -> bool {
    matches!(socket.read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn a_scrape_gets_the_format_it_asks_for() {
    let server = Server::with_page(config(), 100);
    for (accept, format) in [
        ("", Format::Text),
        ("Accept: text/plain;version=0.0.4\r\n", Format::Text),
        ("Accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n", Format::OpenMetrics),
        ("Accept: application/openmetrics-text;version=0.0.1\r\n", Format::OpenMetricsDraft),
        ("Accept: text/plain;q=0.1\r\nAccept: application/openmetrics-text\r\n", Format::OpenMetrics),
    ] {
        let answer = server.get("/metrics", accept);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(format.content_type())),
            "{accept}"
        );
        assert_eq!(answer.body, server.page(format), "{accept}");
        assert_eq!(answer.header("content-encoding"), None);
        assert_eq!(answer.header("vary"), Some("accept, accept-encoding"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn gzip_is_what_the_page_was() {
    let server = Server::with_page(config(), 2000);
    let answer = server.get("/metrics", "Accept-Encoding: gzip\r\n");
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert!(answer.body.len() < 100_000, "{} bytes", answer.body.len());
    let mut page = Vec::new();
    flate2::read::GzDecoder::new(answer.body.as_slice()).read_to_end(&mut page).unwrap();
    assert_eq!(page, server.page(Format::Text));
    let refused = server.get("/metrics", "Accept-Encoding: gzip;q=0, identity\r\n");
    assert_eq!((refused.header("content-encoding"), &refused.body), (None, &page));
}

#[test]
fn a_head_request_gets_the_header_of_a_get() {
    let server = Server::with_page(config(), 100);
    let answer = server.raw("HEAD /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let len = server.page(Format::Text).len().to_string();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some(len.as_str())));
    assert_eq!(answer.body, b"");
}

#[test]
fn before_the_first_tick_a_scrape_fails_instead_of_being_empty() {
    let server = Server::start(config());
    let answer = server.get("/metrics", "");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
}

#[test]
fn health_is_what_the_agent_says() {
    let server = Server::start(config());
    server.health.0.lock().unwrap().1 = vec![Check::holds("first-tick"), Check::holds("drain")];
    for path in ["/livez", "/healthz", "/-/healthy", "/readyz", "/-/ready"] {
        let answer = server.get(path, "");
        assert_eq!((answer.status, answer.text()), (200, "ok\n"), "{path}");
    }
    assert_eq!(server.get("/readyz?verbose", "").text(), "[+]first-tick ok\n[+]drain ok\n");

    *server.health.0.lock().unwrap() = (
        Some("tick stuck for 31 s".into()),
        vec![Check::holds("first-tick"), Check::fails("drain", "dead\n[+]forged ok")],
    );
    let answer = server.get("/livez", "");
    assert_eq!((answer.status, answer.text()), (503, "tick stuck for 31 s\n"));
    let answer = server.get("/readyz", "");
    assert_eq!((answer.status, answer.text()), (503, "[+]first-tick ok\n[-]drain: dead [+]forged ok\n"));
}

#[test]
fn the_index_shows_the_state_and_lets_nothing_run() {
    let server = Server::with_page(config(), 100);
    server.health.0.lock().unwrap().1 = vec![Check::fails("drain", "<script>alert(1)</script>")];
    let answer = server.get("/", "");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(
        answer.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'"))
    );
    assert!(answer.text().contains("<a href=\"/metrics\">") && answer.text().contains("live: ok"));
    assert!(answer.text().contains("&lt;script&gt;") && !answer.text().contains("<script"));
}

#[test]
fn what_is_not_served_is_refused_in_plain_text() {
    let server = Server::with_page(config(), 100);
    let check = |request: &str, status: u16| {
        let answer = server.raw(request);
        assert_eq!(answer.status, status, "{:.60}", request);
        answer
    };
    let close = "Host: test\r\nConnection: close\r\n\r\n";
    let answer = check(&format!("GET /metrics/../etc HTTP/1.1\r\n{close}"), 404);
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    check(&format!("GET //metrics/x HTTP/1.1\r\n{close}"), 404);
    let answer = check(&format!("DELETE /metrics HTTP/1.1\r\n{close}"), 405);
    assert_eq!(answer.header("allow"), Some("get, head"));
    check(&format!("POST / HTTP/1.1\r\nContent-Length: 2\r\n{close}ok"), 405);
    // Refused by what they announce; the connection ends without our asking for it.
    check("POST /metrics HTTP/1.1\r\nHost: test\r\nContent-Length: 8193\r\n\r\n", 413);
    check("GET /metrics HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n", 413);
    check(&format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "a".repeat(2048)), 414);
    check(&format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n", "a".repeat(17 * 1024)), 431);
    check(&format!("GET / HTTP/1.1\r\nHost: test\r\n{}\r\n", "X: a\r\n".repeat(65)), 431);
    check("no http at all\r\n\r\n", 400);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::with_page(config(), 100);
    let keep = "Host: test\r\n\r\n";
    let answer = server.raw(&format!(
        "GET /livez HTTP/1.1\r\n{keep}GET /nothing HTTP/1.1\r\n{keep}GET /readyz HTTP/1.1\r\nConnection: close\r\n{keep}"
    ));
    let all = format!("{}{}", answer.head, answer.text());
    let statuses: Vec<_> = all.match_indices("HTTP/1.1 ").map(|(at, _)| &all[at + 9..at + 12]).collect();
    assert_eq!((answer.status, statuses), (200, vec!["404", "200"]));
}

#[test]
fn a_slow_header_costs_its_connection_and_nobody_else() {
    let server = Server::with_page(Config { header_timeout: Duration::from_millis(300), ..config() }, 100);
    let begun = Instant::now();
    let mut slow = server.connect();
    slow.set_nodelay(true).unwrap();
    slow.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    assert_eq!(server.get("/metrics", "").status, 200, "a scrape is answered meanwhile");
    // Bytes keep coming, so that no single read is slow.
    while slow.write_all(b"X: a\r\n").is_ok() {
        assert!(begun.elapsed() < PATIENCE, "the slow connection is never closed");
        slow.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let _ = slow.read(&mut [0; 64]);
    }
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(server.closed_for("header_timeout"), 1.0);
}

#[test]
fn a_resting_connection_is_kept_for_the_idle_time_and_no_longer() {
    let config = Config {
        header_timeout: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(600),
        ..config()
    };
    let server = Server::with_page(config, 100);
    let mut socket = server.connect();
    let mut answer = [0; 4096];
    for rest in [Duration::from_millis(250), PATIENCE] {
        socket.write_all(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        assert!(socket.read(&mut answer).unwrap() > 0, "a rest longer than a header may take ends nothing");
        let rested = Instant::now();
        socket.set_read_timeout(Some(rest)).unwrap();
        let open = timed_out(&mut socket);
        assert_eq!(open, rest < PATIENCE, "after {:?}", rested.elapsed());
        assert!(open || rested.elapsed() >= Duration::from_millis(500));
    }
    assert_eq!(server.closed_for("idle_timeout"), 1.0);
}

#[test]
fn a_flood_of_silent_connections_pushes_out_itself() {
    let server = Server::with_page(Config { connections_max: 4, ..config() }, 100);
    let silent: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
    assert_eq!(server.get("/metrics", "").status, 200);
    let closed = silent.into_iter().take(36).all(is_closed);
    assert!(closed, "those that came first are gone");
    assert!(server.closed_for("replaced") >= 37.0);
    server.until("the end of all", |server| {
        server.metric("telemetry_agent_http_server_connections", None) == 0.0
    });
}

#[test]
fn when_all_connections_are_being_answered_a_new_one_is_refused() {
    let config = Config { connections_max: 2, request_timeout: Duration::from_secs(2), ..config() };
    // More than the kernel buffers for a client that reads nothing.
    let server = Server::with_page(config, 60_000);
    let stalled: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut socket = server.connect();
            socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
            socket
        })
        .collect();
    server.until("both answers", |server| {
        server.metric("telemetry_agent_http_server_requests_total", Some(("handler", "/metrics"))) == 2.0
    });
    assert!(is_closed(server.connect()), "no place is left");
    assert_eq!(server.metric("telemetry_agent_http_server_connections_rejected_total", None), 1.0);
    server.until("the time-outs", |server| server.closed_for("request_timeout") == 2.0);
    assert_eq!(server.get("/livez", "").status, 200, "their places are free again");
    drop(stalled);
}

#[test]
fn a_stop_ends_every_connection_and_frees_the_port() {
    let server = Server::with_page(config(), 100);
    let mut resting = server.connect();
    resting.write_all(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert!(resting.read(&mut [0; 4096]).unwrap() > 0);
    let mut half = server.connect();
    half.write_all(b"GET /livez HT").unwrap();
    server.until("both connections", |server| {
        server.metric("telemetry_agent_http_server_connections", None) == 2.0
    });
    let address = server.address;
    let took = server.stop();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(is_closed(resting) && is_closed(half));
    drop(bind(address).expect("the port is free"));
}

#[test]
fn a_port_in_use_is_an_error_of_bind() {
    let server = Server::start(config());
    assert_eq!(bind(server.address).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}

/// In a process of its own, because the limit on files holds for all threads.
#[test]
fn accepting_goes_on_after_files_ran_out() {
    const NAME: &str = "api::tests::accepting_goes_on_after_files_ran_out";
    const CHILD: &str = "TELEMETRY_TEST_FEW_FILES";
    if std::env::var_os(CHILD).is_none() {
        let mut limited = Command::new("prlimit");
        limited.arg("--nofile=40").arg(std::env::current_exe().unwrap());
        let output = limited.args(["--exact", NAME]).env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let server = Server::with_page(config(), 100);
    assert_eq!(server.get("/livez", "").status, 200, "it has the files it needs before they run out");
    let mut sockets = Vec::new();
    while let Ok(socket) = TcpStream::connect(server.address) {
        sockets.push(socket);
    }
    server.until("a failed accept", |server| {
        server.metric("telemetry_agent_http_server_accept_errors_total", None) > 0.0
    });
    drop(sockets);
    assert_eq!(server.get("/metrics", "").status, 200);
}

#[test]
fn every_family_is_declared() {
    let server = Server::with_page(config(), 100);
    server.get("/metrics", "");
    server.get("/no/such/path", "");
    let families = server.deps.observe.families();
    let metrics = METRICS.first().unwrap();
    assert!(families.iter().all(|family| metrics.contains(family.desc)));
    assert_eq!(families.len(), metrics.len());
    let unknown = Some(("handler", "unknown"));
    assert_eq!(server.metric("telemetry_agent_http_server_requests_total", unknown), 1.0);
    assert_eq!(server.metric("telemetry_agent_http_server_duration_seconds", unknown), 1.0);
}

#[test]
fn the_settings_refuse_unknown_keys() {
    let written = "connections_max = 7\n";
    let read: Config = toml::from_str(written).unwrap();
    assert_eq!(read, Config { connections_max: 7, ..config() });
    assert!(toml::from_str::<Config>("connection_max = 7\n").is_err(), "a misspelt key is an error");
    assert!(toml::from_str::<expose::Config>("gzip = 7\n").is_err());
}
