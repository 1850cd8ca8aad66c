//! Names that come late, files that are damaged, limits, exemplars: through the engine, not past it.

use std::sync::Arc;

use telemetry_agent::store::History;
use telemetry_model::{MatchOp, Matcher};
use telemetry_promql::budget::Limits;
use telemetry_promql::error::{ErrorKind, QueryError};
use telemetry_promql::eval::{Options, instant, range};
use telemetry_promql::source::Source;
use telemetry_promql::value::Value;
use telemetry_tsdb::db::{Config, Db, Exemplar, SeriesRef, Work};
use telemetry_tsdb::fs::sim::{SimClock, SimStorage};
use telemetry_tsdb::head::{Sample, WINDOW_MS};
use telemetry_tsdb::index::OwnerRef;

const START: i64 = 1_700_006_400_000 / WINDOW_MS * WINDOW_MS;
const TICKS: i64 = 600;

struct World {
    db: Arc<Db>,
    history: History,
    disk: SimStorage,
    series: Vec<SeriesRef>,
    owner: OwnerRef,
}

/// Fifty minutes of samples every 5 s: two windows in files, the third in memory.
fn world() -> World {
    let (disk, clock) = (SimStorage::default(), Arc::new(SimClock::at(START)));
    let (db, _) = Db::open(Config::default(), Arc::new(disk.clone()), clock.clone()).unwrap();
    let group = db.group("g").unwrap();
    let owner = db.create_owner(&[("pod_uid", "u1")]);
    let series: Vec<_> = (0..4)
        .map(|k| db.series(group, &[("__name__", "x_total"), ("k", &k.to_string())], owner).unwrap())
        .collect();
    for k in 0..TICKS {
        let t = START + k * 5000;
        clock.set(t);
        db.append_row(group, t, series.iter().zip(1..).map(|(s, n)| (*s, Sample::Float((k * n) as f64))));
        if k % 60 == 0 {
            db.commit().unwrap();
            while db.maintain() != Work::Nothing {}
        }
    }
    let db = Arc::new(db);
    World { history: History::new(Arc::clone(&db)), db, disk, series, owner }
}

// === impl World ===

impl World {
    fn ask(&self, query: &str, options: &Options) -> Result<Value, QueryError> {
        let times = (START + 10 * 60_000, START + TICKS * 5000, 60_000);
        range(&self.history, query, times, options).map(|answer| answer.value)
    }
}

#[test]
fn a_name_that_comes_late_is_the_name_of_old_samples_too() {
    let world = world();
    let by_pod = "sum by (pod) (rate(x_total[5m]))";
    let Value::Matrix(before) = world.ask(by_pod, &Options::default()).unwrap() else { panic!() };
    assert_eq!(before[0].labels.to_string(), "{}");
    assert!(world.db.bind_owner(world.owner, &[("namespace", "shop"), ("pod", "web")]));
    let Value::Matrix(after) = world.ask(by_pod, &Options::default()).unwrap() else { panic!() };
    assert_eq!(after[0].labels.to_string(), "{pod=\"web\"}");
    assert_eq!(after[0].floats, before[0].floats, "all steps have the name, those from files among them");
    let matchers = [Matcher::new("pod", MatchOp::Equal, "web")];
    let names = world.history.label_names(&matchers, START, i64::MAX).unwrap();
    assert_eq!(names.iter().map(|n| &**n).collect::<Vec<_>>(), ["__name__", "k", "namespace", "pod"]);
    let values = world.history.label_values("k", &matchers, START, i64::MAX).unwrap();
    assert_eq!(values.iter().map(|v| &**v).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

#[test]
fn a_damaged_file_gives_no_answer_rather_than_a_wrong_one() {
    let world = world();
    let query = "sum by (k) (x_total)";
    let expected = world.ask(query, &Options::default()).unwrap();
    let file = world.db.blocks()[0].path().to_path_buf();
    let (path, len) = world.disk.files().into_iter().find(|(path, _)| *path == file).unwrap();
    let mut failures = 0;
    for at in 0..len {
        world.disk.flip(&path, at, 3);
        match world.ask(query, &Options::default()) {
            Ok(got) => assert_eq!(got, expected, "byte {at}"),
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::Internal, "byte {at}: {error}");
                failures += 1;
            }
        }
        world.disk.flip(&path, at, 3);
    }
    assert!(failures > len / 4, "{failures} of {len} bytes matter to the query");
    assert_eq!(world.ask(query, &Options::default()).unwrap(), expected);
}

#[test]
fn limits_stop_a_query_over_the_store() {
    let world = world();
    let with = |limits| Options { limits, ..Options::default() };
    let error = world.ask("x_total", &with(Limits { series: 3, ..Limits::default() })).unwrap_err();
    assert!(error.message.contains("4 series, more than 3"), "{error}");
    let error = world.ask("x_total", &with(Limits { samples: 100, ..Limits::default() })).unwrap_err();
    assert!(error.message.contains("too many samples"), "{error}");
    let error = world.ask("x_total{k=~\"(\"}", &Options::default()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadData, "{error}");
}

#[test]
fn a_series_that_ended_is_not_seen_after_its_marker() {
    let world = world();
    let t = START + (TICKS - 1) * 5000;
    world.db.end(&world.series[..1], t + 1);
    let count = |t| match instant(&world.history, "count(x_total)", t, &Options::default()).unwrap().value {
        Value::Vector(samples) => format!("{:?}", samples[0].cell),
        _ => panic!("a vector was expected"),
    };
    assert_eq!((count(t), count(t + 1)), ("Float(4.0)".to_owned(), "Float(3.0)".to_owned()));
}

#[test]
fn exemplars_are_told_with_the_labels_of_their_series() {
    let world = world();
    let labels = vec![("trace_id".into(), "abc".into())];
    let exemplar = Exemplar { series: world.series[2].id, t: START + 7, value: 0.5, labels };
    assert!(world.db.add_exemplar(exemplar));
    let wanted = [Matcher::new("__name__", MatchOp::Equal, "x_total")];
    let found = world.history.exemplars(&[&wanted, &wanted], START, START + 10).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].labels.get("k"), "2");
    assert_eq!((found[0].exemplars[0].t, found[0].exemplars[0].value), (START + 7, 0.5));
    assert_eq!(found[0].exemplars[0].labels.to_string(), "{trace_id=\"abc\"}");
    assert!(world.history.exemplars(&[&wanted], START + 8, START + 10).unwrap().is_empty());
}
