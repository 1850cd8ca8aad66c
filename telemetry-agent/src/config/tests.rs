//! The configuration as an operator meets it: good files, bad files, and the documents.

use super::*;

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(Some(Path::new("/etc/telemetry.toml")), text.as_bytes())
}

fn refuse(text: &str, expected: &str) {
    let error = parse(text).expect_err(text);
    assert_eq!(error.to_string(), format!("configuration /etc/telemetry.toml{expected}"), "{text}");
    assert_eq!(error.exit_code(), 78, "{error}");
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn keys_are_taken_and_the_others_keep_their_defaults() {
    let config = parse(
        "listen = \"[::1]:80\"\ntick = \"250ms\"\nlog.level = \"debug\"\n[kernel]\nowners_max = 16\n\
         disable_programs = [\"x\"]\nfamilies.block = false\n[http]\nheader_timeout = \"1m30s\"\n",
    )
    .unwrap();
    let mut expected =
        Config { listen: "[::1]:80".parse().unwrap(), tick: Duration::from_millis(250), ..Config::default() };
    expected.log.level = LogLevel::Debug;
    expected.kernel.owners_max = 16;
    expected.kernel.disable_programs = vec!["x".to_owned()];
    expected.kernel.families.block = false;
    expected.http.header_timeout = Duration::from_secs(90);
    assert_eq!(config, expected);
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_its_neighbour() {
    refuse("\ncolour = \"red\"\n", ", line 2, colour: is no key; remove it, docs/config.md lists every key");
    refuse("tikc = \"5s\"", ", line 1, tikc: is no key; did you mean tick?");
    refuse(
        "[kernel]\n\nowner_max = 5",
        ", line 3, kernel.owner_max: is no key; did you mean kernel.owners_max?",
    );
    refuse("[colour]\n", ", line 1, colour: is no key; remove it, docs/config.md lists every key");
    refuse("kernel = 5\n", ", line 1, kernel: is a section; write [kernel] and its keys below");
    refuse("\"a\\nb\" = 5\n", ", line 1, a%0Ab: is no key; remove it, docs/config.md lists every key");
    refuse(
        "[[http]]\nconnections_max = 5\n",
        ", line 1, http: is a section; write [http] and its keys below",
    );
}

#[test]
fn a_wrong_type_is_refused_with_what_to_write() {
    let many = "invalid type: string \"many\", expected u32; write a whole number from 16 to 16384";
    refuse("[kernel]\nowners_max = \"many\"\n", &format!(", line 2, kernel.owners_max: {many}"));
    for (text, key) in [
        ("tick = 5", "tick"),
        ("tick = 1.5", "tick"),
        ("listen = \"9632\"", "listen"),
        ("listen = \"localhost:9632\"", "listen"),
        ("[log]\nlevel = \"loud\"", "log.level"),
        ("[kernel]\nowners_max = -1", "kernel.owners_max"),
        ("[kernel]\nowners_max = 99999999999999999999", "kernel.owners_max"),
        ("[kernel.families]\nblock = 1", "kernel.families.block"),
        ("[kernel]\ndisable_programs = \"x\"", "kernel.disable_programs"),
    ] {
        let line = text.lines().count();
        let error = parse(text).expect_err(text).to_string();
        assert!(error.starts_with(&format!("configuration /etc/telemetry.toml, line {line}")), "{error}");
        assert!(error.contains(key), "{error}");
        assert!(error.contains("; write ") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn a_value_out_of_bounds_is_refused_with_the_bounds() {
    refuse(
        "[kernel]\nowners_max = 3",
        ", line 2, kernel.owners_max: 3 is out of bounds; write a whole number from 16 to 16384",
    );
    refuse(
        "tick = \"1ms\"",
        ", line 1, tick: \"1ms\" is out of bounds; write a time from \"100ms\" to \"1m\"",
    );
    refuse("tick = \"0s\"", ", line 1, tick: \"0s\" is out of bounds; write a time from \"100ms\" to \"1m\"");
    refuse("data_dir = \"\"", ", line 1, data_dir: \"\" is out of bounds; write a path in quotes");
    refuse(
        "[http]\nconnections_max=0",
        ", line 2, http.connections_max: 0 is out of bounds; write a whole number from 1 to 16384",
    );
}

#[test]
fn what_is_no_toml_is_refused_with_its_line() {
    for text in ["\nlisten = \n", "\n[kernel", "\n= 5", "\ntick = \"5s\"\ntick = \"6s\"", "\n\u{0}"] {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.starts_with("configuration /etc/telemetry.toml, line "), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let error = Config::parse(None, b"a = 1\n\xff").unwrap_err().to_string();
    assert_eq!(error, "configuration line 2: is not UTF-8; save the file as UTF-8 text");
}

#[test]
fn a_file_that_cannot_be_read_exits_with_66() {
    let dir = tempfile::tempdir().unwrap();
    for file in [dir.path().join("absent.toml"), dir.path().to_owned(), "/dev/zero".into()] {
        let error = Config::load(&file).unwrap_err();
        assert_eq!(error.exit_code(), 66);
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    }
}

#[test]
fn the_command_line_goes_before_the_file_and_is_checked_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("telemetry.toml");
    fs::write(&file, "listen = \"127.0.0.1:2\"\ntick = \"1s\"\n").unwrap();
    let listen = "0.0.0.0:1".parse().unwrap();
    let overrides = Overrides { listen: Some(listen), data_dir: Some("x".into()), ..Overrides::default() };
    let config = Config::load(&file).unwrap().overridden(overrides).unwrap();
    assert_eq!((config.listen, config.data_dir.to_str()), (listen, Some("x")));
    assert_eq!(config.tick, Duration::from_secs(1), "what only the file says stays");
    let empty = Overrides { data_dir: Some("".into()), ..Overrides::default() };
    let error = Config::default().overridden(empty).unwrap_err();
    assert_eq!(error.to_string(), "configuration data_dir: \"\" is out of bounds; write a path in quotes");
}

#[test]
fn what_a_part_refuses_names_the_line_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("telemetry.toml");
    fs::write(&file, "[kernel]\ndisable_programs = [\"nonsense\"]\n").unwrap();
    let error = Error::refused(Some(&file), "kernel.disable_programs", "`nonsense` is no program");
    let expected = format!(
        "configuration {}, line 2, kernel.disable_programs: `nonsense` is no program",
        file.display()
    );
    assert_eq!((error.to_string(), error.exit_code()), (expected, 78));
}

#[test]
fn every_key_of_the_defaults_is_documented_and_no_other() {
    fn leaves(section: &str, table: &toml::Table, out: &mut Vec<String>) {
        for (name, value) in table {
            let name = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            match value {
                toml::Value::Table(table) => leaves(&name, table, out),
                _ => out.push(name),
            }
        }
    }
    let mut have = Vec::new();
    leaves("", &Config::default().table().unwrap(), &mut have);
    let mut documented: Vec<_> = keys::KEYS.iter().map(|key| key.name.to_owned()).collect();
    have.sort();
    documented.sort();
    assert_eq!(have, documented);
}

#[test]
fn the_defaults_are_within_their_bounds() {
    Config::default().check(|key| Place { key: Some(key.to_owned()), ..Place::default() }).unwrap();
}

/// Compares a document with the file, or writes the file where it is asked for.
fn generated(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("TELEMETRY_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let have = fs::read_to_string(&path).unwrap_or_default();
    assert!(have == text, "docs/{name} is not what the code says; `cargo xtask bless` writes it again");
}

#[test]
fn the_example_is_current_and_loads_as_the_defaults() {
    let text = example().unwrap();
    assert_eq!(parse(&text).unwrap(), Config::default());
    generated("telemetry.toml", &text);
}

#[test]
fn the_reference_is_current() {
    generated("config.md", &reference().unwrap());
}
