//! `/v1/events`: what happened, page by page; to whom asks for a stream, as it happens; and to whom waits, a page as soon as
//! there is something on it.

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::Value;
use telemetry_tsdb::state::Page;
use tokio::time::{Instant, sleep_until};
use utoipa::ToSchema;

use super::ask::{Ask, Params, cursor, wrong};
use super::owners::words;
use super::problem::{Code, Problem};
use super::{Shared, stream, time};
use crate::journal::{Event, KINDS};

/// How long a page is waited for at most.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The header by which a client says what it was told last.
pub(super) const LAST_EVENT_ID: &str = "last-event-id";

/// One page of events, in the order of their times.
#[derive(Serialize, ToSchema)]
struct EventPage {
    events: Vec<EventDetail>,
    /// The newest event when the first page was asked for: later pages show nothing newer, and a stream that is asked for
    /// with it as `Last-Event-ID` goes on behind it.
    newest_id: u64,
    /// Events of this page that cannot be read.
    damaged: u64,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Something that happened.
#[derive(Serialize, ToSchema)]
struct EventDetail {
    /// Higher than that of every event before it, and never given again; not every number is given.
    id: u64,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    #[schema(schema_with = kind_schema)]
    kind: String,
    /// What there is to say of this kind.
    #[schema(value_type = Object)]
    details: Value,
}

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    kinds: Option<Vec<&'static str>>,
    namespace: Option<String>,
    owner: Option<String>,
    /// Only those with higher numbers.
    pub(super) after: Option<u64>,
}

/// Where a page ended.
#[derive(Clone, Copy)]
struct Position {
    at_ms: i64,
    number: u64,
    /// The newest number of the first page's time.
    newest: u64,
}

/// What happened, oldest first: cgroups that came and went, names that came late, hooks that failed, losses.
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "listEvents",
    description = "With `Accept: text/event-stream` events come as they happen, each with its `id`. `Last-Event-ID` or `after` goes on behind an event. `event: gap` says which events the stream cannot tell: its data has `from`, `to`, and `lost_at_most`. A comment every 15 s says that the stream is alive; after an hour it ends, and the client goes on with another. With `Accept: application/x-ndjson` it is an object a line: an event, or `gap` with the same data, or `alive` with the `id` up to which nothing is missing. With `wait` an empty page is answered only when that time is over.",
    params(
        ("kind" = Option<String>, Query, description = "Only these kinds, separated by commas.",
            pattern = "^(agent_started|agent_stopped|cgroup_created|cgroup_removed|counts_lost|events_lost|hook_failed|journal_repaired|names_bound|store_degraded|store_recovered)(,(agent_started|agent_stopped|cgroup_created|cgroup_removed|counts_lost|events_lost|hook_failed|journal_repaired|names_bound|store_degraded|store_recovered))*$",
            max_length = 1024),
        ("namespace" = Option<String>, Query, description = "Only events of owners in this namespace.", max_length = 1024),
        ("owner" = Option<String>, Query, description = "Only events of the owner with this id.", max_length = 1024),
        ("after" = Option<u64>, Query, description = "Only events with higher ids.", minimum = 0, maximum = 9007199254740991_u64),
        ("from" = Option<String>, Query, description = "From this time on: RFC 3339, or seconds since 1970. Not for streams.",
            pattern = "^(-?[0-9]{1,12}(\\.[0-9]{1,9})?|[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z)$"),
        ("to" = Option<String>, Query, description = "Up to this time, included. Not for streams.",
            pattern = "^(-?[0-9]{1,12}(\\.[0-9]{1,9})?|[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z)$"),
        ("limit" = Option<u32>, Query, description = "Events of a page; 100 by default. Not for streams.", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before. Not for streams.",
            pattern = "^([0-9a-f]{2})+$", max_length = 2048),
        ("wait" = Option<String>, Query, description = "How long to wait for the first event of a page, in seconds. Not for streams; a page behind a `cursor` waits for nothing.",
            pattern = "^([1-9]|[1-5][0-9]|60)s?$"),
        ("Last-Event-ID" = Option<u64>, Header, description = "For streams: the id that came last.", minimum = 0, maximum = 9007199254740991_u64),
    ),
    responses(
        (status = 200, description = "A page, or a stream.", content(
            (EventPage = "application/json"),
            (String = "text/event-stream"),
            (String = "application/x-ndjson"),
        )),
    ),
)]
pub(super) async fn events(ask: Ask) -> Result<Response, Problem> {
    let known = ["kind", "namespace", "owner", "after", "from", "to", "limit", "cursor", "wait"];
    let params = ask.params(&known)?;
    let filter = Filter::of(&params)?;
    let seen = last_event_id(&ask)?;
    if let Some(form) = stream::wanted(&ask.headers) {
        let of_pages = ["from", "to", "limit", "cursor", "wait"];
        if let Some(name) = of_pages.iter().find(|name| params.text(name).is_some()) {
            return Err(wrong(name, "is not for streams".to_owned()));
        }
        return stream::begin(ask.shared(), (form, filter), seen).map(|stream| stream.into_response());
    }
    let limit = params.limit()?;
    let (from, to) = (params.time("from")?.unwrap_or(i64::MIN), params.time("to")?.unwrap_or(i64::MAX));
    let patience = patience(&params)?;
    let (position, page) = match params.cursor()? {
        bytes if bytes.is_empty() => first_page(&ask, filter, (from, to, limit), patience).await?,
        bytes => {
            let position = Position::of(&bytes);
            (position, page_at(ask.shared(), position, filter, (from, to, limit)).await?)
        }
    };
    let next_cursor = page
        .events
        .last()
        .filter(|_| page.is_cut)
        .map(|last| cursor(&Position { at_ms: last.at_ms, number: last.number, ..position }.bytes()));
    let events = page.events.into_iter().map(EventDetail::of).collect();
    let page = EventPage { events, newest_id: position.newest, damaged: page.damaged, next_cursor };
    ask.reply_page("/v1/events", &page, page.next_cursor.as_deref())
}

/// The events behind a position.
async fn page_at(
    shared: &Arc<Shared>,
    position: Position,
    filter: Filter,
    (from, to, limit): (i64, i64, usize),
) -> Result<Page, Problem> {
    let after = (position.at_ms, position.number).max((from, 0));
    let page = read(shared, move |shared| {
        let is_wanted = |event: &Event| event.number <= position.newest && filter.wants(event);
        shared.journal.onward(after, to, limit, &is_wanted)
    });
    page.await
}

/// The first page; if it is empty, the first that is not, as long as the client waits for it.
async fn first_page(
    ask: &Ask,
    filter: Filter,
    (from, to, limit): (i64, i64, usize),
    patience: Option<Duration>,
) -> Result<(Position, Page), Problem> {
    let journal = &ask.shared().journal;
    let _place = patience.map(|_| stream::place(ask.shared())).transpose()?;
    let (mut newest, mut closing) = (journal.watch(), journal.closing());
    let until = Instant::now() + patience.unwrap_or_default();
    loop {
        let position = Position { at_ms: from, number: 0, newest: *newest.borrow_and_update() };
        let page = page_at(ask.shared(), position, filter.clone(), (from, to, limit)).await?;
        if !page.events.is_empty() || Instant::now() >= until {
            return Ok((position, page));
        }
        // Whichever it is, what there is then is the answer.
        tokio::select! {
            _ = newest.changed() => {}
            _ = closing.wait_for(|closing| *closing) => return Ok((position, page)),
            () = sleep_until(until) => {}
        }
    }
}

/// How long a client waits for a page that is not empty.
fn patience(params: &Params) -> Result<Option<Duration>, Problem> {
    let Some(text) = params.text("wait") else { return Ok(None) };
    let patience = waited(text).filter(|patience| !patience.is_zero());
    let remedy = || format!("write seconds from 1 to {}, such as 30s", WAIT_MAX.as_secs());
    patience.map(Some).ok_or_else(|| wrong("wait", remedy()))
}

/// The time that `wait` says; none if it says none, or too much.
fn waited(text: &str) -> Option<Duration> {
    let seconds = text.strip_suffix('s').unwrap_or(text);
    number(seconds).map(Duration::from_secs).filter(|wait| *wait <= WAIT_MAX && !seconds.starts_with('0'))
}

/// What a page may take that its client waits for.
pub(super) fn wait_of(query: &str) -> Option<Duration> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "wait")
        .and_then(|(_, text)| waited(&text))
}

/// Reads the journal on a thread beside the server's.
pub(super) async fn read<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> Option<Result<T, telemetry_tsdb::state::Error>> + Send + 'static,
) -> Result<T, Problem> {
    let internal = |error: &dyn std::fmt::Display| Problem::new(Code::Internal, error.to_string());
    let permit = shared.readings.acquire().await;
    let beside = Arc::clone(shared);
    let read = tokio::task::spawn_blocking(move || work(&beside)).await;
    drop(permit);
    match read.map_err(|error| internal(&error))? {
        Some(read) => read.map_err(|error| internal(&error)),
        None => Err(Problem::new(Code::NotReady, "the journal is not open: it opens, or the disk refuses")),
    }
}

fn last_event_id(ask: &Ask) -> Result<Option<u64>, Problem> {
    let Some(value) = ask.headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let number = value.to_str().ok().and_then(number);
    number.map(Some).ok_or_else(|| wrong("Last-Event-ID", "write the id of an event".to_owned()))
}

/// Digits and nothing else, within what JSON's readers hold exactly.
fn number(text: &str) -> Option<u64> {
    const EXACT_MAX: u64 = (1 << 53) - 1;
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_plain && *number <= EXACT_MAX)
}

fn kind_schema() -> utoipa::openapi::schema::Object {
    words(&KINDS)
}

// === impl EventDetail ===

impl EventDetail {
    fn of(event: Event) -> Self {
        let Event { number, at_ms, kind, body } = event;
        let details = serde_json::from_str(&body).unwrap_or_default();
        Self { id: number, at: time::format(at_ms), kind, details }
    }
}

/// An event as one line of JSON.
pub(super) fn line(event: Event) -> String {
    serde_json::to_string(&EventDetail::of(event)).unwrap_or_default()
}

// === impl Filter ===

impl Filter {
    fn of(params: &Params) -> Result<Self, Problem> {
        let after = params
            .text("after")
            .map(|text| number(text).ok_or_else(|| wrong("after", "write the id of an event".to_owned())));
        Ok(Self {
            kinds: params.words("kind", &KINDS)?,
            namespace: params.text("namespace").map(str::to_owned),
            owner: params.text("owner").map(str::to_owned),
            after: after.transpose()?,
        })
    }

    /// Whether an event is wanted.
    pub(super) fn wants(&self, event: &Event) -> bool {
        let Self { kinds, namespace, owner, after } = self;
        if kinds.as_ref().is_some_and(|kinds| !kinds.contains(&event.kind.as_str()))
            || after.is_some_and(|after| event.number <= after)
        {
            return false;
        }
        if namespace.is_none() && owner.is_none() {
            return true;
        }
        let body: Value = serde_json::from_str(&event.body).unwrap_or_default();
        let is = |wanted: &Option<String>, pointer: &str| {
            let said = || body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            wanted.as_ref().is_none_or(|wanted| said() == wanted)
        };
        is(namespace, "/owner/labels/namespace") && is(owner, "/owner/id")
    }
}

// === impl Position ===

impl Position {
    /// Any bytes are a position; those that are missing are zero.
    fn of(bytes: &[u8]) -> Self {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.iter_mut().zip(bytes.iter().skip(8 * at)).for_each(|(to, from)| *to = *from);
            u64::from_be_bytes(word)
        };
        Self { at_ms: word(0).cast_signed(), number: word(1), newest: word(2) }
    }

    fn bytes(self) -> Vec<u8> {
        let Self { at_ms, number, newest } = self;
        [at_ms.cast_unsigned(), number, newest].iter().flat_map(|word| word.to_be_bytes()).collect()
    }
}
