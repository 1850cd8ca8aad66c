//! Tokens that an authority knows, over HTTP and gRPC, with curl as the client.

use std::fs;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use telemetry_model::Verdict;

use super::secure::{Files, Got, TLS, curl, users};
use super::*;
use crate::api::grpc::{self, Service};
use crate::api::security::Authority;

/// Knows three tokens, and what it was asked.
#[derive(Default)]
struct Cluster(Mutex<Vec<String>>);

const EXPORT: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

// === impl Cluster ===

impl Cluster {
    /// A server that asks it, beside `web`.
    fn serve(self: &Arc<Self>, files: &Files, web: &str) -> Server {
        let server = Server::secured(config(), self.security(files, web));
        server.deps.latest.publish(fixture::snapshot(100));
        server
    }

    fn security(self: &Arc<Self>, files: &Files, web: &str) -> Arc<Security> {
        files.write("web.yml", web);
        // An address that others reach: with an authority that is allowed.
        let listen = (vec!["0.0.0.0:1".parse().unwrap()], Access::Granted);
        let authority = Arc::clone(self) as Arc<dyn Authority>;
        let loaded =
            Security::load(Some(&files.path("web.yml")), listen, Some(authority), &config(), Timestamp(0));
        Arc::new(loaded.unwrap())
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Authority for Cluster {
    fn check<'a>(&'a self, token: &'a str, verb: &'a str, path: &'a str) -> BoxFuture<'a, Verdict> {
        self.0.lock().unwrap().push(format!("{token} {verb} {path}"));
        let verdict = match token {
            "reader" if verb == "get" => Verdict::Allowed,
            "writer" if verb == "post" => Verdict::Allowed,
            "reader" | "writer" => Verdict::Forbidden,
            "silence" => Verdict::Unavailable,
            "crowd" => Verdict::Busy,
            _ => Verdict::Unknown,
        };
        std::future::ready(verdict).boxed()
    }
}

fn bearer(token: &str) -> [String; 2] {
    ["--header".to_owned(), format!("Authorization: Bearer {token}")]
}

impl Server {
    fn ask_as(&self, token: &str, path: &str, args: &[&str]) -> Got {
        let bearer = bearer(token);
        self.ask(path, &[&bearer.each_ref().map(String::as_str)[..], args].concat())
    }
}

#[test]
fn every_path_is_for_those_who_may_and_for_nobody_else() {
    let (files, cluster) = (Files::new(), Arc::new(Cluster::default()));
    let server = cluster.serve(&files, "");
    let paths = [
        "/",
        "/metrics",
        "//metrics",
        "/livez/",
        "//livez",
        "/api/v1/query?query=1",
        "//api/v1/labels",
        "/federate?match[]=up",
        "/v1/status",
        "/nothing",
    ];
    for path in paths {
        assert_eq!(server.ask(path, &["--globoff"]).status, 401, "{path}");
        for (token, status) in [("guess", 401), ("writer", 403), ("silence", 503), ("crowd", 429)] {
            assert_eq!(server.ask_as(token, path, &["--globoff"]).status, status, "{token} {path}");
        }
        let got = server.ask_as("reader", path, &["--globoff"]).status;
        let missing = matches!(path, "/nothing" | "/livez/");
        assert_eq!(got, if missing { 404 } else { 200 }, "{path}");
    }
    for path in ["/livez", "/readyz", "/healthz", "/-/healthy", "/-/ready"] {
        assert_eq!(server.ask(path, &[]).status, 200, "{path} is open");
    }
    let refused = server.get("/metrics", "");
    assert_eq!(refused.header("www-authenticate"), Some("bearer realm=\"telemetry\""));
    let told = server.get("/metrics", "Authorization: Bearer silence\r\n");
    assert_eq!(told.header("retry-after"), Some("1"));
    for reason in ["forbidden", "review_failed", "review_queue"] {
        assert!(server.refused_for(reason) >= paths.len() as f64, "{reason}");
    }
}

#[test]
fn reading_is_get_whatever_the_method_and_the_path_is_what_it_means() {
    let (files, cluster) = (Files::new(), Arc::new(Cluster::default()));
    let server = cluster.serve(&files, "");
    for (method, path, asked) in [
        ("GET", "//api//v1/query?query=1", "get /api/v1/query"),
        ("POST", "/api/v1/query?query=1", "get /api/v1/query"),
        ("POST", "/api/v1/series", "get /api/v1/series"),
        ("POST", "/api/v1/read", "get /api/v1/read"),
        ("OPTIONS", "/api/v1/query", "get /api/v1/query"),
        ("POST", "/api/v1/write", "post /api/v1/write"),
        ("POST", "/write", "post /write"),
        ("POST", "/api/v1/otlp/v1/metrics", "post /api/v1/otlp/v1/metrics"),
        ("POST", "/v1/metrics", "post /v1/metrics"),
        ("POST", "/api/v1/admin/tsdb/snapshot", "post /api/v1/admin/tsdb/snapshot"),
        ("PUT", "/api/v1/admin/tsdb/delete_series", "put /api/v1/admin/tsdb/delete_series"),
        ("POST", "/api/v1/label/job/values", "post /api/v1/label/job/values"),
        ("DELETE", "/v1/events", "delete /v1/events"),
        ("BREW", "/metrics", "other /metrics"),
    ] {
        server.ask_as("guess", path, &["--request", method]);
        assert_eq!(cluster.asked(), [format!("guess {asked}")], "{method} {path}");
    }
    assert_eq!(server.ask_as("writer", "/api/v1/write", &["--data", "x"]).status, 415);
    assert_eq!(server.ask_as("reader", "/api/v1/write", &["--data", "x"]).status, 403);
}

#[test]
fn the_authority_is_asked_only_about_tokens_that_no_file_knows() {
    let (files, cluster) = (Files::new(), Arc::new(Cluster::default()));
    files.write("tokens", "a-token-of-the-file\n");
    let alice = users(&[("alice", "secret")]);
    let server = cluster.serve(&files, &format!("{alice}bearer_tokens_file: tokens\n"));
    assert_eq!(server.ask_as("a-token-of-the-file", "/metrics", &[]).status, 200);
    assert_eq!(server.ask("/metrics", &["--user", "alice:secret"]).status, 200);
    assert_eq!(server.ask("/metrics", &["--user", "alice:reader"]).status, 401);
    assert!(cluster.asked().is_empty());
    assert_eq!(server.ask_as("reader", "/metrics", &[]).status, 200);
    assert_eq!(cluster.asked(), ["reader get /metrics"]);
}

#[test]
fn calls_over_grpc_have_the_same_tls_and_the_same_tokens() {
    let (files, cluster) = (Files::new(), Arc::new(Cluster::default()));
    let security = cluster.security(&files, TLS);
    let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let receiver = Arc::new(OtlpReceiver::new(db(), &otlp::Config::default()));
    let (stop, stopped) = watch::channel(false);
    let shared = Arc::clone(&security);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(grpc::serve(listener, Service::Otlp(receiver), shared, stopped))
    });
    // An empty push.
    fs::write(files.path("message"), [0; 5]).unwrap();
    let (ca, message) = (files.path("ca.crt"), format!("@{}", files.path("message").display()));
    let call = |token: Option<&str>, args: &[&str]| {
        let header = token.map(bearer);
        let said = header.iter().flatten().map(String::as_str);
        let mut all = vec!["--cacert", ca.to_str().unwrap(), "--request", "POST", "--include"];
        all.extend(["--header", "Content-Type: application/grpc"]);
        all.extend(said.chain(args.iter().copied()));
        curl(&format!("https://{address}{EXPORT}"), &all)
    };
    let status = |got: &Got| {
        let line = got.text.lines().find_map(|line| line.strip_prefix("grpc-status: "));
        line.map(|code| code.trim().to_owned())
    };
    for (token, code) in [
        (None, Some("16")),
        (Some("guess"), Some("16")),
        (Some("reader"), Some("7")),
        (Some("silence"), Some("14")),
        (Some("crowd"), Some("14")),
    ] {
        let got = call(token, &[]);
        assert_eq!(
            (got.status, &*got.version, status(&got).as_deref()),
            (200, "2", code),
            "{token:?} {got:?}"
        );
    }
    let got = call(Some("writer"), &["--data-binary", &message]);
    assert_eq!(got.status, 200);
    // It ends with the call's trailer, which some versions of curl show.
    assert!(status(&got).is_none_or(|code| code == "0"), "{got:?}");
    assert_eq!(cluster.asked().last().unwrap(), &format!("writer post {EXPORT}"));
    assert_eq!(call(Some("writer"), &["--http1.1"]).status, 0, "this port speaks HTTP/2 alone");
    let clear = curl(&format!("http://{address}{EXPORT}"), &["--http2-prior-knowledge", "--data", "x"]);
    assert_eq!(clear.status, 0, "clear text is not spoken");
    stop.send(true).unwrap();
    thread.join().unwrap().unwrap();
}
