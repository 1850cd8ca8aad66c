//! Runs commands: what is shown while they run, and what is said when they fail.
//!
//! Standard input is always closed: no command may wait for somebody who is not there.

use std::collections::VecDeque;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};

/// Lines of a failed command's output that are repeated: enough for a compiler's last error.
const TAIL_LINES: usize = 30;
/// How a line of `--message-format json` starts.
const CARGO_MESSAGE: &str = r#"{"reason":"#;
/// Where Debian keeps `ip` and `mkfs.ext4`, which an ordinary user's `PATH` may leave out.
const SBIN_DIRS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A command that ended badly, with what a reader needs to repeat it.
#[derive(Debug)]
pub struct Failed {
    command: String,
    status: String,
    tail: Vec<String>,
}

/// Which of a child's two streams a line came from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// A child's exit and the whole of its standard output.
struct Ended {
    status: ExitStatus,
    stdout: String,
    tail: VecDeque<String>,
}

// === impl Failed ===

impl Failed {
    fn new(command: &Command, status: ExitStatus, tail: impl IntoIterator<Item = String>) -> Self {
        // Display of a status says "exit status: 101" or "signal: 9 (SIGKILL)".
        Self { command: display(command), status: status.to_string(), tail: tail.into_iter().collect() }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command failed ({}): {}", self.status, self.command)?;
        for line in &self.tail {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failed {}

/// Runs a command with its output going where ours goes.
///
/// # Errors
/// [`Failed`] without a tail, since the output stands right above.
pub fn shown(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| display(command))?;
    if status.success() { Ok(()) } else { Err(Failed::new(command, status, []).into()) }
}

/// Runs a command silently and returns its standard output.
///
/// # Errors
/// [`Failed`] with the last lines of both streams.
pub fn quiet(command: &mut Command) -> Result<String> {
    filtered(command, |_, _| {})
}

/// Runs a command and hands every line to `on_line`; returns its standard output.
///
/// # Errors
/// [`Failed`] with the last lines of both streams.
pub fn filtered(command: &mut Command, on_line: impl FnMut(Stream, &str)) -> Result<String> {
    let ended = by_line(command, on_line)?;
    if ended.status.success() {
        return Ok(ended.stdout);
    }
    Err(Failed::new(command, ended.status, ended.tail).into())
}

/// Runs a command with its output shown and also handed on line by line.
///
/// # Errors
/// [`Failed`] without a tail, since the output stands right above.
pub fn teed(command: &mut Command, mut on_line: impl FnMut(&str)) -> Result<()> {
    let ended = by_line(command, |stream, line| {
        match stream {
            Stream::Out => println!("{line}"),
            Stream::Err => eprintln!("{line}"),
        }
        on_line(line);
    })?;
    if ended.status.success() { Ok(()) } else { Err(Failed::new(command, ended.status, []).into()) }
}

/// True when the command can be started and ends well; its output is thrown away.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The first file of this name on `PATH` or in the system's sbin folders.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = path_with(&[]);
    env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// `PATH` with `first` in front and the sbin folders at the end.
pub fn path_with(first: &[&Path]) -> OsString {
    let current = env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    let dirs =
        first.iter().map(PathBuf::from).chain(env::split_paths(&current)).chain(SBIN_DIRS.map(PathBuf::from));
    // Fails only on a folder with a colon in its name, which cannot be said in PATH at all.
    env::join_paths(dirs).unwrap_or(current)
}

/// The command as one would type it, with the variables it was given.
pub fn display(command: &Command) -> String {
    let mut words = Vec::new();
    if let Some(dir) = command.get_current_dir() {
        words.push(format!("cd {} &&", quote(dir.as_os_str())));
    }
    for (name, value) in command.get_envs() {
        // Removed variables and the long PATH would hide the command behind them.
        if let (Some(value), false) = (value, name == "PATH") {
            words.push(format!("{}={}", name.to_string_lossy(), quote(value)));
        }
    }
    words.push(quote(command.get_program()));
    words.extend(command.get_args().map(quote));
    words.join(" ")
}

fn quote(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn by_line(command: &mut Command, mut on_line: impl FnMut(Stream, &str)) -> Result<Ended> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| display(command))?;
    let mut stdout = String::new();
    let mut tail = VecDeque::with_capacity(TAIL_LINES);
    for (stream, line) in lines(&mut child) {
        on_line(stream, &line);
        if stream == Stream::Out {
            stdout.push_str(&line);
            stdout.push('\n');
        }
        // What cargo says to programs tells a reader nothing.
        if !line.starts_with(CARGO_MESSAGE) {
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        }
    }
    let status = child.wait().with_context(|| display(command))?;
    Ok(Ended { status, stdout, tail })
}

/// Lines of both streams as they come; the channel ends when both streams do.
fn lines(child: &mut Child) -> mpsc::Receiver<(Stream, String)> {
    let (sender, receiver) = mpsc::channel();
    if let Some(out) = child.stdout.take() {
        forward(Stream::Out, out, sender.clone());
    }
    if let Some(err) = child.stderr.take() {
        forward(Stream::Err, err, sender);
    }
    receiver
}

fn forward(stream: Stream, from: impl Read + Send + 'static, to: mpsc::Sender<(Stream, String)>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line);
            if to.send((stream, text.trim_end_matches(['\n', '\r']).to_owned())).is_err() {
                return;
            }
            line.clear();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_names_command_code_and_last_lines() {
        let error = quiet(&mut sh("echo one; echo two >&2; exit 7")).unwrap_err().to_string();
        assert!(error.contains("exit status: 7"), "{error}");
        assert!(error.contains("sh -c 'echo one; echo two >&2; exit 7'"), "{error}");
        assert!(error.contains("\n    one") && error.contains("\n    two"), "{error}");
    }

    #[test]
    fn only_the_last_lines_are_repeated() {
        let error = quiet(&mut sh("seq 1 100; exit 1")).unwrap_err().to_string();
        assert!(!error.contains("\n    70\n") && error.contains("\n    71\n"), "{error}");
    }

    #[test]
    fn output_and_variables_are_kept() {
        let mut command = sh("printf '%s\\n' \"$A\"");
        command.env("A", "b c");
        assert_eq!(quiet(&mut command).unwrap(), "b c\n");
        assert!(display(&command).starts_with("A='b c' sh -c "), "{}", display(&command));
    }

    #[test]
    fn standard_input_is_closed() {
        assert_eq!(quiet(&mut Command::new("cat")).unwrap(), "");
    }
}
