//! Wires all parts: the only file that knows everyone, and the only one that starts threads.
//!
//! Order matters. Whatever can be refused is asked for first: the port, the data directory, the kernel side. Then
//! every capability goes, and only then does a second thread start, because capabilities are a thread's own.

mod rest;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use telemetry_kube::Known;
use telemetry_model::clock::Timestamp;
use telemetry_model::{Desc, Family, Hierarchy, Kind, Label, Labels, Scope, Series, Unit, float};
use telemetry_tsdb::db::Db;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::api::prometheus::Facts;
use crate::api::{self, Check, Health, HttpStats, Prometheus, Receiver, V1, v1};
use crate::attribute::{Directory, Mounts, Namer, OwnTree};
use crate::bpf::{self, Family as Programs, HierarchyTags, Kernel, privileges};
use crate::config::{Config, KernelConfig};
use crate::doctor;
use crate::host::process;
use crate::journal::{Journal, Keeper};
use crate::pipeline::{Parts, Pipeline, Source};
use crate::signal::Drains;
use crate::store::{self, Latest, Queue, Recorder};
use crate::sysexits;

/// The oldest kernel that is supported.
const KERNEL_MIN: (u32, u32) = (5, 15);
/// A stop is noticed within this.
const STOP_NOTICED: Duration = Duration::from_millis(200);
/// A tick is called stuck when none was finished for three of its lengths, and not before this.
const STUCK_AFTER_MIN: Duration = Duration::from_secs(10);
/// How long answers under way may take to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that this file says of the agent.
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

/// Why the agent did not start: the one line that it says, and its exit code.
#[derive(Debug)]
pub struct Failure {
    /// One of [`sysexits`].
    pub code: u8,
    /// The thing, what is wrong with it, and what to do.
    pub message: String,
}

/// What the pipeline's thread tells the others.
struct Pulse {
    started: Instant,
    stuck_after: Duration,
    /// Milliseconds since `started` when the last tick was finished; 0 before the first.
    last_ms: AtomicU64,
    ticks: AtomicU64,
    panics: AtomicU64,
    stop: AtomicBool,
    signals: Vec<&'static str>,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
///
/// Whatever keeps the agent from starting; nothing is left half-started.
pub fn run(config: Config) -> Result<(), Failure> {
    let listener = bind(&config)?;
    let _lock = lock(&config.data_dir)?;
    let mounts = discover(&config)?;
    let kernel = load(&config, &mounts)?;
    let facts = rest::facts(&kernel, config.tick);
    let drains = Drains::open(kernel);
    let signals: Vec<_> = drains.active().collect();
    let pulse = Arc::new(Pulse::new(config.tick, signals));
    let db = Arc::new(open_store(&config)?);
    let (recorder, queue) = Recorder::new(Arc::clone(&db));
    let latest = Arc::new(Latest::recorded(queue.clone()));
    let http = Arc::new(HttpStats::new(Timestamp::of(SystemTime::now())));
    let queries = queries(&config, &db);
    let pushes = Arc::new(Receiver::new(Arc::clone(&db)));
    let (journal, keeper) = Journal::new(&config.events);
    let keeper = keeper.watching(Arc::clone(&db), Arc::clone(&latest));
    let keeper = if config.store.memory_only { keeper } else { keeper.on_disk(&config.data_dir) };
    rest::tell_start(&journal, &facts);
    let (pods, mut seen) = (Arc::new(Known::default()), 0);
    let pipeline = Pipeline::new(Parts {
        drains,
        directory: Directory::new(&config.attribution),
        namer: Namer::new(&config.attribution.host_root),
        news: Box::new({
            let pods = Arc::clone(&pods);
            move || pods.news(&mut seen)
        }),
        own: OwnTree::of(&mounts),
        mounts,
        latest: Arc::clone(&latest),
        journal: Arc::clone(&journal),
        sources: sources(&pulse, (&http, &queries, &pushes, &pods), &db, queue, &journal),
    });
    drop_privileges()?;
    let tick = config.tick;
    let worker = std::thread::Builder::new()
        .name("pipeline".to_owned())
        .spawn({
            let pulse = Arc::clone(&pulse);
            move || beat(pipeline, tick, &pulse)
        })
        .map_err(|error| Failure::new(sysexits::OS_ERROR, format!("start a thread: {error}")))?;
    let writer = spawn_recorder(recorder, &pulse)?;
    let keeper = spawn_keeper(keeper, &pulse)?;
    let health: Arc<dyn Health> = Arc::<Pulse>::clone(&pulse);
    let gzip_min_bytes = config.exposition.gzip_min_bytes;
    let parts = v1::Parts {
        latest: Arc::clone(&latest),
        health: Arc::clone(&health),
        journal: Arc::clone(&journal),
        facts,
        gzip_min_bytes,
    };
    let own = Arc::new(V1::new(parts));
    let deps = api::Deps { latest, health, observe: http, queries, pushes, own };
    bpf::startup::forget_code();
    let served = serve(listener, deps, &config, pods, &journal);
    pulse.stop.store(true, Ordering::Relaxed);
    if worker.join().is_err() {
        tracing::error!("the pipeline ended in a panic");
    }
    if writer.join().is_err() {
        tracing::error!("the recorder ended in a panic");
    }
    if keeper.join().is_err() {
        tracing::error!("the journal's keeper ended in a panic");
    }
    served.map_err(|error| Failure::new(sysexits::OS_ERROR, format!("serve: {error}")))?;
    tracing::info!("stopped");
    Ok(())
}

fn bind(config: &Config) -> Result<TcpListener, Failure> {
    use std::io::ErrorKind;
    api::bind(config.listen).map_err(|error| {
        let (code, remedy) = match error.kind() {
            ErrorKind::AddrInUse => {
                (sysexits::UNAVAILABLE, "stop what listens there, or choose another with --listen")
            }
            ErrorKind::AddrNotAvailable => {
                (sysexits::UNAVAILABLE, "choose an address of this host with --listen")
            }
            ErrorKind::PermissionDenied => {
                (sysexits::NO_PERMISSION, "choose a port above 1023 with --listen")
            }
            _ => (sysexits::OS_ERROR, "choose another address with --listen"),
        };
        Failure::new(code, format!("listen on {}: {error}; {remedy}", config.listen))
    })
}

/// Makes the data directory and takes it for this process alone.
fn lock(directory: &Path) -> Result<File, Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        let text = format!("{what} {}: {error}; choose another with --data-dir", directory.display());
        Failure::new(sysexits::CANNOT_CREATE, text)
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| failed("create the data directory", &error))?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(directory.join("lock"))
        .map_err(|error| failed("write to the data directory", &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            let text = format!(
                "data directory {}: another agent uses it; choose another with --data-dir",
                directory.display()
            );
            Err(Failure::new(sysexits::UNAVAILABLE, text))
        }
        Err(fs::TryLockError::Error(error)) => Err(failed("lock the data directory", &error)),
    }
}

/// Opens the store: what is damaged in it is served around, and only a directory that cannot be used keeps the agent
/// from starting.
fn open_store(config: &Config) -> Result<Db, Failure> {
    store::open(&config.store, &config.data_dir).map_err(|error| {
        let dir = config.data_dir.join(store::DIR);
        let text = format!("store {}: {error}; choose another with --data-dir", dir.display());
        Failure::new(sysexits::CANNOT_CREATE, text)
    })
}

/// What answers queries, and what it says of the agent under the names that Prometheus' flags have.
fn queries(config: &Config, db: &Arc<Db>) -> Arc<Prometheus> {
    let length = |length: &Duration| crate::human_duration::format(*length);
    let flags = BTreeMap::from([
        ("query.lookback-delta", length(&config.query.lookback)),
        ("query.max-concurrency", config.query.concurrency.to_string()),
        ("query.max-samples", config.query.samples_max.to_string()),
        ("query.timeout", length(&config.query.timeout)),
        ("storage.tsdb.path", config.data_dir.join(store::DIR).display().to_string()),
        ("storage.tsdb.retention.size", config.store.bytes_max.to_string()),
        ("storage.tsdb.retention.time", length(&config.store.retention)),
        ("web.enable-admin-api", config.query.admin.to_string()),
        ("web.listen-address", config.listen.to_string()),
    ]);
    let facts = Facts {
        started: SystemTime::now(),
        // Types of our own that only hold what JSON can say.
        config: serde_json::to_string_pretty(config).unwrap_or_default(),
        flags,
    };
    let source = Arc::new(store::History::new(Arc::clone(db)));
    Arc::new(Prometheus::new(Arc::clone(db), source, &config.query, facts))
}

/// The recorder's thread. A panic costs the tick it was at; it is counted, and the next one is recorded.
fn spawn_recorder(mut recorder: Recorder, pulse: &Arc<Pulse>) -> Result<JoinHandle<()>, Failure> {
    let pulse = Arc::clone(pulse);
    let work = move || {
        while !pulse.stop.load(Ordering::Relaxed) {
            let step = catch_unwind(AssertUnwindSafe(|| recorder.step(STOP_NOTICED)));
            if step.is_err() {
                pulse.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!("the recorder panicked; the tick it was at is not in the store");
            }
        }
        // What the pipeline sent last.
        recorder.step(Duration::ZERO);
    };
    std::thread::Builder::new()
        .name("recorder".to_owned())
        .spawn(work)
        .map_err(|error| Failure::new(sysexits::OS_ERROR, format!("start a thread: {error}")))
}

/// The journal's thread. A panic costs the events it was at; it is counted, and the next ones are written.
fn spawn_keeper(mut keeper: Keeper, pulse: &Arc<Pulse>) -> Result<JoinHandle<()>, Failure> {
    let pulse = Arc::clone(pulse);
    let work = move || {
        while !pulse.stop.load(Ordering::Relaxed) {
            if catch_unwind(AssertUnwindSafe(|| keeper.step(STOP_NOTICED))).is_err() {
                pulse.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!("the journal's keeper panicked; events it was at may be lost");
            }
        }
        keeper.stop();
    };
    std::thread::Builder::new()
        .name("journal".to_owned())
        .spawn(work)
        .map_err(|error| Failure::new(sysexits::OS_ERROR, format!("start a thread: {error}")))
}

fn discover(config: &Config) -> Result<Mounts, Failure> {
    let read = |path: &str| {
        fs::read_to_string(path).map_err(|error| {
            Failure::new(sysexits::UNAVAILABLE, format!("read {path}: {error}; mount /proc"))
        })
    };
    let (mountinfo, cgroups) = (read("/proc/self/mountinfo")?, read("/proc/cgroups").unwrap_or_default());
    Mounts::discover(&mountinfo, &cgroups, &config.attribution.cgroup_root)
        .map_err(|error| Failure::new(sysexits::UNAVAILABLE, format!("cgroup hierarchies: {error}")))
}

/// What the kernel side is to be, on this host.
#[must_use]
pub fn options(config: &KernelConfig, mounts: &Mounts) -> bpf::Options {
    let KernelConfig { owners_max, quarantine, block_cells_max, disable_programs, families } = config;
    let wanted = [
        (families.scheduler, Programs::Scheduler),
        (families.block, Programs::Block),
        (families.network, Programs::Network),
    ];
    let point = |hierarchy| mounts.point(hierarchy).map(Path::to_owned);
    bpf::Options {
        slots: *owners_max,
        block_cells: *block_cells_max,
        quarantine: *quarantine,
        families: wanted.into_iter().filter(|(wanted, _)| *wanted).map(|(_, family)| family).collect(),
        disabled: disable_programs.clone(),
        hierarchies: HierarchyTags {
            unified: point(Hierarchy::Unified),
            tasks_v1: point(Hierarchy::Cpu).is_some(),
            block_v1: point(Hierarchy::Blkio).is_some(),
        },
    }
}

fn load(config: &Config, mounts: &Mounts) -> Result<Kernel, Failure> {
    let missing = privileges::missing(privileges::REQUIRED);
    if !missing.is_empty() {
        let names = missing.iter().map(|cap| cap.name()).collect::<Vec<_>>().join(", ");
        let text = format!(
            "privileges: {names} missing; run as root, or grant CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
        );
        return Err(Failure::new(sysexits::NO_PERMISSION, text));
    }
    let kernel = Kernel::load(&options(&config.kernel, mounts)).map_err(|error| {
        let (code, remedy) = match &error {
            error if error.is_permission() => (sysexits::NO_PERMISSION, "grant CAP_BPF and CAP_PERFMON"),
            bpf::Error::NotBuilt => (sysexits::UNAVAILABLE, "see README.md"),
            _ => (sysexits::UNAVAILABLE, "`telemetry-agent doctor` tells what this host lacks"),
        };
        Failure::new(code, format!("kernel side: {error}; {}{remedy}", too_old()))
    })?;
    for state in &kernel.programs {
        match &state.error {
            None => tracing::debug!(program = state.program.name, hook = state.program.hook, "attached"),
            Some(error) => tracing::warn!(
                program = state.program.name,
                hook = state.program.hook,
                %error,
                "not attached; what it feeds is absent"
            ),
        }
    }
    for field in &kernel.missing_fields {
        tracing::warn!(field, "this kernel does not have the field; programs that need it are absent");
    }
    Ok(kernel)
}

/// A hint for the case that the kernel is older than what is supported; empty otherwise.
fn too_old() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split('.').map_while(|number| number.trim().parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < KERNEL_MIN => {
            let (least_major, least_minor) = KERNEL_MIN;
            format!("Linux {least_major}.{least_minor} or later is needed, this is {}; ", release.trim())
        }
        _ => String::new(),
    }
}

/// Loads and attaches the programs, and lets them go again: what `doctor` says of them.
#[must_use]
pub fn try_programs(config: &Config) -> Vec<doctor::Check> {
    // Without the hierarchies or the rights there is nothing to try, and the other checks say so.
    if !privileges::missing(privileges::REQUIRED).is_empty() {
        return Vec::new();
    }
    let Ok(mounts) = discover(config) else { return Vec::new() };
    doctor::loaded(&Kernel::load(&options(&config.kernel, &mounts)))
}

fn drop_privileges() -> Result<(), Failure> {
    privileges::drop_all().map_err(|error| {
        Failure::new(
            sysexits::OS_ERROR,
            format!("give up capabilities: {error}; the agent does not run with them"),
        )
    })
}

/// What else every snapshot says.
fn sources(
    pulse: &Arc<Pulse>,
    (http, queries, pushes, pods): (&Arc<HttpStats>, &Arc<Prometheus>, &Arc<Receiver>, &Arc<Known>),
    db: &Arc<Db>,
    queue: Queue,
    journal: &Arc<Journal>,
) -> Vec<Source> {
    let journal = Arc::clone(journal);
    let (pulse, http, db) = (Arc::clone(pulse), Arc::clone(http), Arc::clone(db));
    let (queries, pushes, pods) = (Arc::clone(queries), Arc::clone(pushes), Arc::clone(pods));
    vec![
        Box::new(process::families),
        Box::new(move || http.families()),
        Box::new(move || queries.families()),
        Box::new(move || pushes.families()),
        Box::new(move || pods.families()),
        Box::new(move || own_families(&pulse)),
        Box::new(move || store::families(&db, &queue)),
        Box::new(move || journal.families()),
    ]
}

fn own_families(pulse: &Pulse) -> Vec<Family> {
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
fn beat(mut pipeline: Pipeline, tick: Duration, pulse: &Pulse) {
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
            Ok(true) => pulse.beat(),
            Err(_) => {
                pulse.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!("a tick panicked; what it had read and not yet added up is lost");
            }
        }
        // After a stall the schedule goes on from now: ticks are not made up for.
        due = (due + tick).max(Instant::now());
    }
}

/// Serves until a signal asks for the end.
fn serve(
    listener: TcpListener,
    deps: api::Deps,
    config: &Config,
    pods: Arc<Known>,
    journal: &Journal,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("query")
        .max_blocking_threads(
            config.query.concurrency + api::prometheus::STREAMS + api::write::CONCURRENCY + v1::CONCURRENCY,
        )
        .build()?;
    let address = listener.local_addr()?;
    let served = runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let server = api::serve(listener, deps, config.http.clone(), config.exposition.clone(), stopped);
        tokio::pin!(server);
        tracing::info!(%address, "listening");
        let watch = config.kubernetes.watch();
        if watch.is_on() {
            // It ends with the runtime.
            tokio::spawn(telemetry_kube::run(watch, pods));
        }
        tokio::select! {
            ended = &mut server => return ended,
            _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "stopping"),
            _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "stopping"),
        }
        journal.close();
        let _ = stop.send(true);
        tokio::time::timeout(SHUTDOWN_TIMEOUT, server).await.unwrap_or(Ok(()))
    });
    runtime.shutdown_timeout(Duration::ZERO);
    served
}

// === impl Failure ===

impl Failure {
    /// A failure with one of [`sysexits`].
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

// === impl Pulse ===

impl Pulse {
    fn new(tick: Duration, signals: Vec<&'static str>) -> Self {
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
