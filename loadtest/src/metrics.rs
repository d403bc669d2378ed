//! The figures of a run under one name each: what thresholds, baselines and comparisons speak of.

use std::collections::BTreeMap;

use crate::latency::LatencySummary;

/// Figures by name; times in nanoseconds, sizes in bytes, all else plain numbers. A figure that was not measured is absent.
pub type Metrics = BTreeMap<String, f64>;

/// What a figure is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Time,
    /// Bytes.
    Size,
    /// A count, a rate or a share.
    Number,
}

/// One figure.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is measured in.
    pub unit: Unit,
    /// What it says.
    pub about: &'static str,
}

const fn metric(name: &'static str, unit: Unit, about: &'static str) -> Metric {
    Metric { name, unit, about }
}

/// Every figure but the latencies.
pub const METRICS: &[Metric] = &[
    metric("lost", Unit::Number, "deliveries owed that never came"),
    metric("duplicated", Unit::Number, "deliveries that came again"),
    metric("reordered", Unit::Number, "deliveries after a later one of their stream"),
    metric("altered", Unit::Number, "deliveries with other bytes than were published"),
    metric("misrouted", Unit::Number, "deliveries to subscribers of another channel"),
    metric("unexpected", Unit::Number, "deliveries of what was refused or never published"),
    metric("published", Unit::Number, "publications sent"),
    metric("refused", Unit::Number, "publications refused"),
    metric("unanswered", Unit::Number, "publications without an answer"),
    metric("unsent", Unit::Number, "publications that were due and never sent"),
    metric("expected", Unit::Number, "deliveries owed"),
    metric("delivered", Unit::Number, "deliveries that came"),
    metric("publish_rate", Unit::Number, "publications per second"),
    metric("deliver_rate", Unit::Number, "deliveries per second"),
    metric("ended", Unit::Number, "connections of subscribers that ended unasked"),
    metric("publishers_ended", Unit::Number, "connections of publishers that ended"),
    metric("set_up", Unit::Time, "time until all were subscribed"),
    metric("cuts", Unit::Number, "connections cut on purpose"),
    metric("not_returned", Unit::Number, "cut connections that were not back at the end"),
    metric("return_refusals", Unit::Number, "failed attempts to come back"),
    metric("missed_while_away", Unit::Number, "deliveries that subscribers missed because they were cut off"),
    metric("recovered", Unit::Number, "deliveries that came with the answer to a subscription"),
    metric("unrecovered", Unit::Number, "subscriptions that the server could not recover"),
    metric("slow_readers_ended", Unit::Number, "slow readers whose connection the server ended"),
    metric("half_open_ended", Unit::Number, "half-open connections that the server ended"),
    metric("server_cores", Unit::Number, "processor time of the server per second"),
    metric("server_cpu_per_message", Unit::Time, "processor time of the server per message in or out"),
    metric("server_cpu_per_million", Unit::Time, "processor time of the server per million deliveries"),
    metric("rss", Unit::Size, "resident memory of the server at the end"),
    metric("rss_per_conn", Unit::Size, "growth of the server's resident memory while subscribing, per connection"),
    metric("descriptors", Unit::Number, "open descriptors of the server"),
    metric("context_switches", Unit::Number, "context switches of the server per second"),
    metric("generator_cores", Unit::Number, "busiest thread of the generator, in cores"),
    metric("generator_cpu_per_message", Unit::Time, "processor time of the generator per message in or out"),
];

/// What there are latencies of.
pub const LATENCIES: &[(&str, &str)] = &[
    ("deliver", "from due to received"),
    ("answer", "from due to the server's answer to the publication"),
    ("wait", "from due to sent"),
    ("lag", "how late the publisher's own loop was"),
    ("loop", "how late the receiving threads were"),
    ("return", "from the wish to come back until subscribed again"),
    ("recovered", "age of recovered messages"),
];

/// The figures of a latency.
pub const QUANTILES: &[&str] = &["min", "mean", "p50", "p90", "p99", "p999", "p9999", "max"];

/// The unit of a figure, or `None` when there is no such figure. `p99_deliver@NAME` is that of a phase.
pub fn unit_of(name: &str) -> Option<Unit> {
    let base = name.split_once('@').map_or(name, |(base, _)| base);
    if let Some((quantile, of)) = base.split_once('_')
        && QUANTILES.contains(&quantile)
        && LATENCIES.iter().any(|(latency, _)| *latency == of)
    {
        return (base == name || of == "deliver").then_some(Unit::Time);
    }
    METRICS.iter().find(|metric| metric.name == name).map(|metric| metric.unit)
}

/// True for figures that only a run that watches the server's process has.
pub fn needs_server(name: &str) -> bool {
    name.starts_with("server_") || matches!(name, "rss" | "rss_per_conn" | "descriptors" | "context_switches")
}

/// Every name, latencies included.
pub fn names() -> impl Iterator<Item = String> {
    let latencies = LATENCIES.iter().flat_map(|(of, _)| QUANTILES.iter().map(move |at| format!("{at}_{of}")));
    METRICS.iter().map(|metric| metric.name.to_owned()).chain(latencies)
}

/// Adds the figures of one latency; `suffix` is empty or `@` and a phase. Without values there are no figures.
pub fn add_latency(metrics: &mut Metrics, of: &str, suffix: &str, summary: &LatencySummary) {
    let LatencySummary { count, mean_ns, min_ns, p50_ns, p90_ns, p99_ns, p999_ns, p9999_ns, max_ns } = *summary;
    if count == 0 {
        return;
    }
    metrics.insert(format!("mean_{of}{suffix}"), mean_ns);
    let values = [("min", min_ns), ("p50", p50_ns), ("p90", p90_ns), ("p99", p99_ns), ("p999", p999_ns)];
    for (at, value) in values.into_iter().chain([("p9999", p9999_ns), ("max", max_ns)]) {
        metrics.insert(format!("{at}_{of}{suffix}"), value as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_for_users_names_every_figure() {
        let readme = include_str!("../README.md");
        let words = METRICS.iter().map(|metric| metric.name).chain(LATENCIES.iter().map(|(of, _)| *of));
        let missing: Vec<&str> = words.chain(QUANTILES.iter().copied()).filter(|word| !readme.contains(word)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn every_name_has_a_unit_and_strangers_have_none() {
        assert!(names().all(|name| unit_of(&name).is_some()));
        assert_eq!(unit_of("p99_deliver@storm"), Some(Unit::Time));
        for stranger in ["p98_deliver", "p99_lost", "lost@storm", "p99_answer@storm", "rate"] {
            assert_eq!(unit_of(stranger), None, "{stranger}");
        }
    }
}
