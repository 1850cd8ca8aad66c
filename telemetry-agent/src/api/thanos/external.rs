//! External labels: what every series of this agent has for others, and for itself does not.

use telemetry_model::{MatchOp, Matcher};
use telemetry_tsdb::index::compile;

use super::message::{Label, LabelMatcher, LabelSet};
use crate::api::refusal::{Refusal, Refused};

/// Labels, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct External(Vec<(String, String)>);

// === impl External ===

impl External {
    /// From texts `name=value`.
    pub(super) fn parse(texts: &[String]) -> Result<Self, String> {
        let mut all = Vec::with_capacity(texts.len());
        for text in texts {
            let pair = text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
            let (name, value) = pair.ok_or_else(|| format!("{text:?} is not name=value"))?;
            all.push((name.to_owned(), value.to_owned()));
        }
        all.sort();
        if all.windows(2).any(|pair| matches!(pair, [a, b] if a.0 == b.0)) {
            return Err("two external labels of one name".to_owned());
        }
        Ok(Self(all))
    }

    pub(super) fn set(&self) -> LabelSet {
        let label = |(name, value): &(String, String)| Label { name: name.clone(), value: value.clone() };
        LabelSet { labels: self.0.iter().map(label).collect() }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Labels with these over them, without some, sorted.
    pub(super) fn over<'a>(
        &'a self,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        without: &[String],
    ) -> Vec<Label> {
        let own = self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let all = labels.filter(|(name, _)| self.get(name).is_none()).chain(own);
        let all = all.filter(|(name, _)| !without.iter().any(|other| other == name));
        let mut all: Vec<_> =
            all.map(|(name, value)| Label { name: name.to_owned(), value: value.to_owned() }).collect();
        all.sort();
        all
    }

    /// What is asked of the store; none if these labels alone say that there is nothing.
    pub(super) fn rest(&self, asked: &[LabelMatcher]) -> Result<Option<Vec<Matcher>>, Refusal> {
        let bad = |text: String| Refusal::new(Refused::Malformed, text);
        let mut rest = Vec::new();
        for matcher in asked {
            let op = match matcher.kind {
                0 => MatchOp::Equal,
                1 => MatchOp::NotEqual,
                2 => MatchOp::Regex,
                3 => MatchOp::NotRegex,
                kind => return Err(bad(format!("unknown kind of matcher {kind}"))),
            };
            let made = Matcher::new(&*matcher.name, op, &*matcher.value);
            let Some(value) = self.get(&matcher.name) else {
                rest.push(made);
                continue;
            };
            let compiled = compile(&[made]).map_err(|error| bad(error.to_string()))?;
            if !compiled.iter().all(|compiled| compiled.matches(value)) {
                return Ok(None);
            }
        }
        Ok(Some(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_labels_answer_for_themselves() {
        let texts = ["node=n1".to_owned(), "cluster=eu=1".to_owned()];
        let external = External::parse(&texts).unwrap();
        assert_eq!(external.get("cluster"), Some("eu=1"));
        assert!(External::parse(&["x".to_owned()]).is_err());
        assert!(External::parse(&["a=1".to_owned(), "a=2".to_owned()]).is_err());
        let ask =
            |kind, name: &str, value: &str| LabelMatcher { kind, name: name.into(), value: value.into() };
        let rest = external.rest(&[ask(2, "node", "n.*"), ask(0, "job", "j")]).unwrap().unwrap();
        assert_eq!(rest, [Matcher::new("job", MatchOp::Equal, "j")]);
        assert_eq!(external.rest(&[ask(1, "node", "n1")]).unwrap(), None);
        assert!(
            external.rest(&[ask(2, "node", "(")]).is_err() && external.rest(&[ask(9, "a", "b")]).is_err()
        );
        let labels = external.over([("a", "1"), ("node", "mine")].into_iter(), &["cluster".to_owned()]);
        let said: Vec<_> = labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
        assert_eq!(said, ["a=1", "node=n1"]);
    }
}
