//! Both indexes against a model that looks at every series and every label.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use telemetry_model::{MatchOp, Matcher};

use super::*;
use crate::codec::put_varint;

type Model = BTreeMap<SeriesId, (Vec<(&'static str, &'static str)>, OwnerRef)>;

const NAMES: [&str; 3] = ["app", "pod", "zone"];
const VALUES: [&str; 5] = ["", "a", "b", "ab", "b\nc"];
const EXPRESSIONS: [&str; 12] =
    ["", "a", "a|b", ".*", ".+", "a.*", "[ab]", "(a|b)b?", "b.c", "ab|", "x", "a+b*"];

fn naive(model: &Model, owners: &BTreeMap<u32, Vec<(&str, &str)>>, matchers: &[Matcher]) -> Vec<SeriesId> {
    let value = |series: &(Vec<(&'static str, &'static str)>, OwnerRef), name: &str| -> String {
        let own = series.0.iter().find(|(n, v)| *n == name && !v.is_empty());
        let owner = || owners.get(&series.1.0).and_then(|labels| labels.iter().find(|(n, _)| *n == name));
        own.map(|l| l.1).or_else(|| owner().map(|l| l.1)).unwrap_or("").to_owned()
    };
    let wants = |matcher: &Matcher, value: &str| match matcher.op {
        MatchOp::Equal => value == matcher.value,
        MatchOp::NotEqual => value != matcher.value,
        MatchOp::Regex => {
            regex::Regex::new(&matcher.expression().unwrap().anchored()).unwrap().is_match(value)
        }
        MatchOp::NotRegex => {
            !regex::Regex::new(&matcher.expression().unwrap().anchored()).unwrap().is_match(value)
        }
    };
    let wanted = |series| matchers.iter().all(|matcher| wants(matcher, &value(series, &matcher.name)));
    model.iter().filter(|(_, series)| wanted(series)).map(|(id, _)| *id).collect()
}

fn matcher() -> impl Strategy<Value = Matcher> {
    (0..4usize, 0..4u8, 0..EXPRESSIONS.len()).prop_map(|(name, op, value)| {
        let op = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex][op as usize];
        Matcher::new(["app", "pod", "zone", "none"][name], op, EXPRESSIONS[value])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn selections_equal_the_model(
        series in prop::collection::vec((prop::array::uniform3(0..5usize), 0..4u32), 1..40),
        owned in prop::collection::vec((prop::array::uniform3(0..5usize), any::<bool>()), 3),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        matchers in prop::collection::vec(matcher(), 1..4),
    ) {
        let index = HeadIndex::new(Limits::default());
        let owners = Owners::default();
        let mut model = Model::new();
        let mut known = BTreeMap::new();
        let pairs = |picked: &[usize; 3]| -> Vec<(&'static str, &'static str)> {
            NAMES.into_iter().zip(picked.iter().map(|at| VALUES[*at])).collect()
        };
        for _ in 0..3 {
            owners.create(&[("pod", "unknown")]);
        }
        for (labels, owner) in &series {
            let (id, _) = index.get_or_create(&pairs(labels), OwnerRef(*owner)).unwrap();
            model.insert(id, (pairs(labels), OwnerRef(*owner)));
        }
        for at in &removed {
            let id = *at.get(&model.keys().copied().collect::<Vec<_>>());
            if model.len() > 1 {
                index.remove(&[id]);
                model.remove(&id);
            }
        }
        // Names come after the series, and some never.
        for (at, (labels, is_bound)) in (1..).zip(&owned) {
            if *is_bound {
                owners.bind(OwnerRef(at), &pairs(labels)).unwrap();
                known.insert(at, pairs(labels));
            } else {
                known.insert(at, vec![("pod", "unknown")]);
            }
        }
        let view = owners.view();
        let compiled = compile(&matchers).unwrap();
        let expected = naive(&model, &known, &matchers);
        let got: Vec<_> = index.select(&compiled, &view).iter().collect();
        prop_assert_eq!(&got, &expected, "{:?}", &matchers);
        let all: Vec<_> = model.keys().filter_map(|id| index.own_labels(*id).map(|(l, o)| (*id, o, l))).collect();
        prop_assert_eq!(all.len(), model.len());
        let bytes = FileIndex::encode(all.into_iter(), |owner| {
            owners.all().into_iter().find(|known| known.0 == owner).map(|known| (known.1, known.2.to_vec()))
        });
        let file = FileIndex::parse(&bytes).unwrap();
        for seen in [&view, &Arc::default()] {
            let selected = file.select(&compiled, seen, |_| false);
            prop_assert_eq!(selected.iter().map(|s| s.0).collect::<Vec<_>>(), expected.clone());
        }
        for (id, labels) in file.select(&compiled, &view, |_| false) {
            prop_assert_eq!(Some(labels), index.labels(id, &view));
        }
    }

    #[test]
    fn damaged_file_indexes_are_refused_or_harmless(noise in prop::collection::vec(any::<u8>(), 0..60), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let _ = FileIndex::parse(&noise);
        let labels: LabelPairs = vec![(Arc::from("a"), Arc::from("b"))];
        let bytes = FileIndex::encode((0..50).map(|id| (id, OwnerRef(id % 3), labels.clone())), |_| Some((true, labels.clone())));
        let mut flipped = bytes.clone();
        flipped[at.index(bytes.len())] ^= 1 << bit;
        let _ = FileIndex::parse(&flipped);
        let _ = FileIndex::parse(&bytes[..at.index(bytes.len())]);
    }
}

#[test]
fn a_series_is_found_again_and_empty_values_are_no_labels() {
    let index = HeadIndex::new(Limits::default());
    let (id, is_new) = index.get_or_create(&[("__name__", "x"), ("a", "")], OwnerRef(0)).unwrap();
    assert!(is_new);
    assert_eq!(index.get_or_create(&[("__name__", "x")], OwnerRef(0)), Ok((id, false)));
    assert_ne!(
        index.get_or_create(&[("__name__", "x")], OwnerRef(1)).unwrap().0,
        id,
        "owners tell series apart"
    );
    index.remove(&[id]);
    let (again, _) = index.get_or_create(&[("__name__", "x")], OwnerRef(0)).unwrap();
    assert!(again > id, "a number is never used twice");
}

#[test]
fn limits_refuse_and_the_overflow_series_takes_over() {
    let index = HeadIndex::new(Limits { series: 3, series_per_family: 2, ..Limits::default() });
    for v in ["1", "2"] {
        index.get_or_create(&[("__name__", "x"), ("v", v)], OwnerRef(0)).unwrap();
    }
    let third = [("__name__", "x"), ("v", "3")];
    assert_eq!(index.get_or_create(&third, OwnerRef(0)), Err(LimitExceeded::Family(2)));
    let (overflow, is_new) = index.overflow(&third).unwrap();
    assert!(is_new);
    assert_eq!(index.overflow(&[("__name__", "x"), ("v", "4")]), Some((overflow, false)));
    assert_eq!(index.get_or_create(&[("__name__", "y")], OwnerRef(0)), Err(LimitExceeded::Series(3)));
    let long = "v".repeat(5000);
    assert!(matches!(index.get_or_create(&[("a", &long)], OwnerRef(0)), Err(LimitExceeded::Length(4096))));
    assert_eq!(index.get_or_create(&[("b", "1"), ("a", "1")], OwnerRef(0)), Err(LimitExceeded::Order));
}

#[test]
fn an_owner_is_bound_once() {
    let owners = Owners::default();
    let owner = owners.create(&[("pod_uid", "1")]);
    assert_eq!(owners.bind(owner, &[("pod", "a")]), Ok(()));
    assert_eq!(owners.bind(owner, &[("pod", "a")]), Ok(()));
    assert_eq!(owners.bind(owner, &[("pod", "b")]), Err(AlreadyBound(owner)));
    assert_eq!(
        owners.put(owner, false, &[("pod_uid", "1")]),
        Ok(()),
        "an old record does not undo a binding"
    );
    assert_eq!(owners.all()[0].2[0].1.as_ref(), "a");
}

#[test]
fn hostile_expressions_are_refused_quickly() {
    for expression in ["a{1000}{1000}", "(((((a{100}){100}){100})))", "\\pL{1000}", "["] {
        assert!(
            CompiledMatcher::new(&Matcher::new("a", MatchOp::Regex, expression)).is_err(),
            "{expression}"
        );
    }
}

/// Each symbol is the one before and a letter: 100 KB that would be gigabytes.
#[test]
fn a_file_index_whose_symbols_grow_without_bound_is_refused() {
    let symbols = 40_000u64;
    let mut body = Vec::new();
    put_varint(&mut body, symbols);
    for shared in 0..symbols {
        put_varint(&mut body, shared);
        body.extend([1, b'a']);
    }
    body.extend([0, 0]);
    let packed = zstd::bulk::compress(&body, 1).unwrap();
    assert!(FileIndex::parse(&packed).unwrap_err().to_string().contains("symbols"));
}

/// Ten per cent of the series are replaced each minute for an hour.
#[test]
fn churn_does_not_grow_the_index() {
    let index = HeadIndex::new(Limits::default());
    let mut live = std::collections::VecDeque::new();
    let mut k = 0;
    let mut add = |live: &mut std::collections::VecDeque<SeriesId>| {
        let (pod, uid) = (format!("pod-{}", k % 900), format!("uid-{k:08}"));
        let labels = [("__name__", "x"), ("namespace", "n"), ("pod", pod.as_str()), ("uid", uid.as_str())];
        live.push_back(index.get_or_create(&labels, OwnerRef(0)).unwrap().0);
        k += 1;
    };
    (0..10_000).for_each(|_| add(&mut live));
    let mut peak = 0;
    for minute in 0..60 {
        (0..1000).for_each(|_| add(&mut live));
        let gone: Vec<_> = live.drain(..1000).collect();
        index.remove(&gone);
        if minute == 20 {
            peak = index.bytes();
        }
    }
    assert_eq!(index.len(), 10_000);
    assert!(index.bytes() < peak * 2, "{} bytes after an hour, {peak} after 20 minutes", index.bytes());
}
