//! Each rule of the table, kept and broken.

use super::*;
use crate::tidy::source::code_only;

const PAGE: &str = "# Page\n\n| module | may import |\n|---|---|\n\
    | `telemetry_model`, `telemetry_ebpf` (lib) | nothing of ours |\n\
    | `bpf` | ebpf. The only place that names `aya` |\n\
    | `signal` | bpf, ebpf, model |\n\
    | `kube` | attribute, model. The only place that names `kube` |\n\
    | `attribute` | model |\n\
    | `pipeline` | signal's traits, attribute, model |\n\
    | `cli` | talk to `api` over HTTP |\n\
    | `api` | model |\n\
    | `config` | the `Config` type of each part |\n\
    | `app` | everyone; nobody imports `app` |\n\ntext\n";

fn check(path: &str, text: &str) -> Vec<String> {
    let table = Table::parse(PAGE).unwrap();
    let complaints = table.check_file(&format!("telemetry-agent/src/{path}"), &code_only(text));
    complaints.into_iter().map(|complaint| complaint.what).collect()
}

fn allowed(path: &str, text: &str) {
    assert_eq!(check(path, text), [""; 0], "{path}: {text}");
}

fn refused(path: &str, text: &str, expected: &str) {
    let found = check(path, text);
    assert!(found.iter().any(|what| what == expected), "{path}: {text}: {found:?}");
}

#[test]
fn imports_follow_the_table() {
    allowed("signal/sched.rs", "use crate::bpf::Object;\nuse telemetry_model::Desc;");
    allowed("attribute/mod.rs", "use crate::attribute::Owner;");
    allowed("pipeline.rs", "use crate::signal::Signal;");
    refused("attribute/mod.rs", "use crate::signal::Signal;", "`attribute` may not import `signal`");
    refused("api/mod.rs", "fn f() { crate::bpf::load() }", "`api` may not import `bpf`");
    refused("signal/sched.rs", "use crate::app::App;", "`signal` may not import `app`");
    refused("attribute/mod.rs", "use telemetry_ebpf::abi;", "`attribute` may not import `telemetry_ebpf`");
}

#[test]
fn groups_are_looked_into() {
    let text = "use crate::{\n    attribute::{Owner, Walk},\n    signal::Signal,\n};";
    refused("attribute/mod.rs", text, "`attribute` may not import `signal`");
    assert_eq!(check("attribute/mod.rs", text).len(), 1);
    allowed("pipeline.rs", text);
}

#[test]
fn super_is_followed_out_of_the_module() {
    refused("attribute.rs", "use super::signal::Signal;", "`attribute` may not import `signal`");
    refused("attribute/path.rs", "use super::super::signal::Signal;", "`attribute` may not import `signal`");
    allowed("attribute/path.rs", "use super::signal::Signal;");
    allowed("attribute.rs", "mod tests { use super::*; }");
}

#[test]
fn comments_and_text_are_no_imports() {
    allowed("attribute/mod.rs", "// crate::signal\nconst A: &str = \"crate::signal\";");
}

#[test]
fn config_takes_the_config_type_of_each_part_and_nothing_else() {
    allowed("config.rs", "use crate::attribute::Config;\nuse crate::api::{HttpConfig};");
    refused("config.rs", "use crate::attribute::Owner;", "`config` may not import `attribute`");
    refused("config.rs", "use crate::attribute::{Config, Owner};", "`config` may not import `attribute`");
}

#[test]
fn app_takes_everything_and_what_speaks_http_nothing() {
    allowed("app.rs", "use crate::{api, signal, kube};");
    refused("cli/top.rs", "use crate::api::Router;", "`cli` may not import `api`");
}

#[test]
fn a_module_that_the_table_does_not_know_is_refused() {
    refused("extra.rs", "", "module `extra` is not in the table of imports");
    refused("api/mod.rs", "use crate::extra::X;", "`api` may not import `extra`");
    allowed("main.rs", "use telemetry_agent::app;");
    allowed("api/mod.rs", "use crate::Error;");
}

#[test]
fn a_foreign_crate_has_one_place() {
    allowed("bpf/load.rs", "use aya::Ebpf;");
    allowed("api/mod.rs", "let aya = 1; himalaya::go();");
    let expected = "`aya` is named only in `bpf`";
    refused("signal/mod.rs", "use aya::Ebpf;", expected);
    refused("signal/mod.rs", "use aya_obj::Object;", expected);
    refused("signal/mod.rs", "fn f() { ::aya::load() }", expected);
    refused("signal/mod.rs", "use aya as loader;", expected);
}

#[test]
fn a_module_may_share_its_name_with_the_crate_it_wraps() {
    allowed("app.rs", "use crate::kube::Watch;");
    refused("attribute/mod.rs", "use kube::Client;", "`kube` is named only in `kube`");
}

#[test]
fn foreign_crates_are_looked_for_in_every_member_but_the_kernel_side() {
    let table = Table::parse(PAGE).unwrap();
    assert_eq!(table.check_file("tests/src/lib.rs", "use aya::Ebpf;").len(), 1);
    assert_eq!(table.check_file("telemetry-ebpf/src/bin/x.rs", "use aya_ebpf::maps::Array;").len(), 0);
}

#[test]
fn crates_depend_as_the_table_says() {
    let table = Table::parse(PAGE).unwrap();
    let text = "[dependencies]\nanyhow.workspace = true\ntelemetry-model.workspace = true\n";
    assert_eq!(table.check_manifest("telemetry-ebpf/Cargo.toml", text).len(), 1);
    assert_eq!(table.check_manifest("telemetry-agent/Cargo.toml", text).len(), 0);
}

#[test]
fn a_page_without_table_is_refused() {
    assert!(Table::parse("# Page\n").is_err());
    assert!(Table::parse("| module | may import |\n|---|---|\n").is_err());
}
