//! A thousand clients that ask at once, and others that stall, trickle, flood and bomb: the agent answers scrapes, collects
//! on time, and stays within its memory.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use telemetry_agent::api::Coding;
use telemetry_tests::agent::Settings;
use telemetry_tests::host::{claim, kernel_test, scaled};
use telemetry_tests::prometheus::percent;
use telemetry_tests::remote_write::Request;
use telemetry_tests::{http, proc};

use super::beside::{LabelSet, now_ms};

/// How long it goes on.
const LASTS: Duration = Duration::from_secs(15);
/// Clients of each kind.
const ASKING: usize = 1_000;
const SLOW_READERS: usize = 60;
const TRICKLING: usize = 100;
const FLOODING: usize = 20;
/// What all that is asked for is made of: series and samples of each.
const SERIES: usize = 2_000;
const TICKS: i64 = 60;
/// Of a scrape, the slowest in a hundred.
const SCRAPE_MAX: Duration = Duration::from_secs(1);
/// Limits that are set for this: of a query's values and of an answer.
const QUERY_MIB: f64 = 16.0;
const ANSWER_MIB: f64 = 8.0;
/// Four queries at once; four answers that are written and as many on their way, beside short ones; two pushes with what
/// they inflate to, and all that wait; and what the agent has besides, its store's newest samples among it.
const RESIDENT_MAX_MIB: f64 = 4.0 * QUERY_MIB + (4.0 + 4.0) * ANSWER_MIB + 16.0 + 2.0 * 64.0 + 48.0 + 128.0;

/// A gigabyte by its own word, and a hundred megabytes of zeros. Made once, before anything is timed: to make them costs
/// more CPU time than all that the agent does here.
static BOMBS: LazyLock<[(&str, Vec<u8>); 3]> = LazyLock::new(|| {
    let zeros = vec![0; 100 << 20];
    [
        ("snappy", vec![0x80, 0x80, 0x80, 0x80, 0x04, 0, 0]),
        ("gzip", Coding::Gzip.encode(zeros.clone())),
        ("zstd", Coding::Zstd.encode(zeros)),
    ]
});

/// What they did.
#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
}

#[test]
fn a_thousand_queries_and_every_kind_of_bad_client_stop_neither_scrapes_nor_collection() {
    kernel_test(hostile);
}

fn hostile() -> Result<()> {
    let agent = Settings::new()
        .tick(Duration::from_secs(1))
        .line("query", &format!("memory_max = {}", QUERY_MIB * 1024.0 * 1024.0))
        .line("query", &format!("answer_bytes_max = {}", ANSWER_MIB * 1024.0 * 1024.0))
        .start()?;
    let address = agent.address();
    fill(address.port())?;
    LazyLock::force(&BOMBS);
    let before = agent.fresh()?;
    proc::reset_peak(&agent.pid().to_string())?;

    let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
    let mut clients = Vec::new();
    let mut spawn = |body: fn(SocketAddr, &Counts, &AtomicBool)| -> Result<()> {
        let (counts, stop) = (Arc::clone(&counts), Arc::clone(&stop));
        let thread = thread::Builder::new().stack_size(1024 * 1024);
        clients.push(thread.spawn(move || body(address, &counts, &stop))?);
        Ok(())
    };
    for _ in 0..ASKING {
        spawn(ask)?;
    }
    for _ in 0..SLOW_READERS {
        spawn(read_slowly)?;
    }
    for _ in 0..TRICKLING {
        spawn(trickle)?;
    }
    for _ in 0..FLOODING {
        spawn(flood)?;
        spawn(bomb)?;
    }
    let scraped = scrape_throughout(address);
    stop.store(true, Relaxed);
    for client in clients {
        if client.join().is_err() {
            bail!("a client panicked");
        }
    }
    let times = scraped?;
    let after = agent.fresh()?;

    let slowest = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    let peak = proc::peak_bytes(&agent.pid().to_string())? / 1024.0 / 1024.0;
    let ticks = |page: &telemetry_tests::page::Page| page.sum("telemetry_agent_ticks_total", &[]);
    let late = |page: &telemetry_tests::page::Page| page.sum("telemetry_agent_store_ticks_missed_total", &[]);
    println!(
        "{} scrapes, p99 {slowest:?}; {peak:.0} MiB at most of {RESIDENT_MAX_MIB}; {} answered, {} refused, {} broken off; \
         {} ticks, {} missed",
        times.len(),
        counts.answered.load(Relaxed),
        counts.refused.load(Relaxed),
        counts.broken.load(Relaxed),
        ticks(&after) - ticks(&before),
        late(&after) - late(&before),
    );
    claim(slowest <= scaled(SCRAPE_MAX), || format!("a scrape took {slowest:?}"))?;
    claim(peak <= RESIDENT_MAX_MIB, || format!("{peak:.0} MiB resident, {RESIDENT_MAX_MIB} are allowed"))?;
    claim(counts.answered.load(Relaxed) > 100, || "hardly a query was answered".to_owned())?;
    claim(counts.refused.load(Relaxed) > 100, || "nobody was refused: the load was none".to_owned())?;
    claim((late(&after) - late(&before)).abs() < 0.5, || "collection was late".to_owned())?;
    claim(ticks(&after) - ticks(&before) >= LASTS.as_secs_f64() - 1.0, || "ticks are missing".to_owned())
}

fn fill(port: u16) -> Result<()> {
    let labels = |at: usize| -> LabelSet {
        [("__name__", "load".to_owned()), ("at", at.to_string()), ("job", "load".to_owned())]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    };
    let all: Vec<_> = (0..SERIES).map(labels).collect();
    let mut request = Request::new(all.iter().map(Vec::as_slice));
    let start = now_ms()? - TICKS * 1_000;
    for tick in 0..TICKS {
        let values: Vec<_> = (0..SERIES).map(|at| Some(at as f64 + tick as f64 / 7.0)).collect();
        request.send(port, "/api/v1/write", start + tick * 1_000, &values)?;
    }
    Ok(())
}

/// Scrapes until the time is over, and returns how long each took, sorted. One that fails ends it.
fn scrape_throughout(address: SocketAddr) -> Result<Vec<Duration>> {
    let begun = Instant::now();
    let mut times = Vec::new();
    while begun.elapsed() < LASTS {
        let (took, answer) = http::timed_get(Duration::from_secs(10), address, "/metrics")?;
        claim(answer.status == 200, || format!("a scrape was answered with {}", answer.status))?;
        times.push(took);
        thread::sleep(Duration::from_millis(100));
    }
    times.sort();
    Ok(times)
}

/// Asks again and again, and waits a second when it is told to come later.
fn ask(address: SocketAddr, counts: &Counts, stop: &AtomicBool) {
    let query = percent("sum by (job) (rate(load[30s]))");
    let path = format!("/api/v1/query?query={query}");
    while !stop.load(Relaxed) {
        match http::get_within(Duration::from_secs(30), address, &path) {
            Ok(answer) if answer.status == 200 => counts.answered.fetch_add(1, Relaxed),
            Ok(_) => counts.refused.fetch_add(1, Relaxed),
            Err(_) => counts.broken.fetch_add(1, Relaxed),
        };
        thread::sleep(Duration::from_millis(500));
    }
}

/// Asks for much and takes it by the byte.
fn read_slowly(address: SocketAddr, counts: &Counts, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        let path = format!("/api/v1/query?query={}", percent("{job=\"load\"}[1h]"));
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        let sent = stream.write_all(request.as_bytes());
        let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
        let mut byte = [0];
        while sent.is_ok() && !stop.load(Relaxed) {
            thread::sleep(Duration::from_millis(100));
            // A time-out is an answer that is not there yet.
            if matches!(stream.read(&mut byte), Ok(0)) {
                break;
            }
        }
        counts.broken.fetch_add(1, Relaxed);
    }
}

/// Sends a header that does not end.
fn trickle(address: SocketAddr, _: &Counts, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        let mut next: &[u8] = b"GET /metrics HTTP/1.1\r\nX-Slow: ";
        while !stop.load(Relaxed) && stream.write_all(next).is_ok() {
            next = b"a";
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Sends bodies that are too long, by their own word and without one.
fn flood(address: SocketAddr, _: &Counts, stop: &AtomicBool) {
    let heads = [
        "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 10000000000\r\n\r\n",
        "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000000\r\n\r\n",
    ];
    let chunk = [b"10000\r\n".as_slice(), &[0; 0x10000], b"\r\n"].concat();
    while !stop.load(Relaxed) {
        for head in heads {
            let Ok(mut stream) = TcpStream::connect(address) else { continue };
            let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
            let mut next = head.as_bytes();
            for _ in 0..1_000 {
                if stop.load(Relaxed) || stream.write_all(next).is_err() {
                    break;
                }
                next = &chunk;
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// Sends little that would become much.
fn bomb(address: SocketAddr, _: &Counts, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        for (name, body) in &*BOMBS {
            let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", *name)];
            // Whatever comes back: it must not come to much.
            let _ = http::post(address, "/api/v1/write", &headers, body);
            thread::sleep(Duration::from_millis(500));
        }
    }
}
