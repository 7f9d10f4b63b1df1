//! The binary `parallax`.

use std::process::ExitCode;

use parallax_connector_host::Host;
use parallax_server::{App, Opened};

fn main() -> ExitCode {
    App::new()
        .register(
            "host",
            "This machine: system, users, groups, packages, processes",
            || {
                let host = Host::open()?;
                let machine_id = host.machine_id().map(str::to_owned);
                Ok(Opened::new(host).default_account(machine_id))
            },
        )
        .main()
}
