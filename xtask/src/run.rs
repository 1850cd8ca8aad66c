//! `cargo xtask run`: from a clean clone to a serving agent.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build_ebpf::{self, EbpfFeatures};
use crate::{cargo, paths};

/// Where the agent listens unless told.
const DEFAULT_LISTEN: &str = "127.0.0.1:9632";

/// Builds everything and becomes the agent.
///
/// # Errors
/// When something cannot be set up, built or started.
pub fn run(args: &[String]) -> Result<()> {
    build_ebpf::build_ebpf(&EbpfFeatures::default())?;
    eprintln!("[run] building the agent");
    cargo::build_agent()?;
    let agent = paths::release_agent();
    eprintln!("[run] telemetry-agent at http://{}/metrics (ctrl-c ends it)", listen(args));
    // Becomes the agent, so that signals and the exit code are the agent's own.
    let error = Command::new(&agent).arg("run").args(args).exec();
    Err(error).with_context(|| format!("start {}", agent.display()))
}

/// The address that the arguments name. One in a configuration file is the agent's to tell.
fn listen(args: &[String]) -> &str {
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if let Some(value) = arg.strip_prefix("--listen=") {
            return value;
        }
        if arg == "--listen" {
            return rest.next().map_or(DEFAULT_LISTEN, String::as_str);
        }
    }
    DEFAULT_LISTEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announced_address_follows_the_arguments() {
        let check = |args: &[&str], expected: &str| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            assert_eq!(listen(&args), expected);
        };
        check(&[], DEFAULT_LISTEN);
        check(&["--listen", "0.0.0.0:1"], "0.0.0.0:1");
        check(&["--data-dir", "/x", "--listen=[::1]:2"], "[::1]:2");
        check(&["--listen"], DEFAULT_LISTEN);
    }
}
