//! Arguments and exit codes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use telemetry_agent::app::{self, Failure};
use telemetry_agent::cli::{manual, query, top, tsdb};
use telemetry_agent::config::{self, Config, Overrides};
use telemetry_agent::doctor::{self, Form};
use telemetry_agent::{bpf, logging, sysexits};

/// Counts in the kernel, names every count, answers questions about it.
#[derive(Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent; the default.
    Run(Options),
    /// Tell, check by check, what this host offers, and what to do about what it lacks.
    Doctor {
        #[command(flatten)]
        options: Options,
        /// How to print the checks.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Ask a running agent, or any Prometheus, in PromQL.
    Query(query::Query),
    /// Watch who uses the node: CPU, waits for it, disk, network, by owner.
    ///
    /// On a terminal it is live, and `?` tells the keys; elsewhere it prints one table. All figures are what counters
    /// grew by between the agent's two newest ticks, a second.
    Top(top::Top),
    /// Look at the store, check it, take history out and in.
    Tsdb {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: tsdb::Command,
    },
    /// Print what a shell reads to complete this command line.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page, or write one for every command.
    Man {
        /// The folder to write them into.
        dir: Option<PathBuf>,
    },
}

#[derive(Args, Clone)]
struct Options {
    /// Read the configuration from this TOML file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen on this address. [default: 127.0.0.1:9632]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Keep data in this directory. [default: /var/lib/telemetry]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Where the store is; also behind the name of what to do with it.
#[derive(Args, Clone)]
struct Place {
    /// Read the configuration from this TOML file.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The agent's data directory; the store is in `tsdb` below it. [default: /var/lib/telemetry]
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors.
            let code = if error.use_stderr() { sysexits::USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let result = match cli.command.unwrap_or(Command::Run(cli.options)) {
        Command::Run(options) => run(&options),
        Command::Query(query) => query::run(&query).map_err(failure),
        Command::Top(top) => top::run(&top).map_err(failure),
        Command::Completions { shell } => {
            manual::completions(Cli::command(), shell);
            Ok(())
        }
        Command::Man { dir } => manual::pages(Cli::command(), dir.as_deref()).map_err(failure),
        Command::Doctor { options, format } => return examine(&options, format),
        Command::Tsdb { place: Place { config, data_dir }, command } => {
            configure(&Options { config, listen: None, data_dir })
                .and_then(|config| tsdb::run(&command, &config.data_dir, &config.store).map_err(failure))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn failure((code, message): (u8, String)) -> Failure {
    Failure::new(code, message)
}

fn run(options: &Options) -> Result<(), Failure> {
    let config = configure(options)?;
    logging::start(&config.log);
    app::run(config)
}

fn configure(options: &Options) -> Result<Config, Failure> {
    let flags = Overrides { listen: options.listen, data_dir: options.data_dir.clone() };
    let config = options.config.as_deref().map_or_else(|| Ok(Config::default()), Config::load);
    config
        .and_then(|config| config.overridden(flags))
        .and_then(|config| known_programs(config, options.config.as_deref()))
        .map_err(|error| Failure::new(error.exit_code(), error.to_string()))
}

/// Refuses names of programs that there are none of: only the kernel side can tell.
fn known_programs(config: Config, file: Option<&Path>) -> Result<Config, config::Error> {
    let unknown =
        config.kernel.disable_programs.iter().find(|name| !bpf::program_names().any(|known| known == *name));
    match unknown {
        None => Ok(config),
        Some(name) => {
            let known = bpf::program_names().collect::<Vec<_>>().join(", ");
            let what = format!("no program is called {name:?}; there are {known}");
            Err(config::Error::refused(file, "kernel.disable_programs", what))
        }
    }
}

fn examine(options: &Options, format: Format) -> ExitCode {
    let config = configure(options);
    // The programs are tried for real where the configuration says which.
    let tried = config.as_ref().map(app::try_programs).unwrap_or_default();
    let form = match format {
        Format::Text => Form::Text,
        Format::Json => Form::Json,
    };
    let (text, code) = doctor::run(config.map_err(|failure| failure.message), tried, form);
    print(&text);
    ExitCode::from(code)
}

/// One clear line, whatever the message holds.
fn fail(failure: &Failure) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "the one line that a failed start says")]
    {
        eprintln!("telemetry-agent: {}", failure.message.replace('\n', " "));
    }
    ExitCode::from(failure.code)
}

fn print(text: &str) {
    #[expect(clippy::print_stdout, reason = "the command's answer")]
    {
        println!("{}", text.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
