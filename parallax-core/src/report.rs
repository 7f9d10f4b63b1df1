use std::time::Duration;

use crate::error::{ConnectorError, ErrorKind};

/// What each step of a run did, in the order of their declaration.
///
/// It travels with the output, so that "not emitted" is never taken for "gone": see
/// [`has_looked_everywhere`](Self::has_looked_everywhere).
#[derive(Clone, Debug, Default)]
pub struct SyncReport {
    steps: Vec<StepReport>,
    /// Of each step.
    scopes: Vec<Scopes>,
}

/// Where the scopes of a step are: a step may have tens of thousands, and each is asked about.
#[derive(Clone, Debug)]
struct Scopes {
    /// Their places, in the order of their names.
    by_name: Vec<usize>,
    /// The first that is not complete.
    open: Option<usize>,
}

impl Scopes {
    fn of(step: &StepReport) -> Self {
        let name = |place: &usize| step.scopes.get(*place).map(|scope| &scope.name);
        let mut by_name: Vec<usize> = (0..step.scopes.len()).collect();
        by_name.sort_unstable_by(|one, other| name(one).cmp(&name(other)));
        Self {
            by_name,
            open: step.scopes.iter().position(|scope| !scope.complete),
        }
    }
}

/// What a step did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StepReport {
    /// The step.
    pub step_id: String,
    /// Its title, for people.
    pub title: String,
    /// The steps it depends on or reads, as places in [`SyncReport::steps`].
    pub dependencies: Vec<usize>,
    /// Whether what it finds comes and goes: many of its records gone at once are no alarm.
    pub ephemeral: bool,
    /// How it ended.
    pub status: StepStatus,
    /// Why it failed, was skipped or was cancelled.
    pub error: Option<ConnectorError>,
    /// What the step said it did not see, outside of scopes: the first few reasons.
    pub incomplete: Vec<String>,
    /// The scopes that it opened, in order of opening.
    pub scopes: Vec<ScopeReport>,
    /// Whether the step said that there are no scopes but those it opened.
    pub all_scopes_listed: bool,
    /// Entities of the accepted attempt, duplicates and rejected ones included.
    pub entities: u64,
    /// Relationships of the accepted attempt, duplicates and rejected ones included.
    pub relationships: u64,
    /// Entities that `emit` rejected.
    pub entities_rejected: u64,
    /// Relationships that `emit` rejected.
    pub relationships_rejected: u64,
    /// How often it was begun: more than once if it was tried again, 0 if it did not run.
    pub attempts: u32,
    /// The pauses between its attempts, together.
    pub waited: Duration,
    /// What it was tried again after, each kind of error once, in the order in which they came.
    pub retries: Vec<StepRetries>,
    /// How long its attempts were held up by a rate limit, together; what waited at the same time
    /// counts once.
    pub throttled: Duration,
    /// Time from the first poll of its first attempt to the end of its last; zero for one that did
    /// not end by itself.
    pub duration: Duration,
}

/// How often a step was tried again after one kind of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepRetries {
    /// The kind of error.
    pub kind: ErrorKind,
    /// How often it was tried again.
    pub count: u32,
    /// The pauses before that, together.
    pub waited: Duration,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StepStatus {
    /// It returned `Ok` and saw everything.
    Completed,
    /// It returned `Ok` and said that it did not see everything, in one scope or at all.
    Incomplete,
    /// It returned an error, panicked or timed out.
    Failed,
    /// It did not run, because a step that it depends on failed or was skipped.
    Skipped,
    /// It was running or waiting when the run was cancelled.
    Cancelled,
    /// It was not among the steps that the run was asked for.
    NotSelected,
}

impl StepStatus {
    /// Returns the name, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::NotSelected => "not_selected",
        }
    }

    /// Tells whether the step returned `Ok`, so that what it emitted counts.
    pub const fn is_ok(self) -> bool {
        matches!(self, Self::Completed | Self::Incomplete)
    }
}

/// A part of what a step looks at, such as a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeReport {
    /// Its name, unique within the step.
    pub name: String,
    /// Whether the step said that it listed the whole scope, and nothing contradicts it.
    pub complete: bool,
    /// What the step said it did not see there: the first few reasons.
    pub incomplete: Vec<String>,
}

impl StepReport {
    /// Makes the report of a step that has not run.
    pub fn new(step_id: impl Into<String>, title: impl Into<String>) -> Self {
        Self {
            step_id: step_id.into(),
            title: title.into(),
            dependencies: Vec::new(),
            ephemeral: false,
            status: StepStatus::Cancelled,
            error: None,
            incomplete: Vec::new(),
            scopes: Vec::new(),
            all_scopes_listed: false,
            entities: 0,
            relationships: 0,
            entities_rejected: 0,
            relationships_rejected: 0,
            attempts: 0,
            waited: Duration::ZERO,
            retries: Vec::new(),
            throttled: Duration::ZERO,
            duration: Duration::ZERO,
        }
    }

    /// Returns the first reason why the step did not see everything, for people.
    pub fn reason(&self) -> Option<String> {
        if self.status == StepStatus::NotSelected {
            return Some("was not selected".to_owned());
        }
        if let Some(error) = &self.error {
            return Some(error.to_string());
        }
        if let Some(reason) = self.incomplete.first() {
            return Some(reason.clone());
        }
        let scope = self.scopes.iter().find(|scope| !scope.complete)?;
        Some(match scope.incomplete.first() {
            Some(reason) => format!("{}: {reason}", scope.name),
            None => format!("{}: was not completed", scope.name),
        })
    }

    /// Returns what the step missed outside of scopes, or in the one that is open and matters, in
    /// words.
    fn missed(&self, open: Option<&ScopeReport>) -> Option<String> {
        let because = |reason: Option<String>| reason.map_or(String::new(), |r| format!(": {r}"));
        let step_id = &self.step_id;
        if self.status == StepStatus::NotSelected {
            return Some(format!("step {step_id} was not selected"));
        }
        if !self.status.is_ok() {
            let status = self.status.as_str();
            return Some(format!("step {step_id} {status}{}", because(self.reason())));
        }
        if let Some(reason) = self.incomplete.first() {
            return Some(format!("step {step_id} was incomplete: {reason}"));
        }
        let open = open?;
        Some(format!(
            "step {step_id} did not complete scope {}{}",
            open.name,
            because(open.incomplete.first().cloned())
        ))
    }

    /// Returns what the steps that depend on it could not see of what it found, in words.
    fn withheld(&self) -> Option<String> {
        let rejected = self.entities_rejected + self.relationships_rejected;
        let step_id = &self.step_id;
        (rejected > 0)
            .then(|| format!("step {step_id} emitted records that were rejected ({rejected})"))
    }
}

impl SyncReport {
    /// Makes a report of steps in the order of their declaration.
    pub fn new(steps: Vec<StepReport>) -> Self {
        let scopes = steps.iter().map(Scopes::of).collect();
        Self { steps, scopes }
    }

    /// Returns the steps in the order of their declaration.
    pub fn steps(&self) -> &[StepReport] {
        &self.steps
    }

    /// Finds a step by its id.
    pub fn step(&self, step_id: &str) -> Option<&StepReport> {
        self.steps.iter().find(|step| step.step_id == step_id)
    }

    /// Tells whether every declared step completed.
    pub fn is_complete(&self) -> bool {
        self.steps
            .iter()
            .all(|step| step.status == StepStatus::Completed)
    }

    /// Tells whether nothing of the run counts: no step returned `Ok`.
    pub fn is_failed(&self) -> bool {
        !self.steps.iter().any(|step| step.status.is_ok())
    }

    /// Tells whether a record that `step_id` once emitted in `scope` must be gone if it did not
    /// emit it again: the rule that earns every delete.
    ///
    /// The step returned `Ok` and missed nothing. It completed the scope; for a record without
    /// scope, every scope that it opened; for a scope it did not open, it said that there are no
    /// others. Every step upstream returned `Ok`, missed nothing, emitted nothing that was rejected,
    /// and completed all of its scopes or the one of the same name. Of a step that is no longer
    /// declared nothing can be known.
    ///
    /// A rejected record keeps its own row, and so does not count against the step itself. But who
    /// reads that step was not given it, and finds nothing of what it would lead to.
    pub fn has_looked_everywhere(&self, step_id: &str, scope: Option<&str>) -> bool {
        self.missed(step_id, scope).is_none()
    }

    /// Returns why [`has_looked_everywhere`](Self::has_looked_everywhere) is false, in words, if
    /// it is.
    pub fn missed(&self, step_id: &str, scope: Option<&str>) -> Option<String> {
        let Some(place) = self.steps.iter().position(|step| step.step_id == step_id) else {
            return Some(format!("step {step_id} is no longer declared"));
        };
        let own = self.steps.get(place).and_then(|step| {
            let Some(name) = scope else {
                return step.missed(self.open_scope(place));
            };
            let found = self.scope(place, name);
            let open = found.filter(|scope| !scope.complete);
            step.missed(open).or_else(|| {
                let known = step.all_scopes_listed || found.is_some();
                (!known).then(|| format!("step {step_id} did not open scope {name}"))
            })
        });
        own.or_else(|| {
            let mut ancestors = self.ancestors(place).into_iter();
            ancestors.find_map(|ancestor| {
                let same = scope.and_then(|name| self.scope(ancestor, name));
                let open = match same {
                    Some(scope) if scope.complete => None,
                    _ => self.open_scope(ancestor),
                };
                let ancestor = self.steps.get(ancestor)?;
                let missed = ancestor.missed(open).or_else(|| ancestor.withheld())?;
                Some(format!("{missed}; step {step_id} depends on it"))
            })
        })
    }

    /// Finds a scope of a step by its name.
    fn scope(&self, step: usize, name: &str) -> Option<&ScopeReport> {
        let scopes = &self.steps.get(step)?.scopes;
        let by_name = &self.scopes.get(step)?.by_name;
        let name_at = |place: &usize| scopes.get(*place).map(|scope| scope.name.as_str());
        let found = by_name.binary_search_by(|place| name_at(place).cmp(&Some(name)));
        scopes.get(*by_name.get(found.ok()?)?)
    }

    /// Returns the first scope of a step that is not complete.
    fn open_scope(&self, step: usize) -> Option<&ScopeReport> {
        self.steps
            .get(step)?
            .scopes
            .get(self.scopes.get(step)?.open?)
    }

    /// Returns the places of the steps that a step depends on, however indirectly.
    fn ancestors(&self, place: usize) -> Vec<usize> {
        let mut seen = vec![false; self.steps.len()];
        let mut todo = vec![place];
        let mut ancestors = Vec::new();
        while let Some(step) = todo.pop().and_then(|place| self.steps.get(place)) {
            for &dependency in &step.dependencies {
                if let Some(seen) = seen.get_mut(dependency)
                    && !std::mem::replace(seen, true)
                {
                    ancestors.push(dependency);
                    todo.push(dependency);
                }
            }
        }
        ancestors
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn step(step_id: &str, dependencies: &[usize]) -> StepReport {
        let mut step = StepReport::new(step_id, "");
        step.status = StepStatus::Completed;
        step.dependencies = dependencies.to_vec();
        step
    }

    /// Gives a step scopes: `+eu` is complete, `-eu` is not, `.` says that these are all.
    fn scoped(mut step: StepReport, scopes: &str) -> StepReport {
        for word in scopes.split(' ') {
            let (sign, name) = word.split_at(1);
            match sign {
                "." => step.all_scopes_listed = true,
                _ => step.scopes.push(ScopeReport {
                    name: name.to_owned(),
                    complete: sign == "+",
                    incomplete: Vec::new(),
                }),
            }
        }
        step
    }

    fn with_status(mut step: StepReport, status: StepStatus) -> StepReport {
        step.status = status;
        step
    }

    fn incomplete(step: StepReport) -> StepReport {
        let mut step = with_status(step, StepStatus::Incomplete);
        step.incomplete.push("page 2 timed out".to_owned());
        step
    }

    fn rejected(mut step: StepReport) -> StepReport {
        step.entities_rejected = 1;
        step
    }

    /// Who has looked everywhere: for records of the last step without scope, in `eu`, in `us`
    /// and in `asia`.
    fn looked(steps: Vec<StepReport>) -> String {
        let report = SyncReport::new(steps);
        let last = &report.steps().last().unwrap().step_id;
        let found: Vec<_> = [None, Some("eu"), Some("us"), Some("asia")]
            .into_iter()
            .filter(|scope| report.has_looked_everywhere(last, *scope))
            .map(|scope| scope.unwrap_or("unscoped"))
            .collect();
        match found.is_empty() {
            true => "none".to_owned(),
            false => found.join(" "),
        }
    }

    #[test]
    fn every_delete_is_earned() {
        use StepStatus::{Cancelled, Failed, Incomplete, NotSelected, Skipped};
        let hosts = || step("hosts", &[]);
        let regions = || step("regions", &[]);
        let hosts_of_regions = || step("hosts", &[0]);
        let cases = [
            ("a step without scopes", vec![hosts()]),
            ("one that lists all of none", vec![scoped(hosts(), ".")]),
            ("a failed one", vec![with_status(hosts(), Failed)]),
            (
                "a skipped one",
                vec![with_status(scoped(hosts(), "+eu ."), Skipped)],
            ),
            ("a cancelled one", vec![with_status(hosts(), Cancelled)]),
            (
                "one that was not selected",
                vec![with_status(scoped(hosts(), "+eu ."), NotSelected)],
            ),
            ("an incomplete one", vec![incomplete(hosts())]),
            (
                "an incomplete one with scopes",
                vec![incomplete(scoped(hosts(), "+eu ."))],
            ),
            ("one with a rejected record", vec![rejected(hosts())]),
            ("one scope complete", vec![scoped(hosts(), "+eu")]),
            (
                "one complete, one not",
                vec![with_status(scoped(hosts(), "+eu -us"), Incomplete)],
            ),
            (
                "and no others",
                vec![with_status(scoped(hosts(), "+eu -us ."), Incomplete)],
            ),
            (
                "all complete, no others",
                vec![scoped(hosts(), "+eu +us .")],
            ),
            ("upstream complete", vec![regions(), hosts_of_regions()]),
            (
                "upstream failed",
                vec![with_status(regions(), Failed), hosts_of_regions()],
            ),
            (
                "upstream incomplete",
                vec![incomplete(regions()), scoped(hosts_of_regions(), "+eu .")],
            ),
            (
                "upstream with a rejected record",
                vec![
                    rejected(scoped(regions(), "+eu")),
                    scoped(hosts_of_regions(), "+eu ."),
                ],
            ),
            (
                "upstream has all its scopes",
                vec![
                    scoped(regions(), "+eu +us"),
                    scoped(hosts_of_regions(), "+eu ."),
                ],
            ),
            (
                "upstream has this scope",
                vec![
                    with_status(scoped(regions(), "+eu -us ."), Incomplete),
                    scoped(hosts_of_regions(), "+eu +us ."),
                ],
            ),
            (
                "upstream has another scope",
                vec![
                    with_status(scoped(regions(), "+us -asia"), Incomplete),
                    scoped(hosts_of_regions(), "+eu ."),
                ],
            ),
            (
                "far upstream failed",
                vec![
                    with_status(regions(), Failed),
                    step("zones", &[0]),
                    step("hosts", &[1]),
                ],
            ),
            (
                "far upstream with a rejected record",
                vec![
                    rejected(regions()),
                    step("zones", &[0]),
                    step("hosts", &[1]),
                ],
            ),
            (
                "upstream not selected",
                vec![with_status(regions(), NotSelected), hosts_of_regions()],
            ),
            (
                "a sibling not selected",
                vec![with_status(regions(), NotSelected), hosts()],
            ),
            (
                "a sibling failed",
                vec![with_status(regions(), Failed), hosts()],
            ),
            (
                "a sibling with a rejected record",
                vec![rejected(regions()), hosts()],
            ),
            (
                "downstream failed",
                vec![with_status(step("disks", &[1]), Failed), hosts()],
            ),
        ];
        let lines = cases.map(|(what, steps)| format!("{what}: {}", looked(steps)));
        insta::assert_snapshot!(lines.join("\n"), @"
        a step without scopes: unscoped
        one that lists all of none: unscoped eu us asia
        a failed one: none
        a skipped one: none
        a cancelled one: none
        one that was not selected: none
        an incomplete one: none
        an incomplete one with scopes: none
        one with a rejected record: unscoped
        one scope complete: unscoped eu
        one complete, one not: eu
        and no others: eu asia
        all complete, no others: unscoped eu us asia
        upstream complete: unscoped
        upstream failed: none
        upstream incomplete: none
        upstream with a rejected record: none
        upstream has all its scopes: unscoped eu us asia
        upstream has this scope: eu
        upstream has another scope: us
        far upstream failed: none
        far upstream with a rejected record: none
        upstream not selected: none
        a sibling not selected: unscoped
        a sibling failed: unscoped
        a sibling with a rejected record: unscoped
        downstream failed: unscoped
        ");
    }

    #[test]
    fn it_is_told_which_step_had_a_record_rejected() {
        let report = SyncReport::new(vec![rejected(step("users", &[])), step("groups", &[0])]);
        assert_eq!(
            report.missed("groups", None).unwrap(),
            "step users emitted records that were rejected (1); step groups depends on it"
        );
    }

    #[test]
    fn of_a_step_that_is_not_declared_nothing_is_known() {
        let report = SyncReport::new(vec![step("users", &[])]);
        assert!(!report.has_looked_everywhere("groups", None));
        assert!(!SyncReport::default().has_looked_everywhere("users", None));
    }

    /// The rule again, from the other side: what speaks against a delete.
    fn objection(steps: &[StepReport], place: usize, scope: Option<&str>) -> bool {
        // Who is upstream, by walking every edge as often as there are steps.
        let mut upstream = vec![false; steps.len()];
        for _ in steps {
            for (from, step) in steps.iter().enumerate() {
                if from == place || upstream[from] {
                    step.dependencies.iter().for_each(|&on| upstream[on] = true);
                }
            }
        }
        let named = |step: &StepReport, complete| {
            let mut scopes = step.scopes.iter();
            scopes.any(|s| Some(s.name.as_str()) == scope && s.complete == complete)
        };
        let some_open = |step: &StepReport| step.scopes.iter().any(|s| !s.complete);
        let own = &steps[place];
        let involved = || (0..steps.len()).filter(|&p| p == place || upstream[p]);
        involved().any(|p| !steps[p].status.is_ok())
            || involved().any(|p| !steps[p].incomplete.is_empty())
            || (scope.is_none() && some_open(own))
            || named(own, false)
            || (scope.is_some() && !named(own, true) && !own.all_scopes_listed)
            || (0..steps.len())
                .filter(|&p| upstream[p])
                .any(|p| some_open(&steps[p]) && !named(&steps[p], true))
            || (0..steps.len())
                .filter(|&p| upstream[p])
                .any(|p| steps[p].entities_rejected > 0 || steps[p].relationships_rejected > 0)
    }

    fn any_step() -> impl Strategy<Value = StepReport> {
        let status = prop_oneof![
            6 => Just(StepStatus::Completed),
            1 => select(vec![
                StepStatus::Incomplete,
                StepStatus::Failed,
                StepStatus::Skipped,
                StepStatus::Cancelled,
                StepStatus::NotSelected,
            ]),
        ];
        let names = select(vec!["eu", "us", "asia", "africa"]);
        let scopes = prop::collection::btree_map(names, any::<bool>(), 0..4);
        let scopes = scopes.prop_map(Vec::from_iter).prop_shuffle();
        let rejected = prop_oneof![8 => Just([0, 0]), 1 => Just([1, 0]), 1 => Just([0, 1])];
        (
            status,
            prop::bool::weighted(0.1),
            scopes,
            any::<bool>(),
            rejected,
        )
            .prop_map(|(status, missed, scopes, all, rejected)| {
                let mut report = with_status(step("", &[]), status);
                [report.entities_rejected, report.relationships_rejected] = rejected;
                if missed {
                    report = incomplete(report);
                }
                for (name, complete) in scopes {
                    report = scoped(
                        report,
                        &format!("{}{name}", ["-", "+"][usize::from(complete)]),
                    );
                }
                report.all_scopes_listed = all;
                report
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_delete_is_earned_if_nothing_speaks_against_it(
            mut steps in prop::collection::vec(any_step(), 1..6),
            edges in prop::collection::vec((0..6_usize, 0..6_usize), 0..8),
        ) {
            let count = steps.len();
            for (place, step) in steps.iter_mut().enumerate() {
                step.step_id = format!("s{place}");
            }
            for (from, to) in edges {
                let (from, to) = (from % count, to % count);
                if from != to {
                    steps[from.max(to)].dependencies.push(from.min(to));
                }
            }
            let report = SyncReport::new(steps.clone());
            for (place, step) in steps.iter().enumerate() {
                for scope in [None, Some("eu"), Some("us"), Some("asia")] {
                    prop_assert_eq!(
                        report.has_looked_everywhere(&step.step_id, scope),
                        !objection(&steps, place, scope),
                        "step {}, scope {:?}", place, scope
                    );
                }
            }
        }
    }

    #[test]
    fn a_report_says_how_the_run_went() {
        use StepStatus::{Failed, Incomplete, NotSelected, Skipped};
        let report = |statuses: &[StepStatus]| {
            let steps = statuses
                .iter()
                .map(|&status| with_status(step("s", &[]), status));
            SyncReport::new(steps.collect())
        };
        let went = |statuses: &[StepStatus]| {
            (report(statuses).is_complete(), report(statuses).is_failed())
        };
        assert_eq!(went(&[StepStatus::Completed]), (true, false));
        assert_eq!(went(&[StepStatus::Completed, Incomplete]), (false, false));
        assert_eq!(went(&[Incomplete, Failed]), (false, false));
        assert_eq!(went(&[Failed, Skipped]), (false, true));
        assert_eq!(went(&[StepStatus::Completed, NotSelected]), (false, false));
        assert_eq!(went(&[Failed, NotSelected]), (false, true));
    }

    #[test]
    fn the_first_reason_is_told() {
        let reason = |step: StepReport| step.reason();
        assert_eq!(reason(step("s", &[])), None);
        assert_eq!(reason(scoped(step("s", &[]), "+eu")), None);
        let open = scoped(step("s", &[]), "+eu -us");
        assert_eq!(reason(open.clone()).unwrap(), "us: was not completed");
        let mut timed_out = open;
        timed_out.scopes[1].incomplete.push("timed out".to_owned());
        assert_eq!(reason(timed_out.clone()).unwrap(), "us: timed out");
        assert_eq!(reason(incomplete(timed_out)).unwrap(), "page 2 timed out");
        let mut failed = step("s", &[]);
        failed.error = Some(ConnectorError::fatal("no"));
        assert_eq!(reason(failed).unwrap(), "no");
        let passed_over = with_status(step("s", &[]), StepStatus::NotSelected);
        assert_eq!(reason(passed_over).unwrap(), "was not selected");
    }
}
