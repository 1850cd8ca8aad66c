//! `telemetry-agent query` against the HTTP side with TLS, users, tokens and certificates, over a real socket.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use clap::Parser as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use telemetry_agent::api::prometheus::{self, Facts};
use telemetry_agent::api::security::{Access, Security};
use telemetry_agent::api::{
    self, Check, Deps, Health, HttpStats, OtlpReceiver, Prometheus, Receiver, V1, otlp, v1,
};
use telemetry_agent::cli::query::{self, Query};
use telemetry_agent::journal::Journal;
use telemetry_agent::store::{History, Latest};
use telemetry_agent::{expose, sysexits};
use telemetry_model::clock::Timestamp;
use telemetry_tsdb::db::{self, Db};
use tokio::sync::watch;

const TLS: &str = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n";

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    query: Query,
}

struct Well;

impl Health for Well {
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Vec<Check> {
        Vec::new()
    }
}

/// Serves until the sender is dropped.
fn serve(web: &Path) -> (SocketAddr, watch::Sender<bool>) {
    let config = api::Config::default();
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let security =
        Security::load(Some(web), (vec![local], Access::Granted), None, &config, Timestamp(0)).unwrap();
    let db =
        Arc::new(Db::in_memory(db::Config::default(), Arc::new(telemetry_tsdb::fs::SystemClock::default())));
    let facts = Facts { started: SystemTime::UNIX_EPOCH, config: String::new(), flags: BTreeMap::new() };
    let source = Arc::new(History::new(Arc::clone(&db)));
    let latest = Arc::new(Latest::default());
    let (journal, _) = Journal::new(&Default::default());
    let own = V1::new(v1::Parts {
        latest: Arc::clone(&latest),
        health: Arc::new(Well),
        journal,
        facts: v1::Facts::default(),
        gzip_min_bytes: 1024,
    });
    let deps = Deps {
        latest,
        health: Arc::new(Well),
        own: Arc::new(own),
        observe: Arc::new(HttpStats::new(Timestamp(0))),
        queries: Arc::new(Prometheus::new(Arc::clone(&db), source, &prometheus::Config::default(), facts)),
        otlp: Arc::new(OtlpReceiver::new(Arc::clone(&db), &otlp::Config::default())),
        pushes: Arc::new(Receiver::new(db)),
        security: Arc::new(security),
    };
    let listener = api::bind(local).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(api::serve(listener, deps, config, expose::Config::default(), stopped))
    });
    (address, stop)
}

/// An authority, and certificates of it for the server and for a client.
fn certify(dir: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "the authority of a test");
    let key = KeyPair::generate().unwrap();
    fs::write(dir.join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    let authority = Issuer::new(params, key);
    for (file, name) in [("server", "127.0.0.1"), ("alice", "alice.test")] {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        fs::write(dir.join(format!("{file}.crt")), certificate.pem()).unwrap();
        fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

/// The exit code of a question.
fn ask(url: &str, dir: &Path, args: &[(&str, &str)]) -> u8 {
    let mut line: Vec<String> = ["query", "1", "--url", url].map(str::to_owned).to_vec();
    for (flag, value) in args {
        let file = || PathBuf::from(dir).join(value).display().to_string();
        line.extend([(*flag).to_owned(), if flag.ends_with("-file") { file() } else { (*value).to_owned() }]);
    }
    query::run(&Cli::try_parse_from(line).unwrap().query).map_or_else(|(code, _)| code, |()| sysexits::OK)
}

#[test]
fn a_question_says_who_asks() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    certify(dir);
    for (file, text) in [("password", "secret\n"), ("wrong", "public\n"), ("tokens", "0123456789abcdef\n")] {
        fs::write(dir.join(file), text).unwrap();
    }
    let hash = bcrypt::hash("secret", 4).unwrap();
    let web = format!("{TLS}basic_auth_users: {{alice: {hash}}}\nbearer_tokens_file: tokens\n");
    fs::write(dir.join("web.yml"), web).unwrap();
    let (address, _stop) = serve(&dir.join("web.yml"));
    let url = format!("https://{address}");
    let ca = ("--ca-file", "ca.crt");
    assert_eq!(ask(&url, dir, &[ca, ("--user", "alice"), ("--password-file", "password")]), sysexits::OK);
    assert_eq!(ask(&url, dir, &[ca, ("--token-file", "tokens")]), sysexits::OK);
    let wrong = [ca, ("--user", "alice"), ("--password-file", "wrong")];
    assert_eq!(ask(&url, dir, &wrong), sysexits::NO_PERMISSION);
    assert_eq!(ask(&url, dir, &[ca]), sysexits::NO_PERMISSION);
    let another = [("--ca-file", "alice.crt"), ("--token-file", "tokens")];
    assert_eq!(ask(&url, dir, &another), sysexits::UNAVAILABLE, "not its authority");
    assert_eq!(ask(&url, dir, &[("--ca-file", "tokens")]), sysexits::DATA_ERROR);
    assert_eq!(ask(&url, dir, &[("--ca-file", "absent")]), sysexits::NO_INPUT);
    assert_eq!(ask(&format!("ftp://{address}"), dir, &[]), sysexits::USAGE);
}

#[test]
fn a_certificate_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    certify(dir);
    let fields = "server.key, client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt";
    fs::write(dir.join("web.yml"), TLS.replace("server.key", fields)).unwrap();
    let (address, _stop) = serve(&dir.join("web.yml"));
    let url = format!("https://{address}");
    let ca = ("--ca-file", "ca.crt");
    let shown = [ca, ("--cert-file", "alice.crt"), ("--key-file", "alice.key")];
    assert_eq!(ask(&url, dir, &shown), sysexits::OK);
    assert_eq!(ask(&url, dir, &[ca]), sysexits::UNAVAILABLE);
}
