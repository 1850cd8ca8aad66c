//! The agent's page as public clients read it: `promtool`, and a real Prometheus in both formats.
//!
//! The programs of Debian's package `prometheus` must be on the path. Prometheus prefers OpenMetrics and, in the
//! versions in use, has no setting against it; so each scrape goes through a relay that notes the format, and that of
//! the second job asks for the text format only.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use telemetry_tests::agent::{Agent, Settings};
use telemetry_tests::host::{claim, kernel_test};
use telemetry_tests::http;
use telemetry_tests::prometheus::Prometheus;

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0";
const TEXT: &str = "text/plain;version=0.0.4";

/// What samples of a declared family may add to its name.
const TEXT_SUFFIXES: &[&str] = &["_bucket", "_sum", "_count"];
const OPENMETRICS_SUFFIXES: &[&str] = &["_total", "_created", "_info", "_bucket", "_sum", "_count"];

/// Stands between a scraper and the agent.
struct Relay {
    address: SocketAddr,
    /// The `Content-Type` of the newest answer.
    content_type: Arc<Mutex<String>>,
}

// === impl Relay ===

impl Relay {
    /// Hands every request on to `agent`; with `accept` in place of the client's own, if it is given.
    fn start(agent: SocketAddr, accept: Option<&'static str>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let content_type = Arc::new(Mutex::new(String::new()));
        let noted = Arc::clone(&content_type);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A scrape that fails here shows as a target that is down.
                if let Ok(content_type) = relay(&client, agent, accept) {
                    *noted.lock().unwrap_or_else(PoisonError::into_inner) = content_type;
                }
            }
        });
        Ok(Self { address, content_type })
    }

    fn content_type(&self) -> String {
        self.content_type.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One request and its answer; gives the answer's `Content-Type`.
fn relay(mut client: &TcpStream, agent: SocketAddr, accept: Option<&str>) -> Result<String> {
    let mut request = String::new();
    for line in BufReader::new(client).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let is_replaced = name == "connection" || (name == "accept" && accept.is_some());
        if !is_replaced {
            request.push_str(&format!("{line}\r\n"));
        }
    }
    if let Some(accept) = accept {
        request.push_str(&format!("Accept: {accept}\r\n"));
    }
    let mut server = TcpStream::connect(agent)?;
    server.write_all(format!("{request}Connection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    client.write_all(&answer)?;
    let head = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    let line = head.lines().find_map(|line| line.strip_prefix("content-type:"));
    Ok(line.context("answer without a type")?.trim().to_owned())
}

/// A Prometheus that scrapes each target, a job by its name, every second.
fn scraper(jobs: &[(&str, SocketAddr)]) -> Result<Prometheus> {
    let mut config = String::from("global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n");
    for (job, target) in jobs {
        config.push_str(&format!(
            "- {{job_name: {job}, honor_labels: true, static_configs: [{{targets: ['{target}']}}]}}\n"
        ));
    }
    Prometheus::start(&config, &[])
}

fn page(agent: &Agent, accept: &str) -> Result<String> {
    let answer = http::get(agent.address(), "/metrics", &[("Accept", accept)])?;
    ensure!(answer.status == 200, "status {}", answer.status);
    Ok(String::from_utf8(answer.body)?)
}

/// Names that lines `# <word> <name> ..` speak of.
fn declared<'a>(page: &'a str, word: &str) -> Vec<&'a str> {
    let prefix = format!("# {word} ");
    page.lines().filter_map(|line| line.strip_prefix(&prefix)?.split(' ').next()).collect()
}

/// The families of the sample lines, in their order.
fn sampled<'a>(page: &'a str, families: &[&'a str], suffixes: &[&str]) -> Vec<&'a str> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let names = samples.map(|line| line.split(['{', ' ']).next().unwrap_or_default());
    let mut found: Vec<&str> = names
        .map(|name| {
            let family = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
            family.filter(|family| families.contains(family)).unwrap_or(name)
        })
        .collect();
    found.dedup();
    found
}

#[test]
fn promtool_finds_no_fault_with_the_page() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let page = page(&agent, TEXT)?;
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start promtool (Debian package prometheus)")?;
        promtool.stdin.take().context("input of promtool")?.write_all(page.as_bytes())?;
        let output = promtool.wait_with_output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        claim(output.status.success() && said.is_empty(), || format!("{}: {said}", output.status))
    });
}

#[test]
fn every_family_has_help_and_type_in_both_formats() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        for (accept, suffixes) in [(TEXT, TEXT_SUFFIXES), (OPENMETRICS, OPENMETRICS_SUFFIXES)] {
            let page = page(&agent, accept)?;
            let (helps, types) = (declared(&page, "HELP"), declared(&page, "TYPE"));
            claim(helps == types, || format!("{accept}: HELP of {helps:?}, TYPE of {types:?}"))?;
            let sampled = sampled(&page, &types, suffixes);
            claim(!sampled.is_empty(), || format!("{accept}: no samples"))?;
            for family in sampled {
                claim(types.contains(&family), || format!("{accept}: nothing is said of {family}"))?;
            }
            let has_units = !declared(&page, "UNIT").is_empty();
            let has_end = page.ends_with("\n# EOF\n");
            let expected = accept == OPENMETRICS;
            claim((has_units, has_end) == (expected, expected), || {
                format!("{accept}: units {has_units}, end of file {has_end}")
            })?;
        }
        Ok(())
    });
}

#[test]
fn prometheus_scrapes_owners_in_both_formats() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let preferred = Relay::start(agent.address(), None)?;
        let plain = Relay::start(agent.address(), Some(TEXT))?;
        let jobs = [("openmetrics", preferred.address), ("text", plain.address)];
        let prometheus = scraper(&jobs)?;
        for (job, _) in jobs {
            prometheus.has(&format!("up{{job=\"{job}\"}} == 1"))?;
            let owners = prometheus.has(&format!("kernel_cpu_seconds_total{{job=\"{job}\",unit!=\"\"}}"))?;
            let has_kernel = owners
                .iter()
                .any(|series| series.pointer("/metric/unit").is_some_and(|unit| unit == "kernel"));
            claim(has_kernel, || format!("{job}: no series of the kernel's own in {owners:?}"))?;
            prometheus.has(&format!("rate(kernel_context_switches_total{{job=\"{job}\"}}[10s]) > 0"))?;
            let latency = format!("kernel_sched_runqueue_latency_seconds_bucket{{job=\"{job}\"}}");
            prometheus.has(&format!("histogram_quantile(0.99, sum by (le) (rate({latency}[10s]))) > 0"))?;
        }
        let (preferred, plain) = (preferred.content_type(), plain.content_type());
        claim(preferred.starts_with("application/openmetrics-text; version=1.0.0"), || preferred.clone())?;
        claim(plain.starts_with("text/plain; version=0.0.4"), || plain.clone())
    });
}
