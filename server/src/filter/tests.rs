use std::hash::{BuildHasher, RandomState};

use proptest::prelude::*;

use super::*;

type Tags = &'static [(&'static str, &'static str)];

fn leaf(key: &str, cmp: &str, val: &str, vals: &[&str]) -> FilterNode {
    FilterNode {
        key: key.into(),
        cmp: cmp.into(),
        val: val.into(),
        vals: vals.iter().map(|val| (*val).into()).collect(),
        ..FilterNode::default()
    }
}

fn node(op: &str, nodes: &[FilterNode]) -> FilterNode {
    FilterNode { op: op.into(), nodes: nodes.to_vec(), ..FilterNode::default() }
}

fn tags(tags: &[(&str, &str)]) -> BTreeMap<String, String> {
    tags.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

/// A filter of nothing but `not`s around one comparison.
fn nested(depth: usize) -> FilterNode {
    (1..depth).fold(leaf("k", "ex", "", &[]), |inner, _| node("not", &[inner]))
}

fn passes(filter: &FilterNode, given: &[(&str, &str)]) -> bool {
    Filter::compile(filter).unwrap().matches(&tags(given))
}

/// The answers of the reference, one row for each.
#[test]
fn each_comparison_holds_for_what_it_says() {
    let lang: Tags = &[("lang", "en-GB"), ("x", "y")];
    let empty: Tags = &[("lang", "")];
    type Row = (&'static str, &'static str, &'static [&'static str], Tags, bool);
    let rows: &[Row] = &[
        ("eq", "en-GB", &[], lang, true),
        ("eq", "en", &[], lang, false),
        ("eq", "en", &[], &[], false),
        ("neq", "fr", &[], lang, true),
        ("neq", "en-GB", &[], lang, false),
        ("neq", "en", &[], &[], true),
        ("in", "", &["fr", "en-GB"], lang, true),
        ("in", "", &["fr", "en"], lang, false),
        ("in", "", &["fr"], &[], false),
        ("in", "", &["fr", ""], &[], true),
        ("in", "", &[""], empty, true),
        ("nin", "", &["fr"], lang, true),
        ("nin", "", &["fr", "en-GB"], lang, false),
        ("nin", "", &["fr"], &[], true),
        ("nin", "", &["fr", ""], &[], false),
        ("ex", "", &[], lang, true),
        ("ex", "", &[], empty, true),
        ("ex", "", &[], &[], false),
        ("nex", "", &[], lang, false),
        ("nex", "", &[], &[], true),
        ("sw", "en", &[], lang, true),
        ("sw", "GB", &[], lang, false),
        ("sw", "en", &[], &[], false),
        ("ew", "GB", &[], lang, true),
        ("ew", "en", &[], lang, false),
        ("ew", "en", &[], &[], false),
        ("ct", "n-G", &[], lang, true),
        ("ct", "gb", &[], lang, false),
        ("ct", "en", &[], &[], false),
    ];
    for &(cmp, val, vals, given, expected) in rows {
        assert_eq!(passes(&leaf("lang", cmp, val, vals), given), expected, "{cmp} {val:?} {vals:?} {given:?}");
    }
    assert!(!passes(&leaf("", "ex", "", &[]), lang), "without a key it looks for the tag without a name");
    assert!(passes(&leaf("", "nex", "", &[]), lang));
    assert!(passes(&leaf("", "ex", "", &[]), &[("", "v")]));
}

#[test]
fn numbers_are_compared_as_decimals_and_words_never_match() {
    let rows = [
        ("lt", "10", "9.5", true),
        ("lt", "9.5", "9.5", false),
        ("lte", "9.50", "9.5", true),
        ("lte", "9.4", "9.5", false),
        ("gt", "-3", "9.5", true),
        ("gt", "10", "9.5", false),
        ("gte", "9.5", "9.50", true),
        ("gte", "9.51", "9.5", false),
        ("gt", "123456789012345678901234567890", "123456789012345678901234567891", true),
        ("lt", "9007199254740993", "9007199254740992", true),
        ("gte", "0", "-0", true),
        ("gt", "1", "ten", false),
        ("lte", "1", "ten", false),
        ("lt", "abc", "5", false),
        ("gte", "abc", "5", false),
        ("lt", "abc", "abb", false),
        ("gte", "1000", "1e3", false),
    ];
    for (cmp, val, tag, expected) in rows {
        assert_eq!(passes(&leaf("p", cmp, val, &[]), &[("p", tag)]), expected, "{tag} {cmp} {val}");
    }
    for cmp in ["lt", "lte", "gt", "gte"] {
        assert!(!passes(&leaf("p", cmp, "1", &[]), &[]), "{cmp}");
        let inverted = node("not", &[leaf("p", cmp, "1", &[])]);
        assert!(passes(&inverted, &[("p", "ten")]), "not {cmp}: a word is no number, so the comparison does not hold");
    }
}

#[test]
fn and_or_and_not_combine() {
    let is = |key: &str, val: &str| leaf(key, "eq", val, &[]);
    let filter = node("and", &[node("or", &[is("lang", "en"), is("lang", "fr")]), node("not", &[is("kind", "ad")])]);
    assert!(passes(&filter, &[("lang", "en")]));
    assert!(!passes(&filter, &[("lang", "en"), ("kind", "ad")]));
    assert!(!passes(&filter, &[("lang", "de")]));
    assert!(passes(&filter, &[("lang", "fr"), ("kind", "story")]));
    assert!(!passes(&filter, &[]));
}

#[test]
fn what_an_operation_does_not_need_is_ignored() {
    let with_nodes = FilterNode { nodes: vec![node("bad", &[])], ..leaf("k", "ex", "", &[]) };
    assert!(passes(&with_nodes, &[("k", "v")]));
    let with_cmp = FilterNode { op: "and".into(), nodes: vec![leaf("k", "ex", "", &[])], ..leaf("k", "zz", "v", &[]) };
    assert!(passes(&with_cmp, &[("k", "v")]));
}

#[test]
fn malformed_filters_are_refused_with_the_reason() {
    let good = leaf("k", "eq", "v", &[]);
    let rows = [
        (FilterNode::default(), FilterProblem::UnknownComparison),
        (leaf("k", "like", "v", &[]), FilterProblem::UnknownComparison),
        (leaf("k", "EQ", "v", &[]), FilterProblem::UnknownComparison),
        (leaf("", "eq", "v", &[]), FilterProblem::NoKey),
        (leaf("", "in", "", &["v"]), FilterProblem::NoKey),
        (leaf("k", "eq", "", &[]), FilterProblem::WrongValue),
        (leaf("k", "lt", "1", &["1"]), FilterProblem::WrongValue),
        (leaf("k", "in", "", &[]), FilterProblem::WrongValue),
        (leaf("k", "nin", "v", &["v"]), FilterProblem::WrongValue),
        (leaf("k", "ex", "v", &[]), FilterProblem::WrongValue),
        (leaf("k", "nex", "", &["v"]), FilterProblem::WrongValue),
        (node("and", &[]), FilterProblem::WrongNumberOfNodes),
        (node("or", &[]), FilterProblem::WrongNumberOfNodes),
        (node("not", &[]), FilterProblem::WrongNumberOfNodes),
        (node("not", &[good.clone(), good.clone()]), FilterProblem::WrongNumberOfNodes),
        (node("xor", std::slice::from_ref(&good)), FilterProblem::UnknownOperation),
        (node("and", &[good, node("or", &[leaf("k", "", "", &[])])]), FilterProblem::UnknownComparison),
    ];
    for (filter, problem) in rows {
        assert_eq!(Filter::compile(&filter), Err(problem), "{filter:?}");
    }
}

#[test]
fn depth_and_number_of_nodes_are_bounded() {
    assert_eq!(passes(&nested(MAX_DEPTH), &[("k", "v")]), (MAX_DEPTH - 1).is_multiple_of(2));
    assert_eq!(Filter::compile(&nested(MAX_DEPTH + 1)), Err(FilterProblem::TooDeep));
    let wide = |leaves: usize| {
        let leaves: Vec<FilterNode> = (0..leaves).map(|i| leaf("k", "eq", &i.to_string(), &[])).collect();
        node("or", &leaves)
    };
    let last = (MAX_NODES - 2).to_string();
    assert!(passes(&wide(MAX_NODES - 1), &[("k", &last)]));
    assert_eq!(Filter::compile(&wide(MAX_NODES)), Err(FilterProblem::TooManyNodes));
    assert!(FilterProblem::TooDeep.as_str().contains(&MAX_DEPTH.to_string()));
    assert!(FilterProblem::TooManyNodes.as_str().contains(&MAX_NODES.to_string()));
}

#[test]
fn filters_that_say_the_same_are_equal_and_hash_the_same() {
    let same = [
        (leaf("k", "in", "", &["a", "b"]), leaf("k", "in", "", &["b", "a", "b"])),
        (leaf("k", "lt", "9.50", &[]), leaf("k", "lt", "+09.5", &[])),
        (node("not", &[nested(3)]), node("not", &[nested(3)])),
    ];
    let hasher = RandomState::new();
    for (left, right) in same {
        let (left, right) = (Filter::compile(&left).unwrap(), Filter::compile(&right).unwrap());
        assert_eq!(left, right);
        assert_eq!(hasher.hash_one(&left), hasher.hash_one(&right));
    }
    let different = [
        (leaf("k", "eq", "a", &[]), leaf("k", "neq", "a", &[])),
        (leaf("k", "eq", "a", &[]), leaf("l", "eq", "a", &[])),
        (leaf("k", "lt", "1", &[]), leaf("k", "lte", "1", &[])),
        (node("and", &[nested(2), nested(3)]), node("or", &[nested(2), nested(3)])),
    ];
    for (left, right) in different {
        assert_ne!(Filter::compile(&left), Filter::compile(&right));
    }
}

// === against a naive model ===

/// What a filter means, written down without a thought for speed. Numbers have at most four digits on either side here.
fn model(filter: &FilterNode, tags: &BTreeMap<String, String>) -> bool {
    let tag = tags.get(&filter.key);
    let text = tag.cloned().unwrap_or_default();
    let numbers = || Some((ten_thousandths(tag?)?, ten_thousandths(&filter.val)?));
    match (filter.op.as_str(), filter.cmp.as_str()) {
        ("and", _) => filter.nodes.iter().filter(|node| !model(node, tags)).count() == 0,
        ("or", _) => filter.nodes.iter().filter(|node| model(node, tags)).count() > 0,
        ("not", _) => !model(&filter.nodes[0], tags),
        (_, "eq") => tag.is_some() && text == filter.val,
        (_, "neq") => tag.is_none() || text != filter.val,
        (_, "in") => filter.vals.contains(&text),
        (_, "nin") => !filter.vals.contains(&text),
        (_, "ex") => tag.is_some(),
        (_, "nex") => tag.is_none(),
        (_, "sw") => tag.is_some() && text.starts_with(&filter.val),
        (_, "ew") => tag.is_some() && text.ends_with(&filter.val),
        (_, "ct") => tag.is_some() && text.contains(&filter.val),
        (_, "lt") => numbers().is_some_and(|(tag, val)| tag < val),
        (_, "lte") => numbers().is_some_and(|(tag, val)| tag <= val),
        (_, "gt") => numbers().is_some_and(|(tag, val)| tag > val),
        (_, "gte") => numbers().is_some_and(|(tag, val)| tag >= val),
        (_, other) => panic!("no comparison {other:?}"),
    }
}

fn ten_thousandths(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (integer, fraction) = match unsigned.split_once('.') {
        Some((integer, fraction)) if !fraction.is_empty() => (integer, format!("{fraction:0<4}")),
        Some(_) => return None,
        None => (unsigned, "0000".to_owned()),
    };
    let number = format!("{integer}{fraction}");
    if integer.is_empty() || !number.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let number: i64 = number.parse().ok()?;
    Some(if text.starts_with('-') { -number } else { number })
}

/// Few different ones, so that they often meet; words, numbers, and what looks like a number.
fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[abé]{0,3}", "[+-]?[0-9]{1,4}", "[+-]?[01]{1,3}\\.[019]{1,4}", "[-+.0-2e]{1,4}",]
}

fn key() -> impl Strategy<Value = String> {
    "[kl]"
}

fn filter() -> impl Strategy<Value = FilterNode> {
    let with_val = prop::sample::select(vec!["eq", "neq", "sw", "ew", "ct", "lt", "lte", "gt", "gte"]);
    let not_empty = value().prop_filter("val must not be empty", |val| !val.is_empty());
    let leaf = prop_oneof![
        4 => (key(), with_val, not_empty).prop_map(|(key, cmp, val)| leaf(&key, cmp, &val, &[])),
        1 => (key(), prop::sample::select(vec!["in", "nin"]), prop::collection::vec(value(), 1..4)).prop_map(
            |(key, cmp, vals)| FilterNode { vals, ..leaf(&key, cmp, "", &[]) }
        ),
        1 => (key(), prop::sample::select(vec!["ex", "nex"])).prop_map(|(key, cmp)| leaf(&key, cmp, "", &[])),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            (prop::sample::select(vec!["and", "or"]), prop::collection::vec(inner.clone(), 1..4))
                .prop_map(|(op, nodes)| node(op, &nodes)),
            inner.prop_map(|inner| node("not", &[inner])),
        ]
    })
}

proptest! {
    #[test]
    fn a_filter_passes_what_the_model_passes(
        filter in filter(),
        publications in prop::collection::vec(prop::collection::btree_map(key(), value(), 0..3), 1..8),
    ) {
        let compiled = Filter::compile(&filter).unwrap();
        for tags in publications {
            prop_assert_eq!(compiled.matches(&tags), model(&filter, &tags), "{:?} {:?}", filter, tags);
        }
    }

    #[test]
    fn whatever_a_client_sends_is_compiled_or_refused(
        op in "(and|or|not|xor)?", cmp in "[a-z]{0,3}", key in ".{0,2}", val in ".{0,2}",
        vals in prop::collection::vec(".{0,2}", 0..2), children in 0_usize..3, tag in ".{0,2}",
    ) {
        let vals: Vec<&str> = vals.iter().map(String::as_str).collect();
        let leaf = leaf(&key, &cmp, &val, &vals);
        let filter = FilterNode { op, nodes: vec![leaf.clone(); children], ..leaf };
        if let Ok(filter) = Filter::compile(&filter) {
            filter.matches(&tags(&[(&key, &tag)]));
        }
    }
}
