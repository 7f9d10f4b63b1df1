use std::collections::HashMap;

use parallax_core::{escape, is_identifier};

use crate::step::Step;

/// Why the steps of a connector cannot be run. Nothing ran, and no event was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The connector has no steps.
    #[error("the connector has no steps")]
    Empty,
    /// A step's id is not `[a-z0-9_.-]{1,64}`.
    #[error("step id {step_id:?} is not of the form [a-z0-9_.-]{{1,64}}")]
    InvalidId {
        /// The id.
        step_id: String,
    },
    /// Two steps have one id.
    #[error("two steps have the id {step_id}")]
    DuplicateId {
        /// The id.
        step_id: String,
    },
    /// A step depends on one that is not there.
    #[error("step {step_id} depends on {dependency}, which is not a step{}", nearest(.known))]
    UnknownDependency {
        /// The step.
        step_id: String,
        /// What it depends on.
        dependency: String,
        /// The steps there are.
        known: Vec<String>,
    },
    /// Steps wait for each other.
    #[error("steps depend on each other: {}", path.join(" -> "))]
    Cycle {
        /// The steps of the cycle, each depending on the next; the first is named again at the
        /// end.
        path: Vec<String>,
    },
}

fn nearest(known: &[String]) -> String {
    format!(" (steps are: {})", known.join(", "))
}

/// The steps' dependencies by place, checked: every edge leads to a step, and no path to itself.
#[derive(Debug)]
pub(crate) struct Graph {
    /// For each step, those it waits for, each once.
    pub(crate) dependencies: Vec<Vec<usize>>,
    /// For each step, those whose records it reads.
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
                let step_id = escape(&step.id).chars().take(80).collect();
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
                        dependency: escape(&dependency.step_id).chars().take(80).collect(),
                        known: steps.iter().map(|step| step.id.clone()).collect(),
                    });
                };
                push_once(&mut graph.dependencies, place, on);
                push_once(&mut graph.dependents, on, place);
                if dependency.reads {
                    push_once(&mut graph.reads, place, on);
                }
            }
        }
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
        let mut path = vec![(0..waits.len()).find(stuck)?];
        loop {
            // A stuck step waits for a stuck step, so this walk meets itself.
            let next = *self
                .dependencies
                .get(*path.last()?)?
                .iter()
                .find(|p| stuck(p))?;
            let met = path.iter().position(|&place| place == next);
            path.push(next);
            if let Some(met) = met {
                return Some(path.split_off(met));
            }
        }
    }
}

fn push_once(lists: &mut [Vec<usize>], place: usize, value: usize) {
    if let Some(list) = lists.get_mut(place)
        && !list.contains(&value)
    {
        list.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::step;

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
        assert_eq!(graph(&[]).unwrap_err(), GraphError::Empty);
        insta::assert_snapshot!(
            message(&[("a", &["c"]), ("b", &["a"]), ("c", &["b"]), ("d", &["a"])]),
            @"steps depend on each other: a -> c -> b -> a"
        );
        insta::assert_snapshot!(message(&[("a", &["a"])]), @"steps depend on each other: a -> a");
        insta::assert_snapshot!(
            message(&[("users", &[]), ("groups", &["user"])]),
            @"step groups depends on user, which is not a step (steps are: users, groups)"
        );
        insta::assert_snapshot!(message(&[("a", &[]), ("a", &[])]), @"two steps have the id a");
        insta::assert_snapshot!(
            message(&[("A\n", &[])]),
            @r#"step id "A\\n" is not of the form [a-z0-9_.-]{1,64}"#
        );
    }

    #[test]
    fn a_cycle_is_found_behind_a_long_chain() {
        let ids: Vec<String> = (0..10_000).map(|n| format!("s{n}")).collect();
        let mut steps: Vec<_> = ids
            .iter()
            .map(|id| step(id, id, async |_| Ok(())))
            .collect();
        for place in 1..steps.len() {
            let earlier = ids[place - 1].clone();
            steps[place].dependencies.push(crate::step::Dependency {
                step_id: earlier,
                reads: false,
            });
        }
        assert!(Graph::try_new(&steps).is_ok());
        let last = ids[9_999].clone();
        steps[9_990].dependencies.push(crate::step::Dependency {
            step_id: last,
            reads: false,
        });
        let GraphError::Cycle { path } = Graph::try_new(&steps).unwrap_err() else {
            panic!()
        };
        assert_eq!(path.len(), 11);
        assert_eq!(path.first(), path.last());
    }
}
