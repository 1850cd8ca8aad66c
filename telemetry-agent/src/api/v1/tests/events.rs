//! Events: pages and streams over a journal in memory.

use futures_util::StreamExt as _;
use telemetry_model::{CgroupKey, Hierarchy};

use super::*;
use crate::journal::{Config, Keeper, News, Whose};

/// A root and the keeper of its journal, with events of cgroups 1 to `count`.
fn journaled(count: u64, config: &Config) -> (Arc<V1>, Arc<Journal>, Keeper) {
    let (journal, mut keeper) = Journal::new(config);
    keeper.step(Duration::ZERO);
    for id in 1..=count {
        journal.tell(&created(id));
    }
    for _ in 0..=count / 512 {
        keeper.step(Duration::ZERO);
    }
    let parts = Parts {
        latest: Arc::default(),
        health: Arc::new(Well),
        journal: Arc::clone(&journal),
        facts: Facts::default(),
        gzip_min_bytes: 1024,
    };
    (Arc::new(V1::new(parts)), journal, keeper)
}

fn created(id: u64) -> News {
    let namespace = if id.is_multiple_of(2) { "even" } else { "odd" };
    let owner = Whose { id: format!("unit~{id}"), labels: Labels::fixed(&[("namespace", namespace)]) };
    let cgroup = CgroupKey { hierarchy: Hierarchy::Unified, id };
    match id % 3 {
        0 => News::CgroupRemoved { cgroup, owner, is_nested: false },
        _ => News::CgroupCreated { cgroup, owner, is_nested: false },
    }
}

/// The numbers of cgroups on all pages.
fn pages(root: &Arc<V1>, query: &str, mut between: impl FnMut()) -> Vec<u64> {
    let mut path = format!("/v1/events?{query}");
    let mut seen = Vec::new();
    loop {
        let page = json(root, &path);
        seen.extend(page["events"].as_array().unwrap().iter().map(|event| {
            event.pointer("/details/cgroup/id").unwrap().as_str().unwrap().parse::<u64>().unwrap()
        }));
        between();
        let Some(next) = page["next_cursor"].as_str() else { return seen };
        path = format!("/v1/events?{query}&cursor={next}");
    }
}

/// What a stream says: the ids of events, and gaps as `from` and `to`. Ends when it has told of `newest`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    ids: Vec<u64>,
    gaps: Vec<(u64, u64)>,
}

async fn open(root: &Arc<V1>, query: &str, headers: &[(&str, &str)]) -> Response {
    let headers = [&[("accept", "text/event-stream")], headers].concat();
    ask_for(root, &format!("/v1/events{query}"), &headers).await
}

async fn ask_for(root: &Arc<V1>, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = HttpRequest::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Arc::clone(root).answer(request.body(Body::empty()).unwrap()).await
}

/// Reads a stream up to an id, or to its end.
async fn told(response: Response, up_to: u64) -> Told {
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), "text/event-stream");
    let mut frames = response.into_body().into_data_stream();
    let (mut text, mut told) = (String::new(), Told::default());
    while let Some(frame) = frames.next().await {
        text.push_str(std::str::from_utf8(&frame.unwrap()).unwrap());
        told = parse(&text);
        if told.ids.last().copied().max(told.gaps.last().map(|gap| gap.1)) >= Some(up_to) {
            break;
        }
    }
    assert!(text.starts_with("retry: 3000\n\n"), "{text}");
    told
}

fn parse(text: &str) -> Told {
    let mut told = Told::default();
    for block in text.split("\n\n") {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        let Some(data) = field("data: ") else { continue };
        let data: Value = serde_json::from_str(data).unwrap();
        let number = |name: &str| data[name].as_u64().unwrap();
        match field("event: ") {
            Some("gap") => told.gaps.push((number("from"), number("to"))),
            Some(other) => panic!("{other}"),
            None => {
                assert_eq!(field("id: ").unwrap(), number("id").to_string());
                told.ids.push(number("id"));
            }
        }
    }
    told
}

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), work).await.unwrap() })
}

#[test]
fn every_event_is_on_one_page_though_new_ones_come() {
    let (root, journal, mut keeper) = journaled(230, &Config::default());
    for limit in [1, 7, 230, 1000] {
        let mut next = 1000 * limit;
        let before: u64 = journal.newest();
        let seen = pages(&root, &format!("limit={limit}&after=0"), || {
            next += 1;
            journal.tell(&created(next));
            keeper.step(Duration::ZERO);
        });
        let old: Vec<u64> = seen.iter().copied().filter(|id| *id <= 230).collect();
        assert_eq!(old, (1..=230).collect::<Vec<_>>(), "limit {limit}");
        assert_eq!(seen.len() as u64, before, "limit {limit}: what came meanwhile is not shown");
    }
}

#[test]
fn kinds_owners_namespaces_and_times_choose() {
    let (root, ..) = journaled(30, &Config::default());
    let ids = |query: &str| pages(&root, query, || ());
    assert_eq!(ids("kind=cgroup_removed"), (1..=10).map(|n| 3 * n).collect::<Vec<_>>());
    assert_eq!(ids("kind=cgroup_removed&namespace=even&limit=2"), [6, 12, 18, 24, 30]);
    assert_eq!(ids("owner=unit~7"), [7]);
    assert_eq!(ids("after=28"), [29, 30]);
    assert_eq!(ids("kind=agent_started,hook_failed"), [0; 0]);
    assert_eq!(ids("to=2000-01-01T00:00:00Z"), [0; 0]);
    assert_eq!(ids("from=2000-01-01T00:00:00Z").len(), 30);
    assert_eq!(ids("from=2100-01-01T00:00:00Z"), [0; 0]);
    assert_eq!(ids("from=3000000000&to=0"), [0; 0]);
}

#[test]
fn what_no_event_has_is_refused_and_a_journal_that_is_not_open_says_so() {
    let (root, ..) = journaled(1, &Config::default());
    for (query, parameter) in [
        ("kind=birth", "kind"),
        ("after=-1", "after"),
        ("after=9007199254740992", "after"),
        ("from=yesterday", "from"),
        ("to=", "to"),
        ("limit=0", "limit"),
    ] {
        let path = format!("/v1/events?{query}");
        assert_eq!(problem(&root, "GET", &path), (400, "bad-parameter".into(), parameter.into()));
    }
    let (response, _) = get(&root, "/v1/events", &[("last-event-id", "x")]);
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let (response, _) = get(&root, "/v1/events?limit=3", &[("accept", "text/event-stream")]);
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let (journal, _keeper) = Journal::new(&Config::default());
    let parts = Parts {
        latest: Arc::default(),
        health: Arc::new(Well),
        journal,
        facts: Facts::default(),
        gzip_min_bytes: 1024,
    };
    let closed = Arc::new(V1::new(parts));
    assert_eq!(problem(&closed, "GET", "/v1/events").1, "not-ready");
    let (response, _) = get(&closed, "/v1/events", &[("accept", "text/event-stream")]);
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[test]
fn a_stream_goes_on_behind_what_was_told_and_tells_what_comes() {
    let (root, journal, mut keeper) = journaled(700, &Config::default());
    on_runtime(async {
        let all = told(open(&root, "", &[("last-event-id", "0")]).await, 700).await;
        assert_eq!(all, Told { ids: (1..=700).collect(), gaps: Vec::new() });
        let rest = told(open(&root, "", &[("last-event-id", "690")]).await, 700).await;
        assert_eq!(rest.ids, (691..=700).collect::<Vec<_>>());
        let response = open(&root, "?kind=cgroup_removed", &[]).await;
        for id in 701..=705 {
            journal.tell(&created(id));
            keeper.step(Duration::ZERO);
        }
        assert_eq!(told(response, 705).await, Told { ids: vec![702, 705], gaps: Vec::new() });
    });
}

#[test]
fn what_was_removed_is_a_gap_and_so_is_an_id_that_was_never_given() {
    let (root, journal, _keeper) = journaled(300, &Config { events_max: 128, ..Config::default() });
    let oldest = journal.oldest().unwrap();
    assert!(oldest > 100);
    on_runtime(async {
        let all = told(open(&root, "", &[("last-event-id", "50")]).await, 300).await;
        assert_eq!(all, Told { ids: (oldest..=300).collect(), gaps: vec![(51, oldest - 1)] });
        let none = told(open(&root, &format!("?after={}", oldest - 1), &[]).await, 300).await;
        assert_eq!(none.gaps, [(0, 0); 0]);
        let foreign = told(open(&root, "", &[("last-event-id", "5000")]).await, 300).await;
        assert_eq!(foreign.gaps.first(), Some(&(0, 300)));
    });
}

#[test]
fn lines_say_what_server_sent_events_do() {
    let (root, journal, mut keeper) = journaled(300, &Config { events_max: 128, ..Config::default() });
    let oldest = journal.oldest().unwrap();
    on_runtime(async {
        let headers = [("accept", "application/x-ndjson"), ("last-event-id", "50")];
        let response = ask_for(&root, "/v1/events", &headers).await;
        assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), "application/x-ndjson");
        journal.tell(&created(301));
        keeper.step(Duration::ZERO);
        let mut frames = response.into_body().into_data_stream();
        let mut text = String::new();
        while !text.contains("\"id\":301,") {
            text.push_str(std::str::from_utf8(&frames.next().await.unwrap().unwrap()).unwrap());
        }
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        assert_eq!(
            lines.next().unwrap(),
            serde_json::json!({"gap": {"from": 51, "to": oldest - 1, "lost_at_most": oldest - 51}})
        );
        let ids: Vec<u64> = lines.map(|line| line["id"].as_u64().unwrap()).collect();
        assert_eq!(ids, (oldest..=301).collect::<Vec<_>>());
    });
}

#[test]
fn who_waits_is_told_as_soon_as_something_comes_and_when_nothing_does() {
    let (root, journal, mut keeper) = journaled(3, &Config { streams_max: 1, ..Config::default() });
    let page = async |query: &str| {
        let response = ask_for(&root, &format!("/v1/events?{query}"), &[]).await;
        assert_eq!(response.status(), StatusCode::OK, "{query}");
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let page: Value = serde_json::from_slice(&body).unwrap();
        page["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["id"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    on_runtime(async {
        let begun = std::time::Instant::now();
        assert_eq!(page("after=1&wait=30s").await, [2, 3], "what is there already");
        let comes = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            // One that nobody waits for, and then the one.
            for id in [4, 6] {
                journal.tell(&created(id));
                keeper.step(Duration::ZERO);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let (told, ()) = tokio::join!(page("after=3&kind=cgroup_removed&wait=30"), comes);
        assert_eq!(told, [5], "the second that came");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(page("after=5&wait=1s").await, [0; 0]);
        assert!(begun.elapsed() >= Duration::from_secs(1));
        // Only one may wait; whoever stops gives his place back.
        let waiting = tokio::time::timeout(Duration::from_millis(50), page("after=5&wait=30"));
        let second = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            ask_for(&root, "/v1/events?after=5&wait=30", &[]).await.status()
        };
        let (first, second) = tokio::join!(waiting, second);
        assert_eq!((first.is_err(), second), (true, StatusCode::SERVICE_UNAVAILABLE));
        let (told, ()) = tokio::join!(page("after=5&wait=30"), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            journal.close();
        });
        assert_eq!(told, [0; 0], "the agent stops");
    });
    for (query, parameter) in [("wait=0", "wait"), ("wait=61s", "wait"), ("wait=1m", "wait")] {
        let path = format!("/v1/events?{query}");
        assert_eq!(problem(&root, "GET", &path), (400, "bad-parameter".into(), parameter.into()));
    }
}

#[test]
fn streams_are_bounded_end_with_the_agent_and_give_their_places_back() {
    let (root, journal, _keeper) = journaled(3, &Config { streams_max: 1, ..Config::default() });
    on_runtime(async {
        let first = open(&root, "", &[]).await;
        assert_eq!(first.status(), StatusCode::OK);
        let second = open(&root, "", &[]).await;
        assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        let third = open(&root, "", &[]).await;
        journal.close();
        assert_eq!(told(third, u64::MAX).await, Told::default());
    });
}

#[test]
fn the_document_allows_every_kind_and_no_other() {
    let (root, ..) = journaled(0, &Config::default());
    let document = json(&root, "/v1/openapi.json");
    let parameters = document.pointer("/paths/~1v1~1events/get/parameters").unwrap().as_array().unwrap();
    let kind = parameters.iter().find(|parameter| parameter["name"] == "kind").unwrap();
    let any = crate::journal::KINDS.join("|");
    assert_eq!(kind.pointer("/schema/pattern").unwrap(), &format!("^({any})(,({any}))*$"));
}
