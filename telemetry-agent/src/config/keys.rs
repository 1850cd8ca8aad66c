//! The table of all keys: what each means and what it may be.

use std::net::SocketAddr;
use std::time::Duration;

use toml::{Table, Value};

use crate::human_duration;

/// Bytes of a name in Kubernetes.
const NAME_BYTES_MAX: usize = 253;

/// One key of the configuration.
pub(super) struct Key {
    /// Its name with its sections.
    pub(super) name: &'static str,
    /// What it may be.
    pub(super) kind: Kind,
    /// What it does, and when to change it.
    pub(super) help: &'static str,
}

/// What a value may be.
pub(super) enum Kind {
    /// An IP address and a port.
    Address,
    /// The same, or nothing.
    AddressOrEmpty,
    /// A path.
    Path,
    /// An absolute path, or nothing.
    PathOrEmpty,
    /// A name as Kubernetes takes it, or nothing.
    NameOrEmpty,
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A time, within bounds that are part of it.
    Duration(Duration, Duration),
    /// A whole number, within bounds that are part of it.
    Integer(i64, i64),
    /// A list of names.
    Names,
}

/// Every key, in the order of the documents: sections together.
pub(super) static KEYS: &[Key] = &[
    Key {
        name: "listen",
        kind: Kind::Address,
        help: "Where the HTTP side listens. Pages name every workload of the node, so the default is this host alone; 0.0.0.0:9632 lets a Prometheus elsewhere scrape it, and needs web_config_file, kubernetes.token_review or insecure_listen.",
    },
    Key {
        name: "insecure_listen",
        kind: Kind::Switch,
        help: "Whether anybody may read and query where a port is open beyond this host and neither web_config_file nor kubernetes.token_review asks who it is. Without it such an agent does not start.",
    },
    Key {
        name: "web_config_file",
        kind: Kind::PathOrEmpty,
        help: "TLS, users and tokens of the HTTP side, in the shape that exporters and Prometheus take (web.yml). Read again when it or a file it names changes. Empty: no TLS, and nobody is asked.",
    },
    Key {
        name: "otlp_grpc",
        kind: Kind::AddressOrEmpty,
        help: "Where OpenTelemetry's metrics are taken over gRPC; exporters expect port 4317. TLS, users, tokens and limits are those of listen, and beyond this host it needs them as listen does. Empty: nowhere. Over HTTP they are taken at /v1/metrics of listen.",
    },
    Key {
        name: "thanos_grpc",
        kind: Kind::AddressOrEmpty,
        help: "Where Thanos Query asks this agent as a store over gRPC, customarily port 10901. TLS, users, tokens and limits are those of listen, and beyond this host it needs them as listen does; Thanos shows a certificate, no token. Empty: nowhere.",
    },
    Key {
        name: "data_dir",
        kind: Kind::Path,
        help: "Directory for what outlives the process. It is made if it is missing, and holds the lock that keeps a second agent out.",
    },
    Key {
        name: "tick",
        kind: Kind::Duration(Duration::from_millis(100), Duration::from_secs(60)),
        help: "How often the kernel's counts are read. A page is at most this old; a shorter tick costs CPU in proportion.",
    },
    Key {
        name: "log.level",
        kind: Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        help: "The least severe record that is written to standard error.",
    },
    Key {
        name: "log.format",
        kind: Kind::Choice(&["json", "text"]),
        help: "One JSON object a line, or one line of text.",
    },
    Key {
        name: "kernel.owners_max",
        kind: Kind::Integer(16, 16384),
        help: "Owners (containers, units) that the kernel side tells apart at one time. The rest count as unit=\"_other\", so that sums stay exact. Each takes kernel memory on every CPU.",
    },
    Key {
        name: "kernel.quarantine",
        kind: Kind::Duration(Duration::from_secs(1), Duration::from_secs(3600)),
        help: "How long an ended cgroup keeps its slot. Longer than any of its requests or sockets stays in flight, or their last counts go to _other.",
    },
    Key {
        name: "kernel.block_cells_max",
        kind: Kind::Integer(16, 65536),
        help: "Combinations of owner, device and operation that the block family tells apart at one time.",
    },
    Key {
        name: "kernel.disable_programs",
        kind: Kind::Names,
        help: "Kernel programs not to load, by name. What they feed is then absent, and telemetry_agent_bpf_program_attached says 0.",
    },
    Key {
        name: "kernel.families.scheduler",
        kind: Kind::Switch,
        help: "Whether run-queue latency, CPU time, context switches and migrations are counted.",
    },
    Key {
        name: "kernel.families.block",
        kind: Kind::Switch,
        help: "Whether latency, bytes, operations and errors of block devices are counted.",
    },
    Key {
        name: "kernel.families.network",
        kind: Kind::Switch,
        help: "Whether bytes, packets and TCP connections are counted.",
    },
    Key {
        name: "attribution.cgroup_root",
        kind: Kind::PathOrEmpty,
        help: "Directory below which the host's cgroup hierarchies are mounted, for an agent in a container. Empty: wherever the mount table says.",
    },
    Key {
        name: "attribution.host_root",
        kind: Kind::PathOrEmpty,
        help: "Directory below which the container runtimes' folders are (run/containerd and others), for an agent in a container. Empty: the root. Names of containers are read there.",
    },
    Key {
        name: "attribution.tombstone",
        kind: Kind::Duration(Duration::from_secs(1), Duration::from_secs(24 * 3600)),
        help: "How long an ended owner's last counts stay on the page. Longer than two scrape intervals, or a short life is never seen.",
    },
    Key {
        name: "attribution.tombstones_max",
        kind: Kind::Integer(0, 1_000_000),
        help: "Ended cgroups that are remembered at one time, the oldest forgotten first.",
    },
    Key {
        name: "attribution.paths_max",
        kind: Kind::Integer(64, 4_194_304),
        help: "Cgroups that are remembered at one time, living and ended, over all hierarchies. The rest count as unit=\"_unresolved\".",
    },
    Key {
        name: "attribution.workload_labels",
        kind: Kind::Switch,
        help: "Whether every series of a pod has the labels workload and workload_type too. They need the API server; a pod that it says nothing of within two seconds has them empty, for good. Without them a join with kernel_pod_info tells the same.",
    },
    Key {
        name: "kubernetes.api",
        kind: Kind::Choice(&["auto", "on", "off"]),
        help: "Whether the API server is asked for this node's pods: one list and one watch. It tells workloads, labels, addresses and images; names of pods and containers come from the node's own files with or without it. auto: where the agent runs in a pod with a service account, or kubernetes.kubeconfig is set.",
    },
    Key {
        name: "kubernetes.kubeconfig",
        kind: Kind::PathOrEmpty,
        help: "A kubeconfig that says where the API server is and who asks. Empty: the service account of the agent's pod.",
    },
    Key {
        name: "kubernetes.node",
        kind: Kind::NameOrEmpty,
        help: "What the API server calls this node. Empty: the environment variable NODE_NAME, else the host's name.",
    },
    Key {
        name: "kubernetes.start_delay_max",
        kind: Kind::Duration(Duration::ZERO, Duration::from_secs(3600)),
        help: "The first question waits for a random part of this, so that a thousand agents do not ask at once.",
    },
    Key {
        name: "kubernetes.pod_labels",
        kind: Kind::Names,
        help: "Labels of pods that kernel_pod_labels_info tells. Each costs a label on one series a pod.",
    },
    Key {
        name: "kubernetes.token_review",
        kind: Kind::Switch,
        help: "Whether bearer tokens that web_config_file does not list are shown to the API server: whose is it (TokenReview), and may he get or post this path (SubjectAccessReview of /metrics, or of the path below /telemetry). Needs the right to create both. What it granted holds for a minute, what it refused for ten seconds; without it nothing new is granted.",
    },
    Key {
        name: "kubernetes.token_audiences",
        kind: Kind::Names,
        help: "Whom those tokens have to be made for. Empty: for the API server, as a pod's own token is unless its volume says otherwise.",
    },
    Key {
        name: "http.connections_max",
        kind: Kind::Integer(1, 16384),
        help: "Connections at one time. When all are taken, a new one replaces the oldest that is idle.",
    },
    Key {
        name: "http.header_timeout",
        kind: Kind::Duration(Duration::from_millis(100), Duration::from_secs(300)),
        help: "How long a client may take to send a whole request header.",
    },
    Key {
        name: "http.request_timeout",
        kind: Kind::Duration(Duration::from_millis(100), Duration::from_secs(600)),
        help: "How long a request may take from its header to the last byte of its answer.",
    },
    Key {
        name: "http.idle_timeout",
        kind: Kind::Duration(Duration::from_millis(100), Duration::from_secs(3600)),
        help: "How long a connection may rest between two requests. Longer than the scrape interval, so that a scraper keeps its connection.",
    },
    Key {
        name: "http.client_concurrency_max",
        kind: Kind::Integer(1, 16384),
        help: "Requests of one address (of IPv6: one network of 64 bits) that are answered at one time; more are refused with 429.",
    },
    Key {
        name: "http.client_rate_max",
        kind: Kind::Integer(0, 1_000_000),
        help: "Requests a second of one address, after two seconds' worth at once; more are refused with 429. 0 sets no limit.",
    },
    Key {
        name: "http.limit_loopback",
        kind: Kind::Switch,
        help: "Whether the two limits hold for clients on this host too.",
    },
    Key {
        name: "query.concurrency",
        kind: Kind::Integer(1, 256),
        help: "Queries at one time; each computes on up to two threads.",
    },
    Key {
        name: "query.queue_max",
        kind: Kind::Integer(0, 65536),
        help: "Queries that may wait for others to end; more are refused with 503.",
    },
    Key {
        name: "query.timeout",
        kind: Kind::Duration(Duration::from_millis(100), Duration::from_secs(3600)),
        help: "How long a query may take, waiting included; a client may ask for less.",
    },
    Key {
        name: "query.lookback",
        kind: Kind::Duration(Duration::from_secs(1), Duration::from_secs(86400)),
        help: "How far back an instant selector looks for a sample.",
    },
    Key {
        name: "query.samples_max",
        kind: Kind::Integer(1000, 1 << 40),
        help: "Samples that one query may read.",
    },
    Key {
        name: "query.series_max",
        kind: Kind::Integer(1, 1 << 32),
        help: "Series that one query may read.",
    },
    Key {
        name: "query.memory_max",
        kind: Kind::Integer(1 << 16, 1 << 36),
        help: "Bytes of intermediate values that one query may hold. Times query.concurrency it bounds the memory of queries.",
    },
    Key {
        name: "query.answer_bytes_max",
        kind: Kind::Integer(1 << 16, 1 << 30),
        help: "Bytes of one answer before compression. Four times as much may be on its way to clients.",
    },
    Key {
        name: "query.experimental",
        kind: Kind::Switch,
        help: "Whether the functions and operators that Prometheus calls experimental are known.",
    },
    Key {
        name: "query.admin",
        kind: Kind::Switch,
        help: "Whether series can be deleted and the store copied through the API.",
    },
    Key {
        name: "query.cors",
        kind: Kind::Switch,
        help: "Whether pages of other sites may read answers, as a dashboard in a browser does.",
    },
    Key {
        name: "otlp.translation",
        kind: Kind::Choice(&[
            "UnderscoreEscapingWithSuffixes",
            "UnderscoreEscapingWithoutSuffixes",
            "NoUTF8EscapingWithSuffixes",
            "NoTranslation",
        ]),
        help: "What becomes of OpenTelemetry's names, in Prometheus' words: whether characters become _, and whether units and _total are appended.",
    },
    Key {
        name: "otlp.promote_resource_attributes",
        kind: Kind::Names,
        help: "Attributes of resources that become labels of each of their series. The others are labels of target_info alone.",
    },
    Key {
        name: "otlp.promote_all_resource_attributes",
        kind: Kind::Switch,
        help: "Whether all of them become labels, whatever the list above says.",
    },
    Key {
        name: "otlp.ignore_resource_attributes",
        kind: Kind::Names,
        help: "Those that do not when all others do.",
    },
    Key {
        name: "otlp.keep_identifying_resource_attributes",
        kind: Kind::Switch,
        help: "Whether target_info also has service_name, service_namespace and service_instance_id, of which job and instance are made.",
    },
    Key {
        name: "otlp.promote_scope_metadata",
        kind: Kind::Switch,
        help: "Whether name, version, schema and attributes of a scope become labels otel_scope_*.",
    },
    Key {
        name: "otlp.convert_histograms_to_nhcb",
        kind: Kind::Switch,
        help: "Whether histograms with bounds of their own are stored as native histograms with these bounds instead of _bucket series.",
    },
    Key {
        name: "otlp.delta_streams_max",
        kind: Kind::Integer(0, 1_000_000),
        help: "Streams of differences that are added up at one time; the first difference of one more is refused.",
    },
    Key {
        name: "otlp.delta_stale",
        kind: Kind::Duration(Duration::from_secs(1), Duration::from_secs(86400)),
        help: "How long a stream of differences that nothing is added to is kept. The next difference begins anew.",
    },
    Key {
        name: "thanos.external_labels",
        kind: Kind::Names,
        help: "Labels that every series has for Thanos, as \"name=value\": what tells this agent's series from those of others.",
    },
    Key {
        name: "exposition.gzip_min_bytes",
        kind: Kind::Integer(0, 1 << 30),
        help: "Pages of at least this many bytes are compressed for clients that ask for it.",
    },
    Key {
        name: "store.memory_only",
        kind: Kind::Switch,
        help: "Keep samples in memory and nothing on disk. A restart then begins with nothing.",
    },
    Key {
        name: "store.retention",
        kind: Kind::Duration(Duration::from_secs(3600), Duration::from_secs(10 * 366 * 86400)),
        help: "How long samples are kept. Whole files go, so that up to a day more may be there.",
    },
    Key {
        name: "store.retention_1m",
        kind: Kind::Duration(Duration::ZERO, Duration::from_secs(100 * 366 * 86400)),
        help: "How long downsampled samples are kept: one row a minute. 0s makes none.",
    },
    Key {
        name: "store.retention_5m",
        kind: Kind::Duration(Duration::ZERO, Duration::from_secs(100 * 366 * 86400)),
        help: "How long downsampled samples are kept: one row every five minutes. 0s makes none.",
    },
    Key {
        name: "store.retention_1h",
        kind: Kind::Duration(Duration::ZERO, Duration::from_secs(100 * 366 * 86400)),
        help: "How long downsampled samples are kept: one row an hour. 0s makes none.",
    },
    Key {
        name: "store.bytes_max",
        kind: Kind::Integer(0, i64::MAX),
        help: "Bytes that all files together may have; the oldest go first. 0 sets no limit.",
    },
    Key {
        name: "store.free_bytes_min",
        kind: Kind::Integer(0, i64::MAX),
        help: "Free bytes of the disk below which the oldest files go, so that there is always room for what is new.",
    },
    Key {
        name: "store.out_of_order_window",
        kind: Kind::Duration(Duration::ZERO, Duration::from_secs(86400)),
        help: "How late a sample may be, behind the newest of its group. 0s takes no late samples.",
    },
    Key {
        name: "store.series_max",
        kind: Kind::Integer(1000, 10_000_000),
        help: "Series at one time. Beyond it new ones are counted on the series of their family with overflow=\"true\".",
    },
    Key {
        name: "store.series_per_family_max",
        kind: Kind::Integer(100, 10_000_000),
        help: "Series of one family at one time, with the same rule.",
    },
    Key {
        name: "events.retention",
        kind: Kind::Duration(Duration::from_secs(60), Duration::from_secs(10 * 366 * 86400)),
        help: "How long events are kept: cgroups that came and went, hooks that failed, what was lost.",
    },
    Key {
        name: "events.events_max",
        kind: Kind::Integer(64, 10_000_000),
        help: "Events that are kept; the oldest go first.",
    },
    Key {
        name: "events.bytes_max",
        kind: Kind::Integer(1 << 16, 1 << 36),
        help: "Bytes of the events that are kept; the oldest go first.",
    },
    Key {
        name: "events.streams_max",
        kind: Kind::Integer(0, 1024),
        help: "Clients that are told events as they happen, at one time. Each holds one of http.connections_max.",
    },
];

// === impl Kind ===

impl Kind {
    /// Holds a value to the bounds; the error says what is wrong and what to write.
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        let is_within = match self {
            // The types behind these hold nothing else.
            Self::Address | Self::Switch | Self::Choice(_) | Self::Names => true,
            Self::AddressOrEmpty => {
                value.as_str().is_some_and(|text| text.is_empty() || text.parse::<SocketAddr>().is_ok())
            }
            Self::Path => value.as_str().is_some_and(|path| !path.is_empty()),
            Self::PathOrEmpty => value.as_str().is_some_and(|path| path.is_empty() || path.starts_with('/')),
            Self::NameOrEmpty => value.as_str().is_some_and(|name| {
                name.len() <= NAME_BYTES_MAX
                    && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
            }),
            Self::Duration(min, max) => {
                let duration = value.as_str().and_then(|text| human_duration::parse(text).ok());
                duration.is_some_and(|duration| (min..=max).contains(&&duration))
            }
            Self::Integer(min, max) => {
                value.as_integer().is_some_and(|number| (min..=max).contains(&&number))
            }
        };
        if is_within { Ok(()) } else { Err(format!("{} is out of bounds; write {}", value, self.remedy())) }
    }

    /// What to write.
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::Address => "an IP address and a port, such as \"127.0.0.1:9632\"".to_owned(),
            Self::AddressOrEmpty => {
                "an IP address and a port, such as \"127.0.0.1:4317\", or \"\"".to_owned()
            }
            Self::Path => "a path in quotes".to_owned(),
            Self::PathOrEmpty => "an absolute path in quotes, or \"\"".to_owned(),
            Self::NameOrEmpty => {
                format!("a name of small letters, digits, - and . of at most {NAME_BYTES_MAX} bytes, or \"\"")
            }
            Self::Switch => "true or false".to_owned(),
            Self::Choice(words) => {
                let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
                format!("one of {}", quoted.join(", "))
            }
            Self::Duration(min, max) => format!(
                "a time from \"{}\" to \"{}\"",
                human_duration::format(*min),
                human_duration::format(*max)
            ),
            Self::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Self::Names => "a list of names, such as [\"sched_switch\"]".to_owned(),
        }
    }
}

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether keys begin with this name and a point.
pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The value behind a name with sections.
pub(super) fn value<'a>(table: &'a Table, name: &str) -> Option<&'a Value> {
    let (sections, last) = name.rsplit_once('.').unwrap_or(("", name));
    let mut table = table;
    for section in sections.split('.').filter(|section| !section.is_empty()) {
        table = table.get(section)?.as_table()?;
    }
    table.get(last)
}
