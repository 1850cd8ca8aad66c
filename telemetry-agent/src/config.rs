//! The configuration: one TOML file, composed of what each part lets an operator choose.
//!
//! A key that is not known is refused, every key has one default, and `keys` documents and bounds them all: the
//! checks, `docs/config.md` and `docs/telemetry.toml` come from that table. An error is one line that names the
//! file, the line, the key and what to do.

mod document;
mod documents;
mod keys;
mod kubernetes;

use std::fs;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{api, attribute, expose, journal, store, sysexits};

pub use crate::human_duration;
pub use documents::{example, reference};

use document::Document;
pub use kubernetes::KubernetesConfig;

/// Bytes of a file that are read at most: a thousand times the example, and an end to `--config /dev/zero`.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Everything an operator may choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the HTTP side listens. Only this host by default: pages name every workload of the node.
    pub listen: SocketAddr,
    /// Whether anybody may ask where `listen` is beyond this host and `web_config_file` names nobody.
    pub insecure_listen: bool,
    /// TLS, users and tokens of the HTTP side, in the shape of `web.yml`; empty: none.
    pub web_config_file: PathBuf,
    /// Where OpenTelemetry's metrics are taken over gRPC; empty for nowhere.
    pub otlp_grpc: String,
    /// Where Thanos asks over gRPC; empty for nowhere.
    pub thanos_grpc: String,
    /// Directory for what outlives the process; it holds the lock that keeps a second agent out.
    pub data_dir: PathBuf,
    /// How often the kernel's counts are read.
    #[serde(with = "crate::human_duration")]
    pub tick: Duration,
    /// What is logged, and how.
    pub log: LogConfig,
    /// The kernel programs and their tables.
    pub kernel: KernelConfig,
    /// Names for cgroups.
    pub attribution: attribute::Config,
    /// What is asked of the API server.
    pub kubernetes: KubernetesConfig,
    /// Limits of the HTTP side.
    pub http: api::Config,
    /// Limits of queries.
    pub query: api::prometheus::Config,
    /// How OpenTelemetry's metrics become series.
    pub otlp: api::otlp::Config,
    /// What Thanos is told.
    pub thanos: api::thanos::Config,
    /// What a page looks like.
    pub exposition: expose::Config,
    /// What is kept, and how long.
    pub store: store::Config,
    /// How long events are kept, and how many.
    pub events: journal::Config,
}

/// What is logged, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// The least severe record that is written.
    pub level: LogLevel,
    /// What a record looks like.
    pub format: LogFormat,
}

/// How severe a log record is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Data is lost, or somebody has to act now.
    Error,
    /// Something is degraded, and the agent coped.
    Warn,
    /// What begins and ends.
    #[default]
    Info,
    /// What was decided.
    Debug,
    /// What was seen.
    Trace,
}

/// What a log record looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// One line of text.
    Text,
}

/// The kernel programs and their tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KernelConfig {
    /// Owners that the kernel side tells apart; the rest count as `_other`.
    pub owners_max: u32,
    /// How long an ended cgroup keeps its slot: longer than any request or socket of it is still in flight.
    #[serde(with = "crate::human_duration")]
    pub quarantine: Duration,
    /// Combinations of owner, device and operation that the kernel side tells apart.
    pub block_cells_max: u32,
    /// Programs not to load, by name, for a kernel or a workload that one of them does not agree with.
    pub disable_programs: Vec<String>,
    /// Which families are counted.
    pub families: Families,
}

/// Which families are counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Families {
    /// Run-queue latency, CPU time, context switches, migrations.
    pub scheduler: bool,
    /// Latency, bytes, operations and errors of block devices.
    pub block: bool,
    /// Bytes, packets and TCP connections.
    pub network: bool,
}

/// What the command line says; it goes before the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--web.config.file`.
    pub web_config_file: Option<PathBuf>,
    /// `--insecure-listen`.
    pub insecure_listen: bool,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("configuration {}: {source}; name a readable file with --config", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What it says makes no sense.
    #[error("configuration {place}: {what}")]
    Content {
        /// File, line and key, as far as they are known.
        place: Place,
        /// What is wrong there, and what to do.
        what: String,
    },
}

/// Where in the configuration something is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file; none for the command line.
    pub file: Option<PathBuf>,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The key with its sections, such as `kernel.owners_max`.
    pub key: Option<String>,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9632)),
            insecure_listen: false,
            web_config_file: PathBuf::new(),
            otlp_grpc: String::new(),
            thanos_grpc: String::new(),
            data_dir: "/var/lib/telemetry".into(),
            tick: Duration::from_secs(5),
            log: LogConfig::default(),
            kernel: KernelConfig::default(),
            attribution: attribute::Config::default(),
            kubernetes: KubernetesConfig::default(),
            http: api::Config::default(),
            query: api::prometheus::Config::default(),
            otlp: api::otlp::Config::default(),
            thanos: api::thanos::Config::default(),
            exposition: expose::Config::default(),
            store: store::Config::default(),
            events: journal::Config::default(),
        }
    }
}

impl Config {
    /// Reads a file; keys that it does not name have their defaults.
    ///
    /// # Errors
    /// Where it cannot be read, names a key that is none, or gives a key a value that makes no sense.
    pub fn load(file: &Path) -> Result<Self, Error> {
        let bytes = read(file).map_err(|source| Error::Read { file: file.to_owned(), source })?;
        Self::parse(Some(file), &bytes)
    }

    /// Reads the contents of a file; `file` is what errors call it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(file: Option<&Path>, bytes: &[u8]) -> Result<Self, Error> {
        let document = Document::parse(file, bytes)?;
        let config: Self = document.read()?;
        config.check(|key| document.place(key))?;
        Ok(config)
    }

    /// The same with what the command line says.
    ///
    /// # Errors
    /// Where a value makes no sense.
    pub fn overridden(mut self, overrides: Overrides) -> Result<Self, Error> {
        let Overrides { listen, data_dir, web_config_file, insecure_listen } = overrides;
        self.listen = listen.unwrap_or(self.listen);
        self.data_dir = data_dir.unwrap_or(self.data_dir);
        self.web_config_file = web_config_file.unwrap_or(self.web_config_file);
        self.insecure_listen |= insecure_listen;
        self.check(|key| Place { key: Some(key.to_owned()), ..Place::default() })?;
        Ok(self)
    }

    /// Holds every key to its bounds.
    fn check(&self, place: impl Fn(&str) -> Place) -> Result<(), Error> {
        let table = self.table()?;
        for key in keys::KEYS {
            let Some(value) = keys::value(&table, key.name) else {
                debug_assert!(false, "{} is documented and is no key", key.name);
                continue;
            };
            key.kind.check(value).map_err(|what| Error::Content { place: place(key.name), what })?;
        }
        Ok(())
    }

    fn table(&self) -> Result<toml::Table, Error> {
        toml::Table::try_from(self)
            .map_err(|source| Error::Content { place: Place::default(), what: one_line(&source.to_string()) })
    }
}

// === impl KernelConfig ===

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            owners_max: 1024,
            quarantine: Duration::from_secs(60),
            block_cells_max: 1024,
            disable_programs: Vec::new(),
            families: Families::default(),
        }
    }
}

// === impl Families ===

impl Default for Families {
    fn default() -> Self {
        Self { scheduler: true, block: true, network: true }
    }
}

// === impl LogLevel ===

impl LogLevel {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

// === impl Error ===

impl Error {
    /// A value that only its user can judge, such as the name of a program; `file` is what the configuration was
    /// loaded from.
    #[must_use]
    pub fn refused(file: Option<&Path>, key: &str, what: impl Into<String>) -> Self {
        let bytes = file.and_then(|file| read(file).ok());
        let document = bytes.as_deref().and_then(|bytes| Document::parse(file, bytes).ok());
        let place = match document {
            Some(document) => document.place(key),
            None => Place { file: file.map(Path::to_owned), line: None, key: Some(key.to_owned()) },
        };
        Self::Content { place, what: what.into() }
    }

    /// What the process exits with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Read { .. } => sysexits::NO_INPUT,
            Self::Content { .. } => sysexits::CONFIG,
        }
    }
}

// === impl Place ===

impl std::fmt::Display for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.file.as_ref().map(|file| file.display().to_string()));
        parts.extend(self.line.map(|line| format!("line {line}")));
        parts.extend(self.key.clone());
        out.write_str(&parts.join(", "))
    }
}

/// The contents of a file that is not absurdly large.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err(io::Error::other(format!("more than {FILE_BYTES_MAX} bytes, which is no configuration")));
    }
    Ok(bytes)
}

/// The parsers' messages may have several lines; an error has one.
fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
