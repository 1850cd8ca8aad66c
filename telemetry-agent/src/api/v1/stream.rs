//! Events as they happen: server-sent events or lines of JSON, that go on behind any event that is still kept.
//!
//! What a stream cannot tell it says as a gap: events that were removed before the client came back, ones that cannot be
//! read, an id that this journal never gave. A client that reads slowly is behind, and costs no memory for that.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use serde_json::json;
use telemetry_tsdb::state::Page;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::events::{Filter, line, read};
use super::problem::{Code, Problem};
use crate::api::routes;
use crate::journal::{Event, Place};

/// The longest stream; a client goes on with another. So a place is not held for ever by whoever has gone unnoticed.
pub(super) const LENGTH_MAX: Duration = Duration::from_secs(3600);
/// Between two signs of life.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events read at one time: about 100 KB.
const PAGE: usize = 256;
/// What begins a stream: how long a client waits before it comes back, in milliseconds.
const RETRY: &str = "retry: 3000\n\n";

/// How a stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Server-sent events, as browsers have them.
    ServerSent,
    /// A JSON object a line: an event, or one that says what of the stream itself.
    Lines,
}

/// One client that is told what happens.
struct Stream {
    shared: Arc<Shared>,
    filter: Filter,
    form: Form,
    /// Held for as long as it is told.
    _place: Place,
    newest: Receiver<u64>,
    closing: Receiver<bool>,
    /// The number that was read last, and the time of that event.
    last: (u64, Option<i64>),
    /// Nothing up to this number was missed.
    certain: u64,
    has_more: bool,
    is_begun: bool,
    ends: Instant,
    heartbeat: Instant,
}

/// The stream that a client asks for, if it does: of both, the one that it names first.
pub(super) fn wanted(headers: &HeaderMap) -> Option<Form> {
    let accepted = routes::joined(headers, &ACCEPT)?;
    accepted.split(',').find_map(|range| {
        let name = range.split(';').next().unwrap_or_default().trim();
        [Form::ServerSent, Form::Lines]
            .into_iter()
            .find(|form| name.eq_ignore_ascii_case(form.content_type()))
    })
}

/// A stream that goes on behind what was seen; behind what there is, if nothing was.
pub(super) fn begin(
    shared: &Arc<Shared>,
    (form, filter): (Form, Filter),
    seen: Option<u64>,
) -> Result<Response, Problem> {
    let journal = &shared.journal;
    let place = place(shared)?;
    let seen = seen.or(filter.after);
    let last = seen.unwrap_or_else(|| journal.newest());
    let now = Instant::now();
    let stream = Stream {
        shared: Arc::clone(shared),
        filter,
        form,
        _place: place,
        newest: journal.watch(),
        closing: journal.closing(),
        last: (last, None),
        certain: last,
        has_more: true,
        is_begun: false,
        ends: now + LENGTH_MAX,
        heartbeat: now + HEARTBEAT,
    };
    let frames = futures_util::stream::unfold(stream, |mut stream| async move {
        let frame = stream.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(frame)), stream))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A place among those who are told what happens.
pub(super) fn place(shared: &Shared) -> Result<Place, Problem> {
    if !shared.journal.is_open() {
        return Err(Problem::new(Code::NotReady, "the journal is not open: it opens, or the disk refuses"));
    }
    let place = shared.journal.place();
    place.ok_or_else(|| Problem::new(Code::TooManyStreams, "events.streams_max are told already"))
}

// === impl Form ===

impl Form {
    fn content_type(self) -> &'static str {
        match self {
            Self::ServerSent => "text/event-stream",
            Self::Lines => "application/x-ndjson",
        }
    }

    /// What begins a stream.
    fn beginning(self) -> &'static str {
        match self {
            Self::ServerSent => RETRY,
            Self::Lines => "",
        }
    }

    fn event(self, event: Event) -> String {
        let number = event.number;
        let line = line(event);
        match self {
            Self::ServerSent => format!("id: {number}\ndata: {line}\n\n"),
            Self::Lines => format!("{line}\n"),
        }
    }

    /// Events that the stream cannot tell. Not every number is an event's, so that fewer may be lost; none: nobody knows.
    fn gap(self, from: u64, to: u64, lost_at_most: Option<u64>) -> String {
        let data = json!({ "from": from, "to": to, "lost_at_most": lost_at_most });
        match self {
            Self::ServerSent => format!("id: {to}\nevent: gap\ndata: {data}\n\n"),
            Self::Lines => format!("{}\n", json!({ "gap": data })),
        }
    }

    /// A sign of life. The id goes along, so that a client of few kinds comes back behind all that it was spared.
    fn alive(self, id: u64) -> String {
        match self {
            Self::ServerSent => format!("id: {id}\n: alive\n\n"),
            Self::Lines => format!("{}\n", json!({ "alive": { "id": id } })),
        }
    }
}

// === impl Stream ===

impl Stream {
    /// What is sent next; nothing at its end.
    async fn next(&mut self) -> Option<String> {
        let mut text = String::new();
        if !std::mem::replace(&mut self.is_begun, true) {
            text.push_str(self.form.beginning());
            text.push_str(&self.foreign());
        }
        loop {
            let is_over = *self.closing.borrow() || Instant::now() >= self.ends;
            if is_over && text.is_empty() {
                return None;
            }
            if self.has_more {
                self.read(&mut text).await;
            }
            if !text.is_empty() {
                self.heartbeat = Instant::now() + HEARTBEAT;
                return Some(text);
            }
            tokio::select! {
                changed = self.newest.changed() => {
                    changed.ok()?;
                    self.has_more = true;
                }
                closing = self.closing.wait_for(|closing| *closing) => {
                    drop(closing);
                    return None;
                }
                () = sleep_until(self.heartbeat) => {
                    self.has_more = true;
                    text.push_str(&self.form.alive(self.certain.max(self.last.0)));
                }
                () = sleep_until(self.ends) => return None,
            }
        }
    }

    /// A gap, if the client was told by a journal that is not here any more.
    fn foreign(&mut self) -> String {
        let newest = self.shared.journal.newest();
        let (last, _) = self.last;
        if last <= newest {
            return String::new();
        }
        self.last = (0, None);
        self.certain = 0;
        self.form.gap(0, newest, None)
    }

    /// Reads on, as far as one page goes.
    async fn read(&mut self, text: &mut String) {
        let newest = *self.newest.borrow_and_update();
        let (last, at_ms) = self.last;
        let page = read(&self.shared, move |shared| {
            let oldest = shared.journal.oldest();
            let page = shared.journal.after(last, at_ms, PAGE)?;
            Some(page.map(|page| (oldest, page)))
        });
        // A journal that is not open now is asked again with the next sign of life.
        self.has_more = false;
        let Ok((oldest, page)) = page.await else { return };
        let Page { events, damaged, is_cut } = page;
        let first_kept = oldest.unwrap_or(newest + 1);
        if first_kept > self.certain + 1 && self.certain < newest {
            let lost = Some(first_kept - 1 - self.certain);
            text.push_str(&self.form.gap(self.certain + 1, first_kept - 1, lost));
        }
        if damaged > 0 {
            let to = events.last().map_or(newest, |event| event.number);
            text.push_str(&self.form.gap(last + 1, to, Some(damaged)));
        }
        for event in events {
            self.last = (event.number, Some(event.at_ms));
            if self.filter.wants(&event) {
                text.push_str(&self.form.event(event));
            }
        }
        self.has_more = is_cut;
        self.certain = if is_cut { self.last.0 } else { newest.max(self.last.0) };
    }
}
