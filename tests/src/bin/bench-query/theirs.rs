//! A peer: filled by remote write, started anew, asked over HTTP.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use telemetry_tests::peer::{Kind, Peer};
use telemetry_tests::remote_write::Request;

use super::answer::{Measured, parse};
use super::data::{self, END, LONG_END};
use super::shapes::{SHAPES, Shape};

/// Answers of which the quickest counts.
const ROUNDS: usize = 5;
/// Samples in one request, about.
const SAMPLES_PER_REQUEST: usize = 40_000;
const SERIES_PER_REQUEST: usize = 2_000;

/// What every shape takes of a peer that keeps its files in `dir`.
pub fn measure(kind: Kind, folder: &Path, dir: &Path) -> Result<Vec<Measured>> {
    let mut peer = Peer::start(kind, folder, dir)?;
    for mut part in data::parts() {
        fill(&peer, &mut part)?;
    }
    if kind == Kind::VictoriaMetrics {
        // It syncs late: what it was sent last would be gone.
        peer.settled_bytes()?;
    }
    // What filling took is not counted to the answers.
    peer.restart("count(container_open_fds)", END / 1000)?;
    peer.wait_for("count(long_level)", LONG_END / 1000)?;
    SHAPES.iter().map(|shape| ask(&peer, shape)).collect()
}

/// Rows of many times in one request: a peer reads the labels of a series once for all of them.
fn fill(peer: &Peer, part: &mut data::Part) -> Result<()> {
    let mut requests: Vec<Request> = part
        .series
        .chunks(SERIES_PER_REQUEST)
        .map(|series| Request::new(series.iter().map(Vec::as_slice)))
        .collect();
    let each = part.series.len().min(SERIES_PER_REQUEST);
    data::chunks(part, SAMPLES_PER_REQUEST / each, |series, rows| {
        for (at, request) in requests.iter_mut().enumerate() {
            let from = at * SERIES_PER_REQUEST;
            let to = (from + SERIES_PER_REQUEST).min(series.len());
            let rows = rows.iter().map(|(t, values)| (*t, values.get(from..to).unwrap_or_default()));
            request.send_rows(peer.port(), peer.write_path(), &rows.collect::<Vec<_>>())?;
        }
        Ok(())
    })
}

fn ask(peer: &Peer, shape: &Shape) -> Result<Measured> {
    let query = || peer.query_range(shape.query, (shape.start, shape.end, shape.step));
    let mut out = Measured { cpu_ms: f64::INFINITY, wall_ms: f64::INFINITY, ..Measured::default() };
    out.points = parse(&query()?)?;
    peer.reset_peak()?;
    for _ in 0..ROUNDS {
        let (cpu, begun) = (peer.cpu()?, Instant::now());
        query()?;
        out.wall_ms = out.wall_ms.min(begun.elapsed().as_secs_f64() * 1e3);
        out.cpu_ms = out.cpu_ms.min((peer.cpu()? - cpu) * 1e3);
    }
    out.peak_bytes = peer.peak_bytes()?;
    Ok(out)
}
