//! The documents made from the table of keys and the defaults. A test holds the files in `docs/` to them.

use toml::Table;

use super::keys::{KEYS, value};
use super::{Config, Error};

/// Characters of a comment line in the example.
const COMMENT_WIDTH: usize = 100;

/// `docs/telemetry.toml`: every key with its default, ready to be changed.
///
/// # Errors
/// Where the defaults cannot be written as TOML.
pub fn example() -> Result<String, Error> {
    let defaults = Config::default().table()?;
    let mut lines = vec![
        "# Every key with its default. Made by `cargo xtask bless` from the code; docs/config.md explains."
            .to_owned(),
    ];
    let mut open_section = "";
    for key in KEYS {
        let (section, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        lines.push(String::new());
        if section != open_section {
            lines.push(format!("[{section}]"));
            open_section = section;
        }
        let help = format!("{} Write {}.", key.help, key.kind.remedy());
        lines.extend(wrapped(&help, COMMENT_WIDTH).iter().map(|line| format!("# {line}")));
        lines.push(format!("{name} = {}", shown(&defaults, key.name)));
    }
    Ok(joined(&lines))
}

/// `docs/config.md`: the reference.
///
/// # Errors
/// Where the defaults cannot be written as TOML.
pub fn reference() -> Result<String, Error> {
    let defaults = Config::default().table()?;
    let mut lines = vec![include_str!("intro.md").trim_end().to_owned()];
    let mut open_section = None;
    for key in KEYS {
        let (section, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if open_section != Some(section) {
            let title = if section.is_empty() { "Top level".to_owned() } else { format!("`[{section}]`") };
            lines.push(format!("\n## {title}\n\n| key | default | value | meaning |\n|---|---|---|---|"));
            open_section = Some(section);
        }
        let default = shown(&defaults, key.name);
        lines.push(format!("| `{name}` | `{default}` | {} | {} |", key.kind.remedy(), key.help));
    }
    Ok(joined(&lines))
}

fn shown(defaults: &Table, name: &str) -> String {
    value(defaults, name).map(ToString::to_string).unwrap_or_default()
}

fn joined(lines: &[String]) -> String {
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

/// Text in lines of at most `width` bytes, broken between words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
