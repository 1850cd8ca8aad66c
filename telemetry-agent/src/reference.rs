//! Every metric the agent can expose, and `docs/metrics.md` made from their descriptions.
//!
//! Knows every part's list of descriptions and nothing else of them. `cargo xtask bless` writes the page; the test
//! below compares it.

use std::fmt::Write as _;

use telemetry_model::{Desc, Kind, Scope};

use crate::{api, app, attribute, host, journal, pipeline, signal, store};

const INTRO: &str = "# Metrics

Every family that the agent exposes. Generated from the code by `cargo xtask bless`; do not edit.

Families of owners have one series for each owner, and the sum over owners is the node's total. An owner is

| owner | labels |
|---|---|
| a container of a pod | `namespace`, `pod`, `container` |
| a pod's own: its cgroup, its sandbox, its runtime's helpers | `namespace`, `pod` |
| a container or pod whose names did not come in time | `pod_uid`, `container_id`, and no names |
| a container outside any pod | `container_id` |
| anything else | `unit`: the innermost `.service` or `.slice` of the cgroup's path, else the whole path; `/` is the root cgroup |
| kernel threads, and work that no cgroup was charged for | `unit=\"kernel\"` |
| cgroups beyond a limit | `unit=\"_other\"` |
| cgroups that were gone before anybody could name them | `unit=\"_unresolved\"` |

`namespace`, `pod` and `container` are always there, empty where they do not apply: a scrape would else fill in the
agent's own. Scrape with `honor_labels: true`. Bytes of a cgroup's name that are not printable appear as `%` and two
hexadecimal digits, and so does `%` itself.

Histograms have bounds at powers of two to the quarter (Prometheus' native schema 2), from 2^-22 s (238 ns) to 2^10 s.
The text formats show them at powers of four, which are bounds too, so that nothing is estimated.

A series begins when something is first counted and ends a while after its owner did (`attribution.tombstone`).
";

/// Every description, in the order of their names.
#[must_use]
pub fn all() -> Vec<&'static Desc> {
    let mut all: Vec<&'static Desc> =
        signal::SIGNALS.iter().flat_map(|entry| entry.metrics).copied().collect();
    all.extend(signal::health::METRICS);
    all.extend(pipeline::METRICS);
    all.extend(host::process::METRICS);
    all.extend(app::METRICS);
    all.extend(api::METRICS.iter().copied().flatten());
    all.extend(attribute::METRICS);
    all.extend(telemetry_kube::METRICS);
    all.extend(store::METRICS);
    all.extend(journal::METRICS);
    all.sort_by_key(|desc| desc.name);
    all
}

/// The text of `docs/metrics.md`.
#[must_use]
pub fn page() -> String {
    let mut page = INTRO.to_owned();
    for (title, scope) in [("Owners", Scope::Owner), ("The node", Scope::Node), ("The agent", Scope::Agent)] {
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "\n## {title}\n\n| name | type | labels | at most | from | meaning |\n|---|---|---|---|---|---|\n"
        );
        for desc in all().into_iter().filter(|desc| desc.scope == scope) {
            let kind = match desc.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
                Kind::Info => "info",
            };
            let labels: Vec<_> = desc.labels.iter().map(|label| format!("`{label}`")).collect();
            let Desc { name, bound, source, help, .. } = desc;
            let _ =
                writeln!(page, "| `{name}` | {kind} | {} | {bound} | {source} | {help} |", labels.join(", "));
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_reference_page_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        if std::env::var_os("TELEMETRY_BLESS").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page(), "docs/metrics.md is not what the code says; run `cargo xtask bless`");
    }

    #[test]
    fn names_follow_the_rules_of_the_formats() {
        let all = all();
        for pair in all.windows(2) {
            assert_ne!(pair[0].family_name(), pair[1].family_name(), "OpenMetrics would join the two");
        }
        for desc in all {
            let name = desc.name;
            assert_eq!(name.ends_with("_total"), desc.kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_info"), desc.kind == Kind::Info, "{name}");
            let family = desc.family_name();
            assert!(family.ends_with(desc.unit.word()), "{name} ends with its unit");
            assert!(desc.help.ends_with('.'), "{name}: help is a sentence");
            assert!(!desc.bound.is_empty() && !desc.source.is_empty(), "{name}");
        }
    }
}
