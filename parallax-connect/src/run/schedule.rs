use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parallax_core::{ConnectorError, ErrorKind, StepReport, StepRetries, StepStatus, SyncReport};

use crate::graph::Graph;
use crate::prior::Sealed;
use crate::step::Step;

/// Which steps may start, and what has become of the others.
pub(super) struct Schedule<'a> {
    graph: &'a Graph,
    reports: Vec<StepReport>,
    states: Vec<State>,
    /// For each step, how many of those it waits for have not completed yet.
    waits: Vec<usize>,
    ready: VecDeque<usize>,
    /// What completed steps emitted, until the last step that reads it has ended.
    sealed: Vec<Option<Arc<Sealed>>>,
    readers: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// For other steps, for a free place or for its next attempt.
    Waiting,
    Running,
    /// Or never to be run.
    Ended,
}

impl<'a> Schedule<'a> {
    pub(super) fn new(steps: &[Step<'_>], graph: &'a Graph, selected: &[bool]) -> Self {
        let waits: Vec<usize> = graph.dependencies.iter().map(Vec::len).collect();
        let mut readers = vec![0; steps.len()];
        let is_selected = selected.iter().zip(&graph.reads);
        for (_, reads) in is_selected.filter(|(selected, _)| **selected) {
            for &read in reads {
                if let Some(readers) = readers.get_mut(read) {
                    *readers += 1;
                }
            }
        }
        let reports = steps.iter().zip(&graph.dependencies).zip(selected);
        let reports = reports.map(|((step, dependencies), selected)| {
            let mut report = StepReport::new(&step.id, &step.title);
            report.dependencies.clone_from(dependencies);
            report.ephemeral = step.ephemeral;
            if !selected {
                report.status = StepStatus::NotSelected;
            }
            report
        });
        let states = selected.iter().map(|selected| match selected {
            true => State::Waiting,
            false => State::Ended,
        });
        let ready = waits.iter().zip(selected).enumerate();
        Self {
            graph,
            reports: reports.collect(),
            states: states.collect(),
            ready: ready
                .filter(|(_, (waits, selected))| **waits == 0 && **selected)
                .map(|(place, _)| place)
                .collect(),
            waits,
            sealed: vec![None; steps.len()],
            readers,
        }
    }

    /// Returns what is known of each step, in the order of their declaration.
    pub(super) fn reports(&self) -> &[StepReport] {
        &self.reports
    }

    /// Takes the next step that may start for the first time.
    pub(super) fn next_ready(&mut self) -> Option<usize> {
        self.ready.pop_front()
    }

    /// Notes that an attempt of a step begins.
    pub(super) fn start(&mut self, place: usize) {
        self.set(place, State::Running);
    }

    pub(super) fn prior_of(&self, place: usize) -> Arc<[Arc<Sealed>]> {
        let reads = self.graph.reads.get(place);
        let reads = reads.filter(|reads| !reads.is_empty());
        // Most steps read nothing, for which there is one value that is shared.
        let Some(reads) = reads else {
            return Arc::default();
        };
        reads
            .iter()
            .filter_map(|&read| self.sealed.get(read).cloned().flatten())
            .collect()
    }

    pub(super) fn is_read(&self, place: usize) -> bool {
        self.readers.get(place).is_some_and(|&readers| readers > 0)
    }

    /// Notes that a step pauses before its next attempt, after an error of that kind.
    pub(super) fn pause(&mut self, place: usize, kind: ErrorKind, pause: Duration) {
        self.set(place, State::Waiting);
        if let Some(report) = self.reports.get_mut(place) {
            report.waited = report.waited.saturating_add(pause);
            match report.retries.iter_mut().find(|of| of.kind == kind) {
                Some(of) => {
                    of.count = of.count.saturating_add(1);
                    of.waited = of.waited.saturating_add(pause);
                }
                None => report.retries.push(StepRetries {
                    kind,
                    count: 1,
                    waited: pause,
                }),
            }
        }
    }

    /// Notes the end of a step that ran. Returns the steps that are skipped because of it.
    pub(super) fn end(
        &mut self,
        place: usize,
        report: Box<StepReport>,
        sealed: Option<Arc<Sealed>>,
    ) -> Vec<&StepReport> {
        let ok = report.status.is_ok();
        // Those that would have read it may have been skipped meanwhile.
        if self.is_read(place)
            && let Some(slot) = self.sealed.get_mut(place)
        {
            *slot = sealed;
        }
        self.note(place, *report);
        let mut skipped = Vec::new();
        if ok {
            for &dependent in self.graph.dependents.get(place).into_iter().flatten() {
                if let Some(waits) = self.waits.get_mut(dependent) {
                    *waits -= 1;
                    if *waits == 0 && self.is(dependent, State::Waiting) {
                        self.ready.push_back(dependent);
                    }
                }
            }
        } else {
            let mut failed = VecDeque::from([place]);
            while let Some(cause) = failed.pop_front() {
                let error = ConnectorError::DependencyFailed {
                    step_id: self.step_id(cause),
                };
                for &dependent in self.graph.dependents.get(cause).into_iter().flatten() {
                    if self.is(dependent, State::Waiting) {
                        self.note_not_run(dependent, StepStatus::Skipped, &error);
                        skipped.push(dependent);
                        failed.push_back(dependent);
                    }
                }
            }
        }
        skipped
            .into_iter()
            .filter_map(|place| self.reports.get(place))
            .collect()
    }

    /// Notes that every step which does not run, and has not ended, is cancelled. Returns those.
    pub(super) fn cancel_what_waits(&mut self, attempts: &[AtomicU32]) -> Vec<&StepReport> {
        self.ready.clear();
        self.cancel(attempts, |state| state == State::Waiting)
    }

    /// Notes that every step which has not ended is cancelled, and returns those.
    pub(super) fn cancel_the_rest(&mut self, attempts: &[AtomicU32]) -> Vec<&StepReport> {
        self.cancel(attempts, |state| state != State::Ended)
    }

    pub(super) fn into_report(self) -> SyncReport {
        SyncReport::new(self.reports)
    }

    fn cancel(&mut self, attempts: &[AtomicU32], which: fn(State) -> bool) -> Vec<&StepReport> {
        let states = self.states.iter().enumerate();
        let places: Vec<usize> = states
            .filter(|(_, state)| which(**state))
            .map(|(place, _)| place)
            .collect();
        for &place in &places {
            self.note_not_run(place, StepStatus::Cancelled, &ConnectorError::Cancelled);
            if let (Some(report), Some(attempts)) =
                (self.reports.get_mut(place), attempts.get(place))
            {
                report.attempts = attempts.load(Ordering::Relaxed);
            }
        }
        places
            .into_iter()
            .filter_map(|place| self.reports.get(place))
            .collect()
    }

    fn note_not_run(&mut self, place: usize, status: StepStatus, error: &ConnectorError) {
        let mut report = StepReport::new("", "");
        report.status = status;
        report.error = Some(error.clone());
        self.note(place, report);
    }

    /// Notes how a step ended, under the names that it was declared with.
    fn note(&mut self, place: usize, mut report: StepReport) {
        if let Some(slot) = self.reports.get_mut(place) {
            report.step_id = std::mem::take(&mut slot.step_id);
            report.title = std::mem::take(&mut slot.title);
            report.dependencies = std::mem::take(&mut slot.dependencies);
            report.ephemeral = slot.ephemeral;
            report.waited = slot.waited;
            report.retries = std::mem::take(&mut slot.retries);
            *slot = report;
        }
        self.set(place, State::Ended);
        for &read in self.graph.reads.get(place).into_iter().flatten() {
            if let (Some(readers), Some(sealed)) =
                (self.readers.get_mut(read), self.sealed.get_mut(read))
            {
                *readers -= 1;
                if *readers == 0 {
                    *sealed = None;
                }
            }
        }
    }

    fn step_id(&self, place: usize) -> String {
        let step = self.reports.get(place);
        step.map(|step| step.step_id.clone()).unwrap_or_default()
    }

    fn is(&self, place: usize, state: State) -> bool {
        self.states.get(place) == Some(&state)
    }

    fn set(&mut self, place: usize, state: State) {
        if let Some(slot) = self.states.get_mut(place) {
            *slot = state;
        }
    }
}
