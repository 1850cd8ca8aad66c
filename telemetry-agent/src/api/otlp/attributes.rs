//! Attributes as labels: their values as text, and what a resource, a scope and a point say together.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Config;
use super::message::{AnyValue, KeyValue, Resource, ScopeMetrics};

/// Attributes of a resource that say which one it is: they become `job` and `instance`.
const IDENTIFYING: [&str; 3] = ["service.namespace", "service.name", "service.instance.id"];

/// Labels of one series.
pub(super) type Labels = BTreeMap<String, String>;

/// What a resource adds to every series of it.
pub(super) struct Context {
    job: Option<String>,
    instance: Option<String>,
    promoted: Labels,
}

// === impl Context ===

impl Context {
    pub(super) fn new(resource: &[KeyValue], config: &Config) -> Result<Self, String> {
        let value = |name: &str| resource.iter().find(|pair| pair.key == name).map(|pair| text(&pair.value));
        let job = value("service.name").map(|name| match value("service.namespace") {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name,
        });
        let mut promoted = Labels::new();
        for pair in resource {
            if config.promotes(&pair.key) {
                promoted.insert(config.translation.label(&pair.key)?.into_owned(), text(&pair.value));
            }
        }
        Ok(Self { job, instance: value("service.instance.id"), promoted })
    }

    /// The labels of a point, without its name.
    pub(super) fn labels(
        &self,
        attributes: &[KeyValue],
        scope: &Labels,
        config: &Config,
    ) -> Result<Labels, String> {
        let mut labels = translated(attributes, config, &["__name__"])?;
        for (name, value) in &self.promoted {
            if labels.get(name).is_none_or(String::is_empty) {
                labels.insert(name.clone(), value.clone());
            }
        }
        self.identify(&mut labels);
        labels.extend(scope.iter().map(|(name, value)| (name.clone(), value.clone())));
        Ok(labels)
    }

    /// The labels of `target_info`; none if it would say nothing or of nobody.
    pub(super) fn target(&self, resource: &Resource, config: &Config) -> Result<Option<Labels>, String> {
        let is_identifying = |pair: &KeyValue| IDENTIFYING.contains(&&*pair.key);
        if resource.attributes.iter().all(is_identifying) {
            return Ok(None);
        }
        let ignored: &[&str] = if config.keep_identifying_resource_attributes { &[] } else { &IDENTIFYING };
        let mut labels = translated(&resource.attributes, config, ignored)?;
        self.identify(&mut labels);
        let has = |name: &str| labels.get(name).is_some_and(|value| !value.is_empty());
        let is_somebody = has("job") || has("instance");
        labels.insert("__name__".to_owned(), "target_info".to_owned());
        Ok(Some(labels).filter(|_| is_somebody))
    }

    fn identify(&self, labels: &mut Labels) {
        for (name, value) in [("job", &self.job), ("instance", &self.instance)] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                labels.insert(name.to_owned(), value.clone());
            }
        }
    }
}

/// What a scope adds, if it is asked for and the scope has a name.
pub(super) fn scope(metrics: &ScopeMetrics, config: &Config) -> Result<Labels, String> {
    let mut labels = Labels::new();
    let Some(scope) =
        metrics.scope.as_ref().filter(|scope| config.promote_scope_metadata && !scope.name.is_empty())
    else {
        return Ok(labels);
    };
    for pair in &scope.attributes {
        let name = format!("otel_scope_{}", pair.key);
        labels.insert(config.translation.label(&name)?.into_owned(), text(&pair.value));
    }
    for (name, value) in
        [("name", &scope.name), ("version", &scope.version), ("schema_url", &metrics.schema_url)]
    {
        labels.insert(format!("otel_scope_{name}"), value.clone());
    }
    Ok(labels)
}

/// Attributes by the order of their names; values of names that become one are joined.
fn translated(attributes: &[KeyValue], config: &Config, ignored: &[&str]) -> Result<Labels, String> {
    let mut sorted: Vec<&KeyValue> =
        attributes.iter().filter(|pair| !ignored.contains(&&*pair.key)).collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    let mut labels = Labels::new();
    for pair in sorted {
        let name = config.translation.label(&pair.key)?;
        let value = text(&pair.value);
        match labels.get_mut(&*name) {
            Some(held) if config.translation.escapes() && !held.is_empty() => {
                held.push(';');
                held.push_str(&value);
            }
            _ => {
                labels.insert(name.into_owned(), value);
            }
        }
    }
    Ok(labels)
}

/// A value as text, as OpenTelemetry's specification of other protocols has it.
pub(super) fn text(value: &Option<AnyValue>) -> String {
    let Some(value) = value else { return String::new() };
    match (&value.string_value, &value.bytes_value) {
        (Some(text), _) => text.clone(),
        (None, Some(bytes)) => base64(bytes),
        (None, None) => {
            let mut out = String::new();
            json(value, &mut out);
            if out == "null" { String::new() } else { out }
        }
    }
}

fn json(value: &AnyValue, out: &mut String) {
    // Writing to a String cannot fail.
    if let Some(text) = &value.string_value {
        quoted(text, out);
    } else if let Some(value) = value.bool_value {
        let _ = write!(out, "{value}");
    } else if let Some(value) = value.int_value {
        let _ = write!(out, "{value}");
    } else if let Some(value) = value.double_value {
        double(value, out);
    } else if let Some(bytes) = &value.bytes_value {
        quoted(&base64(bytes), out);
    } else if let Some(array) = &value.array_value {
        out.push('[');
        for (at, value) in array.values.iter().enumerate() {
            out.push_str(if at > 0 { "," } else { "" });
            json(value, out);
        }
        out.push(']');
    } else if let Some(list) = &value.kvlist_value {
        // Sorted; of several values of a name the last counts.
        let values: BTreeMap<&str, &Option<AnyValue>> =
            list.values.iter().map(|pair| (&*pair.key, &pair.value)).collect();
        out.push('{');
        for (at, (name, value)) in values.into_iter().enumerate() {
            out.push_str(if at > 0 { "," } else { "" });
            quoted(name, out);
            out.push(':');
            match value {
                Some(value) => json(value, out),
                None => out.push_str("null"),
            }
        }
        out.push('}');
    } else {
        out.push_str("null");
    }
}

/// A float as JSON of browsers and of Go has it: with an exponent when it is very small or very large.
fn double(value: f64, out: &mut String) {
    let size = value.abs();
    let _ = if !value.is_finite() {
        let word = if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        };
        write!(out, "json: unsupported value: {word}")
    } else if size != 0.0 && size < 1e-6 {
        write!(out, "{value:e}")
    } else if size >= 1e21 {
        write!(out, "{}", format!("{value:e}").replace('e', "e+"))
    } else {
        write!(out, "{value}")
    };
}

/// A JSON text that is also safe in a page.
fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let held = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4usize {
            let code = held >> (18 - 6 * place) & 0x3f;
            let letter = usize::try_from(code).ok().and_then(|code| ALPHABET.get(code)).copied();
            out.push(if place <= three.len() { letter.map_or('=', char::from) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: AnyValue) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(value) }
    }

    fn string(text: &str) -> AnyValue {
        AnyValue { string_value: Some(text.to_owned()), ..AnyValue::default() }
    }

    #[test]
    fn values_are_text() {
        let double = |value| AnyValue { double_value: Some(value), ..AnyValue::default() };
        let says = |value| text(&Some(value));
        assert_eq!(says(string("a<b")), "a<b");
        for (value, expected) in [
            (1.5, "1.5"),
            (3.0, "3"),
            (1e21, "1e+21"),
            (1e-7, "1e-7"),
            (1e20, "100000000000000000000"),
            (0.0, "0"),
        ] {
            assert_eq!(says(double(value)), expected);
        }
        assert_eq!(
            says(AnyValue { bytes_value: Some(b"hello".to_vec()), ..AnyValue::default() }),
            "aGVsbG8="
        );
        let list = super::super::message::KeyValueList {
            values: vec![
                pair("b", string("<\"")),
                pair("a", AnyValue { int_value: Some(-1), ..AnyValue::default() }),
            ],
        };
        assert_eq!(
            says(AnyValue { kvlist_value: Some(list), ..AnyValue::default() }),
            r#"{"a":-1,"b":"\u003c\""}"#
        );
        assert_eq!(text(&None), "");
    }

    #[test]
    fn resource_scope_and_point_say_it_together() {
        let resource = Resource {
            attributes: vec![
                pair("service.name", string("shop")),
                pair("service.namespace", string("eu")),
                pair("service.instance.id", string("7")),
                pair("host.name", string("n1")),
            ],
        };
        let config =
            Config { promote_resource_attributes: vec!["host.name".to_owned()], ..Config::default() };
        let context = Context::new(&resource.attributes, &config).unwrap();
        let attributes = [pair("a.b", string("2")), pair("a-b", string("1")), pair("job", string("mine"))];
        let labels = context.labels(&attributes, &Labels::new(), &config).unwrap();
        let said: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(said, ["a_b=1;2", "host_name=n1", "instance=7", "job=eu/shop"]);
        let all = Config {
            promote_all_resource_attributes: true,
            ignore_resource_attributes: vec!["service.name".to_owned()],
            ..Config::default()
        };
        let promoted = Context::new(&resource.attributes, &all).unwrap();
        let labels = promoted.labels(&[], &Labels::new(), &all).unwrap();
        let names: Vec<_> = labels.keys().collect();
        assert_eq!(names, ["host_name", "instance", "job", "service_instance_id", "service_namespace"]);
        let target = context.target(&resource, &config).unwrap().unwrap();
        let said: Vec<_> = target.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(said, ["__name__=target_info", "host_name=n1", "instance=7", "job=eu/shop"]);
    }
}
