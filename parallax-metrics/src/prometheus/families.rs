//! The text format, taken apart.
//!
//! The exporter shows what it counts in no other form. What is sent on is made of this, so that it
//! is what Prometheus reads.

use super::unit;

/// All metrics of one name, as they are at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// The name that Prometheus knows it by.
    pub name: String,
    /// What it means; empty if nobody has said it.
    pub help: String,
    /// `seconds`, if it is a metric of Parallax in that unit.
    pub unit: Option<&'static str>,
    /// Its series, in no particular order.
    pub series: Vec<Series>,
}

/// One combination of a metric's labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Names and values.
    pub labels: Vec<(String, String)>,
    /// What was recorded since the recorder was installed; of a gauge, what it is now.
    pub value: Value,
}

/// What a series has come to.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number that only rises.
    Counter(u64),
    /// A number that rises and falls.
    Gauge(f64),
    /// How often values were recorded up to each bound.
    Histogram {
        /// Bounds in rising order, the last of which is infinite, each with how many values were at
        /// most as high.
        buckets: Vec<(f64, u64)>,
        /// The sum of the values.
        sum: f64,
    },
    /// What a share of the values lies below, lately: a histogram of a connector's own, for which
    /// nobody has said the buckets.
    Summary {
        /// Shares and values.
        quantiles: Vec<(f64, f64)>,
        /// How many values were recorded.
        count: u64,
        /// The sum of the values.
        sum: f64,
    },
}

/// Takes a rendering in Prometheus's text format apart.
pub(super) fn families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    let (mut kind, mut help) = ("", "");
    // Of a histogram or a summary, which has several lines.
    let (mut bounds, mut sum) = (Vec::new(), 0.0);
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            // It comes before the type.
            help = described;
            continue;
        }
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, declared) = declared.rsplit_once(' ').unwrap_or((declared, ""));
            let described = help.strip_prefix(name);
            let described = described.and_then(|text| text.strip_prefix(' '));
            families.push(Family {
                name: name.to_owned(),
                help: unescaped(described.unwrap_or_default()),
                unit: unit(name),
                series: Vec::new(),
            });
            (kind, help) = (declared, "");
            continue;
        }
        let Some((family, sample)) = families.last_mut().zip(Sample::parse(line)) else {
            continue;
        };
        let Sample {
            name,
            mut labels,
            value,
        } = sample;
        let part = name.strip_prefix(family.name.as_str()).unwrap_or_default();
        let value = match (kind, part) {
            ("counter", _) => value.parse().ok().map(Value::Counter),
            ("gauge", _) => value.parse().ok().map(Value::Gauge),
            (_, "_sum") => {
                sum = value.parse().unwrap_or_default();
                None
            }
            (_, "_count") => value.parse().ok().map(|count| {
                let bounds = std::mem::take(&mut bounds);
                match kind {
                    "histogram" => Value::Histogram {
                        buckets: bounds.into_iter().map(whole).collect(),
                        sum,
                    },
                    _ => Value::Summary {
                        quantiles: bounds.into_iter().filter_map(fraction).collect(),
                        count,
                        sum,
                    },
                }
            }),
            _ => {
                // The last label says up to where.
                let bound = labels.pop().and_then(|(_, bound)| bound.parse().ok());
                bounds.extend(bound.map(|bound: f64| (bound, value.to_owned())));
                None
            }
        };
        family
            .series
            .extend(value.map(|value| Series { labels, value }));
    }
    families
}

fn whole((bound, count): (f64, String)) -> (f64, u64) {
    (bound, count.parse().unwrap_or_default())
}

fn fraction((share, value): (f64, String)) -> Option<(f64, f64)> {
    Some((share, value.parse().ok()?))
}

/// A line that is no comment.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(String, String)>,
    value: &'a str,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        // Neither names of labels nor numbers have any of these; values of labels have all.
        let (series, value) = line.rsplit_once(' ')?;
        let (name, mut rest) = series.split_once('{').unwrap_or((series, ""));
        let mut labels = Vec::new();
        while let Some((name, quoted)) = rest.split_once("=\"") {
            let end = end_of_value(quoted)?;
            let (value, after) = quoted.split_at_checked(end)?;
            labels.push((name.to_owned(), unescaped(value)));
            rest = after.strip_prefix("\",").unwrap_or_default();
        }
        Some(Self {
            name,
            labels,
            value,
        })
    }
}

/// Returns where the quote stands that ends a label's value.
fn end_of_value(quoted: &str) -> Option<usize> {
    let mut is_escaped = false;
    quoted.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        plain.push(match char {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some(escaped) => escaped,
                None => '\\',
            },
            char => char,
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use metrics::{counter, gauge, histogram};
    use proptest::prelude::*;

    use super::super::{Prometheus, builder};
    use super::*;
    use crate::names;

    /// Returns what is found after `act`, by name.
    fn recorded(act: impl FnOnce()) -> BTreeMap<String, Family> {
        let recorder = builder().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            names::describe();
            act();
        });
        let handle = recorder.handle();
        let families = Prometheus { handle }.families();
        families
            .into_iter()
            .map(|family| (family.name.clone(), family))
            .collect()
    }

    #[test]
    fn every_kind_is_found_as_it_was_recorded() {
        let found = recorded(|| {
            counter!("parallax_syncs_total", "connector_id" => "okta", "outcome" => "failed")
                .increment(u64::MAX);
            gauge!("parallax_sync_interval_seconds", "connector_id" => "okta").set(0.1);
            for seconds in [0.003, 0.02, 4_000.0] {
                histogram!("parallax_commit_duration_seconds").record(seconds);
            }
            histogram!("own_bytes", "kind" => "a").record(7.0);
            gauge!("unheard_of").set(f64::NEG_INFINITY);
        });
        let labels = |labels: &[(&str, &str)]| -> Vec<(String, String)> {
            let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
            labels.iter().map(owned).collect()
        };
        let syncs = &found["parallax_syncs_total"];
        assert_eq!(syncs.help, "Syncs that ended, by how.");
        assert_eq!(syncs.unit, None);
        assert_eq!(
            syncs.series,
            [Series {
                labels: labels(&[("connector_id", "okta"), ("outcome", "failed")]),
                value: Value::Counter(u64::MAX),
            }]
        );
        let interval = &found["parallax_sync_interval_seconds"];
        assert_eq!(interval.unit, Some("seconds"));
        assert_eq!(interval.series[0].value, Value::Gauge(0.1));
        let Value::Histogram { buckets, sum } =
            &found["parallax_commit_duration_seconds"].series[0].value
        else {
            panic!("{found:?}");
        };
        assert_eq!(*sum, 4_000.023);
        assert_eq!(buckets[..3], [(0.001, 0), (0.002_5, 0), (0.005, 1)]);
        assert_eq!(
            buckets[buckets.len() - 2..],
            [(300.0, 2), (f64::INFINITY, 3)]
        );
        let own = &found["own_bytes"];
        assert_eq!((own.help.as_str(), own.unit), ("", None));
        assert_eq!(own.series[0].labels, labels(&[("kind", "a")]));
        let Value::Summary {
            quantiles,
            count,
            sum,
        } = &own.series[0].value
        else {
            panic!("{own:?}");
        };
        assert_eq!((*count, *sum), (1, 7.0));
        assert_eq!((quantiles[0].0, quantiles.len()), (0.0, 7));
        let low = &found["unheard_of"].series;
        assert_eq!(
            low[0],
            Series {
                labels: Vec::new(),
                value: Value::Gauge(f64::NEG_INFINITY)
            }
        );
    }

    /// The values of a label. The exporter swallows some backslashes, so there are none.
    fn label() -> impl Strategy<Value = String> {
        "(?s)(.|[\"\n ,={}]){0,12}".prop_map(|text| text.replace('\\', "/"))
    }

    proptest! {
        #[test]
        fn nothing_is_lost_whatever_labels_hold(
            recorded_values in prop::collection::btree_map(label(), any::<u64>(), 1..20),
        ) {
            let found = recorded(|| {
                for (label, value) in &recorded_values {
                    counter!("odd_total", "a" => label.clone(), "b" => "x").increment(*value);
                }
            });
            let series = &found["odd_total"].series;
            let found: BTreeMap<String, u64> = series
                .iter()
                .map(|series| match (&series.labels[..], &series.value) {
                    ([(a, label), (b, x)], Value::Counter(value)) if (&**a, &**b, &**x) == ("a", "b", "x") => {
                        (label.clone(), *value)
                    }
                    _ => panic!("{series:?}"),
                })
                .collect();
            prop_assert_eq!(found, recorded_values);
        }
    }
}
