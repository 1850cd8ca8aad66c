//! Reads a script: its commands, each with its line.

use regex::Regex;

use super::cursor::Cursor;
use super::expect::{Expected, Outcome, Pattern, Remarks, Times};
use super::notation::{SeriesLine, series, starts};
use crate::lexer::{parse_duration, parse_number, unquote};

/// A script, read.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its commands in order.
    pub commands: Vec<Command>,
}

/// One command.
#[derive(Clone, Debug)]
pub enum Command {
    /// Forget all series.
    Clear,
    /// Lay samples down.
    Load(Load),
    /// Evaluate and compare.
    Eval(Box<Eval>),
}

/// Series to lay down.
#[derive(Clone, Debug)]
pub struct Load {
    /// Line of the command, from 1.
    pub line: usize,
    /// Milliseconds between values; the first is at 0.
    pub step: i64,
    /// Classic histograms are loaded once more as native ones.
    pub with_nhcb: bool,
    /// The series, each with the offsets of its start timestamps if it has any.
    pub series: Vec<(SeriesLine, Option<Vec<Option<i64>>>)>,
}

/// A query and what it must answer.
#[derive(Clone, Debug)]
pub struct Eval {
    /// Line of the command, from 1.
    pub line: usize,
    /// The query.
    pub query: String,
    pub(crate) is_range: bool,
    pub(crate) at: i64,
    pub(crate) times: Times,
    /// A query that answers a range vector or a text has no steps to look at.
    pub(crate) instant_only: bool,
    pub(crate) fail: Option<Pattern>,
    pub(crate) warnings: Remarks,
    pub(crate) infos: Remarks,
    pub(crate) outcome: Outcome,
}

/// What is wrong with a script, and where.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ScriptError {
    /// From 1.
    pub line: usize,
    /// In words.
    pub message: String,
}

/// The lines of a script, comments blanked as Prometheus does: a comment ends a block.
struct Lines<'a> {
    lines: Vec<&'a str>,
    /// The next line.
    at: usize,
}

/// Reads a script.
///
/// # Errors
/// At the first line that is not of the notation.
pub fn read(text: &str) -> Result<Script, ScriptError> {
    let lines =
        text.lines().map(str::trim).map(|line| if line.starts_with('#') { "" } else { line }).collect();
    let mut lines = Lines { lines, at: 0 };
    let mut commands = Vec::new();
    while let Some(line) = lines.next_any() {
        let number = lines.at;
        let word = line.split([' ', '\t']).next().unwrap_or_default().to_ascii_lowercase();
        let command = match word.as_str() {
            "" => continue,
            "clear" => Ok(Command::Clear),
            word if word.starts_with("load") => load(&mut lines, line).map(Command::Load),
            word if word.starts_with("eval") => {
                eval(&mut lines, line).map(|eval| Command::Eval(Box::new(eval)))
            }
            _ => Err(format!("invalid command {line:?}")),
        };
        let at = if command.is_err() { lines.at } else { number };
        commands.push(command.map_err(|message| ScriptError { line: at, message })?);
    }
    Ok(Script { commands })
}

// === impl Lines ===

impl<'a> Lines<'a> {
    fn next_any(&mut self) -> Option<&'a str> {
        let line = self.lines.get(self.at).copied();
        self.at += usize::from(line.is_some());
        line
    }

    /// The next line of a block: none at an empty one.
    fn next_of_block(&mut self) -> Option<&'a str> {
        let line = self.lines.get(self.at).copied().filter(|line| !line.is_empty())?;
        self.at += 1;
        Some(line)
    }
}

fn millis(text: &str) -> Result<i64, String> {
    parse_duration(text).map(crate::ast::Nanos::millis)
}

fn load(lines: &mut Lines<'_>, line: &str) -> Result<Load, String> {
    let usage = || "invalid load command. (load[_with_nhcb] <step:duration>)".to_owned();
    let number = lines.at;
    let (word, step) = line.split_once([' ', '\t']).ok_or_else(usage)?;
    let with_nhcb = match word {
        "load" => false,
        "load_with_nhcb" => true,
        _ => return Err(usage()),
    };
    let step = millis(step.trim()).map_err(|error| format!("invalid step definition {step:?}: {error}"))?;
    let mut all = Vec::new();
    let mut pending = None;
    while let Some(line) = lines.next_of_block() {
        if let Some(found) = starts(line)? {
            if pending.is_some() {
                return Err("@st line has no following sample line".to_owned());
            }
            pending = Some(found);
            continue;
        }
        let one = series(line)?;
        let offsets = match pending.take() {
            None => None,
            Some((labels, _)) if labels != one.labels => {
                return Err("@st metric does not match the following sample line metric".to_owned());
            }
            Some((_, offsets)) if offsets.len() != one.items.len() => {
                return Err(format!(
                    "@st line has {} values but sample line has {}",
                    offsets.len(),
                    one.items.len()
                ));
            }
            Some((_, offsets)) => Some(offsets),
        };
        all.push((one, offsets));
    }
    if pending.is_some() {
        return Err("@st line has no following sample line".to_owned());
    }
    Ok(Load { line: number, step, with_nhcb, series: all })
}

fn eval(lines: &mut Lines<'_>, line: &str) -> Result<Eval, String> {
    let mut eval = head(line, lines.at)?;
    let mut position = 0;
    let mut is_range_vector = false;
    while let Some(line) = lines.next_of_block() {
        if let Some(pattern) = old_failure(&eval, line)? {
            eval.fail = Some(pattern);
            break;
        }
        if let Some(times) = line.strip_prefix("expect range vector") {
            eval.times = range_times(times)?.0;
            eval.at = eval.times.end;
            eval.instant_only = true;
            is_range_vector = true;
            position += 1;
        } else if let Some(text) = line.strip_prefix("expect string") {
            let text = unquote(text.trim());
            eval.outcome.string = text.ok_or("expected string literal not valid")?;
            eval.instant_only = true;
            position += 1;
        } else if line.split(' ').next() == Some("expect") {
            expect(&mut eval, line)?;
        } else if let Ok(number) = parse_number(line) {
            eval.outcome.scalar = Some(number);
            break;
        } else {
            position += 1;
            let SeriesLine { labels, items } = series(line)?;
            if items.len() > 1 && !eval.is_range && !is_range_vector {
                return Err("expecting multiple values in instant evaluation not allowed".to_owned());
            }
            eval.outcome.series.push(Expected { labels, position, items });
        }
    }
    Ok(eval)
}

/// `eval instant at TIME QUERY`, `eval range from TIME to TIME step TIME QUERY`, with old words behind `eval_`.
fn head(line: &str, number: usize) -> Result<Eval, String> {
    let usage = || {
        "invalid evaluation command. Must be either 'eval[_fail|_warn|_ordered|_info] instant at <offset:duration> <query>' \
         or 'eval[_fail|_warn|_info] range from <from> to <to> step <step> <query>'"
            .to_owned()
    };
    let mut cursor = Cursor::new(line);
    let command = word(&mut cursor);
    let kind = word(&mut cursor);
    let (is_range, times) = match kind {
        "instant" if word(&mut cursor) == "at" => {
            let at = millis(word(&mut cursor))?;
            (false, Times { start: at, end: at, step: 0 })
        }
        "range" => {
            let (times, query) = range_times(cursor.rest())?;
            cursor = Cursor::new(query);
            (true, times)
        }
        _ => return Err(usage()),
    };
    let query = cursor.rest().trim();
    if query.is_empty() {
        return Err(usage());
    }
    let mut eval = Eval {
        line: number,
        query: query.to_owned(),
        is_range,
        at: times.start,
        times,
        instant_only: false,
        fail: None,
        warnings: Remarks::default(),
        infos: Remarks::default(),
        outcome: Outcome::default(),
    };
    match command {
        "eval" => {}
        "eval_fail" => eval.fail = Some(Pattern::Any),
        "eval_warn" => eval.warnings.some = true,
        "eval_info" => eval.infos.some = true,
        "eval_ordered" if !is_range => eval.outcome.ordered = true,
        _ => return Err(usage()),
    }
    Ok(eval)
}

fn word<'a>(cursor: &mut Cursor<'a>) -> &'a str {
    cursor.spaces();
    let word = cursor.take(|character| !character.is_whitespace());
    cursor.spaces();
    word
}

/// `from TIME to TIME step TIME`, and the rest.
fn range_times(text: &str) -> Result<(Times, &str), String> {
    let mut cursor = Cursor::new(text);
    let mut next = |name: &str| {
        if word(&mut cursor) != name {
            return Err(format!("invalid range, expected \"{name}\" in {text:?}"));
        }
        millis(word(&mut cursor))
    };
    let times = Times { start: next("from")?, end: next("to")?, step: next("step")? };
    if times.end < times.start {
        return Err("invalid test definition, end timestamp is before start timestamp".to_owned());
    }
    Ok((times, cursor.rest()))
}

fn old_failure(eval: &Eval, line: &str) -> Result<Option<Pattern>, String> {
    if eval.fail.is_none() {
        return Ok(None);
    }
    if let Some(text) = line.strip_prefix("expected_fail_message") {
        return Ok(Some(Pattern::Text(text.trim().to_owned())));
    }
    line.strip_prefix("expected_fail_regexp").map(|text| regex(text.trim())).transpose()
}

fn regex(text: &str) -> Result<Pattern, String> {
    Regex::new(text).map(Pattern::Regex).map_err(|error| format!("invalid regex {text:?}: {error}"))
}

/// `expect KIND [msg:TEXT|regex:PATTERN]`.
fn expect(eval: &mut Eval, line: &str) -> Result<(), String> {
    let mut cursor = Cursor::new(line);
    word(&mut cursor);
    let kind = word(&mut cursor);
    let rest = cursor.rest();
    let pattern = if let Some(text) = rest.strip_prefix("msg:") {
        Pattern::Text(text.trim().to_owned())
    } else if let Some(text) = rest.strip_prefix("regex:") {
        regex(text.trim())?
    } else if rest.is_empty() {
        Pattern::Any
    } else {
        return Err(
            "invalid expect statement, must match `expect <type> <match_type>: <string>` format".to_owned()
        );
    };
    match kind {
        "ordered" => eval.outcome.ordered = true,
        "fail" if matches!(eval.fail, None | Some(Pattern::Any)) => eval.fail = Some(pattern),
        "fail" => return Err("invalid expect lines, multiple expect fail lines are not allowed".to_owned()),
        "warn" => eval.warnings.patterns.push(pattern),
        "info" => eval.infos.patterns.push(pattern),
        "no_warn" => eval.warnings.none = true,
        "no_info" => eval.infos.none = true,
        _ => return Err(format!("invalid expected error/annotation type {kind}")),
    }
    for (name, remarks) in [("warn", &eval.warnings), ("info", &eval.infos)] {
        if remarks.none && !remarks.patterns.is_empty() {
            return Err(format!("invalid expect lines, {name} and no_{name} cannot be used together"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_with_their_lines() {
        let script = read(
            "# a comment\nclear\n\nload 5m\n  up{job=\"a\"} 1 2 3\n  up{job=\"b\"} _x3\n\n\
             eval instant at 10m sum by (job) (up)\n  expect no_info\n  expect warn regex: some .*\n  {job=\"a\"} 3\n\n\
             eval range from 0 to 10m step 5m up\n  up{job=\"a\"} 1 2 3\n",
        )
        .unwrap();
        let [Command::Clear, Command::Load(load), Command::Eval(one), Command::Eval(two)] =
            &script.commands[..]
        else {
            panic!("{:?}", script.commands)
        };
        assert_eq!((load.line, load.step, load.series.len()), (4, 300_000, 2));
        assert_eq!((one.line, one.at, one.query.as_str()), (8, 600_000, "sum by (job) (up)"));
        assert!(one.infos.none && one.warnings.patterns.len() == 1);
        assert_eq!((two.line, two.times.end, two.times.step), (13, 600_000, 300_000));
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_the_reader_panic(line in "(load 1m\n |eval instant at 1m )?[ -~é]{0,40}(\\{\\{[ -~]{0,20}\\}\\})?[-+x0-9_ ]{0,12}") {
            let _ = read(&line);
        }
    }

    #[test]
    fn errors_name_their_line() {
        for (text, line) in [
            ("\nwhat 1\n", 2),
            ("load 5m\n  up 1\n  up{ 2\n", 3),
            ("load x\n", 1),
            ("eval instant 5m up\n", 1),
            ("eval instant at 5m up\n  expect warn\n  expect no_warn\n", 3),
            ("eval instant at 5m up\n  up 1 2\n", 2),
            ("load 1m\n  up@st 1m\n  down 1\n", 3),
        ] {
            assert_eq!(read(text).map_err(|error| error.line).err(), Some(line), "{text}");
        }
    }
}
