//! What the tests share: a directory, and the binary run in it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use parallax_connect::{Connector, Step, entity, step};
use parallax_server::{App, Opened};
use serde_json::Value;

pub(crate) fn parallax(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parallax"));
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command.env_remove("PARALLAX_STORE").env_remove("RUST_LOG");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OTEL_") || name == "TRACEPARENT" {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command line and returns its exit code, standard output and standard error.
pub(crate) fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = parallax(dir, args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Runs a sync of this machine and returns its exit code and object. The account is given, because
/// not every machine has an id.
pub(crate) fn sync_json(dir: &Path, args: &[&str]) -> (i32, Value) {
    let all = [&["sync", "host", "--json", "--account", "here"], args].concat();
    let (code, stdout, _) = run(dir, &all);
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    (code, serde_json::from_str(&stdout).unwrap())
}

/// A connector that is taken for the host's, and that finds so many users.
struct Users(u32);

impl Connector for Users {
    fn name(&self) -> &str {
        "host"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![step("users", "Collect users", async |ctx| {
            for n in 0..self.0 {
                ctx.emit(entity("host_user", format!("user-{n}")))?;
            }
            Ok(())
        })]
    }
}

/// Syncs so many users in the place of this machine's, and returns the exit code.
pub(crate) fn find_users(dir: &Path, users: u32) -> u8 {
    let store = format!("sqlite:{}", dir.join("parallax.db").display());
    let app = App::new().register("host", "Users", move || {
        Ok(Opened::new(Users(users)).default_account(Ok("here")))
    });
    let line = ["parallax", "sync", "host", "--store", &store];
    app.run(line, &mut Vec::new(), &mut Vec::new())
}

pub(crate) fn files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

/// Sends a signal by its name.
#[cfg(unix)]
pub(crate) fn send(signal: &str, child: &Child) {
    let pid = child.id().to_string();
    let status = Command::new("kill").args(["-s", signal, &pid]).status();
    assert!(status.unwrap().success());
}
