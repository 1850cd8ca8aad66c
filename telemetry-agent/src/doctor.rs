//! `telemetry-agent doctor`: what this host offers, check by check, and what to do about what it lacks.
//!
//! Reading is apart from judging: `host` collects facts and `judge` turns facts into checks, so that hosts which
//! nobody has at hand are tested too. Starts nothing; `app` may add what came of loading the programs.
#![forbid(unsafe_code)]

mod host;
mod judge;

use serde::Serialize;
use telemetry_model::escape::printable;

use crate::config::Config;

pub use host::Host;
pub use judge::{judge, loaded};

/// How the checks are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A line each.
    Text,
    /// One JSON object.
    Json,
}

/// What a check comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// The agent runs, and something is absent or less exact.
    Warn,
    /// The agent does not run.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// What it comes to.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty where nothing needs doing.
    pub remedy: String,
}

/// Everything that is printed as JSON.
#[derive(Serialize)]
struct Report<'a> {
    verdict: Verdict,
    exit_code: u8,
    checks: &'a [Check],
}

// === impl Verdict ===

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    /// Everything is offered; the agent runs degraded; it cannot run.
    fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warn => 1,
            Self::Fail => 3,
        }
    }
}

// === impl Check ===

impl Check {
    /// Nothing needs doing.
    pub fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Ok, found: found.into(), remedy: String::new() }
    }

    /// Something is absent or less exact; `remedy` mends it.
    pub fn warn(name: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Warn, found: found.into(), remedy: remedy.into() }
    }

    /// The agent does not run until `remedy` is done.
    pub fn fail(name: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Fail, found: found.into(), remedy: remedy.into() }
    }

    /// One line, whatever a path or an error in it holds.
    fn line(&self) -> String {
        let Self { name, verdict, found, remedy } = self;
        let text = match remedy.as_str() {
            "" => format!("{name}: {found}"),
            remedy => format!("{name}: {found}; {remedy}"),
        };
        format!("{:4}  {}", verdict.word(), printable(text.as_bytes()))
    }
}

/// Looks at the host and judges it: the text to print, and the exit code: 0 everything is offered, 1 the agent runs
/// degraded, 3 it cannot run. `config` is an error's line where it could not be loaded; the other checks then assume
/// the defaults. `extra` is what only the caller could find out.
#[must_use]
pub fn run(config: Result<Config, String>, extra: Vec<Check>, form: Form) -> (String, u8) {
    let (config, first) = match config {
        Ok(config) => (config, Check::ok("configuration", "is valid")),
        Err(error) => {
            (Config::default(), Check::fail("configuration", error, "the other checks assume the defaults"))
        }
    };
    let mut checks = vec![first];
    checks.extend(judge(&Host::read(&config), &config));
    checks.extend(extra);
    report(&checks, form)
}

fn report(checks: &[Check], form: Form) -> (String, u8) {
    let verdict = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
    let exit_code = verdict.exit_code();
    let text = match form {
        Form::Text => {
            let lines: String = checks.iter().map(|check| check.line() + "\n").collect();
            let sum = match verdict {
                Verdict::Ok => "this host offers everything",
                Verdict::Warn => "the agent runs here; what a `warn` names is absent or less exact",
                Verdict::Fail => "the agent does not run here until every `fail` is mended",
            };
            format!("{lines}\n{sum}\n")
        }
        Form::Json => {
            let report = Report { verdict, exit_code, checks };
            // A structure of strings and numbers can always be written.
            serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
        }
    };
    (text, exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> Vec<Check> {
        vec![
            Check::ok("kernel", "6.1"),
            Check::warn("cgroups", "at /a\u{1b}[31m\nb", "mend \"it\""),
            Check::fail("btf", "none", "get some"),
        ]
    }

    #[test]
    fn a_line_says_verdict_name_finding_and_remedy_and_stays_one_line() {
        let (text, code) = report(&checks(), Form::Text);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            &lines[..3],
            [
                "ok    kernel: 6.1",
                "warn  cgroups: at /a%1B[31m%0Ab; mend \"it\"",
                "fail  btf: none; get some"
            ]
        );
        assert_eq!(code, 3);
    }

    #[test]
    fn the_worst_check_decides_the_exit_code() {
        let code = |count| report(&checks()[..count], Form::Text).1;
        assert_eq!([code(0), code(1), code(2), code(3)], [0, 0, 1, 3]);
    }

    #[test]
    fn json_says_the_same() {
        let (text, code) = report(&checks(), Form::Json);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (value["verdict"].as_str(), value["exit_code"].as_u64()),
            (Some("fail"), Some(code.into()))
        );
        assert_eq!(value["checks"][1]["found"].as_str(), Some("at /a\u{1b}[31m\nb"));
        assert_eq!(value["checks"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn a_bad_configuration_is_a_failed_check_and_the_others_are_made() {
        let (text, code) = run(Err("configuration /x: bad".to_owned()), Vec::new(), Form::Text);
        assert_eq!(code, 3);
        assert!(text.starts_with("fail  configuration: configuration /x: bad; "), "{text}");
        assert!(text.lines().count() > 10, "{text}");
    }

    #[test]
    fn what_the_caller_found_is_part_of_the_report() {
        let extra = vec![Check::fail("programs", "refused", "ask")];
        let (text, code) = run(Ok(Config::default()), extra, Form::Text);
        assert_eq!(code, 3);
        assert!(text.contains("fail  programs: refused; ask\n"), "{text}");
    }
}
