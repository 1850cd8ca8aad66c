//! The watch against a server that does as it is told: refuses, forgets, breaks, holds its tongue.

use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::testing::{Answer, Server};

impl Server {
    /// A watch of it that begins at once.
    fn watch(&self) -> (Arc<Known>, tokio::task::JoinHandle<()>, tempfile::NamedTempFile) {
        let file = self.kubeconfig();
        let config = Config {
            kubeconfig: file.path().display().to_string(),
            node: "n1".to_owned(),
            start_delay_max: Duration::ZERO,
            pod_labels: vec!["app".to_owned()],
            ..Config::default()
        };
        let known = Arc::new(Known::default());
        let task = tokio::spawn(run(config, Arc::clone(&known)));
        (known, task, file)
    }
}

fn pod(uid: &str, version: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("pod-{uid}"), "namespace": "ns", "uid": uid,
            "resourceVersion": version.to_string(), "labels": {"app": "a", "b": "c"},
        },
        "spec": {"nodeName": "n1"},
    })
}

fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

fn bookmark(version: u32, ends_list: bool) -> Value {
    let mut object =
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}});
    if ends_list {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    event("BOOKMARK", &object)
}

fn list(pods: &[Value], version: u32, more: Option<&str>) -> Answer {
    let metadata = match more {
        Some(token) => json!({"resourceVersion": version.to_string(), "continue": token}),
        None => json!({"resourceVersion": version.to_string()}),
    };
    Answer::Whole(200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": pods}))
}

fn refusal(code: u16) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "no", "code": code});
    Answer::Whole(code, status)
}

/// Waits until the pods are these.
async fn until(known: &Known, uids: &[&str]) {
    let started = Instant::now();
    loop {
        let pods = known.pods.load_full();
        if pods.keys().map(|uid| &**uid).eq(uids.iter().copied()) && known.version.load(Ordering::Relaxed) > 0
        {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "pods are {:?}", pods.keys());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn failures(known: &Known, reason: Reason) -> u64 {
    let at = Reason::ALL.iter().position(|one| *one == reason).unwrap();
    known.failures[at].load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_streamed_list_is_one_request_and_changes_follow_in_it() {
    let server = Server::start(vec![Answer::Lines(
        vec![
            event("ADDED", &pod("1", 1)),
            event("ADDED", &pod("2", 2)),
            bookmark(3, true),
            event("ADDED", &pod("3", 4)),
            event("DELETED", &pod("1", 5)),
        ],
        false,
    )])
    .await;
    let (known, task, _file) = server.watch();
    until(&known, &["2", "3"]).await;
    let pods = known.pods.load_full();
    let two = &pods["2"];
    assert_eq!((&*two.name, &two.labels[..]), ("pod-2", &[("app".into(), "a".into())][..]));
    assert_eq!(known.lists.load(Ordering::Relaxed), 1);
    assert_eq!(known.changes.load(Ordering::Relaxed), 2);
    let asked = server.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].contains("sendInitialEvents=true"), "{asked:?}");
    assert!(asked[0].contains("fieldSelector=spec.nodeName%3Dn1"), "only this node's pods: {asked:?}");
    let mut seen = 0;
    assert!(known.news(&mut seen).is_some() && known.news(&mut seen).is_none());
    task.abort();
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_asked_in_pages_from_then_on() {
    let server = Server::start(vec![
        refusal(422),
        list(&[pod("1", 1)], 3, Some("more")),
        list(&[pod("2", 2)], 3, None),
        Answer::Lines(vec![event("MODIFIED", &pod("2", 4)), event("ADDED", &pod("4", 5))], false),
    ])
    .await;
    let (known, task, _file) = server.watch();
    until(&known, &["1", "2", "4"]).await;
    let asked = server.asked();
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert!(asked[1].contains("limit=100") && asked[2].contains("continue=more"), "{asked:?}");
    assert!(asked[3].contains("watch=true") && asked[3].contains("resourceVersion=3"), "{asked:?}");
    assert_eq!(failures(&known, Reason::NoStreaming), 1);
    assert!(known.in_pages.load(Ordering::Relaxed));
    task.abort();
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_and_a_version_that_is_forgotten_means_a_new_list() {
    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "too old", "reason": "Expired", "code": 410});
    let server = Server::start(vec![
        Answer::Lines(vec![event("ADDED", &pod("1", 1)), bookmark(3, true)], true),
        // From the last version, without a list.
        Answer::Lines(vec![event("ADDED", &pod("2", 7)), bookmark(9, false)], true),
        Answer::Lines(vec![event("ERROR", &gone)], true),
        Answer::Lines(vec![event("ADDED", &pod("3", 20)), bookmark(21, true)], false),
    ])
    .await;
    let (known, task, _file) = server.watch();
    until(&known, &["3"]).await;
    let asked = server.asked();
    assert!(asked[1].contains("resourceVersion=3") && !asked[1].contains("sendInitialEvents"), "{asked:?}");
    assert!(asked[2].contains("resourceVersion=9"), "a bookmark is gone on from: {asked:?}");
    assert!(asked[3].contains("sendInitialEvents=true"), "{asked:?}");
    assert_eq!(known.lists.load(Ordering::Relaxed), 2);
    assert_eq!(failures(&known, Reason::Expired), 1);
    task.abort();
}

#[tokio::test]
async fn what_was_known_stays_while_the_server_refuses() {
    let server = Server::start(vec![
        Answer::Lines(vec![event("ADDED", &pod("1", 1)), bookmark(3, true)], true),
        refusal(503),
        refusal(403),
        Answer::Lines(vec![event("ADDED", &pod("2", 9))], false),
    ])
    .await;
    let (known, task, _file) = server.watch();
    until(&known, &["1"]).await;
    until(&known, &["1", "2"]).await;
    assert_eq!((failures(&known, Reason::Server), failures(&known, Reason::Forbidden)), (1, 1));
    assert_eq!(known.lists.load(Ordering::Relaxed), 1, "nothing is listed again");
    task.abort();
}

#[tokio::test]
async fn nobody_there_and_no_configuration_are_counted_and_tried_again() {
    let server = Server::start(Vec::new()).await;
    let address = server.address.clone();
    let (known, task, file) = server.watch();
    // Nobody listens at its address any more.
    drop(server);
    let started = Instant::now();
    while failures(&known, Reason::Unreachable) == 0 {
        assert!(started.elapsed() < Duration::from_secs(20), "{address}: {known:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
        if failures(&known, Reason::Config) > 0 {
            break;
        }
    }
    task.abort();
    drop(file);
    let config =
        Config { kubeconfig: "/nowhere".to_owned(), start_delay_max: Duration::ZERO, ..Config::default() };
    let known = Arc::new(Known::default());
    let task = tokio::spawn(run(config, Arc::clone(&known)));
    while failures(&known, Reason::Config) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(known.version.load(Ordering::Relaxed), 0, "no news is no empty node");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_list_that_does_not_go_on_is_given_up() {
    let server = Server::start(vec![Answer::Silence, Answer::Silence]).await;
    let (known, task, _file) = server.watch();
    while failures(&known, Reason::Slow) == 0 {
        // Time is the test's: it passes as fast as nobody has anything to do.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    task.abort();
}

#[test]
fn pauses_grow_and_are_bounded() {
    let mut pause = Pause::default();
    for longest in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert!(pause.next() <= Duration::from_secs(longest));
        assert_eq!(pause.0, Duration::from_secs(longest));
    }
    pause.end();
    pause.next();
    assert_eq!(pause.0, PAUSE_FIRST);
}

#[test]
fn every_figure_is_declared_and_told() {
    let (known, reviews) = (Known::default(), crate::Reviews::new("", Vec::new()).unwrap());
    let families = known.families().into_iter().chain(reviews.families());
    let told: Vec<_> = families.map(|family| family.desc.name).collect();
    let declared: Vec<_> = crate::METRICS.iter().map(|desc| desc.name).collect();
    assert_eq!(told, declared);
}
