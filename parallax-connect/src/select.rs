use std::collections::VecDeque;

use parallax_core::excerpt;

use crate::graph::Graph;
use crate::step::Step;

/// No id is longer, nor need a pattern for one be.
const SELECTOR_CHARS: usize = 64;

/// A selector that matches no step.
#[derive(Debug)]
pub(crate) struct Unmatched {
    /// The selector, escaped; of a long one, the beginning.
    pub(crate) selector: String,
    /// The step whose id is most like it.
    pub(crate) nearest: String,
}

/// Tells for each step whether it is selected: it matches a selector, or is upstream of one that
/// does; with `+` after the pattern also if it is downstream, or upstream of one that is. All are,
/// if there is no selector.
pub(crate) fn select(
    selectors: &[String],
    steps: &[Step<'_>],
    graph: &Graph,
) -> Result<Vec<bool>, Unmatched> {
    if selectors.is_empty() {
        return Ok(vec![true; steps.len()]);
    }
    let mut wanted = vec![false; steps.len()];
    let mut with_dependents = vec![false; steps.len()];
    for selector in selectors {
        let (pattern, marked) = match selector.strip_suffix('+') {
            Some(pattern) => (pattern, &mut with_dependents),
            None => (selector.as_str(), &mut wanted),
        };
        let mut is_matched = false;
        for (step, marked) in steps.iter().zip(marked) {
            if matches(pattern.as_bytes(), step.id.as_bytes()) {
                (*marked, is_matched) = (true, true);
            }
        }
        if !is_matched {
            return Err(unmatched(selector, pattern, steps));
        }
    }
    spread(&mut with_dependents, &graph.dependents);
    for (wanted, downstream) in wanted.iter_mut().zip(with_dependents) {
        *wanted |= downstream;
    }
    spread(&mut wanted, &graph.dependencies);
    Ok(wanted)
}

/// Marks what can be reached from what is marked.
fn spread(marked: &mut [bool], edges: &[Vec<usize>]) {
    let mut todo: VecDeque<usize> = (0..marked.len())
        .filter(|&place| marked.get(place) == Some(&true))
        .collect();
    while let Some(place) = todo.pop_front() {
        for &next in edges.get(place).into_iter().flatten() {
            if let Some(marked) = marked.get_mut(next)
                && !std::mem::replace(marked, true)
            {
                todo.push_back(next);
            }
        }
    }
}

/// Tells whether an id matches a pattern, in which `*` stands for any characters.
fn matches(pattern: &[u8], id: &[u8]) -> bool {
    let (mut pattern, mut id) = (pattern, id);
    // Where the last `*` stands, and what it has not been tried for yet.
    let mut last_star = None;
    loop {
        match (pattern.split_first(), id.split_first()) {
            (Some((b'*', after)), _) => {
                last_star = Some((after, id));
                pattern = after;
            }
            (Some((wanted, after)), Some((found, rest))) if wanted == found => {
                (pattern, id) = (after, rest);
            }
            (None, None) => return true,
            // The last `*` takes one character more; that no earlier one need take more is what
            // makes this linear in each.
            _ => match last_star {
                Some((after, [_, rest @ ..])) => {
                    (pattern, id) = (after, rest);
                    last_star = Some((after, rest));
                }
                _ => return false,
            },
        }
    }
}

fn unmatched(selector: &str, pattern: &str, steps: &[Step<'_>]) -> Unmatched {
    let wanted: String = pattern.chars().filter(|c| *c != '*').collect();
    let wanted = excerpt(&wanted, SELECTOR_CHARS);
    let distance = |step: &&Step<'_>| strsim::damerau_levenshtein(&step.id, &wanted);
    Unmatched {
        selector: excerpt(selector, SELECTOR_CHARS),
        nearest: steps
            .iter()
            .min_by_key(distance)
            .map(|step| step.id.clone())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select as any_of;

    use super::*;
    use crate::step::step;

    /// `a -> c -> d -> f` and `b -> d`, beside `e`.
    fn selected(selectors: &[&str]) -> String {
        let edges: [(&str, &[&str]); 6] = [
            ("net.a", &[]),
            ("net.b", &[]),
            ("host.c", &["net.a"]),
            ("host.d", &["host.c", "net.b"]),
            ("e", &[]),
            ("f", &["host.d"]),
        ];
        let steps: Vec<_> = edges
            .iter()
            .map(|(id, on)| step(*id, "", async |_| Ok(())).depends_on(on.iter().copied()))
            .collect();
        let graph = Graph::try_new(&steps).unwrap();
        let selectors: Vec<_> = selectors.iter().map(ToString::to_string).collect();
        match select(&selectors, &steps, &graph) {
            Ok(selected) => {
                let chosen = steps.iter().zip(selected).filter(|(_, selected)| *selected);
                let ids: Vec<_> = chosen.map(|(step, _)| step.id()).collect();
                ids.join(" ")
            }
            Err(Unmatched { selector, nearest }) => format!("no {selector}, but {nearest}"),
        }
    }

    #[test]
    fn what_a_step_needs_is_selected_with_it() {
        let lines = [
            &["net.a"] as &[_],
            &["f"],
            &["net.a+"],
            &["net.b+"],
            &["e+"],
            &["net.*"],
            &["*.c", "e"],
            &["*"],
            &["**+"],
            &["h*t.?"],
            &[],
            &["e", "neta+"],
            &[""],
            &["+"],
            &["e++"],
            &["+e"],
            &["E"],
            &["\n*"],
        ]
        .map(|selectors| format!("{selectors:?}: {}", selected(selectors)));
        insta::assert_snapshot!(lines.join("\n"), @r#"
        ["net.a"]: net.a
        ["f"]: net.a net.b host.c host.d f
        ["net.a+"]: net.a net.b host.c host.d f
        ["net.b+"]: net.a net.b host.c host.d f
        ["e+"]: e
        ["net.*"]: net.a net.b
        ["*.c", "e"]: net.a host.c e
        ["*"]: net.a net.b host.c host.d e f
        ["**+"]: net.a net.b host.c host.d e f
        ["h*t.?"]: no h*t.?, but net.a
        []: net.a net.b host.c host.d e f
        ["e", "neta+"]: no neta+, but net.a
        [""]: no , but e
        ["+"]: no +, but e
        ["e++"]: no e++, but e
        ["+e"]: no +e, but e
        ["E"]: no E, but e
        ["\n*"]: no \n*, but e
        "#);
    }

    /// Whether `id` matches, by trying everything that a `*` may stand for.
    fn matches_by_trying(pattern: &[u8], id: &[u8]) -> bool {
        match pattern.split_first() {
            None => id.is_empty(),
            Some((b'*', after)) => (0..=id.len()).any(|n| matches_by_trying(after, &id[n..])),
            Some((c, after)) => id.first() == Some(c) && matches_by_trying(after, &id[1..]),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn a_star_stands_for_anything(
            pattern in prop::collection::vec(any_of(b"ab*".as_slice()), 0..7),
            id in prop::collection::vec(any_of(b"ab".as_slice()), 0..9),
        ) {
            prop_assert_eq!(matches(&pattern, &id), matches_by_trying(&pattern, &id));
        }
    }
}
