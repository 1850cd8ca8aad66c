//! Federation: the last sample of the series that selectors find, as a page that another Prometheus scrapes.
//!
//! As Prometheus' own: no help and no types but those of histograms, times with every sample, and an empty `instance` where
//! a series has none, so that the scraper does not give it its own. Native histograms go into the protobuf format alone.

mod protobuf;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ACCEPT, ALLOW, CONTENT_TYPE, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use telemetry_model::{NativeHistogram, is_stale};
use telemetry_promql::budget::Budget;
use telemetry_promql::labels::{Labels, NAME};
use telemetry_promql::source::{Hints, Select};

use super::answer::{Failure, Kind};
use super::params::Params;
use super::{Call, Prometheus, source_failure};
use crate::api::{Coding, routes};
use crate::expose;

/// Where it is.
pub(in crate::api) const PATH: &str = "/federate";

/// A label that a scraper adds where there is none.
const INSTANCE: &str = "instance";

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Text 0.0.4; whether names beyond letters, digits and underscores are quoted or lose what is beyond.
    Text { quoted: bool },
    /// `io.prometheus.client.MetricFamily`, each with its length before it.
    Protobuf { quoted: bool },
}

/// The last sample of a series.
struct Last {
    t: i64,
    value: Value,
}

enum Value {
    Float(f64),
    Histogram(Arc<NativeHistogram>),
}

/// Series by name and labels.
type Found = BTreeMap<(String, Labels), Last>;

/// Answers a scrape.
pub(super) async fn answer(shared: Arc<Prometheus>, request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response =
            routes::plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let (parts, _) = request.into_parts();
    match page(shared, &parts).await {
        Ok(response) => response,
        Err(failure) => {
            let status = match failure.kind {
                Kind::BadData => StatusCode::BAD_REQUEST,
                Kind::Timeout | Kind::Busy => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            routes::plain(status, failure.message + "\n")
        }
    }
}

async fn page(shared: Arc<Prometheus>, request: &Parts) -> Result<Response, Failure> {
    let format = negotiate(routes::joined(&request.headers, &ACCEPT).as_deref().unwrap_or_default());
    let coding = Coding::of(&request.headers);
    let params = Params::new(request.uri.query().unwrap_or_default(), &[]);
    let max = shared.queries.config().answer_bytes_max;
    let asked = Arc::clone(&shared);
    let work = move |admitted: super::queries::Admitted| {
        let call = Call {
            shared: &asked,
            params: &params,
            name: "",
            options: &admitted.options,
            queued: admitted.queued,
        };
        let page = format.write(&found(&call)?);
        if page.len() > max {
            return Err(Failure::execution(format!("the page would have more than {max} bytes")));
        }
        Ok(coding.encode(page))
    };
    let bytes = shared.queries.run(None, work).await?;
    let held = shared.queries.hold(bytes.len()).await?;
    let mut response = Response::new(Body::from(super::answer::bytes_of(bytes, held)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    coding.mark(&mut response);
    Ok(response)
}

/// What any of the selectors finds, none twice, without what is stale.
fn found(call: &Call<'_>) -> Result<Found, Failure> {
    let now = call.now();
    let from = now.saturating_sub(call.options.lookback);
    let budget = Budget::new(call.options.limits, Arc::clone(&call.options.canceled));
    let mut found = Found::new();
    for matchers in &call.params.matchers(&call.options.language)? {
        let hints = Hints { before: call.options.lookback, ..Hints::default() };
        let select = Select { matchers, from, to: now, hints };
        let selection = call.source().select(&select, &budget).map_err(source_failure)?;
        budget.series(selection.series().len())?;
        let mut reader = selection.reader();
        for (at, labels) in selection.series().iter().enumerate() {
            budget.check()?;
            let column = reader.read(at).map_err(source_failure)?;
            budget.samples(column.times.len())?;
            let (Some(t), Some(value)) = (column.times.last(), column.values.last()) else { continue };
            let value = match column.histograms.last() {
                Some((at, histogram)) if *at as usize + 1 == column.times.len() => {
                    Value::Histogram(Arc::clone(histogram))
                }
                _ => Value::Float(*value),
            };
            // A series without a name cannot stand on a page.
            if !value.is_stale() && !labels.name().is_empty() {
                found.insert((labels.name().to_owned(), labels.clone()), Last { t: *t, value });
            }
        }
    }
    Ok(found)
}

/// Labels of a line: all but the name, and an empty instance where there is none.
fn labels_of(labels: &Labels) -> impl Iterator<Item = (&str, &str)> {
    let instance = labels.get(INSTANCE).is_empty().then_some((INSTANCE, ""));
    labels.iter().filter(|(name, value)| *name != NAME && !value.is_empty()).chain(instance)
}

/// A name as it is, or with underscores for what older readers do not know in one.
fn name_of(name: &str, quoted: bool) -> std::borrow::Cow<'_, str> {
    if quoted || is_plain(name) {
        return name.into();
    }
    let plain = |(at, character): (usize, char)| match character {
        ':' | '_' => character,
        c if c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit()) => c,
        _ => '_',
    };
    name.chars().enumerate().map(plain).collect::<String>().into()
}

/// Whether every reader knows such a name.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'))
}

/// The best format that an `Accept` header allows; text if it names none of ours.
fn negotiate(accept: &str) -> Format {
    let mut best = (Format::Text { quoted: false }, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters: BTreeMap<String, &str> = parts
            .filter_map(|part| part.split_once('='))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"')))
            .collect();
        let is = |name: &str, expected: &str| parameters.get(name).is_none_or(|value| *value == expected);
        let quoted = parameters.get("escaping").is_some_and(|scheme| *scheme == "allow-utf-8");
        let format = match media.as_str() {
            "application/vnd.google.protobuf"
                if is("proto", "io.prometheus.client.MetricFamily") && is("encoding", "delimited") =>
            {
                Format::Protobuf { quoted }
            }
            "text/plain" if is("version", "0.0.4") || is("version", "1.0.0") => Format::Text { quoted },
            "text/*" | "*/*" => Format::Text { quoted: false },
            _ => continue,
        };
        let weight = parameters.get("q").map_or(Some(1000), |q| expose::thousandths(q)).unwrap_or(0);
        if weight > best.1 {
            best = (format, weight);
        }
    }
    best.0
}

// === impl Format ===

impl Format {
    fn write(self, found: &Found) -> Vec<u8> {
        let mut out = Vec::new();
        let families: Vec<_> = found.iter().collect();
        for family in families.chunk_by(|a, b| a.0.0 == b.0.0) {
            match self {
                Self::Text { quoted } => text::family(&mut out, family, quoted),
                Self::Protobuf { quoted } => protobuf::family(&mut out, family, quoted),
            }
        }
        out
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Text { quoted: false } => "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            Self::Text { quoted: true } => "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
            Self::Protobuf { quoted: false } => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=underscores"
            }
            Self::Protobuf { quoted: true } => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=allow-utf-8"
            }
        }
    }
}

// === impl Value ===

impl Value {
    fn is_stale(&self) -> bool {
        match self {
            Self::Float(value) => is_stale(*value),
            Self::Histogram(histogram) => is_stale(histogram.sum),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(series: &[(&[(&str, &str)], f64)]) -> Found {
        let one = |(labels, value): &(&[(&str, &str)], f64)| {
            let labels = Labels::from_texts(labels.iter().copied());
            let last = Last { t: 1_700_000_000_123, value: Value::Float(*value) };
            ((labels.name().to_owned(), labels), last)
        };
        series.iter().map(one).collect()
    }

    #[test]
    fn a_page_has_types_times_and_an_instance_on_every_line() {
        let found = found(&[
            (&[("__name__", "up"), ("instance", "i"), ("job", "a\"b\\c\nd")], 1.0),
            (&[("__name__", "up"), ("job", "x")], f64::NAN),
            (&[("__name__", "a.b"), ("héllo", "1")], 1e9),
        ]);
        let text = |quoted| String::from_utf8(Format::Text { quoted }.write(&found)).unwrap();
        assert_eq!(
            text(false),
            "# TYPE a_b untyped\na_b{h_llo=\"1\",instance=\"\"} 1e+09 1700000000123\n\
             # TYPE up untyped\nup{instance=\"i\",job=\"a\\\"b\\\\c\\nd\"} 1 1700000000123\n\
             up{job=\"x\",instance=\"\"} NaN 1700000000123\n"
        );
        assert!(
            text(true).starts_with(
                "# TYPE \"a.b\" untyped\n{\"a.b\",\"héllo\"=\"1\",instance=\"\"} 1e+09 1700000000123\n"
            ),
            "{}",
            text(true)
        );
    }

    #[test]
    fn scrapers_get_the_format_they_prefer() {
        let check = |accept: &str, expected| assert_eq!(negotiate(accept), expected, "{accept}");
        check("", Format::Text { quoted: false });
        check("*/*", Format::Text { quoted: false });
        check(
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format::Text { quoted: false },
        );
        check(
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
             text/plain;version=0.0.4;q=0.3",
            Format::Protobuf { quoted: false },
        );
        check(
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5",
            Format::Text { quoted: true },
        );
        check(
            "application/vnd.google.protobuf;encoding=text,text/plain;q=0.1",
            Format::Text { quoted: false },
        );
    }
}
