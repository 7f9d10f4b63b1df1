use std::collections::HashMap;

use parallax_core::{excerpt, is_identifier};

use crate::step::Step;

/// A message that names more steps is not read.
const STEPS_SHOWN: usize = 12;
/// No valid id is longer.
const ID_CHARS: usize = 64;

/// Why the steps of a connector cannot be run. Nothing ran, and no event was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The connector has no steps.
    #[error("the connector has no steps")]
    Empty,
    /// A step's id is not `[a-z0-9_.-]{1,64}`.
    #[error("step id \"{step_id}\" is not of the form [a-z0-9_.-]{{1,64}}")]
    InvalidId {
        /// The id, escaped; of a long one, the beginning.
        step_id: String,
    },
    /// Two steps have one id.
    #[error("two steps have the id {step_id}")]
    DuplicateId {
        /// The id.
        step_id: String,
    },
    /// A step depends on one that is not there.
    #[error("step {step_id} depends on {dependency}, which is not a step ({})", steps_are(.known))]
    UnknownDependency {
        /// The step.
        step_id: String,
        /// What it depends on, escaped; of a long one, the beginning.
        dependency: String,
        /// The steps there are.
        known: Vec<String>,
    },
    /// Steps wait for each other.
    #[error("steps depend on each other: {}", arrows(path))]
    Cycle {
        /// The steps of the cycle, each depending on the next; the first is named again at the
        /// end.
        path: Vec<String>,
    },
}

fn steps_are(known: &[String]) -> String {
    let (shown, rest) = known.split_at(known.len().min(STEPS_SHOWN));
    let more = match rest.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("steps are: {}{more}", shown.join(", "))
}

fn arrows(path: &[String]) -> String {
    match path.split_at_checked(STEPS_SHOWN) {
        Some((shown, rest)) if rest.len() > 1 => {
            let (more, last) = (rest.len() - 1, rest.last().map_or("", String::as_str));
            format!("{} -> ({more} more) -> {last}", shown.join(" -> "))
        }
        _ => path.join(" -> "),
    }
}

/// The steps' dependencies by place, checked: every edge leads to a step, and no path to itself.
#[derive(Debug)]
pub(crate) struct Graph {
    /// For each step, those it waits for, each once.
    pub(crate) dependencies: Vec<Vec<usize>>,
    /// For each step, those whose records it reads, in the order of their declaration.
    pub(crate) reads: Vec<Vec<usize>>,
    /// For each step, those that wait for it.
    pub(crate) dependents: Vec<Vec<usize>>,
}

impl Graph {
    pub(crate) fn try_new(steps: &[Step<'_>]) -> Result<Self, GraphError> {
        if steps.is_empty() {
            return Err(GraphError::Empty);
        }
        let mut places = HashMap::with_capacity(steps.len());
        for (place, step) in steps.iter().enumerate() {
            if !is_identifier(&step.id) {
                let step_id = excerpt(&step.id, ID_CHARS);
                return Err(GraphError::InvalidId { step_id });
            }
            if places.insert(step.id.as_str(), place).is_some() {
                return Err(GraphError::DuplicateId {
                    step_id: step.id.clone(),
                });
            }
        }

        let mut graph = Self {
            dependencies: vec![Vec::new(); steps.len()],
            reads: vec![Vec::new(); steps.len()],
            dependents: vec![Vec::new(); steps.len()],
        };
        for (place, step) in steps.iter().enumerate() {
            for dependency in &step.dependencies {
                let Some(&on) = places.get(dependency.step_id.as_str()) else {
                    return Err(GraphError::UnknownDependency {
                        step_id: step.id.clone(),
                        dependency: excerpt(&dependency.step_id, ID_CHARS),
                        known: steps.iter().map(|step| step.id.clone()).collect(),
                    });
                };
                graph.add(place, on, dependency.reads);
            }
        }
        graph.reads.iter_mut().for_each(|reads| {
            reads.sort_unstable();
            reads.dedup();
        });
        match graph.find_cycle() {
            Some(cycle) => Err(GraphError::Cycle {
                path: cycle
                    .into_iter()
                    .filter_map(|place| steps.get(place))
                    .map(|step| step.id.clone())
                    .collect(),
            }),
            None => Ok(graph),
        }
    }

    /// Adds an edge. The edges of a step are added one after the other.
    fn add(&mut self, place: usize, on: usize, reads: bool) {
        if let Some(dependents) = self.dependents.get_mut(on)
            && dependents.last() != Some(&place)
        {
            dependents.push(place);
            if let Some(dependencies) = self.dependencies.get_mut(place) {
                dependencies.push(on);
            }
        }
        if reads && let Some(reads) = self.reads.get_mut(place) {
            reads.push(on);
        }
    }

    /// Finds a cycle as a path that ends where it begins.
    fn find_cycle(&self) -> Option<Vec<usize>> {
        // Removes steps that wait for nothing, again and again; what is left waits for itself or
        // for a cycle. Not recursive: a chain may be longer than the stack is deep.
        let mut waits: Vec<usize> = self.dependencies.iter().map(Vec::len).collect();
        let mut free: Vec<usize> = (0..waits.len())
            .filter(|&place| waits.get(place) == Some(&0))
            .collect();
        while let Some(place) = free.pop() {
            for &dependent in self.dependents.get(place)? {
                let waits = waits.get_mut(dependent)?;
                *waits -= 1;
                if *waits == 0 {
                    free.push(dependent);
                }
            }
        }

        let stuck = |place: &usize| waits.get(*place).is_some_and(|&waits| waits > 0);
        let mut place = (0..waits.len()).find(stuck)?;
        let mut path = Vec::new();
        let mut met_at = vec![None; waits.len()];
        // A stuck step waits for a stuck step, so this walk meets itself.
        loop {
            let met = met_at.get_mut(place)?;
            let begin = met.replace(path.len());
            path.push(place);
            if let Some(begin) = begin {
                return Some(path.split_off(begin));
            }
            place = *self.dependencies.get(place)?.iter().find(|p| stuck(p))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::step::{Dependency, step};

    fn graph(edges: &[(&str, &[&str])]) -> Result<Graph, GraphError> {
        let steps: Vec<_> = edges
            .iter()
            .map(|(id, on)| step(*id, *id, async |_| Ok(())).depends_on(on.iter().copied()))
            .collect();
        Graph::try_new(&steps)
    }

    fn message(edges: &[(&str, &[&str])]) -> String {
        graph(edges).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_run_is_named() {
        let messages = [
            message(&[]),
            message(&[("a", &["c"]), ("b", &["a"]), ("c", &["b"]), ("d", &["a"])]),
            message(&[("a", &["a"])]),
            message(&[("users", &[]), ("groups", &["user"])]),
            message(&[("a", &["b\n\u{202e}"])]),
            message(&[("a", &[]), ("a", &[])]),
            message(&[("", &[])]),
            message(&[("A\n\u{202e}", &[])]),
        ];
        insta::assert_snapshot!(messages.join("\n"), @r#"
        the connector has no steps
        steps depend on each other: a -> c -> b -> a
        steps depend on each other: a -> a
        step groups depends on user, which is not a step (steps are: users, groups)
        step a depends on b\n\u{202e}, which is not a step (steps are: a)
        two steps have the id a
        step id "" is not of the form [a-z0-9_.-]{1,64}
        step id "A\n\u{202e}" is not of the form [a-z0-9_.-]{1,64}
        "#);
    }

    #[test]
    fn an_edge_that_is_named_twice_counts_once() {
        let nothing = async |_| Ok(());
        let steps = [
            step("a", "", nothing),
            step("b", "", nothing),
            step("c", "", nothing)
                .depends_on(["b", "a", "b"])
                .reads(["b", "a"])
                .reads(["b"]),
        ];
        let graph = Graph::try_new(&steps).unwrap();
        assert_eq!(graph.dependencies, [vec![], vec![], vec![1, 0]]);
        assert_eq!(graph.dependents, [vec![2], vec![2], vec![]]);
        // In the order of their declaration: of records with one id, the first counts.
        assert_eq!(graph.reads, [vec![], vec![], vec![0, 1]]);
    }

    /// Steps `s0`, `s1`, ... with edges by place.
    fn numbered(count: usize, edges: impl Iterator<Item = (usize, usize)>) -> Vec<Step<'static>> {
        let mut steps: Vec<_> = (0..count)
            .map(|n| step(format!("s{n}"), "", async |_| Ok(())))
            .collect();
        for (place, on) in edges {
            steps[place].dependencies.push(Dependency {
                step_id: format!("s{on}"),
                reads: true,
            });
        }
        steps
    }

    #[test]
    fn a_cycle_is_found_behind_a_long_chain() {
        let chain = (1..10_000).map(|n| (n, n - 1));
        assert!(Graph::try_new(&numbered(10_000, chain.clone())).is_ok());
        let steps = numbered(10_000, chain.chain([(9_970, 9_999)]));
        let error = Graph::try_new(&steps).unwrap_err();
        insta::assert_snapshot!(error.to_string().replace(" -> ", "\n"), @"
        steps depend on each other: s9970
        s9999
        s9998
        s9997
        s9996
        s9995
        s9994
        s9993
        s9992
        s9991
        s9990
        s9989
        (18 more)
        s9970
        ");
        let GraphError::Cycle { path } = error else {
            panic!()
        };
        assert_eq!(path.len(), 31);
        assert_eq!(path.first(), path.last());
    }

    #[test]
    fn a_message_names_some_of_many_steps() {
        let mut steps = numbered(10_000, std::iter::empty());
        steps[7] = step("s7", "", async |_| Ok(())).depends_on(["x".repeat(10_000)]);
        let message = Graph::try_new(&steps).unwrap_err().to_string();
        let message = message.replace(&"x".repeat(64), "x…64…x");
        insta::assert_snapshot!(message.replace(" (", "\n("), @"
        step s7 depends on x…64…x…, which is not a step
        (steps are: s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11 and 9988 more)
        ");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn a_graph_is_accepted_if_it_has_an_order(
            edges in prop::collection::vec((0..6_usize, 0..6_usize), 0..9),
        ) {
            // An order exists if no step reaches itself.
            let mut reaches = [[false; 6]; 6];
            edges.iter().for_each(|&(place, on)| reaches[place][on] = true);
            for via in 0..6 {
                for from in 0..6 {
                    for to in 0..6 {
                        reaches[from][to] |= reaches[from][via] && reaches[via][to];
                    }
                }
            }
            let has_order = (0..6).all(|place| !reaches[place][place]);
            match Graph::try_new(&numbered(6, edges.iter().copied())) {
                Ok(graph) => {
                    prop_assert!(has_order);
                    for &(place, on) in &edges {
                        prop_assert!(graph.dependencies[place].contains(&on));
                        prop_assert!(graph.dependents[on].contains(&place));
                    }
                }
                Err(GraphError::Cycle { path }) => {
                    prop_assert!(!has_order);
                    prop_assert!(path.len() > 1 && path.first() == path.last());
                    for pair in path.windows(2) {
                        let [place, on] = [0, 1].map(|n: usize| pair[n][1..].parse().unwrap());
                        prop_assert!(edges.contains(&(place, on)), "{} -> {}", place, on);
                    }
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
    }
}
