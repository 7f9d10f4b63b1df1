//! Sources that do as the test says.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, fs};

use parallax_connect::{Connector, ConnectorError, Retries, Step, StepContext, entity, step};
use parallax_server::{App, Opened};

/// A name that would be a script if it were not text.
const HOSTILE: &str = "<img src=x onerror=\"document.title='owned'\">";

pub(super) fn register(app: App) -> App {
    let app = app.register("guided", "Waits at each step", || Ok(Opened::new(Guided)));
    app.register("shrinking", "Finds less each time", || {
        Ok(Opened::new(Shrinking(AtomicU32::new(0))))
    })
}

/// Waits until the test says so: by a file in the daemon's directory.
async fn told(word: &str) {
    let file = PathBuf::from(env::var_os("WORDS").unwrap_or_default()).join(word);
    while !file.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fs::remove_file(file).ok();
}

/// A step of each fate, each of which waits for a word.
struct Guided;

impl Connector for Guided {
    fn name(&self) -> &str {
        "guided"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        // Long enough to be seen, whatever the machine does meanwhile.
        let slow = Retries::up_to(3).first_pause(Duration::from_secs(2));
        vec![
            step("users", "List users", users),
            step("groups", "List groups", groups)
                .depends_on(["users"])
                .retries(slow),
            step("keys", "List keys", keys).depends_on(["users"]),
            step("grants", "List grants", async |_| Ok(())).depends_on(["keys"]),
        ]
    }
}

async fn users(ctx: StepContext) -> Result<(), ConnectorError> {
    ctx.emit(entity("guided_user", "ann").display_name("Ann"))?;
    ctx.emit(
        entity("guided_user", "hostile")
            .display_name(HOSTILE)
            .property("note", HOSTILE),
    )?;
    told("users").await;
    ctx.emit(entity("guided_user", "bob").display_name("Bob"))?;
    Ok(())
}

async fn groups(ctx: StepContext) -> Result<(), ConnectorError> {
    told("groups").await;
    static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
    if ATTEMPTS.fetch_add(1, Ordering::Relaxed) == 0 {
        return Err(ConnectorError::retryable("list groups: 503"));
    }
    ctx.emit(entity("guided_group", "all"))?;
    Ok(())
}

async fn keys(_: StepContext) -> Result<(), ConnectorError> {
    told("keys").await;
    Err(ConnectorError::unauthorized("list keys: 403 <b>no</b>"))
}

/// Finds a dozen machines at first and two from then on.
struct Shrinking(AtomicU32);

impl Connector for Shrinking {
    fn name(&self) -> &str {
        "shrinking"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![step("machines", "List machines", move |ctx| async move {
            let machines = match self.0.fetch_add(1, Ordering::Relaxed) {
                0 => 12,
                _ => 2,
            };
            for n in 0..machines {
                ctx.emit(entity("machine", n).display_name(format!("machine-{n}")))?;
            }
            Ok(())
        })]
    }
}
