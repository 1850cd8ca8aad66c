//! Completions as a shell takes them, and manual pages as they are written.

use std::process::Command;

use anyhow::{Result, bail};
use telemetry_tests::agent::binary;
use telemetry_tests::host::claim;

fn agent(args: &[&str]) -> Result<String> {
    let output = Command::new(binary()?).args(args).output()?;
    if !output.status.success() {
        bail!("{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn every_shell_has_completions_of_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = agent(&["completions", shell]).unwrap();
        for word in ["top", "query", "tsdb", "doctor", "completions", "man", "namespace", "wait"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    let refused = Command::new(binary().unwrap()).args(["completions", "dos"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(64));
}

#[test]
fn bash_completes_commands_options_and_values() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("telemetry-agent.bash");
    std::fs::write(&script, agent(&["completions", "bash"]).unwrap()).unwrap();
    let completed = |words: &[&str]| -> Vec<String> {
        let source = r#"source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            _telemetry__agent telemetry-agent "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let output = Command::new("bash")
            .args(["--norc", "-c", source, "bash"])
            .arg(&script)
            .arg("telemetry-agent")
            .args(words)
            .output()
            .unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    };
    assert_eq!(completed(&["t"]), ["top", "tsdb"]);
    assert_eq!(completed(&["top", "--so"]), ["--sort"]);
    assert_eq!(completed(&["top", "--sort", "w"]), ["wait"]);
    assert_eq!(completed(&["tsdb", "ver"]), ["verify"]);
}

#[test]
fn every_command_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    agent(&["man", pages.to_str().unwrap()]).unwrap();
    for name in
        ["telemetry-agent", "telemetry-agent-top", "telemetry-agent-query", "telemetry-agent-tsdb-verify"]
    {
        let page = std::fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(".TH ") && page.contains(".SH NAME"), "{name}");
    }
    let page = std::fs::read_to_string(pages.join("telemetry-agent-top.1")).unwrap();
    assert!(page.contains("\\fB\\-\\-sort\\fR"), "{page}");
    assert_eq!(agent(&["man"]).unwrap(), std::fs::read_to_string(pages.join("telemetry-agent.1")).unwrap());
}

#[test]
fn a_folder_that_cannot_be_made_is_said() -> Result<()> {
    let output = Command::new(binary()?).args(["man", "/dev/null/pages"]).output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    claim(output.status.code() == Some(73) && text.contains("/dev/null/pages"), || text)
}
