//! What the kernel programs say of rare paths, through aya-log: only in builds with the `debug-log` feature.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

/// Reads the programs' messages into the agent's log.
pub struct Diagnostics(EbpfLogger<ToTracing>);

struct ToTracing;

// === impl Diagnostics ===

impl Diagnostics {
    /// Opens the messages; none if the object was built without them.
    pub(super) fn open(object: &mut Ebpf) -> Option<Self> {
        EbpfLogger::init_with_logger(object, ToTracing).ok().map(Self)
    }

    /// Logs what was said since the last call.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

// === impl ToTracing ===

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        tracing::info!(target: "kernel", program = record.target(), "{}", record.args());
    }

    fn flush(&self) {}
}
