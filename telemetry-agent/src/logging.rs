//! Logs for operators, on standard error: a JSON object a line, or text for a terminal.

use std::io;

use tracing_subscriber::filter::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Starts the log. A second call changes nothing.
pub fn start(config: &LogConfig) {
    let LogConfig { level, format } = config;
    let filter = EnvFilter::new(level.as_str());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    // Fails only if a log was started before.
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
}
