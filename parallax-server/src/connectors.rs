use std::fmt::Write;

use parallax_connect::{Runner, SyncReport};
use parallax_core::Escaped;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::{App, Registration};
use crate::args::ConnectorsArgs;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::json;
use crate::plan::Source;
use crate::text::{FAINT, ODD, paint};

/// `parallax connectors`: lists the connectors and their steps.
pub(crate) async fn run(
    app: &App,
    args: &ConnectorsArgs,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let mut listed = Vec::new();
    for registration in app.registrations() {
        listed.push(describe(registration).await);
    }
    let text = if args.json {
        json::line(&listed)
    } else {
        listed
            .iter()
            .map(Listed::as_text)
            .collect::<Vec<_>>()
            .join("\n")
    };
    console.print(&text)?;
    if listed.is_empty() && !args.json {
        console.complain("no connectors\n");
    }
    Ok(Exit::Ok)
}

#[derive(Serialize)]
struct Listed<'a> {
    kind: &'a str,
    about: &'a str,
    /// The steps, if the connector can be opened and run.
    steps: Option<Vec<ListedStep>>,
    /// Why not.
    error: Option<String>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ConnectorStep)]
pub(crate) struct ListedStep {
    pub(crate) step_id: String,
    title: String,
    /// The steps that come before it.
    pub(crate) depends_on: Vec<String>,
}

/// A connector of the configuration.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Connector)]
pub(crate) struct Configured {
    pub(crate) connector_id: String,
    /// How it was registered.
    kind: String,
    version: String,
    /// Its steps, each after those that it depends on.
    steps: Vec<ListedStep>,
}

impl Configured {
    pub(crate) fn new(source: &Source) -> Self {
        Self {
            connector_id: source.connector_id.clone(),
            kind: source.kind.clone(),
            version: source.connector.version().to_owned(),
            steps: source.steps.clone(),
        }
    }
}

async fn describe(registration: &Registration) -> Listed<'_> {
    let steps = steps_of(registration);
    Listed {
        kind: &registration.kind,
        about: &registration.about,
        error: steps.as_ref().err().map(Failure::to_string),
        steps: steps.ok(),
    }
}

fn steps_of(registration: &Registration) -> Result<Vec<ListedStep>, Failure> {
    let opened = registration.open()?;
    // The steps are those of the connector, whichever account is read.
    let report = Runner::new(&opened.connector)
        .outline("-", "-")
        .map_err(Failure::Run)?;
    Ok(listed_steps(&report))
}

/// Returns the steps that a run would have.
pub(crate) fn listed_steps(report: &SyncReport) -> Vec<ListedStep> {
    let id = |&place: &usize| Some(report.steps().get(place)?.step_id.clone());
    let steps = report.steps().iter().map(|step| ListedStep {
        step_id: step.step_id.clone(),
        title: step.title.clone(),
        depends_on: step.dependencies.iter().filter_map(id).collect(),
    });
    steps.collect()
}

impl Listed<'_> {
    fn as_text(&self) -> String {
        let mut text = format!("{}  {}\n", self.kind, Escaped(self.about));
        if let Some(error) = &self.error {
            writeln!(text, "  {}", paint(ODD, Escaped(error))).ok();
        }
        let steps = self.steps.as_deref().unwrap_or_default();
        let ids = steps
            .iter()
            .map(|step| step.step_id.len())
            .max()
            .unwrap_or(0);
        for ListedStep {
            step_id,
            title,
            depends_on,
        } in steps
        {
            let after = match depends_on.as_slice() {
                [] => String::new(),
                after => paint(FAINT, format!(", after {}", after.join(", "))),
            };
            writeln!(text, "  {step_id:<ids$}  {}{after}", Escaped(title)).ok();
        }
        text
    }
}
