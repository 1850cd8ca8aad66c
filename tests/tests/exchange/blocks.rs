//! Blocks that the real promtool and the real Prometheus wrote.

#![allow(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "bits are written by hand"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use telemetry_tests::agent::free_address;
use telemetry_tests::host::eventually;
use telemetry_tests::http;

use super::{Data, START, text_of, tool};

const LIMIT: Duration = Duration::from_secs(60);

/// Twenty series of `rows` samples, 15 s apart and a little off, as blocks of promtool.
pub fn make_blocks(promtool: &Path, data: &Data, rows: i64) -> PathBuf {
    let mut text = String::from("# TYPE req counter\n");
    let special = ["NaN", "+Inf", "-Inf", "-0", "1e-310", "12345.678", "1e300"];
    for series in 0..20i64 {
        for k in 0..rows {
            let t = START + k * 15_000 + (k * series) % 7;
            let _ = write!(text, "req_total{{i=\"{series}\",p=\"a\\\"b\\\\c\\nd\"}} ");
            let _ = match usize::try_from(k % 50).ok().and_then(|at| special.get(at)).filter(|_| series == 3)
            {
                Some(value) => write!(text, "{value}"),
                None => write!(text, "{}", k * series),
            };
            let _ = writeln!(text, " {}.{:03}", t / 1000, t % 1000);
        }
    }
    text.push_str("# EOF\n");
    fs::write(data.path("in.om"), text).unwrap();
    let blocks = data.path("prometheus");
    let made = Command::new(promtool)
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([data.path("in.om"), blocks.clone()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    blocks
}

/// Every sample of `promtool tsdb dump`: labels and time, and the value's bits.
fn promtool_dump(promtool: &Path, blocks: &Path) -> BTreeMap<(String, i64), String> {
    // Older ones ask for a log.
    fs::create_dir_all(blocks.join("wal")).unwrap();
    let output = Command::new(promtool).args(["tsdb", "dump"]).arg(blocks).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let parsed = text.lines().map(|line| {
        let (rest, t) = line.rsplit_once(' ').unwrap();
        let end = rest.find("\"} ").unwrap() + 2;
        let (labels, value) = rest.split_at(end);
        ((labels.to_owned(), t.parse().unwrap()), value.trim().to_owned())
    });
    parsed.collect()
}

/// Every sample of a store, in promtool's words.
fn own_dump(data: &Data) -> BTreeMap<(String, i64), String> {
    let db = data.db();
    let all = telemetry_model::Matcher::new("__name__", telemetry_model::MatchOp::Regex, ".*");
    let selection = db.select(&[all], i64::MIN, i64::MAX).unwrap();
    let mut reader = selection.reader();
    let mut samples = BTreeMap::new();
    for series in selection.series() {
        let pair = |(name, value): &(std::sync::Arc<str>, std::sync::Arc<str>)| format!("{name}={value:?}");
        let labels = format!("{{{}}}", series.labels().iter().map(pair).collect::<Vec<_>>().join(", "));
        let column = reader.read(series, i64::MIN, i64::MAX).unwrap();
        let mut histograms = column.histograms.iter().peekable();
        for (at, (t, value)) in column.times.iter().zip(&column.values).enumerate() {
            let text = match histograms.next_if(|(of, _)| *of as usize == at) {
                Some((_, histogram)) => format!("{histogram:?}"),
                None => format!("{:x}", if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }),
            };
            samples.insert((labels.clone(), *t), text);
        }
    }
    samples
}

fn bits(text: &str) -> String {
    let value: f64 = text.parse().unwrap();
    format!("{:x}", if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() })
}

#[test]
fn blocks_of_promtool_are_read_sample_by_sample() {
    let Some(promtool) = tool("promtool") else { return };
    let data = Data::new();
    let blocks = make_blocks(&promtool, &data, 1500);
    let said = data.tsdb(&["import", text_of(&blocks)]).ok();
    assert!(said.starts_with("30,000 samples taken from"), "{said}");
    let theirs: BTreeMap<_, _> =
        promtool_dump(&promtool, &blocks).into_iter().map(|(key, value)| (key, bits(&value))).collect();
    let ours = own_dump(&data);
    assert_eq!(ours.len(), theirs.len());
    for (key, value) in &theirs {
        assert_eq!(ours.get(key), Some(value), "{key:?}");
    }
    // The text they were made of says the same.
    let said = data.tsdb(&["import", text_of(&data.path("in.om"))]);
    assert_eq!(said.code, 65, "a counter that is NaN is none: {}", said.out);
    let said = data.tsdb(&["import", "--lenient", text_of(&data.path("in.om"))]).ok();
    assert!(said.starts_with("0 samples taken\n  30,000 were there already\n"), "{said}");
}

#[test]
fn damaged_blocks_cost_what_is_damaged() {
    let Some(promtool) = tool("promtool") else { return };
    let data = Data::new();
    let blocks = make_blocks(&promtool, &data, 400);
    let block = fs::read_dir(&blocks)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|dir| dir.join("index").is_file());
    let block = block.unwrap();
    let chunks = block.join("chunks/000001");
    let mut bytes = fs::read(&chunks).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&chunks, &bytes).unwrap();
    let said = data.tsdb(&["import", text_of(&block)]);
    assert_eq!(said.code, 65, "{}", said.err);
    assert!(said.out.contains("damaged: ") && said.out.contains("checksum"), "{}", said.out);
    assert!(said.err.contains("1 chunk could not be read"), "{}", said.err);
    let index = block.join("index");
    let mut bytes = fs::read(&index).unwrap();
    bytes[40] ^= 1;
    fs::write(&index, &bytes).unwrap();
    let said = data.tsdb(&["import", text_of(&block)]);
    assert_eq!(said.code, 65, "{}", said.err);
    let said = data.tsdb(&["import", text_of(&data.path("none"))]);
    assert_eq!(said.code, 66, "{}", said.err);
}

/// A Prometheus that scrapes one target. Killed when dropped.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Field number and wire type.
fn tag(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f | 0x80) as u8);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    tag(out, field, 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn double_field(out: &mut Vec<u8>, field: u64, value: f64) {
    tag(out, field, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// One family of one native histogram after `n` scrapes, of integers or of floats.
fn family(name: &str, n: u64, is_float: bool) -> Vec<u8> {
    let mut h = Vec::new();
    let half = if is_float { 0.5 } else { 0.0 };
    if is_float {
        double_field(&mut h, 4, 4.0 * n as f64 + 3.0 * half);
        double_field(&mut h, 8, n as f64 + half);
    } else {
        tag(&mut h, 1, 0);
        varint(&mut h, 4 * n);
        tag(&mut h, 7, 0);
        varint(&mut h, n);
    }
    double_field(&mut h, 2, 1.5 * n as f64);
    tag(&mut h, 5, 0);
    varint(&mut h, zigzag(3));
    double_field(&mut h, 6, 0.001);
    // Bucket -2 and 4 above zero, 1 below.
    for (span, delta, count, spans) in
        [(9u64, 10u64, 11u64, &[(1i64, 1u64)][..]), (12, 13, 14, &[(-2, 1), (5, 1)])]
    {
        for (offset, length) in spans {
            let mut s = Vec::new();
            tag(&mut s, 1, 0);
            varint(&mut s, zigzag(*offset));
            tag(&mut s, 2, 0);
            varint(&mut s, *length);
            bytes_field(&mut h, span, &s);
        }
        let mut last = 0;
        for _ in spans {
            if is_float {
                double_field(&mut h, count, n as f64 + if spans.len() > 1 { half } else { 0.0 });
            } else {
                tag(&mut h, delta, 0);
                varint(&mut h, zigzag(n as i64 - last));
                last = n as i64;
            }
        }
    }
    let (mut metric, mut family) = (Vec::new(), Vec::new());
    bytes_field(&mut metric, 7, &h);
    bytes_field(&mut family, 1, name.as_bytes());
    tag(&mut family, 3, 0);
    varint(&mut family, 4);
    bytes_field(&mut family, 4, &metric);
    let mut delimited = Vec::new();
    varint(&mut delimited, family.len() as u64);
    delimited.extend(family);
    delimited
}

/// Serves native histograms in protobuf, one observation a bucket more at each scrape.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for (n, client) in (1u64..).zip(listener.incoming().flatten()) {
            let _ = answer(client, n);
        }
    });
    address
}

fn answer(mut client: TcpStream, n: u64) -> std::io::Result<()> {
    for line in BufReader::new(&client).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let body = [family("whole", n, false), family("part", n, true)].concat();
    let kind = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes())?;
    client.write_all(&body)
}

#[test]
fn native_histograms_that_prometheus_scraped_are_read() {
    let Some(prometheus) = tool("prometheus") else { return };
    let (data, target, address) = (Data::new(), serve(), free_address().unwrap());
    let config = data.path("prometheus.yml");
    let job = format!("- {{job_name: native, static_configs: [{{targets: ['{target}']}}]}}");
    fs::write(
        &config,
        format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{job}\n"),
    )
    .unwrap();
    let child = Command::new(prometheus)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", data.path("prometheus").display()))
        .arg(format!("--web.listen-address={address}"))
        .args(["--enable-feature=native-histograms", "--web.enable-admin-api", "--log.level=error"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let prometheus = Prometheus { child, address };
    eventually("five scrapes", LIMIT, || {
        let query = "/api/v1/query?query=count_over_time(up%5B5m%5D)%3E=5";
        let answer = http::get(prometheus.address, query, &[]);
        Ok(answer.is_ok_and(|answer| String::from_utf8_lossy(&answer.body).contains("\"native\"")))
    })
    .unwrap();
    let mut stream = TcpStream::connect(prometheus.address).unwrap();
    stream.write_all(b"POST /api/v1/admin/tsdb/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    let answer: Vec<String> = BufReader::new(stream).lines().map_while(Result::ok).collect();
    assert!(answer.concat().contains("success"), "{answer:?}");
    drop(prometheus);
    let snapshot = fs::read_dir(data.path("prometheus/snapshots")).unwrap().next().unwrap().unwrap().path();
    data.tsdb(&["import", text_of(&snapshot)]).ok();
    let own = own_dump(&data);
    for (name, half) in [("whole", "0.0"), ("part", "0.5")] {
        let found: Vec<&String> = own
            .iter()
            .filter(|(key, _)| key.0.contains(&format!("\"{name}\"")))
            .map(|(_, text)| text)
            .collect();
        assert!(found.len() >= 5, "{name}: {} samples", found.len());
        for text in found {
            // What the target said at its n-th scrape, whatever n this sample is of.
            let half: f64 = half.parse().unwrap();
            let sum = text.split("sum: ").nth(1).unwrap().split(',').next().unwrap();
            let n = sum.parse::<f64>().unwrap() / 1.5;
            let (count, zero) = (4.0 * n + 3.0 * half, n + half);
            for part in [
                "schema: 3".to_owned(),
                "zero_threshold: 0.001".into(),
                format!("zero_count: {zero:?}"),
                format!(" count: {count:?}"),
                format!("positive: Buckets {{ indexes: [-2, 4], counts: [{zero:?}, {zero:?}] }}"),
                format!("negative: Buckets {{ indexes: [1], counts: [{n:?}] }}"),
            ] {
                assert!(text.contains(&part), "{part}: {text}");
            }
        }
    }
}
