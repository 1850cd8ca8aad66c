//! `query`, `query_range`, `query_exemplars`, `format_query`, `parse_query`.

use std::time::{Duration, Instant};

use telemetry_promql::ast::Expr;
use telemetry_promql::eval::{self, Options};
use telemetry_promql::format::{json as tree, pretty};
use telemetry_promql::parse;
use telemetry_promql::value::{Answer, Value};

use super::answer::{Failure, Success, TRUNCATED};
use super::json::Took;
use super::params::{MAX_TIME, MIN_TIME, Params, invalid};
use super::{Call, json};

/// Steps of a range query at most; as Prometheus, so that dashboards choose the same steps.
const STEPS_MAX: i64 = 11_000;

/// A query's text as a tree, and how long that took.
struct Read {
    expr: Expr,
    took: Duration,
}

/// `query`: one moment.
pub(super) fn instant(call: Call<'_>) -> Result<Success, Failure> {
    let limit = call.params.limit()?;
    let t = call.params.time_or("time", call.now())?;
    let options = options(&call)?;
    let text = call.params.get("query");
    let read = read(text, &options)?;
    let begun = Instant::now();
    let answer = eval::instant_expr(call.source(), text, &read.expr, t, &options)?;
    Ok(finish(&call, answer, limit, read.took, begun.elapsed()))
}

/// `query_range`: many moments.
pub(super) fn range(call: Call<'_>) -> Result<Success, Failure> {
    let limit = call.params.limit()?;
    let (start, end) = (call.params.time("start")?, call.params.time("end")?);
    if end < start {
        return Err(invalid("end", "end timestamp must not be before start time"));
    }
    let step = call.params.duration("step")?;
    if step <= 0 {
        let message =
            "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(invalid("step", message));
    }
    if (end - start) / step > STEPS_MAX {
        return Err(Failure::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ));
    }
    let options = options(&call)?;
    let text = call.params.get("query");
    let read = read(text, &options)?;
    let begun = Instant::now();
    let result = eval::range_expr(call.source(), text, &read.expr, (start, end, step), &options);
    let answer = result.map_err(|error| match Failure::from(error) {
        // What can be said of the query alone is said of the parameter.
        failure if failure.kind == super::answer::Kind::BadData => invalid("query", &failure.message),
        failure => failure,
    })?;
    Ok(finish(&call, answer, limit, read.took, begun.elapsed()))
}

/// `query_exemplars`: the exemplars of all selectors of a query.
pub(super) fn exemplars(call: Call<'_>) -> Result<Success, Failure> {
    let (start, end) = (call.params.time_or("start", MIN_TIME)?, call.params.time_or("end", MAX_TIME)?);
    if end < start {
        return Err(Failure::bad_data("end timestamp must not be before start timestamp"));
    }
    let read = parse::parse(call.params.get("query"), &call.options.language)
        .map_err(|errors| Failure::bad_data(errors.to_string()))?;
    let matchers = read.selectors();
    if matchers.is_empty() {
        return Ok(Success::default());
    }
    let found = call.source().exemplars(&matchers, start, end).map_err(super::source_failure)?;
    Ok(Success::data(move |out| json::list(out, &found, json::exemplars)))
}

/// `format_query`: the query as it is usually written.
pub(super) fn format(call: Call<'_>) -> Result<Success, Failure> {
    let text = pretty(&read(call.params.get("query"), call.options)?.expr);
    Ok(Success::data(move |out| json::string(out, &text)))
}

/// `parse_query`: the query as a tree.
pub(super) fn parse_query(call: Call<'_>) -> Result<Success, Failure> {
    Ok(Success::json(tree(&read(call.params.get("query"), call.options)?.expr)))
}

fn read(text: &str, options: &Options) -> Result<Read, Failure> {
    let begun = Instant::now();
    let expr =
        parse::parse(text, &options.language).map_err(|errors| invalid("query", &errors.to_string()))?;
    Ok(Read { expr, took: begun.elapsed() })
}

/// How long a client allows.
pub(super) fn patience(params: &Params) -> Result<Option<Duration>, Failure> {
    let millis = params.optional_duration("timeout")?;
    Ok(millis.map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0))))
}

fn options(call: &Call<'_>) -> Result<Options, Failure> {
    let mut options = call.options.clone();
    let lookback = call.params.optional_duration("lookback_delta").map_err(|failure| {
        let reason = failure.message.split_once(": ").map_or("", |(_, reason)| reason);
        Failure::bad_data(format!("error parsing lookback delta duration: {reason}"))
    })?;
    if let Some(lookback) = lookback.filter(|lookback| *lookback > 0) {
        options.lookback = lookback;
    }
    Ok(options)
}

fn finish(
    call: &Call<'_>,
    answer: Answer,
    limit: Option<usize>,
    preparation: Duration,
    evaluation: Duration,
) -> Success {
    let Answer { mut value, mut warnings, infos, stats } = answer;
    let most = limit.unwrap_or(usize::MAX);
    let found = match &mut value {
        Value::Vector(samples) => {
            let found = samples.len();
            samples.truncate(most);
            found
        }
        Value::Matrix(series) => {
            let found = series.len();
            series.truncate(most);
            found
        }
        Value::Scalar { .. } | Value::String { .. } => 0,
    };
    if found > most {
        warnings.push(TRUNCATED.to_owned());
    }
    let wanted = call.params.get("stats");
    if !matches!(wanted, "" | "true" | "all") {
        warnings.push(format!(
            "value {} for parameter \"stats\" is deprecated and will be rejected in the next major release, use \"true\" or \"all\"",
            telemetry_promql::text::quoted(wanted)
        ));
    }
    let took = Took { queue: call.queued, preparation, evaluation };
    let stats = (!wanted.is_empty()).then_some((stats, took));
    let mut success = Success::data(move |out| {
        json::query(out, &value, stats.as_ref().map(|(stats, took)| (stats, *took)))
    });
    (success.warnings, success.infos) = (warnings, infos);
    success
}
