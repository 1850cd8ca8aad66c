//! The same samples into our store, Prometheus and VictoriaMetrics, one after the other, in one run.
//!
//! Ours takes rows in process; the peers take remote write over loopback, which is how another program writes to them.
//! Their CPU figures have the protocol in them and are no measure of their storage alone; sizes, memory and restarts
//! compare as they stand.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use telemetry_model::{MatchOp, Matcher};
use telemetry_tests::datagen::{self, Generator};
use telemetry_tests::peer::{Kind, Peer, bytes_below};
use telemetry_tests::recording::{self, Recording};
use telemetry_tests::remote_write::Request;
use telemetry_tsdb::db::SeriesRef;
use telemetry_tsdb::head::Sample;
use telemetry_tsdb::index::OwnerRef;

use super::sections::{START, Store, TICKS, cpu, maintain, open, print, resident, settle};

/// Few enough that the slower peer takes two hours of them in a minute of CPU.
const SERIES: usize = 5_000;
const PER_REQUEST: usize = 2_500;
/// How long pages are recorded, when no recording is there.
const RECORDED: Duration = Duration::from_secs(300);
/// The series that a restarted store is asked for.
const ASKED: &str = "container_network_receive_bytes_total";

/// A time in milliseconds and a value a series.
type Row = (i64, Vec<Option<f64>>);

/// Samples to load: labels, and rows from a function.
struct Load<'a> {
    series: &'a [Vec<(String, String)>],
    rows: Box<dyn FnMut() -> Option<Row> + 'a>,
}

/// What one store did with a load.
#[derive(Default)]
struct Outcome {
    samples: f64,
    cpu_s: f64,
    resident: f64,
    log: Option<f64>,
    fresh: Option<f64>,
    files: f64,
    restart_s: Option<f64>,
}

/// The folder of the peers' programs.
fn folder() -> Option<PathBuf> {
    std::env::var_os("TELEMETRY_PEERS").map(PathBuf::from)
}

/// Generated samples into all three.
pub fn peers() -> Result<()> {
    let ours = ours(&mut synthetic(&names()), Some(ASKED))?;
    report("generated, 5,000 series, 2 h", "this store", &ours, Some((1.30, 1.10)))?;
    each_peer(|kind, folder| {
        let series = names();
        let version = kind.version(folder).context("version")?;
        let outcome = theirs(kind, folder, &mut synthetic(&series), Some(ASKED))?;
        report("generated, 5,000 series, 2 h", &version, &outcome, None)
    })
}

/// Recorded pages into all three.
pub fn recorded() -> Result<()> {
    let Some(recording) = load_recording()? else {
        return print("recorded scrape", f64::NAN, "not measured: no peers to scrape", None, "");
    };
    let what = "recorded scrape";
    let mut times = recording.rows.iter().map(|row| row.0);
    let (first, last) = (times.next().unwrap_or(0), times.next_back().unwrap_or(0));
    #[expect(clippy::cast_precision_loss, reason = "minutes and counts")]
    let (minutes, series) = ((last - first) as f64 / 60e3, recording.series.len() as f64);
    print("recorded scrape: length", minutes, "min", None, "")?;
    print("recorded scrape: series", series, "series", None, "")?;
    let ours = ours(&mut replay(&recording), None)?;
    report(what, "this store", &ours, Some((0.45, 0.45)))?;
    each_peer(|kind, folder| {
        let version = kind.version(folder).context("version")?;
        report(what, &version, &theirs(kind, folder, &mut replay(&recording), None)?, None)
    })
}

/// Does it for each peer that is there; says so of one that is not, or that does not do its part.
fn each_peer(measure: impl Fn(Kind, &Path) -> Result<()>) -> Result<()> {
    for kind in Kind::ALL {
        let folder = folder().filter(|folder| kind.version(folder).is_some());
        let result =
            folder.context("the program cannot be had here").and_then(|folder| measure(kind, &folder));
        if let Err(error) = result {
            print(kind.name(), f64::NAN, &format!("not measured: {error:#}").replace('"', "'"), None, "")?;
        }
    }
    Ok(())
}

fn names() -> Vec<Vec<(String, String)>> {
    let owned = |(name, value): (&str, String)| (name.to_owned(), value);
    (0..SERIES).map(|at| datagen::labels(at, SERIES).into_iter().map(owned).collect()).collect()
}

fn synthetic(series: &[Vec<(String, String)>]) -> Load<'_> {
    let (mut data, mut ticks) = (Generator::new(series.len()), 0..TICKS);
    let next = move || {
        let t = datagen::timestamp(START, ticks.next()?);
        Some((t, data.tick().iter().copied().map(Some).collect()))
    };
    Load { series, rows: Box::new(next) }
}

fn replay(recording: &Recording) -> Load<'_> {
    let mut rows = recording.rows.iter().cloned();
    Load { series: &recording.series, rows: Box::new(move || rows.next()) }
}

/// Into our store. `asked` is asked for after it was opened anew.
fn ours(load: &mut Load<'_>, asked: Option<&str>) -> Result<Outcome> {
    let dir = tempfile::tempdir()?;
    let before = resident();
    let Store { db, clock } = open(dir.path(), START)?;
    let mut all: Vec<SeriesRef> = Vec::new();
    for labels in load.series {
        // A page is a group; what has no job is one group.
        let job = labels.iter().find(|(name, _)| name == "job").map_or("bench", |(_, job)| job);
        let group = db.group(job).context("group")?;
        let pairs: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        all.push(db.series(group, &pairs, OwnerRef(0)).context("series")?);
    }
    let mut groups: Vec<_> = all.iter().map(|series| series.group).collect();
    groups.sort_unstable();
    groups.dedup();
    let (mut out, mut newest, mut logged) = (Outcome::default(), START, 0.0);
    let mut log = bytes_below(&dir.path().join("log"));
    while let Some((t, row)) = (load.rows)() {
        clock.set(t);
        newest = t;
        let begun = cpu();
        for group in &groups {
            let cells = all.iter().zip(&row).filter(|(series, _)| series.group == *group);
            let cells = cells.filter_map(|(series, value)| Some((*series, Sample::Float((*value)?))));
            out.samples += f64::from(u32::try_from(db.append_row(*group, t, cells).taken)?);
        }
        db.commit()?;
        out.cpu_s += cpu() - begun;
        logged += bytes_below(&dir.path().join("log")) - log;
        maintain(&db);
        log = bytes_below(&dir.path().join("log"));
        out.resident = out.resident.max(resident() - before);
    }
    out.log = Some(logged);
    drop(db);
    let begun = Instant::now();
    let Store { db, clock } = open(dir.path(), newest)?;
    if let Some(asked) = asked {
        let name = Matcher::new("__name__", MatchOp::Equal, asked);
        let selection = db.select(&[name], newest - 300_000, newest)?;
        let mut reader = selection.reader();
        for series in selection.series() {
            anyhow::ensure!(!reader.read(series, newest - 300_000, newest)?.times.is_empty(), "no samples");
        }
        out.restart_s = Some(begun.elapsed().as_secs_f64());
    }
    out.fresh = Some(settle(&db, &clock, newest, 25 * 60_000));
    out.files = settle(&db, &clock, newest, 6 * 3_600_000);
    Ok(out)
}

fn theirs(kind: Kind, folder: &Path, load: &mut Load<'_>, asked: Option<&str>) -> Result<Outcome> {
    let dir = tempfile::tempdir()?;
    let mut peer = Peer::start(kind, folder, &dir.path().join("peer"))?;
    let mut requests: Vec<Request> =
        load.series.chunks(PER_REQUEST).map(|part| Request::new(part.iter().map(Vec::as_slice))).collect();
    let (mut out, mut newest, begun) = (Outcome::default(), START, peer.cpu()?);
    while let Some((t, mut row)) = (load.rows)() {
        newest = t;
        row.resize(load.series.len(), None);
        for (request, values) in requests.iter_mut().zip(row.chunks(PER_REQUEST)) {
            request.send(peer.port(), peer.write_path(), t, values)?;
            out.samples += f64::from(u32::try_from(values.iter().flatten().count())?);
        }
    }
    out.cpu_s = peer.cpu()? - begun;
    out.resident = peer.resident()?;
    out.log = peer.log_bytes();
    // Everything is on disk before the kill: a store that syncs later than ours would answer with less.
    out.files = peer.settled_bytes()?;
    if let Some(asked) = asked {
        out.restart_s = Some(peer.restart(&format!("count({asked})"), newest / 1000)?);
    }
    Ok(out)
}

/// One line a figure. `bars` are those of fresh and of compacted files.
fn report(what: &str, who: &str, outcome: &Outcome, bars: Option<(f64, f64)>) -> Result<()> {
    let series = if what.starts_with("generated") { Some(SERIES) } else { None };
    if let Some(fresh) = outcome.fresh {
        let name = format!("{what}: fresh files with index, {who}");
        print(&name, fresh / outcome.samples, "B a sample", bars.map(|bars| bars.0), "")?;
    }
    let name = format!("{what}: files settled, with index, {who}");
    print(&name, outcome.files / outcome.samples, "B a sample", bars.map(|bars| bars.1), "")?;
    if let Some(log) = outcome.log {
        print(&format!("{what}: log, {who}"), log / outcome.samples, "B a sample", bars.map(|_| 2.0), "")?;
    }
    let how = if bars.is_some() { "in process" } else { "by remote write" };
    let rate = outcome.samples / outcome.cpu_s / 1e6;
    print(&format!("{what}: taken {how}, {who}"), rate, "M samples/CPU-s", None, "")?;
    if let Some(series) = series {
        let each = outcome.resident / f64::from(u32::try_from(series)?);
        print(&format!("{what}: resident, {who}"), each, "B a series", None, "")?;
    }
    if let Some(restart) = outcome.restart_s {
        print(&format!("{what}: restart to first answer, {who}"), restart, "s", bars.map(|_| 1.0), "")?;
    }
    Ok(())
}

/// The recording of the cache, made now if there is none.
fn load_recording() -> Result<Option<Recording>> {
    let Some(dir) = std::env::var_os("TELEMETRY_RECORDINGS").map(PathBuf::from) else { return Ok(None) };
    let file = dir.join("scrape-1.txt");
    if !file.is_file() {
        let Some(folder) = folder() else { return Ok(None) };
        std::fs::create_dir_all(&dir)?;
        record(&folder, &file)?;
    }
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    Recording::parse(&text).map(Some)
}

/// Records node_exporter and both stores at work.
fn record(folder: &Path, file: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let prometheus = Peer::start(Kind::Prometheus, folder, &dir.path().join("prometheus"))?;
    let victoria = Peer::start(Kind::VictoriaMetrics, folder, &dir.path().join("victoria"))?;
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let node = Exporter::start(folder, port)?;
    let pages = [
        ("node", address(port)),
        ("prometheus", address(prometheus.port())),
        ("victoria", address(victoria.port())),
    ];
    let result = recording::record(&pages, RECORDED, file);
    drop(node);
    result
}

/// node_exporter, killed with its handle.
struct Exporter(Child);

// === impl Exporter ===

impl Exporter {
    fn start(folder: &Path, port: u16) -> Result<Self> {
        let mut command = Command::new(folder.join("prometheus-node-exporter"));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let exporter = Self(child);
        let begun = Instant::now();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        while telemetry_tests::http::get(address, "/metrics", &[]).is_err() {
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(30), "node_exporter does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(exporter)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // It may be gone already; that is what was wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
