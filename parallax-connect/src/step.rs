use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parallax_core::ConnectorError;

use crate::context::StepContext;
use crate::retries::Retries;

/// A part of a connector that runs as a unit: it completes, or nothing it emitted counts.
#[must_use = "a step runs only if it is among the connector's steps"]
pub struct Step<'a> {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) ephemeral: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: Option<Retries>,
    pub(crate) run: Box<dyn RunStep + 'a>,
}

/// What a step does.
///
/// A trait of our own and not `Fn(StepContext) -> BoxFuture<'a, _>`, which would tie `Step<'a>` to
/// exactly `'a`: a `Step<'static>` could not stand among the steps that borrow their connector.
pub(crate) trait RunStep: Send + Sync {
    fn run(&self, ctx: StepContext) -> BoxFuture<'_, Result<(), ConnectorError>>;
}

/// A function that runs a step; `Fut` is what it returns.
struct RunFn<F, Fut>(F, PhantomData<fn() -> Fut>);

impl<F, Fut> RunStep for RunFn<F, Fut>
where
    F: Fn(StepContext) -> Fut + Send + Sync,
    Fut: Future<Output = Result<(), ConnectorError>> + Send,
{
    fn run(&self, ctx: StepContext) -> BoxFuture<'_, Result<(), ConnectorError>> {
        (self.0)(ctx).boxed()
    }
}

pub(crate) struct Dependency {
    pub(crate) step_id: String,
    pub(crate) reads: bool,
}

/// Makes a step of an id (`[a-z0-9_.-]{1,64}`, unique in the connector), a title for people, and
/// what it does.
///
/// The function may be called more than once in a run: each call is an attempt. It is a method that
/// is given the context, or a closure around an async block; an async closure that captures
/// something is not an `Fn`, and does not compile here.
///
/// ```
/// # use parallax_connect::{Connector, ConnectorError, Step, StepContext, entity, step};
/// # struct Team { members: Vec<String> }
/// # impl Connector for Team {
/// #     fn name(&self) -> &str { "team" }
/// fn steps(&self) -> Vec<Step<'_>> {
///     vec![
///         step("users", "Collect users", |ctx| self.users(ctx)),
///         step("teams", "Collect teams", move |ctx| async move {
///             let size = self.members.len() as u64;
///             ctx.emit(entity("team", "all").property("size", size))?;
///             Ok(())
///         }),
///     ]
/// }
/// # }
/// # impl Team {
/// #     async fn users(&self, _: StepContext) -> Result<(), ConnectorError> { Ok(()) }
/// # }
/// ```
pub fn step<'a, F, Fut>(id: impl Into<String>, title: impl Into<String>, run: F) -> Step<'a>
where
    F: Fn(StepContext) -> Fut + Send + Sync + 'a,
    Fut: Future<Output = Result<(), ConnectorError>> + Send + 'a,
{
    Step {
        id: id.into(),
        title: title.into(),
        dependencies: Vec::new(),
        ephemeral: false,
        timeout: None,
        retries: None,
        run: Box::new(RunFn(run, PhantomData)),
    }
}

impl Step<'_> {
    /// Starts the step only after these have returned `Ok`. If one does not, this one is skipped.
    pub fn depends_on<S: Into<String>>(self, steps: impl IntoIterator<Item = S>) -> Self {
        self.after(steps, false)
    }

    /// As [`depends_on`](Self::depends_on), and gives the step their records:
    /// [`StepContext::prior`].
    pub fn reads<S: Into<String>>(self, steps: impl IntoIterator<Item = S>) -> Self {
        self.after(steps, true)
    }

    /// Says that what the step finds comes and goes, as processes and sockets do: however many of
    /// its records are gone at once, their deletes are not held for somebody's word.
    pub fn ephemeral(mut self) -> Self {
        self.ephemeral = true;
        self
    }

    /// Sets how long an attempt may take, whatever the [runner](crate::Runner::timeout) says.
    ///
    /// It counts from the attempt's first poll, and ends it at an await point:
    /// [`ConnectorError::TimedOut`], after which the step is tried again like after any error that
    /// may not come again. `Duration::MAX` is no timeout.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets how often the step is tried again, whatever the [runner](crate::Runner::retries) says.
    ///
    /// Nothing of a failed attempt counts: neither what it emitted nor what it said it saw or
    /// missed.
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = Some(retries);
        self
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
