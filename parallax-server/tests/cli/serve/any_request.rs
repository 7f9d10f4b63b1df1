//! Whatever is asked, the daemon answers as its OpenAPI document says.
#![allow(
    clippy::print_stderr,
    reason = "what was skipped is the test's result, too"
)]

use std::process::Command;

use super::*;

/// How many requests of each operation are made up, besides those that cover its parameters.
const REQUESTS: u32 = 80;

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance";

#[test]
fn no_request_is_answered_with_an_error_of_ours() {
    let Some(schemathesis) = std::env::var_os("SCHEMATHESIS") else {
        eprintln!("skipped: schemathesis is not there; `cargo xtask setup` fetches it");
        return;
    };
    let dir = quiet_desk();
    assert_eq!(find_users(dir.path(), 12), 0);
    assert_eq!(find_users(dir.path(), 0), 6);
    let daemon = Daemon::start(dir.path());
    let (path, address) = ("/api/v1/openapi.json", &daemon.address);
    let output = Command::new("python3")
        .args(["-m", "schemathesis.cli", "run", "--no-color"])
        .arg(format!("http://{address}{path}"))
        .args([
            "--header",
            &format!("Authorization: Bearer {}", admin_token(dir.path())),
        ])
        // Has no end.
        .args(["--exclude-path", "/api/v1/events"])
        .args(["--checks", CHECKS])
        .args([
            "--phases",
            "coverage,fuzzing",
            "--max-examples",
            &REQUESTS.to_string(),
        ])
        .arg("--generation-deterministic")
        .current_dir(dir.path())
        .env("PYTHONPATH", schemathesis)
        .output()
        .unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(output.status.success(), "{told}");
    assert_eq!(daemon.get("/livez").1, "alive\n");
}
