//! TLS, users, tokens and limits, with curl as the client.

use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::*;
use crate::api::security::Error;

/// A directory with a web configuration and what it names.
pub(super) struct Files {
    dir: TempDir,
    authority: Issuer<'static, KeyPair>,
}

/// What curl got.
#[derive(Debug, PartialEq)]
pub(super) struct Got {
    /// 0 if there was no answer.
    pub(super) status: u16,
    pub(super) version: String,
    pub(super) text: String,
}

// === impl Files ===

impl Files {
    /// An authority, and a certificate of it for this host.
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "the authority of a test");
        let key = KeyPair::generate().unwrap();
        fs::write(dir.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        let files = Self { dir, authority: Issuer::new(params, key) };
        files.certify("server", "127.0.0.1");
        files
    }

    /// A certificate for a name, in `FILE.crt` and `FILE.key`.
    fn certify(&self, file: &str, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        self.write(&format!("{file}.crt"), &certificate.pem());
        self.write(&format!("{file}.key"), &key.serialize_pem());
    }

    pub(super) fn write(&self, file: &str, text: &str) {
        // In one step, as whoever replaces a file in use should.
        let new = self.path("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path(file)).unwrap();
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn load(&self, web: &str, listen: &str, access: Access) -> Result<Security, Error> {
        self.write("web.yml", web);
        let listen = (vec![listen.parse().unwrap()], access);
        Security::load(Some(&self.path("web.yml")), listen, None, &config(), Timestamp(0))
    }

    fn serve(&self, web: &str) -> Server {
        let security = self.load(web, "127.0.0.1:0", Access::Granted).unwrap();
        let server = Server::secured(config(), Arc::new(security));
        server.deps.latest.publish(fixture::snapshot(100));
        server
    }

    /// Asks with this authority.
    fn curl(&self, server: &Server, path: &str, args: &[&str]) -> Got {
        let ca = self.path("ca.crt");
        let url = format!("https://{}{path}", server.address);
        curl(&url, &[&["--cacert", ca.to_str().unwrap()], args].concat())
    }

    /// With a client's certificate beside.
    fn curl_as(&self, server: &Server, name: &str) -> Got {
        let (cert, key) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        self.curl(server, "/metrics", &["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()])
    }
}

pub(super) const TLS: &str = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n";

/// At the least cost that there is, so that tests are quick.
pub(super) fn users(pairs: &[(&str, &str)]) -> String {
    let mut text = "basic_auth_users:\n".to_owned();
    for (name, password) in pairs {
        text += &format!("  {name}: {}\n", bcrypt::hash(password, 4).unwrap());
    }
    text
}

pub(super) fn curl(url: &str, args: &[&str]) -> Got {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--path-as-is"])
        .args(["--write-out", "\n%{http_version} %{http_code}"])
        .args(args)
        .arg(url)
        .output()
        .expect("curl");
    // Shown when the test fails.
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (text, last) = text.rsplit_once('\n').unwrap();
    let (version, status) = last.split_once(' ').unwrap();
    Got { status: status.parse().unwrap(), version: version.to_owned(), text: text.to_owned() }
}

impl Server {
    pub(super) fn ask(&self, path: &str, args: &[&str]) -> Got {
        curl(&format!("http://{}{path}", self.address), args)
    }

    fn security_metric(&self, name: &str, label: Option<(&str, &str)>) -> f64 {
        let families = self.deps.security.families();
        let family = families.iter().find(|family| family.desc.name == name).unwrap();
        let series = family
            .series
            .iter()
            .find(|series| label.is_none_or(|(name, value)| series.labels.get(name) == Some(value)));
        let Some(Value::Number(value)) = series.map(|series| &series.value) else { panic!("no {name}") };
        *value
    }

    pub(super) fn refused_for(&self, reason: &str) -> f64 {
        self.security_metric("telemetry_agent_http_server_refused_total", Some(("reason", reason)))
    }

    fn reloads(&self, outcome: &str) -> f64 {
        self.security_metric("telemetry_agent_web_config_reloads_total", Some(("outcome", outcome)))
    }
}

#[test]
fn both_versions_are_spoken_in_clear_text() {
    let server = Server::with_page(config(), 100);
    for (args, version) in [(&["--http2-prior-knowledge"][..], "2"), (&[], "1.1")] {
        let got = server.ask("/metrics", args);
        assert_eq!((got.status, &*got.version), (200, version), "{args:?}");
        assert_eq!(got.text.as_bytes(), server.page(Format::Text));
    }
}

#[test]
fn tls_offers_both_versions_and_only_one_if_told() {
    let files = Files::new();
    let server = files.serve(TLS);
    let got = files.curl(&server, "/metrics", &[]);
    assert_eq!((got.status, &*got.version), (200, "2"));
    assert_eq!(got.text.as_bytes(), server.page(Format::Text));
    assert_eq!(files.curl(&server, "/metrics", &["--http1.1"]).version, "1.1");
    assert_eq!(files.curl(&server, "/metrics", &["--tls-max", "1.1"]).status, 0);
    assert_eq!(files.curl(&server, "/metrics", &["--tls-max", "1.2"]).status, 200);
    assert_eq!(server.ask("/metrics", &[]).status, 0, "clear text is not spoken");
    server.until("both are counted", |server| server.closed_for("handshake") >= 2.0);

    let server = files.serve(&format!(
        "{}http_server_config: {{http2: false}}\n",
        TLS.replace("server.key", "server.key, min_version: TLS13")
    ));
    assert_eq!(files.curl(&server, "/metrics", &[]).version, "1.1");
    assert_eq!(files.curl(&server, "/metrics", &["--tls-max", "1.2"]).status, 0);
}

#[test]
fn only_named_suites_and_curves_are_spoken() {
    let files = Files::new();
    let server = files.serve(&TLS.replace(
        "server.key",
        "server.key, max_version: TLS12, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256], curve_preferences: [CurveP256]",
    ));
    assert_eq!(files.curl(&server, "/livez", &[]).status, 200);
    assert_eq!(files.curl(&server, "/livez", &["--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"]).status, 0);
    assert_eq!(files.curl(&server, "/livez", &["--curves", "X25519"]).status, 0);
    for (field, part) in [
        ("cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]", "TLS_RSA_WITH_AES_128_CBC_SHA"),
        ("curve_preferences: [CurveP521]", "CurveP521"),
        ("min_version: TLS13, max_version: TLS12", "min_version"),
        ("client_ca_file: ca.crt", "client_auth_type"),
        ("client_auth_type: RequireAndVerifyClientCert", "client_ca"),
        (
            "client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca.crt, client_allowed_sans: [a]",
            "client_allowed_sans",
        ),
        ("cert: x", "cert_file"),
    ] {
        let web = TLS.replace("server.key", &format!("server.key, {field}"));
        let error = files.load(&web, "127.0.0.1:0", Access::Granted).err().unwrap().to_string();
        assert!(error.contains(part), "{field}: {error}");
    }
    let other = "tls_server_config: {cert_file: server.crt, key_file: other.key}\n";
    files.certify("other", "a.test");
    assert!(files.load(other, "127.0.0.1:0", Access::Granted).is_err(), "a key of another certificate");
}

#[test]
fn a_client_needs_a_certificate_of_the_authority_with_an_allowed_name() {
    let files = Files::new();
    files.certify("alice", "alice.test");
    files.certify("number", "10.1.2.3");
    files.certify("mallory", "mallory.test");
    let strangers = Files::new();
    strangers.certify("alice", "alice.test");
    for file in ["alice.crt", "alice.key"] {
        fs::copy(strangers.path(file), files.path(&format!("strange-{file}"))).unwrap();
    }
    let with = |fields: &str| files.serve(&TLS.replace("server.key", &format!("server.key, {fields}")));

    let server = with("client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt");
    assert_eq!(files.curl(&server, "/metrics", &[]).status, 0);
    assert_eq!(files.curl_as(&server, "alice").status, 200);
    assert_eq!(files.curl_as(&server, "strange-alice").status, 0);

    let server = with(
        "client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt, client_allowed_sans: [alice.test, 10.1.2.3]",
    );
    assert_eq!(files.curl_as(&server, "alice").status, 200);
    assert_eq!(files.curl_as(&server, "number").status, 200);
    assert_eq!(files.curl_as(&server, "mallory").status, 0);

    let server = with("client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca.crt");
    assert_eq!(files.curl(&server, "/metrics", &[]).status, 200);
    assert_eq!(files.curl_as(&server, "strange-alice").status, 0);

    let server = with("client_auth_type: RequireAnyClientCert");
    assert_eq!(files.curl(&server, "/metrics", &[]).status, 0);
    assert_eq!(files.curl_as(&server, "strange-alice").status, 200);
    let server = with("client_auth_type: RequestClientCert");
    assert_eq!(files.curl(&server, "/metrics", &[]).status, 200);
}

#[test]
fn only_users_are_answered_and_no_spelling_of_a_path_gets_around() {
    let files = Files::new();
    let server = files.serve(&users(&[("alice", "secret"), ("bob", "pass:word")]));
    let paths = [
        "/",
        "/metrics",
        "//metrics",
        "/metrics/",
        "/METRICS",
        "/livez/../metrics",
        "/livez/",
        "//livez",
        "/livez%2f",
        "/%2e%2e/metrics",
        "/api/v1/query?query=1",
        "//api/v1/labels",
        "/api/v1/status/config",
        "/api/v1/write",
        "/write",
        "/federate",
        "/nothing",
    ];
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for path in paths {
            for args in [
                &[][..],
                &["--user", "alice:wrong"],
                &["--user", "mallory:secret"],
                &["--user", ":"],
                &["--header", "Authorization: Bearer secret"],
                &["--header", "Authorization: Basic"],
                &["--header", "Authorization: Basic !!"],
                &["--header", "Authorization: Digest username=alice"],
                &["--user", "alice:secret", "--header", "Authorization: Basic x"],
            ] {
                let got = server.ask(path, &[&[version], args].concat());
                assert_eq!(got.status, 401, "{version} {path} {args:?}: {}", got.text);
            }
        }
        for (path, status) in [("/metrics", 200), ("/nothing", 404), ("/api/v1/query?query=1", 200)] {
            for user in ["alice:secret", "bob:pass:word"] {
                assert_eq!(server.ask(path, &[version, "--user", user]).status, status, "{path} {user}");
            }
        }
        for path in ["/livez", "/readyz", "/healthz", "/-/healthy", "/-/ready"] {
            assert_eq!(server.ask(path, &[version]).status, 200, "{path} is open");
        }
    }
    let asked = server.get("/metrics", "");
    assert_eq!(asked.header("www-authenticate"), Some("basic realm=\"telemetry\", charset=\"utf-8\""));
    assert_eq!(asked.header("x-content-type-options"), Some("nosniff"));
    let checks = server.security_metric("telemetry_agent_http_server_password_checks_total", None);
    assert_eq!(checks, 5.0, "one for each pair of name and password, however often it is said");
    assert!(server.refused_for("no_credentials") > 0.0 && server.refused_for("wrong_credentials") > 0.0);
    let unauthorised = Some(("code", "401"));
    assert!(server.metric("telemetry_agent_http_server_requests_total", unauthorised) > 0.0);
}

#[test]
fn an_unknown_user_is_hashed_as_a_known_one_is() {
    let files = Files::new();
    let server = files.serve(&users(&[("alice", "secret")]));
    for (at, name) in ["alice", "mallory", "mallory", "alice"].into_iter().enumerate() {
        assert_eq!(server.ask("/", &["--user", &format!("{name}:wrong{at}")]).status, 401);
    }
    let checks = server.security_metric("telemetry_agent_http_server_password_checks_total", None);
    assert_eq!(checks, 4.0, "the time of an answer does not tell who is known");
}

#[test]
fn a_token_of_the_file_opens() {
    let files = Files::new();
    files.write("tokens", "# of the scraper\n0123456789abcdef\n\nfedcba9876543210\n");
    let server = files.serve("bearer_tokens_file: tokens\n");
    let with = |token: &str| server.ask("/metrics", &["--header", &format!("Authorization: {token}")]).status;
    assert_eq!(with("Bearer 0123456789abcdef"), 200);
    assert_eq!(with("bearer fedcba9876543210"), 200);
    for wrong in
        ["Bearer 0123456789abcdee", "Bearer", "Bearer # of the scraper", "Basic 0123456789abcdef", "Bearer "]
    {
        assert_eq!(with(wrong), 401, "{wrong}");
    }
    assert_eq!(server.get("/", "").header("www-authenticate"), Some("bearer realm=\"telemetry\""));
    for wrong in ["short\n", "# none\n", "0123456789 abcdef\n"] {
        files.write("tokens", wrong);
        assert!(
            files.load("bearer_tokens_file: tokens\n", "127.0.0.1:0", Access::Granted).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn an_address_that_others_reach_needs_somebody_to_be_asked() {
    let files = Files::new();
    let load = |web: &str, listen: &str, access| files.load(web, listen, access).map(drop);
    for listen in ["0.0.0.0:9632", "[::]:9632", "192.0.2.1:80", "[::ffff:192.0.2.1]:80"] {
        let error = load("", listen, Access::Granted).unwrap_err();
        assert!(
            matches!(error, Error::Open(_)) && error.to_string().contains("--insecure-listen"),
            "{error}"
        );
        assert!(load(TLS, listen, Access::Granted).is_err(), "TLS alone asks nobody");
        let verified = TLS.replace(
            "server.key",
            "server.key, client_ca_file: ca.crt, client_auth_type: RequireAndVerifyClientCert",
        );
        load(&verified, listen, Access::Granted).unwrap();
        let any = TLS.replace("server.key", "server.key, client_auth_type: RequireAnyClientCert");
        assert!(load(&any, listen, Access::Granted).is_err(), "anybody can make a certificate");
        load(&users(&[("a", "b")]), listen, Access::Granted).unwrap();
        load("", listen, Access::Anybody).unwrap();
    }
    let ports = vec!["127.0.0.1:1".parse().unwrap(), "0.0.0.0:4317".parse().unwrap()];
    let error = Security::load(None, (ports, Access::Granted), None, &config(), Timestamp(0)).err().unwrap();
    assert!(error.to_string().contains("0.0.0.0:4317"), "one of several: {error}");
    for listen in ["127.0.0.1:1", "127.8.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        load("", listen, Access::Granted).unwrap();
    }
}

#[test]
fn users_change_while_a_connection_lives() {
    let files = Files::new();
    let server = files.serve(&users(&[("alice", "first")]));
    let mut socket = server.connect();
    let mut ask = |credentials: &str| {
        write!(socket, "GET /livez/ HTTP/1.1\r\nHost: test\r\nAuthorization: Basic {credentials}\r\n\r\n")
            .unwrap();
        let mut answer = [0; 4096];
        let read = socket.read(&mut answer).unwrap();
        Answer::parse(&answer[..read]).status
    };
    // alice:first, alice:second
    let (first, second) = ("YWxpY2U6Zmlyc3Q=", "YWxpY2U6c2Vjb25k");
    assert_eq!((ask(first), ask(second)), (404, 401));
    files.write("web.yml", &users(&[("alice", "second")]));
    server.until("the new users", |server| server.reloads("success") == 1.0);
    assert_eq!((ask(first), ask(second)), (401, 404));

    files.write("web.yml", "basic_auth_usres: {}\n");
    server.until("the broken file", |server| server.reloads("failure") == 1.0);
    assert_eq!((ask(first), ask(second)), (401, 404), "the one before it holds");
    let last = "telemetry_agent_web_config_last_reload_successful";
    assert_eq!(server.security_metric(last, None), 0.0);
    server.deps.security.look();
    assert_eq!(server.reloads("failure"), 1.0, "a broken file is read once");

    files.write("web.yml", &users(&[("alice", "first")]));
    server.until("the mended file", |server| server.reloads("success") == 2.0);
    assert_eq!((ask(first), ask(second)), (404, 401));
    assert_eq!(server.security_metric(last, None), 1.0);
}

#[test]
fn a_new_version_that_would_open_the_agent_is_refused() {
    let files = Files::new();
    let security = files.load(&users(&[("a", "b")]), "0.0.0.0:1", Access::Granted).unwrap();
    files.write("web.yml", "");
    security.look();
    let families = security.families();
    let last = families.iter().find(|family| family.desc.name.ends_with("reload_successful")).unwrap();
    assert!(matches!(last.series[0].value, Value::Number(value) if value == 0.0));
    let server = Server::secured(config(), Arc::new(security));
    assert_eq!(server.ask("/metrics", &[]).status, 401);
}

#[test]
fn certificates_change_and_old_connections_end() {
    let files = Files::new();
    let server = files.serve(TLS);
    assert_eq!(files.curl(&server, "/metrics", &[]).status, 200);
    let mut resting = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &server.address.to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    server.until("the resting connection", |server| {
        server.metric("telemetry_agent_http_server_connections", None) == 1.0
    });

    // A certificate whose key has not come yet is no certificate.
    let key = fs::read_to_string(files.path("server.key")).unwrap();
    files.certify("server", "127.0.0.1");
    let new_key = fs::read_to_string(files.path("server.key")).unwrap();
    files.write("server.key", &key);
    server.deps.security.look();
    assert_eq!(server.security_metric("telemetry_agent_web_config_last_reload_successful", None), 0.0);
    assert_eq!(files.curl(&server, "/metrics", &[]).status, 200, "the old pair holds");
    files.write("server.key", &new_key);
    server.until("the new pair", |server| server.reloads("success") >= 1.0);
    let got = files.curl(&server, "/metrics", &[]);
    assert_eq!(got.status, 200);
    resting.wait().unwrap();

    // One of another authority, which its own clients trust.
    let others = Files::new();
    for file in ["server.crt", "server.key"] {
        files.write(file, &fs::read_to_string(others.path(file)).unwrap());
    }
    server.until("the other authority's", |_| others.curl(&server, "/metrics", &[]).status == 200);
    assert_eq!(files.curl(&server, "/metrics", &[]).status, 0);
}

#[test]
fn a_file_that_comes_late_is_seen() {
    let files = Files::new();
    let server = files.serve(&users(&[("alice", "secret")]));
    files.write("web.yml", "bearer_tokens_file: late\n");
    server.until("the failure", |server| server.reloads("failure") == 1.0);
    files.write("late", "0123456789abcdef\n");
    server.until("the file", |server| server.reloads("success") == 1.0);
    let args = ["--header", "Authorization: Bearer 0123456789abcdef"];
    assert_eq!(server.ask("/metrics", &args).status, 200);
}

#[test]
fn headers_of_the_file_are_added_and_take_nothing_away() {
    let files = Files::new();
    let server = files.serve(
        "http_server_config:\n  headers: {X-Frame-Options: deny, Content-Security-Policy: default-src x}\n",
    );
    let answer = server.get("/livez", "");
    assert_eq!(answer.header("x-frame-options"), Some("deny"));
    assert_eq!(answer.header("content-security-policy"), Some("default-src x"));
    let index = server.get("/", "");
    assert!(
        index.header("content-security-policy").unwrap().contains("'none'"),
        "the page's own is stricter"
    );
}

#[test]
fn the_bucket_of_the_file_holds_for_all() {
    let files = Files::new();
    let server = files.serve("rate_limit: {interval: 1h, burst: 2}\n");
    assert_eq!((server.get("/metrics", "").status, server.get("/metrics", "").status), (200, 200));
    let answer = server.get("/metrics", "");
    assert_eq!(answer.status, 429);
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert_eq!(server.get("/livez", "").status, 200, "health is not limited");
    assert_eq!(server.refused_for("rate_limit"), 1.0);
}

#[test]
fn one_client_has_so_many_requests_and_no_more() {
    let config = Config { client_concurrency_max: 2, limit_loopback: true, ..config() };
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
    let answer = server.get("/metrics", "");
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")));
    assert_eq!(server.ask("/metrics", &["--http2-prior-knowledge"]).status, 429);
    assert_eq!(server.get("/livez", "").status, 200);
    assert_eq!(server.refused_for("client_concurrency"), 2.0);
    drop(stalled);
    server.until("its places", |server| server.get("/metrics", "").status == 200);
}

#[test]
fn every_family_of_security_is_declared() {
    let families = security(&config()).families();
    let declared = crate::api::security::METRICS;
    assert_eq!(families.len(), declared.len());
    assert!(families.iter().all(|family| declared.contains(family.desc)));
}
