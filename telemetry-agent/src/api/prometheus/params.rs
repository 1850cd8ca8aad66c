//! Parameters of a request, and what their texts mean.
//!
//! A client may send them in the URL, in a form, or in both; all go into one list, the form's first, as Prometheus'
//! server has them. Names that are not known are passed over.

use telemetry_model::Matcher;
use telemetry_promql::{check, lexer, parse};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answer::Failure;

/// The earliest time that can be asked for, milliseconds: 285,000 years before 1970. What is earlier means this one.
pub(super) const MIN_TIME: i64 = -9_000_000_000_000_000;
/// The latest time that can be asked for, likewise.
pub(super) const MAX_TIME: i64 = 9_000_000_000_000_000;
/// The earliest and the latest time as Prometheus' own clients send them.
const OPEN_ENDS: [(&str, i64); 2] =
    [("-292273086-05-16T16:47:06Z", MIN_TIME), ("292277025-08-18T07:12:54.999999999Z", MAX_TIME)];
/// Parameters of a request; a page of Grafana sends 12.
const PARAMS_MAX: usize = 1_000;

/// Parameters of one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

// === impl Params ===

impl Params {
    /// Those of a form, then those of the URL.
    pub(super) fn new(query: &str, form: &[u8]) -> Self {
        let decoded = |bytes| form_urlencoded::parse(bytes).into_owned();
        Self(decoded(form).chain(decoded(query.as_bytes())).take(PARAMS_MAX).collect())
    }

    /// The first of a name; empty if there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// All of a name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A time in milliseconds that must be said.
    pub(super) fn time(&self, name: &str) -> Result<i64, Failure> {
        time(self.get(name)).map_err(|error| invalid(name, &error))
    }

    /// A time in milliseconds, or what stands for it.
    pub(super) fn time_or(&self, name: &str, default: i64) -> Result<i64, Failure> {
        match self.get(name) {
            "" => Ok(default),
            text => time(text)
                .map_err(|error| invalid(name, &format!("invalid time value for '{name}': {error}"))),
        }
    }

    /// A length in milliseconds that must be said.
    pub(super) fn duration(&self, name: &str) -> Result<i64, Failure> {
        duration(self.get(name)).map_err(|error| invalid(name, &error))
    }

    /// A length in milliseconds, if it is said.
    pub(super) fn optional_duration(&self, name: &str) -> Result<Option<i64>, Failure> {
        if self.get(name).is_empty() { Ok(None) } else { self.duration(name).map(Some) }
    }

    /// How many to answer with; none if there is no limit.
    pub(super) fn limit(&self) -> Result<Option<usize>, Failure> {
        let text = self.get("limit");
        if text.is_empty() {
            return Ok(None);
        }
        let limit: i64 = text.parse().map_err(|_| {
            let problem = if text.strip_prefix(['-', '+']).unwrap_or(text).bytes().all(|b| b.is_ascii_digit())
            {
                "value out of range"
            } else {
                "invalid syntax"
            };
            invalid("limit", &format!("strconv.Atoi: parsing {}: {problem}", quoted(text)))
        })?;
        match usize::try_from(limit) {
            Ok(limit) => Ok((limit > 0).then_some(limit)),
            Err(_) => Err(invalid("limit", "limit must be non-negative")),
        }
    }

    /// A number that is no limit if it is absent or below zero: as the metadata's limits are.
    pub(super) fn count(&self, name: &str) -> Result<Option<usize>, Failure> {
        match self.get(name) {
            "" => Ok(None),
            text => {
                let number = text.parse::<i64>();
                let number = number.map_err(|_| Failure::bad_data(format!("{name} must be a number")))?;
                Ok(usize::try_from(number).ok())
            }
        }
    }

    /// The selectors of all `match[]`.
    pub(super) fn matchers(&self, language: &parse::Options) -> Result<Vec<Vec<Matcher>>, Failure> {
        let mut sets = Vec::new();
        for text in self.all("match[]") {
            let matchers = parse::parse_selector(text, language)
                .map_err(|errors| Failure::bad_data(errors.to_string()))?;
            if check::may_match_all(&matchers) {
                return Err(Failure::bad_data("match[] must contain at least one non-empty matcher"));
            }
            sets.push(matchers);
        }
        Ok(sets)
    }
}

/// What is said of a parameter that cannot be used.
pub(super) fn invalid(name: &str, error: &str) -> Failure {
    Failure::bad_data(format!("invalid parameter \"{name}\": {error}"))
}

/// Seconds since 1970, or RFC 3339, in milliseconds.
fn time(text: &str) -> Result<i64, String> {
    let failed = || format!("cannot parse {} to a valid timestamp", quoted(text));
    if let Ok(seconds) = text.parse::<f64>() {
        if !seconds.is_finite() {
            return Err(failed());
        }
        const BOUND: f64 = 1e18;
        // Milliseconds are rounded, and whole seconds stay exact however large they are.
        let (whole, fraction) = (seconds.trunc() * 1000.0, (seconds.fract() * 1000.0).round());
        let millis = whole_number((whole + fraction).clamp(-BOUND, BOUND));
        return millis.map(|millis| millis.clamp(MIN_TIME, MAX_TIME)).ok_or_else(failed);
    }
    if let Some((_, end)) = OPEN_ENDS.iter().find(|(name, _)| *name == text) {
        return Ok(*end);
    }
    // A space in place of the T is not what Prometheus reads.
    let at = OffsetDateTime::parse(text, &Rfc3339).ok().filter(|_| !text.contains(' ')).ok_or_else(failed)?;
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).map_err(|_| failed())
}

/// Seconds, or a duration as PromQL writes it, in milliseconds.
fn duration(text: &str) -> Result<i64, String> {
    let failed = || format!("cannot parse {} to a valid duration", quoted(text));
    if let Ok(seconds) = text.parse::<f64>() {
        let nanos = seconds * 1e9;
        if nanos.is_nan() {
            return Err(failed());
        }
        let nanos = whole_number(nanos.trunc()).ok_or_else(|| failed() + ". It overflows int64")?;
        return Ok(nanos / 1_000_000);
    }
    lexer::parse_duration(text).map(|length| length.0 / 1_000_000).map_err(|_| failed())
}

fn whole_number(value: f64) -> Option<i64> {
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    #[expect(clippy::cast_possible_truncation, reason = "within the bounds of i64, and whole")]
    (-BOUND..BOUND).contains(&value).then_some(value as i64)
}

fn quoted(text: &str) -> String {
    telemetry_promql::text::quoted(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_come_first_and_both_are_decoded() {
        let params = Params::new("query=up&x=%7B+a&match[]=b", b"query=down%2B&match%5B%5D=a");
        assert_eq!((params.get("query"), params.get("x"), params.get("none")), ("down+", "{ a", ""));
        assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn times_are_seconds_or_rfc_3339() {
        for (text, millis) in [
            ("0", 0),
            ("1795373370.545534", 1_795_373_370_546),
            ("-1.5", -1_500),
            ("1e3", 1_000_000),
            ("1435781430.781", 1_435_781_430_781),
            ("2015-06-03T13:21:58.555Z", 1_433_337_718_555),
            ("2015-06-03T14:21:58.555+01:00", 1_433_337_718_555),
        ] {
            assert_eq!(time(text), Ok(millis), "{text}");
        }
        assert_eq!((time("1e30"), time(OPEN_ENDS[0].0)), (Ok(MAX_TIME), Ok(MIN_TIME)));
        for text in ["", "now", "NaN", "+Inf", "30s", "2015-06-03", "2015-06-03 13:21:58Z"] {
            assert_eq!(time(text), Err(format!("cannot parse {} to a valid timestamp", quoted(text))));
        }
    }

    #[test]
    fn lengths_are_seconds_or_durations() {
        for (text, millis) in
            [("15", 15_000), ("0.5", 500), ("15s", 15_000), ("1h30m", 5_400_000), ("1e-4", 0)]
        {
            assert_eq!(duration(text), Ok(millis), "{text}");
        }
        assert_eq!(duration("x"), Err("cannot parse \"x\" to a valid duration".into()));
        assert_eq!(
            duration("1e30"),
            Err("cannot parse \"1e30\" to a valid duration. It overflows int64".into())
        );
    }

    #[test]
    fn limits_are_whole_numbers() {
        let limit = |text: &str| Params::new(&format!("limit={text}"), b"").limit();
        assert_eq!(limit("").unwrap(), None);
        assert_eq!(limit("0").unwrap(), None);
        assert_eq!(limit("7").unwrap(), Some(7));
        assert!(limit("-1").unwrap_err().message.ends_with("limit must be non-negative"));
        assert!(limit("1.5").unwrap_err().message.contains("strconv.Atoi: parsing \"1.5\": invalid syntax"));
    }
}
