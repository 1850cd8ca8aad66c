//! Which format a client gets: the `Accept` header with weights, as Prometheus' scraper sends it.
//!
//! Never refuses: a client that names nothing we speak gets the text format, as Prometheus' own libraries do.

use super::Format;

/// The best format that an `Accept` header allows; of equal weights the first named.
///
/// Parameters that say nothing about the version (`charset`, `escaping`) are passed over: our names and labels are
/// valid under every escaping scheme.
#[must_use]
pub fn negotiate(accept: Option<&str>) -> Format {
    let mut best = None;
    for range in accept.unwrap_or_default().split(',') {
        if let Some((format, weight)) = offer(range)
            && weight > 0
            && best.is_none_or(|(_, before)| weight > before)
        {
            best = Some((format, weight));
        }
    }
    best.map_or(Format::Text, |(format, _)| format)
}

/// What we can offer for one media range, and its weight in thousandths.
fn offer(range: &str) -> Option<(Format, u32)> {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next()?.to_ascii_lowercase();
    let mut version = None;
    let mut weight = 1000;
    for part in parts {
        let Some((name, value)) = part.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "version" => version = Some(value),
            "q" => weight = thousandths(value)?,
            _ => {}
        }
    }
    let format = match (media.as_str(), version) {
        ("text/plain", None | Some("0.0.4")) | ("*/*" | "text/*", None) => Format::Text,
        ("application/openmetrics-text", None | Some("1.0.0")) | ("application/*", None) => {
            Format::OpenMetrics
        }
        ("application/openmetrics-text", Some("0.0.1")) => Format::OpenMetricsDraft,
        _ => return None,
    };
    Some((format, weight))
}

/// A weight such as `0.75`, in thousandths; none if it is no number from 0 to 1.
pub(crate) fn thousandths(value: &str) -> Option<u32> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: u32 = whole.parse().ok().filter(|whole| *whole <= 1)?;
    let fraction: u32 = format!("{fraction:0<3}").parse().ok()?;
    Some((whole * 1000 + fraction).min(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expected: Format) {
        assert_eq!(negotiate(Some(accept)), expected, "{accept}");
    }

    #[test]
    fn real_clients_get_the_format_they_prefer() {
        assert_eq!(negotiate(None), Format::Text);
        // Prometheus 2.42.
        check(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format::OpenMetrics,
        );
        // Prometheus 2.50 with native histograms: protobuf first.
        check(
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
             application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format::OpenMetrics,
        );
        // Prometheus 3: two text versions, of which the older is ours.
        check(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            Format::OpenMetrics,
        );
        check(
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5",
            Format::Text,
        );
        // curl, a browser, Prometheus before 2.5.
        check("*/*", Format::Text);
        check("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format::Text);
        check("text/plain;version=0.0.4;q=1,*/*;q=0.1", Format::Text);
    }

    #[test]
    fn weights_decide_and_ties_go_to_the_first() {
        check("application/openmetrics-text;q=0.3,text/plain;q=0.4", Format::Text);
        check("text/plain;q=0.4,application/openmetrics-text;q=0.400", Format::Text);
        check("application/openmetrics-text , text/plain", Format::OpenMetrics);
        check("application/openmetrics-text;q=0,*/*;q=0.001", Format::Text);
        check("application/openmetrics-text;version=0.0.1", Format::OpenMetricsDraft);
        check("APPLICATION/OpenMetrics-Text; Version=\"1.0.0\" ; Q=1.0", Format::OpenMetrics);
        check("application/openmetrics-text;version=1.0.0;escaping=underscores", Format::OpenMetrics);
    }

    #[test]
    fn what_we_do_not_speak_falls_to_the_next_and_at_last_to_text() {
        check("application/vnd.google.protobuf,application/openmetrics-text;q=0.1", Format::OpenMetrics);
        check("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", Format::Text);
        check("image/png", Format::Text);
        check("", Format::Text);
        check(",;,=;q=;q=2,application/openmetrics-text;q=nonsense", Format::Text);
    }
}
