use std::path::Path;

use parallax_core::Escaped;
use parallax_store::{Store, StoreError};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::app::App;
use crate::args::CheckArgs;
use crate::config::in_short;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::plan::{Overrides, Plan};
use crate::text::count;

/// `parallax check`: says what `parallax serve` would do, and runs and writes nothing.
pub(crate) async fn run(
    app: &App,
    args: &CheckArgs,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let overrides = Overrides {
        store: args.config.store.clone(),
        listen: None,
        insecure_http: args.config.insecure_http,
    };
    let file = &args.config.file;
    let plan = Plan::make(app, file, &overrides).await?;
    let mut lines = vec![format!("config     {}", Escaped(file.display()))];
    lines.push(format!("listen     http://{}", plan.listen));
    for source in &plan.sources {
        let steps = count(source.steps.len() as u64, "step", "steps");
        let account = Escaped(&source.account_id);
        let every = in_short(source.every);
        lines.push(format!(
            "connector  {}, account {account}: {steps}, every {every}",
            source.connector_id
        ));
    }
    console.print(&(lines.join("\n") + "\n"))?;
    let store = store(&plan.store).await?;
    console.print(&format!("store      {}\n", Escaped(store)))?;
    Ok(Exit::Ok)
}

/// Says what `parallax serve` would find.
async fn store(url: &str) -> Result<String, StoreError> {
    match Store::open_read_only(url).await {
        Ok(store) => {
            let path = store.url().strip_prefix("sqlite:").map(Path::new);
            let paths = path.into_iter().chain(path.and_then(Path::parent));
            for path in paths {
                may_write(path)?;
            }
            Ok(store.url().to_owned())
        }
        Err(StoreError::NotFound { path }) if path == Path::new(":memory:") => {
            Ok(format!("{url}, gone when the process ends"))
        }
        Err(StoreError::NotFound { path }) => {
            if let Some(directory) = path.parent() {
                may_write(directory)?;
            }
            Ok(format!("sqlite:{}, to be created", path.display()))
        }
        Err(error) => Err(error),
    }
}

fn may_write(path: &Path) -> Result<(), StoreError> {
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).map_err(|error| {
        StoreError::Permission {
            path: path.to_owned(),
            source: std::sync::Arc::new(error.into()),
        }
    })
}
