//! The dashboard in a real browser.
//!
//! This program is the daemon, too, with sources that do as the test says (`serve`), and makes the
//! pictures of the documentation (`pictures DIRECTORY`). What the browser does is in `drive.mjs`.

// A test fails by panicking, also in the helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod guided;
mod made_up;

use std::env;
use std::process::{Command, ExitCode};

use parallax_connector_host::Host;
use parallax_server::{App, Opened};

/// The one test, as the runner of tests knows it.
const TEST: &str = "dashboard_shows_what_happens_in_a_real_browser";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["serve", ..] => app().main(),
        ["pictures", directory] => drive("pictures", directory),
        _ if args.contains(&"--ignored") => ExitCode::SUCCESS,
        _ if args.contains(&"--list") => {
            println!("{TEST}: test");
            ExitCode::SUCCESS
        }
        _ => {
            let directory = tempfile::tempdir().unwrap();
            drive("test", directory.path().to_str().unwrap())
        }
    }
}

fn app() -> App {
    let app = App::new().register("host", "This machine", || {
        Ok(Opened::new(Host::open()?).default_account(Ok("web-1")))
    });
    made_up::register(guided::register(app))
}

/// Lets the browser do a task, if there is one: `cargo xtask setup` finds or installs it, and `ci`
/// names it in `CHROMIUM`, and what drives it in `PLAYWRIGHT`.
fn drive(task: &str, directory: &str) -> ExitCode {
    for tool in ["CHROMIUM", "PLAYWRIGHT"] {
        if env::var_os(tool).is_none() {
            println!("skipped: {tool} is not set; `cargo xtask setup` says what to set it to");
            return ExitCode::SUCCESS;
        }
    }
    let status = Command::new("node")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/dashboard/drive.mjs"
        ))
        .args([task, directory])
        .env("DAEMON", env::current_exe().unwrap())
        .status();
    ExitCode::from(u8::from(!status.unwrap().success()))
}
