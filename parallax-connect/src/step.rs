use std::fmt;

use futures::FutureExt;
use futures::future::BoxFuture;
use parallax_core::ConnectorError;

use crate::context::StepContext;

/// A part of a connector that runs as a unit: it completes, or nothing it emitted counts.
pub struct Step<'a> {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) run: Box<RunStep<'a>>,
}

type RunStep<'a> =
    dyn Fn(StepContext) -> BoxFuture<'a, Result<(), ConnectorError>> + Send + Sync + 'a;

pub(crate) struct Dependency {
    pub(crate) step_id: String,
    pub(crate) reads: bool,
}

/// Makes a step of an id (`[a-z0-9_.-]{1,64}`, unique in the connector), a title for people, and
/// what it does.
///
/// The function may be called more than once in a run: each call is an attempt.
pub fn step<'a, F, Fut>(id: impl Into<String>, title: impl Into<String>, run: F) -> Step<'a>
where
    F: Fn(StepContext) -> Fut + Send + Sync + 'a,
    Fut: Future<Output = Result<(), ConnectorError>> + Send + 'a,
{
    Step {
        id: id.into(),
        title: title.into(),
        dependencies: Vec::new(),
        run: Box::new(move |ctx| run(ctx).boxed()),
    }
}

impl Step<'_> {
    /// Starts the step only after these have completed. If one does not, this one is skipped.
    #[must_use]
    pub fn depends_on<S: Into<String>>(self, steps: impl IntoIterator<Item = S>) -> Self {
        self.after(steps, false)
    }

    /// As [`depends_on`](Self::depends_on), and gives the step their records:
    /// [`StepContext::prior`].
    #[must_use]
    pub fn reads<S: Into<String>>(self, steps: impl IntoIterator<Item = S>) -> Self {
        self.after(steps, true)
    }

    /// Returns the id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the title.
    pub fn title(&self) -> &str {
        &self.title
    }

    fn after<S: Into<String>>(mut self, steps: impl IntoIterator<Item = S>, reads: bool) -> Self {
        let steps = steps.into_iter().map(|step_id| Dependency {
            step_id: step_id.into(),
            reads,
        });
        self.dependencies.extend(steps);
        self
    }
}

impl fmt::Debug for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dependencies: Vec<_> = self.dependencies.iter().map(|d| &d.step_id).collect();
        f.debug_struct("Step")
            .field("id", &self.id)
            .field("title", &self.title)
            .field("dependencies", &dependencies)
            .finish_non_exhaustive()
    }
}
