//! Prints what a sync of this machine emits, and how each step ended.

use std::io::{self, Write};

use parallax_connect::run_connector;
use parallax_connector_host::Host;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = match std::env::args_os().nth(1) {
        Some(root) => Host::at(root)?,
        None => Host::open()?,
    };
    let account = host.machine_id().unwrap_or("a machine without an id");
    let output = run_connector(&host, account, "example", None).await?;

    let mut out = io::stdout().lock();
    for entity in output.entities() {
        writeln!(out, "{entity:?}")?;
    }
    for relationship in output.relationships() {
        writeln!(out, "{relationship:?}")?;
    }
    for step in output.report().steps() {
        let (entities, relationships) = (step.entities, step.relationships);
        write!(out, "{}: {}, ", step.step_id, step.status.as_str())?;
        write!(out, "{entities} entities, {relationships} relationships")?;
        match step.reason() {
            Some(reason) => writeln!(out, ", {reason}")?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}
