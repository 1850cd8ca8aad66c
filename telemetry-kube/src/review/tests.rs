//! Reviews against an API server that says what it is told to. A real one is asked in `tests/tests/kubernetes`.

use serde_json::{Value, json};

use super::*;
use crate::testing::{Answer, Server};

fn token_of(name: Option<&str>, audiences: &[&str]) -> Answer {
    let status = match name {
        None => json!({"error": "invalid bearer token"}),
        Some(name) => json!({
            "authenticated": true, "audiences": audiences,
            "user": {"username": name, "uid": "u-1", "groups": ["g"], "extra": {"scopes": ["a"]}},
        }),
    };
    Answer::Whole(
        201,
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {}, "status": status}),
    )
}

fn access(is_allowed: bool) -> Answer {
    let status = json!({"allowed": is_allowed});
    Answer::Whole(
        201,
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {}, "status": status}),
    )
}

async fn started(answers: Vec<Answer>, audiences: &[&str]) -> (Server, Reviews, tempfile::NamedTempFile) {
    let server = Server::start(answers).await;
    let file = server.kubeconfig();
    let audiences = audiences.iter().map(|audience| (*audience).to_owned()).collect();
    let reviews = Reviews::new(&file.path().display().to_string(), audiences).unwrap();
    (server, reviews, file)
}

fn loads(counts: &[AtomicU64; 3]) -> [u64; 3] {
    [0, 1, 2].map(|at| counts[at].load(Relaxed))
}

#[tokio::test]
async fn a_grant_costs_two_questions_once_and_another_path_one_more() {
    let answers = vec![token_of(Some("alice"), &[]), access(true), access(false)];
    let (server, reviews, _file) = started(answers, &[]).await;
    for _ in 0..10 {
        assert_eq!(reviews.check("secret", "get", "/metrics").await, Verdict::Allowed);
    }
    for _ in 0..10 {
        assert_eq!(reviews.check("secret", "post", "/api/v1/write").await, Verdict::Forbidden);
    }
    let paths: Vec<_> =
        server.asked().iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    let access = "/apis/authorization.k8s.io/v1/subjectaccessreviews?";
    assert_eq!(paths, ["/apis/authentication.k8s.io/v1/tokenreviews?", access, access]);
    let bodies = server.bodies();
    assert_eq!(bodies[0]["spec"], json!({"token": "secret"}));
    let expected = json!({
        "user": "alice", "uid": "u-1", "groups": ["g"], "extra": {"scopes": ["a"]},
        "nonResourceAttributes": {"path": "/api/v1/write", "verb": "post"},
    });
    assert_eq!(bodies[2]["spec"], expected);
    assert_eq!((loads(&reviews.counts.tokens), loads(&reviews.counts.access)), ([1, 0, 0], [1, 1, 0]));
}

#[tokio::test]
async fn a_strangers_token_costs_one_question() {
    let (server, reviews, _file) = started(vec![token_of(None, &[])], &[]).await;
    for _ in 0..5 {
        assert_eq!(reviews.check("wrong", "get", "/metrics").await, Verdict::Unknown);
    }
    assert_eq!(reviews.check("", "get", "/metrics").await, Verdict::Unknown);
    assert_eq!(reviews.check(&"x".repeat(10_000), "get", "/metrics").await, Verdict::Unknown);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_token_for_somebody_else_is_a_strangers() {
    for (audiences, verdict) in
        [(&["telemetry"][..], Verdict::Allowed), (&["vault"], Verdict::Unknown), (&[], Verdict::Unknown)]
    {
        let answers = vec![token_of(Some("alice"), audiences), access(true)];
        let (server, reviews, _file) = started(answers, &["telemetry"]).await;
        assert_eq!(reviews.check("secret", "get", "/metrics").await, verdict, "{audiences:?}");
        assert_eq!(server.bodies()[0]["spec"]["audiences"], json!(["telemetry"]));
    }
}

#[tokio::test]
async fn without_the_api_server_nothing_new_is_granted_and_what_was_holds() {
    let failure = |code: u16| {
        let status: Value = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code});
        Answer::Whole(code, status)
    };
    let answers =
        vec![token_of(Some("alice"), &[]), access(true), failure(500), failure(403), token_of(None, &[])];
    let (server, reviews, _file) = started(answers, &[]).await;
    assert_eq!(reviews.check("secret", "get", "/metrics").await, Verdict::Allowed);
    assert_eq!(reviews.check("other", "get", "/metrics").await, Verdict::Unavailable);
    assert_eq!(reviews.check("other", "get", "/metrics").await, Verdict::Unavailable, "an error is not kept");
    assert_eq!(reviews.check("other", "get", "/metrics").await, Verdict::Unknown);
    drop(server);
    assert_eq!(reviews.check("secret", "get", "/metrics").await, Verdict::Allowed);
    assert_eq!(reviews.check("secret", "get", "/api/v1/query").await, Verdict::Unavailable);
    assert_eq!(loads(&reviews.counts.tokens), [1, 1, 2]);
}

#[tokio::test]
async fn one_that_does_not_answer_is_waited_for_so_long() {
    let (_server, reviews, _file) = started(vec![Answer::Silence], &[]).await;
    let begun = Instant::now();
    assert_eq!(reviews.check("secret", "get", "/metrics").await, Verdict::Unavailable);
    assert!((LIMIT..2 * LIMIT).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn so_many_are_asked_about_and_the_rest_is_told_to_come_later() {
    let (server, reviews, _file) = started(vec![token_of(None, &[]); 200], &[]).await;
    let mut busy = 0;
    for number in 0..100 {
        let verdict = reviews.check(&format!("guess {number}"), "get", "/metrics").await;
        assert!(matches!(verdict, Verdict::Unknown | Verdict::Busy), "{verdict:?}");
        busy += usize::from(verdict == Verdict::Busy);
    }
    let asked = server.asked().len();
    assert_eq!(asked + busy, 100);
    assert!((40..80).contains(&asked), "two seconds' worth at once, and what came back since: {asked}");
    assert_eq!(reviews.counts.busy.load(Relaxed), busy as u64);
}

#[test]
fn what_is_kept_has_an_end_and_a_limit() {
    let kept = Kept::default();
    let now = Instant::now();
    let later = now + GOOD_FOR;
    assert_eq!(kept.put(0, "a", later), 0);
    assert_eq!((kept.get(&0, now), kept.get(&0, later)), (Some("a"), None));
    assert_eq!(kept.put(0, "b", now), 0);
    assert_eq!(kept.get(&0, now), None, "the newer one, which has ended");
    for key in 1..=KEPT_MAX {
        assert_eq!(kept.put(key, "c", later), 0, "{key}: the first to go has ended");
    }
    assert_eq!(kept.put(KEPT_MAX + 1, "d", later), 1);
    assert_eq!((kept.get(&1, now), kept.get(&2, now)), (None, Some("c")));
}
