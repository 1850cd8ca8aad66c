//! Wires all parts: the only file that knows everyone, and the only one that starts threads.
//!
//! Order matters. Whatever can be refused is asked for first: the port, the data directory, the kernel side. Then
//! every capability goes, and only then does a second thread start, because capabilities are a thread's own.

mod pulse;
mod rest;
mod reviews;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use telemetry_kube::{Known, Reviews};
use telemetry_model::Hierarchy;
use telemetry_model::clock::Timestamp;
use telemetry_tsdb::db::Db;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::api::grpc::Service;
use crate::api::prometheus::Facts;
use crate::api::security::{self, Access, Authority, Security};
use crate::api::{self, Health, HttpStats, OtlpReceiver, Prometheus, Receiver, ThanosStore, V1, v1};
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

pub use pulse::METRICS;
use pulse::{Pulse, STOP_NOTICED};

/// The oldest kernel that is supported.
const KERNEL_MIN: (u32, u32) = (5, 15);
/// When what only the start and the first answers needed can leave memory.
const SETTLED: Duration = Duration::from_secs(1);
/// How often memory that nobody uses is given back.
const TRIM_INTERVAL: Duration = Duration::from_secs(30);
/// How long answers under way may take to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the agent did not start: the one line that it says, and its exit code.
#[derive(Debug)]
pub struct Failure {
    /// One of [`sysexits`].
    pub code: u8,
    /// The thing, what is wrong with it, and what to do.
    pub message: String,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
///
/// Whatever keeps the agent from starting; nothing is left half-started.
pub fn run(config: Config) -> Result<(), Failure> {
    bpf::startup::keep_heaps_small();
    let http = Arc::new(HttpStats::new(Timestamp::of(SystemTime::now())));
    let reviews = reviews::of(&config.kubernetes)?;
    let security = secure(&config, reviews.as_ref())?;
    let listener = bind(&config)?;
    let [otlp_port, thanos_port] = grpc_ports(&config)?;
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
    let queries = queries(&config, &db);
    let pushes = Arc::new(Receiver::new(Arc::clone(&db)));
    let (journal, keeper) = Journal::new(&config.events);
    let keeper = rest::keeper(keeper, &config, (&db, &latest));
    rest::tell_start(&journal, &facts);
    let otlp = Arc::new(OtlpReceiver::new(Arc::clone(&db), &config.otlp));
    let thanos = thanos(&config, &db)?;
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
        sources: sources(&pulse, (&http, &security, &journal), (&queries, &pushes, &pods), (&db, queue))
            .into_iter()
            .chain(grpc_sources(&otlp, &thanos))
            .chain(reviews.map(|reviews| Box::new(move || reviews.families()) as Source))
            .collect(),
    });
    drop_privileges()?;
    let threads = [
        ("pipeline", spawn_pipeline(pipeline, config.tick, &pulse)?),
        ("recorder", spawn_recorder(recorder, &pulse)?),
        ("journal's keeper", spawn_keeper(keeper, &pulse)?),
    ];
    let health: Arc<dyn Health> = Arc::<Pulse>::clone(&pulse);
    let own = Arc::new(V1::new(v1::Parts {
        latest: Arc::clone(&latest),
        health: Arc::clone(&health),
        journal: Arc::clone(&journal),
        facts,
        gzip_min_bytes: config.exposition.gzip_min_bytes,
    }));
    let deps = api::Deps { latest, health, observe: http, queries, pushes, otlp, security, own };
    let services =
        [(otlp_port, Service::Otlp(Arc::clone(&deps.otlp))), (thanos_port, Service::Thanos(thanos))];
    bpf::startup::forget_code();
    let served = serve((listener, services), deps, &config, pods, &journal);
    pulse.stop.store(true, Ordering::Relaxed);
    for (name, thread) in threads {
        if thread.join().is_err() {
            tracing::error!("the {name} ended in a panic");
        }
    }
    served.map_err(|error| Failure::new(sysexits::OS_ERROR, format!("serve: {error}")))?;
    tracing::info!("stopped");
    Ok(())
}

/// Who may ask, before anybody can.
fn secure(config: &Config, reviews: Option<&Arc<Reviews>>) -> Result<Arc<Security>, Failure> {
    let file = Some(config.web_config_file.as_path()).filter(|file| !file.as_os_str().is_empty());
    let access = if config.insecure_listen { Access::Anybody } else { Access::Granted };
    let created = Timestamp::of(SystemTime::now());
    // What is no address is no port that is open.
    let grpc = [&config.otlp_grpc, &config.thanos_grpc].into_iter().filter_map(|text| text.parse().ok());
    let listen = std::iter::once(config.listen).chain(grpc).collect();
    let authority = reviews.map(|reviews| Arc::new(reviews::ApiServer::new(reviews)) as Arc<dyn Authority>);
    let loaded = Security::load(file, (listen, access), authority, &config.http, created);
    let security = loaded.map_err(|error| {
        let code = match error {
            security::Error::Read { .. } => sysexits::NO_INPUT,
            security::Error::Content { .. } | security::Error::Open(_) => sysexits::CONFIG,
        };
        Failure::new(code, error.to_string())
    })?;
    Ok(Arc::new(security))
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

fn grpc_ports(config: &Config) -> Result<[Option<TcpListener>; 2], Failure> {
    Ok([bind_grpc("otlp_grpc", &config.otlp_grpc)?, bind_grpc("thanos_grpc", &config.thanos_grpc)?])
}

/// The port of a key, if there is to be one.
fn bind_grpc(key: &str, text: &str) -> Result<Option<TcpListener>, Failure> {
    // The configuration holds an address or nothing.
    let Ok(address) = text.parse() else { return Ok(None) };
    let bound = api::bind(address).map_err(|error| {
        let text = format!("listen on {address}: {error}; choose another address for {key}");
        Failure::new(sysexits::UNAVAILABLE, text)
    })?;
    tracing::info!(%address, key, "listening for gRPC");
    Ok(Some(bound))
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

/// The store as Thanos sees it.
fn thanos(config: &Config, db: &Arc<Db>) -> Result<Arc<ThanosStore>, Failure> {
    let (series, samples) = (config.query.series_max, config.query.samples_max);
    let made = ThanosStore::new(Arc::clone(db), &config.thanos, series, samples);
    made.map(Arc::new)
        .map_err(|what| Failure::new(sysexits::CONFIG, format!("thanos.external_labels: {what}")))
}

/// The pipeline's thread.
fn spawn_pipeline(pipeline: Pipeline, tick: Duration, pulse: &Arc<Pulse>) -> Result<JoinHandle<()>, Failure> {
    let pulse = Arc::clone(pulse);
    std::thread::Builder::new()
        .name("pipeline".to_owned())
        .spawn(move || pulse::beat(pipeline, tick, &pulse))
        .map_err(|error| Failure::new(sysexits::OS_ERROR, format!("start a thread: {error}")))
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
    let step = move |keeper: &mut Keeper, patience: Duration| {
        if catch_unwind(AssertUnwindSafe(|| keeper.step(patience))).is_err() {
            pulse.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!("the journal's keeper panicked; events it was at may be lost");
        }
        !pulse.stop.load(Ordering::Relaxed)
    };
    // The first step opens what is on disk: here, so that its code leaves memory with that of the start.
    step(&mut keeper, Duration::ZERO);
    let work = move || {
        while step(&mut keeper, STOP_NOTICED) {}
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
    (http, security, journal): (&Arc<HttpStats>, &Arc<Security>, &Arc<Journal>),
    (queries, pushes, pods): (&Arc<Prometheus>, &Arc<Receiver>, &Arc<Known>),
    (db, queue): (&Arc<Db>, Queue),
) -> Vec<Source> {
    let journal = Arc::clone(journal);
    let (pulse, http, db) = (Arc::clone(pulse), Arc::clone(http), Arc::clone(db));
    let (queries, pushes, pods) = (Arc::clone(queries), Arc::clone(pushes), Arc::clone(pods));
    let security = Arc::clone(security);
    vec![
        Box::new(process::families),
        Box::new(move || http.families()),
        Box::new(move || security.families()),
        Box::new(move || queries.families()),
        Box::new(move || pushes.families()),
        Box::new(move || pods.families()),
        Box::new(move || pulse::own_families(&pulse)),
        Box::new(move || store::families(&db, &queue)),
        Box::new(move || journal.families()),
    ]
}

/// What is said of those that are asked over gRPC.
fn grpc_sources(otlp: &Arc<OtlpReceiver>, thanos: &Arc<ThanosStore>) -> [Source; 2] {
    let (otlp, thanos) = (Arc::clone(otlp), Arc::clone(thanos));
    [Box::new(move || otlp.families()), Box::new(move || thanos.families())]
}

/// Serves until a signal asks for the end.
fn serve(
    (listener, services): (TcpListener, [(Option<TcpListener>, Service); 2]),
    deps: api::Deps,
    config: &Config,
    pods: Arc<Known>,
    journal: &Journal,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("query")
        .max_blocking_threads(
            config.query.concurrency
                + api::prometheus::STREAMS
                + api::write::CONCURRENCY
                + api::otlp::CONCURRENCY
                + api::thanos::CONCURRENCY
                + security::CONCURRENCY
                + v1::CONCURRENCY,
        )
        .build()?;
    let address = listener.local_addr()?;
    let served = runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        for (port, service) in services {
            let Some(port) = port else { continue };
            // It ends with the stop that it watches, or with the runtime.
            let security = Arc::clone(&deps.security);
            tokio::spawn(api::grpc::serve(port, service, security, stopped.clone()));
        }
        let server = api::serve(listener, deps, config.http.clone(), config.exposition.clone(), stopped);
        tokio::pin!(server);
        tracing::info!(%address, "listening");
        tokio::spawn(async {
            tokio::time::sleep(SETTLED).await;
            bpf::startup::forget_code();
            loop {
                tokio::time::sleep(TRIM_INTERVAL).await;
                let _ = tokio::task::spawn_blocking(bpf::startup::trim).await;
            }
        });
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
