//! The page at `/`: where things are and how the agent does. Plain HTML that needs no script and no style.

use std::fmt::Write as _;

use super::Deps;

/// What a browser may do with a page of ours: show it.
pub(super) const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Path and purpose of what the index lists.
const ENDPOINTS: [(&str, &str); 8] = [
    ("/metrics", "the latest values, in the Prometheus text format or OpenMetrics"),
    (
        "/api/v1/query?query=telemetry_agent_ticks_total",
        "answers to PromQL, through the HTTP API of Prometheus",
    ),
    ("/v1/status", "what is counted, what was lost, whether the books balance"),
    ("/v1/owners", "pods, containers and units, with their identities"),
    ("/v1/events", "what happened; as it happens with Accept: text/event-stream"),
    ("/v1/openapi.json", "the description of everything under /v1"),
    ("/livez", "whether the agent does its work"),
    ("/readyz?verbose", "whether its answers mean anything, check by check"),
];

pub(super) fn page(deps: &Deps) -> String {
    let mut html = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>telemetry-agent</title></head>\n\
         <body>\n<h1>telemetry-agent</h1>\n<ul>\n",
    );
    // Writing to a String cannot fail, here and below.
    for (path, purpose) in ENDPOINTS {
        let _ = writeln!(html, "<li><a href=\"{path}\">{path}</a>: {purpose}</li>");
    }
    html.push_str("</ul>\n<h2>State</h2>\n<ul>\n");
    let alive = deps.health.live();
    state(&mut html, "live", alive.as_ref().err());
    for check in deps.health.ready() {
        state(&mut html, check.name, check.outcome.as_ref().err());
    }
    let snapshot = deps.latest.get();
    let (families, series) = (snapshot.families.len(), snapshot.series_count());
    let _ = writeln!(html, "<li>{series} series in {families} families</li>");
    html.push_str("</ul>\n</body>\n</html>\n");
    html
}

fn state(html: &mut String, name: &str, problem: Option<&String>) {
    let _ = match problem {
        None => writeln!(html, "<li>{}: ok</li>", escaped(name)),
        Some(reason) => writeln!(html, "<li>{}: <strong>{}</strong></li>", escaped(name), escaped(reason)),
    };
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escaped("<a href=\"x\" b='&'>"), "&lt;a href=&quot;x&quot; b=&#39;&amp;&#39;&gt;");
    }
}
