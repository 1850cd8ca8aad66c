//! Queries that nobody means well with: each answers or is refused within its time, holds no more than its budget, and
//! stops when it is told to.
//!
//! Bytes are counted by the allocator and time by the kernel, both of the whole process; so the tests of this program run
//! one after the other, and none of them minds what else the machine does.
#![cfg(test)]

mod generated;
mod source;
mod written;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use telemetry_promql::budget::Limits;
use telemetry_promql::error::{ErrorKind, QueryError};
use telemetry_promql::eval::{Options, instant, range};
use telemetry_promql::parse;

use source::{END, Fleet, START};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// One test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What a query may hold.
const BUDGET_BYTES: usize = 64 << 20;
/// What may be held beside it, uncounted: the parsed query and its compiled expressions, what is on its way between the two
/// reading threads, lists that have just been made larger, remarks.
const SLACK_BYTES: usize = 16 << 20;
/// How long a query may take.
const TIME: Duration = Duration::from_millis(200);
/// How late it may notice: this build is several times slower than the one that ships.
const LATE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 150 } else { 15 });
/// Threads that compute for one query.
const THREADS: u32 = 2;
/// Queries that a generator makes.
const GENERATED: usize = 900;

/// A query and when it is asked.
struct Case {
    text: String,
    /// First, last and step, milliseconds; one time only if there is no step.
    times: (i64, i64, i64),
}

/// What a query came to.
struct Outcome {
    peak: usize,
    used: Duration,
    error: Option<QueryError>,
}

/// Shown with `--nocapture`.
fn tell(text: &str) {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{text}").unwrap();
}

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Processor time of this process, in the kernel's ticks of 10 ms.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn options(at: usize) -> Options {
    Options {
        language: parse::Options::all(),
        limits: Limits { bytes: BUDGET_BYTES as u64, time: TIME, ..Limits::default() },
        delayed_name_removal: at.is_multiple_of(2),
        start_timestamps: at.is_multiple_of(3),
        type_and_unit_labels: at.is_multiple_of(5),
        ..Options::default()
    }
}

fn ask(fleet: &Fleet, case: &Case, options: &Options) -> Result<(), QueryError> {
    let Case { text, times } = case;
    match times.2 {
        0 => instant(fleet, text, times.1, options),
        _ => range(fleet, text, *times, options),
    }
    // What was answered is alive until here.
    .map(|answer| drop(std::hint::black_box(answer)))
}

fn measure(fleet: &Fleet, case: &Case, options: &Options) -> Outcome {
    let (held, used) = (ALLOCATOR.current_usage(), processor_time());
    ALLOCATOR.reset_peak_usage();
    let error = ask(fleet, case, options).err();
    let peak = ALLOCATOR.peak_usage().saturating_sub(held);
    Outcome { peak, used: processor_time().saturating_sub(used), error }
}

/// Times of a case: one, some, and as many as there may be.
fn times(at: usize) -> (i64, i64, i64) {
    match at % 4 {
        0 => (END, END, 0),
        1 => (START, END, 60_000),
        2 => (START, END, 10_000),
        _ => (START - 1000, START + 10_999_000, 1000),
    }
}

/// Runs cases; says what each of them did wrong.
fn check(cases: &[Case]) {
    let fleet = Fleet::new();
    let (mut wrong, mut most, mut refused, mut answered) = (Vec::new(), (0, String::new()), 0, 0);
    let bound = (TIME + LATE) * THREADS;
    for (at, case) in cases.iter().enumerate() {
        let outcome = measure(&fleet, case, &options(at));
        if outcome.peak > BUDGET_BYTES + SLACK_BYTES {
            wrong.push(format!("held {} KiB: {} {:?}", outcome.peak >> 10, case.text, case.times));
        }
        if outcome.used > bound {
            wrong.push(format!("took {:?}: {} {:?}", outcome.used, case.text, case.times));
        }
        if outcome.peak > most.0 {
            most = (outcome.peak, case.text.clone());
        }
        match outcome.error {
            Some(error) if error.kind == ErrorKind::Internal => wrong.push(format!("{error}: {}", case.text)),
            Some(_) => refused += 1,
            None => answered += 1,
        }
    }
    assert!(wrong.is_empty(), "{} of {} queries:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(
        answered > 0 && refused > 0,
        "{answered} answered, {refused} refused: not hostile, or not a query"
    );
    let told =
        format!("{answered} answered, {refused} refused, most held {} KiB by {}", most.0 >> 10, most.1);
    assert!(most.0 > BUDGET_BYTES / 4, "nothing comes near the budget: {told}");
    tell(&told);
}

#[test]
fn queries_that_people_wrote_stay_within_their_bounds() {
    let _alone = alone();
    let texts = written::queries();
    assert!(texts.len() >= 100, "{}", texts.len());
    let cases: Vec<Case> = texts
        .iter()
        .enumerate()
        .flat_map(|(at, text)| [at, at + 3].map(|at| Case { text: text.clone(), times: times(at) }))
        .collect();
    check(&cases);
}

#[test]
fn queries_that_a_grammar_wrote_stay_within_their_bounds() {
    let _alone = alone();
    let mut grammar = generated::Grammar::new(11);
    let cases: Vec<Case> =
        (0..GENERATED).map(|at| Case { text: grammar.query(), times: times(at) }).collect();
    let parsed = cases.iter().filter(|case| parse::parse(&case.text, &parse::Options::all()).is_ok()).count();
    assert!(parsed * 10 > GENERATED * 8, "only {parsed} of {GENERATED} are queries");
    check(&cases);
}

/// Told to stop while it works, a query is gone within 10 ms of the processor's time.
#[test]
fn a_canceled_query_is_gone_at_once() {
    const TRIALS: u32 = 24;
    let _alone = alone();
    let fleet = Fleet::new();
    let heavy = [
        "quantile_over_time(0.9, x_total[2h])",
        "histogram_quantile(0.9, sum by (le) (rate(h_bucket[1h])))",
        "sum(rate(n[1h]))",
        "topk(5, x_total) + on (pod, job, instance) x_total",
        "sort(max_over_time(rate(x_total[5m])[1h:10s]))",
        "count_values(\"v\", x_total * 1.7)",
    ];
    let mut late = Duration::ZERO;
    for trial in 0..TRIALS {
        let canceled = Arc::new(AtomicBool::new(false));
        let limits = Limits { time: Duration::from_secs(600), bytes: 1 << 30, ..Limits::default() };
        let options = Options { canceled: Arc::clone(&canceled), limits, ..options(1) };
        let text = heavy[trial as usize % heavy.len()].to_owned();
        let case = Case { text, times: (START, START + 7_200_000, 1000) };
        std::thread::scope(|scope| {
            let query = scope.spawn(|| ask(&fleet, &case, &options));
            let (begun, before) = (Instant::now(), processor_time());
            // Stopped in the midst of its work, wherever that is.
            let work = Duration::from_millis(30 + 10 * u64::from(trial));
            while processor_time() - before < work && !query.is_finished() && begun.elapsed() < TIME * 20 {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            canceled.store(true, Ordering::Relaxed);
            let asked = processor_time();
            let result = query.join().unwrap();
            late += processor_time().saturating_sub(asked);
            if let Err(error) = result {
                assert_eq!(error.kind, ErrorKind::Canceled, "{}: {error}", case.text);
            }
        });
    }
    let (each, most) =
        (late / TRIALS, LATE.min(Duration::from_millis(if cfg!(debug_assertions) { 50 } else { 10 })));
    tell(&format!("{each:?} of work after it was told to stop"));
    assert!(each <= most * THREADS, "{each:?} of work after it was told to stop");
}
