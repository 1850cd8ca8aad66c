//! The pipeline's beat: its thread's loop, and what the others know of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use telemetry_model::{Desc, Family, Kind, Label, Labels, Scope, Series, Unit, float};

use crate::api::{Check, Health};
use crate::bpf;
use crate::pipeline::Pipeline;

/// A stop is noticed within this.
pub(super) const STOP_NOTICED: Duration = Duration::from_millis(200);
/// A tick is called stuck when none was finished for three of its lengths, and not before this.
const STUCK_AFTER_MIN: Duration = Duration::from_secs(10);

/// Everything that the agent says of itself as a whole.
pub static METRICS: &[&Desc] = &[&BUILD_INFO, &TASK_PANICS, &TICKS];

static BUILD_INFO: Desc = Desc {
    name: "telemetry_agent_build_info",
    kind: Kind::Info,
    unit: Unit::None,
    help: "Version of the running agent.",
    scope: Scope::Agent,
    labels: &["version", "revision", "aya", "rustc"],
    bound: "1",
    source: "the build",
};

static TASK_PANICS: Desc = Desc {
    name: "telemetry_agent_task_panics_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Times a task of the agent died and was started again.",
    scope: Scope::Agent,
    labels: &["task"],
    bound: "1",
    source: "the supervisor",
};

static TICKS: Desc = Desc {
    name: "telemetry_agent_ticks_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Ticks finished: each one reads all cells and publishes a snapshot.",
    scope: Scope::Agent,
    labels: &[],
    bound: "1",
    source: "the pipeline",
};

/// What the pipeline's thread tells the others.
pub(super) struct Pulse {
    started: Instant,
    stuck_after: Duration,
    /// Milliseconds since `started` when the last tick was finished; 0 before the first.
    last_ms: AtomicU64,
    ticks: AtomicU64,
    pub(super) panics: AtomicU64,
    pub(super) stop: AtomicBool,
    signals: Vec<&'static str>,
}

// === impl Pulse ===

impl Pulse {
    pub(super) fn new(tick: Duration, signals: Vec<&'static str>) -> Self {
        Self {
            started: Instant::now(),
            stuck_after: (3 * tick).max(STUCK_AFTER_MIN),
            last_ms: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            signals,
        }
    }

    fn beat(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(millis.max(1), Ordering::Relaxed);
    }

    fn since_last(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

impl Health for Pulse {
    fn live(&self) -> Result<(), String> {
        let since = self.since_last();
        if since > self.stuck_after {
            return Err(format!("no tick was finished for {} s", since.as_secs()));
        }
        Ok(())
    }

    fn ready(&self) -> Vec<Check> {
        let first = if self.ticks.load(Ordering::Relaxed) > 0 {
            Check::holds("first-tick")
        } else {
            Check::fails("first-tick", "the cells have not been read yet")
        };
        let drain = match self.live() {
            Ok(()) => Check::holds("drain"),
            Err(reason) => Check::fails("drain", reason),
        };
        let signals = if self.signals.is_empty() {
            Check::fails("signals", "no signal is attached")
        } else {
            Check::holds("signals")
        };
        vec![first, drain, signals]
    }
}

pub(super) fn own_families(pulse: &Pulse) -> Vec<Family> {
    let build = Labels::new(vec![
        Label::new("version", env!("CARGO_PKG_VERSION")),
        Label::new("revision", env!("TELEMETRY_REVISION")),
        Label::new("aya", bpf::AYA_VERSION),
        Label::new("rustc", env!("TELEMETRY_RUSTC")),
    ]);
    let one = |desc, labels, value| Family { desc, series: vec![Series::number(labels, value)] };
    vec![
        one(&BUILD_INFO, build, 1.0),
        one(
            &TASK_PANICS,
            Labels::fixed(&[("task", "pipeline")]),
            float(pulse.panics.load(Ordering::Relaxed)),
        ),
        one(&TICKS, Labels::none(), float(pulse.ticks.load(Ordering::Relaxed))),
    ]
}

/// The pipeline's thread: names as they come, a tick when it is due. A tick that panics is counted, and the next one
/// is run; if none is ever finished again, `/livez` says so.
pub(super) fn beat(mut pipeline: Pipeline, tick: Duration, pulse: &Pulse) {
    // The first tick is due at once, so that the page is there when the agent says it is ready.
    let mut due = Instant::now();
    while !pulse.stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        let step = catch_unwind(AssertUnwindSafe(|| {
            if now < due {
                pipeline.learn((due - now).min(STOP_NOTICED));
                return false;
            }
            pipeline.tick(now - due);
            true
        }));
        match step {
            Ok(false) => continue,
            Ok(true) => {
                pulse.beat();
                if pulse.ticks.load(Ordering::Relaxed) == 1 {
                    // The first tick makes what later ones add to.
                    bpf::startup::forget_code();
                }
            }
            Err(_) => {
                pulse.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!("a tick panicked; what it had read and not yet added up is lost");
            }
        }
        // After a stall the schedule goes on from now: ticks are not made up for.
        due = (due + tick).max(Instant::now());
    }
}
