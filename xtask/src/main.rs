//! The project's commands: `cargo xtask --help`.
//!
//! One file per command; `setup`, `toolchain`, `shell`, `apt`, `peers`, `python`, `cache`, `cargo` and `paths` are what they
//! share. A command makes the machine ready first and says so, line by line; when everything is in
//! place no command touches the network.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "telling people and CI what happens is the job"
)]

mod bench;
mod bless;
mod build_ebpf;
mod check;
mod cluster;
mod fuzz;
mod kernel;
mod promqltest;
mod run;
mod sanitize;
mod soak;
mod test;
mod tidy;

mod apt;
mod cache;
mod cargo;
mod paths;
mod peers;
mod python;
mod results;
mod setup;
mod shell;
mod toolchain;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::build_ebpf::EbpfFeatures;
use crate::setup::Missing;

/// What the shell sees when something the command needs cannot be had here (sysexits: unavailable).
const EXIT_UNAVAILABLE: u8 = 69;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's commands", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Set the machine up, build everything and run the agent in the foreground
    Run {
        /// Arguments for `telemetry-agent run`
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Set the machine up, then run every check and every test; what CI runs
    Test {
        /// Build what takes ten minutes too: Kubernetes
        #[arg(long)]
        full: bool,
    },
    /// Build the kernel objects alone
    BuildEbpf {
        /// Features of telemetry-ebpf, such as debug-log
        #[arg(long, value_delimiter = ',')]
        features: Vec<String>,
    },
    /// Format, lints, import rules, documentation and unit tests
    Check,
    /// The project's own rules alone: imports, sizes, headers, dependencies
    Tidy,
    /// Write the generated files again: goldens, reference pages, example configuration
    Bless,
    /// The privileged suite on this kernel, or on Debian kernels in QEMU
    Kernel {
        /// Kernels to boot, such as `6.1 6.12 newest`; none means this machine
        versions: Vec<String>,
        /// Ask the archive again instead of taking kernels from the cache
        #[arg(long)]
        refresh: bool,
    },
    /// A node without Kubernetes, on which real pods run: what the cluster suite needs
    Cluster {
        #[command(subcommand)]
        action: cluster::Action,
    },
    /// Every decoder and the query language by libFuzzer, with the address sanitizer
    Fuzz(fuzz::Options),
    /// Simulated crashes of the store by the hundred thousand; a seed plays a failure again
    Soak(soak::Options),
    /// The store's tests under the address and the thread sanitizer, and under miri where there is one
    Sanitize {
        /// One of them; none means all
        sanitizer: Option<sanitize::Sanitizer>,
    },
    /// Every figure, one JSON line each
    Bench {
        /// One benchmark; none means all
        name: Option<String>,
    },
    /// Scripts in Prometheus' test notation through our query engine
    Promqltest {
        /// Scripts, or folders of `.test` files
        paths: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Task::Run { args } => run::run(&args),
        Task::Test { full } => test::test(full),
        Task::BuildEbpf { features } => build_ebpf::build_ebpf(&EbpfFeatures(features)),
        Task::Check => check::check(),
        Task::Tidy => tidy::command(),
        Task::Bless => bless::bless(),
        Task::Kernel { versions, refresh } => kernel::kernel(&versions, refresh.into()),
        Task::Cluster { action } => cluster::cluster(&action),
        Task::Fuzz(options) => fuzz::fuzz(&options),
        Task::Soak(options) => soak::soak(&options),
        Task::Sanitize { sanitizer } => sanitize::sanitize(sanitizer),
        Task::Bench { name } => bench::bench(name.as_deref()),
        Task::Promqltest { paths } => promqltest::promqltest(&paths),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            if error.downcast_ref::<Missing>().is_some() {
                return ExitCode::from(EXIT_UNAVAILABLE);
            }
            ExitCode::FAILURE
        }
    }
}
