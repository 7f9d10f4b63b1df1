use std::fmt::Write;

use parallax_connect::Runner;
use parallax_core::Escaped;
use serde::Serialize;

use crate::app::{App, Registration};
use crate::args::ConnectorsArgs;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::json;
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

#[derive(Serialize)]
struct ListedStep {
    step_id: String,
    title: String,
    depends_on: Vec<String>,
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
    let id = |&place: &usize| Some(report.steps().get(place)?.step_id.clone());
    let steps = report.steps().iter().map(|step| ListedStep {
        step_id: step.step_id.clone(),
        title: step.title.clone(),
        depends_on: step.dependencies.iter().filter_map(id).collect(),
    });
    Ok(steps.collect())
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
