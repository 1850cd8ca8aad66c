//! OpenTelemetry's own SDK pushes to the agent: every kind of point, over HTTP and gRPC, and each arrives as it was.
//! And a client of gRPC's own library asks as Thanos does.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use telemetry_tests::agent::{Settings, free_address};
use telemetry_tests::host::{claim, kernel_test};
use telemetry_tests::python;

/// Runs a script beside an agent with a port for gRPC.
fn run(script: &str, settings: impl Fn(&str) -> Settings) -> Result<String> {
    python::interpreter("opentelemetry")?;
    let grpc = free_address()?.to_string();
    let agent = settings(&grpc).start()?;
    let base = format!("http://{}", agent.address());
    Ok(python::run("opentelemetry", script, &[&base, &grpc])?.trim().to_owned())
}

#[test]
fn every_kind_of_point_arrives_by_every_way() {
    kernel_test(|| {
        let said = run("otlp_push.py", |grpc| Settings::new().top(&format!("otlp_grpc = \"{grpc}\"")))?;
        claim(said == "all 6 ways", || format!("{said:?}"))
    });
}

#[test]
fn thanos_reads_what_the_query_api_answers() {
    kernel_test(|| {
        let labels = "thanos.external_labels = [\"node=n1\", \"cluster=c1\"]";
        let said = run("thanos_calls.py", |grpc| {
            Settings::new().top(&format!("thanos_grpc = \"{grpc}\"")).top(labels)
        })?;
        claim(said == "all calls", || format!("{said:?}"))
    });
}

/// An authority and a certificate of it for this host, and a file that names both and a token.
fn secure(dir: &Path, token: &str) -> Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Another name than its certificate has by default: equal ones look as if it had signed itself.
    params.distinguished_name.push(rcgen::DnType::CommonName, "the authority of a test");
    let key = KeyPair::generate()?;
    fs::write(dir.join("ca.crt"), params.self_signed(&key)?.pem())?;
    let authority = Issuer::new(params, key);
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &authority)?;
    fs::write(dir.join("tls.crt"), certificate.pem())?;
    fs::write(dir.join("tls.key"), key.serialize_pem())?;
    fs::write(dir.join("tokens"), format!("{token}\n"))?;
    let web = "tls_server_config: {cert_file: tls.crt, key_file: tls.key}\nbearer_tokens_file: tokens\n";
    fs::write(dir.join("web.yml"), web).context("write web.yml")
}

#[test]
fn over_tls_only_those_with_a_token_push_and_ask() {
    kernel_test(|| {
        python::interpreter("opentelemetry")?;
        let (dir, token) = (tempfile::tempdir()?, "a-token-for-this-test");
        secure(dir.path(), token)?;
        let (otlp, thanos) = (free_address()?.to_string(), free_address()?.to_string());
        let agent = Settings::new()
            .secured(&dir.path().join("web.yml"))
            .top(&format!("otlp_grpc = \"{otlp}\""))
            .top(&format!("thanos_grpc = \"{thanos}\""))
            .start()?;
        let (base, ca) =
            (format!("https://{}", agent.address()), dir.path().join("ca.crt").display().to_string());
        let said = python::run("opentelemetry", "otlp_secure.py", &[&base, &otlp, &thanos, &ca, token])?;
        claim(said.trim() == "only with a token", || format!("{said:?}"))
    });
}
