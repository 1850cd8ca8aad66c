//! The query API end to end, over HTTP, beside Prometheus: what taking pushed samples in costs, and how long the usual
//! queries of dashboards take from the question to the last byte, over the same samples.
//!
//! One JSON line a figure on standard output; a figure that misses its bar fails the run, at its end. Pushed are samples of
//! now, as a sender's are. What is asked for is an hour and a half old: the agent finds it in its data directory, as it
//! would have left it there; Prometheus is sent it.

mod server;
mod store;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use telemetry_tests::agent::Settings;
use telemetry_tests::dashboards::USUAL;
use telemetry_tests::datagen::{self, Generator};
use telemetry_tests::figure;
use telemetry_tests::peer::{Kind, Peer};
use telemetry_tests::remote_write::Request;

use server::Server;

/// Series, and samples of each that are asked for, 5 s apart: an hour and a half.
const SERIES: usize = 20_000;
const TICKS: i64 = 1_080;
const STEP_MS: i64 = 5_000;
/// Samples of a series in one request where only the end counts.
const ROWS_PER_REQUEST: usize = 20;
/// What is sent at once: what Prometheus sends at most.
const SERIES_PER_REQUEST: usize = 2_000;
/// Samples of each series that are pushed, a tenth of a second apart: all of them of one window, as those of a live sender
/// are.
const PUSHED_TICKS: i64 = 300;
const PUSHED_STEP_MS: i64 = 100;
/// Answers of which the quickest counts.
const ROUNDS: usize = 7;
/// Between two steps of a query over an hour.
const QUERY_STEP_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;

/// Samples that the agent takes in by a second of CPU.
const PUSH_MIN: f64 = 1e6;
/// How many times quicker than Prometheus the answer in the middle is.
const RATIO_MEDIAN: f64 = 5.0;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => run(),
        // A process of its own, so that its memory is nobody's.
        ["fill", dir, end] => end.parse().context("a time").and_then(|end| store::fill(Path::new(dir), end)),
        _ => Err(anyhow::anyhow!("usage: bench-api [fill DIR END]")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a place to say it, the exit code has to do.
            let _ = writeln!(std::io::stderr(), "bench-api: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn now_ms() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?)
}

/// What the agent measures itself is not what is measured here: a tick a minute.
fn agent() -> Settings {
    Settings::new().tick(Duration::from_secs(60))
}

fn run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut missed = Vec::new();
    let folder = std::env::var_os("TELEMETRY_PEERS").map(PathBuf::from);
    let peer = folder.and_then(|folder| Some((folder.clone(), Kind::Prometheus.version(&folder)?)));

    let rate = push(&Server::Agent(agent().start()?))?;
    if rate < PUSH_MIN {
        missed.push("samples taken in by a CPU second");
    }
    figure::print_at_least("api", "samples taken in by a CPU second", rate, "1/s", PUSH_MIN, 1)?;
    if let Some((folder, version)) = &peer {
        let theirs = Peer::start(Kind::Prometheus, folder, &dir.path().join("pushed"))?;
        let name = format!("samples taken in by a CPU second, {version}");
        figure::print("api", &name, push(&Server::Peer(theirs))?, "1/s", None, "", 1)?;
    }

    let end = now_ms()? / QUERY_STEP_MS * QUERY_STEP_MS;
    let data = dir.path().join("data");
    let status =
        Command::new(std::env::current_exe()?).arg("fill").arg(&data).arg(end.to_string()).status()?;
    anyhow::ensure!(status.success(), "fill: {status}");
    let ours = agent().start_with(|command| _ = command.arg("--data-dir").arg(&data))?;
    let our_times = ask(&Server::Agent(ours), end)?;
    for ((name, _), our) in USUAL.iter().zip(&our_times) {
        figure::print("api", &format!("{name}: time, ours"), our.ms, "ms", None, "", ROUNDS)?;
    }
    let Some((folder, version)) = peer else {
        figure::print("api", "Prometheus", f64::NAN, "not measured: it cannot be had here", None, "", 1)?;
        return finish(&missed);
    };
    let theirs = Server::Peer(Peer::start(Kind::Prometheus, &folder, &dir.path().join("asked"))?);
    let mut data = Generator::new(SERIES);
    let rows = (0..TICKS).map(|k| (end - (TICKS - 1 - k) * STEP_MS, data.tick().to_vec()));
    send(&theirs, rows, ROWS_PER_REQUEST)?;
    let their_times = ask(&theirs, end)?;
    let mut ratios = Vec::new();
    for (((name, _), our), their) in USUAL.iter().zip(&our_times).zip(&their_times) {
        figure::print("api", &format!("{name}: time, {version}"), their.ms, "ms", None, "", ROUNDS)?;
        let ratio = their.ms / our.ms;
        figure::print("api", &format!("{name}: time of {version} by ours"), ratio, "x", None, "", 1)?;
        // An answer that differs is no answer.
        anyhow::ensure!(our.points == their.points, "{name}: {} points, not {}", our.points, their.points);
        ratios.push(ratio);
    }
    let median = figure::median(&ratios)?;
    if median < RATIO_MEDIAN {
        missed.push("median");
    }
    let name = format!("median: time of {version} by ours");
    figure::print_at_least("api", &name, median, "x", RATIO_MEDIAN, USUAL.len())?;
    finish(&missed)
}

fn finish(missed: &[&str]) -> Result<()> {
    anyhow::ensure!(missed.is_empty(), "missed: {}", missed.join(", "));
    Ok(())
}

fn labels() -> Vec<Vec<(String, String)>> {
    let of = |at| datagen::labels(at, SERIES).into_iter().map(|(name, value)| (name.to_owned(), value));
    (0..SERIES).map(|at| of(at).collect()).collect()
}

/// Pushes samples up to now, and returns how many a CPU second takes in.
fn push(server: &Server) -> Result<f64> {
    let end = now_ms()?;
    let mut data = Generator::new(SERIES);
    let rows = (0..PUSHED_TICKS)
        .map(|k| (end - (PUSHED_TICKS - 1 - k) * PUSHED_STEP_MS, data.tick().to_vec()))
        .collect::<Vec<_>>();
    let cpu = server.cpu()?;
    // As a Prometheus sends that scrapes them: one scrape after the other, each in several requests.
    let samples = send(server, rows.into_iter(), 1)?;
    Ok(samples / (server.cpu()? - cpu))
}

/// Sends rows in their order, so many in a request, and returns how many samples it was.
fn send(
    server: &Server,
    mut rows: impl Iterator<Item = (i64, Vec<f64>)>,
    rows_per_request: usize,
) -> Result<f64> {
    let labels = labels();
    let mut requests: Vec<Request> =
        labels.chunks(SERIES_PER_REQUEST).map(|some| Request::new(some.iter().map(Vec::as_slice))).collect();
    let mut samples = 0.0;
    loop {
        let some: Vec<_> = rows.by_ref().take(rows_per_request).collect();
        if some.is_empty() {
            return Ok(samples);
        }
        for (at, request) in requests.iter_mut().enumerate() {
            let range = at * SERIES_PER_REQUEST..((at + 1) * SERIES_PER_REQUEST).min(SERIES);
            let part: Vec<_> =
                some.iter().map(|(t, values)| (*t, values.get(range.clone()).unwrap_or_default())).collect();
            request.send_rows(server.port(), "/api/v1/write", &part)?;
            samples += (part.len() * range.len()) as f64;
        }
    }
}

/// What one query took, and how much it answered.
struct Answered {
    ms: f64,
    points: usize,
}

fn ask(server: &Server, end: i64) -> Result<Vec<Answered>> {
    USUAL
        .iter()
        .map(|(name, query)| {
            let times = (end - HOUR_MS, end, QUERY_STEP_MS);
            let mut least = f64::INFINITY;
            let mut points = 0;
            for _ in 0..ROUNDS {
                let (took, body) = server.query_range(query, times).with_context(|| (*name).to_owned())?;
                least = least.min(took.as_secs_f64() * 1e3);
                // Points of all series: each has its time in front.
                points = body.windows(2).filter(|pair| pair == b",\"").count();
            }
            Ok(Answered { ms: least, points })
        })
        .collect()
}
