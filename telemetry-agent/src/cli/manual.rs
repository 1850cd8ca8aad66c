//! `telemetry-agent completions` and `telemetry-agent man`: what shells and manuals know of the command line, made of
//! the very declaration that reads it.

use std::io::{self, Write as _};
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

use crate::sysexits;

/// Prints what a shell reads to complete the command line.
pub fn completions(mut command: Command, shell: Shell) {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, &name, &mut script);
    if shell == Shell::Bash {
        script = with_one_spelling(&name, script);
    }
    // A reader that has seen enough is no error.
    let _ = io::stdout().lock().write_all(&script);
}

/// Writes a manual page a command into `dir`, or prints that of the program.
///
/// # Errors
/// An exit code and what is wrong, in one line: the folder cannot be made or written to.
pub fn pages(command: Command, dir: Option<&Path>) -> Result<(), (u8, String)> {
    // The commands' pages say what `help` would.
    let command = command.disable_help_subcommand(true);
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command)
            .render(&mut page)
            .map_err(|error| (sysexits::IO_ERROR, error.to_string()))?;
        let _ = io::stdout().lock().write_all(&page);
        return Ok(());
    };
    let refused = |error: io::Error| (sysexits::CANNOT_CREATE, format!("{}: {error}", dir.display()));
    std::fs::create_dir_all(dir).map_err(refused)?;
    clap_mangen::generate_to(command, dir).map_err(refused)
}

/// Spells a name with a hyphen one way throughout a script for bash: clap_complete sets one spelling of it and compares
/// with another, so that nothing behind a command would be completed (clap-rs/clap#6421). Changes nothing once that is
/// mended.
fn with_one_spelling(name: &str, script: Vec<u8>) -> Vec<u8> {
    let compared = name.replace('-', "__subcmd__");
    match String::from_utf8(script) {
        Ok(text) => text.replace(&compared, &name.replace('-', "__")).into_bytes(),
        Err(error) => error.into_bytes(),
    }
}
