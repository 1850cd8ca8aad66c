//! What queries say once samples were downsampled and raw ones are gone: over whole intervals the same as of all
//! samples, to the last bit where that is promised.

use std::sync::Arc;

use telemetry_agent::store::History;
use telemetry_promql::eval::{Options, range};
use telemetry_promql::labels::Labels;
use telemetry_promql::script::Memory;
use telemetry_promql::source::Source;
use telemetry_promql::value::{Cell, Series, Value};
use telemetry_tsdb::db::{Config, Db, Metadata, Retention, Work};
use telemetry_tsdb::fs::sim::{Rng, SimClock, SimStorage};
use telemetry_tsdb::head::Sample;
use telemetry_tsdb::index::OwnerRef;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// A whole number of days.
const START: i64 = 1_699_920_000_000;
const HOURS: i64 = 40;
const TICK: i64 = 15_000;

/// A store that has raw samples of its last hours only, and all samples in memory beside it.
struct World {
    history: History,
    all: Memory,
    db: Arc<Db>,
}

fn world() -> World {
    let retention = Retention {
        raw_ms: 6 * HOUR,
        minute_ms: 20 * HOUR,
        five_minutes_ms: 30 * HOUR,
        hour_ms: 1000 * HOUR,
    };
    let clock = Arc::new(SimClock::at(START));
    let config = Config { retention, ..Config::default() };
    let (db, _) = Db::open(config, Arc::new(SimStorage::default()), clock.clone()).unwrap();
    let (group, mut all, mut rng) = (db.group("g").unwrap(), Memory::default(), Rng::new(5));
    let mut state = [0.0, 0.0];
    for (family, kind) in [("c_total", "counter"), ("g", "gauge")] {
        db.set_metadata(family, Metadata { kind: kind.into(), ..Metadata::default() });
    }
    let labels = [
        Labels::from_texts([("__name__", "c_total"), ("zone", "a")]),
        Labels::from_texts([("__name__", "g"), ("zone", "a")]),
    ];
    for tick in 0..HOURS * HOUR / TICK {
        let t = START + tick * TICK;
        clock.set(t);
        state[0] = if rng.below(900) == 0 { 1.0 } else { state[0] + rng.below(9) as f64 };
        state[1] = rng.below(1000) as f64 / 4.0;
        // The gauge is not there for two hours of each ten.
        let cells = labels.iter().zip(state);
        let cells = cells.take(if tick * TICK % (10 * HOUR) < 8 * HOUR { 2 } else { 1 });
        let row: Vec<_> = cells
            .map(|(labels, value)| {
                all.append(labels, t, 0, Cell::Float(value)).unwrap();
                // A series that was away for a window has another place.
                let pairs: Vec<(&str, &str)> = labels.iter().collect();
                (db.series(group, &pairs, OwnerRef(0)).unwrap(), Sample::Float(value))
            })
            .collect();
        assert!(db.append_row(group, t, row).refused.is_empty());
        if tick % 16 == 0 {
            db.commit().unwrap();
            while !matches!(db.maintain(), Work::Nothing | Work::Failed) {}
        }
    }
    let db = Arc::new(db);
    World { history: History::new(Arc::clone(&db)), all, db }
}

fn ask(source: &dyn Source, query: &str, times: (i64, i64, i64)) -> Vec<Series> {
    let answer = range(source, query, times, &Options::default()).unwrap();
    let Value::Matrix(matrix) = answer.value else { panic!("{query}: a matrix was expected") };
    matrix
}

/// The last row of the newest tier, and the last raw file, are not there yet.
fn times(step: i64) -> (i64, i64, i64) {
    (START + 12 * HOUR, START + 36 * HOUR, step)
}

#[test]
fn whole_intervals_say_the_same_as_all_samples() {
    let world = world();
    let oldest = world.db.blocks().iter().filter(|b| b.meta().tier_ms == 0).map(|b| b.meta().min_t).min();
    assert!(oldest.unwrap() > START + 24 * HOUR, "raw samples of the first day are gone");
    for query in [
        "max_over_time(g[5h])",
        "min_over_time(g[5h])",
        "sum_over_time(g[5h])",
        "count_over_time(g[5h])",
        "last_over_time(c_total[5h])",
        "count_over_time(g[2h])",
        "present_over_time(g[1h])",
        "c_total",
        "sum by (zone) (max_over_time(g[1h]))",
        "max_over_time(g[1h] offset 3h)",
    ] {
        for step in [HOUR, 5 * HOUR] {
            let (got, expected) =
                (ask(&world.history, query, times(step)), ask(&world.all, query, times(step)));
            assert!(!expected.is_empty(), "{query}: something is expected");
            assert_eq!(got, expected, "{query}, step {step}");
        }
    }
}

#[test]
fn a_counter_grew_by_what_it_grew_but_for_the_first_interval_of_a_window() {
    let world = world();
    for query in ["increase(c_total[5h])", "sum(rate(c_total[5h]))"] {
        let (got, expected) = (ask(&world.history, query, times(HOUR)), ask(&world.all, query, times(HOUR)));
        assert_eq!(got[0].floats.len(), expected[0].floats.len());
        for ((t, value), (_, exact)) in got[0].floats.iter().zip(&expected[0].floats) {
            // A reset before which a tier's row saw more than the samples of the window is in both.
            assert!((value / exact - 1.0).abs() < 0.05, "{query} at {t}: {value} in place of {exact}");
        }
    }
}

#[test]
fn narrow_steps_are_answered_from_every_sample_where_there_are_such() {
    let world = world();
    let recent = (START + 36 * HOUR, START + 39 * HOUR, 15_000);
    for query in ["rate(c_total[5m])", "avg_over_time(g[5m])", "timestamp(c_total)", "count_over_time(g[1m])"]
    {
        assert_eq!(ask(&world.history, query, recent), ask(&world.all, query, recent), "{query}");
    }
    // Wide steps, but a tier does not know the least value of a counter, nor how its samples add up.
    let wide = (START + 36 * HOUR, START + 39 * HOUR, 20 * MINUTE);
    for query in ["min_over_time(c_total[20m])", "sum_over_time(c_total[20m])"] {
        assert_eq!(ask(&world.history, query, wide), ask(&world.all, query, wide), "{query}");
    }
    // Wide steps that no interval fits.
    let odd = (START + 36 * HOUR + 7000, START + 39 * HOUR, 20 * MINUTE);
    for query in ["max_over_time(g[20m])", "count_over_time(g[20m])", "c_total"] {
        assert_eq!(ask(&world.history, query, odd), ask(&world.all, query, odd), "{query}");
    }
}
